"""Documents out of files of text: which files hold some, how they are divided into units of work, how each is read.

| file | documents |
|---|---|
| .txt | the file is one |
| .jsonl | a line is one: a JSON object with the text under a key |
| .parquet | a row is one: the text is a column of strings; null is an empty document |

.txt, .jsonl and .json may be compressed (.gz, .zst); a compressed .json is one of JSON lines.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tfscale.data.errors import DataError

PACKED = (".gz", ".zst")
SUFFIXES = (".txt", ".jsonl", ".parquet", *(kind + pack for kind in (".txt", ".jsonl", ".json") for pack in PACKED))
ALLOWED = ".txt, .jsonl, .json.gz and .parquet files (.gz and .zst too)"
UNIT_BYTES = 1 << 26
"""Of files, that one process reads at once: enough that starting does not count, little enough to be done again."""
ROWS = 512
"""Of Parquet, that are read at once."""
INSTALL = "pip install 'tfscale[data]'"


def is_text(name: str) -> bool:
    """Whether a file of this name holds documents."""
    return name.endswith(SUFFIXES)


@dataclass(frozen=True)
class Span:
    """A stretch of a file: of .jsonl the lines that begin at the bytes start to stop - 1, of .parquet these row
    groups, of others all of it (start 0, stop None)."""

    file: Path
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class TextPart:
    """Some of a corpus' documents: what one process reads at once."""

    spans: tuple[Span, ...]
    text_key: str
    size: int
    """Bytes of files, about."""

    def documents(self) -> Iterator[str]:
        """The documents, in order.

        Raises:
            DataError: bytes that are not UTF-8, lines that are not JSON with the text's key, damaged files.
        """
        for span in self.spans:
            kind = _kind(span.file)
            if kind == ".parquet":
                yield from _rows(span, self.text_key)
            elif kind == ".txt":
                with _opened(span.file) as content:
                    yield _decode(span.file, content.read(), 0)
            else:
                yield from _lines(span, self.text_key)


def divide(files: Sequence[Path], text_key: str) -> list[TextPart]:
    """The files as parts of about UNIT_BYTES each, in order: large ones cut, small ones together. A compressed file
    cannot be cut.

    Raises:
        DataError: a Parquet file is damaged.
    """
    parts: list[TextPart] = []
    spans: list[Span] = []
    held = 0
    for file in files:
        for span, size in _spans(file):
            if spans and held + size > UNIT_BYTES:
                parts.append(TextPart(tuple(spans), text_key, held))
                spans, held = [], 0
            spans.append(span)
            held += size
    return [*parts, TextPart(tuple(spans), text_key, held)] if spans else parts


def _spans(file: Path) -> Iterator[tuple[Span, int]]:
    """The file in stretches, with the bytes of each."""
    size = file.stat().st_size
    if file.suffix == ".jsonl":
        for start in range(0, size, UNIT_BYTES):
            stop = min(start + UNIT_BYTES, size)
            yield Span(file, start, stop), stop - start
    elif file.suffix == ".parquet":
        start, held = 0, 0
        with _parquet(file) as rows:
            sizes = [rows.metadata.row_group(group).total_byte_size for group in range(rows.metadata.num_row_groups)]
        for group, more in enumerate(sizes):
            if group > start and held + more > UNIT_BYTES:
                yield Span(file, start, group), held
                start, held = group, 0
            held += more
        yield Span(file, start, len(sizes)), held
    else:
        yield Span(file), size


def _kind(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix in PACKED else file.suffix


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked."""
    opened: Any
    if file.suffix == ".zst":
        opened = io.BufferedReader(_pyarrow(file).input_stream(str(file), compression="zstd"))
    else:
        opened = gzip.GzipFile(file) if file.suffix == ".gz" else file.open("rb")
    with opened, _damage(file):
        yield opened


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    """Tells what the libraries find wrong with a file's content, which they do with various errors."""
    try:
        yield
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise _damaged(file, error) from error
    except OSError as error:
        if error.errno is not None:  # of the file system
            raise
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split()).rstrip(".")
    return DataError(f"{file}: damaged, or not what its name says ({reason}). Bring the file again.")


def _pyarrow(file: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{file}: Python's pyarrow package is needed to read it: {INSTALL}") from error
    return pyarrow


def _lines(span: Span, text_key: str) -> Iterator[str]:
    with _opened(span.file) as lines:
        position = span.start
        if position:
            lines.seek(position - 1)
            position += len(lines.readline()) - 1  # the end of a line that began in the span before
        number = 0
        while span.stop is None or position < span.stop:
            line = lines.readline()
            if not line:
                break
            number += 1
            if line.strip():
                try:
                    yield _entry(_decode(span.file, line, position), text_key)
                except _FaultyEntry as fault:
                    before = _lines_before(span.file, span.start)
                    raise DataError(f"{span.file}, line {before + number}: {fault}") from fault
            position += len(line)


def _lines_before(file: Path, stop: int) -> int:
    """How many lines of the file begin before the byte `stop`."""
    count, last = 0, b"\n"
    with file.open("rb") as content:
        while stop > 0 and (block := content.read(min(stop, 1 << 20))):
            stop -= len(block)
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


class _FaultyEntry(Exception):
    """What is wrong with a line."""


def _entry(line: str, text_key: str) -> str:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _FaultyEntry(f"not JSON ({error}). Each line of a .jsonl file is one JSON object.") from error
    if not isinstance(entry, dict) or not isinstance(entry.get(text_key), str):
        keys = ", ".join(sorted(entry)) if isinstance(entry, dict) else "none"
        raise _FaultyEntry(f"no text under text_key={text_key!r}. Keys of the line: {keys}.")
    text: str = entry[text_key]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _FaultyEntry(f"half a surrogate pair at character {error.start}. Escape both halves.") from error
    return text


def _decode(file: Path, content: bytes, position: int) -> str:
    """The text of `content`, which stands at byte `position` of the file."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: byte {position + error.start} is not UTF-8 ({error.reason}). Convert the file to UTF-8."
        ) from error


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    pyarrow = _pyarrow(file)
    try:
        with _damage(file), pyarrow.parquet.ParquetFile(file) as rows:
            yield rows
    except pyarrow.ArrowException as error:
        raise _damaged(file, error) from error


def _rows(span: Span, text_key: str) -> Iterator[str]:
    types = _pyarrow(span.file).types
    assert span.stop is not None, "Parquet is read by row groups"
    with _parquet(span.file) as rows:
        schema = rows.schema_arrow
        kind: Any = schema.field(text_key).type if text_key in schema.names else None
        if kind is not None and types.is_dictionary(kind):
            kind = kind.value_type
        if kind is None or not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
            found = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise DataError(f"{span.file}: no column of text under text_key={text_key!r}. Columns: {found}.")
        groups = range(span.start, span.stop)
        for batch in rows.iter_batches(ROWS, row_groups=groups, columns=[text_key], use_threads=False):
            for text in batch.column(0).to_pylist():
                yield text or ""
