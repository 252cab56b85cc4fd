"""Creation of the first checkpoint of a grown stage from the last checkpoint of its parent, and of the checkpoint of a
stage with imported weights."""

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint
from tfscale.data.batches import heldout_batches
from tfscale.data.prepared import open_data
from tfscale.extensions import require_extensions
from tfscale.files import write_json
from tfscale.growth.grow_checkpoint import OptimizerState, grow_checkpoint
from tfscale.growth.imported_weights import take_over
from tfscale.growth.operator import Growth, from_dict
from tfscale.host import process_peak_memory
from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.stage.folder import weights_dir
from tfscale.stage.growth_record import GROWTH_FILE, is_grown
from tfscale.stage.lock import stage_lock
from tfscale.stage.result import read_result
from tfscale.stage.spec import CHECKPOINTS, STAGE_FILE, StageSpec, read_spec

VERIFICATION_TOKENS = 2048
"""Maximum number of validation tokens on which the logits of parent and child are compared. One sequence is compared
even if it has more tokens."""
FLOAT64_PARAMETERS = 100_000_000
"""Maximum number of parameters of a child for a comparison of logits in float64. The logits of larger models are
compared in float32 to save memory."""


class NotPreserved(Exception):
    """Error raised if a function-preserving growth has changed the logits."""


@dataclass(frozen=True)
class LogitsComparison:
    """Comparison of the logits and losses of a parent stage and its child stage on the same tokens."""

    loss_before: float
    """Mean loss of the parent in nats per token."""
    loss_after: float
    """Mean loss of the child in nats per token."""
    max_logit_difference: float
    """Largest absolute difference between a logit of the parent and the same logit of the child."""
    tolerance: float
    """Largest difference that rounding can explain, given the magnitude of the logits and the precision."""
    precision: str
    """Floating-point type of the compared logits, `float64` or `float32`."""
    tokens: int
    """Number of tokens on which the models are compared."""


def grow_stage(stage_dir: Path) -> None:
    """Write growth.json and the checkpoint at step 0 of a grown stage. The weights come from the last checkpoint of the
    parent or, if the growth of the parent was rejected, from the last checkpoint of the parent's parent. For a stage
    with imported weights, write import.json and the final checkpoint instead. If the stage has already been grown or
    imported, do nothing.

    Raises:
        BrokenCheckpoint: the checkpoint from which the weights come is damaged.
        NotPreserved: a function-preserving recipe has changed the logits; the new checkpoint is removed.
        ValueError: the stage neither grows from a parent nor imports weights, the parent stage is not finished, or a
            spec is invalid.
        StageHeld: another process works on the stage.
    """
    spec = read_spec(stage_dir)
    require_extensions(spec.extensions, same_version=True)
    if spec.init_dir is not None:
        with stage_lock(stage_dir):
            if not is_grown(stage_dir):
                take_over(stage_dir, spec)
        return
    if spec.parent_dir is None or spec.growth is None:
        raise ValueError(f"{stage_dir}: must be the folder of a stage that grows from another stage")
    growth = _growth_of(spec, stage_dir)
    source = weights_dir(stage_dir, spec)
    parent = source / CHECKPOINTS / read_result(source).checkpoint
    child = stage_dir / CHECKPOINTS / checkpoint.folder_name(0)
    with stage_lock(stage_dir):
        if is_grown(stage_dir):
            return  # another process has grown the stage
        checkpoint.sweep(stage_dir / CHECKPOINTS)
        shutil.rmtree(child, ignore_errors=True)  # left by a process that was killed before the comparison
        started = time.perf_counter()
        checkpoint.verify(parent)
        before, spent = read_spec(source).optimizer, read_result(stage_dir / spec.parent_dir).totals
        state = grow_checkpoint(parent, child, spec.model, growth, spec.optimizer, spec.seed, before, spent)
        seconds = time.perf_counter() - started
        result = _compare(stage_dir, spec, parent, child, growth.rounds)
        report = _report(spec, parent, growth, state, result, seconds)
        if report["preserving"] and result.max_logit_difference > result.tolerance:
            shutil.rmtree(child)
            raise NotPreserved(
                f"growth={growth.name} must preserve the logits of {spec.parent}, but changed them by up to "
                f"{result.max_logit_difference:.3g} (rounding can explain up to {result.tolerance:.3g}); the new "
                "checkpoint was removed"
            )
        write_json(stage_dir / GROWTH_FILE, report)
        if state.note:
            print(f"note: {state.note}")


def _growth_of(spec: StageSpec, stage_dir: Path) -> Growth:
    assert spec.growth is not None
    try:
        return from_dict(spec.growth, spec.model)
    except TypeError as error:
        raise ValueError(f"{stage_dir / STAGE_FILE}: growth: {error}") from error


def grow_finished_stage(
    stage_dir: Path, to: Path, config: ModelConfig, growth: Growth, seed: int
) -> tuple[LogitsComparison, OptimizerState]:
    """Grow the checkpoint of a finished stage, keep its optimizer, and write the new checkpoint to the folder `to`.
    Return a comparison of the logits before and after the growth, and a description of the initial optimizer state.

    Raises:
        ValueError: the stage is not finished, its checkpoint is damaged, or `to` cannot be written.
    """
    spec = read_spec(stage_dir)
    parent = stage_dir / CHECKPOINTS / read_result(stage_dir).checkpoint
    try:
        checkpoint.verify(parent)
        state = grow_checkpoint(parent, to, config, growth, spec.optimizer, seed)
    except (BrokenCheckpoint, OSError) as error:
        raise ValueError(str(error)) from error
    return _compare(stage_dir, spec, parent, to, growth.rounds), state


def _compare(stage_dir: Path, spec: StageSpec, parent: Path, child: Path, rounded: bool) -> LogitsComparison:
    data = open_data(stage_dir / spec.run.data_dir, spec.data.fingerprint)
    context = spec.model.context
    sequences = max(1, min(VERIFICATION_TOKENS, spec.data.heldout_tokens) // context)
    start = spec.data.heldout_start
    inputs, targets = next(iter(heldout_batches(data.heldout, context, sequences * context, sequences, start)))
    return compare_logits(parent, child, inputs, targets, rounded)


@torch.inference_mode()
def compare_logits(
    parent: Path, child: Path, inputs: Tensor, targets: Tensor, rounded: bool = False
) -> LogitsComparison:
    """Return a comparison of the logits and losses of two checkpoints on `inputs` and `targets` [batch, context].
    `rounded` is True if weights of the child are rounded fractions of the parent's weights; the tolerance is then
    larger."""
    config, _ = checkpoint.read_state(child)
    dtype = torch.float64 if parameters(config) <= FLOAT64_PARAMETERS else torch.float32
    before, after = _logits(parent, inputs, dtype), _logits(child, inputs, dtype)
    scale = before.abs().max().item()
    return LogitsComparison(
        loss_before=_loss(before, targets),
        loss_after=_loss(after, targets),
        max_logit_difference=(after - before).abs().max().item(),
        # Summing n products in another order changes a value by a few hundred units in the last place.
        tolerance=max(1e4 * torch.finfo(dtype).eps, 1e2 * torch.finfo(torch.float32).eps * rounded) * max(scale, 1.0),
        precision=str(dtype).removeprefix("torch."),
        tokens=targets.numel(),
    )


def _logits(folder: Path, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    logits: Tensor = checkpoint.load_model(folder).to(dtype)(inputs)
    return logits


def _loss(logits: Tensor, targets: Tensor) -> float:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()


def _report(
    spec: StageSpec, parent: Path, growth: Growth, state: OptimizerState, result: LogitsComparison, seconds: float
) -> dict[str, Any]:
    old, _ = checkpoint.read_state(parent)
    return {
        "recipe": spec.growth,
        "parent": spec.parent,
        "parent_checkpoint": parent.name,
        **growth.facts(old, spec.model),
        "optimizer": asdict(state),
        "comparison": asdict(result),
        "seconds": seconds,
        "peak_memory": process_peak_memory(),
    }
