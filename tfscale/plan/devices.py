"""Table of devices by exact name, which is read from conf/device once per process."""

from functools import cache

from tfscale.config.folders import conf_dir
from tfscale.config.machines import DevicePart

TERA = 1e12


def facts(name: str) -> DevicePart | None:
    """Return the datasheet values of a device from conf/device, or None if no file there lists the device. `name` must
    be exactly the name that torch.cuda.get_device_name returns."""
    return _table().get(name)


def peak_of(device: DevicePart, precision: str) -> float | None:
    """Return the peak speed of a device for dense matrix products in FLOP/s, or None if the device does not support the
    precision. `precision` is `bf16`, `tf32` or `fp32`."""
    rate = vars(device.peak).get(precision)
    return None if rate is None else rate * TERA


def peak(name: str, precision: str) -> float | None:
    """Return the peak speed of the device with the given name for dense matrix products in FLOP/s, or None if the
    device is not in conf/device or does not support the precision."""
    known = facts(name)
    return None if known is None else peak_of(known, precision)


def mfu(name: str, precision: str, flops_per_second: float, devices: int) -> float | None:
    """Return the model FLOPs utilisation, which is the model FLOPs per second of all devices together as a fraction of
    the sum of their peak speeds. Return None if the peak speed is unknown."""
    top = peak(name, precision)
    return None if top is None else flops_per_second / (top * devices)


@cache
def _table() -> dict[str, DevicePart]:
    from pydantic import TypeAdapter
    from yaml import safe_load

    shape = TypeAdapter(DevicePart)
    files = sorted((conf_dir() / "device").glob("*.yaml"))
    parts = [shape.validate_python(safe_load(file.read_text(encoding="utf-8"))) for file in files]
    return {name: part for part in parts for name in part.names}
