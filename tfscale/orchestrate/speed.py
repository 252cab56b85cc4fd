"""How fast finished stages were, from their folders."""

import json
from dataclasses import dataclass
from pathlib import Path

from tfscale.plan.devices import mfu
from tfscale.stage.events import DONE_FILE


@dataclass(frozen=True)
class Speed:
    """What a finished stage reached."""

    family: str
    """tokenformer or transformer."""
    parameters: int
    host: str
    device: str
    """As torch.cuda.get_device_name prints it; on the CPU its architecture."""
    precision: str
    """bf16 (autocast) or fp32."""
    devices: int
    flops_per_second: float
    """Model FLOPs, of all devices together."""

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation; None where conf/device does not know the device."""
        return mfu(self.device, self.precision, self.flops_per_second, self.devices)


def stage_speed(stage_dir: Path) -> Speed | None:
    """The speed of a finished stage; None where it is not finished, or was finished by another version of tfscale."""
    try:
        environment = json.loads((stage_dir / "environment.json").read_text(encoding="utf-8"))
        done = json.loads((stage_dir / DONE_FILE).read_text(encoding="utf-8"))
        speed, totals, before = done["speed"], done["totals"], done["before"]
        seconds = float(totals["seconds"]) - float(before["seconds"])
        device_seconds = float(totals["device_seconds"]) - float(before["device_seconds"])
        found = Speed(
            family=stage_dir.name.partition("-")[0],
            parameters=int(speed["parameters"]),
            host=str(environment["host"]),
            device=str(environment["device"]),
            precision=str(environment["precision"]),
            devices=max(1, round(device_seconds / seconds)),
            flops_per_second=float(speed["flops_per_second"]),
        )
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        return None
    return found if found.flops_per_second > 0 else None


def finished_speeds(runs: Path) -> list[Speed]:
    """The speeds of all finished stages of a runs folder."""
    found = (stage_speed(done.parent) for done in sorted((runs / "stages").glob(f"*/{DONE_FILE}")))
    return [speed for speed in found if speed is not None]
