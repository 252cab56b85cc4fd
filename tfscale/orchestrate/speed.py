"""Training speeds of finished stages, read from the folders of the stages."""

from dataclasses import dataclass
from pathlib import Path

from tfscale.plan.devices import mfu
from tfscale.stage.environment import read_environment
from tfscale.stage.result import DONE_FILE, read_result


@dataclass(frozen=True)
class Speed:
    """The training speed of a finished stage."""

    family: str
    parameters: int
    host: str
    device: str
    """Name of the device as returned by torch.cuda.get_device_name, or the architecture of the CPU."""
    precision: str
    """Training precision: bf16 (autocast), tf32 or fp32."""
    devices: int
    flops_per_second: float
    """Model FLOP/s of all devices together."""
    optimizer_ratio: float = 0.0
    """FLOPs of optimizer updates per model FLOP, or 0 if the FLOPs of optimizer updates were not recorded."""

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation, or None if conf/device lists no peak for the device and precision."""
        return mfu(self.device, self.precision, self.flops_per_second, self.devices)


def stage_speed(stage_dir: Path) -> Speed | None:
    """Return the training speed of a stage, or None if the stage is not finished or its speed was not recorded."""
    try:
        environment, result = read_environment(stage_dir), read_result(stage_dir)
    except ValueError:
        return None
    spent = result.totals - result.before
    if result.speed is None or result.speed.flops_per_second <= 0 or spent.seconds <= 0:
        return None
    return Speed(
        family=stage_dir.name.partition("-")[0],
        parameters=result.speed.parameters,
        host=environment.host,
        device=environment.device,
        precision=environment.precision,
        devices=max(1, round(spent.device_seconds / spent.seconds)),
        flops_per_second=result.speed.flops_per_second,
        optimizer_ratio=(spent.optimizer_flops or 0) / spent.flops if spent.flops else 0.0,
    )


def finished_speeds(runs: Path) -> list[Speed]:
    found = (stage_speed(done.parent) for done in sorted((runs / "stages").glob(f"*/{DONE_FILE}")))
    return [speed for speed in found if speed is not None]
