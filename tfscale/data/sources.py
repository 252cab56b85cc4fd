"""Which corpus, and what identifies it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tfscale.data.docstrings import DocstringSource
from tfscale.data.errors import DataError
from tfscale.data.manifest import FORMAT, read_manifest
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import TokenizerSpec
from tfscale.data.wiki import WIKI_PACKAGE, WIKI_SHA256, WikiSource


class Source(Protocol):
    """Where text comes from."""

    def missing(self) -> list[str]:
        """Faults that keep the source from being read, each with its mend. Quick: no large file is read."""
        ...

    def identity(self) -> dict[str, str]:
        """What the text is, wherever it lies: the same identity is the same text."""
        ...

    def documents(self) -> Iterator[str]:
        """The documents, in the same order each time."""
        ...


@dataclass(frozen=True)
class CorpusSpec:
    """A corpus, as a user may say it. Fields that a source has no use for keep their defaults.

    Raises:
        DataError: naming every field that is wrong.
    """

    source: Literal["wiki", "docs", "text", "shards"]
    tokenizer: TokenizerSpec | None = None
    """None for shards, and only for them: they were made with a tokenizer of their own."""
    path: str | None = None
    """text: a file or folder of text. shards: a prepared folder."""
    text_key: str = "text"
    """text: the key of the text in a line of JSONL."""
    package: str = WIKI_PACKAGE
    """wiki: import name of the package with the text."""
    sha256: str = WIKI_SHA256
    """wiki: what the text must hash to."""
    heldout_fraction: float = 0.05
    """Of the documents, for evaluation."""
    split_seed: int = 0
    """Which documents are held out."""

    def __post_init__(self) -> None:
        faults = []
        if self.source not in ("wiki", "docs", "text", "shards"):
            faults.append(f"source={self.source!r}; allowed: wiki, docs, text, shards")
        if self.source in ("text", "shards") and not self.path:
            faults.append(f"path is missing: source={self.source} is read from a local path")
        if self.source in ("wiki", "docs") and self.path:
            faults.append(f"path={self.path}: source={self.source} has no path. Leave it out, or set source=text.")
        if self.source == "shards" and self.tokenizer:
            faults.append("tokenizer: source=shards has its own. Leave it out.")
        if self.source != "shards" and not self.tokenizer:
            faults.append(f"tokenizer is missing: source={self.source} is text")
        if not 0 < self.heldout_fraction < 1:
            faults.append(f"heldout_fraction={self.heldout_fraction}; must lie between 0 and 1")
        if faults:
            raise DataError("\n".join(faults))


def source_of(spec: CorpusSpec) -> Source:
    """Where the text of a corpus comes from; shards have none."""
    if spec.source == "wiki":
        return WikiSource(spec.package, spec.sha256)
    if spec.source == "docs":
        return DocstringSource()
    return TextSource(local_path(spec), spec.text_key)


def local_path(spec: CorpusSpec) -> Path:
    """Of text and of shards."""
    assert spec.path is not None, "checked when the spec was made"
    return Path(spec.path)


def fingerprint(spec: CorpusSpec) -> str:
    """16 hex digits that change whenever the tokens would. Nothing is written or trained.

    Raises:
        DataError: the source or the tokenizer is missing.
    """
    if spec.tokenizer is None:
        return read_manifest(local_path(spec)).fingerprint
    content = {
        "format": FORMAT,
        "source": source_of(spec).identity(),
        "tokenizer": spec.tokenizer.identity(),
        "heldout_fraction": spec.heldout_fraction,
        "split_seed": spec.split_seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def vocab_size(spec: CorpusSpec) -> int:
    """Size of the tokenizer's vocabulary, known before the corpus is prepared. A model may have more rows.

    Raises:
        DataError: the tokenizer's file or the prepared folder is missing.
    """
    if spec.tokenizer is None:
        return read_manifest(local_path(spec)).tokenizer.vocab_size
    return spec.tokenizer.size()


def find_missing(spec: CorpusSpec) -> list[str]:
    """All that keeps the corpus from being prepared, each fault with its mend. Nothing is written.

    Bytes that are not UTF-8, and a corpus too small to split, are found only in preparing it.
    """
    if spec.tokenizer is not None:
        return source_of(spec).missing() + spec.tokenizer.missing()
    try:
        read_manifest(local_path(spec))
    except DataError as error:
        return [str(error)]
    return []
