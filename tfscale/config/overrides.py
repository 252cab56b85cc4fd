"""Parser of overrides as the user types them: `key=value` and `group=name`.

If the type of a setting is text, everything after the first `=` is the value, and no character in the value is special.
Quotes around the whole value are removed, and `null` means None if the setting allows None. The values of all other
settings follow Hydra's grammar.
"""

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from tfscale.config.keys import inner_type, is_single, short, type_of
from tfscale.faults import Fault

SEVERAL = ("baseline",)
"""Configuration groups from which several files can be combined, as in baseline=[scratch,one_jump]."""

_OVERRIDE = re.compile(r"(\+{0,2})([A-Za-z_][\w.]*)=(.*)", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_BARE = re.compile(r"(?<=[:,\[])\s*(?!\w+\s*:)([^\s\"',:{}\[\]][^\"',{}\[\]]*(?:'[^\"',{}\[\]]+)*)(?=[,}\]])")
"""Pattern of a value without quotes inside lists and dictionaries."""


@dataclass(frozen=True)
class Override:
    """A parsed override from the command line, such as `optim.lr=1e-3`."""

    text: str
    """Override as typed."""
    key: str
    value: Any
    adds: bool
    """True if the override begins with `+`."""
    group: bool
    """True if the override chooses one or more files of a configuration group, such as schedule=progressive_tiny."""

    @property
    def typed(self) -> str:
        """Value as the user entered it, truncated if it is long."""
        return short(self.text.partition("=")[2])


def parse(texts: Sequence[str], groups: Collection[str]) -> tuple[list[Override], list[Fault]]:
    """Return the overrides that can be parsed, and a fault for each text that cannot be parsed."""
    hydra = OverridesParser.create()
    read = [_parse(text, texts[number - 1] if number else "", hydra, groups) for number, text in enumerate(texts)]
    return [each for each in read if isinstance(each, Override)], [each for each in read if isinstance(each, Fault)]


def _parse(text: str, before: str, hydra: OverridesParser, groups: Collection[str]) -> Override | Fault:
    match = _OVERRIDE.fullmatch(text)
    adds, key, value = match.groups() if match else ("", "", "")
    hint = type_of(key)
    as_typed = Override(text, key, value, bool(adds), key in groups)
    if inner_type(hint) is str and not _QUOTED.fullmatch(value):
        optional = type(None) in get_args(hint)
        return replace(as_typed, value=None) if value == "null" and optional else as_typed
    try:
        override = hydra.parse_override(text)
    except (HydraException, ValueError):  # ValueError: a number with too many digits
        if match and (as_typed.group or is_single(hint)):
            return as_typed  # the type check reports the problem
        return _unreadable(text, hydra) if "=" in text else _no_override(text, before)
    key = override.key_or_group
    if override.is_sweep_override() or override.is_delete():
        several = short(f"{key}=[{value}]") if key in SEVERAL else ""
        rule = "must be a single value; sweeps and deletions are not supported"
        return Fault(key, short(value) or None, rule, several)
    return Override(text, key, override.value(), override.is_add(), key in groups)


def _no_override(text: str, before: str) -> Fault:
    rule = f"{short(text)!r} is not an override; write key=value, such as schedule=progressive_tiny or optim.lr=1e-3"
    if "=" in before:
        rule += f". If it is part of the previous value, quote both: {shlex.quote(short(f'{before} {text}'))}"
    return Fault("", None, rule)


def _unreadable(text: str, hydra: OverridesParser) -> Fault:
    key, _, value = text.partition("=")
    rule = "must have the syntax of Hydra, such as optim.lr=1e-3"
    if quoted := _quoted(text, hydra):
        rule += f". Special characters inside lists and dictionaries need quotes: {shlex.quote(quoted)}"
    return Fault(short(key.lstrip("+")), short(value), rule)


def _quoted(text: str, hydra: OverridesParser) -> str | None:
    """Return an override in which the values inside lists and dictionaries are quoted, or None if quotes do not make
    the override valid."""
    quoted = _BARE.sub(lambda match: f' "{match[1].strip()}"', text)
    try:
        hydra.parse_override(quoted)
    except (HydraException, ValueError):
        return None
    return quoted if quoted != text else None
