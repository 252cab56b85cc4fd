"""Energy use of a CUDA device, read from the device's own counter."""

from typing import Any

import torch

from tfscale.training.device import Device


class EnergyMeter:
    """NVML energy counter of one CUDA device. The counter includes the energy of all processes on the device and is
    updated every 20 to 100 milliseconds, so the energy of many steps is accurate, but the energy of a single step is
    not."""

    def __init__(self, device: Device) -> None:
        self._nvml, self._handle = _open(device)

    @property
    def works(self) -> bool:
        """True if the energy counter is available, which requires pynvml and a device of the Volta generation or
        later."""
        return self._handle is not None

    def joules(self) -> float:
        """Return the current value of the energy counter in joules, or 0 if there is no counter. Only differences
        between values are meaningful."""
        if self._handle is None:
            return 0.0
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000


def _open(device: Device) -> tuple[Any, Any]:
    if device.kind != "cuda":
        return None, None
    try:
        import pynvml
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None, None
    return pynvml, handle
