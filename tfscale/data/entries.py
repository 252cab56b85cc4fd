"""Functions that parse JSON objects, each of which contains the text of a document under a key."""

import json
from typing import Any


class FaultyEntry(Exception):
    """Error raised for a JSON entry without valid text. The message states the reason."""


def parse(text: str, expected: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        FaultyEntry: the text is not JSON. The message ends with `expected`.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FaultyEntry(f"the text is not valid JSON ({error}). {expected}") from error


def text_of(entry: Any, text_key: str) -> str:
    """Return the text under the key `text_key` of a JSON entry.

    Raises:
        FaultyEntry: there is no text under the key, or the text contains an unpaired surrogate.
    """
    if not isinstance(entry, dict):
        raise FaultyEntry(f"there is no text under text_key={text_key!r}: the entry is {_word(entry)}, not an object.")
    if text_key not in entry:
        keys = ", ".join(sorted(entry))
        raise FaultyEntry(f"there is no text under text_key={text_key!r}. The entry has the keys: {keys}.")
    text = entry[text_key]
    if not isinstance(text, str):
        raise FaultyEntry(
            f"there is no text under text_key={text_key!r}: the value is {_word(text)}, not a string. Remove the "
            'entry, or give it a text ("" is an empty document).'
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FaultyEntry(f"the text has an unpaired surrogate at character {error.start}. Remove it.") from error
    return text


def _word(value: Any) -> str:
    words = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return words.get(type(value), "a list" if isinstance(value, list) else "an object")
