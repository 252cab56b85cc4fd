"""What every verb begins with: overrides to a plan, and a console to speak through."""

import os
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tfscale.config.compose import compose
from tfscale.schedule.plan import Plan, make_plan

console = Console(highlight=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = 120  # nothing is cut off in a log file


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
    return make_plan(compose(overrides, config_dir))


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
