"""How a stage is spread over devices, and what it takes of each: sharding, recomputation, micro-batch, memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tfscale.models.counts import MEMORY_SHARE, Memory, memory
from tfscale.models.execution import Execution, Recompute
from tfscale.predict.machine import Machine
from tfscale.stage.spec import StageSpec

Sharding = Literal["none", "full", "hybrid"]


@dataclass(frozen=True)
class Layout:
    """One device's part of a stage."""

    sharding: Sharding
    recompute: Recompute
    rows: int
    """Sequences of a batch that a device takes."""
    micro_batch: int
    """Of them at once."""
    shards: int
    memory: Memory
    fits: bool

    @property
    def accumulation(self) -> int:
        """Micro-batches whose gradients add up to a batch's."""
        return -(-self.rows // self.micro_batch)


def layout(spec: StageSpec, machine: Machine) -> Layout:
    """The layout of a stage as its settings ask for it. What they leave open (`auto`) is decided as the training room
    decides it: whole weights on each device if one sequence fits beside them, else sharded ones; nothing recomputed
    unless one sequence would not fit otherwise; then the largest micro-batch that fits, halving."""
    recomputes = _recomputes(spec)
    sharding = _sharding(spec, machine, whole_fits=_fits(spec, machine, "none", recomputes[0], 1))
    recompute = next((each for each in recomputes if _fits(spec, machine, sharding, each, 1)), recomputes[-1])
    rows = max(1, spec.sequences // machine.devices)
    size = rows
    if spec.run.update == "whole":  # a weight that is updated in the backward pass has to see its whole batch
        size = min(rows, spec.run.micro_batch or rows)
        while not spec.run.micro_batch and size > 1 and not _fits(spec, machine, sharding, recompute, size):
            size = -(-size // 2)
    needed = _memory(spec, machine, sharding, recompute, size)
    fits = machine.memory is None or needed.total <= MEMORY_SHARE * machine.memory
    return Layout(sharding, recompute, rows, size, _shards(machine, sharding), needed, fits)


def _recomputes(spec: StageSpec) -> list[Recompute]:
    if spec.run.recompute != "auto":
        return [spec.run.recompute]
    return list(spec.model.recomputes)


def _sharding(spec: StageSpec, machine: Machine, whole_fits: bool) -> Sharding:
    asked = spec.run.sharding
    if machine.devices == 1 or (asked == "auto" and whole_fits) or (asked == "hybrid" and machine.per_host == 1):
        return "none"
    if asked == "auto" or (asked == "hybrid" and machine.hosts == 1):
        return "full"
    return asked


def _shards(machine: Machine, sharding: Sharding) -> int:
    return {"none": 1, "full": machine.devices, "hybrid": machine.per_host}[sharding]


def _fits(spec: StageSpec, machine: Machine, sharding: Sharding, recompute: Recompute, sequences: int) -> bool:
    """Whether so many sequences at once do; of a device that is not known, whether it is one."""
    if machine.memory is None:
        return sequences == 1
    return _memory(spec, machine, sharding, recompute, sequences).total <= MEMORY_SHARE * machine.memory


def _memory(spec: StageSpec, machine: Machine, sharding: Sharding, recompute: Recompute, sequences: int) -> Memory:
    execution = Execution(
        sequences,
        activation_bytes=2 if machine.precision == "bf16" else 4,
        recompute=recompute,
        in_backward=spec.run.update == "in_backward",
        shards=_shards(machine, sharding),
        device=machine.device,
        state_bytes=spec.optimizer.bytes_per_weight(spec.model),
    )
    return memory(spec.model, execution)


Try = tuple[list[str], StageSpec, Machine]
"""Overrides, and the stage and the machine with them."""


def mend(spec: StageSpec, machine: Machine) -> list[str] | None:
    """The overrides that would make a stage fit which does not: the first of a smaller micro-batch, sharding,
    recomputation, more devices and updates in the backward pass that helps by itself, or as many of them together as it
    takes, in that order, which is the order of what they cost. None: nothing but a larger device does."""
    start: Try = ([], spec, machine)
    alone = (tried for way in _WAYS for tried in way(start))
    for tried in (*alone, *_together(start)):
        if layout(tried[1], tried[2]).fits:
            return tried[0]
    return None


def _together(tried: Try) -> Iterator[Try]:
    for way in _WAYS:
        for more in way(tried):
            yield more
            tried = more


def _smaller(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if spec.run.micro_batch > 1:
        yield [*words, "launcher.micro_batch=auto"], replace(spec, run=replace(spec.run, micro_batch=0)), machine


def _sharded(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if machine.devices > 1 and spec.run.sharding not in ("auto", "full"):
        yield [*words, "launcher.sharding=full"], replace(spec, run=replace(spec.run, sharding="full")), machine


def _recomputed(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if spec.run.recompute not in ("auto", "blocks"):
        yield (
            [*words, "launcher.activation_checkpointing=blocks"],
            replace(spec, run=replace(spec.run, recompute="blocks")),
            machine,
        )


def _more_devices(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if spec.run.update == "in_backward":
        return
    devices = 2 * machine.devices
    while devices <= min(machine.most, spec.sequences) and spec.sequences % devices == 0:
        if machine.cluster:
            hosts = devices // machine.per_host
            yield [*words, f"launcher.nodes={hosts}"], spec, replace(machine, devices=devices, hosts=hosts)
        else:
            asked = ["launcher.kind=torchrun", f"launcher.processes={devices}"]
            yield [*words, *asked], spec, replace(machine, devices=devices)
        devices *= 2


def _in_backward(tried: Try) -> Iterator[Try]:
    words, spec, machine = tried
    if machine.devices == 1 and spec.run.update == "whole":
        asked = ["launcher.update=in_backward", *(["optim.clip=0"] if spec.optimizer.clip else [])]
        yield [*words, *asked], replace(spec, run=replace(spec.run, update="in_backward")), machine


_WAYS = (_smaller, _sharded, _recomputed, _more_devices, _in_backward)
