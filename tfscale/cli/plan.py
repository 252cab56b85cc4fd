"""tfscale plan: what would run."""

from collections.abc import Sequence
from pathlib import Path

from tfscale.cli.experiment import console, plan_of, quantity, say, table, tokens, work
from tfscale.models.config import TokenFormerConfig
from tfscale.models.counts import parameters
from tfscale.schedule.arms import ArmStage
from tfscale.schedule.ledger import status_of
from tfscale.schedule.plan import Plan
from tfscale.schedule.predict import Machine, Prediction, duration, gigabytes, measured_rates, predict, this_machine


def plan(overrides: Sequence[str], config_dir: Path | None) -> int:
    """Prints the plan; returns the exit code."""
    planned = plan_of(overrides, config_dir)
    machine = this_machine(planned.experiment.launcher.device)
    rates = measured_rates(planned.runs, machine)
    predictions = {stage.key: predict(stage, machine, rates) for stage in planned.stages}
    for arm in planned.arms:
        shape = "q/out/ffn tokens" if isinstance(arm.stages[0].spec.model, TokenFormerConfig) else "layers x width"
        rows = table(arm.title, ["size"], ["params", shape, "train", "FLOPs", "memory", "time", "state"])
        for stage in arm.stages:
            rows.add_row(*_cells(stage, predictions[stage.key]))
        console.print(rows)
    say(_totals(planned, predictions))
    say(_machine(machine, predictions))
    for note in _notes(planned, predictions, machine):
        say(f"note: {note}")
    return 0


def _cells(stage: ArmStage, prediction: Prediction) -> list[str]:
    spec, status = stage.spec, status_of(stage)
    model = spec.model
    shape = (
        "/".join(map(str, model.tokens)) if isinstance(model, TokenFormerConfig) else f"{model.n_layer}x{model.d_model}"
    )
    state = f"{status.state} {status.tokens / spec.tokens:.0%}" if 0 < status.tokens < spec.tokens else status.state
    return [
        stage.size,
        quantity(parameters(model)),
        shape,
        tokens(spec.tokens),
        work(prediction.flops),
        gigabytes(prediction.memory) + ("" if prediction.fits else " !"),
        duration(prediction.seconds),
        state,
    ]


def _totals(planned: Plan, predictions: dict[str, Prediction]) -> str:
    chain = [predictions[stage.key] for stage in planned.chain.stages]
    text = f"the chain: {work(sum(p.flops for p in chain))} FLOPs, {duration(sum(p.seconds for p in chain))}"
    if planned.baselines:
        every = predictions.values()
        text += (
            f"; with baselines: {work(sum(p.flops for p in every))} FLOPs, {duration(sum(p.seconds for p in every))}"
        )
    return text


def _machine(machine: Machine, predictions: dict[str, Prediction]) -> str:
    how = "the speed of stages finished here" if all(p.measured for p in predictions.values()) else (
        "the speed of like stages finished here, where there are any, else 40% of the matrix peak"
    )  # fmt: skip
    return (
        f"on this machine ({machine.name}, {gigabytes(machine.memory)}, matrix peak {machine.peak / 1e9:,.0f} GFLOP/s "
        f"measured now); times assume {how}, one stage after another"
    )


def _notes(planned: Plan, predictions: dict[str, Prediction], machine: Machine) -> list[str]:
    notes = [f"missing: {fault}" for fault in planned.corpus.missing]
    if planned.corpus.missing:
        notes.append("stage keys, and so what is already done, are known once the corpus is there")
    if not all(prediction.fits for prediction in predictions.values()):
        notes.append(f"! does not fit into {gigabytes(machine.memory)} even with one sequence at a time")
    return notes
