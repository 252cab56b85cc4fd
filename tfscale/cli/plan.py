"""The command `tfscale plan`, which shows the stages of a plan and their predicted cost."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from tfscale.cli.common import Common
from tfscale.cli.console import FittedTable, answer, console, say
from tfscale.cli.why import unreached_json, unreached_words
from tfscale.faults import UserFault
from tfscale.models.counts import parameters
from tfscale.models.families import to_dict
from tfscale.orchestrate.speed import finished_speeds
from tfscale.plan.arms import Arm
from tfscale.plan.checks import check_sharing
from tfscale.plan.plan import Plan
from tfscale.plan.rejection import rejections
from tfscale.plan.unreached import unreached_stages
from tfscale.predict import Family, Machine, Prediction, families, planned_machine, predict, remarks, shortage
from tfscale.stage.folder import Stage
from tfscale.stage.status import status_of
from tfscale.text import count, duration, gigabytes, scientific, share

COLUMNS = 5
"""Maximum number of stages in a table, which has one column per stage."""
SHARDINGS = {"none": "DDP", "full": "FSDP", "hybrid": "HSDP"}


def plan(common: Common) -> int:
    """Print the stages of a plan with their predicted costs, and return the exit code."""
    planned = common.plan()
    machine = planned_machine(planned.experiment)
    faults = check_sharing(planned.experiment, machine.devices)
    if faults:
        raise UserFault(faults)
    speeds = finished_speeds(planned.runs)
    predictions = {stage.key: predict(stage.spec, machine, speeds) for stage in planned.stages}
    totals = families(planned, lambda spec: predict(spec, machine, speeds))
    notes = _notes(planned, machine, predictions)
    unreached = unreached_stages(planned)
    if common.as_json:
        answer(_json(planned, machine, predictions, totals, notes) | {"unreached": unreached_json(unreached)})
        return 0
    for arm in planned.arms:
        for each in _arm_tables(arm, predictions):
            console.print(each)
    console.print(_families_table(planned, totals))
    say(_reckoned(machine, list(predictions.values())))
    say(*notes, prefix="note: ")
    say(*unreached_words(unreached))
    return 0


def _arm_tables(arm: Arm, predictions: dict[str, Prediction]) -> list[FittedTable]:
    """Return tables of the stages of an arm that are planned with its first seed. A table has one column per stage, and
    at most `COLUMNS` stages, or fewer if the console is too narrow."""
    stages = arm.of_seed(arm.seeds[0]).all_stages
    for columns in range(COLUMNS, 0, -1):
        groups = [stages[first : first + columns] for first in range(0, len(stages), columns)]
        tables = [_arm_table(arm, group, predictions) for group in groups]
        if all(each.fits(console) for each in tables):
            break
    return tables


def _arm_table(arm: Arm, stages: Sequence[Stage], predictions: dict[str, Prediction]) -> FittedTable:
    found = [predictions[stage.key] for stage in stages]
    times = f", x {len(arm.seeds)} seeds" if len(arm.seeds) > 1 else ""
    rows = FittedTable(arm.title + times, [""], [arm.label(stage) for stage in stages], spare=[])

    def row(name: str, cell: Callable[[Prediction], str]) -> None:
        cells = [cell(prediction) for prediction in found]
        if any(cells):
            rows.add_row(name, *cells)

    row("parameters", lambda p: count(parameters(p.spec.model)))
    shapes = [stage.spec.model.shape for stage in stages]
    rows.add_row(shapes[0][0], *(value for _, value in shapes))
    row("tokens", lambda p: count(p.spec.tokens))
    row("steps", lambda p: f"{p.spec.steps:,}")
    row("FLOPs", lambda p: scientific(p.flops))
    row("optimizer share", lambda p: share(p.optimizer_share))
    rows.add_row("state", *(_states(arm.replicates_of(stage)) for stage in stages))
    rows.add_section()
    row("sharding", lambda p: SHARDINGS[p.layout.sharding] if p.machine.devices > 1 else "")
    row("checkpointing", lambda p: p.layout.recompute)
    row("micro-batches", lambda p: f"{p.accumulation} x {p.layout.micro_batch}")
    for part in asdict(found[0].memory):
        row(part, lambda p, part=part: gigabytes(size) if (size := asdict(p.memory)[part]) else "")  # type: ignore[misc]
    row("memory", lambda p: gigabytes(p.memory.total) + ("" if p.fits else " !"))
    rows.add_section()
    row("tokens/s", lambda p: count(p.tokens_per_second) if p.tokens_per_second else "")
    row("MFU", lambda p: f"{p.mfu:.0%}" if p.mfu else "")
    row("bound by", _bound)
    row("time", lambda p: duration(p.seconds) if p.seconds is not None else "")
    row("device-hours", lambda p: _number(p.device_hours))
    row("energy", lambda p: _energy(p.kilowatt_hours))
    row("cost", lambda p: _dollars(p.dollars))
    return rows


def _states(replicates: Sequence[Stage]) -> str:
    """Return the state of a stage with one seed, or the number of finished replicates of a stage with several seeds."""
    if len(replicates) == 1:
        return _state(replicates[0])
    done = sum(status_of(stage).state == "done" for stage in replicates)
    return f"{done} of {len(replicates)} done"


def _state(stage: Stage) -> str:
    status, all_tokens = status_of(stage), stage.spec.tokens
    return f"{status.state} {status.tokens / all_tokens:.0%}" if 0 < status.tokens < all_tokens else status.state


def _bound(prediction: Prediction) -> str:
    """Return `network` or `arithmetic`, whichever takes more time in a training step on several devices, or an empty
    string for a single device or an unknown time."""
    step = prediction.step
    if step is None or not step.communication:
        return ""
    return "network" if step.communication > step.compute else "arithmetic"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _energy(kilowatt_hours: float | None) -> str:
    if kilowatt_hours is None:
        return ""
    return f"{kilowatt_hours / 1000:,.1f} MWh" if kilowatt_hours >= 1000 else f"{_number(kilowatt_hours)} kWh"


def _dollars(value: float | None) -> str:
    if value is None:
        return ""
    return f"${value:,.0f}" if value >= 10 else f"${value:.2f}"


def _families_table(planned: Plan, totals: Sequence[Family]) -> FittedTable:
    chain = totals[0]
    last = f"{planned.chain.stages[-1].size} / chain"
    rows = FittedTable(
        f"all {len(planned.chain.stages)} sizes together, trained one after another",
        ["arm", "budget"],
        ["FLOPs", "/ chain", last, "time", "device-h", "energy", "cost"],
        spare=["energy", "device-h", last, "cost", "/ chain", "budget", "time"],
    )
    for family in totals:
        rows.add_row(
            family.title,
            _budget(planned, family),
            scientific(family.flops),
            f"{family.flops / chain.flops:.2f}",
            "" if family.budget in ("plan", "left") else f"{family.runs[-1].flops / chain.flops:.2f}",
            duration(family.seconds) if family.seconds is not None else "",
            _number(family.device_hours),
            _energy(family.kilowatt_hours),
            _dollars(family.dollars),
        )
    return rows


def _budget(planned: Plan, family: Family) -> str:
    base = count(sum(stage.spec.tokens for stage in planned.chain.run_of(planned.chain.stages[0])))
    words = {"chain": "stage tokens", "base_tokens": base, "cumulative_compute": "equal compute"}
    return words.get(family.budget, f"{len(family.runs)} stages")


def _reckoned(machine: Machine, predictions: Sequence[Prediction]) -> str:
    where = f"{machine.devices} x {machine.name}" if machine.devices > 1 else machine.name
    where += f" on {machine.hosts} hosts" if machine.hosts > 1 else ""
    if machine.memory is None or machine.peak is None:
        return f"estimated for {where}"
    how = "measured now" if machine.measured else "from its datasheet"
    measured = sum(prediction.measured for prediction in predictions)
    assumed = f"{machine.facts.mfu:.0%} of the peak, an assumption (device.mfu)"
    speed = {0: assumed, len(predictions): "the speed of similar finished stages"}.get(
        measured, f"the speed of similar finished stages for {measured} stages, and otherwise {assumed}"
    )
    return (
        f"estimated for {where}, {gigabytes(machine.memory)} each, matrix peak {machine.peak / 1e12:,.3g} TFLOP/s "
        f"{how} ({machine.precision}); arithmetic at {speed}"
    )


def _notes(planned: Plan, machine: Machine, predictions: dict[str, Prediction]) -> list[str]:
    notes = [f"missing: {fault}" for fault in planned.corpus.missing]
    if not planned.corpus.missing and not planned.corpus.prepared:
        notes.append(
            "the corpus is not prepared yet; prepare it with `tfscale data prepare`, or let `tfscale run` prepare it"
        )
    if planned.corpus.missing:
        notes.append("finished stages are unknown until the corpus is available, because stage keys depend on it")
    notes += rejections(planned.arms[0])
    schedule, undecided = planned.experiment.schedule, planned.known is not planned
    if undecided and schedule.grow_when.rule != "budget":
        rule = schedule.grow_when.rule
        notes.append(f"schedule.grow_when.rule={rule} may end stages early, so these predictions are upper bounds")
    if undecided and schedule.reject_growth is not None:
        notes.append("schedule.reject_growth may reject growths, which these predictions do not include")
    notes += remarks(machine)
    for stage in planned.stages:
        if not predictions[stage.key].fits:
            notes.append(f"does not fit into memory: {shortage(predictions[stage.key])}")
    if machine.facts.price is not None and machine.peak is not None:
        notes.append(
            f"cost is predicted at ${machine.facts.price:.2f} per device-hour (device.price) and energy at the boards' "
            "power limit, without hosts, storage and idle time"
        )
    return notes


def _json(
    planned: Plan, machine: Machine, predictions: dict[str, Prediction], totals: Sequence[Family], notes: Sequence[str]
) -> dict[str, Any]:
    return {
        "schedule": planned.experiment.schedule.name,
        "machine": {**asdict(machine), "hosts": machine.hosts},
        "arms": [
            {
                "name": arm.name,
                "title": arm.title,
                "kind": arm.kind,
                "stages": [
                    {"role": arm.role(stage), **_stage_json(stage, predictions[stage.key])} for stage in arm.all_stages
                ],
            }
            for arm in planned.arms
        ],
        "families": [
            {"title": family.title, "budget": family.budget, "flops": family.flops, **_costs_json(family)}
            for family in totals
        ],
        "notes": list(notes),
    }


def _stage_json(stage: Stage, prediction: Prediction) -> dict[str, Any]:
    layout = prediction.layout
    return {
        "size": stage.size,
        "seed": stage.spec.seed,
        "key": stage.key,
        "folder": str(stage.path),
        "state": status_of(stage).state,
        "model": to_dict(stage.spec.model),
        "parameters": parameters(stage.spec.model),
        "tokens": stage.spec.tokens,
        "steps": stage.spec.steps,
        "flops": prediction.flops,
        "optimizer_flops": prediction.optimizer_flops,
        "optimizer_share": prediction.optimizer_share,
        "sharding": layout.sharding,
        "recompute": layout.recompute,
        "micro_batch": layout.micro_batch,
        "accumulation": prediction.accumulation,
        "memory": {**asdict(prediction.memory), "total": prediction.memory.total},
        "fits": prediction.fits,
        "step_seconds": asdict(prediction.step) if prediction.step else None,
        "speed_measured": prediction.measured,
        "tokens_per_second": prediction.tokens_per_second,
        "mfu": prediction.mfu,
        **_costs_json(prediction),
    }


def _costs_json(costs: Prediction | Family) -> dict[str, float | None]:
    return {
        "seconds": costs.seconds,
        "device_hours": costs.device_hours,
        "kilowatt_hours": costs.kilowatt_hours,
        "dollars": costs.dollars,
    }
