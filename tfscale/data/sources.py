"""Which corpus, and what identifies it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from tfscale.data.docstrings import DocstringSource
from tfscale.data.errors import DataError
from tfscale.data.hub import HubDataset, fetched_source, fetched_tokenizer, missing_source, missing_tokenizer
from tfscale.data.listing import Listing
from tfscale.data.manifest import FORMAT, read_manifest
from tfscale.data.scan import Part
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import TokenizerSpec
from tfscale.data.wiki import WIKI_PACKAGE, WIKI_SHA256, WikiSource

KNOWN = ".known"
"""Folder beside the prepared corpora, where the hashes of large files are remembered."""

SourceName = Literal["wiki", "docs", "text", "hub", "shards"]


class Source(Protocol):
    """Where text comes from."""

    def missing(self) -> list[str]:
        """Faults that keep the source from being read, each with its mend. Quick: no large file is read."""
        ...

    def identity(self) -> dict[str, str]:
        """What the text is, wherever it lies: the same identity is the same text."""
        ...

    def origin(self) -> dict[str, str]:
        """Where it is from, for the record."""
        ...

    def listing(self) -> Listing:
        """List the files that are read, and those that are left out; empty for text that is not in files of its own."""
        ...

    @property
    def slow(self) -> bool:
        """Whether reading it a second time costs more than keeping its text meanwhile."""
        ...

    def parts(self) -> Sequence[Part]:
        """The documents, in parts that can be read side by side. The same ones each time."""
        ...


@dataclass(frozen=True)
class CorpusSpec:
    """A corpus, as a user may say it. Fields that a source has no use for keep their defaults.

    Raises:
        DataError: naming every field that is wrong.
    """

    source: SourceName
    tokenizer: TokenizerSpec | None = None
    """None for shards, and only for them: they were made with a tokenizer of their own."""
    path: str | None = None
    """text: a file or folder of text. hub: a folder that is read in its place, where it is there. shards: a prepared
    folder."""
    text_key: str = "text"
    """text, hub: the key of the text in a line of JSON, or its column in Parquet."""
    hub: HubDataset | None = None
    """hub: which data set."""
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
        if self.source not in get_args(SourceName):
            faults.append(f"source={self.source!r}; allowed: {', '.join(get_args(SourceName))}")
        if self.source in ("text", "shards") and not self.path:
            faults.append(f"path is missing: source={self.source} is read from a local path")
        if self.source in ("wiki", "docs") and self.path:
            faults.append(f"path={self.path}: source={self.source} has no path. Leave it out, or set source=text.")
        if (self.source == "hub") != (self.hub is not None):
            faults.append("hub: which data set, for source=hub and for it alone")
        if self.source == "shards" and self.tokenizer:
            faults.append("tokenizer: source=shards has its own. Leave it out.")
        if self.source != "shards" and not self.tokenizer:
            faults.append(f"tokenizer is missing: source={self.source} is text")
        if not 0 < self.heldout_fraction < 1:
            faults.append(f"heldout_fraction={self.heldout_fraction}; must lie between 0 and 1")
        if faults:
            raise DataError(*faults)


def source_of(spec: CorpusSpec, root: Path | None = None) -> Source:
    """Where the text of a corpus comes from; shards have none.

    Args:
        root: the folder of prepared corpora, where it stands what was fetched from the hub.

    Raises:
        DataError: the data set is not there yet.
    """
    if spec.source == "wiki":
        return WikiSource(spec.package, spec.sha256)
    if spec.source == "docs":
        return DocstringSource()
    known = root / KNOWN if root else None
    if spec.hub is None or (spec.path and Path(spec.path).exists()):
        return TextSource(local_path(spec), spec.text_key, known)
    source = fetched_source(spec.hub, spec.text_key, root)
    if source is None:
        raise DataError(missing_source(spec.hub, spec.path))
    return source


def tokenizer_of(spec: CorpusSpec, root: Path | None = None) -> TokenizerSpec:
    """The corpus' tokenizer, as a learnt one or a file.

    Raises:
        DataError: it is not there yet.
    """
    tokenizer = spec.tokenizer
    assert tokenizer is not None, "shards have a tokenizer of their own"
    if tokenizer.name is None:
        return tokenizer
    if tokenizer.path and Path(tokenizer.path).exists():
        return TokenizerSpec("file", path=tokenizer.path)
    path = fetched_tokenizer(tokenizer.name, root)
    if path is None:
        raise DataError(missing_tokenizer(tokenizer.name, tokenizer.path))
    return TokenizerSpec("file", path=str(path))


def local_path(spec: CorpusSpec) -> Path:
    """Of text and of shards."""
    assert spec.path is not None, "checked when the spec was made"
    return Path(spec.path)


def fingerprint(spec: CorpusSpec, root: Path | None = None) -> str:
    """16 hex digits that change whenever the tokens would. Nothing is trained.

    Args:
        root: the folder of prepared corpora. Hashes of large files are remembered in it, and nothing else is written.

    Raises:
        DataError: the source or the tokenizer is missing.
    """
    if spec.tokenizer is None:
        return read_manifest(local_path(spec)).fingerprint
    content = {
        "format": FORMAT,
        "source": source_of(spec, root).identity(),
        "tokenizer": tokenizer_of(spec, root).identity(),
        "heldout_fraction": spec.heldout_fraction,
        "split_seed": spec.split_seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def vocab_size(spec: CorpusSpec, root: Path | None = None) -> int:
    """Size of the tokenizer's vocabulary, known before the corpus is prepared. A model may have more rows.

    Raises:
        DataError: the tokenizer's file or the prepared folder is missing.
    """
    if spec.tokenizer is None:
        return read_manifest(local_path(spec)).tokenizer.vocab_size
    return tokenizer_of(spec, root).size()


def find_missing(spec: CorpusSpec, root: Path | None = None) -> list[str]:
    """All that keeps the corpus from being prepared, each fault with its mend. Nothing is written.

    Bytes that are not UTF-8, and a corpus too small to split, are found only in preparing it.
    """
    try:
        if spec.tokenizer is None:
            read_manifest(local_path(spec))
            return []
    except DataError as error:
        return [str(error)]
    faults = []
    for part in (source_of, tokenizer_of):
        try:
            faults += part(spec, root).missing()
        except DataError as error:
            faults.append(str(error))
    return faults
