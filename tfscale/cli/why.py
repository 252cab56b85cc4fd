"""Messages about finished stages that differ from the stages of a plan, for `tfscale plan`, its option --why, and
`tfscale run`."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tfscale.cli.common import Common
from tfscale.cli.console import answer, say
from tfscale.plan.plan import Plan
from tfscale.plan.unreached import Difference, Unreached
from tfscale.plan.why import Near, nearest_stages, planned_stages
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.status import status_of

MOST_LISTED = 4
"""Maximum number of stages, and of fields per stage, in a message on finished stages outside a plan."""


def why(common: Common, name: str) -> int:
    """Print why each stage that `name` selects by size, key or folder is trained or not, and return the exit code. For
    an unfinished stage, also print similar finished stages, the fields that differ, and overrides that reuse them."""
    plan = common.plan()

    def replan(overrides: Iterable[str]) -> Plan:
        return replace(common, overrides=[*common.overrides, *overrides]).plan()

    stages = planned_stages(plan, name)
    found = {stage.key: [] if is_done(stage) else nearest_stages(plan, stage, replan) for stage in stages}
    if common.as_json:
        answer({"why": [_json(stage, found[stage.key]) for stage in stages]})
    else:
        say(*(line for stage in stages for line in _words(stage, found[stage.key])))
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
        "nearest": nearest,
    }


def unreached_words(found: Sequence[Unreached]) -> list[str]:
    """Return the lines of a message on finished stages that are not part of the plan. After the heading, there is one
    line for each of the first `MOST_LISTED` stages and, if there are more, a line with the number of others. If
    `found` is empty, return no lines."""
    if not found:
        return []
    lines = [f"  {each.folder.name}: {_first_fields(each)}" for each in found[:MOST_LISTED]]
    if len(found) > MOST_LISTED:
        lines.append(f"  and {len(found) - MOST_LISTED} more; --json lists all")
    return [f"{_number(found)} not part of the plan, which trains similar stages with other settings:", *lines]


def unreached_line(found: Sequence[Unreached]) -> str:
    """Return a one-line message on finished stages that are not part of the plan, with the fields in which the first
    of them differs from the planned stage. There must be at least one stage."""
    shown = _first_fields(found[0])
    return f"{_number(found)} not part of the plan ({shown}); `tfscale plan` lists the fields that differ"


def unreached_json(found: Sequence[Unreached]) -> list[dict[str, Any]]:
    """Return finished stages that are not part of the plan, with the fields in which they differ from planned stages,
    as JSON objects."""
    return [
        {
            "folder": each.folder,
            "planned": each.planned.key,
            "size": each.planned.size,
            "differences": each.differences,
        }
        for each in found
    ]


def _number(found: Sequence[Unreached]) -> str:
    if len(found) == 1:
        return "1 finished stage in the runs folder is"
    return f"{len(found)} finished stages in the runs folder are"


def _first_fields(each: Unreached) -> str:
    shown, further = _fields(each.differences[:MOST_LISTED]), len(each.differences) - MOST_LISTED
    return f"{shown} and {further} more" if further > 0 else shown
