"""The chain's table, at the end of a run."""

from rich.table import Table

from tfscale.cli.experiment import quantity, table, tokens, work
from tfscale.models.counts import parameters
from tfscale.schedule.ledger import read_done, read_growth
from tfscale.schedule.plan import Plan
from tfscale.schedule.predict import duration


def chain_table(plan: Plan) -> Table:
    """Size by size: what the chain reached and what it has cost up to there. All its stages are done."""
    experiment = plan.experiment
    rows = table(
        f"{experiment.schedule.name}, growth={experiment.growth.name}, {experiment.data.source}",
        ["size"],
        ["params", "tokens", "perplexity", "bits/byte", "loss at growth", "FLOPs so far", "time"],
    )
    for stage in plan.chain.stages:
        done, growth = read_done(stage.path), read_growth(stage.path)
        jump = "-"
        if growth:
            jump = f"{growth['comparison']['loss_before']:.3f} → {growth['comparison']['loss_after']:.3f}"
        rows.add_row(
            stage.size,
            quantity(parameters(stage.spec.model)),
            tokens(stage.spec.tokens),
            f"{done['eval']['perplexity']:.3f}",
            f"{done['eval']['bits_per_byte']:.3f}",
            jump,
            work(done["totals"]["flops"]),
            duration(done["totals"]["seconds"]),
        )
    return rows
