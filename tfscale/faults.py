"""Faults, which are errors in the user's input, and exceptions that report all faults together."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

USER_FAULT = 2
"""Exit code of a process that rejected the user's input."""
BUDGET_SPENT = 3
"""Exit code of a command that stopped because the remaining work does not fit into the configured `budget`."""
PREEMPTED = 75
"""Exit code (EX_TEMPFAIL) of a process that stopped on request and can be run again to continue."""


@dataclass(frozen=True)
class Fault:
    """Error in the user's input, with the setting that is wrong and a suggested fix."""

    key: str
    """Name of the setting, configuration group or command-line option that is wrong, or an empty string."""
    value: object | None
    """Value of `key` that the message shows, or None to show no value."""
    rule: str
    """Condition that the value must meet, or description of the fault."""
    hint: str = ""
    """Suggested fix, or an empty string if there is none."""
    reads: tuple[str, ...] = ()
    """Other keys whose values the rule uses. A fault of one of these keys may be the cause of this fault."""
    location: str = ""
    """File and line of the value, or an empty string if they are unknown."""

    def __str__(self) -> str:
        """Return the message in the form `location: key=value: must be ...; try ...`, without passwords."""
        about = self.key if self.value is None else f"{self.key}={self.value}"
        rule = f"{self.rule}; try {self.hint}" if self.hint else self.rule
        return without_password(": ".join(filter(None, (self.location, about, rule))))

    def below(self, prefix: str) -> "Fault":
        """Return a copy of this fault with `prefix.` before its key and before the keys in `reads`. If `prefix` is
        empty, return the fault itself."""
        if not prefix:
            return self
        return replace(self, key=f"{prefix}.{self.key}", reads=tuple(f"{prefix}.{key}" for key in self.reads))


class InvalidInput(ValueError):
    """Error raised for invalid input. The error contains all faults of the input. `user_faults` converts this error to
    UserFault."""

    def __init__(self, *faults: Fault | str) -> None:
        super().__init__(*faults)
        self.faults = as_faults(faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class UserFault(Exception):
    """Error raised if a request of the user cannot be carried out. A command prints the faults in this error and exits
    with the code USER_FAULT."""

    def __init__(self, faults: Iterable[Fault | str]) -> None:
        self.faults = as_faults(faults)
        super().__init__("\n".join(self.messages))

    @property
    def messages(self) -> list[str]:
        """Message of each fault, without passwords."""
        return [str(fault) for fault in self.faults]


@contextmanager
def user_faults(*kinds: type[Exception], about: str = "") -> Iterator[None]:
    """Return a context manager that converts errors of the given types, by default ValueError, to UserFault. The
    messages begin with `about`, such as the name of a file or option, if it is not empty."""
    kinds = kinds or (ValueError,)
    try:
        yield
    except kinds as error:
        faults = error.faults if isinstance(error, InvalidInput) else as_faults([str(error)])
        raise UserFault([Fault(about, None, str(fault)) for fault in faults] if about else faults) from error


def as_faults(faults: Iterable[Fault | str]) -> list[Fault]:
    """Return the faults as a list. Each string is converted to a fault without a key."""
    return [Fault("", None, fault) if isinstance(fault, str) else fault for fault in faults]


def without_password(text: str) -> str:
    """Return the text with every `SCHEME://USER:PASSWORD@HOST` replaced by `SCHEME://HOST`, and the values of
    `password=`, `token=` and similar query parameters replaced by `***`."""
    text = re.sub(r"(?i)([?&][^\s=&]*(?:password|passwd|pwd|token|secret)[^\s=&]*=)[^\s&]*", r"\1***", text)
    return re.sub(r"(\w[\w+.-]*://)\S*@", r"\1", text)
