"""What the measurements were made on."""

import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tfscale.bench.settings import Settings
from tfscale.training.device import environment, resolve
from tfscale.training.spec import RunSpec


def machine(settings: Settings) -> dict[str, Any]:
    """Processor, memory, threads, load, versions, commit."""
    known = environment(resolve(RunSpec("", device=settings.device, threads=settings.threads)))
    kept = ("python", "packages", "platform", "precision", "threads", "cores", "commit")
    return {
        "device": device_name(settings.device),
        "processor": _processor(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": os.getloadavg()[0],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": settings.quick,
        **{name: known[name] for name in kept},
    }


def device_name(device: str) -> str:
    """Of the device that the models are on."""
    return torch.cuda.get_device_name() if device == "cuda" else _processor()


def _processor() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
