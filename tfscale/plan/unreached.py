"""Finished stages in the runs folder that are no longer part of a plan, and how they differ from planned stages.

When defaults change, the keys of stages change, and stages that were trained before are trained again. A finished stage
is a former version of an unfinished stage of the plan if both have the same label and seed, their parents have the same
label, and their keys differ in only a few fields.
"""

import json
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import DONE_FILE
from tfscale.stage.spec import StageSpec, key_fields, read_spec

MOST_FIELDS = 8
"""Maximum number of fields in which a stage and its former version may differ."""
_CLASSES = ("name", "family", "kind")
"""Fields that name the class to which the other fields of the same mapping belong."""
_BY_THE_PARENT = (("data", "start"), ("schedule", "warmup_from"), ("parent",))
"""Fields whose values follow from the parent, if a stage has a parent. Each field is a path that consists of the names
of the enclosing mappings and the name of the field."""
_LONGEST = 24
"""Maximum number of characters of a displayed value."""


@dataclass(frozen=True)
class Difference:
    """Field of the stage key in which a finished stage differs from a stage of the plan."""

    field: str
    """Name of the field in `stage.yaml`, such as optimizer.lr."""
    finished: Any
    """Value of the field in the finished stage, or None if the stage does not have the field."""
    planned: Any
    """Value of the field in the stage of the plan, or None if the stage does not have the field."""

    def __str__(self) -> str:
        values = [_short(self.finished), _short(self.planned)]
        return self.field if max(map(len, values)) > _LONGEST else f"{self.field} {values[0]} -> {values[1]}"


@dataclass(frozen=True)
class Unreached:
    """Finished stage that is a former version of an unfinished stage of the plan."""

    folder: Path
    planned: Stage
    """Unfinished stage of the plan that differs from the finished stage in the fewest fields."""
    differences: tuple[Difference, ...]


def unreached_stages(plan: Plan) -> list[Unreached]:
    """Return the most similar former version of each unfinished stage of a plan, in the order of the plan. Stages
    without a former version are left out. A finished stage counts as a former version of only one stage, the most
    similar one, and only if the two differ in at most `MOST_FIELDS` fields. If the corpus is missing, the list is
    empty, because stage keys depend on the corpus."""
    if plan.corpus.missing:
        return []  # the keys depend on the corpus
    left: defaultdict[tuple[object, ...], list[Stage]] = defaultdict(list)
    for stage in plan.stages:
        if not is_done(stage):
            left[_kind(stage.spec)].append(stage)
    labels = {stage.spec.label for stages in left.values() for stage in stages}
    reached = {stage.path.name for stage in plan.stages}
    nearest: dict[str, Unreached] = {}
    for folder, spec in finished_specs(plan.runs, labels):
        if folder.name in reached or not left[_kind(spec)]:
            continue
        pairs = [Unreached(folder, stage, differences(spec, stage.spec)) for stage in left[_kind(spec)]]
        found = min(pairs, key=_count)
        known = nearest.get(found.planned.key)
        if _count(found) <= MOST_FIELDS and (known is None or _count(found) < _count(known)):
            nearest[found.planned.key] = found
    return [nearest[stage.key] for stage in plan.stages if stage.key in nearest]


def _count(pair: Unreached) -> int:
    return len(pair.differences)


def finished_specs(runs: Path, labels: Container[str] | None = None) -> Iterator[tuple[Path, StageSpec]]:
    """Yield the folder and the spec of each finished stage in the runs folder. Stages that cannot be read are skipped.
    If `labels` is not None, only stages with one of these labels are included."""
    for done in sorted((runs / "stages").glob(f"*/{DONE_FILE}")):
        if labels is not None and done.parent.name.rpartition("-")[0] not in labels:
            continue
        try:
            spec = read_spec(done.parent)
        except ValueError:
            continue  # the file is damaged, or needs an extension that is not loaded
        yield done.parent, spec


def _kind(spec: StageSpec) -> tuple[object, ...]:
    """Return the label, the seed, whether the weights are imported, and the label of the parent or None. A stage and
    its former versions agree in these values."""
    parent = PurePath(spec.parent_dir).name.rpartition("-")[0] if spec.parent_dir else None
    return spec.label, spec.seed, spec.init_from is not None, parent


def differences(finished: StageSpec, planned: StageSpec) -> tuple[Difference, ...]:
    """Return the fields in which the keys of two stages differ, without fields that follow from the parent. If only
    such fields differ, return the field `parent`."""
    found = list(_differences((), _readable(finished), _readable(planned)))
    own = [each for path, each in found if planned.parent is None or path not in _BY_THE_PARENT]
    return tuple(own or [each for path, each in found if path == ("parent",)])


def _readable(spec: StageSpec) -> dict[str, Any]:
    """Return the fields of a stage's key by name, the optimizer first. Fields that `stage.yaml` omits because they have
    their default values are included."""
    values = {
        "optimizer": {"name": spec.optimizer.name} | asdict(spec.optimizer),
        "model": {"family": spec.model.family} | asdict(spec.model),
        "growth": None if spec.growth is None else {key: value for key, value in spec.growth.items() if key != "name"},
    }
    values |= {name: value for name, value in key_fields(spec).items() if name not in values}
    if spec.may_end_early:
        del values["tokens"]  # set by the rule that ends the stage
    return values


def _differences(path: tuple[str, ...], one: Any, other: Any) -> Iterator[tuple[tuple[str, ...], Difference]]:
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        if one != other and _plain(one) != _plain(other):
            yield path, Difference(".".join(path), one, other)
        return
    same_class = all(one.get(name) == other.get(name) for name in _CLASSES)
    for name in dict.fromkeys((*one, *other)):
        if same_class or (name in one and name in other) or name in _CLASSES:
            yield from _differences((*path, name), one.get(name), other.get(name))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))  # as in the file, where a tuple is a list


def _short(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
