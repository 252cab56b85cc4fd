"""Former names of settings, which are accepted until version `ACCEPTED_UNTIL`. When a former name is used for the first
time, a note is printed on standard error."""

import sys
from functools import cache
from typing import Any

ACCEPTED_UNTIL = "0.3"
KEYS = {
    "data.heldout": "data.validation",
    "data.heldout_start": "data.validation_start",
    "data.heldout_tokens": "data.validation_tokens",
    "data.order_seed": "data.shuffle_seed",
    "launcher.recompute": "launcher.activation_checkpointing",
    "optim.decay": "optim.decay_fraction",
    "optim.floor": "optim.min_lr_ratio",
    "optim.schedule": "optim.lr_schedule",
    "schedule.grow_when.every": "schedule.grow_when.eval_every",
    "schedule.grow_when.least": "schedule.grow_when.min_delta",
    "schedule.grow_when.looks": "schedule.grow_when.patience",
}
"""Mapping from the former key of each renamed setting to its current key."""


def renamed_override(text: str) -> str:
    """Return the override with a former key replaced by its current key, and print a note. Return any other override
    unchanged."""
    name, equals, value = text.partition("=")
    key = name.lstrip("+")
    if key in KEYS:
        _note(key, KEYS[key])
        name = name.removesuffix(key) + KEYS[key]
    return f"{name}{equals}{value}"


def rename_keys(values: dict[str, Any]) -> None:
    """Replace former keys in a composed configuration, in place, and print notes. Shipped files contain no former keys,
    so a former key comes from the user and overrides the shipped value."""
    for former, present in KEYS.items():
        *parts, name = former.split(".")
        part: Any = values
        for each in parts:
            part = part.get(each) if isinstance(part, dict) else None
        if isinstance(part, dict) and name in part:
            _note(former, present)
            part[present.rpartition(".")[2]] = part.pop(name)


@cache
def _note(former: str, present: str) -> None:
    print(f"note: {former} is now {present}; the old name is accepted until version {ACCEPTED_UNTIL}", file=sys.stderr)
