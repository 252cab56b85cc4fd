"""The device that a stage runs on: `auto` settings resolved, free memory, and the record of the machine."""

import contextlib
import os
import platform
import socket
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from tfscale import children
from tfscale.host import process_peak_memory
from tfscale.stage.environment import Environment
from tfscale.stage.layout import Hardware
from tfscale.stage.spec import RunSpec
from tfscale.training.place import read_place
from tfscale.training.world import World


@dataclass(frozen=True)
class Device:
    """A resolved device."""

    kind: Literal["cpu", "cuda"]
    bf16: bool
    compiled: bool

    @property
    def saves_beside_training(self) -> bool:
        """True on CUDA, where a thread can write while the device computes; on the CPU it would take its cores."""
        return self.kind == "cuda"

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes."""
        return torch.autocast(self.kind, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def peak_memory(self) -> int:
        """Largest memory in bytes so far: of the process on the CPU, of the allocator on CUDA."""
        if self.kind == "cuda":
            return torch.cuda.max_memory_allocated()
        return process_peak_memory()

    def reserved_memory(self) -> int | None:
        """Largest memory in bytes that the allocator has held so far, gaps included; None on the CPU."""
        return torch.cuda.max_memory_reserved() if self.kind == "cuda" else None


def resolve(run: RunSpec) -> Device:
    """The device that a stage's `run` section means on this machine.

    Raises:
        ValueError: cuda is asked for and there is none.
    """
    if run.threads:
        torch.set_num_threads(run.threads)
    kind = run.device if run.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("launcher.device=cuda, but torch finds no CUDA device; use auto or cpu")
    on_cuda = kind == "cuda"
    if on_cuda:
        torch.cuda.set_device(read_place().local_rank)
        torch.set_float32_matmul_precision("high")
    return Device(
        kind=kind,
        bf16=run.precision == "bf16" or (run.precision == "auto" and on_cuda),
        compiled=run.compile == "on" or (run.compile == "auto" and on_cuda),
    )


def hardware_of(device: Device, world: World) -> Hardware:
    """Return what the ranks of a stage may plan with: what is free on the leading one, the same on all."""
    return Hardware(
        device=device.kind,
        memory=world.share(free_memory(device, world.local_size)),
        precision="bf16" if device.bf16 else "fp32",
        devices=world.size,
        per_host=world.local_size,
    )


def free_memory(device: Device, processes: int) -> int:
    """Bytes that each of so many processes of this host could take now; on CUDA each has a device of its own."""
    return torch.cuda.mem_get_info()[0] if device.kind == "cuda" else _free_memory() // processes


def _free_memory() -> int:
    # What the system keeps of files counts as free: it gives that up.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else os.sysconf("SC_PHYS_PAGES")
    return pages * os.sysconf("SC_PAGE_SIZE")


def environment(device: Device) -> Environment:
    """Return versions, machine, device and commit of this process."""
    return Environment(
        host=socket.gethostname(),
        device=torch.cuda.get_device_name() if device.kind == "cuda" else platform.processor() or platform.machine(),
        precision="bf16" if device.bf16 else "fp32",
        python=platform.python_version(),
        packages={name: _version(name) for name in ("tfscale", "torch", "numpy", "safetensors")},
        platform=platform.platform(),
        compiled=device.compiled,
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        commit=_commit(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None  # run from a source tree that was not installed


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = children.run(command)
    except OSError:
        return None  # no git
    return done.stdout.strip() if done.returncode == 0 else None  # installed from a wheel
