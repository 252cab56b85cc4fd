"""Exceptions of measurements."""


class NotMeasured(Exception):
    """Measurement that was not made as named, for example in another precision."""
