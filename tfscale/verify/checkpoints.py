"""Verification of a stage's checkpoints, which must be complete and have the right model and totals."""

from pathlib import Path

from tfscale import checkpoint
from tfscale.checkpoint import MANIFEST_FILE, STATE_FILE, Counters
from tfscale.models.init import build_model
from tfscale.stage.result import DONE_FILE
from tfscale.stage.spec import CHECKPOINTS, STAGE_FILE, StageSpec
from tfscale.verify.folder import Check, StageFolder, costs_of, guarded, words


def verify_checkpoints(this: StageFolder) -> Check[None]:
    """Check that the final checkpoint exists, and that each checkpoint matches its manifest and contains the stage's
    model in the right shapes, with the totals of its step."""
    folders = sorted((this.path / CHECKPOINTS).glob("step-*"))
    final = this.path / CHECKPOINTS / checkpoint.folder_name(this.spec.steps)
    if this.finished and final not in folders:
        yield f"{final}: the final checkpoint of the finished stage is missing"
    for folder in folders:
        findings = list(guarded(folder, _checkpoint(this, folder)))
        if this.busy and not (folder / MANIFEST_FILE).exists():
            continue  # the stage's process is removing the folder, beginning with the manifest
        yield from findings


def _checkpoint(this: StageFolder, folder: Path) -> Check[None]:
    checkpoint.verify(folder)
    config, counters = checkpoint.read_state(folder)
    state = folder / STATE_FILE
    if config != this.spec.model:
        yield f"{state}: the model is {config}, but {STAGE_FILE} says {this.spec.model}"
    if folder.name != checkpoint.folder_name(counters.step):
        yield f"{state}: step is {counters.step}, but the folder is named {folder.name}"
    if this.before is not None:
        if counters.before != this.before:
            yield f"{state}: begins at {words(counters.before)}, but the parents ended at {words(this.before)}"
        yield from costs_of(f"{state}: totals", counters.totals, this.before, this.spec, counters.step, this.bad_steps)
    if this.result is not None and counters.step == this.result.step and counters.totals != this.result.totals:
        yield f"{state}: ends at {words(counters.totals)}, but {DONE_FILE} says {words(this.result.totals)}"
    yield from _tensors(this.spec, folder, counters)


def _tensors(spec: StageSpec, folder: Path, counters: Counters) -> Check[None]:
    wanted: dict[str, tuple[int, ...]] = {}
    for name, weight in build_model(spec.model, device="meta").named_parameters():
        slots = spec.optimizer.slots(name, weight.dim()) if counters.optimizer_step else ()
        wanted |= {f"{kind}/{name}": tuple(weight.shape) for kind in ("model", *(slot.name for slot in slots))}
    there = {name: tuple(shape) for name, shape in checkpoint.shapes(folder).items() if not name.startswith("rng/")}
    for name in sorted(wanted.keys() | there.keys()):
        if there.get(name) != wanted.get(name):
            has, needs = there.get(name, "missing"), wanted.get(name, "no such tensor")
            yield f"{folder}: {name} is {has}, but the stage's model has {needs}"
