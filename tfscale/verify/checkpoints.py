"""Verification of a stage's checkpoints, which must be complete and have the expected tensors and totals."""

from pathlib import Path

from tfscale import checkpoint
from tfscale.checkpoint import MANIFEST_FILE, STATE_FILE, Counters
from tfscale.checkpoint.slots import slots_fault, slots_in
from tfscale.models.init import build_model
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import DONE_FILE
from tfscale.stage.spec import CHECKPOINTS, STAGE_FILE, StageSpec
from tfscale.verify.folder import Check, StageFolder, costs_of, guarded, words


def verify_checkpoints(this: StageFolder) -> Check[None]:
    """Check that a finished stage has its final checkpoint, and that each checkpoint matches its manifest, has the
    totals of its step, and contains the model's weights and the optimizer state in the expected shapes."""
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
    yield from _updates(this, folder, counters)
    yield from _tensors(this.spec, folder, counters)


def _tensors(spec: StageSpec, folder: Path, counters: Counters) -> Check[None]:
    """Check that a checkpoint contains the weights of the model and, after the first update, the optimizer state, and
    no other tensors except states of random generators."""
    there = {name: tuple(shape) for name, shape in checkpoint.shapes(folder).items() if not name.startswith("rng/")}
    weights = {name: tuple(weight.shape) for name, weight in build_model(spec.model, device="meta").named_parameters()}
    wanted = {f"model/{name}": shape for name, shape in weights.items()}
    slots = slots_in(there)
    if fault := slots_fault(there, spec.optimizer, counters):
        yield f"{folder}: {fault}"
        there = {name: shape for name, shape in there.items() if name not in slots}
    else:
        wanted |= {name: weights[weight] for name in slots if (weight := name.partition("/")[2]) in weights}
    for name in sorted(wanted.keys() | there.keys()):
        if there.get(name) != wanted.get(name):
            has, needs = there.get(name, "missing"), wanted.get(name, "no such tensor")
            yield f"{folder}: {name} is {has}, but the stage's model has {needs}"


def _updates(this: StageFolder, folder: Path, counters: Counters) -> Check[None]:
    """Check that the number of optimizer updates in a checkpoint is the number carried over from the parent plus one
    per step. Steps with a non-finite loss or gradient may have skipped their update."""
    first = 0
    if this.spec.growth is not None:
        state = (read_growth(this.path) or {}).get("optimizer")
        if state is None:
            return  # an older version did not record the number of updates
        first = int(state["updates"])
    trained = 0 if this.spec.init_from is not None else counters.step
    skipped = len(this.bad_steps)
    most = first + trained
    if not most - skipped <= counters.optimizer_step <= most:
        counted = f"{folder / STATE_FILE}: the optimizer has counted {counters.optimizer_step:,} updates"
        steps = f"{trained:,} steps" + (f" ({skipped:,} non-finite)" if skipped else "")
        allowed = f"{most - skipped:,} to {most:,}" if skipped else f"{most:,}"
        yield f"{counted}, but after {first:,} updates of the parents and {steps} it must be {allowed}"
