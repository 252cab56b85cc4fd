"""The command `tfscale run`, which trains the chain and the arms of `baseline=`. With `schedule.rehearse=true`, each
stage is only trained for a few steps, at its real size."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean, stdev
from typing import Any

from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.cli.execute import check, prepare, run_plan, train
from tfscale.cli.status import states
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, user_faults
from tfscale.files import write_json
from tfscale.models.counts import parameters
from tfscale.orchestrate.launchers import missing
from tfscale.plan.plan import Plan
from tfscale.plan.rehearsal import Rehearsed, rehearsed, release
from tfscale.plan.rejection import rejections
from tfscale.predict import files_amiss
from tfscale.stage.folder import Stage, is_done
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import read_result
from tfscale.text import count, duration, gigabytes, scientific

REPORT = "report.json"


def run(common: Common) -> int:
    """Train or rehearse the plan that the overrides describe, print its results, and return the exit code."""
    plan = common.plan(_amiss)
    if plan.experiment.schedule.rehearse:
        return _rehearse(plan, common.as_json)
    code, plan = run_plan(plan)
    if common.as_json:
        answer(states(plan))
    elif code == 0:
        with user_faults():
            console.print(chain_table(plan))
        say(*rejections(plan.arms[0]), prefix="note: ")
    return code


def _amiss(experiment: Experiment) -> list[Fault | str]:
    """Return the faults of the corpus, the runs folder and the launcher, which can be checked without a plan."""
    return [*files_amiss(experiment), *missing(experiment.launcher)]


def chain_table(plan: Plan) -> FittedTable:
    """Return a table with the perplexity and cumulative cost of the chain at each size, averaged over seeds. All stages
    of the chain must be done."""
    experiment = plan.experiment
    seeds = len(plan.replicates)
    rows = FittedTable(
        f"{experiment.schedule.name}, growth={experiment.growth.name}, {experiment.data.source}"
        + (f", mean of {seeds} seeds" if seeds > 1 else ""),
        ["size"],
        ["params", "tokens", "perplexity", "bits/byte", "loss at growth", "cumulative FLOPs", "time"],
        spare=["time", "bits/byte", "params", "tokens", "loss at growth", "cumulative FLOPs"],
        elsewhere="all columns are in `tfscale compare --json`",
    )
    for replicates in zip(*(replicate.chain.stages for replicate in plan.replicates), strict=True):
        results = [read_result(stage.path) for stage in replicates]
        runs = [each.chain.run_of(stage) for each, stage in zip(plan.replicates, replicates, strict=True)]
        rows.add_row(
            replicates[0].size,
            count(parameters(replicates[0].spec.model)),
            count(sum(stage.spec.tokens for stage in runs[0])),
            _perplexity([each.evaluation.loss for each in results]),
            f"{mean(each.evaluation.bits_per_byte for each in results):.3f}",
            _jump([stages[0] for stages in runs]),
            scientific(mean(each.totals.flops for each in results)),
            duration(mean(each.totals.seconds for each in results)),
        )
    return rows


def _perplexity(losses: Sequence[float]) -> str:
    """Return the perplexity at the mean of the seeds' losses as text. If there are several seeds, the text also
    contains the standard deviation of the perplexity over seeds, approximated from that of the losses."""
    centre = math.exp(mean(losses))
    return f"{centre:.3f}" + (f" ± {centre * stdev(losses):.3f}" if len(losses) > 1 else "")


def _jump(replicates: Sequence[Stage]) -> str:
    """Return the loss before and after the growth of a stage in nats per token, averaged over seeds, as text. If the
    stage was not grown, return a dash."""
    found = [growth["comparison"] for stage in replicates if (growth := read_growth(stage.path))]
    if not found:
        return "-"
    before, after = (mean(each[name] for each in found) for name in ("loss_before", "loss_after"))
    return f"{before:.3f} → {after:.3f}"


def _rehearse(plan: Plan, as_json: bool) -> int:
    """Rehearse a plan, which means to train each stage for a few steps, and return the exit code. A stopped rehearsal
    is resumed; a completed one is deleted and repeated. The checkpoints of a stage are removed as soon as no unfinished
    stage starts from them."""
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
    console.print(_rehearsal_table(plan, rows))
    say(*(_growth(row.stage.size, row.growth) for row in rows if row.growth))
    say(f"report as JSON: {report}; the checkpoints have been removed")
    return 0


def _rehearsal_table(plan: Plan, rows: list[Rehearsed]) -> FittedTable:
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
