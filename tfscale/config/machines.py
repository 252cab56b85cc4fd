"""Settings of the launcher, which runs stages, and of the device for which costs are predicted."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tfscale.ranges import AutoCount, Count, Natural, NonNegative, Positive, Range
from tfscale.stage.run_options import RunOptions

Utilisation = Annotated[float, Range(above=0, most=1, what="a fraction of the peak", such_as="0.4")]
"""A fraction of the peak speed of a device, above 0 and at most 1."""


@dataclass(frozen=True)
class SlurmPart:
    """Resources requested from a Slurm cluster for the job of each stage."""

    partition: str | None = None
    """Slurm partition. None: the default of the cluster."""
    account: str | None = None
    """Slurm account. None: the default of the user."""
    qos: str | None = None
    """Slurm quality of service. None: the default of the account."""
    gpus: Natural = 8
    """Number of GPUs per node. Each GPU has one process. 0: no GPUs; each node runs launcher.processes processes on its
    CPU."""
    cpus: Count = 8
    """Number of CPUs per process."""
    minutes: Count = 1440
    """Time limit of a job in minutes. Before the limit, the stage saves a checkpoint and the job is requeued."""
    signal_seconds: Count = 120
    """Number of seconds before the time limit at which Slurm signals a job to save a checkpoint."""
    requeues: Natural = 1000
    """Maximum number of times that a job is requeued because it reaches its time limit."""


@dataclass(frozen=True)
class LauncherPart(RunOptions):
    """Launcher settings, which do not change the results of a stage, apart from rounding."""

    kind: Literal["local", "torchrun", "slurm"] = "local"
    """Launcher of stages. `local`: one process per stage on this machine. `torchrun`: several processes per stage on
    this machine. `slurm`: one job per stage on a cluster."""
    processes: AutoCount = 0
    """Number of processes per stage (kind=torchrun) or per node (kind=slurm without GPUs). auto: with kind=torchrun,
    one per CUDA device, where parallel stages share the devices equally; with kind=slurm or without CUDA devices,
    one."""
    nodes: Count = 1
    """Number of nodes per stage (kind=slurm)."""
    slurm: SlurmPart = field(default_factory=SlurmPart)
    """Resources of a job (kind=slurm)."""
    parallel: Count = 1
    """Maximum number of independent stages that run at the same time on this machine. With kind=slurm,
    the queue of the cluster limits this number instead."""
    retries: Natural = 2
    """Maximum number of times that a stage is resumed from its last checkpoint after one of its processes died, ran out
    of memory or hung."""
    hang_minutes: NonNegative = 15.0
    """Number of minutes without a heartbeat after which a stage is stopped and resumed; 0: never."""

    @property
    def ranks(self) -> int:
        """Number of processes per stage; 0: determined by the devices of the machine that runs the stage."""
        if self.kind == "slurm":
            return self.nodes * (self.slurm.gpus or self.processes or 1)
        return 1 if self.kind == "local" else self.processes


@dataclass(frozen=True)
class PeakPart:
    """Peak speed of dense matrix products on a device in TFLOP/s (10^12 FLOP/s), for each number format."""

    fp32: Positive | None = None
    """Peak speed in FP32 in TFLOP/s. None: not supported."""
    tf32: Positive | None = None
    """Peak speed in TF32 in TFLOP/s. None: not supported."""
    bf16: Positive | None = None
    """Peak speed in BF16 in TFLOP/s. None: not supported."""


@dataclass(frozen=True)
class DevicePart:
    """Device for which costs are predicted. These settings do not affect training."""

    names: tuple[str, ...] = ()
    """Names of the device as returned by torch.cuda.get_device_name. Empty: the devices of this machine."""
    memory: Positive | None = None
    """Device memory in GB (10^9 bytes). None: unknown."""
    bandwidth: Positive | None = None
    """Memory bandwidth in GB/s. None: unknown."""
    link: Positive | None = None
    """Bandwidth between two devices of a host in one direction, in GB/s. None: unknown."""
    network: Positive | None = None
    """Network bandwidth of the host per device in one direction, in GB/s. None: unknown."""
    peak: PeakPart = field(default_factory=PeakPart)
    """Peak speed of dense matrix products for each number format, in TFLOP/s."""
    watts: Positive | None = None
    """Board power limit in watts. None: unknown."""
    price: Positive | None = None
    """Price of the device in US dollars per hour. None: unknown."""
    mfu: Utilisation = 0.4
    """Fraction of the peak speed that training is assumed to reach if no comparable run has been measured."""
