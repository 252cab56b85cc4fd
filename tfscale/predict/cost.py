"""Prediction of the time, energy and price of one stage.

The time of a step is the longer of the times for arithmetic and for communication, which overlap, plus the time for the
weight update, which starts after both.

- Arithmetic: model FLOPs divided by the FLOP/s measured on similar stages. Without similar stages, model FLOPs and
  recomputed FLOPs divided by an assumed fraction of the device's peak.
- Communication: number of bytes divided by the full bandwidth of the slowest link on the path, which gives a lower
  bound.
- Update: sum of the times for memory traffic (weights, gradients and optimizer state are read, weights and optimizer
  state are written), for the optimizer's FLOPs at the speed of arithmetic, and for communication between ranks. In
  Muon, these three parts follow one another. In AdamW, FLOPs and memory traffic overlap, but the FLOPs are so few that
  the sum is hardly larger.
"""

import socket
from dataclasses import dataclass
from statistics import median_high
from typing import assert_never

from tfscale.models.counts import Flops, Memory, flops, non_embedding_parameters, parameters
from tfscale.models.execution import Recompute
from tfscale.orchestrate.speed import Speed
from tfscale.predict.machine import GIGA, Machine
from tfscale.stage.layout import Layout, choose_layout, memory_of
from tfscale.stage.spec import StageSpec


@dataclass(frozen=True)
class Step:
    """Times in seconds that make up an optimizer step: arithmetic (`compute`), communication, and the update of the
    weights. Arithmetic and communication are assumed to overlap completely."""

    compute: float
    communication: float
    update: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.communication) + self.update


@dataclass(frozen=True)
class Prediction:
    """Predicted memory, time, energy and price of a stage."""

    spec: StageSpec
    layout: Layout
    memory: Memory
    machine: Machine
    step: Step | None
    """Predicted duration of a step, or None if the speed of the device is unknown. All times, energies and prices are
    then None as well."""
    measured: bool
    """True if the compute speed was measured on finished stages, False if it is an assumed share of the peak."""

    @property
    def flops_per_token(self) -> int:
        """Model FLOPs of training per token."""
        return flops(self.spec.model).training

    @property
    def flops(self) -> int:
        """Model FLOPs of the whole stage."""
        return self.spec.tokens * self.flops_per_token

    @property
    def update_flops(self) -> int:
        """FLOPs of one optimizer update on all devices together."""
        return self.spec.optimizer.update_flops(self.spec.model)

    @property
    def optimizer_flops(self) -> int:
        return self.spec.steps * self.update_flops

    @property
    def optimizer_share(self) -> float:
        """FLOPs of the optimizer update as a fraction of all FLOPs of a step."""
        return self.update_flops / (self.spec.batch_tokens * self.flops_per_token + self.update_flops)

    @property
    def accumulation(self) -> int:
        """Number of micro-batches per batch on each device."""
        return self.layout.accumulation(self.machine.rows(self.spec))

    @property
    def fits(self) -> bool:
        return self.machine.holds(self.memory)

    @property
    def seconds(self) -> float | None:
        """Training time of the stage in seconds, or None if the speed of the device is unknown. It is 0 if the weights
        are imported."""
        return None if self.step is None else self.spec.steps * self.step.seconds * (self.spec.init_from is None)

    @property
    def tokens_per_second(self) -> float | None:
        """Training speed of all devices together in tokens per second, or None if the speed of the device is
        unknown."""
        return None if self.step is None else self.spec.batch_tokens / self.step.seconds

    @property
    def mfu(self) -> float | None:
        """Predicted model FLOPs utilisation, or None if the speed of the device or its datasheet peak in the precision
        of the run is unknown."""
        speed, peak = self.tokens_per_second, self.machine.datasheet_peak
        if speed is None or peak is None:
            return None
        return speed * self.flops_per_token / (peak * self.machine.devices)

    @property
    def device_hours(self) -> float | None:
        return None if self.seconds is None else self.seconds * self.machine.devices / 3600

    @property
    def kilowatt_hours(self) -> float | None:
        """Energy in kWh if every board draws its power limit, without hosts, network and cooling. None if the power
        limit or the time is unknown."""
        watts = self.machine.facts.watts
        return None if self.device_hours is None or watts is None else self.device_hours * watts / 1000

    @property
    def dollars(self) -> float | None:
        """Price in US dollars at the device's price per hour; None if the price per hour or the time is unknown."""
        price = self.machine.facts.price
        return None if self.device_hours is None or price is None else self.device_hours * price


def predict(spec: StageSpec, machine: Machine, speeds: list[Speed]) -> Prediction:
    """Predict the memory, time, energy and price of a stage on a machine. `speeds` are the speeds of finished stages.
    If any of these stages are similar (`measured_rate`), the prediction is based on their speed."""
    chosen = choose_layout(spec, machine)
    rate = measured_rate(spec, machine, speeds)
    return Prediction(
        spec=spec,
        layout=chosen,
        memory=memory_of(spec, chosen, machine),
        machine=machine,
        step=_step(spec, machine, chosen, rate),
        measured=rate is not None,
    )


def measured_rate(spec: StageSpec, machine: Machine, speeds: list[Speed]) -> float | None:
    """Return the median FLOP/s per device of similar finished stages, or None if there are none. Similar stages have
    the same model family and precision, half to twice as many parameters, and the same device. On a CPU, they also have
    the same host. The optimizer's FLOPs are included, because the measured time includes the updates."""
    count = parameters(spec.model)
    rates = [
        speed.flops_per_second * (1 + speed.optimizer_ratio) / speed.devices
        for speed in speeds
        if speed.family == spec.model.family
        and 0.5 <= speed.parameters / count <= 2
        and speed.device in machine.names
        and speed.precision == machine.precision
        and (machine.device == "cuda" or speed.host == socket.gethostname())
    ]
    return median_high(rates) if rates else None


def _step(spec: StageSpec, machine: Machine, chosen: Layout, rate: float | None) -> Step | None:
    if machine.peak is None:
        return None
    work = spec.batch_tokens * flops(spec.model).training
    if rate is None:
        rate = machine.facts.mfu * machine.peak
        work += spec.batch_tokens * _recomputed_flops(spec, chosen.recompute)
    return Step(
        compute=work / (rate * machine.devices),
        communication=_communication(spec, machine, chosen),
        update=_update(spec, machine, chosen, rate),
    )


def _update(spec: StageSpec, machine: Machine, chosen: Layout, rate: float) -> float:
    optimizer, bandwidth, shards = spec.optimizer, machine.facts.bandwidth, machine.shards(chosen.sharding)
    moved = 3 * 4 + 2 * optimizer.bytes_per_weight(spec.model)  # weight and gradient are float32
    memory = parameters(spec.model) / shards * moved / (bandwidth * GIGA) if bandwidth else 0.0
    whole = optimizer.whole_updates(spec.model)
    of_held = (optimizer.update_flops(spec.model) - sum(each.flops for each in whole)) / shards
    busiest = max(sum(each.flops for each in whole[rank :: machine.devices]) for rank in range(machine.devices))
    return memory + (of_held + busiest) / rate + _exchange(4 * sum(each.size for each in whole), machine, chosen)


def _exchange(matrices: int, machine: Machine, chosen: Layout) -> float:
    """Return the time in seconds that the ranks take to gather sharded matrices and to send the updates of these
    matrices to each other. `matrices` is the total size of the matrices in bytes, and the updates have the same
    size."""
    if machine.devices == 1:
        return 0.0
    hosts = 1 if chosen.sharding == "hybrid" else machine.hosts
    gathered = _ring(matrices, machine.shards(chosen.sharding)) / _bus(machine, hosts)
    return gathered + matrices / _bus(machine, machine.hosts)


def _recomputed_flops(spec: StageSpec, recompute: Recompute) -> int:
    """Return the FLOPs per token that activation checkpointing adds to the backward pass."""
    once: Flops = flops(spec.model)
    if recompute == "blocks":
        return once.forward - once.logits
    if recompute == "none" or recompute not in spec.model.recomputes:
        return 0
    if recompute == "pattention":
        return once.projections // 2 + once.norm  # the scores, not the weighted sums
    assert_never(recompute)


def _communication(spec: StageSpec, machine: Machine, chosen: Layout) -> float:
    """Return the communication time per step in seconds, at the full speed of the links."""
    if machine.devices == 1:
        return 0.0
    reduced = 4 * parameters(spec.model)  # float32 gradients, reduced and gathered once per batch
    if chosen.sharding == "none":
        return 2 * _ring(reduced, machine.devices) / _bus(machine, machine.hosts)
    moved = chosen.accumulation(machine.rows(spec)) * _sharded_bytes(spec, machine)
    if chosen.sharding == "full":
        return _ring(moved, machine.devices) / _bus(machine, machine.hosts)
    if chosen.sharding == "hybrid":
        inside = _ring(moved, machine.per_host) / _bus(machine, 1)
        return inside + 2 * _ring(reduced, machine.hosts) / _bus(machine, machine.hosts)
    assert_never(chosen.sharding)


def _sharded_bytes(spec: StageSpec, machine: Machine) -> int:
    """Return the number of bytes that FSDP2 gathers and reduces per micro-batch. The blocks are gathered for the
    forward and for the backward pass, in the precision of the run. The embedding and the final norm are gathered once,
    in float32. All gradients are reduced in float32."""
    everything, blocks = parameters(spec.model), non_embedding_parameters(spec.model)
    width = 2 if machine.precision == "bf16" else 4
    return 2 * width * blocks + 4 * (everything - blocks) + 4 * everything


def _ring(count: float, members: int) -> float:
    """Return the number of bytes that each of `members` devices sends in a ring all-gather or reduce-scatter of `count`
    bytes."""
    return count * (members - 1) / members


def _bus(machine: Machine, hosts: int) -> float:
    """Return the bandwidth of a collective operation over `hosts` hosts in bytes per second. On one host, this is the
    bandwidth of the link between two devices. On several hosts, it is the smaller of this bandwidth and the total
    bandwidth of the network adapters of a host. A link or adapter with unknown bandwidth imposes no limit."""
    link, network = machine.facts.link, machine.facts.network
    speeds = [link] if link else []
    speeds += [network * machine.per_host] if network and hosts > 1 else []
    return min(speeds) * GIGA if speeds else float("inf")
