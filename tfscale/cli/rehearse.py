"""Rehearsal (`tfscale run schedule.rehearse=true`), which trains each stage at its real size for a few steps."""

import math
import shutil
from dataclasses import asdict
from typing import Any

from tfscale.cli.console import answer, console, say
from tfscale.cli.execute import check, prepare, train
from tfscale.cli.table import FittedTable
from tfscale.files import write_json
from tfscale.models.counts import parameters
from tfscale.plan.plan import Plan
from tfscale.plan.rehearsal import Rehearsed, rehearsed, release
from tfscale.stage.folder import is_done
from tfscale.text import count, duration, gigabytes

REPORT = "report.json"


def rehearse(plan: Plan, as_json: bool = False) -> int:
    """Train each stage of a plan for a few steps, or resume a stopped rehearsal, and return the exit code.

    Each checkpoint is removed as soon as no later stage needs it, so a rehearsal needs disk space for only two
    consecutive stages.
    """
    if all(is_done(stage) for stage in plan.stages):
        shutil.rmtree(plan.runs / "stages")  # an earlier rehearsal, possibly with other settings
    check(plan)
    prepare(plan)
    rows: list[Rehearsed] = []
    for stage in plan.stages:
        if not is_done(stage) and (code := train(plan, [stage], None)):
            return code
        rows.append(rehearsed(stage))
        waiting = {later.spec.parent for later in plan.stages if not is_done(later)}
        for earlier in rows:
            if earlier.stage.key not in waiting:
                release(earlier.stage)
    report = plan.runs / REPORT
    stages = [{"size": row.stage.size, **asdict(row), "stage": row.stage.path.name} for row in rows]
    found = {"schedule": plan.experiment.schedule.name, "stages": stages}
    write_json(report, found)
    if as_json:
        answer(found)
        return 0
    console.print(_table(plan, rows))
    for row in rows:
        if row.growth:
            say(_growth(row.stage.size, row.growth))
    say(f"report as JSON: {report}; the checkpoints have been removed")
    return 0


def _table(plan: Plan, rows: list[Rehearsed]) -> FittedTable:
    made = FittedTable(
        f"{plan.experiment.schedule.name}, {rows[0].device}",
        ["size", "arm"],
        ["params", "ranks", "micro-batch", "s/step", "tokens/s", "peak memory", "checkpoint", "write time"],
        spare=["params", "ranks", "write time", "checkpoint", "micro-batch", "tokens/s"],
        elsewhere=f"all columns are in {REPORT}",
    )
    arms = {stage.key: arm.title for arm in reversed(plan.arms) for stage in arm.stages}
    for row in rows:
        made.add_row(
            row.stage.size,
            arms[row.stage.key],
            count(parameters(row.stage.spec.model)),
            str(row.processes),
            str(row.micro_batch),
            f"{row.seconds_a_step:,.2f}",
            count(row.tokens_per_second),
            gigabytes(row.peak_memory),
            gigabytes(row.checkpoint_bytes),
            duration(row.checkpoint_seconds),
        )
    return made


def _growth(size: str, growth: dict[str, Any]) -> str:
    found, changed = growth["comparison"], growth.get("tokens") or growth["shape"]
    counts = ", ".join(f"{name} {n['before']} → {n['after']}" for name, n in changed.items())
    effect = "the function is preserved" if growth["preserving"] else "the recipe changes the function"
    return (
        f"growth to {size}: {counts}; perplexity {math.exp(found['loss_before']):,.3f} → "
        f"{math.exp(found['loss_after']):,.3f}, largest logit difference {found['max_logit_difference']:.1e}; "
        f"{effect}; {duration(growth['seconds'])}, peak memory {gigabytes(growth['peak_memory'])}"
    )
