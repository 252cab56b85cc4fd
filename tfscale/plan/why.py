"""Explanation of why a stage of the plan must be trained. The stage is compared with the most similar finished stages.
If overrides are known with which the plan would contain a finished stage, and would therefore reuse it, they are
listed."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tfscale.config.schema import Experiment, ModelPart, OptimPart
from tfscale.faults import Fault, UserFault
from tfscale.plan.plan import Plan
from tfscale.plan.unreached import Difference, differences, finished_specs
from tfscale.stage.folder import Stage, lineage
from tfscale.stage.spec import StageSpec, key_of

MOST_NEAR = 3
"""Maximum number of stages that `nearest_stages` returns."""
_SETTINGS = {
    "batch_tokens": "optim.batch_tokens",
    "data.heldout_start": "data.validation_start",
    "data.heldout_tokens": "data.validation_tokens",
    "data.order_seed": "data.shuffle_seed",
    "nested_dropout": "growth.nested_dropout",
    "schedule.decay": "optim.decay_fraction",
    "schedule.floor": "optim.min_lr_ratio",
    "schedule.kind": "optim.lr_schedule",
    "seed": "seed",
}
"""Mapping from fields of the stage key to the settings that determine them, for the fields without a separate rule in
`_override`."""

Replan = Callable[[Iterable[str]], Plan]
"""Function that makes the plan again with further overrides."""
Pair = tuple[Stage, StageSpec]
"""Stage of the plan, and the spec of a finished stage with which the planned stage is compared."""


@dataclass(frozen=True)
class Near:
    """Finished stage that is not part of the plan, compared with a stage of the plan."""

    folder: Path
    differences: tuple[Difference, ...]
    """Fields in which the two stages differ, without fields that follow from their parents."""
    inherited: tuple[Difference, ...]
    """Fields in which the ancestors of the two stages differ."""
    overrides: tuple[str, ...] = ()
    """Overrides with which the plan would contain the finished stage; empty if no such overrides are known."""


def planned_stages(plan: Plan, name: str) -> list[Stage]:
    """Return the stages of a plan whose size or folder name is `name`, or whose key begins with `name`. Raise UserFault
    if there are no such stages."""
    found = [stage for stage in plan.stages if name in (stage.size, stage.path.name) or stage.key.startswith(name)]
    if not found:
        choices = ", ".join(dict.fromkeys(stage.size for stage in plan.stages))
        rule = "must be a size, a folder name or the beginning of a key in the plan"
        raise UserFault([Fault("--why", name, rule, f"one of {choices}")])
    return found


def nearest_stages(plan: Plan, planned: Stage, replan: Replan) -> list[Near]:
    """Return up to `MOST_NEAR` finished stages that differ least from a stage of the plan, the most similar first.
    Stages with the same label as the planned stage come before all others. Only stages of the same model family are
    considered, and a grown stage is compared only with grown stages. Overrides are included only if the plan that
    `replan` makes with them contains the finished stage."""
    stages = {stage.key for stage in plan.stages}
    found = ((key_of(spec), (folder, spec)) for folder, spec in finished_specs(plan.runs))
    finished = {key: pair for key, pair in found if key not in stages}
    line = plan.lineage(planned)[::-1]
    ranked = []
    for folder, spec in finished.values():
        if spec.model.family == planned.spec.model.family and (spec.growth is None) == (planned.spec.growth is None):
            ancestors = lineage(spec, lambda child: finished.get(child.parent or "", (None, None))[1])[::-1]
            near = _compared(folder, list(zip(line, ancestors, strict=False)), plan.experiment)
            count = sum(each.field != "parent" for each in (*near.differences, *near.inherited))
            ranked.append((spec.label != planned.spec.label, count, folder.name, near))
    nearest = [near for *_, near in sorted(ranked, key=lambda each: each[:-1])[:MOST_NEAR]]
    return [near if _reaches(near, replan) else replace(near, overrides=()) for near in nearest]


def _compared(folder: Path, pairs: list[Pair], experiment: Experiment) -> Near:
    """Return the comparison of the finished stage in `folder` with a stage of the plan, and the overrides that might
    remove the differences. `pairs` contains the pair of these two stages, then the pair of their parents, and so on."""
    own, *others = [differences(spec, stage.spec) for stage, spec in pairs]
    inherited = {str(each): each for found in others for each in found if each.field != "parent"}
    overrides = [
        _override(experiment, pair, each)
        for pair, found in zip(pairs, (own, *others), strict=True)
        for each in found
        if each.field != "parent"
    ]
    known = tuple(dict.fromkeys(each for each in overrides if each))
    return Near(folder, own, tuple(inherited.values()), known if None not in overrides else ())


def _reaches(near: Near, replan: Replan) -> bool:
    try:
        return bool(near.overrides) and near.folder.name in {stage.path.name for stage in replan(near.overrides).stages}
    except UserFault:
        return False  # other settings do not allow the overrides


def _override(experiment: Experiment, pair: Pair, difference: Difference) -> str | None:
    """Return an override with which the field in `difference` may have the same value in the planned stage as in the
    finished stage. Return an empty string if the value follows from other settings, or None if no setting determines
    the value."""
    stage, finished = pair
    part, _, name = difference.field.partition(".")
    parts = experiment.schedule.stages.items()
    place = next((f"schedule.stages.{key}" for key, each in parts if each.size == stage.size), "")
    if difference.field == "optimizer.lr":
        own = any(each.size == stage.size and each.lr is not None for _, each in parts)
        rate = difference.finished / (experiment.growth.peak if stage.spec.growth else 1.0)
        return _typed(f"{place}.lr" if own else "optim.lr", rate)
    if part == "optimizer":
        shared = name in {field.name for field in fields(OptimPart)}
        return _typed(f"optim.{name}" if shared else f"+optim.options.{name}", difference.finished)
    if difference.field in ("rates.old", "rates.new") and None not in (difference.finished, difference.planned):
        return _typed(f"growth.{difference.field}", difference.finished)
    if part in ("growth", "rates") and finished.growth is not None:
        return _typed("growth", finished.growth["name"])
    if difference.field in ("model.qkv", "model.out", "model.ffn") and finished.growth is not None:
        return ""  # the groups of tokens follow from the growth and from the sizes
    if difference.field == "model.base_fan_in":
        return _typed("optim.parametrization", "fan_in" if difference.finished else "standard")
    if part == "model" and name in {field.name for field in fields(ModelPart)}:
        return _typed(difference.field, difference.finished)
    if difference.field == "schedule.warmup_tokens":
        follows = difference.finished == round(experiment.optim.warmup * finished.tokens)
        return "" if follows else _typed("optim.warmup", float(f"{difference.finished / finished.tokens:.3g}"))
    if difference.field == "tokens":
        return _typed(f"{place}.tokens", difference.finished)
    return _typed(_SETTINGS[difference.field], difference.finished) if difference.field in _SETTINGS else None


def _typed(setting: str, value: Any) -> str:
    return f"{setting}={value if isinstance(value, str) else json.dumps(value)}"
