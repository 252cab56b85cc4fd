"""The parts of the configuration that say where stages run: the launcher, and the device that predictions assume."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tfscale.ranges import AutoCount, Count, Natural, NonNegative, Positive, Range
from tfscale.stage.run_options import RunOptions

Utilisation = Annotated[float, Range(above=0, most=1, what="a fraction of the peak", such_as="0.4")]
"""A fraction of a device's peak, above 0 and at most 1."""


@dataclass(frozen=True)
class SlurmPart:
    """Resources that are requested from a cluster for each stage's job."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus: Natural = 8
    """GPUs per node; one process per GPU. 0: launcher.processes processes on the CPU."""
    cpus: Count = 8
    """CPUs per process."""
    minutes: Count = 1440
    """Time limit of a job. Before it ends the stage saves and the job is queued again."""
    signal_seconds: Count = 120
    """Seconds before the time limit at which Slurm signals a job to save."""
    requeues: Natural = 1000
    """Largest number of times that a job is requeued."""


@dataclass(frozen=True)
class LauncherPart(RunOptions):
    """Launcher settings. Apart from rounding, they do not change the results of a stage."""

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
    """Largest number of times that a stage whose process died is resumed from its checkpoint."""
    hang_minutes: NonNegative = 15.0
    """Minutes without a sign of life after which a stage is ended and resumed; 0: never."""

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
    """Names as torch.cuda.get_device_name prints them. Empty: this machine's own devices."""
    memory: Positive | None = None
    """Memory in GB (10^9 bytes)."""
    bandwidth: Positive | None = None
    """Bandwidth of its memory, GB/s."""
    link: Positive | None = None
    """Bandwidth to another device of the host, one direction, GB/s."""
    network: Positive | None = None
    """The device's share of the host's network bandwidth, one direction, GB/s."""
    peak: PeakPart = field(default_factory=PeakPart)
    watts: Positive | None = None
    """Board power limit in watts."""
    price: Positive | None = None
    """US dollars per hour."""
    mfu: Utilisation = 0.4
    """Share of the peak that training is assumed to reach where nothing of the kind has been measured."""
