"""The commands `tfscale compare` and `tfscale report`, which compare the chain with its baselines."""

import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from tfscale.analysis.answer import answer_of
from tfscale.analysis.caption import caption
from tfscale.analysis.comparison import Comparison, compare_arms
from tfscale.analysis.documents import to_html, write_comparison
from tfscale.analysis.family_words import cost as family_cost
from tfscale.analysis.family_words import family_sentences
from tfscale.analysis.formats import to_document
from tfscale.analysis.table import Row, Table
from tfscale.analysis.words import basis, speed_up, verdicts, with_interval
from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.cli.execute import catch_up, run_plan, tracker_of
from tfscale.config.folders import group_options
from tfscale.config.sharing import shareable_overrides, shareable_path, shareable_settings
from tfscale.faults import UserFault, user_faults
from tfscale.files import write_atomically
from tfscale.plan.experiments import comparison_folder, experiment_of, record
from tfscale.plan.plan import Plan
from tfscale.stage.folder import is_done
from tfscale.submission.write import submission_faults, write_submission
from tfscale.text import count, scientific

HEADING_WIDTH = 16
"""Maximum width in characters of a line in a column heading, so that a table with several arms fits a terminal with 80
columns."""


def compare(
    common: Common,
    baseline: str,
    run_missing: bool = False,
    out: Path | None = None,
    submit: Path | None = None,
    checkpoints: bool = False,
) -> int:
    """Compare the chain with its baselines, write and print the comparison, and return the exit code. With
    `run_missing`, unfinished stages are trained first. If `submit` is given, a submission is also written to this
    folder; with `checkpoints`, it includes the final checkpoints."""
    plan = plan_with(common, baseline)
    if submit and (faults := submission_faults(() if run_missing else plan.stages, submit)):
        raise UserFault(faults)
    if run_missing:
        code, plan = run_plan(plan)
        if code:
            return code
    comparison = compare_plan(plan)
    written = _write_files(plan, out, lambda folder: write_comparison(comparison, folder))
    if submit:
        with user_faults(OSError, about=f"--submit {submit}"):
            write_submission(plan, written, _command(common, baseline), submit, checkpoints)
        written = (*written, submit)
    answer(to_document(comparison) | {"files": written}) if common.as_json else _show(comparison, written)
    return 0


def report(common: Common, baseline: str, out: Path | None = None) -> int:
    """Write the comparison of a chain with its baselines to `report.html` in the folder `out`, and return the exit
    code. If `out` is None, the page is written to the comparison's folder in the runs folder."""
    plan = plan_with(common, baseline)
    comparison = compare_plan(plan)
    configuration = yaml.safe_dump(shareable_settings(asdict(plan.experiment)), sort_keys=False)

    def write(folder: Path) -> tuple[Path, ...]:
        content = to_html(comparison, plan.arms, _command(common, baseline), configuration)
        write_atomically(folder / "report.html", content.encode())
        return (folder / "report.html",)

    (path,) = _write_files(plan, out, write)
    answer({"report": path}) if common.as_json else say(str(path))
    return 0


def _command(common: Common, baseline: str) -> str:
    """Return a command line that trains and compares the arms and can be shared. Paths are shortened
    (`shareable_path`), and settings of this machine, such as the runs folder, are omitted."""
    place = ["--config-dir", shareable_path(common.config_dir)] if common.config_dir else []
    arms = ["--baseline", baseline, "--run-missing"]
    return shlex.join(["tfscale", "compare", *arms, *place, *shareable_overrides(common.overrides)])


def plan_with(common: Common, baseline: str) -> Plan:
    """Return the plan of the chain that the overrides describe, and of the baselines named in `baseline`, which are
    separated by commas. Raise UserFault if an override sets `baseline`."""
    if any(text.startswith("baseline=") for text in common.overrides):
        allowed = ", ".join(group_options()["baseline"])
        raise UserFault([f"baseline=...: must be given as the option --baseline; try one of {allowed}"])
    return replace(common, overrides=[*common.overrides, f"baseline=[{baseline}]"]).plan()


def compare_plan(plan: Plan) -> Comparison:
    """Return the comparison of the finished stages of a plan, and print which stages are unfinished. Raise UserFault if
    no stage of the chain is finished."""
    missing = [stage for stage in plan.stages if not is_done(stage)]
    if missing:
        names = ", ".join(stage.path.name for stage in missing)
        say(f"unfinished stages: {names}\nTrain them with `tfscale compare --run-missing`.")
    if not any(is_done(stage) for stage in plan.arms[0].stages):
        raise UserFault([f"no stage of the chain is finished in {plan.runs}; train the chain with `tfscale run`"])
    experiment = plan.experiment
    title = f"{experiment.schedule.name}, growth={experiment.growth.name}, {experiment.data.source}"
    primary = experiment.analysis.primary
    last = list(experiment.schedule.stages.values())[-1].size
    with user_faults():
        return compare_arms(
            plan.arms,
            title,
            assumed_noise=experiment.analysis.noise_floor,
            tuning_flops=experiment.analysis.tuning_flops,
            primary=(primary.size or last, primary.arm),
            reference={"arms": experiment.reference.arms},
            price=experiment.device.price,
        )


def _write_files(plan: Plan, out: Path | None, write: Callable[[Path], tuple[Path, ...]]) -> tuple[Path, ...]:
    """Call `write` with the folder `out`, and return the paths of the written files. If `out` is None, use the
    comparison's folder in the runs folder, record the plan in the runs folder, and send new measurements to the
    tracker. Raise UserFault if the files cannot be written."""
    folder = out or comparison_folder(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before the figures are drawn, so that a fault is found early
        with user_faults():
            written = write(folder)
            if out is None:
                record(plan.known)
    except OSError as error:
        fault = f"{error.filename or folder} cannot be written to: {error.strerror}"
        mend = "write to another folder with --out DIR"
        raise UserFault([f"--out {out}: {fault}" if out else f"{fault}; {mend}"]) from error
    if out is None:
        catch_up(experiment_of(plan.known), tracker_of(plan.experiment))
    return written


def _show(comparison: Comparison, written: Sequence[Path]) -> None:
    answered = answer_of(comparison)
    say(answered.sentence)
    arms = [textwrap.fill(arm, HEADING_WIDTH) for arm in answered.arms]
    elsewhere = "all columns are in table.md and --json"
    rows = FittedTable(comparison.title, ["size"], arms, caption=answered.note, elsewhere=elsewhere)
    for row in answered.rows:
        rows.add_row(*row)
    console.print(rows)
    console.print(comparison_rows(comparison.table, "all arms"))
    say(*family_sentences(comparison.families, comparison.price))
    say(*verdicts(comparison.table), *basis(comparison.table))
    say(f"Figure: {' '.join(caption(comparison.arms))}", *map(str, written))


def comparison_rows(compared: Table, title: str) -> FittedTable:
    """Return a table with the perplexity and the costs of each arm at each size, and with the speed-up of the chain
    over the arm."""
    rows = FittedTable(
        title,
        ["size", "arm"],
        ["params", "ppl", "cumulative", "marginal", "family", "speed-up"],
        caption="costs in FLOPs; family: total cost of all sizes up to this one, each at the chain's perplexity; "
        "speed-up of the chain at the arm's final perplexity (+: the chain is cheaper)",
        spare=["family", "marginal", "params", "cumulative", "speed-up"],
        elsewhere="all columns are in table.csv and --json",
    )
    for size in compared.sizes:
        for row in compared.of_size(size):
            rows.add_row(*_cells(row, compared))
        rows.add_section()
    return rows


def _cells(row: Row, compared: Table) -> list[str]:
    costs = [scientific(cost.flops) if cost else "" for cost in (row.cumulative, row.marginal)]
    costs.append(family_cost(row.family, compared.measure) if row.family else "")
    return [
        row.size,
        row.title,
        count(row.parameters) if row.parameters else "",
        with_interval(row.perplexity, row.perplexity_interval, ".3f") or row.status,
        *costs,
        "same run" if row.shared else speed_up(row.equal_perplexity),
    ]
