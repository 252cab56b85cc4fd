"""What most verbs begin with: overrides to a plan, and numbers to words."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tfscale.config.compose import draft
from tfscale.config.origins import with_origins
from tfscale.config.schema import Experiment
from tfscale.faults import UserFault
from tfscale.plan.checks import check_experiment
from tfscale.plan.plan import Plan, corpus_faults, make_plan


def plan_of(
    overrides: Sequence[str], config_dir: Path | None, ready: Callable[[Experiment], Iterable[str]] = lambda _: ()
) -> Plan:
    """The plan of the overrides.

    Args:
        ready: what keeps the verb from being run here, told beside other faults; without any, the verb looks itself.

    Raises:
        UserFault: with all that is wrong.
    """
    drafted = draft(overrides, config_dir).check(check_experiment)
    if drafted.faults:
        reads = ("data", "runs", "model.vocab_size")
        drafted = drafted.check(corpus_faults, reads).check(ready, (*reads, "launcher"))
    experiment = drafted.settled()
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
