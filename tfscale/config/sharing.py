"""Conversion of settings and overrides to a form that can be shared. Paths outside of the working folder are shortened,
and settings that only determine where or how an experiment is run, such as `runs` and `tracking`, are left out."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfscale.stage import how

# Patterns of a path that may be outside of the working folder. `_PATH` matches a value that is a path, and
# `_PATH_WITHIN` matches a path within a list or a dictionary.
_PATH = re.compile(r"[~/].*|(.*/)?\.\./.*", re.DOTALL)
_PATH_WITHIN = re.compile(r"(?<=[\[{,:'\" ])(?:~|/|\.\./)[^\[\]{},'\"]*")


def shareable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the composed settings, except settings that must not be shared (`how.EXPERIMENT`). Paths are shortened by
    `shareable_path`, and tuples become lists."""
    return {name: _plain(value) for name, value in how.without(settings, how.EXPERIMENT).items()}


def shareable_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides, except overrides of settings that must not be shared (`how.EXPERIMENT`). Paths are
    shortened by `shareable_path`."""
    return [_override(text) for text in overrides if not _says_how(text.partition("=")[0].lstrip("+"))]


def shareable_path(path: str | Path) -> str:
    """Return a path relative to the working folder if it is inside that folder, otherwise only its last component."""
    absolute = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - abspath resolves `..` by name alone
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else absolute.name


def _says_how(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in how.EXPERIMENT)


def _override(text: str) -> str:
    key, _, value = text.partition("=")
    shared = (
        shareable_path(value)
        if _PATH.fullmatch(value)
        else _PATH_WITHIN.sub(lambda match: shareable_path(match[0]), value)
    )
    return f"{key}={shared}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return shareable_path(value) if isinstance(value, str) and _PATH.fullmatch(value) else value
