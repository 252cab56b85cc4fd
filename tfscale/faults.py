"""The user's faults, told once and all together."""

from collections.abc import Sequence

USER_FAULT = 2
"""Exit code for it."""


class UserFault(Exception):
    """What the user said cannot be done. `faults` are whole messages: the key, the value, what is allowed, the mend."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)
