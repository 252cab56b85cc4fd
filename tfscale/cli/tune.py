"""The command `tfscale tune`, which chooses the learning rates of a plan's arms, and optionally
`optim.embedding_ratio`, by sweeps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.cli.execute import catch_up, check, prepare, tracker_of, train
from tfscale.cli.store import store_of, take_stages
from tfscale.cli.streams import tell_error
from tfscale.config.keys import nearest
from tfscale.config.overlay import chosen_names, overlay_faults, own_file, write_overlay
from tfscale.config.schema import MOST_SEEDS
from tfscale.faults import Fault, UserFault, user_faults
from tfscale.plan.experiments import experiment_of
from tfscale.text import duration, scientific
from tfscale.tune.cost import flops_with_optimizer, grid_flops, planned_flops, spent
from tfscale.tune.record import write_record
from tfscale.tune.sweep import Sweep, candidates, is_rate, numbers_of, sweep_faults
from tfscale.tune.tunables import MOST_RATIO, RATIO
from tfscale.tune.tuning import Finding, Tuning, chosen, diverged, stages_left

ALL = "all"
"""Value of --arm that selects all arms."""


@dataclass(frozen=True)
class Asked:
    """Values of the options of `tfscale tune`. The options are described in `tfscale.cli.main`."""

    arms: tuple[str, ...]
    factors: str
    further: int
    seeds: int
    write: str | None
    rungs: int = 1
    reduction: int = 3
    refine: bool = False
    ratios: str | None = None


def tune(common: Common, asked: Asked) -> int:
    """Choose the values of all tuned settings by sweeps, record and print the choices, and return the exit code. If the
    option --write is given, also write configuration files with the chosen values."""
    tuning = _tuning(common, asked)
    if code := _run(tuning):
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
    """Write the chosen values to configuration files with the name `name`. Values of settings below `baseline` go to a
    baseline file; all other values and the FLOPs of tuning go to a schedule file. Comments in the files mention
    `source`, the name of the file in runs/tuning that records the trials."""
    remarks = [f"Learning rates chosen by `tfscale tune`, with the trials in runs/tuning/{source}."]
    values, taken_over = chosen(findings), _taken_over(common)
    schedule = {key: value for key, value in values.items() if not key.startswith("baseline.")}
    before = tuning.plan.experiment.analysis.tuning_flops or 0
    schedule["analysis.tuning_flops"] = before + spent(findings).flops
    baseline = {key.removeprefix("baseline."): value for key, value in values.items() if key.startswith("baseline.")}
    for group, settings in {"schedule": schedule, "baseline": baseline}.items():
        if settings:
            path = own_file(group, name, common.config_dir)
            write_overlay(path, taken_over[group], settings, remarks, whole=group == "schedule")
            say(f"{path}: {group}={name}")


def _taken_over(common: Common) -> dict[str, tuple[str, ...]]:
    """Return the names of the schedule and baseline files that the overrides choose, by group. The files that `--write`
    creates extend these files."""
    chosen = {group: chosen_names(group, common.overrides, common.config_dir) for group in ("schedule", "baseline")}
    return {group: names for group, names in chosen.items() if names != ("none",)}


def _tuning(common: Common, asked: Asked) -> Tuning:
    """Return the tuning that the command line describes, or raise UserFault with all faults of the options and the
    plan."""
    factors, wrong = numbers_of("--factors", asked.factors)
    ratios, amiss = numbers_of("--ratios", asked.ratios, MOST_RATIO) if asked.ratios is not None else ((), [])
    sweep = Sweep(factors, asked.further, asked.seeds, asked.rungs, asked.reduction, asked.refine, ratios)
    faults: list[Fault | str] = [*wrong, *amiss, *sweep_faults(sweep, MOST_SEEDS)]
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
    if plan.experiment.schedule.reject_growth is not None:
        rule = "must be null, because rates are compared at equal budgets"
        faults.append(Fault("schedule.reject_growth", None, rule, "schedule.reject_growth=null"))
    if plan.experiment.budget is not None:
        rule = "must be null, because no value can be chosen before all trials are finished"
        faults.append(Fault("budget", plan.experiment.budget, rule, "a larger --reduction"))
    if plan.experiment.schedule.grow_when.rule != "budget":
        rule = "must be budget, because rates are compared at equal budgets"
        faults.append(Fault("schedule.grow_when.rule", plan.experiment.schedule.grow_when.rule, rule, "rule=budget"))
    if plan.experiment.schedule.branches is not None and sweep.rungs > 1:
        rule = "must be 1 with schedule.branches, because a shorter branch starts from the whole trunk"
        faults.append(Fault("--rungs", sweep.rungs, rule, "--rungs 1"))
    names = [arm.name for arm in plan.arms]
    faults += [
        f"--arm {name}: unknown arm{nearest(name, names)} Allowed: {', '.join((ALL, *names))}. Add baseline arms with "
        "baseline=, such as baseline=scratch."
        for name in asked.arms
        if name not in (ALL, *names)
    ]
    if faults:
        raise UserFault(faults)
    tuning = Tuning(plan, [name for name in names if ALL in asked.arms or name in asked.arms], sweep)
    faults += [
        f"--factors: would set {tunable.key}={tunable.now:g} to {rate:g}, which is out of range; try factors near 1"
        for tunable in tuning.tunables
        for rate in candidates(tunable.now, sweep.factors)
        if not is_rate(rate)
    ]
    if not tuning.tunables:
        faults.append(f"--arm {' '.join(tuning.arms)}: trains no stage, so there is no rate to tune; try another arm")
    if faults:
        raise UserFault(faults)
    return tuning


def _run(tuning: Tuning) -> int:
    """Train until a value is chosen for every tuned setting, or until training fails or is stopped, and return the exit
    code. Diverged runs do not count as failures; their candidates are ranked last."""
    tracker, store = tracker_of(tuning.experiment), store_of(tuning.experiment)
    check(tuning.planned)
    prepare(tuning.planned, store)
    say(_outlook(tuning))
    while left := stages_left(findings := _findings(tuning)):
        if store and take_stages(left, store):
            continue
        code = train(tuning.plan_of(findings), left, tracker, store)
        gone = [stage for stage in left if diverged(stage)]
        for stage in gone:
            say(f"{stage.path.name} diverged at lr {stage.spec.optimizer.lr:g}; this candidate is ranked last")
        if code and not (code == 1 and gone):
            return code
    catch_up(experiment_of(tuning.plan_of(findings)), tracker)
    return 0


def _findings(tuning: Tuning) -> list[Finding]:
    with user_faults():
        return tuning.findings()


def _outlook(tuning: Tuning) -> str:
    sweep, planned, grid = tuning.sweep, planned_flops(tuning), grid_flops(tuning)
    shorter = ", ".join(map(sweep.label, range(sweep.rungs - 1)))
    tokens = f"in rungs with {shorter} and all of the tokens" if shorter else "each trained with all tokens"
    ratios = f", then {len(sweep.ratios)} values of {RATIO}" if sweep.ratios else ""
    return (
        f"{tuning.experiment.schedule.name}: {len(tuning.tunables)} learning rates with {len(sweep.factors)} "
        f"candidates each{ratios}, {tokens}: {scientific(planned)} FLOPs, or "
        f"{scientific(planned_flops(tuning, flops_with_optimizer))} with the optimizer, {planned / grid:.0%} of a full "
        f"grid ({scientific(grid)} FLOPs), and up to {sweep.further} more candidates per rung"
    )


def _show(tuning: Tuning, findings: Sequence[Finding], record: dict[str, Any], path: Path) -> None:
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
        name = finding.tunable.key.removeprefix("schedule.") + (" again" if finding.again else "")
        for value, place in zip_longest(finding.values, places):
            rows.add_row(name, place or "", *([] if value is None else _cells(tuning, finding, value)))
            name = ""
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


def _explain_failures(findings: Sequence[Finding]) -> int:
    """Print an error for each setting for which training diverged at every value, and return the exit code, which is 1
    if there is such a setting."""
    lost = [finding for finding in findings if finding.choice is not None and math.isinf(finding.choice.loss)]
    for finding in lost:
        values = finding.values
        tell_error(
            f"{finding.tunable.key}: all values from {values[0]:g} to {values[-1]:g} diverged, so settings that depend "
            "on it were not tuned; try lower --factors, or a longer warm-up (optim.warmup)"
        )
    return 1 if lost else 0
