"""Table of the chain that is printed at the end of a run."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from tfscale.cli.table import FittedTable
from tfscale.models.counts import parameters
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import read_result
from tfscale.text import count, duration, scientific


def chain_table(plan: Plan) -> FittedTable:
    """Return a table of perplexity and cumulative cost by size, averaged over seeds. All stages must be done."""
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
    """Return the perplexity of the mean loss, with the standard deviation over seeds if there are several."""
    centre = math.exp(mean(losses))
    return f"{centre:.3f}" + (f" ± {centre * stdev(losses):.3f}" if len(losses) > 1 else "")


def _jump(replicates: Sequence[Stage]) -> str:
    """Return the mean loss over seeds before and after growth, or a dash if the stage was not grown."""
    found = [growth["comparison"] for stage in replicates if (growth := read_growth(stage.path))]
    if not found:
        return "-"
    before, after = (mean(each[name] for each in found) for name in ("loss_before", "loss_after"))
    return f"{before:.3f} → {after:.3f}"
