"""Console output as text, tables and JSON."""

import json
import os
import re
from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

LOG_WIDTH = 1000
"""Width in characters of output that does not go to a terminal, such as output to a log file. The width is so large
that lines are not wrapped and tables have all columns."""
PROSE_WIDTH = 120
"""Maximum width of running text in characters."""
_BRACKET = re.compile(r" (?=[\[(])")
"""Pattern of the space at which a cell such as `5.98 [5.84, 6.12]` is broken into two lines."""

console = Console(highlight=False)
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = LOG_WIDTH


def leave_stdout(alone: bool) -> None:
    """Make `console` print on standard error if `alone` is True, and on standard output otherwise. Commands with the
    option --json print only the JSON document on standard output."""
    console.stderr = alone
    if "COLUMNS" not in os.environ:
        # None: the current width of the terminal.
        console.width = None if console.is_terminal else LOG_WIDTH  # type: ignore[assignment]


def prose_width() -> int:
    """Return the width in characters at which running text is wrapped."""
    return min(console.width, PROSE_WIDTH)


def say(*lines: str, prefix: str = "") -> None:
    """Print each line after the prefix. Markup is not interpreted, and lines are not wrapped."""
    for line in lines:
        console.print(prefix + line, markup=False, soft_wrap=True)


def answer(document: object) -> None:
    """Print a document as JSON on standard output. A command calls this function if the option --json is given."""
    print(as_json(document))


def as_json(document: object) -> str:
    """Return a document, which may contain dataclasses and paths, as indented JSON. Non-finite numbers become null."""
    from pydantic_core import to_jsonable_python

    return json.dumps(to_jsonable_python(document, inf_nan_mode="null"), indent=2, allow_nan=False)


class FittedTable:
    """Table that adapts to the available width.

    If the table is too wide, text in brackets in the right-aligned columns moves to a second line of the cell. If the
    table is still too wide, spare columns are omitted, and a line below the table names them. If the columns that
    remain are too wide, their text is wrapped. A spare column with only empty cells is always omitted.

    Args:
        left: headings of the left-aligned columns.
        right: headings of the right-aligned columns, which follow the left-aligned columns.
        spare: headings of columns that can be omitted, least important first. By default, these are all right-aligned
            columns except the first, and the last column is the least important.
        elsewhere: text below a table with omitted columns that says where all columns are.
    """

    def __init__(
        self,
        title: str,
        left: Sequence[str],
        right: Sequence[str],
        caption: str | None = None,
        spare: Sequence[str] | None = None,
        elsewhere: str = "all columns are in --json",
    ) -> None:
        self._title, self._caption, self._elsewhere = title, caption, elsewhere
        self._headings, self._left = (*left, *right), len(left)
        self._spare = [self._headings.index(name) for name in (right[:0:-1] if spare is None else spare)]
        self._rows: list[tuple[str, ...]] = []
        self._sections: set[int] = set()

    def add_row(self, *cells: str) -> None:
        """Add a row. If there are fewer cells than columns, the last columns are empty."""
        assert len(cells) <= len(self._headings)
        self._rows.append((*cells, *[""] * (len(self._headings) - len(cells))))

    def add_section(self) -> None:
        """Add a line below the row that was added last."""
        self._sections.add(len(self._rows) - 1)

    def fits(self, console: Console) -> bool:
        """Return True if the table with all columns fits the width of the console without line breaks in its cells."""
        return self._width(console, self._drawn(range(len(self._headings)))) <= console.width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = range(len(self._headings))
        silent = {column for column in self._spare if not any(row[column] for row in self._rows)}
        wanted = [column for column in columns if column not in silent]
        shown, drawn = wanted, self._drawn(wanted)
        if self._width(console, drawn) > options.max_width:
            shown = [column for column in wanted if column not in self._spare]
            for column in reversed(self._spare):
                more = [each for each in wanted if each in (*shown, column)]
                if self._width(console, self._drawn(more, broken=True)) <= options.max_width:
                    shown = more
            drawn = self._drawn(shown, broken=True)
        yield Text(self._title, "table.title")
        yield drawn
        if self._caption:
            yield Text(self._caption, "table.caption")
        left_out = [" ".join(self._headings[column].split()) for column in wanted if column not in shown]
        if left_out:
            omitted = f"columns omitted to fit the width: {', '.join(left_out)}; {self._elsewhere}"
            yield Text(omitted, "table.caption")

    def _width(self, console: Console, drawn: Table) -> int:
        """Return the width in characters that a table needs if no cell is wrapped."""
        return console.measure(drawn, options=console.options.update(max_width=10_000)).maximum

    def _drawn(self, shown: Sequence[int], broken: bool = False) -> Table:
        drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for column in shown:
            heading = Text(self._headings[column])
            drawn.add_column(heading, justify="left" if column < self._left else "right", overflow="fold")
        for number, cells in enumerate(self._rows):
            figures = self._left if broken else len(cells)
            texts = [_BRACKET.sub("\n", cells[each]) if each >= figures else cells[each] for each in shown]
            drawn.add_row(*map(Text, texts), end_section=number in self._sections)
        return drawn
