"""tfscale compare: the chain beside its baselines."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tfscale.analysis.compared import Comparison, compare_arms
from tfscale.analysis.formats import to_document
from tfscale.analysis.report import write_comparison
from tfscale.analysis.table import Row, Table
from tfscale.analysis.words import basis, speed_up, verdicts, with_interval
from tfscale.cli.console import answer, console, say
from tfscale.cli.execute import catch_up, run_plan, tracker_of
from tfscale.cli.experiment import plan_of, quantity, work
from tfscale.cli.table import FittedTable, table
from tfscale.config.folders import group_options
from tfscale.faults import UserFault
from tfscale.plan.experiments import comparison_folder, record
from tfscale.plan.plan import Plan
from tfscale.stage.status import is_done


def compare(
    overrides: Sequence[str],
    baseline: str,
    run_missing: bool,
    config_dir: Path | None,
    as_json: bool = False,
    out: Path | None = None,
) -> int:
    """Compare, write the comparison and show it; returns the exit code.

    Args:
        out: the folder to write to, in place of that in the runs folder, which is only read then.
    """
    plan = plan_with(overrides, baseline, config_dir)
    if run_missing:
        code, plan = run_plan(plan)
        if code:
            return code
    comparison = compare_plan(plan)
    written = keep(plan, out, lambda folder: write_comparison(comparison, folder))
    answer(to_document(comparison) | {"files": written}) if as_json else _show(comparison, written)
    if out is None:
        catch_up(plan.known, tracker_of(plan.experiment))
    return 0


def plan_with(overrides: Sequence[str], baseline: str, config_dir: Path | None) -> Plan:
    """The plan of a chain and its baselines.

    Raises:
        UserFault: with all that is wrong.
    """
    if any(text.startswith("baseline=") for text in overrides):
        raise UserFault([f"the arms are named by --baseline here; allowed: {', '.join(group_options()['baseline'])}"])
    return plan_of([*overrides, f"baseline=[{baseline}]"], config_dir)


def compare_plan(plan: Plan) -> Comparison:
    """The comparison of what is there; says what is not, and how to make it.

    Raises:
        UserFault: no stage of the chain is finished, or the folders of some are not what tfscale wrote.
    """
    missing = [stage for stage in plan.stages if not is_done(stage)]
    if missing:
        names = ", ".join(stage.path.name for stage in missing)
        say(f"not finished: {names}\n`tfscale compare --run-missing` trains them")
    if not any(is_done(stage) for stage in plan.arms[0].stages):
        raise UserFault([f"no stage of the chain is finished in {plan.runs}; nothing can be compared yet"])
    experiment = plan.experiment
    title = f"{experiment.schedule.name}, growth={experiment.growth.name}, {experiment.data.source}"
    reference = {"arms": experiment.reference.arms}
    try:
        return compare_arms(
            plan.arms,
            title,
            assumed_noise=experiment.analysis.noise_floor,
            tuning_flops=experiment.analysis.tuning_flops,
            reference=reference,
        )
    except ValueError as error:
        raise UserFault([str(error)]) from error


def keep(plan: Plan, out: Path | None, write: Callable[[Path], tuple[Path, ...]]) -> tuple[Path, ...]:
    """Write into the folder of a plan's comparison, and record the plan in its runs folder; or write into `out`, and
    record nothing. Returns the files.

    Raises:
        UserFault: nothing has been measured yet, or the folder cannot be written to.
    """
    folder = out or comparison_folder(plan)
    try:
        written = write(folder)
        if out is None:
            record(plan.known)
    except ValueError as error:
        raise UserFault([str(error)]) from error
    except OSError as error:
        fault = f"{error.filename or folder} cannot be written to: {error.strerror}"
        mend = "--out DIR writes to another folder and only reads the runs folder"
        raise UserFault([f"--out {out}: {fault}" if out else f"{fault}; {mend}"]) from error
    return written


def _show(comparison: Comparison, written: Sequence[Path]) -> None:
    console.print(comparison_rows(comparison.table, comparison.title))
    for sentence in (*verdicts(comparison.table), *basis(comparison.table)):
        say(sentence)
    for path in written:
        say(str(path))


def comparison_rows(compared: Table, title: str) -> FittedTable:
    rows = table(
        title,
        ["size", "arm"],
        ["params", "ppl", "cumulative", "marginal", "family", "speed-up"],
        caption="costs in FLOPs; speed-up of the chain at the arm's final perplexity, + is cheaper",
        spare=["family", "marginal", "params", "cumulative", "speed-up"],
        elsewhere="table.csv and --json have all of them",
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
        with_interval(row.perplexity, row.perplexity_interval, ".3f") or row.status,
        *costs,
        "same run" if row.shared else speed_up(row.equal_perplexity),
    ]
