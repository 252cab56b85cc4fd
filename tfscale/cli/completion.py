"""Shell completion of overrides, baselines, stages and configuration groups. For speed, no configuration is composed.

bash splits `growth=ex` into three words and completes the last word, so the completions for bash are only values. The
completions for other shells are whole words. If a single key matches, its values are offered as well, because a shell
adds a space after a single candidate, but not after the common prefix of several candidates.
"""

import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from tfscale.faults import UserFault


def skip_equals_sign() -> None:
    """If bash passes `=` itself as the word to complete, change the environment variables COMP_WORDS and COMP_CWORD so
    that the text after `=` is completed instead."""
    words, place = os.environ.get("COMP_WORDS", "").split("\n"), os.environ.get("COMP_CWORD", "")
    if place.isdigit() and int(place) < len(words) and words[int(place)] == "=":
        os.environ["COMP_WORDS"] = "\n".join(words[: int(place) + 1])
        os.environ["COMP_CWORD"] = str(int(place) + 1)


def overrides(context: typer.Context, incomplete: str) -> list[str]:
    """Return the completions of an incomplete override, which are configuration groups and keys or, after `=`, the
    values of a group or key."""
    from tfscale.config.folders import config_folders, group_options

    before: Sequence[str] = context.params.get("overrides") or ()
    try:
        groups = group_options(config_folders(context.params.get("config_dir")))
    except UserFault:
        return []  # the command itself reports the fault
    if len(before) >= 2 and before[-1] == "=":
        return _values(before[-2], groups)
    key, equals, _ = incomplete.partition("=")
    return [f"{key}={value}" for value in _values(key, groups)] if equals else _keys(incomplete, groups)


def _keys(begun: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the completions of the beginning of a group or key. Keys are completed only up to the next dot. If there
    is a single completion and it ends with `=`, the completions with its values are added."""
    from tfscale.config.keys import known_keys

    known = [key for key in known_keys({}) if key.startswith(begun)]
    leaves = [f"{key}=" for key in known if not any(other.startswith(f"{key}.") for other in known)]
    depth = begun.count(".") + 1
    parts = [".".join(leaf.split(".")[:depth]) for leaf in leaves]
    offers = [f"{group}=" for group in groups if group.startswith(begun)]
    offers += [part if part.endswith("=") else f"{part}." for part in parts]
    offers = list(dict.fromkeys(offers))
    if len(offers) == 1 and offers[0].endswith("="):
        return offers + [f"{offers[0]}{value}" for value in _values(offers[0].removesuffix("="), groups)]
    return offers


def _values(key: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the options of a configuration group, or the allowed values of a key. The list is empty if `key` is
    unknown or its values cannot be listed."""
    from tfscale.config.keys import inner_type, type_of

    if key in groups:
        return list(groups[key])
    hint = inner_type(type_of(key))
    if typing.get_origin(hint) is typing.Literal:
        return [str(value) for value in typing.get_args(hint)]
    return ["true", "false"] if hint is bool else []


def baselines(incomplete: str) -> list[str]:
    """Return the completions of a comma-separated list of baselines."""
    from tfscale.config.folders import config_folders, group_options

    return _after_commas(incomplete, group_options(config_folders())["baseline"])


def stages(incomplete: str) -> list[str]:
    """Return the completions of a comma-separated list of stages. The last name is completed to `chain` or to a stage
    in the folder runs/."""
    return _after_commas(incomplete, [*(path.name for path in sorted(Path("runs/stages").glob("*-*/"))), "chain"])


def kinds(incomplete: str) -> list[str]:
    """Return the names of all configuration groups, for the completion of a group."""
    from tfscale.config.folders import group_options

    return list(group_options())


def _after_commas(incomplete: str, names: Sequence[str]) -> list[str]:
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names]
