"""tfscale status: how far each stage is."""

from collections.abc import Sequence
from pathlib import Path

from tfscale.cli.experiment import console, plan_of, say, table, tokens
from tfscale.schedule.ledger import status_of

_SIGNS = {"done": "✔", "running": "▶", "preempted": "‖", "interrupted": "‖", "failed": "✘", "waiting": "·"}


def status(overrides: Sequence[str], config_dir: Path | None) -> int:
    """Prints the state of every stage; returns the exit code."""
    plan = plan_of(overrides, config_dir)
    for arm in plan.arms:
        rows = table(arm.title, ["size", "state", "stage"], ["tokens", "of", "perplexity"])
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
            )
            details += [f"{stage.size} {state.state}: {state.detail}"] if state.detail else []
        console.print(rows)
        for detail in details:
            say(detail)
    say(f"in {plan.runs / 'stages'}")
    return 0
