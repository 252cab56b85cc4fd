"""manifest.json: what a prepared corpus is and how it was made."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfscale.data.errors import DataError
from tfscale.files import read_object
from tfscale.untrusted import check_fields, check_file_name

FORMAT = 1
"""Version of the prepared folder. Part of every fingerprint: it rises when the same corpus would give other tokens."""
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class ShardRecord:
    """One file of tokens."""

    file: str
    tokens: int
    bytes: int
    """Size of the file."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True)
class SplitRecord:
    """Training or held-out documents."""

    documents: int
    tokens: int
    """One end-of-text token a document included."""
    utf8_bytes: int
    """Of the text alone."""
    shards: tuple[ShardRecord, ...]

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes that a token stands for, each end-of-text token counted as one byte."""
        return (self.utf8_bytes + self.documents) / self.tokens


@dataclass(frozen=True)
class TokenizerRecord:
    """The tokenizer that made the tokens; its file lies beside the manifest."""

    kind: str
    vocab_size: int
    end_of_text: str
    end_of_text_id: int
    sha256: str
    library: str
    """Version of the tokenizers library that trained or applied it."""


@dataclass(frozen=True)
class Manifest:
    """A prepared corpus."""

    format: int
    fingerprint: str
    source: dict[str, str]
    """Identity of the source."""
    content_sha256: str
    """Over the sha256 of every distinct document, in the source's order."""
    heldout_fraction: float
    split_seed: int
    empty: int
    """Documents of white space, left out."""
    duplicates: int
    """Documents seen before, left out."""
    tokenizer: TokenizerRecord
    train: SplitRecord
    heldout: SplitRecord
    unknown: int | None = None
    """Unknown tokens in both splits (`Tokenizer.count_unknown`). None: made by a version that did not count them."""

    @property
    def tokens(self) -> int:
        """Tokens of both splits."""
        return self.train.tokens + self.heldout.tokens

    @property
    def documents(self) -> int:
        """Documents of the source, those that were left out included."""
        return self.train.documents + self.heldout.documents + self.duplicates + self.empty


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json into the folder."""
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        DataError: the folder is not one, or one of another format.
    """
    path = folder / MANIFEST_FILE
    try:
        values = read_object(path)
    except ValueError as error:
        raise DataError(f"{error}. Not a prepared corpus; prepare it with tfscale.") from error
    if (found := values.get("format")) != FORMAT:
        raise DataError(f"{path}: format {found}; this version of tfscale reads {FORMAT}. Prepare the corpus again.")
    try:
        manifest = _manifest(values)
        check_fields(manifest)
        _check(manifest)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}). Remove the folder and prepare the corpus again.") from error
    return manifest


def _check(manifest: Manifest) -> None:
    tokenizer = manifest.tokenizer
    if not 0 <= tokenizer.end_of_text_id < tokenizer.vocab_size <= 2**32:
        raise ValueError(f"tokenizer: token {tokenizer.end_of_text_id} of {tokenizer.vocab_size}")
    if manifest.unknown is not None and manifest.unknown < 0:
        raise ValueError(f"unknown={manifest.unknown}")
    for split in (manifest.train, manifest.heldout):
        if split.documents < 1 or split.tokens < 1 or split.utf8_bytes < 0:
            raise ValueError(f"a split of {split.documents} documents, {split.tokens} tokens, {split.utf8_bytes} bytes")
        for shard in split.shards:
            check_file_name(shard.file)


def _manifest(values: dict[str, Any]) -> Manifest:
    return Manifest(
        **{
            **values,
            "tokenizer": TokenizerRecord(**values["tokenizer"]),
            "train": _split(values["train"]),
            "heldout": _split(values["heldout"]),
        }
    )


def _split(values: dict[str, Any]) -> SplitRecord:
    return SplitRecord(**{**values, "shards": tuple(ShardRecord(**shard) for shard in values["shards"])})
