"""A running stage in words, the same on every screen and in every log."""

from collections.abc import Iterator

from tfscale.cli.experiment import tokens, work
from tfscale.orchestrate.progress import Overview, Progress
from tfscale.plan.plan import Plan
from tfscale.predict.words import duration, gigabytes
from tfscale.stage.folder import Stage


def name_of(plan: Plan, stage: Stage) -> str:
    """Arm and size, such as `progressive 354M`; and the seed where an arm has several."""
    arm = next(arm for arm in plan.arms if any(other.key == stage.key for other in arm.stages))
    return f"{arm.name} {stage.size}" + (f" seed {stage.spec.seed}" if len(arm.seeds) > 1 else "")


def speed_words(look: Progress) -> Iterator[str]:
    """Speed, utilisation, memory and time left of a stage, as far as they are known."""
    speed = look.tokens_per_second
    if speed:
        yield f"{tokens(speed)} tokens/s"
    if look.mfu is not None:
        yield f"MFU {look.mfu:.0%}"
    if look.memory is not None:
        yield gigabytes(look.memory)
    left = look.stage.spec.tokens - look.status.tokens
    if speed and left:
        yield f"{duration(left / speed)} left"


def overview_words(overall: Overview, arms: int) -> Iterator[str]:
    """Cumulative compute against the plan's, and the time left for the chain and for all arms."""
    yield f"{work(overall.worked)} of {work(overall.work)} FLOPs ({overall.share:.0%})"
    if overall.chain_left:
        yield f"chain {duration(overall.chain_left)} left"
    if arms > 1 and overall.left:
        yield f"all {duration(overall.left)} left"
