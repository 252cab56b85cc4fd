"""Message for a run whose budget is spent. It states the trained FLOPs and the stages that are left."""

from tfscale.orchestrate.allowance import Allowance, reached_step, step_flops
from tfscale.orchestrate.progress import Watch, overview
from tfscale.orchestrate.speed import finished_speeds
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage, is_done
from tfscale.text import count, duration, scientific

MOST_LINES = 8
"""Maximum number of stages that the message lists."""


def spent_words(plan: Plan, allowance: Allowance) -> list[str]:
    """Return the lines of the message. The first `MOST_LINES` unfinished stages have a line each, with the remaining
    tokens and FLOPs."""
    left = [stage for stage in plan.stages if not is_done(stage)]
    time = overview(plan, Watch(plan.stages).look(), finished_speeds(plan.runs)).left
    about = f", about {duration(time)}" if time is not None else ""
    return [
        f"budget={plan.experiment.budget}: the remaining work does not fit; {scientific(allowance.trained)} FLOPs were "
        f"trained. {len(left)} of {len(plan.stages)} stages are left, "
        f"{scientific(sum(map(_flops_left, left)))} FLOPs{about}:",
        *(f"  {stage.path.name}: {_line(stage)}" for stage in left[:MOST_LINES]),
        *([f"  and {len(left) - MOST_LINES} more; `tfscale plan` lists all"] if len(left) > MOST_LINES else []),
        "Run the same command again to continue." if allowance.trained else "Continue with a larger budget.",
    ]


def _line(stage: Stage) -> str:
    tokens = _steps_left(stage) * stage.spec.batch_tokens
    return f"{count(tokens)} of {count(stage.spec.tokens)} tokens, {scientific(_flops_left(stage))} FLOPs"


def _steps_left(stage: Stage) -> int:
    return max(0, stage.spec.steps - reached_step(stage.path))


def _flops_left(stage: Stage) -> int:
    return _steps_left(stage) * step_flops(stage)
