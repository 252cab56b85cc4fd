"""Functions that read compressed files. The compression format is recognised by the content of a file."""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tfscale.data.errors import DataError

Compression = Literal["gzip", "zstd", "xz", "bz2"]

COMPRESSED: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".xz": "xz", ".bz2": "bz2"}
"""Mapping from the last extension of a file name to the compression format."""
INSTALL = "pip install 'tfscale[data]'"
_HEAD_BYTES = 10
_MAGIC: dict[Compression, re.Pattern[bytes]] = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),  # a frame or a skippable frame
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),  # a block, or the end of an empty stream
}


def compression_of(file: Path) -> Compression | None:
    """Return the compression format of a file's content, regardless of the file name, or None if the content is not
    compressed.

    Raises:
        DataError: the extension of the file name indicates compression, but the content is not compressed.
    """
    with file.open("rb") as content:
        head = content.read(_HEAD_BYTES)
    for compression, magic in _MAGIC.items():
        if magic.match(head):
            return compression
    if file.suffix.lower() not in COMPRESSED:
        return None
    if not head:
        raise DataError(
            f"{file}: the file is empty, but even a {file.suffix} file without text has a header. Copy the file again."
        )
    raise DataError(
        f"{file}: the file is damaged, or it is not compressed although its name ends with {file.suffix}. Copy the "
        f"file again, or remove {file.suffix} from its name if it is plain text."
    )


@contextmanager
def unpacked(file: Path, compression: Compression | None) -> Iterator[io.BufferedIOBase]:
    """Return a context manager that opens a file and yields a stream of the decompressed content. `compression` is the
    format of the file, or None if the file is not compressed.

    Raises:
        DataError: the content is damaged or truncated, or the format is zstd and pyarrow is not installed.
    """
    with _open(file, compression) as content, reporting_damage(file):
        yield content


def _open(file: Path, compression: Compression | None) -> io.BufferedIOBase:
    match compression:
        case None:
            return file.open("rb")
        case "gzip":
            return gzip.GzipFile(file)
        case "zstd":
            return io.BufferedReader(pyarrow_for(file).input_stream(str(file), compression="zstd"))
        case "xz":
            return io.BufferedReader(_Streams(file, lzma.LZMADecompressor))
        case "bz2":
            return io.BufferedReader(_Streams(file, bz2.BZ2Decompressor))


class _Streams(io.RawIOBase):
    """The decompressed content of a file that consists of one or more compressed streams. A damaged stream after an
    intact stream is an error, whereas `lzma.open` and `bz2.open` ignore a damaged stream in this position."""

    def __init__(self, file: Path, start: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]) -> None:
        self._file = file.open("rb")
        self._start = start
        self._stream = start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while True:
            if self._stream.eof and not self._next():
                return 0
            packed = self._file.read(io.DEFAULT_BUFFER_SIZE) if self._stream.needs_input else b""
            if self._stream.needs_input and not packed:
                raise EOFError("the compressed data ends too early")
            if found := self._stream.decompress(packed, len(view)):
                view[: len(found)] = found
                return len(found)

    def _next(self) -> bool:
        """Skip zero padding and start the next stream. Return False if the end of the file is reached instead."""
        left = self._stream.unused_data.lstrip(b"\0")
        while not left:
            if not (block := self._file.read(io.DEFAULT_BUFFER_SIZE)):
                return False
            left = block.lstrip(b"\0")
        self._file.seek(-len(left), io.SEEK_CUR)
        self._stream = self._start()
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def reporting_damage(file: Path) -> Iterator[None]:
    """Return a context manager that converts the errors that libraries raise for damaged content into a DataError."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
        raise damaged(file, error) from error
    except OSError as error:
        if error.errno is not None:  # raised by the file system
            raise
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> DataError:
    """Return the error to raise for a file whose content is damaged."""
    reason = " ".join(str(error).split()).rstrip(".")
    return DataError(f"{file}: the file is damaged, or its format does not match its name ({reason}). Copy it again.")


def pyarrow_for(file: Path) -> Any:
    """Import and return pyarrow, which reads Parquet and zstd.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{file}: reading this file requires pyarrow. Install it: {INSTALL}") from error
    return pyarrow
