"""Choice of the layout of a stage on its devices: sharding, activation checkpointing and micro-batch. Planning uses the
same rules as training, but knows at most the total memory of a device. This module does not import torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tfscale.faults import Fault
from tfscale.models.counts import MEMORY_SHARE, Memory, memory
from tfscale.models.execution import Execution, Recompute
from tfscale.optimizers.base import Optimizer
from tfscale.stage.run_options import Precision, RunOptions
from tfscale.stage.spec import StageSpec
from tfscale.untrusted import from_known

Sharding = Literal["none", "full", "hybrid"]
"""Kind of sharding of weights, gradients and optimizer state. none: no sharding (DDP). full: sharding over all devices
(FSDP2). hybrid: sharding over the devices of each host (HSDP)."""

EVALUATION_TOKENS = {"cpu": 4_096, "cuda": 65_536}
"""Number of tokens per forward pass of an evaluation, by device type, if the memory is sufficient. On a CPU, more
tokens would exceed the caches. On CUDA, with fewer tokens, most of the time would be spent on launching kernels."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Identical devices that train a stage together, with one process per device."""

    device: Literal["cpu", "cuda"]
    memory: int | None
    """Memory in bytes that each device can use for the stage, or None if unknown."""
    precision: Precision = "fp32"
    devices: int = 1
    """Number of devices of all hosts together."""
    per_host: int = 1
    """Number of devices of each host that train the stage."""

    @property
    def hosts(self) -> int:
        """Number of hosts on which the stage is trained."""
        return self.devices // self.per_host

    def rows(self, spec: StageSpec) -> int:
        """Return the batch size per device, in sequences."""
        return max(1, spec.sequences // self.devices)

    def shards(self, sharding: Sharding) -> int:
        """Return the number of devices over which one copy of the weights is sharded."""
        return {"none": 1, "full": self.devices, "hybrid": self.per_host}[sharding]

    def holds(self, needed: Memory) -> bool:
        """Return whether a training step that needs the memory `needed` fits in the fraction `MEMORY_SHARE` of the
        memory of a device. If the memory of the device is unknown, return True."""
        return self.memory is None or needed.total <= MEMORY_SHARE * self.memory


@dataclass(frozen=True)
class Layout:
    """Layout of a stage on its devices: sharding, activation checkpointing, and the batch sizes of each device.
    Each setting that is `auto` in the spec has been replaced by a choice."""

    sharding: Sharding
    recompute: Recompute
    micro_batch: int
    """Number of sequences that a device processes at once in training."""
    evaluation_batch: int
    """Number of sequences that a device processes at once in evaluations."""
    micro_batch_by: Literal["set", "as before", "whole batch", "memory model", "dry step"]
    """Rule or test that determined the micro-batch (`choose_layout`)."""
    lanes: int = 1
    """Number of batches that each device processes at the same time in evaluations."""

    def accumulation(self, rows: int) -> int:
        """Return the number of micro-batches into which a device divides its `rows` sequences of a batch."""
        return -(-rows // self.micro_batch)


def choose_layout(spec: StageSpec, hardware: Hardware, previous: Layout | None = None, lanes: int = 1) -> Layout:
    """Return the layout of a stage, with a choice for each setting that is `auto`.

    With `sharding=auto`, weights are sharded only if the whole weights and one sequence do not fit on a device. With
    `activation_checkpointing=auto`, activation checkpointing is used only if one sequence would not fit otherwise. If
    the memory is unknown, one sequence is assumed to fit, but not two.

    The micro-batch is determined by the first of these rules that applies:

    1. all sequences of the device's batch, if `update=in_backward`;
    2. `micro_batch` if it is set;
    3. the micro-batch of the previous layout, if there is one;
    4. all sequences of the device's batch, halved until they fit according to the memory model. On CUDA,
       `tfscale.training.probe` then tests this micro-batch if the model is not sharded.

    After an out-of-memory error, the orchestrator sets `micro_batch` to half of the micro-batch, so that rule 2
    applies.

    Args:
        previous: layout that the stage last used with the same number of devices. Its choices are kept for settings
            that are `auto`, so that a resumed stage sums the same numbers in the same order.
        lanes: maximum number of batches that an evaluation may process at the same time.

    Raises:
        ValueError: the settings require hybrid sharding, but the hosts have different numbers of devices.
    """

    def fits(sequences: int, recompute: Recompute, sharding: Sharding) -> bool:
        if hardware.memory is None:
            return sequences == 1
        return hardware.holds(_memory(spec, hardware, sharding, recompute, sequences))

    recomputes = _recomputes(spec, previous)
    sharding = _sharding(spec, hardware, previous, lambda: fits(1, recomputes[0], "none"))
    recompute = next((each for each in recomputes if fits(1, each, sharding)), recomputes[-1])
    rows, run = hardware.rows(spec), spec.run
    by: Literal["set", "as before", "whole batch", "memory model"]
    if run.update == "in_backward":  # a weight updated in the backward pass needs the gradient of the whole batch
        micro_batch, by = rows, "whole batch"
    elif run.micro_batch:
        micro_batch, by = min(rows, run.micro_batch), "set"
    elif previous is not None:
        micro_batch, by = min(rows, previous.micro_batch), "as before"
    else:
        micro_batch, by = halved(rows, lambda size: fits(size, recompute, sharding)), "memory model"
    # An evaluation needs no more memory than training that recomputes every block.
    most = max(1, EVALUATION_TOKENS[hardware.device] // spec.model.context)
    evaluation_batch = previous.evaluation_batch if previous else halved(most, lambda n: fits(n, "blocks", sharding))
    lanes = next((n for n in range(lanes, 1, -1) if fits(n * evaluation_batch, "blocks", sharding)), 1)
    return Layout(sharding, recompute, micro_batch, evaluation_batch, by, lanes)


def memory_of(spec: StageSpec, layout: Layout, hardware: Hardware) -> Memory:
    """Return the estimated memory that a training step needs on each device."""
    return _memory(spec, hardware, layout.sharding, layout.recompute, layout.micro_batch)


def layout_of(event: dict[str, Any]) -> Layout | None:
    """Return the layout that a `start` event records, or None if the event has no valid layout."""
    try:
        return from_known(Layout, event)
    except (TypeError, ValueError):
        return None


def nested_dropout_faults(run: RunOptions, device: str) -> Iterator[Fault]:
    """Yield a fault if torch.compile would be used on the torch device type `device`, because nested dropout does not
    support torch.compile."""
    if run.compiles(device):
        rule = "must be off with growth.nested_dropout, because each number of groups would require another compilation"
        yield Fault("launcher.compile", run.compile, rule, "off", reads=("growth.nested_dropout", "launcher.device"))


def in_backward_faults(run: RunOptions, optimizer: Optimizer, devices: int, rows: int) -> Iterator[Fault]:
    """Yield a fault for each setting that conflicts with `update=in_backward`, or nothing if `update` has another
    value. `rows` is the number of sequences of a batch on each device."""
    if run.update != "in_backward":
        return
    why = "launcher.update=in_backward"
    if not optimizer.weight_wise:
        rule = f"must be whole with optim.name={optimizer.name}, which needs all gradients at once"
        yield Fault("launcher.update", "in_backward", rule, reads=("optim.name",))
    if clip := optimizer.clip:
        rule = f"must be 0 with {why}, because the norm of all gradients is not known before the updates"
        yield Fault("optim.clip", clip, rule, "optim.clip=0")
    if run.non_finite == "skip":
        rule = f"must be raise or rollback with {why}, because non-finite gradients are not found before the updates"
        yield Fault("launcher.non_finite", "skip", rule, "raise")
    if devices > 1:
        rule = f"must be whole with {devices} processes"
        yield Fault("launcher.update", "in_backward", rule, "launcher.update=whole", reads=("launcher.processes",))
    if 0 < run.micro_batch < rows:
        rule = f"must be auto with {why}, which processes all {rows} sequences of a batch at once"
        hint = "auto, or a smaller optim.batch_tokens"
        yield Fault("launcher.micro_batch", run.micro_batch, rule, hint, reads=("optim.batch_tokens",))


def halved(size: int, fits: Callable[[int], bool]) -> int:
    """Return the first of the sizes `size`, `size` / 2 (rounded up), ..., 1 that fits, or 1 if no size fits."""
    while size > 1 and not fits(size):
        size = -(-size // 2)
    return size


def _memory(spec: StageSpec, hardware: Hardware, sharding: Sharding, recompute: Recompute, sequences: int) -> Memory:
    execution = Execution(
        sequences,
        activation_bytes=2 if hardware.precision == "bf16" else 4,
        recompute=recompute,
        in_backward=spec.run.update == "in_backward",
        shards=hardware.shards(sharding),
        device=hardware.device,
        state_bytes=spec.optimizer.bytes_per_weight(spec.model),
        update_bytes=spec.optimizer.update_bytes(spec.model, hardware.devices),
        buckets=sharding == "none" and hardware.devices > 1 and sequences < hardware.rows(spec),
        compiled=spec.run.compiles(hardware.device),
        kernels=spec.run.kernels == "triton",
    )
    return memory(spec.model, execution)


def _recomputes(spec: StageSpec, previous: Layout | None) -> tuple[Recompute, ...]:
    """Return the modes of activation checkpointing that may be chosen, in order of increasing recomputation."""
    if spec.run.activation_checkpointing != "auto":
        return (spec.run.activation_checkpointing,)
    if previous is not None:
        return (previous.recompute,)
    return spec.model.recomputes


def _sharding(spec: StageSpec, hardware: Hardware, previous: Layout | None, fits_whole: Callable[[], bool]) -> Sharding:
    asked, devices, per_host = spec.run.sharding, hardware.devices, hardware.per_host
    if devices == 1:
        return "none"
    if asked == "auto" and previous is not None:
        asked = previous.sharding
    if asked == "auto":
        return "none" if fits_whole() else "full"
    if asked == "hybrid" and devices % per_host:
        raise ValueError(
            f"launcher.sharding=hybrid: must be full unless each host has the same number of processes, but there are "
            f"{devices} processes in total and {per_host} on this host; try full"
        )
    if asked == "hybrid" and per_host in (1, devices):  # one dimension of the device mesh would have size 1
        return "none" if per_host == 1 else "full"
    return asked
