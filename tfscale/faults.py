"""The user's faults, told once and all together."""

import re
from collections.abc import Sequence

USER_FAULT = 2
"""Exit code of a process that refused what the user asked for."""
PREEMPTED = 75
"""Exit code of a process that stopped because it was asked to (EX_TEMPFAIL): run it again to go on."""


class UserFault(Exception):
    """Says why what the user asked for cannot be done. Each of `faults` is a whole message: the key, the value, what is
    allowed, the fix. No message shows a password."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = [without_password(fault) for fault in faults]
        super().__init__("\n".join(self.faults))


def without_password(text: str) -> str:
    """The text with every `SCHEME://USER:PASSWORD@HOST` cut down to `SCHEME://HOST`, and with `***` for the values of
    `password=`, `token=` and the like in a query."""
    text = re.sub(r"(?i)([?&][^\s=&]*(?:password|passwd|pwd|token|secret)[^\s=&]*=)[^\s&]*", r"\1***", text)
    return re.sub(r"(\w[\w+.-]*://)\S*@", r"\1", text)
