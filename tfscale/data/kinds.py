"""Supported kinds of text files, recognised by their extensions.

| name | documents | |---|---| | .txt | one per file | | .jsonl, .ndjson | one per line: a JSON object with the text
under a key | | .json | JSON lines, an array of such objects, or one such object | | .parquet | one per row: the text is
in a column of strings; null is an empty document |

Extensions are case-insensitive. All files except Parquet may be compressed (`compression`).
"""

from pathlib import PurePath
from typing import Literal

from tfscale.data.compression import COMPRESSED

Kind = Literal["text", "lines", "json", "parquet"]

KINDS: dict[str, Kind] = {".txt": "text", ".jsonl": "lines", ".ndjson": "lines", ".json": "json", ".parquet": "parquet"}
"""Mapping from the extension of a file name to the kind of text file."""
ALLOWED = ".txt, .jsonl, .ndjson, .json (each also as .gz, .zst, .xz, .bz2) and .parquet files"
METADATA = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""Names of files that describe a dataset of the Hugging Face Hub but contain no documents."""


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


def why_other(name: str) -> str:
    """Return the reason why a file of an unsupported kind is not read."""
    path = PurePath(name.lower())
    if path.name in METADATA:
        return "metadata of a dataset"
    if not path.suffix:
        return "no extension"
    extensions = path.suffixes[-2:] if path.suffix in COMPRESSED else [path.suffix]
    return f"unsupported format {''.join(extensions)}"
