"""Messages about finished stages that are no longer part of a plan."""

from collections.abc import Sequence
from typing import Any

from tfscale.plan.unreached import Unreached

MOST_LINES = 4
"""Maximum number of stages that the message lists."""
MOST_SHOWN = 4
"""Maximum number of fields that the message lists per stage."""


def unreached_words(found: Sequence[Unreached]) -> list[str]:
    """Return a heading and one line for each of the first `MOST_LINES` stages, or an empty list if there are no
    stages."""
    if not found:
        return []
    lines = [f"  {each.folder.name}: {_fields(each)}" for each in found[:MOST_LINES]]
    if len(found) > MOST_LINES:
        lines.append(f"  and {len(found) - MOST_LINES} more; --json lists all")
    return [f"{_number(found)} not part of the plan, which trains similar stages with other settings:", *lines]


def unreached_line(found: Sequence[Unreached]) -> str:
    """Return one line with the number of stages and a reference to `tfscale plan`. There must be at least one stage."""
    return f"{_number(found)} not part of the plan ({_fields(found[0])}); `tfscale plan` lists the fields that differ"


def unreached_json(found: Sequence[Unreached]) -> list[dict[str, Any]]:
    """Return the stages and the fields that differ, for `--json`."""
    return [
        {
            "folder": each.folder,
            "planned": each.planned.key,
            "size": each.planned.size,
            "differences": [vars(difference) for difference in each.differences],
        }
        for each in found
    ]


def _number(found: Sequence[Unreached]) -> str:
    return (
        "1 finished stage in the runs folder is"
        if len(found) == 1
        else f"{len(found)} finished stages in the runs folder are"
    )


def _fields(each: Unreached) -> str:
    shown = ", ".join(map(str, each.differences[:MOST_SHOWN]))
    further = len(each.differences) - MOST_SHOWN
    return f"{shown} and {further} more" if further > 0 else shown
