"""Search for settings with which a stage fits into the memory of the devices."""

from collections.abc import Iterator
from dataclasses import replace

from tfscale.predict.machine import Machine
from tfscale.stage.layout import choose_layout, in_backward_faults, memory_of
from tfscale.stage.spec import StageSpec

Try = tuple[list[str], StageSpec, Machine]
"""Overrides, with the stage spec and the machine that result from the overrides."""


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
