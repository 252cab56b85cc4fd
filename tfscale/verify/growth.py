"""Verification of growth.json, the record of the growth that made a stage from its parent."""

from typing import Any

from tfscale.growth.operator import from_dict
from tfscale.stage.events import METRICS_FILE
from tfscale.stage.growth_record import GROWTH_FILE, read_growth
from tfscale.stage.spec import STAGE_FILE, StageSpec
from tfscale.verify.folder import Check, Parent, StageFolder


def verify_growth(this: StageFolder) -> Check[None]:
    """Check that parent, recipe and sizes match the specs, and that a preserving growth kept the logits
    within its tolerance."""
    file, spec = this.path / GROWTH_FILE, this.spec
    if spec.growth is None:
        return
    if not file.exists():
        if (this.path / METRICS_FILE).exists():
            yield f"{file}: missing; the stage has been trained, so its growth was recorded there"
        return
    growth = read_growth(this.path) or {}
    for name, wanted in _grown(spec, this.parent).items():
        if growth[name] != wanted:
            yield f"{file}: {name} is {growth[name]}; by {STAGE_FILE} and the parent it is {wanted}"
    yield from _optimizer(this, growth.get("optimizer"))
    comparison = growth["comparison"]
    moved, tolerance = comparison["max_logit_difference"], comparison["tolerance"]
    if growth["preserving"] and not moved <= tolerance:
        yield f"{file}: the growth moved logits by {moved:.3g}; a preserving one may by {tolerance:.3g}, no more"


def _optimizer(this: StageFolder, state: dict[str, Any] | None) -> Check[None]:
    """Check that the optimizers are those of the specs, and that their state was carried only between equal ones.
    Records of older versions do not have them."""
    if state is None:
        return
    file, child = this.path / GROWTH_FILE, this.spec.optimizer.name
    if state["child"] != child:
        yield f"{file}: the optimizer is {state['child']}; by {STAGE_FILE} it is {child}"
    parent = this.parent.spec.optimizer.name if this.parent else state["parent"]
    if state["parent"] not in (None, parent):
        yield f"{file}: the parent's optimizer is {state['parent']}; by its {STAGE_FILE} it is {parent}"
    if state["carried"] and state["parent"] != state["child"]:
        yield f"{file}: the state of {state['parent']} was carried to {state['child']}; only equal optimizers share it"


def _grown(spec: StageSpec, parent: Parent | None) -> dict[str, Any]:
    """Return the values expected in growth.json, except measurements."""
    wanted = {"parent": spec.parent, "recipe": spec.growth}
    if parent is None:
        return wanted
    assert spec.growth is not None
    growth = from_dict(spec.growth, spec.model)
    return wanted | {"parent_checkpoint": parent.result.checkpoint, **growth.facts(parent.spec.model, spec.model)}
