"""Tables of the studies in Markdown."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean

RULES = {"l": "---", "r": "---:"}


def table(columns: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table.

    Args:
        columns: a letter for each column: `l` to align it to the left, `r` to the right. The last letter also applies
            to the columns after it.
    """
    rules = [RULES[column] for column in columns.ljust(len(head), columns[-1])]
    return "\n".join([_line(head), f"|{'|'.join(rules)}|", *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(title: str, *blocks: str) -> str:
    """Return a page with a title and blocks of text, such as tables and notes."""
    return "\n\n".join([f"# {title}", *blocks]) + "\n"


def with_range(middle: float, low: float, high: float, form: str) -> str:
    """Return a number with a range in brackets.

    Args:
        form: format of all three numbers, such as `+.3f`.
    """
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def mean_and_range(values: Sequence[float], form: str) -> str:
    """Return the mean of some values with the smallest and the largest in brackets."""
    return with_range(mean(values), min(values), max(values), form)


def write_page(path: Path, text: str) -> None:
    """Write a page to a file, and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text)


def run_study(study: Callable[[list[str]], str], name: str = "table.md") -> None:
    """Run a study with the arguments of its command, FOLDER [KEY=VALUE ...]: write the page that it returns for the
    overrides to a file in the folder."""
    write_page(Path(sys.argv[1]) / name, study(sys.argv[2:]))
