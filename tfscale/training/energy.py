"""Energy used by the device that this process trains on, as counted by the device itself."""

from typing import Any

import torch

from tfscale.training.device import Device


class EnergyMeter:
    """NVML's energy counter of one CUDA device. It counts everything that runs on the device and is updated every 20 to
    100 milliseconds, so it is accurate over many steps, but not over one."""

    def __init__(self, device: Device) -> None:
        self._nvml, self._handle = _open(device)

    @property
    def works(self) -> bool:
        """True if there is a counter, which needs pynvml and a device of the Volta generation or later."""
        return self._handle is not None

    def joules(self) -> float:
        """Return the counter's reading in joules; 0 without a counter. Only differences are meaningful."""
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
