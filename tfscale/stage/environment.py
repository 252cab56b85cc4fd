"""environment.json: the machine and the software versions of the process that last trained a stage."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from tfscale.files import read_object, write_json
from tfscale.untrusted import from_known

ENVIRONMENT_FILE = "environment.json"


@dataclass(frozen=True)
class Environment:
    """Software versions, machine, device and commit of a training process."""

    host: str = ""
    device: str = ""
    """Name of the device as returned by torch.cuda.get_device_name, or the architecture of the CPU."""
    precision: str = ""
    """Precision of forward passes: bf16 (autocast), tf32 or fp32. Earlier versions recorded tf32 as fp32."""
    python: str = ""
    packages: dict[str, str | None] = field(default_factory=dict)
    platform: str = ""
    compiled: bool = False
    deterministic: bool = False
    """True if only deterministic algorithms were allowed (`launcher.deterministic`)."""
    threads: int = 0
    cores: int | None = None
    commit: str | None = None


def write_environment(stage_dir: Path, environment: Environment) -> None:
    """Write an environment to environment.json in the folder of a stage, atomically."""
    write_json(stage_dir / ENVIRONMENT_FILE, asdict(environment))


def read_environment(stage_dir: Path) -> Environment:
    """Return the content of environment.json. Raise ValueError if the file is missing or damaged."""
    path = stage_dir / ENVIRONMENT_FILE
    values = read_object(path)
    try:
        return from_known(Environment, values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
