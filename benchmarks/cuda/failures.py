"""Reasons why a measurement does not count."""


class NotMeasured(Exception):
    """A measurement was not made in the way that its name says."""
