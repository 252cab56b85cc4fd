"""Functions that list the text files in a folder, and the skipped files with the reasons why they are skipped.

The extension of a file, in lower or upper case, indicates the kind of text file:

| name | documents |
|---|---|
| .txt | one per file |
| .jsonl, .ndjson | one per line: a JSON object with the text under a key |
| .json | JSON lines, or an array of JSON objects with the text under a key, or one such object |
| .parquet | one per row: the text is in a column of strings; null is an empty document |

All files except Parquet may be compressed (`compression`).
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from tfscale.data.compression import COMPRESSED, compression_of
from tfscale.data.errors import DataError
from tfscale.data.utf8 import check_mark

Kind = Literal["text", "lines", "json", "parquet"]

KINDS: dict[str, Kind] = {".txt": "text", ".jsonl": "lines", ".ndjson": "lines", ".json": "json", ".parquet": "parquet"}
ALLOWED = ".txt, .jsonl, .ndjson, .json (each also as .gz, .zst, .xz, .bz2) and .parquet files"
METADATA = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""Names of files that describe a dataset of the Hugging Face Hub but contain no documents."""
_POINTER_BYTES = 1024
"""Size in bytes below which a file may be a pointer of Git LFS or git-annex."""
_SHOWN = 10
"""Maximum number of faulty files that are reported individually."""
_SHOWN_REASONS = 4
_POINTERS = {
    "git lfs pull": re.compile(rb"version https?://\S+/spec/v\d+\s+(?:.*\n)*?oid sha256:[0-9a-f]{64}\s+size \d+\s*"),
    "git annex get": re.compile(rb"/annex/objects/\S+\s*"),
}
"""Patterns that match the content of pointer files, keyed by the command that downloads the actual files."""


@dataclass(frozen=True)
class TextFile:
    """A file whose text is part of the corpus."""

    name: str
    """Path of the file relative to the listed folder."""
    path: Path
    bytes: int


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is skipped when a folder is listed."""

    name: str
    """Path relative to the listed folder. The path of a folder, which is skipped with its content, ends in a slash."""
    reason: str
    bytes: int | None
    """Size of the file in bytes, or None for a folder, a special file, or a file whose size cannot be read."""


@dataclass(frozen=True)
class Listing:
    """Text files (`files`) that were found in a folder and its subfolders, and files and folders that are skipped
    (`left_out`). Both are sorted by name."""

    files: tuple[TextFile, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def kind_of(name: str) -> Kind | None:
    """Return the kind of a file with this name, or None if files with this name are not read."""
    path = PurePath(name.lower())
    if path.name in METADATA:
        return None
    if path.suffix not in COMPRESSED:
        return KINDS.get(path.suffix)
    kind = KINDS.get(PurePath(path.stem).suffix)
    return None if kind == "parquet" else kind


def why_hidden(name: str) -> str | None:
    """Return the reason why a file or folder with this name is skipped, or None if it may be part of a corpus."""
    if name.startswith("."):
        return "hidden"
    return "metadata of macOS" if name == "__MACOSX" else None


def _why_other(name: str) -> str:
    path = PurePath(name.lower())
    if path.name in METADATA:
        return "metadata of a dataset"
    if not path.suffix:
        return "no extension"
    extensions = path.suffixes[-2:] if path.suffix in COMPRESSED else [path.suffix]
    return f"unsupported format {''.join(extensions)}"


def list_text(path: Path) -> Listing:
    """List the files of a folder, or a single text file, without opening them.

    Raises:
        DataError: there are no text files, or files or folders are not accessible. The error contains at most 10 faults
            and the number of further faults.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"path={path}: must be a text file or a folder ({reason}); try {ALLOWED}") from error
    if not stat.S_ISDIR(state.st_mode):
        return Listing((_single_file(path, state),))
    files: list[TextFile] = []
    left_out: list[LeftOut] = []
    faults: list[str] = []

    def unreadable(error: OSError) -> None:
        faults.append(f"{error.filename}: {error.strerror}. Make the folder readable, or remove it.")

    for folder, folders, names in os.walk(path, onerror=unreadable):
        inside = Path(folder)
        for name in list(folders):
            if reason := _why_not_entered(inside / name):
                folders.remove(name)
                left_out.append(LeftOut(f"{(inside / name).relative_to(path)}/", reason, None))
        for file in (inside / name for name in names):
            try:
                found = _classify(file, str(file.relative_to(path)))
            except DataError as error:
                faults.append(str(error))
            else:
                files.append(found) if isinstance(found, TextFile) else left_out.append(found)
    files.sort(key=lambda each: each.name)
    left_out.sort(key=lambda each: each.name)
    if not files and not faults:
        faults.append(f"path={path}: must contain text files, but none were found{_words(left_out)}; try {ALLOWED}")
    if faults:
        raise DataError(*_first(sorted(faults)))
    return Listing(tuple(files), tuple(left_out))


def left_out_words(listing: Listing) -> str:
    """Return a message with the number of skipped files and folders and the most frequent reasons. Return an empty
    string if nothing is skipped."""
    reasons = Counter(each.reason for each in listing.left_out).most_common()
    words = [f"{count:,} {reason}" for reason, count in reasons[:_SHOWN_REASONS]]
    if more := sum(count for _, count in reasons[_SHOWN_REASONS:]):
        words.append(f"{more:,} for other reasons")
    return f"{len(listing.left_out):,} skipped ({'; '.join(words)})" if words else ""


def find_faults(listing: Listing) -> list[str]:
    """Return messages for files that cannot be read, and for files whose first bytes show one of these faults: the file
    is a pointer of Git LFS or git-annex, the text is in UTF-16 or UTF-32, or the file is not compressed although its
    name indicates compression. After 10 messages, one more message states the number of other files with faults."""
    return _first([fault for file in listing.files if (fault := _fault(file))])


def _first(faults: list[str]) -> list[str]:
    """Return the first 10 faults, followed by a message with the number of further faults if there are any."""
    more = len(faults) - _SHOWN
    return [*faults[:_SHOWN], f"{more:,} more files have similar faults."] if more > 0 else faults


def _single_file(path: Path, state: os.stat_result) -> TextFile:
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"path={path}: must be a text file or a folder ({_special(state)}); try {ALLOWED}")
    if kind_of(path.name) is None:
        raise DataError(f"path={path}: must be a text file or a folder ({_why_other(path.name)}); try {ALLOWED}")
    return TextFile(path.name, path, state.st_size)


def _why_not_entered(folder: Path) -> str | None:
    is_link = os.path.islink(folder)  # noqa: PTH114  (unlike pathlib, it raises no errors)
    return why_hidden(folder.name) or ("a symbolic link to a folder" if is_link else None)


def _classify(file: Path, name: str) -> TextFile | LeftOut:
    why = why_hidden(file.name) or (None if kind_of(file.name) else _why_other(file.name))
    try:
        state = file.stat()
    except OSError as error:
        if why:
            return LeftOut(name, why, None)
        what = f"the target {file.readlink()} of the symbolic link" if file.is_symlink() else "the file"
        raise DataError(
            f"{file}: {what} cannot be read ({error.strerror}). Restore the file, or remove it from the folder."
        ) from error
    if not stat.S_ISREG(state.st_mode):
        return LeftOut(name, why or _special(state), None)
    return LeftOut(name, why, state.st_size) if why else TextFile(name, file, state.st_size)


def _special(state: os.stat_result) -> str:
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((f"{words}, not a file" for is_kind, words in kinds if is_kind(state.st_mode)), "a device, not a file")


def _words(left_out: Sequence[LeftOut]) -> str:
    shown = [f"{each.name} ({each.reason})" for each in left_out[:3]]
    more = [f"{len(left_out) - 3:,} more"] if len(left_out) > 3 else []
    return f" (skipped: {', '.join([*shown, *more])})" if left_out else ""


def _fault(file: TextFile) -> str | None:
    try:
        with file.path.open("rb") as content:
            head = content.read(_POINTER_BYTES)
        if file.bytes < _POINTER_BYTES:
            for command, pointer in _POINTERS.items():
                if pointer.fullmatch(head):
                    return f"{file.path}: this pointer file was not replaced by the actual file. Run {command}"
        if kind_of(file.name) != "parquet" and compression_of(file.path) is None:
            check_mark(file.path, head)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{file.path}: {error.strerror}. Make the file readable, or remove it from the folder."
    return None
