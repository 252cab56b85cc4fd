"""Tests of the format of numbers and lists in messages."""

import math

import pytest

from tfscale.text import count, join


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (850.4, "850"), (999.6, "1.00K"), (123_551_232, "124M"), (1.3097e9, "1.31B"), (2.1e12, "2.10e12")],
)
def test_numbers_are_shown_in_three_digits(value: float, text: str) -> None:
    assert count(value) == text


def test_unknown_numbers_are_empty() -> None:
    assert count(None) == count(math.nan) == ""


def test_lists_read_as_prose() -> None:
    assert [join(["a"]), join(["a", "b"]), join(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
