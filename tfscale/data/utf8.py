"""Functions that decode UTF-8 with or without a byte-order mark."""

import codecs
from pathlib import Path

from tfscale.data.errors import DataError

MARK = codecs.BOM_UTF8
"""Byte-order mark of UTF-8, which is not part of the text."""
_OTHER_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # first, because the LE mark begins like that of UTF-16
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}


def decode(file: Path, content: bytes, position: int) -> str:
    """Decode `content`, which begins at byte `position` of the (decompressed) file. A byte-order mark at the beginning
    of `content` is removed.

    Raises:
        DataError: the content is not UTF-8.
    """
    if position == 0:
        check_mark(file, content)
    marked = len(MARK) if content.startswith(MARK) else 0
    try:
        return content[marked:].decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = position + marked + error.start
        raise DataError(f"{file}: byte {wrong} is not UTF-8 ({error.reason}). Convert the file to UTF-8.") from error


def check_mark(file: Path, head: bytes) -> None:
    """Check that the first bytes of a text do not indicate another encoding.

    Raises:
        DataError: the text begins with the byte-order mark of UTF-16 or UTF-32.
    """
    for name, marks in _OTHER_MARKS.items():
        if head.startswith(marks):
            raise DataError(f"{file}: the text is in {name}. Convert it to UTF-8: iconv -f {name} -t UTF-8")
