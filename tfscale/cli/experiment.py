"""What most verbs begin with: overrides to a plan, and numbers to words."""

from collections.abc import Sequence
from pathlib import Path

from tfscale.cli.console import LOG_WIDTH as LOG_WIDTH
from tfscale.cli.console import answer as answer
from tfscale.cli.console import console as console
from tfscale.cli.console import leave_stdout as leave_stdout
from tfscale.cli.console import say as say
from tfscale.cli.table import table as table
from tfscale.config.compose import compose
from tfscale.config.origins import with_origins
from tfscale.faults import UserFault
from tfscale.schedule.plan import Plan, make_plan


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
