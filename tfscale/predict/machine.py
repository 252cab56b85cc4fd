"""Devices for which costs are predicted: the measured devices of this machine, or the devices named by `device=`."""

import os
import platform
import timeit
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from tfscale.config.machines import DevicePart, PeakPart
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, UserFault
from tfscale.orchestrate.launchers.machine import processes_of, visible_devices
from tfscale.orchestrate.launchers.processes import built_for_devices
from tfscale.plan.devices import facts, peak_of
from tfscale.stage.layout import Hardware

if TYPE_CHECKING:
    import torch

GIGA = 1e9
HOST_DEVICES = 8
"""Assumed maximum number of devices per host."""
MANY = 10**6


@dataclass(frozen=True, kw_only=True)
class Machine(Hardware):
    """Devices that a stage would run on, with their speed and price."""

    name: str
    peak: float | None
    """Peak FLOP/s of a device's matrix products in the precision of the run; None if unknown."""
    most: int = 1
    """Maximum number of devices that can be requested."""
    cluster: bool = False
    """True if devices are requested by whole hosts, as on a Slurm cluster."""
    measured: bool = True
    """True for the devices of this machine, whose peak is measured; False for devices whose peak is from a datasheet
    or unknown."""
    facts: DevicePart = field(default_factory=DevicePart)
    """Datasheet, price and assumed MFU of the device."""
    names: tuple[str, ...] = ()
    """Names of the device as recorded in environment.json."""

    @property
    def datasheet_peak(self) -> float | None:
        """Peak FLOP/s per device that model FLOPs utilisation refers to; None if the datasheet value is unknown."""
        return peak_of(self.facts, self.precision)


def planned_machine(experiment: Experiment) -> Machine:
    """Return the machine that `tfscale plan` assumes: the devices named by `device=` or, without `device=`, the machine
    that `running_machine` returns. Raise UserFault if the devices are missing, or if the settings do not fit the
    devices or do not determine their number."""
    return _described(experiment) if experiment.device.names else running_machine(experiment)


def running_machine(experiment: Experiment, timed: bool = True) -> Machine:
    """Return the devices that `tfscale run` would use, on this machine or on a Slurm cluster. The devices of a cluster
    are those named by `device=`. Without `device=`, their memory and speed are unknown.

    Args:
        timed: True to measure the peak of a CPU, which imports torch; False to set this peak to None.

    Raises:
        UserFault: the requested devices are missing, or the settings do not fit the devices.
    """
    return _described(experiment) if experiment.launcher.kind == "slurm" else _here(experiment, timed)


def _described(experiment: Experiment) -> Machine:
    """Return the devices that the settings describe. On a cluster without `device=`, memory and speed are unknown."""
    launcher, part = experiment.launcher, experiment.device
    kind: Literal["cpu", "cuda"] = "cuda" if part.names or launcher.slurm.gpus else "cpu"
    precision = launcher.precision_on(kind)
    peak = peak_of(part, precision) if part.names else None
    if part.names and (faults := _faults(experiment, precision, peak)):
        raise UserFault(faults)
    return Machine(
        device=kind,
        name=part.names[0] if part.names else "an unknown device",
        memory=round(part.memory * GIGA) if part.names and part.memory else None,
        peak=peak,
        precision=precision,
        devices=launcher.ranks,
        per_host=launcher.ranks // launcher.nodes,
        most=MANY if launcher.kind == "slurm" else HOST_DEVICES,
        cluster=launcher.kind == "slurm",
        measured=False,
        facts=part,
        names=part.names,
    )


def _faults(experiment: Experiment, precision: str, peak: float | None) -> list[Fault]:
    launcher, part = experiment.launcher, experiment.device
    faults = []
    if launcher.device == "cpu":
        rule = "must be auto or cuda, because device= names a GPU"
        faults.append(Fault("launcher.device", "cpu", rule, "device=auto"))
    if not launcher.ranks:
        rule = "must be a number with device=..., because auto counts the devices of this machine"
        faults.append(Fault("launcher.processes", "auto", rule, "launcher.processes=8"))
    if not part.memory:
        faults.append(Fault("device.memory", None, "must be set, in GB", "device.memory=80"))
    if peak is None:
        rule = f"must be supported by {part.names[0]}, which has no peak for {precision} (device.peak)"
        faults.append(Fault("launcher.precision", launcher.precision, rule, "launcher.precision=fp32"))
    return faults


def _here(experiment: Experiment, timed: bool) -> Machine:
    import psutil

    launcher = experiment.launcher
    there = _cuda_devices()
    kind: Literal["cpu", "cuda"] = "cuda" if there and launcher.device != "cpu" else "cpu"
    if launcher.device == "cuda" and not there:
        rule = "must be auto or cpu, because torch finds no CUDA device"
        raise UserFault([Fault("launcher.device", "cuda", rule, "launcher.device=auto")])
    precision, devices = launcher.precision_on(kind), processes_of(launcher, visible_devices(launcher))
    if kind == "cpu":
        if precision == "tf32":
            raise UserFault([Fault("launcher.precision", "tf32", "must be fp32 or bf16 on a CPU", "fp32")])
        return Machine(
            device=kind,
            name=f"CPU, {os.cpu_count()} cores",
            memory=psutil.virtual_memory().total // devices,  # the processes share memory and cores
            peak=_measured_peak(1024, kind, precision) / devices if timed else None,
            precision=precision,
            devices=devices,
            per_host=devices,
            facts=experiment.device,
            names=(platform.processor() or platform.machine(),),
        )
    import torch

    properties = torch.cuda.get_device_properties(0)
    return Machine(
        device=kind,
        name=properties.name,
        memory=properties.total_memory,
        peak=_measured_peak(8192, kind, precision),
        precision=precision,
        devices=devices,
        per_host=devices,
        most=there,
        facts=_filled(experiment.device, facts(properties.name)),
        names=(properties.name,),
    )


def _cuda_devices() -> int:
    if not built_for_devices():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _filled(part: DevicePart, known: DevicePart | None) -> DevicePart:
    """Return the device settings, with unset fields filled in from `known`."""
    empty = [item.name for item in fields(part) if getattr(part, item.name) in (None, PeakPart())]
    return part if known is None else replace(part, **{name: getattr(known, name) for name in empty})


def _measured_peak(size: int, kind: str, precision: str) -> float:
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")  # as in training
    try:
        return _matmul_rate(torch.randn(size, size, device=kind, dtype=dtype))
    finally:
        torch.set_float32_matmul_precision(before)


def _matmul_rate(square: "torch.Tensor") -> float:
    """Return the FLOP/s of the fastest of five products of a square matrix with itself."""
    seconds = min(timeit.repeat(lambda: (square @ square).sum().item(), repeat=5, number=1))
    return float(2 * square.shape[0] ** 3 / seconds)
