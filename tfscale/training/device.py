"""Device on which a stage is trained, with functions that return its free memory and the record of the environment."""

import contextlib
import os
import platform
import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from tfscale import children
from tfscale.host import process_peak_memory
from tfscale.stage.environment import Environment
from tfscale.stage.layout import Hardware
from tfscale.stage.run_options import Precision
from tfscale.stage.spec import RunSpec
from tfscale.training.process_rank import read_process_rank
from tfscale.training.world import World


@dataclass(frozen=True)
class Device:
    """Device on which a stage is trained, with its precision and use of compilation. Each setting that is `auto` in the
    spec has been replaced by a choice."""

    kind: Literal["cpu", "cuda"]
    bf16: bool
    compiled: bool
    kernels: bool = False
    """True if Pattention uses this package's Triton kernels for the norm and GELU."""

    @property
    def queues(self) -> bool:
        """True if the device executes queued work asynchronously, so that the host can prepare the next step and write
        checkpoints in the meantime. On a CPU, threads of the host would take cores from training."""
        return self.kind == "cuda"

    @property
    def precision(self) -> Precision:
        """Precision of matrix products in forward and backward passes."""
        if self.bf16:
            return "bf16"
        return "tf32" if self.kind == "cuda" and torch.get_float32_matmul_precision() == "high" else "fp32"

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context manager for forward passes. The context enables bf16 autocast if `bf16` is True."""
        return torch.autocast(self.kind, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def peak_memory(self) -> int:
        """Return the peak memory in bytes. On CUDA, this is the memory allocated for tensors since the last reset; on a
        CPU, it is the resident set size of the process."""
        return torch.cuda.max_memory_allocated() if self.kind == "cuda" else process_peak_memory()

    def reset_peak_memory(self) -> None:
        """Reset the peak memory on CUDA. The peak memory of a process on a CPU cannot be reset."""
        if self.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def reserved_memory(self) -> int | None:
        """Return the peak memory in bytes that the CUDA allocator has reserved since the last reset, or None on a
        CPU."""
        return torch.cuda.max_memory_reserved() if self.kind == "cuda" else None


def resolve(run: RunSpec) -> Device:
    """Return the device that is selected by the run options of a stage. Configure torch for this device: the number of
    threads, the current CUDA device, the precision of matrix products, and deterministic algorithms.

    Raises:
        ValueError: the options require CUDA, but torch finds no CUDA device; the options require TF32 on a CPU; or the
            options require Triton kernels on a CPU, without compilation, or without an installed Triton package.
    """
    if run.threads:
        torch.set_num_threads(run.threads)
    kind = run.device if run.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("launcher.device=cuda: must be auto or cpu, because torch finds no CUDA device")
    precision, on_cuda = run.precision_on(kind), kind == "cuda"
    if precision == "tf32" and not on_cuda:
        raise ValueError("launcher.precision=tf32: must be fp32 or bf16 on a CPU; try launcher.precision=fp32")
    compiled = run.compiles(kind)
    if on_cuda:
        # On some clusters, each process sees only one device, even if its rank on the host is not 0.
        torch.cuda.set_device(read_process_rank().local_rank % torch.cuda.device_count())
        torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
        if run.deterministic:
            _forbid_nondeterminism(compiled)
    return Device(kind=kind, bf16=precision == "bf16", compiled=compiled, kernels=_uses_kernels(run, on_cuda))


def _forbid_nondeterminism(compiled: bool) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads this variable at its first product
    torch.use_deterministic_algorithms(True)
    # Filling memory is slow and not needed, because no memory is read before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if compiled:
        torch._inductor.config.deterministic = True  # otherwise kernels are chosen by their measured time


def _uses_kernels(run: RunSpec, on_cuda: bool) -> bool:
    if run.kernels == "triton" and not (on_cuda and find_spec("triton") and run.compiles("cuda")):
        reason = "on a CPU" if not on_cuda else "with launcher.compile=off" if find_spec("triton") else "without Triton"
        raise ValueError(f"launcher.kernels=triton: must be compiled {reason}; try launcher.kernels=compiled")
    return run.kernels == "triton"


def hardware_of(device: Device, world: World) -> Hardware:
    """Return the hardware that a stage is trained on. The free memory of the leading rank is used on every rank, so
    that all ranks choose the same layout. This is a collective call."""
    return Hardware(
        device=device.kind,
        memory=world.share(free_memory(device, world.local_size)),
        precision=device.precision,
        devices=world.size,
        per_host=world.local_size,
    )


def free_memory(device: Device, processes: int) -> int:
    """Return the number of bytes that a training process can allocate if `processes` training processes run on this
    host. On a CPU, these processes share the free memory equally. On CUDA, each process has its own device."""
    if device.kind == "cuda":
        return torch.cuda.mem_get_info()[0]
    # The system's file cache counts as free, because it is released on demand.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) // processes
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // processes  # macOS


def is_out_of_memory(fault: BaseException | None) -> bool:
    """Return whether an error, or the error that caused it, is an out-of-memory error. torch.compile wraps errors that
    occur while it benchmarks kernels (`BackendCompilerFailed`, `InductorError`)."""
    if fault is None:
        return False
    if isinstance(fault, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(fault, RuntimeError) and "DefaultCPUAllocator" in str(fault):  # it raises a RuntimeError
        return True
    return is_out_of_memory(getattr(fault, "inner_exception", None)) or is_out_of_memory(fault.__cause__)


def environment(device: Device) -> Environment:
    """Return the record of the software versions, machine, device and commit of this process."""
    return Environment(
        host=socket.gethostname(),
        device=torch.cuda.get_device_name() if device.kind == "cuda" else platform.processor() or platform.machine(),
        precision=device.precision,
        python=platform.python_version(),
        packages={name: _version(name) for name in ("tfscale", "torch", "numpy", "safetensors")},
        platform=platform.platform(),
        compiled=device.compiled,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        commit=_commit(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None  # running from a source tree that is not installed


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = children.run(command)
    except OSError:
        return None  # git is not installed
    return done.stdout.strip() if done.returncode == 0 else None  # not a git repository
