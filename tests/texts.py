"""Text files as users have them: compressed in any way, under any name, with a byte-order mark or without."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from tfscale.data.compression import PACKED
from tfscale.data.text import TextSource

MARK = b"\xef\xbb\xbf"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}
"""Compressions by the extension that they are known by."""
assert PACK.keys() == {"", *PACKED}


def lines(texts: Sequence[str]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n" for text in texts)


def array(texts: Sequence[str]) -> bytes:
    """A JSON array of objects, over several lines."""
    return json.dumps([{"text": text} for text in texts], ensure_ascii=False, indent=1).encode()


def read_texts(path: Path, text_key: str = "text") -> list[str]:
    """The documents of a file or folder."""
    return [text for part in TextSource(path, text_key).parts() for text in part.documents()]
