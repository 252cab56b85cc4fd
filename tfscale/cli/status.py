"""tfscale status: how far each stage is, and whether what it has written is true."""

from collections.abc import Sequence
from pathlib import Path

from tfscale.cli.experiment import console, plan_of, say, table, tokens
from tfscale.schedule.ledger import status_of
from tfscale.schedule.plan import Plan
from tfscale.schedule.speed import stage_speed

_SIGNS = {"done": "✔", "running": "▶", "preempted": "‖", "interrupted": "‖", "failed": "✘", "waiting": "·"}


def status(overrides: Sequence[str], verify: bool, config_dir: Path | None) -> int:
    """Prints the state of every stage, or what is wrong with the ledger; returns the exit code."""
    plan = plan_of(overrides, config_dir)
    return _verify(plan) if verify else _show(plan)


def _show(plan: Plan) -> int:
    for arm in plan.arms:
        speeds = {stage.key: stage_speed(stage.path) for stage in arm.stages}
        used = {key: speed.mfu for key, speed in speeds.items() if speed is not None and speed.mfu is not None}
        mfu = ["MFU"] if used else []
        rows = table(arm.title, ["size", "state", "stage"], ["tokens", "of", "perplexity", *mfu])
        details = []
        for stage in arm.stages:
            state = status_of(stage)
            rows.add_row(
                stage.size,
                f"{_SIGNS[state.state]} {state.state}",
                stage.path.name,
                tokens(state.tokens),
                tokens(stage.spec.tokens),
                f"{state.last_eval['perplexity']:.3f}" if state.last_eval else "",
                *([f"{used[stage.key]:.0%}" if stage.key in used else ""] if mfu else []),
            )
            details += [f"{stage.size} {state.state}: {state.detail}"] if state.detail else []
        console.print(rows)
        for detail in details:
            say(detail)
    say(f"in {plan.runs / 'stages'}")
    return 0


def _verify(plan: Plan) -> int:
    from tfscale.schedule.verify import amount, set_aside, verify_plan  # it loads torch; a look at the states does not

    with console.status("reading the ledger"):
        findings = verify_plan(plan)
    for line in (*set_aside(plan), *findings):
        say(line)
    if findings:
        say(f"wrong in {plan.runs / 'stages'}: {len(findings)}")
        return 1
    read = amount(plan)
    say(
        f"all is well with {read.stages} of {len(plan.stages)} stages: {read.checkpoints} checkpoints, "
        f"{read.events:,} events, {read.bytes / 1e6:,.1f} MB of checkpoints and tokens"
    )
    return 0
