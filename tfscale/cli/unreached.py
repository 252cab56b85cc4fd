"""Notes on finished stages that a plan no longer reaches."""

from collections.abc import Sequence
from typing import Any

from tfscale.plan.unreached import Unreached

MOST_LINES = 4
"""Largest number of stages that are listed."""
MOST_SHOWN = 4
"""Largest number of differing fields that are listed per stage."""


def unreached_words(found: Sequence[Unreached]) -> list[str]:
    """Return a heading and a line for each of the first stages; no lines if there are none."""
    if not found:
        return []
    lines = [f"  {each.folder.name}: {_fields(each)}" for each in found[:MOST_LINES]]
    if len(found) > MOST_LINES:
        lines.append(f"  and {len(found) - MOST_LINES} more, which --json lists")
    return [f"{_number(found)} not part of the plan, and similar ones are still to be trained:", *lines]


def unreached_line(found: Sequence[Unreached]) -> str:
    """Return one line that points to `tfscale plan`, for at least one stage."""
    return f"{_number(found)} not part of the plan ({_fields(found[0])}); `tfscale plan` says by which fields"


def unreached_json(found: Sequence[Unreached]) -> list[dict[str, Any]]:
    """Return the stages as plain values for --json."""
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
        "1 finished stage of the runs folder is"
        if len(found) == 1
        else f"{len(found)} finished stages of the runs folder are"
    )


def _fields(each: Unreached) -> str:
    shown = ", ".join(map(str, each.differences[:MOST_SHOWN]))
    further = len(each.differences) - MOST_SHOWN
    return f"{shown} and {further} more" if further > 0 else shown
