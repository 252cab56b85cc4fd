"""Shared strategies and settings of the fuzz tests. The inputs are few and fixed, unless TFSCALE_FUZZ_EXAMPLES sets a
number of random inputs per property."""

import copy
import os
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("TFSCALE_FUZZ_EXAMPLES", "0"))

LONGEST_MESSAGE = 4000
"""Maximum number of characters of a readable message."""


def fuzz(few: int) -> settings:
    """Return settings with which a property is tested on `few` inputs by default."""
    return settings(
        max_examples=EXAMPLES or few,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 257, 2**31, 2**63, -(2**64), 10**30, 10**400, 0.5, -0.0, 1e-320, 1e300]),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    st.integers(-300, 300),
    st.floats(),
)
PATHS = st.sampled_from(["..", "../..", "../../x", "/etc/passwd", "/", ".", "", "a/b", "a\0b", "x" * 300, "\ud800"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8), PATHS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=5,
)
"""Strategy for any JSON value, including the NaN and the infinities of Python."""


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, child in inner for found in _places(child, (*place, key)))]


@st.composite
def edited(draw: st.DrawFn, document: Any, values: st.SearchStrategy[Any] = VALUES) -> Any:
    """Draw a JSON document with up to three values replaced, deleted or added."""
    found = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from([place for place in _places(found) if place] or [(None,)]))
        if last is None:
            return copy.deepcopy(draw(values))
        parent = found
        for key in way:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "replace", "replace", "delete", "add"])):
            case "replace":
                parent[last] = copy.deepcopy(draw(values))
            case "delete":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=6))] = copy.deepcopy(draw(values))
    return found


@st.composite
def corrupted(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a changed version of the bytes, with some flipped, removed, inserted or cut off."""
    length = len(content)
    at = draw(st.integers(0, max(0, length - 1)))
    match draw(st.sampled_from(["flip", "flip", "flip", "cut", "take", "put", "empty"])):
        case "flip":
            changed = bytearray(content)
            for place in {at, *draw(st.lists(st.integers(0, length - 1), max_size=4))}:
                changed[place] ^= draw(st.integers(1, 255))
            return bytes(changed)
        case "cut":
            return content[:at]
        case "take":
            return content[:at] + content[at + draw(st.integers(1, 64)) :]
        case "put":
            return content[:at] + draw(st.binary(min_size=1, max_size=16)) + content[at:]
        case _:
            return b""


def assert_readable(message: object, name: str = "") -> None:
    """Assert that a message is readable and contains the name."""
    text = str(message)
    assert text.strip()
    assert len(text) <= LONGEST_MESSAGE
    assert name in text


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the names and contents of all files below a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
