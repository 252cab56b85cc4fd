"""Exceptions for invalid measurements."""


class NotMeasured(Exception):
    """Exception for a measurement that was not made as its name states, for example in another precision."""
