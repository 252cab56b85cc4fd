"""The parts of the configuration that say where stages run: the launcher, and the device that predictions assume."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tfscale.ranges import AutoCount, Count, Natural, NonNegative, Positive, Range
from tfscale.stage.run_options import RunOptions

Utilisation = Annotated[float, Range(above=0, most=1, what="a fraction of the peak", such_as="0.4")]
"""A fraction of a device's peak, above 0 and at most 1."""


@dataclass(frozen=True)
class SlurmPart:
    """What a cluster is asked for, for each stage's job."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus: Natural = 8
    """Of each node; one process a GPU. 0: launcher.processes processes on the CPU."""
    cpus: Count = 8
    """Of each process."""
    minutes: Count = 1440
    """Time limit of a job. Before it ends the stage saves and the job is queued again."""
    signal_seconds: Count = 120
    """How long before the limit a job is told to save."""
    requeues: Natural = 1000
    """How often a job may be queued again."""


@dataclass(frozen=True)
class LauncherPart(RunOptions):
    """How stages are run. Nothing here changes what they compute, beyond rounding."""

    kind: Literal["local", "torchrun", "slurm"] = "local"
    """local: one process per stage. torchrun: several on this machine. slurm: a cluster's jobs."""
    processes: AutoCount = 0
    """torchrun: processes per stage; auto: one per CUDA device, or one on the CPU. slurm without GPUs: processes per
    node."""
    nodes: Count = 1
    """slurm: nodes per stage."""
    slurm: SlurmPart = field(default_factory=SlurmPart)
    parallel: Count = 1
    """Stages that run side by side on this machine when they do not wait for each other. On a cluster the queue
    decides."""
    retries: Natural = 2
    """How often a stage whose process died is taken up again from its checkpoint."""
    hang_minutes: NonNegative = 15.0
    """A stage without a sign of life for so long is ended and taken up again; 0: never."""

    @property
    def ranks(self) -> int:
        """Processes of a stage; 0: as many as the machine that runs it has devices for."""
        if self.kind == "slurm":
            return self.nodes * (self.slurm.gpus or self.processes or 1)
        return 1 if self.kind == "local" else self.processes


@dataclass(frozen=True)
class PeakPart:
    """Dense matrix products of a device, in TFLOP/s (10^12). None: it has no units for them."""

    fp32: Positive | None = None
    tf32: Positive | None = None
    bf16: Positive | None = None
    fp8: Positive | None = None


@dataclass(frozen=True)
class DevicePart:
    """The device that a prediction counts with. Nothing here changes what is run."""

    names: tuple[str, ...] = ()
    """As torch.cuda.get_device_name prints them. None: this machine's own devices."""
    memory: Positive | None = None
    """GB (10^9 bytes)."""
    bandwidth: Positive | None = None
    """Of its memory, GB/s."""
    link: Positive | None = None
    """To another device of the host, one direction, GB/s."""
    network: Positive | None = None
    """Its share of the host's network, one direction, GB/s."""
    peak: PeakPart = field(default_factory=PeakPart)
    watts: Positive | None = None
    """Board power."""
    price: Positive | None = None
    """US dollars an hour."""
    mfu: Utilisation = 0.4
    """Share of the peak that training is assumed to reach where nothing of the kind has been measured."""
