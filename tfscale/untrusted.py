"""Checks of values from untrusted files."""

import dataclasses
import math
import os
import reprlib
import types
import typing
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, TypeVar

from tfscale.ranges import Range

T = TypeVar("T")
LARGEST: float = 2**63 - 1
"""Largest allowed absolute value of an integer, which is the maximum of int64 in PyTorch and safetensors. A dataclass
field can set another limit under the key `largest` in its metadata. The limit math.inf also allows non-finite
floats."""
LONGEST_NAME = 255
"""Maximum length of a file name in bytes."""


def check_fields(value: Any) -> None:
    """Check every field of a dataclass, and of nested dataclasses, against the annotated type and range
    (`tfscale.ranges`). Floats must also be finite, and the absolute value of an integer must not exceed LARGEST.

    Raises:
        ValueError: fields have another type or are out of range; the message lists all such fields by dotted names,
            such as `model.qkv[0].n`.
    """
    faults = list(_faults(value, type(value), "", LARGEST))
    if faults:
        raise ValueError("; ".join(faults))


def from_known(kind: type[T], values: Any) -> T:
    """Return an instance of the dataclass `kind`, created from the values of a JSON object, and check every field
    (`check_fields`). Objects and lists in the values become dataclasses and tuples. Values of unknown fields, which
    another version may have written, are ignored.

    Raises:
        ValueError: `values` is not a dictionary, a field without a default is missing, or a field has another type or
            is out of range.
    """
    made: T = _from_json(kind, values)
    check_fields(made)
    return made


def check_file_name(name: str) -> None:
    """Check that a name is a file name without folders.

    Raises:
        ValueError: the name is a path, or not a valid file name.
    """
    if PurePath(name).name != name or name in ("", "..") or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
        raise ValueError(f"{reprlib.repr(name)} is not the name of a file in this folder")


def _from_json(kind: Any, value: Any) -> Any:
    """Convert a JSON value to an annotated type, which may be a dataclass, `tuple[X, ...]`, or a union with one
    dataclass. Values of other types are returned unchanged."""
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_from_json(args[0], item) for item in value)
    if origin in (typing.Union, types.UnionType) and value is not None:
        return next((_from_json(arg, value) for arg in args if dataclasses.is_dataclass(arg)), value)
    return value


def _dataclass(kind: Any, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{reprlib.repr(values)} is not an object")
    fields, hints = dataclasses.fields(kind), typing.get_type_hints(kind)
    without = (dataclasses.MISSING, dataclasses.MISSING)
    lacking = [f.name for f in fields if f.name not in values and (f.default, f.default_factory) == without]
    if lacking:
        raise ValueError(f"has no {', '.join(lacking)}")
    return kind(**{f.name: _from_json(hints[f.name], values[f.name]) for f in fields if f.name in values})


def _faults(value: Any, kind: Any, name: str, largest: float) -> Iterator[str]:
    if dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value), include_extras=True)
        for field in dataclasses.fields(value):
            inner = f"{name}.{field.name}" if name else field.name
            largest = field.metadata.get("largest", LARGEST)
            yield from _faults(getattr(value, field.name), hints[field.name], inner, largest)
    elif not _fits(value, kind, largest):
        yield f"{name}={reprlib.repr(value)}: must be {_words(kind)}"
    elif rule := _outside(value, kind):
        yield f"{name}={reprlib.repr(value)}: {rule}"
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _faults(item, typing.get_args(kind)[0], f"{name}[{number}]", largest)


def _outside(value: Any, kind: Any) -> str | None:
    """Return the condition that a number violates if it is outside the range in its annotation, and None otherwise. The
    annotation may be `X | None`."""
    for each in (kind, *typing.get_args(kind)):
        if typing.get_origin(each) is typing.Annotated and value is not None:
            return next((item.fault(value) for item in each.__metadata__ if isinstance(item, Range)), None)
    return None


def _fits(value: Any, kind: Any, largest: float) -> bool:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _fits(value, kind.__origin__, largest)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg, largest) for arg in typing.get_args(kind))
    if origin is typing.Literal:
        return value in typing.get_args(kind)
    if kind is float and type(value) is float:
        return math.isfinite(value) or largest == math.inf
    if kind in (int, float):
        return type(value) is int and abs(value) <= largest  # True is an int too, but not a number
    return isinstance(value, origin or kind)


def _words(kind: Any) -> str:
    names = {int: "an integer below 2^63", float: "a finite number", str: "text", type(None): "null"}
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _words(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_words, args))
    if origin is typing.Literal:
        return " or ".join(map(repr, args))
    return names.get(kind, "an object")
