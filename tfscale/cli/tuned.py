"""Output of `tfscale tune`, which shows the candidates, their losses, the chosen values, and the cost of tuning."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfscale.cli.console import console, say
from tfscale.cli.table import FittedTable
from tfscale.text import duration, scientific
from tfscale.tune.tuning import Finding, Tuning


def show(tuning: Tuning, findings: Sequence[Finding], record: dict[str, Any], path: Path) -> None:
    """Print the table of candidates, the cost and the chosen values of a finished tuning."""
    console.print(_table(tuning, findings))
    for finding in findings:
        choice = finding.choice
        if choice is not None and choice.place != "interior" and choice.loss < math.inf:
            say(
                f"{finding.tunable.key}: the {choice.place} value tried is the best, so values beyond it may be "
                f"better; continue the sweep with --further {tuning.sweep.further + 3}"
            )
    cost = record["cost"]
    say(
        f"the values were chosen on the validation tokens from position {record['text']['heldout_start']:,} on, and "
        "with other seeds; the plan uses neither these tokens nor these seeds"
    )
    updates = cost["optimizer_flops"]
    both = "an unknown number" if updates is None else scientific(cost["flops"] + updates)
    say(
        f"tuning used {scientific(cost['flops'])} FLOPs, {both} with the optimizer, and {duration(cost['seconds'])} of "
        f"training, {cost['of_the_plan']:.1f} times the FLOPs of the plan and {cost['of_a_full_grid']:.0%} of a "
        "full grid"
    )
    say(str(path))
    say("\n".join(record["chosen"]))


def _table(tuning: Tuning, findings: Sequence[Finding]) -> FittedTable:
    title = f"{tuning.experiment.schedule.name}, final validation loss"
    rungs = [f"{tuning.sweep.label(rung)} of tokens" for rung in range(tuning.sweep.rungs - 1)]
    columns = ["value", *rungs, "loss", "vs best", "current"]
    rows = FittedTable(title, ["setting", "stages"], columns, spare=["current", "stages", *rungs])
    for finding in findings:
        places = [f"{arm} {size}" for arm, size in finding.tunable.trains]
        for number in range(max(len(finding.values), len(places))):
            key = finding.tunable.key.removeprefix("schedule.") if number == 0 else ""
            place = places[number] if number < len(places) else ""
            cells = _cells(tuning, finding, finding.values[number]) if number < len(finding.values) else []
            rows.add_row(f"{key} again" if key and finding.again else key, place, *cells)
        rows.add_section()
    return rows


def _cells(tuning: Tuning, finding: Finding, value: float) -> list[str]:
    losses = {trial.rung: trial.loss for trial in finding.trials if trial.value == value}
    shown = [_loss(losses.get(rung)) for rung in range(tuning.sweep.rungs)]
    choice, last = finding.choice, losses.get(tuning.sweep.rungs - 1)
    assert choice is not None
    mark = f"+{last - choice.loss:.4f}" if last is not None and math.isfinite(last) else ""
    if value == choice.value and math.isfinite(choice.loss):
        mark = f"chosen, {choice.place}"
    return [f"{value:g}", *shown, mark, "yes" if value == finding.tunable.now else ""]


def _loss(loss: float | None) -> str:
    if loss is None:
        return ""
    return f"{loss:.4f}" if math.isfinite(loss) else "diverged"
