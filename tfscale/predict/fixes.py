"""Search for settings with which a stage fits into the memory of the devices."""

from collections.abc import Iterator
from dataclasses import replace

from tfscale.predict.machine import Machine
from tfscale.stage.layout import choose_layout, in_backward_faults, memory_of
from tfscale.stage.spec import StageSpec

Try = tuple[list[str], StageSpec, Machine]
"""Overrides, and the stage and machine that they result in."""


def cheapest_fix(spec: StageSpec, machine: Machine) -> list[str] | None:
    """Return the cheapest overrides with which a stage fits into memory, or None if a larger device is needed. The ways
    in `_WAYS` are tried in order of cost, first one by one and then together."""
    start: Try = ([], spec, machine)
    alone = (tried for way in _WAYS for tried in way(start))
    for overrides, changed, on in (*alone, *_together(start)):
        if on.holds(memory_of(changed, choose_layout(changed, on), on)):
            return overrides
    return None


def _together(tried: Try) -> Iterator[Try]:
    for way in _WAYS:
        for more in way(tried):
            yield more
            tried = more


def _auto_micro_batch(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if spec.run.micro_batch > 1:
        yield [*words, "launcher.micro_batch=auto"], replace(spec, run=replace(spec.run, micro_batch=0)), machine


def _sharded(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if machine.devices > 1 and spec.run.sharding not in ("auto", "full"):
        yield [*words, "launcher.sharding=full"], replace(spec, run=replace(spec.run, sharding="full")), machine


def _recomputed(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if spec.run.activation_checkpointing not in ("auto", "blocks"):
        run = replace(spec.run, activation_checkpointing="blocks")
        yield [*words, "launcher.activation_checkpointing=blocks"], replace(spec, run=run), machine


def _more_devices(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if spec.run.update == "in_backward":
        return
    devices = 2 * machine.devices
    while devices <= min(machine.most, spec.sequences) and spec.sequences % devices == 0:
        if machine.cluster:
            larger = replace(machine, devices=devices)
            yield [*words, f"launcher.nodes={larger.hosts}"], spec, larger
        else:
            asked = ["launcher.kind=torchrun", f"launcher.processes={devices}"]
            yield [*words, *asked], spec, replace(machine, devices=devices, per_host=devices)
        devices *= 2


def _in_backward(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if spec.run.update == "in_backward":
        return
    run, optimizer = replace(spec.run, update="in_backward"), replace(spec.optimizer, clip=0.0)
    if not any(in_backward_faults(run, optimizer, machine.devices, machine.rows(spec))):
        asked = ["launcher.update=in_backward", *(["optim.clip=0"] if spec.optimizer.clip else [])]
        yield [*words, *asked], replace(spec, run=run), machine


_WAYS = (_auto_micro_batch, _sharded, _recomputed, _more_devices, _in_backward)
