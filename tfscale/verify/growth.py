"""Verification of growth.json, the record of the growth from a parent to a stage."""

from typing import Any

from tfscale.growth.operator import from_dict
from tfscale.stage.events import METRICS_FILE
from tfscale.stage.growth_record import GROWTH_FILE, read_growth
from tfscale.stage.spec import STAGE_FILE, StageSpec
from tfscale.verify.folder import Check, Parent, StageFolder


def verify_growth(this: StageFolder) -> Check[None]:
    """Check that the recorded parent, recipe and sizes match the specs of the stages, and that a function-preserving
    growth changed the logits by no more than the tolerance."""
    file, spec = this.path / GROWTH_FILE, this.spec
    if spec.growth is None:
        return
    if not file.exists():
        if (this.path / METRICS_FILE).exists():
            yield f"{file}: missing, although the stage has been grown and trained"
        return
    growth = read_growth(this.path) or {}
    for name, wanted in _grown(spec, this.parent).items():
        if growth[name] != wanted:
            yield f"{file}: {name} is {growth[name]}, but by {STAGE_FILE} and the parent it must be {wanted}"
    yield from _optimizer(this, growth.get("optimizer"))
    comparison = growth["comparison"]
    moved, tolerance = comparison["max_logit_difference"], comparison["tolerance"]
    if growth["preserving"] and not moved <= tolerance:
        yield f"{file}: the growth changed the logits by {moved:.3g}, but the recipe allows at most {tolerance:.3g}"


def _optimizer(this: StageFolder, state: dict[str, Any] | None) -> Check[None]:
    """Check that the recorded optimizers match the specs, and that the optimizer state was carried over only if the
    parent and the stage have the same optimizer. Records of older versions do not name the optimizers."""
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


def _grown(spec: StageSpec, parent: Parent | None) -> dict[str, Any]:
    """Return the expected contents of growth.json, except measurements and the optimizer state."""
    wanted = {"parent": spec.parent, "recipe": spec.growth}
    if parent is None:
        return wanted
    assert spec.growth is not None
    growth = from_dict(spec.growth, spec.model)
    return wanted | {"parent_checkpoint": parent.result.checkpoint, **growth.facts(parent.spec.model, spec.model)}
