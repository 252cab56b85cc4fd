"""What the shell completes: overrides, baselines, stages. It reads files and composes nothing, to answer at once.

bash takes `growth=ex` for three words and completes the last, so that bare values are answered there; other shells get
the whole word. Where one key alone fits, it is offered with its present value too: a shell that has two offers adds no
space after what they share.
"""

import os
import typing
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from tfscale.faults import UserFault


def skip_equals_sign(environment: MutableMapping[str, str] = os.environ) -> None:
    """Where bash completes the word `=`, has what comes after it completed."""
    words, place = environment.get("COMP_WORDS", "").split("\n"), environment.get("COMP_CWORD", "")
    if place.isdigit() and int(place) < len(words) and words[int(place)] == "=":
        environment["COMP_WORDS"] = "\n".join(words[: int(place) + 1])
        environment["COMP_CWORD"] = str(int(place) + 1)


def overrides(context: typer.Context, incomplete: str) -> list[str]:
    """Keys, groups and values that the word which has been begun can become."""
    before: Sequence[str] = context.params.get("overrides") or ()
    try:
        offers = _Offers(before, context.params.get("config_dir"))
    except (UserFault, OSError, RecursionError, yaml.YAMLError):
        return []  # the command itself tells what is wrong
    if len(before) >= 2 and before[-1] == "=":
        return offers.values(before[-2])
    key, equals, _ = incomplete.partition("=")
    return [f"{key}={value}" for value in offers.values(key)] if equals else offers.keys(incomplete)


def baselines(incomplete: str) -> list[str]:
    """Names for --baseline."""
    from tfscale.config.folders import config_folders, group_options

    return _after_commas(incomplete, group_options(config_folders())["baseline"])


def stages(incomplete: str) -> list[str]:
    """Names of stages in the runs folder."""
    return _after_commas(incomplete, [*(path.name for path in sorted(Path("runs/stages").glob("*-*/"))), "chain"])


def kinds(incomplete: str) -> list[str]:
    """What `tfscale list` lists."""
    from tfscale.config.folders import group_options

    return list(group_options())


def _after_commas(incomplete: str, names: Sequence[str]) -> list[str]:
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names]


class _Offers:
    """What can be said, given what has been said before."""

    def __init__(self, before: Sequence[str], config_dir: Path | None) -> None:
        from tfscale.config.files import composed_of, nested
        from tfscale.config.folders import config_folders, group_options
        from tfscale.config.foreign import foreign_faults

        _, folders = foreign_faults(config_folders(config_dir))
        self._groups = group_options(folders)
        words = "\n".join(before).replace("\n=\n", "=").split("\n")
        chosen = {key: value for key, _, value in (word.partition("=") for word in words) if key in self._groups}
        self._present = nested(composed_of(folders, chosen))

    def keys(self, begun: str) -> list[str]:
        """Groups and keys that begin so, as far as their next dot; with its values where there is one alone."""
        from tfscale.config.keys import known_keys

        known = [key for key in known_keys(self._present) if key.startswith(begun)]
        inner = {key for key in known if any(other.startswith(f"{key}.") for other in known)}
        leaves = [key for key in known if key not in inner]
        depth = begun.count(".")
        while True:
            offers = [f"{group}=" for group in self._groups if group.startswith(begun)]
            parts = [key.split(".") for key in leaves]
            offers += [f"{key}=" for key, part in zip(leaves, parts, strict=True) if len(part) <= depth + 1]
            offers += [f"{'.'.join(part[: depth + 1])}." for part in parts if len(part) > depth + 1]
            offers = list(dict.fromkeys(offers))
            if len(offers) != 1 or offers[0].endswith("="):
                break
            depth += 1
        if len(offers) == 1:
            return [offers[0], *(f"{offers[0]}{value}" for value in self.values(offers[0].removesuffix("=")))]
        return offers

    def values(self, key: str) -> list[str]:
        """What can follow `key=`: a group's names, the values of a choice, else the present value."""
        from tfscale.config.keys import inner_type, type_of

        if key in self._groups:
            return self._groups[key]
        hint, present = inner_type(type_of(key)), self._value(key)
        choices = list(_choices(hint))
        if choices or hint is str:  # the shell completes paths
            return choices
        return [present] if present else []

    def _value(self, key: str) -> str | None:
        place: Any = self._present
        for part in key.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        return place if isinstance(place, str) else None


def _choices(hint: Any) -> Iterator[str]:
    if typing.get_origin(hint) is typing.Literal:
        yield from (str(value) for value in typing.get_args(hint))
    elif hint is bool:
        yield from ("true", "false")
