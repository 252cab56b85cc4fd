"""Formatting of numbers and lists for tables, figures and messages."""

import math
from collections.abc import Sequence


def count(value: float | None) -> str:
    """Return a count as text with at most three significant digits, such as 5, 850, 12.3K, 124M or 2.10e12, or an empty
    string for None and NaN."""
    if value is None or math.isnan(value):
        return ""
    if abs(value) < 999.5:
        return f"{value:.3g}"
    for divisor, suffix in ((1e3, "K"), (1e6, "M"), (1e9, "B")):
        if abs(value) < 999.5 * divisor:
            return f"{value / divisor:#.3g}".rstrip(".") + suffix
    return scientific(value)


def scientific(value: float | None) -> str:
    """Return a number of FLOPs as text in the form 7.40e20, or an empty string for None and NaN."""
    if value is None or math.isnan(value):
        return ""
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def share(value: float) -> str:
    """Return a fraction as text in percent, such as `23%`, `4.1%` or `below 0.1%`."""
    if 0 < value < 0.0005:
        return "below 0.1%"
    return f"{value:.1%}" if value < 0.0995 else f"{value:.0%}"


def gigabytes(size: float) -> str:
    """Return a size in bytes as text, such as 1.4 GB, 34 MB or 210 KB."""
    if size >= 1e9:
        return f"{size / 1e9:,.1f} GB"
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} KB"


def duration(seconds: float) -> str:
    """Return a time in seconds as text, such as 45 s, 3 min 20 s, 2 h 5 min, 1.5 days, 40 days or 470 years."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 86_400:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    if seconds < 2 * 365 * 86_400:
        days = seconds / 86_400
        return f"{days:.1f} days" if days < 9.95 else f"{days:,.0f} days"
    return f"{seconds / 86_400 / 365:,.0f} years"


def join(items: Sequence[str]) -> str:
    """Return a list of items as text, in the form `a`, `a and b`, or `a, b and c`."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
