"""Text files as users may have them, with any compression and name, with and without a byte-order mark."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from tfscale.data.compression import COMPRESSED
from tfscale.data.text import TextSource

MARK = b"\xef\xbb\xbf"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}
"""Compression functions by file extension."""
assert PACK.keys() == {"", *COMPRESSED}


def lines(texts: Sequence[str]) -> bytes:
    """Return the texts as JSON Lines."""
    return b"".join(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n" for text in texts)


def array(texts: Sequence[str]) -> bytes:
    """Return the texts as an indented JSON array of objects."""
    return json.dumps([{"text": text} for text in texts], ensure_ascii=False, indent=1).encode()


def read_texts(path: Path, text_key: str = "text") -> list[str]:
    """Return the documents of a file or folder."""
    return [text for part in TextSource(path, text_key).parts() for text in part.documents()]
