"""Output of `tfscale plan --why`, which explains why a stage of a plan is trained."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tfscale.cli.common import Common
from tfscale.cli.console import answer, say
from tfscale.plan.plan import Plan
from tfscale.plan.unreached import Difference
from tfscale.plan.why import Near, nearest_stages, planned_stages
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.status import status_of


def why(common: Common, name: str) -> int:
    """Print why the stages that `name` selects are trained: the most similar finished stages, the fields that differ,
    and the overrides that reuse the finished stages. Return the exit code.

    Args:
        name: size, key or folder of one or several stages of the plan.
    """
    plan = common.plan()

    def replan(overrides: Iterable[str]) -> Plan:
        return replace(common, overrides=[*common.overrides, *overrides]).plan()

    stages = planned_stages(plan, name)
    found = {stage.key: [] if is_done(stage) else nearest_stages(plan, stage, replan) for stage in stages}
    if common.as_json:
        answer({"why": [_json(stage, found[stage.key]) for stage in stages]})
        return 0
    for stage in stages:
        for line in _words(stage, found[stage.key]):
            say(line)
    return 0


def _words(stage: Stage, nearest: Sequence[Near]) -> list[str]:
    about = f"{stage.path.name} ({stage.size}, seed {stage.spec.seed})"
    if is_done(stage):
        return [f"{about}: finished, so it is not trained again"]
    state = status_of(stage).state
    head = f"{about}: {'not started' if state == 'waiting' else state}, so it is trained"
    if not nearest:
        return [f"{head}; the runs folder has no similar finished stage"]
    lines = [f"{head}. The most similar finished stages have other values (finished -> planned):"]
    for near in nearest:
        lines.append(f"  {near.folder.name}: {_fields(near.differences)}")
        if near.inherited:
            lines.append(f"    its parents: {_fields(near.inherited)}")
        lines.append(f"    {'reused with ' + shlex.join(near.overrides) if near.overrides else 'no overrides known'}")
    return lines


def _fields(differences: Sequence[Difference]) -> str:
    return ", ".join(map(str, differences))


def _json(stage: Stage, nearest: Sequence[Near]) -> dict[str, Any]:
    return {
        "size": stage.size,
        "seed": stage.spec.seed,
        "key": stage.key,
        "state": status_of(stage).state,
        "nearest": [
            {
                "folder": near.folder,
                "differences": [vars(each) for each in near.differences],
                "inherited": [vars(each) for each in near.inherited],
                "overrides": near.overrides,
            }
            for near in nearest
        ],
    }
