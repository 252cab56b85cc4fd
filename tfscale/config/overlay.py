"""Creation of a configuration file that includes an existing schedule, or existing baselines, and changes some of the
values."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tfscale.config.folders import group_options
from tfscale.config.origins import files_of
from tfscale.faults import Fault

_MARK = "# Written by tfscale"
_PACKAGE = "# @package _global_\n"


def chosen_names(group: str, overrides: Sequence[str], config_dir: Path | None) -> tuple[str, ...]:
    """Return the names of the files in the configuration group `group` that the overrides or the defaults of the root
    file select."""
    files = files_of(overrides, config_dir)
    return tuple(file.path.stem for file in files if file.named and file.path.parent.name == group)


def own_file(group: str, name: str, config_dir: Path | None) -> Path:
    """Return the path of a user's configuration file in `config_dir`, or in conf/ if `config_dir` is None."""
    return (config_dir or Path("conf")) / group / f"{name}.yaml"


def overlay_faults(group: str, name: str, taken_over: Sequence[str], config_dir: Path | None) -> list[Fault]:
    """Return a list with a fault if `name` cannot be the name of a new file in the group `group`, otherwise an empty
    list. The new file would include the files `taken_over`."""
    if not re.fullmatch(r"\w[\w.+-]*", name):
        return [Fault("--write", repr(name), f"must name a {group} with letters, digits, and . + - _ only")]
    path = own_file(group, name, config_dir)
    if name in taken_over or name in group_options()[group]:
        other = f"{'_'.join(taken_over)}_tuned"
        return [Fault("--write", name, f"must be a new name, because a {group} of this name exists", other)]
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else _MARK
    if not text.removeprefix(_PACKAGE).startswith(_MARK):
        return [Fault("--write", name, f"must not name {path}, which was not written by tfscale", "another name")]
    return []


def write_overlay(
    path: Path, taken_over: Sequence[str], values: Mapping[str, Any], remarks: Sequence[str], whole: bool = True
) -> None:
    """Write a configuration file that includes the files `taken_over` of the same group and changes some values.

    Args:
        values: changed values by dotted key.
        remarks: additional lines of the comment at the top of the file.
        whole: True if the keys begin at the root of the configuration, as in a schedule; False if the keys begin at the
            group of the file.
    """
    changes = OmegaConf.create()
    for key, value in values.items():
        OmegaConf.update(changes, key, value)
    head = "".join(f"# {remark}\n" for remark in remarks)
    defaults = "".join(f"  - {each}\n" for each in (*taken_over, "_self_"))
    text = f"{_MARK}: {', '.join(taken_over)} with changed values.\n{head}defaults:\n{defaults}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((_PACKAGE if whole else "") + text + OmegaConf.to_yaml(changes), encoding="utf-8")
