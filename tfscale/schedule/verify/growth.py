"""Whether growth.json is the growth that made the stage from its parent."""

from dataclasses import asdict
from typing import Any

from tfscale.growth.recipe import GrowthRecipe, preserves
from tfscale.models.config import TokenFormerConfig
from tfscale.models.counts import parameters
from tfscale.schedule.ledger import GROWTH_FILE
from tfscale.schedule.verify.folder import Parent, StageFolder
from tfscale.schedule.verify.reading import Check, read_object
from tfscale.training.events import METRICS_FILE
from tfscale.training.spec import STAGE_FILE, StageSpec


def verify_growth(this: StageFolder) -> Check[None]:
    """Parent, recipe and sizes are those of the specs, and a growth that preserves has moved no logit."""
    file, spec = this.path / GROWTH_FILE, this.spec
    if spec.growth is None:
        return
    if not file.exists():
        if (this.path / METRICS_FILE).exists():
            yield f"{file}: missing; the stage has been trained, so its growth was recorded there"
        return
    growth = read_object(file)
    for name, wanted in _grown(spec, this.parent).items():
        if growth[name] != wanted:
            yield f"{file}: {name} is {growth[name]}; by {STAGE_FILE} and the parent it is {wanted}"
    comparison = growth["comparison"]
    moved, tolerance = comparison["max_logit_difference"], comparison["tolerance"]
    if growth["preserving"] and not moved <= tolerance:
        yield f"{file}: the growth moved logits by {moved:.3g}; a preserving one may by {tolerance:.3g}, no more"


def _grown(spec: StageSpec, parent: Parent | None) -> dict[str, Any]:
    """What growth.json says of a stage, apart from what was measured."""
    new, layers = spec.model, ("qkv", "out", "ffn")
    assert isinstance(new, TokenFormerConfig)
    wanted = {
        "parent": spec.parent,
        "recipe": spec.growth,
        "groups": {name: [asdict(group) for group in getattr(new, name)] for name in layers},
    }
    if parent is None:
        return wanted
    old = parent.spec.model
    assert isinstance(old, TokenFormerConfig)
    assert spec.growth is not None
    return wanted | {
        "parent_checkpoint": parent.end.checkpoint,
        "tokens": {
            name: {"before": before, "after": after}
            for name, before, after in zip(layers, old.tokens, new.tokens, strict=True)
        },
        "parameters": {"before": parameters(old), "after": parameters(new)},
        "preserving": preserves(GrowthRecipe(**spec.growth), old, new),
    }
