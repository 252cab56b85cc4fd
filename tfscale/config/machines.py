"""Settings of the machines: the launcher of stages, and the device that predictions assume."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tfscale.ranges import AutoCount, Count, Natural, NonNegative, Positive, Range
from tfscale.stage.run_options import RunOptions

Utilisation = Annotated[float, Range(above=0, most=1, what="a fraction of the peak", such_as="0.4")]
"""A fraction of a device's peak, above 0 and at most 1."""


@dataclass(frozen=True)
class SlurmPart:
    """Resources requested from a Slurm cluster for the job of each stage."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus: Natural = 8
    """Number of GPUs per node, with one process each; 0: launcher.processes processes on the CPU."""
    cpus: Count = 8
    """Number of CPUs per process."""
    minutes: Count = 1440
    """Time limit of a job in minutes. Before the limit, the stage saves and the job is requeued."""
    signal_seconds: Count = 120
    """Number of seconds before the time limit at which Slurm signals a job to save."""
    requeues: Natural = 1000
    """Largest number of times that a job is requeued."""


@dataclass(frozen=True)
class LauncherPart(RunOptions):
    """Launcher settings. Apart from rounding, they do not change the results of a stage."""

    kind: Literal["local", "torchrun", "slurm"] = "local"
    """Launcher of stages. local: one process each. torchrun: several processes on this machine. slurm: cluster jobs."""
    processes: AutoCount = 0
    """Number of processes per stage (torchrun) or per node (slurm without GPUs). auto, with torchrun: one per CUDA
    device, or one on the CPU."""
    nodes: Count = 1
    """Number of nodes per stage (slurm)."""
    slurm: SlurmPart = field(default_factory=SlurmPart)
    parallel: Count = 1
    """Largest number of independent stages that run at the same time on this machine. On a cluster the queue
    decides."""
    retries: Natural = 2
    """Largest number of times that a stage whose process died is resumed from its checkpoint."""
    hang_minutes: NonNegative = 15.0
    """Minutes without a heartbeat after which a stage is ended and resumed; 0: never."""

    @property
    def ranks(self) -> int:
        """Number of processes of a stage; 0: decided by the devices of the machine that runs it."""
        if self.kind == "slurm":
            return self.nodes * (self.slurm.gpus or self.processes or 1)
        return 1 if self.kind == "local" else self.processes


@dataclass(frozen=True)
class PeakPart:
    """Peak speed of a device's dense matrix products, in TFLOP/s (10^12); None: the format is not supported."""

    fp32: Positive | None = None
    """Peak in FP32, TFLOP/s. None: not supported."""
    tf32: Positive | None = None
    """Peak in TF32, TFLOP/s. None: not supported."""
    bf16: Positive | None = None
    """Peak in BF16, TFLOP/s. None: not supported."""
    fp8: Positive | None = None
    """Peak in FP8, TFLOP/s. None: not supported."""


@dataclass(frozen=True)
class DevicePart:
    """Device that predictions assume. These settings do not change what is run."""

    names: tuple[str, ...] = ()
    """Names of the device as returned by torch.cuda.get_device_name. Empty: this machine's own devices."""
    memory: Positive | None = None
    """Device memory in GB (10^9 bytes)."""
    bandwidth: Positive | None = None
    """Memory bandwidth in GB/s."""
    link: Positive | None = None
    """Bandwidth to another device of the host in one direction, in GB/s."""
    network: Positive | None = None
    """Share of one device in the host's network bandwidth in one direction, in GB/s."""
    peak: PeakPart = field(default_factory=PeakPart)
    watts: Positive | None = None
    """Board power limit in watts."""
    price: Positive | None = None
    """Price of the device in US dollars per hour."""
    mfu: Utilisation = 0.4
    """Fraction of the peak that training is assumed to reach if no comparable run has been measured."""
