"""A schedule of the user's own that takes another one over and says what differs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfscale.config.compose import conf_dir, group_options

_MARK = "# @package _global_\n# Written by tfscale"


def schedule_option(overrides: Sequence[str]) -> str:
    """The name behind `schedule=`: the overrides', or the one that the configuration begins with."""
    from omegaconf import OmegaConf

    named = [text.partition("=")[2] for text in overrides if text.startswith("schedule=")]
    if named:
        return named[-1]
    defaults = OmegaConf.load(conf_dir() / "config.yaml").defaults
    return str(next(entry["schedule"] for entry in defaults if "schedule" in entry))


def schedule_file(name: str, config_dir: Path | None) -> Path:
    """Where a schedule of the user's own is found by its name afterwards: in the folder that was named, or in conf/."""
    return (config_dir or Path("conf")) / "schedule" / f"{name}.yaml"


def overlay_faults(name: str, taken_over: str, config_dir: Path | None) -> list[str]:
    """Why a schedule of this name cannot be written."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        return [f"--write {name!r}: names a schedule; letters, digits and . + - _ alone"]
    path = schedule_file(name, config_dir)
    if name == taken_over or name in group_options()["schedule"]:
        return [f"--write {name}: there is a schedule of that name already; choose another, such as {taken_over}_tuned"]
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
        return [f"--write {name}: {path} exists and is not tfscale's own; choose another name"]
    return []


def write_overlay(path: Path, taken_over: str, values: Mapping[str, Any], remarks: Sequence[str]) -> None:
    """Writes a schedule that is `taken_over` with other values, by their dotted keys."""
    from omegaconf import OmegaConf

    changes = OmegaConf.create()
    for key, value in values.items():
        OmegaConf.update(changes, key, value)
    head = "".join(f"# {remark}\n" for remark in remarks)
    text = f"{_MARK}: {taken_over} with other values.\n{head}defaults:\n  - {taken_over}\n  - _self_\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + OmegaConf.to_yaml(changes), encoding="utf-8")
