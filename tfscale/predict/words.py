"""Amounts as people write them."""


def gigabytes(count: float) -> str:
    """1.4 GB, 34 MB, 210 KB."""
    if count >= 1e9:
        return f"{count / 1e9:,.1f} GB"
    return f"{count / 1e6:,.0f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} KB"


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 5 min, 1.5 days, 40 days, 470 years."""
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
