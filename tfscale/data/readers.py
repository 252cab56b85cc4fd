"""Functions that divide text files into parts of the corpus, and read the documents in these parts."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from tfscale.data.compression import Compression, compression_of, damaged, pyarrow_for, reporting_damage, unpacked
from tfscale.data.errors import DataError
from tfscale.data.listing import Kind, kind_of
from tfscale.data.utf8 import decode
from tfscale.grouping import grouped

PART_BYTES = 1 << 26
"""Approximate maximum size of a part of the corpus in bytes. A part is large enough that the time to start its
task is negligible, and small enough that little work is repeated after an interruption."""
ROWS = 512
"""Maximum number of Parquet rows that are read at once."""
OBJECTS = "Each line must be one JSON object."
BLANK = " \t\r\n\v\f"
"""White-space characters. In files of JSON lines, a line that contains only these characters is skipped."""
NOT_TEXT = " If the file contains no documents, remove it from the folder."


@dataclass(frozen=True)
class Span:
    """A file or part of a file. In an uncompressed .jsonl or .ndjson file, the span contains the lines whose first byte
    is at a position from `start` to `stop - 1`. In a Parquet file, the span contains the row groups `start` to
    `stop - 1`. Other files are read whole (start 0, stop None)."""

    file: Path
    kind: Kind
    compression: Compression | None = None
    start: int = 0
    stop: int | None = None

    def documents(self, text_key: str) -> Iterator[str]:
        """Yield the documents of the span in their order in the file.

        Raises:
            DataError: the file is damaged, is not UTF-8, or contains an entry without text under `text_key`.
        """
        match self.kind:
            case "text":
                with unpacked(self.file, self.compression) as content:
                    yield decode(self.file, content.read(), 0)
            case "lines":
                with unpacked(self.file, self.compression) as content:
                    yield from _lines(self, content, text_key)
            case "json":
                yield from _json(self, text_key)
            case "parquet":
                yield from _rows(self, text_key)


@dataclass(frozen=True)
class TextPart:
    """A part of the corpus, which consists of the documents in one or more files or parts of files."""

    spans: tuple[Span, ...]
    text_key: str
    size: int
    """Approximate size of the spans in bytes."""

    def documents(self) -> Iterator[str]:
        return chain.from_iterable(span.documents(self.text_key) for span in self.spans)


def divide(files: Sequence[Path], text_key: str) -> list[TextPart]:
    """Divide files into parts of at most about PART_BYTES each, in order. Small files are grouped. Large Parquet files
    and large uncompressed .jsonl and .ndjson files are cut. Other files are not cut, even if they are larger than
    PART_BYTES.

    Raises:
        DataError: a Parquet file is damaged or pyarrow is not installed, or a file is not compressed although its name
            indicates compression.
    """
    spans = (sized for file in files for sized in _spans(file))
    return [
        TextPart(tuple(span for span, _ in group), text_key, sum(size for _, size in group))
        for group in grouped(spans, itemgetter(1), PART_BYTES)
    ]


def _spans(file: Path) -> Iterator[tuple[Span, int]]:
    size, kind = file.stat().st_size, kind_of(file.name)
    assert kind is not None, f"{file} is listed as text"
    compression = None if kind == "parquet" else compression_of(file)
    if kind == "parquet":
        yield from _row_groups(file)
    elif kind == "lines" and compression is None:
        for start in range(0, size, PART_BYTES):
            stop = min(start + PART_BYTES, size)
            yield Span(file, kind, None, start, stop), stop - start
    else:
        yield Span(file, kind, compression), size


def _row_groups(file: Path) -> Iterator[tuple[Span, int]]:
    with _parquet(file) as rows:
        sizes = [rows.metadata.row_group(group).total_byte_size for group in range(rows.metadata.num_row_groups)]
    start = 0
    for group in [*grouped(sizes, int, PART_BYTES)] or [[]]:  # without rows, the columns are still checked
        yield Span(file, "parquet", None, start, start + len(group)), sum(group)
        start += len(group)


def _lines(span: Span, lines: BufferedIOBase, text_key: str) -> Iterator[str]:
    position = span.start
    if position:
        lines.seek(position - 1)
        position += len(lines.readline()) - 1  # the end of a line that began in the previous span
    number = 0
    while span.stop is None or position < span.stop:
        line = lines.readline()
        if not line:
            break
        number += 1
        text = decode(span.file, line, position)
        if text.strip(BLANK):
            try:
                yield _text_of(_parse(text, OBJECTS), text_key)
            except _FaultyEntry as fault:
                before = _lines_before(span.file, span.start)
                raise DataError(f"{span.file}, line {before + number}: {fault}") from fault
        position += len(line)


def _lines_before(file: Path, stop: int) -> int:
    count, last = 0, b"\n"
    with file.open("rb") as content:
        while stop > 0 and (block := content.read(min(stop, 1 << 20))):
            stop -= len(block)
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _json(span: Span, text_key: str) -> Iterator[str]:
    with unpacked(span.file, span.compression) as content:
        lines = _is_lines(span.file, content)
    if lines:
        yield from Span(span.file, "lines", span.compression).documents(text_key)
        return
    with unpacked(span.file, span.compression) as content:
        text = decode(span.file, content.read(), 0)
    try:
        document = _parse(text, "A .json file must contain JSON lines, an array of objects, or one object.")
        if not isinstance(document, list):
            yield _text_of(document, text_key)
            return
    except _FaultyEntry as fault:
        raise DataError(f"{span.file}: {fault}{NOT_TEXT}") from fault
    for number, entry in enumerate(document, start=1):
        try:
            yield _text_of(entry, text_key)
        except _FaultyEntry as fault:
            raise DataError(f"{span.file}, entry {number}: {fault}{NOT_TEXT}") from fault


def _is_lines(file: Path, content: BufferedIOBase) -> bool:
    """Return True if the first non-blank line of a .json file is a complete JSON object, or if all lines are blank."""
    position = 0
    for line in content:
        text = decode(file, line, position).strip(BLANK)
        position += len(line)
        if text:
            try:
                return text.startswith("{") and isinstance(_parse(text, OBJECTS), dict)
            except _FaultyEntry:
                return False
    return True


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    pyarrow = pyarrow_for(file)
    try:
        with reporting_damage(file), pyarrow.parquet.ParquetFile(file) as rows:
            yield rows
    except pyarrow.ArrowException as error:
        raise damaged(file, error) from error


def _rows(span: Span, text_key: str) -> Iterator[str]:
    types = pyarrow_for(span.file).types
    assert span.stop is not None, "Parquet is read by row groups"
    with _parquet(span.file) as rows:
        schema = rows.schema_arrow
        kind: Any = schema.field(text_key).type if text_key in schema.names else None
        if kind is not None and types.is_dictionary(kind):
            kind = kind.value_type
        if kind is None or not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
            found = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise DataError(f"{span.file}: text_key={text_key!r} is not a column of strings. Columns: {found}.")
        groups = range(span.start, span.stop)
        for batch in rows.iter_batches(ROWS, row_groups=groups, columns=[text_key], use_threads=False):
            for text in batch.column(0).to_pylist():
                yield text or ""


class _FaultyEntry(Exception):
    """Error raised for a JSON entry without valid text."""


def _parse(text: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _FaultyEntry(f"the text is not valid JSON ({error}). {expected}") from error


def _text_of(entry: Any, text_key: str) -> str:
    if not isinstance(entry, dict):
        raise _FaultyEntry(f"there is no text under text_key={text_key!r}: the entry is {_word(entry)}, not an object.")
    if text_key not in entry:
        keys = ", ".join(sorted(entry))
        raise _FaultyEntry(f"there is no text under text_key={text_key!r}. The entry has the keys: {keys}.")
    text = entry[text_key]
    if not isinstance(text, str):
        raise _FaultyEntry(
            f"there is no text under text_key={text_key!r}: the value is {_word(text)}, not a string. Remove the "
            'entry, or give it a text ("" is an empty document).'
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _FaultyEntry(f"the text has an unpaired surrogate at character {error.start}. Remove it.") from error
    return text


def _word(value: Any) -> str:
    words = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return words.get(type(value), "a list" if isinstance(value, list) else "an object")
