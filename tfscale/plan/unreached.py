"""Finished stages of the runs folder that a plan no longer reaches, and the fields that differ.

Changed defaults change the keys of stages, and what was trained before is then trained again. A finished stage counts
as the former version of a planned one that is not finished if both have the same label, seed and kind of parent and few
fields of their keys differ.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.result import DONE_FILE
from tfscale.stage.spec import StageSpec, read_spec, what_of

MOST_FIELDS = 8
"""Largest number of differing fields of a stage and its former version."""
_CLASSES = ("name", "family", "kind")
"""Fields that name the class of the fields beside them."""
_BY_THE_PARENT = (("data", "start"), ("schedule", "warmup_from"), ("parent",))
"""Fields of a grown stage that follow from its parent."""
_LONGEST = 24
"""Largest number of characters of a value that is shown."""


@dataclass(frozen=True)
class Difference:
    """Field of a stage's key in which a finished stage differs from a planned one."""

    field: str
    """Name of the field in `stage.yaml`, such as optimizer.lr."""
    finished: Any
    """Value of the finished stage; None if it has no such field."""
    planned: Any

    def __str__(self) -> str:
        values = [_short(self.finished), _short(self.planned)]
        return self.field if max(map(len, values)) > _LONGEST else f"{self.field} {values[0]} -> {values[1]}"


@dataclass(frozen=True)
class Unreached:
    """Finished stage that the plan does not reach."""

    folder: Path
    planned: Stage
    """Stage of the plan that the finished one is nearest to."""
    differences: tuple[Difference, ...]


def unreached_stages(plan: Plan) -> list[Unreached]:
    """Return the former version of each stage of a plan that is not finished, if there is one, in the plan's order.
    Nothing is read if all stages are finished."""
    if plan.corpus.missing:
        return []  # the keys depend on the corpus
    nearest: dict[str, Unreached] = {}
    for found in _candidates(plan):
        known = nearest.get(found.planned.key)
        if known is None or len(found.differences) < len(known.differences):
            nearest[found.planned.key] = found
    return [nearest[stage.key] for stage in plan.stages if stage.key in nearest]


def _candidates(plan: Plan) -> Iterator[Unreached]:
    """Yield each finished stage that the plan does not reach, with the stage of the plan that it is nearest to."""
    left: defaultdict[tuple[object, ...], list[Stage]] = defaultdict(list)
    for stage in plan.stages:
        if not is_done(stage):
            left[_kind(stage.spec)].append(stage)
    labels = {stage.spec.label for stages in left.values() for stage in stages}
    reached = {stage.path.name for stage in plan.stages}
    for folder in _finished(plan.runs / "stages", labels, reached):
        try:
            spec = read_spec(folder)
        except ValueError:
            continue  # damaged, or of an extension that is not loaded
        pairs = [Unreached(folder, stage, differences(spec, stage.spec)) for stage in left[_kind(spec)]]
        near = [pair for pair in pairs if len(pair.differences) <= MOST_FIELDS]
        if near:
            yield min(near, key=lambda pair: len(pair.differences))


def _finished(stages: Path, labels: Iterable[str], reached: Iterable[str]) -> Iterator[Path]:
    """Yield the folders of finished stages with one of these labels, except those that are reached."""
    for done in sorted(stages.glob(f"*/{DONE_FILE}")):
        name = done.parent.name
        if name.rpartition("-")[0] in labels and name not in reached:
            yield done.parent


def _kind(spec: StageSpec) -> tuple[object, ...]:
    """Return what a stage and its former version have in common: label (family and parameters), seed, whether the
    weights are imported, and the label of the parent."""
    parent = PurePath(spec.parent_dir).name.rpartition("-")[0] if spec.parent_dir else None
    return spec.label, spec.seed, spec.init_from is not None, parent


def differences(finished: StageSpec, planned: StageSpec) -> tuple[Difference, ...]:
    """Return the fields of two stages' keys that differ. Fields that follow from another parent are left out, unless
    nothing else differs."""
    found = list(_differences((), _readable(finished), _readable(planned)))
    own = [each for path, each in found if planned.parent is None or path not in _BY_THE_PARENT]
    return tuple(own or [each for path, each in found if path == ("parent",)])


def _readable(spec: StageSpec) -> dict[str, Any]:
    """Return the fields that a stage's key is a hash of, including those that `stage.yaml` leaves out at their
    defaults, the optimizer's first."""
    values = {
        "optimizer": {"name": spec.optimizer.name} | asdict(spec.optimizer),
        "model": {"family": spec.model.family} | asdict(spec.model),
        "growth": None if spec.growth is None else {key: value for key, value in spec.growth.items() if key != "name"},
    }
    values |= {name: value for name, value in what_of(spec).items() if name not in values}
    if spec.ending is not None:
        del values["tokens"]  # follows from the rule
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
    """Return a value as JSON would return it, where a tuple is a list."""
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
