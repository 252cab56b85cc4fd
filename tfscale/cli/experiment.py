"""What every verb begins with: overrides to a plan, and a console to speak through."""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tfscale.config.compose import compose
from tfscale.config.origins import with_origins
from tfscale.faults import UserFault
from tfscale.schedule.plan import Plan, make_plan

LOG_WIDTH = 120
"""Columns where there is no terminal, so that nothing is cut off in a log file."""

console = Console(highlight=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = LOG_WIDTH


def leave_stdout(alone: bool) -> None:
    """Has all that is said for people go to standard error from now on, or to standard output again."""
    console.stderr = alone
    if "COLUMNS" not in os.environ:
        # None: as wide as the terminal is, whenever it is asked.
        console.width = None if console.is_terminal else LOG_WIDTH  # type: ignore[assignment]


def answer(document: object) -> None:
    """The JSON document of --json, on standard output. What is no number is null."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """The same in what JSON has a form of."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def say(text: str) -> None:
    """A line as it is: whole when it is piped, wrapped by the terminal when it is long."""
    console.print(text, markup=False, soft_wrap=True)


def table(title: str, left: Sequence[str], right: Sequence[str], caption: str | None = None) -> Table:
    """A table that fits eight figures into 80 columns; first the columns that align left, then those that align
    right."""
    made = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, title_justify="left")
    made.show_edge = made.pad_edge = False
    made.padding = (0, 1, 0, 0)
    for name in left:
        made.add_column(name, justify="left", no_wrap=True)
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def plan_of(overrides: Sequence[str], config_dir: Path | None) -> Plan:
    """The plan of the overrides.

    Raises:
        UserFault: with all that is wrong.
    """
    experiment = compose(overrides, config_dir)
    try:
        return make_plan(experiment)
    except UserFault as fault:
        raise UserFault(with_origins(fault.faults, overrides, config_dir)) from fault


def quantity(count: float) -> str:
    """123.6M, 1,309.7M, 24.7K: parameters and tokens, in the unit that the field counts them in."""
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:,.1f}{unit}"
    return f"{count:,.0f}"


def tokens(count: float) -> str:
    """300.0B, 30.0M, 800.0K tokens."""
    return f"{count / 1e9:,.1f}B" if count >= 1e9 else quantity(count)


def work(flops: float) -> str:
    """7.4e+20 as 7.40e20."""
    mantissa, exponent = f"{flops:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"
