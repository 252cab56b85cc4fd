"""tfscale compare: the chain beside its baselines."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from tfscale.analysis.report import Written, write_comparison
from tfscale.analysis.table import Row, Table
from tfscale.analysis.words import speed_up, verdicts
from tfscale.cli.experiment import console, plan_of, quantity, say, table, work
from tfscale.cli.run import run_plan, tracking_store
from tfscale.config.compose import group_options
from tfscale.faults import UserFault
from tfscale.schedule.ledger import is_done
from tfscale.schedule.plan import Plan
from tfscale.tracking.store import StoreError
from tfscale.tracking.sync import log_artifacts, sync


def compare(overrides: Sequence[str], baseline: str, run_missing: bool, config_dir: Path | None) -> int:
    """Compares; returns the exit code."""
    if any(text.startswith("baseline=") for text in overrides):
        raise UserFault([f"the arms are named by --baseline here; allowed: {', '.join(group_options()['baseline'])}"])
    overrides = [*overrides, f"baseline={baseline}"]
    plan = plan_of(overrides, config_dir)
    if run_missing:
        code = run_plan(plan)
        if code:
            return code
    missing = [stage for stage in plan.stages if not is_done(stage)]
    if missing:
        names = ", ".join(stage.path.name for stage in missing)
        place = ["--config-dir", str(config_dir)] if config_dir else []
        command = shlex.join(["tfscale", "run", *place, *overrides])
        say(f"not finished: {names}\nthey are made by: {command}")
    if not any(is_done(stage) for stage in plan.chain.stages):
        raise UserFault([f"no stage of the chain is finished in {plan.runs}; nothing can be compared yet"])
    data = plan.experiment.data.source
    title = f"{plan.experiment.schedule.name}, growth={plan.experiment.growth.name}, {data}"
    # Named by the chain that it is about: another recipe or budget is another comparison.
    folder = plan.runs / "comparisons" / f"{plan.experiment.schedule.name}-{plan.chain.stages[-1].key}"
    try:
        written = write_comparison(plan.arms, folder, title)
    except ValueError as error:
        raise UserFault([str(error)]) from error
    _show(written, title)
    _track(plan, written)
    return 0


def _show(written: Written, title: str) -> None:
    console.print(_rich(written.table, title))
    for verdict in verdicts(written.table):
        say(verdict)
    for path in (written.png, written.svg, written.csv, written.json, written.markdown):
        say(str(path))


def _rich(compared: Table, title: str) -> RichTable:
    rows = table(
        title,
        ["size", "arm"],
        ["params", "ppl", "cumulative", "marginal", "family", "speed-up"],
        caption="costs in FLOPs; speed-up of the chain at the arm's final perplexity, + is cheaper",
    )
    for size in compared.sizes:
        for row in compared.of_size(size):
            rows.add_row(*_cells(row))
        rows.add_section()
    return rows


def _cells(row: Row) -> list[str]:
    costs = [work(cost.flops) if cost else "" for cost in (row.cumulative, row.marginal, row.family)]
    return [
        row.size,
        row.title,
        quantity(row.parameters) if row.parameters else "",
        f"{row.perplexity:.3f}" if row.perplexity else row.status,
        *costs,
        "same run" if row.shared else speed_up(row.equal_perplexity),
    ]


def _track(plan: Plan, written: Written) -> None:
    store = tracking_store(plan)
    if store is None:
        return
    try:
        sync(store, plan.experiment.schedule.name, plan.arms)
        files = [written.png, written.svg, written.csv, written.json, written.markdown]
        log_artifacts(store, plan.experiment.schedule.name, files)
    except StoreError as fault:
        print(f"warning: tracking is behind, and is caught up by the next run: {fault}", file=sys.stderr)
