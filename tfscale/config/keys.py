"""Keys of the settings of an experiment, derived from the dataclasses that declare the settings."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from tfscale.config.schema import Experiment
from tfscale.config.types import class_of
from tfscale.growth.operator import GROWTHS, Growth

PARTS = tuple(field.name for field in dataclasses.fields(Experiment))
"""Names of the parts of the configuration, such as optim. Every key begins with one of these names."""


def known_keys(values: Any, kind: Any = Experiment, prefix: str = "") -> Iterator[str]:
    """Yield the key of every setting that the dataclass `kind` declares. Each key begins with `prefix`, such as
    `optim.`. `values` contains the composed settings, which provide the names in each dictionary of settings and the
    class of each growth operator."""
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        key, hint = f"{prefix}{item.name}", inner_type(hints[item.name])
        value = values.get(item.name) if isinstance(values, dict) else None
        yield key
        if hint is Growth:
            yield f"{key}.kind"
            yield from known_keys(value, class_of(value), f"{key}.")
        elif dataclasses.is_dataclass(hint):
            yield from known_keys(value, hint, f"{key}.")
        elif typing.get_origin(hint) is dict and isinstance(value, dict):
            element = inner_type(typing.get_args(hint)[1])
            for name, child in value.items():
                yield f"{key}.{name}"
                inner = f"{key}.{name}."
                deep = dataclasses.is_dataclass(element)
                yield from known_keys(child, element, inner) if deep else flat_keys(child, inner)


def flat_keys(values: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every entry of nested dictionaries, each before the keys of the entries below it. Each
    key begins with `prefix`."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield f"{prefix}{name}"
            yield from flat_keys(value, f"{prefix}{name}.")


def type_of(key: str) -> Any:
    """Return the declared type of the setting with the given key, such as `int | None`, or None if the key is
    unknown."""
    hint: Any = Experiment
    for part in key.split("."):
        outer = inner_type(hint)
        if outer is Growth:
            hints = (typing.get_type_hints(GROWTHS.get(name)).get(part) for name in GROWTHS.names)
            hint = str if part == "kind" else next((each for each in hints if each is not None), None)
        elif dataclasses.is_dataclass(outer):
            hint = typing.get_type_hints(outer).get(part)
        elif typing.get_origin(outer) is dict:
            hint = typing.get_args(outer)[1]
        else:
            return None
    return hint


def inner_type(hint: Any) -> Any:
    """Return X for the type `X | None`, and any other type unchanged."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return hint


def is_single(hint: Any) -> bool:
    """Return True if a setting of this type has a single value. Return False for a list, a dictionary, a part of the
    configuration with several keys, or an unknown type (None)."""
    inner = inner_type(hint)
    has_parts = inner is None or dataclasses.is_dataclass(inner)
    return not has_parts and typing.get_origin(inner) in (None, typing.Literal)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with up to three known words that are similar to `word` or have the same last
    component, such as `lr`. Return `.` if there are no such words."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    leaf = word.rpartition(".")[2]
    close += [key for key in known if key.rpartition(".")[2] == leaf and key not in close]
    return f"; did you mean {' or '.join(close[:3])}?" if close else "."


def one_line(error: Exception) -> str:
    """Return the message of an error in one line, cut off after 500 characters."""
    return short(" ".join(str(error).split()), 500)


def short(text: str, longest: int = 100) -> str:
    """Return the text, or its first `longest` characters followed by `...` if it is longer."""
    return text if len(text) <= longest else f"{text[:longest]}..."
