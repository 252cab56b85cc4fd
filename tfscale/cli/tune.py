"""The command `tfscale tune`, which chooses the learning rates of a plan's arms by sweeps."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfscale.cli.common import Common
from tfscale.cli.console import answer, console, say
from tfscale.cli.execute import catch_up, check, prepare, tracker_of, train
from tfscale.cli.streams import tell_error
from tfscale.cli.table import FittedTable, table
from tfscale.config.overlay import chosen_names, overlay_faults, own_file, write_overlay
from tfscale.config.schema import MOST_SEEDS
from tfscale.faults import Fault, UserFault, user_faults
from tfscale.models.counts import flops
from tfscale.plan.plan import make_plan
from tfscale.text import duration, scientific
from tfscale.tune.record import spent, write_record
from tfscale.tune.sweep import Sweep, candidates, factors_of, is_rate, sweep_faults
from tfscale.tune.tuning import Finding, Tuning, chosen, diverged, stages_left

ALL = "all"
"""Value of --arm that selects all arms."""


@dataclass(frozen=True)
class Asked:
    """Options of `tfscale tune`, without the common ones."""

    arms: tuple[str, ...]
    factors: str
    further: int
    seeds: int
    write: str | None


def tune(common: Common, asked: Asked) -> int:
    """Choose the best learning rates by sweeps, record them, and return the exit code."""
    tuning = _tuning(common, asked)
    code = _run(tuning)
    if code:
        return code
    findings = _findings(tuning)
    path, record = write_record(tuning, findings, common.overrides)
    if asked.write is not None:
        _write(common, tuning, findings, asked.write, path.name)
    if common.as_json:
        answer(record)
    else:
        _show(tuning, findings, record, path)
    return _explain_failures(findings)


def _write(common: Common, tuning: Tuning, findings: Sequence[Finding], name: str, source: str) -> None:
    """Write the chosen rates to a schedule file and, for arms with their own rates, to a baseline file, with the cost
    of tuning."""
    remarks = [f"Learning rates chosen by `tfscale tune`, with the trials in runs/tuning/{source}."]
    rates = chosen(findings)
    before = tuning.plan.experiment.analysis.tuning_flops or 0
    schedules = {key: rate for key, rate in rates.items() if key.startswith("schedule.")}
    cost = {"analysis.tuning_flops": before + spent(findings).flops}
    path = own_file("schedule", name, common.config_dir)
    taken_over = _taken_over(common)
    write_overlay(path, taken_over["schedule"], schedules | cost, remarks)
    say(f"{path}: schedule={name}")
    arms = {key.removeprefix("baseline."): rate for key, rate in rates.items() if key.startswith("baseline.")}
    if arms:
        path = own_file("baseline", name, common.config_dir)
        write_overlay(path, taken_over["baseline"], arms, remarks, whole=False)
        say(f"{path}: baseline={name}")


def _taken_over(common: Common) -> dict[str, tuple[str, ...]]:
    """Return the names of the files that the new files extend, by group."""
    chosen = {group: chosen_names(group, common.overrides, common.config_dir) for group in ("schedule", "baseline")}
    return {group: names for group, names in chosen.items() if names != ("none",)}


def _tuning(common: Common, asked: Asked) -> Tuning:
    """Return the tuning that the command line describes.

    Raises:
        UserFault: the arguments have faults; the error contains all of them.
    """
    factors, wrong = factors_of(asked.factors)
    sweep = Sweep(factors, asked.further, asked.seeds)
    faults: list[Fault | str] = [*wrong, *sweep_faults(sweep, MOST_SEEDS)]
    try:
        if asked.write is not None:
            for group, taken_over in _taken_over(common).items():
                faults += overlay_faults(group, asked.write, taken_over, common.config_dir)
        plan = common.plan()
    except UserFault as fault:
        raise UserFault([*faults, *fault.faults]) from fault
    if plan.experiment.schedule.rehearse:
        rule = "must be false, because three steps are too few to compare learning rates"
        faults.append(Fault("schedule.rehearse", "true", rule, "schedule.rehearse=false"))
    if plan.experiment.schedule.grow_when.rule != "budget":
        rule = "must be budget, because rates are compared at equal budgets"
        faults.append(Fault("schedule.grow_when.rule", plan.experiment.schedule.grow_when.rule, rule, "rule=budget"))
    names = [arm.name for arm in plan.arms]
    faults += [_unknown(name, names) for name in asked.arms if name not in (ALL, *names)]
    if faults:
        raise UserFault(faults)
    tuning = Tuning(plan, [name for name in names if ALL in asked.arms or name in asked.arms], sweep)
    faults += [
        f"--factors: would set {tunable.key}={tunable.rate:g} to {rate:g}, which is out of range; try factors near 1"
        for tunable in tuning.tunables
        for rate in candidates(tunable.rate, sweep.factors)
        if not is_rate(rate)
    ]
    if not tuning.tunables:
        faults.append(f"--arm {' '.join(tuning.arms)}: trains no stage, so there is no rate to tune; try another arm")
    if faults:
        raise UserFault(faults)
    return tuning


def _unknown(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {near[0]}?" if near else "."
    return (
        f"--arm {name}: unknown arm{meant} Allowed: {', '.join((ALL, *names))}. Add baseline arms with baseline=, such "
        "as baseline=scratch."
    )


def _run(tuning: Tuning) -> int:
    """Train until every learning rate is chosen, and return the exit code."""
    planned = make_plan(tuning.experiment)
    tracker = tracker_of(planned.experiment)
    check(planned)
    prepare(planned)
    say(_outlook(tuning))
    while left := stages_left(findings := _findings(tuning)):
        code = train(tuning.plan_of(findings), left, tracker)
        gone = [stage for stage in left if diverged(stage)]
        for stage in gone:
            say(f"{stage.path.name} diverged at lr {stage.spec.optimizer.lr:g}; this rate is ranked last")
        if code and not (code == 1 and gone):
            return code
    catch_up(tuning.plan_of(findings), tracker)
    return 0


def _findings(tuning: Tuning) -> list[Finding]:
    with user_faults():
        return tuning.findings()


def _outlook(tuning: Tuning) -> str:
    """Return a sentence that states the minimum number of runs and FLOPs."""
    runs, sweep = len(tuning.sweep.factors) * tuning.sweep.seeds, tuning.sweep
    places = {place for tunable in tuning.tunables for place in tunable.trains}
    stages = {
        stage.key: stage
        for arm in tuning.plan.arms
        for stage in arm.of_seed(tuning.plan.experiment.seed).stages
        if (arm.name, stage.size) in places
    }
    least = runs * sum(stage.spec.tokens * flops(stage.spec.model).training for stage in stages.values())
    return (
        f"{tuning.experiment.schedule.name}: {len(tuning.tunables)} learning rates with {len(sweep.factors)} "
        f"candidates each, and up to {sweep.further} more at an edge: at least {runs * len(stages)} runs and "
        f"{scientific(least)} FLOPs"
    )


def _show(tuning: Tuning, findings: Sequence[Finding], record: dict[str, Any], path: Path) -> None:
    console.print(_table(tuning, findings))
    for finding in findings:
        choice = finding.choice
        if choice is not None and choice.place != "interior" and choice.loss < math.inf:
            say(
                f"{finding.tunable.key}: the {choice.place} rate tried is the best, so rates beyond it may be better; "
                f"continue the sweep with --further {tuning.sweep.further + 3}"
            )
    cost = record["cost"]
    say(
        f"the rates were chosen on validation tokens from position {record['text']['heldout_start']:,}, and with other "
        "seeds; the plan uses neither"
    )
    say(
        f"tuning used {scientific(cost['flops'])} FLOPs and {duration(cost['seconds'])} of training, "
        f"{cost['of_the_plan']:.1f} times the FLOPs of the plan"
    )
    say(str(path))
    say("\n".join(record["chosen"]))


def _table(tuning: Tuning, findings: Sequence[Finding]) -> FittedTable:
    title = f"{tuning.experiment.schedule.name}, final validation loss"
    rows = table(title, ["setting", "stages"], ["lr", "loss", "vs best", "current"], spare=["current", "stages"])
    for finding in findings:
        choice = finding.choice
        assert choice is not None
        places = [f"{arm} {size}" for arm, size in finding.tunable.trains]
        for number in range(max(len(finding.trials), len(places))):
            key = finding.tunable.key.removeprefix("schedule.") if number == 0 else ""
            place = places[number] if number < len(places) else ""
            rows.add_row(key, place, *_trial_cells(finding, number))
        rows.add_section()
    return rows


def _trial_cells(finding: Finding, number: int) -> list[str]:
    if number >= len(finding.trials):
        return []
    trial, choice = finding.trials[number], finding.choice
    assert choice is not None
    assert trial.loss is not None
    if math.isinf(trial.loss):
        return [f"{trial.rate:g}", "diverged", "", ""]
    best = trial.rate == choice.rate
    mark = f"chosen, {choice.place}" if best else f"+{trial.loss - choice.loss:.4f}"
    return [f"{trial.rate:g}", f"{trial.loss:.4f}", mark, "yes" if trial.rate == finding.tunable.rate else ""]


def _explain_failures(findings: Sequence[Finding]) -> int:
    """Report the learning rates that could not be chosen, and return the exit code."""
    lost = [finding for finding in findings if finding.tunable.key not in chosen(findings)]
    for finding in lost:
        rates = [trial.rate for trial in finding.trials]
        tell_error(
            f"{finding.tunable.key}: all rates from {rates[0]:g} to {rates[-1]:g} diverged, so rates of later stages "
            "were not tuned; try lower --factors, or a longer warm-up (optim.warmup)"
        )
    return 1 if lost else 0
