"""Faults of what the user asked for: values that are collected, and rendered in one place."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

USER_FAULT = 2
"""Exit code of a process that refused what the user asked for."""
PREEMPTED = 75
"""Exit code of a process that stopped because it was asked to (EX_TEMPFAIL): run it again to go on."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with what the user asked for."""

    key: str
    """The setting, group or option at fault; empty if it is about none."""
    value: object | None
    """The value of the key, as it is shown; None: it is not."""
    rule: str
    """Description of the fault, or the condition that the value must meet."""
    hint: str = ""
    """Suggested fix; empty if there is none."""
    reads: tuple[str, ...] = ()
    """Other keys that the rule reads. If one of them is at fault, this fault may follow from it."""
    place: str = ""
    """File and line of the value."""

    def __str__(self) -> str:
        """Return the message: `key=value: must be ...; try ...`. It shows no password."""
        about = self.key if self.value is None else f"{self.key}={self.value}"
        rule = f"{self.rule}; try {self.hint}" if self.hint else self.rule
        return without_password(": ".join(filter(None, (self.place, about, rule))))

    def below(self, part: str) -> "Fault":
        """Return the fault with its keys as they are called from outside a part of the configuration."""
        if not part:
            return self
        return replace(self, key=f"{part}.{self.key}", reads=tuple(f"{part}.{key}" for key in self.reads))

    def under(self, name: str) -> "Fault":
        """Return the fault as one of a part of `name`, such as a file or an option."""
        return Fault(name, None, str(self))


def plain(text: str) -> Fault:
    """Return a fault that is about no key."""
    return Fault("", None, text)


class InvalidInput(ValueError):
    """Input that cannot be used, with all that is wrong with it."""

    def __init__(self, *faults: Fault | str) -> None:
        super().__init__(*faults)
        self.faults = as_faults(faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class UserFault(Exception):
    """A request of the user that cannot be carried out, with all reasons in `faults`."""

    def __init__(self, faults: Iterable[Fault | str]) -> None:
        self.faults = as_faults(faults)
        super().__init__("\n".join(self.messages))

    @property
    def messages(self) -> list[str]:
        """The faults as text."""
        return [str(fault) for fault in self.faults]


@contextmanager
def user_faults(*kinds: type[Exception], about: str = "") -> Iterator[None]:
    """Raise errors of some types, ValueError by default, as faults of the user.

    Args:
        about: file, option or part of the configuration that the faults are about.
    """
    kinds = kinds or (ValueError,)
    try:
        yield
    except kinds as error:
        faults = error.faults if isinstance(error, InvalidInput) else as_faults([str(error)])
        raise UserFault([fault.under(about) for fault in faults] if about else faults) from error


def as_faults(faults: Iterable[Fault | str]) -> list[Fault]:
    """Return faults; a text becomes one that is about no key."""
    return [plain(fault) if isinstance(fault, str) else fault for fault in faults]


def without_password(text: str) -> str:
    """The text with every `SCHEME://USER:PASSWORD@HOST` cut down to `SCHEME://HOST`, and with `***` for the values of
    `password=`, `token=` and the like in a query."""
    text = re.sub(r"(?i)([?&][^\s=&]*(?:password|passwd|pwd|token|secret)[^\s=&]*=)[^\s&]*", r"\1***", text)
    return re.sub(r"(\w[\w+.-]*://)\S*@", r"\1", text)
