"""Checks of the memory, the corpus and the runs folder before a plan is run. For stages that do not fit into memory,
this module also finds settings with which they would fit."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tfscale.config.compose import runs_dir
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, UserFault
from tfscale.models.counts import MEMORY_SHARE
from tfscale.orchestrate.speed import Speed, finished_speeds
from tfscale.plan.checks import check_sharing
from tfscale.plan.corpus import Corpus, corpus_of
from tfscale.plan.plan import Plan
from tfscale.predict.cost import Prediction, predict
from tfscale.predict.machine import Machine, running_machine
from tfscale.stage.folder import is_done
from tfscale.stage.layout import choose_layout, in_backward_faults, memory_of
from tfscale.stage.spec import StageSpec
from tfscale.text import duration, gigabytes

LONGEST_CPU_SECONDS = 30 * 86_400
"""Maximum time in seconds that a plan may take on a CPU unless launcher.device=cpu is set."""
SLOWEST_CPU = 1e9
"""Lower bound of a CPU's training speed in FLOP/s. If a plan is short enough at this speed, the CPU is not timed."""


def preflight(plan: Plan) -> list[Fault | str]:
    """Return the faults that prevent a plan from running on this machine, each with a fix."""
    found: list[Fault | str] = [*_missing(plan.corpus), *_unwritable(plan.runs)]
    left = [stage for stage in plan.stages if not is_done(stage)]
    if not left:
        return found
    try:
        machine = running_machine(plan.experiment, timed=False)
    except UserFault as fault:
        return [*found, *fault.faults]
    found += check_sharing(plan.experiment, machine.devices)
    speeds = finished_speeds(plan.runs)
    predictions = [predict(stage.spec, machine, speeds) for stage in left]
    found += [f"memory: {shortage(prediction)}" for prediction in predictions if not prediction.fits]
    if machine.device == "cpu" and plan.experiment.launcher.device == "auto":
        found += _too_long(plan, predictions, speeds)
    return found


def files_amiss(experiment: Experiment) -> list[Fault]:
    """Return the faults of the corpus and of the runs folder, which can be found before a plan is made."""
    try:
        missing = _missing(corpus_of(experiment))
    except UserFault as fault:
        missing = fault.faults
    return [*missing, *_unwritable(runs_dir(experiment))]


def _missing(corpus: Corpus) -> list[Fault]:
    if not corpus.missing:
        return []
    fix = "set data.path and data.tokenizer_path to the text and its tokenizer; data=wiki and data=docs need no files"
    return [Fault("data", None, fault) for fault in (*corpus.missing, fix)]


def _too_long(plan: Plan, predictions: Sequence[Prediction], speeds: list[Speed]) -> list[str]:
    if sum(prediction.flops for prediction in predictions) < LONGEST_CPU_SECONDS * SLOWEST_CPU:
        return []
    machine = running_machine(plan.experiment)
    seconds = sum(predict(prediction.spec, machine, speeds).seconds or 0.0 for prediction in predictions)
    if seconds <= LONGEST_CPU_SECONDS:
        return []
    return [
        f"device: the plan would take about {duration(seconds)} on the CPU; run it on a machine with a CUDA device, or "
        "add launcher.device=cpu to run it on the CPU"
    ]


def shortage(prediction: Prediction) -> str:
    """Return a message that a stage does not fit into memory. The message names settings with which the stage would fit
    or, if there are none, advises a larger device."""
    spec, machine, layout = prediction.spec, prediction.machine, prediction.layout
    assert machine.memory is not None
    held = f"a micro-batch of {'one sequence' if layout.micro_batch == 1 else layout.micro_batch}"
    if spec.run.micro_batch:
        held = f"launcher.micro_batch={spec.run.micro_batch}"
    settings = cheapest_fix(spec, machine)
    remedy = f"try {' '.join(settings)}" if settings else "use a larger device"
    return (
        f"{spec.label} needs {gigabytes(prediction.memory.total)} per device with {held}, but only "
        f"{MEMORY_SHARE:.0%} of the {gigabytes(machine.memory)} of {machine.name} can be used; {remedy}"
    )


def remarks(machine: Machine) -> list[str]:
    """Return notes on costs that cannot be predicted because properties of the machine are unknown."""
    said = []
    if machine.memory is None:
        said.append(
            "the devices of the cluster are unknown, so memory is not checked and time is not predicted; name the "
            "devices with device=h100_sxm or another option of conf/device"
        )
    if machine.devices > 1 and machine.peak is not None and not machine.facts.link:
        said.append(
            "communication between devices is not predicted, because device.link and device.network are not set"
        )
    return said


def _unwritable(runs: Path) -> list[Fault]:
    folder = next(each for each in (runs, *runs.parents) if each.exists())
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK | os.R_OK):
        return []
    rule = f"must be in a writable folder, but {folder} is not {'writable' if folder.is_dir() else 'a folder'}"
    return [Fault("runs", runs, rule, "another runs=...")]


Try = tuple[list[str], StageSpec, Machine]
"""Overrides of settings, and the stage spec and the machine that result from these overrides."""


def cheapest_fix(spec: StageSpec, machine: Machine) -> list[str] | None:
    """Return the cheapest overrides with which a stage fits into memory, or None if only a larger device would help.
    The changes in `_WAYS`, which are sorted by cost, are first tried separately, and then each in combination with all
    earlier ones."""
    alone = (tried for way in _WAYS for tried in way(spec, machine))
    for overrides, changed, on in (*alone, *_together(spec, machine)):
        if on.holds(memory_of(changed, choose_layout(changed, on), on)):
            return overrides
    return None


def _together(spec: StageSpec, machine: Machine) -> Iterator[Try]:
    chosen: list[str] = []
    for way in _WAYS:
        tries = [([*chosen, *overrides], changed, on) for overrides, changed, on in way(spec, machine)]
        yield from tries
        if tries:
            chosen, spec, machine = tries[-1]


def _auto_micro_batch(spec: StageSpec, machine: Machine) -> Iterator[Try]:
    if spec.run.micro_batch > 1:
        yield ["launcher.micro_batch=auto"], replace(spec, run=replace(spec.run, micro_batch=0)), machine


def _sharded(spec: StageSpec, machine: Machine) -> Iterator[Try]:
    if machine.devices > 1 and spec.run.sharding not in ("auto", "full"):
        yield ["launcher.sharding=full"], replace(spec, run=replace(spec.run, sharding="full")), machine


def _recomputed(spec: StageSpec, machine: Machine) -> Iterator[Try]:
    if spec.run.activation_checkpointing not in ("auto", "blocks"):
        run = replace(spec.run, activation_checkpointing="blocks")
        yield ["launcher.activation_checkpointing=blocks"], replace(spec, run=run), machine


def _more_devices(spec: StageSpec, machine: Machine) -> Iterator[Try]:
    if spec.run.update == "in_backward":
        return
    devices = 2 * machine.devices
    while devices <= min(machine.most, spec.sequences) and spec.sequences % devices == 0:
        if machine.cluster:
            larger = replace(machine, devices=devices)
            yield [f"launcher.nodes={larger.hosts}"], spec, larger
        else:
            asked = ["launcher.kind=torchrun", f"launcher.processes={devices}"]
            yield asked, spec, replace(machine, devices=devices, per_host=devices)
        devices *= 2


def _in_backward(spec: StageSpec, machine: Machine) -> Iterator[Try]:
    if spec.run.update == "in_backward":
        return
    run, optimizer = replace(spec.run, update="in_backward"), replace(spec.optimizer, clip=0.0)
    if not any(in_backward_faults(run, optimizer, machine.devices, machine.rows(spec))):
        asked = ["launcher.update=in_backward", *(["optim.clip=0"] if spec.optimizer.clip else [])]
        yield asked, replace(spec, run=run), machine


_WAYS = (_auto_micro_batch, _sharded, _recomputed, _more_devices, _in_backward)
