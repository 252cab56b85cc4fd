"""Tables that can be read at any width: the least important columns are left out, and no cell is ever cut."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 10_000
"""Columns that no table takes."""


def table(
    title: str,
    left: Sequence[str],
    right: Sequence[str],
    caption: str | None = None,
    spare: Sequence[str] | None = None,
    elsewhere: str = "--json has all of them",
) -> "FittedTable":
    """Make a table whose first columns are aligned left and whose other columns are aligned right.

    Args:
        spare: columns that can be left out where the table is too wide, the least important first. The others are key
            columns. None: all that are aligned right but the first, from the last one on.
        elsewhere: says where the columns are that were left out.
    """
    return FittedTable(title, left, right, caption, right[:0:-1] if spare is None else spare, elsewhere)


class FittedTable:
    """A table that fits into any width.

    Spare columns are left out, which a line below the table says; if the key columns alone are still too wide, their
    cells go on in the next line. A spare column in which no cell says anything is never drawn.
    """

    def __init__(
        self,
        title: str,
        left: Sequence[str],
        right: Sequence[str],
        caption: str | None,
        spare: Sequence[str],
        elsewhere: str,
    ) -> None:
        self._title, self._caption, self._elsewhere = title, caption, elsewhere
        self._headings, self._left = (*left, *right), len(left)
        unknown = set(spare) - set(self._headings)
        assert not unknown, unknown
        self._spare = [self._headings.index(name) for name in spare]
        self._rows: list[tuple[str, ...]] = []
        self._sections: set[int] = set()

    def add_row(self, *cells: str) -> None:
        """Add a row; cells that are missing at its end are empty."""
        assert len(cells) <= len(self._headings)
        self._rows.append((*cells, *[""] * (len(self._headings) - len(cells))))

    def add_section(self) -> None:
        """Draw a line below the last row."""
        self._sections.add(len(self._rows) - 1)

    def fits(self, console: Console) -> bool:
        """Whether the table fits without leaving anything out."""
        return self._width(console, console.options, range(len(self._headings))) <= console.width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        spare = [column for column in self._spare if any(row[column] for row in self._rows)]
        shown = [column for column in range(len(self._headings)) if column in spare or column not in self._spare]
        left_out: list[int] = []
        for column in spare:
            if self._width(console, options, shown) <= options.max_width:
                break
            shown.remove(column)
            left_out.append(column)
        yield from self._around(self._title, "table.title")
        yield self._drawn(shown)
        yield from self._around(self._caption, "table.caption")
        if left_out:
            names = ", ".join(self._headings[column] for column in sorted(left_out))
            yield from self._around(f"left out for want of room: {names}; {self._elsewhere}", "table.caption")

    def _around(self, text: str | None, style: str) -> list[RenderableType]:
        return [Text(text, style)] if text else []

    def _width(self, console: Console, options: ConsoleOptions, shown: Sequence[int]) -> int:
        """The columns that it takes if no cell is wrapped."""
        return console.measure(self._drawn(shown), options=options.update(max_width=_UNBOUNDED)).maximum

    def _drawn(self, shown: Sequence[int]) -> Table:
        drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for column in shown:
            heading = Text(self._headings[column])
            drawn.add_column(heading, justify="left" if column < self._left else "right", overflow="fold")
        for number, cells in enumerate(self._rows):
            drawn.add_row(*(Text(cells[column]) for column in shown), end_section=number in self._sections)
        return drawn
