"""Faults while they are gathered: each with the key that it is about, so that what follows from one is not told too."""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Fault(NamedTuple):
    """One message."""

    key: str
    """A setting or a group; empty if it is about none."""
    text: str


_KEY = re.compile(r"([a-z_]\w*(?:\.\w+)*)(?=[=: ])")


def fault_of(text: str) -> Fault:
    """A message that begins with its key."""
    match = _KEY.match(text)
    return Fault(match[1] if match else "", text)


def unexplained(texts: Iterable[str], by: Iterable[Fault]) -> list[Fault]:
    """Those messages that do not name a key which has been found at fault before."""
    roots = {_root(fault.key) for fault in by if fault.key}
    names = [re.compile(rf"(?<![\w.]){re.escape(root)}(?![\w])") for root in roots]
    return [fault_of(text) for text in texts if not any(name.search(text) for name in names)]


def _root(key: str) -> str:
    """The key, or the stage or arm that it belongs to, whose settings depend on each other."""
    match = re.match(r"schedule\.stages\.\w+|baseline\.arms\.\w+", key)
    return match[0] if match else key
