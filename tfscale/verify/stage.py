"""Verification of a stage's folder, on its own and in comparison with the folder of the parent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tfscale import checkpoint
from tfscale.growth.operator import from_dict
from tfscale.stage.ending import end_of, parent_loss
from tfscale.stage.events import METRICS_FILE, read_events
from tfscale.stage.folder import Stage, weights_dir
from tfscale.stage.growth_record import GROWTH_FILE, read_growth
from tfscale.stage.heldout import HELDOUT_FILE, read_blocks
from tfscale.stage.lock import held
from tfscale.stage.result import DONE_FILE, Result, has_result, read_result
from tfscale.stage.spec import CHECKPOINTS, STAGE_FILE, StageSpec, key_of, read_spec
from tfscale.totals import Totals
from tfscale.verify.checkpoints import verify_checkpoints
from tfscale.verify.folder import DAMAGE, Check, Parent, StageFolder, begun, costs_of, damaged, guarded, words
from tfscale.verify.metrics import verify_metrics


def verify_stage(stage: Stage, checkpoints: bool = True) -> list[str]:
    """Return one sentence for each fault in a stage's folder and each conflict with the parent's folder. With
    `checkpoints=False`, the checkpoints are not verified, and a finished stage need not have any checkpoint."""
    return list(guarded(stage.path, _stage(stage, checkpoints)))


def _stage(stage: Stage, checkpoints: bool) -> Check[None]:
    path = stage.path
    if not begun(path):
        return
    busy, finished = held(path) is not None, has_result(path)
    spec = yield from _spec(stage)
    if finished:
        spec = (yield from guarded(path / METRICS_FILE, _with_actual_end(path, spec))) or spec
    bad_steps = (yield from guarded(path / METRICS_FILE, _bad_steps(path))) or frozenset()
    result = (yield from guarded(path / DONE_FILE, _result(path, spec, bad_steps))) if finished else None
    parent = (yield from guarded(path / STAGE_FILE, _parent(path, spec))) if spec.parent else None
    before = yield from _before(path, spec, parent, result)
    source = (yield from guarded(path / STAGE_FILE, _source(path, spec, parent))) if parent else None
    this = StageFolder(path, spec, source, before, finished, result, busy, bad_steps)
    yield from guarded(path / GROWTH_FILE, _growth(this))
    yield from guarded(path / METRICS_FILE, verify_metrics(this))
    yield from guarded(path / HELDOUT_FILE, _blocks(this))
    if checkpoints:
        yield from guarded(path / CHECKPOINTS, verify_checkpoints(this))


def _growth(this: StageFolder) -> Check[None]:
    """Check that growth.json matches the specs of the stage and its parent, and that a function-preserving growth
    changed the logits by no more than the tolerance."""
    file, spec = this.path / GROWTH_FILE, this.spec
    if spec.growth is None:
        return
    if not file.exists():
        if (this.path / METRICS_FILE).exists():
            yield f"{file}: missing, although the stage has been grown and trained"
        return
    growth = read_growth(this.path) or {}
    for name, wanted in _expected_growth(spec, this.parent).items():
        if growth[name] != wanted:
            yield f"{file}: {name} is {growth[name]}, but by {STAGE_FILE} and the parent it must be {wanted}"
    yield from _optimizer(this, growth.get("optimizer"))
    comparison = growth["comparison"]
    moved, tolerance = comparison["max_logit_difference"], comparison["tolerance"]
    if growth["preserving"] and not moved <= tolerance:
        yield f"{file}: the growth changed the logits by {moved:.3g}, but the recipe allows at most {tolerance:.3g}"


def _optimizer(this: StageFolder, state: dict[str, Any] | None) -> Check[None]:
    """Check that the optimizers in growth.json match the specs, and that the optimizer state was carried over only if
    the optimizer did not change. `state` is None in files from older versions, which are not checked."""
    if state is None:
        return
    file, child = this.path / GROWTH_FILE, this.spec.optimizer.name
    if state["child"] != child:
        yield f"{file}: the optimizer is {state['child']}, but {STAGE_FILE} says {child}"
    parent = this.parent.spec.optimizer.name if this.parent else state["parent"]
    if state["parent"] not in (None, parent):
        yield f"{file}: the parent's optimizer is {state['parent']}, but its {STAGE_FILE} says {parent}"
    if state["carried"] and state["parent"] != state["child"]:
        carried = f"the state of {state['parent']} was carried over to {state['child']}"
        yield f"{file}: {carried}, but it must start empty if the optimizer changes"


def _expected_growth(spec: StageSpec, parent: Parent | None) -> dict[str, Any]:
    """Return the expected contents of growth.json, except measurements and the optimizer state."""
    wanted = {"parent": spec.parent, "recipe": spec.growth}
    if parent is None:
        return wanted
    assert spec.growth is not None
    growth = from_dict(spec.growth, spec.model)
    return wanted | {"parent_checkpoint": parent.result.checkpoint, **growth.facts(parent.spec.model, spec.model)}


def _blocks(this: StageFolder) -> Check[None]:
    """Check that the mean of the block losses in heldout.json is the final validation loss."""
    if this.result is not None:
        read_blocks(this.path, this.result.step, this.result.evaluation.loss)
    yield from ()


def _spec(stage: Stage) -> Check[StageSpec]:
    """Return the spec in `stage.yaml`. If the file is damaged or describes another stage, yield a finding and return
    the plan's spec."""
    try:
        spec = read_spec(stage.path)
    except DAMAGE as error:
        yield damaged(stage.path / STAGE_FILE, error)
        return stage.spec
    key = key_of(spec)
    if key != stage.key:
        yield f"{stage.path / STAGE_FILE}: describes the stage {key}, but the folder and the plan say {stage.key}"
        return stage.spec
    return spec


def _with_actual_end(path: Path, spec: StageSpec) -> Check[StageSpec]:
    """Return the spec of a finished stage with the actual number of tokens, computed from the recorded evaluations. If
    the stopping rule has not ended the stage according to these evaluations, yield a finding."""
    if not spec.may_end_early:
        return spec
    losses = {event["step"]: event["loss"] for event in read_events(path) if event["event"] == "eval"}
    last = end_of(spec, losses, parent_loss(spec, path))
    if last is None:
        rule = spec.ending.rule if spec.ending else "trial"
        yield f"{path / METRICS_FILE}: the stage is done, but the rule {rule} has not ended it"
        return spec
    return replace(spec, tokens=last * spec.batch_tokens)


def _bad_steps(path: Path) -> Check[frozenset[int]]:
    yield from ()
    return frozenset(event["step"] for event in read_events(path) if event["event"] == "non_finite")


def _result(path: Path, spec: StageSpec, bad_steps: frozenset[int]) -> Check[Result]:
    file, result = path / DONE_FILE, read_result(path)
    wanted = {"key": key_of(spec), "step": spec.steps, "tokens": spec.tokens,
              "checkpoint": checkpoint.folder_name(spec.steps)}  # fmt: skip
    for name, value in wanted.items():
        if getattr(result, name) != value:
            yield f"{file}: {name} is {getattr(result, name)}, but {STAGE_FILE} says {value}"
    yield from costs_of(f"{file}: totals", result.totals, result.before, spec, spec.steps, bad_steps)
    return result


def _parent(path: Path, spec: StageSpec) -> Check[Parent | None]:
    assert spec.parent_dir is not None, "the spec of a stage with a parent has parent_dir"
    folder = (path / spec.parent_dir).resolve()
    try:
        parent = Parent(read_spec(folder), read_result(folder))
    except DAMAGE as error:
        yield f"{path} grows from {spec.parent}, which is not a finished stage: {damaged(folder, error)}"
        return None
    key = key_of(parent.spec)
    if key != spec.parent:
        yield f"{path / STAGE_FILE}: parent_dir leads to the stage {key} in {folder}, but the parent is {spec.parent}"
        return None
    return parent


def _source(path: Path, spec: StageSpec, parent: Parent) -> Check[Parent]:
    """Return the stage from whose weights a stage started: the parent or, if `spec.returns` is True, the parent's
    parent. In the latter case, yield a finding if the parent's growth was not rejected."""
    if not spec.returns:
        return parent
    if not replace(parent.spec, tokens=parent.result.tokens).rejected:
        yield f"{path / STAGE_FILE}: returns is true, but the growth of the parent {spec.parent} was not rejected"
    folder = weights_dir(path, spec)
    return Parent(read_spec(folder), read_result(folder))


def _before(path: Path, spec: StageSpec, parent: Parent | None, result: Result | None) -> Check[Totals | None]:
    if spec.parent and parent is None:
        return result.before if result else None
    before = parent.result.totals if parent else Totals()
    if result and result.before != before:
        origin = f"the parent {spec.parent} ended at" if parent else "a stage without a parent begins at"
        yield f"{path / DONE_FILE}: begins at {words(result.before)}, but {origin} {words(before)}"
    return before
