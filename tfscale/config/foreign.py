"""Detection of configuration folders that belong to other projects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tfscale.config.files import read_file
from tfscale.config.folders import shown
from tfscale.config.keys import PARTS
from tfscale.faults import Fault

IGNORE = (
    "If this conf/ belongs to another project, add --config-dir none to read only the shipped files, or run the "
    "command in another folder."
)


def foreign_faults(folders: Sequence[Path]) -> tuple[list[Fault], list[Path]]:
    """Return a fault for each folder of another project, and all other folders. The last folder is the shipped one."""
    *own, shipped = folders
    faults = {folder: fault for folder in own if (fault := _foreign(folder))}
    return list(faults.values()), [*(folder for folder in own if folder not in faults), shipped]


def _foreign(folder: Path) -> Fault | None:
    path = folder / "config.yaml"
    try:
        root = read_file(path)
        lines = {setting.key: setting.line for setting in root.settings if "." not in setting.key}
        groups = _groups(yaml.safe_load(root.text))
    except (OSError, RecursionError, yaml.YAMLError):
        return None  # the file does not exist, or Hydra reports the problem
    unknown = [key for key in lines if key not in PARTS]
    if unknown:
        rule = f"contains settings unknown to tfscale: {' and '.join(map(repr, unknown[:2]))}."
        line = lines[unknown[0]]
    elif "schedule" not in groups:
        rule, line = "the defaults name no schedule.", 1
    else:
        return None
    return Fault("", None, f"{rule} {IGNORE}", location=f"{shown(path)}:{line}")


def _groups(root: Any) -> set[str]:
    entries = root.get("defaults") if isinstance(root, dict) else None
    names = [str(name) for entry in entries or () if isinstance(entry, dict) for name in entry]
    return {name.rpartition(" ")[2].removeprefix("/") for name in names}
