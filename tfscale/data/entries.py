"""Functions that parse documents in JSON, which are objects with the text under a key."""

import json
from typing import Any


class FaultyEntry(Exception):
    """Error raised for an entry without valid text. The message says why."""


def parse(text: str, expected: str) -> Any:
    """Parse JSON.

    Raises:
        FaultyEntry: the text is not JSON. The message ends with `expected`.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FaultyEntry(f"not JSON ({error}). {expected}") from error


def text_of(entry: Any, text_key: str) -> str:
    """Return the text of an entry.

    Raises:
        FaultyEntry: there is no text under the key, or the text contains an unpaired surrogate.
    """
    if not isinstance(entry, dict):
        raise FaultyEntry(f"no text under text_key={text_key!r}: the entry is {_word(entry)}, not an object.")
    if text_key not in entry:
        raise FaultyEntry(f"no text under text_key={text_key!r}. Keys of the entry: {', '.join(sorted(entry))}.")
    text = entry[text_key]
    if not isinstance(text, str):
        raise FaultyEntry(
            f"no text under text_key={text_key!r}: the value is {_word(text)}. Take the entry out, or give it text "
            '("" is an empty document).'
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FaultyEntry(f"half a surrogate pair at character {error.start}. Escape both halves.") from error
    return text


def _word(value: Any) -> str:
    words = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a string"}
    return words.get(type(value), "a list" if isinstance(value, list) else "an object")
