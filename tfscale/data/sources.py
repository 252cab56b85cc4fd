"""Descriptions of corpora, and the interface of text sources."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tfscale.data.errors import DataError
from tfscale.data.hub import exists, fetch_tokenizer, fetched_tokenizer, missing_tokenizer
from tfscale.data.listing import Listing
from tfscale.data.manifest import FORMAT, read_manifest
from tfscale.data.progress import Progress
from tfscale.data.tokenizer import TokenizerSpec
from tfscale.extensions import loaded_extensions
from tfscale.faults import Fault, InvalidInput
from tfscale.registry import Registry

KNOWN = ".known"
"""Name of the folder, next to the prepared corpora, in which the hashes of large corpora are cached."""


class Part(Protocol):
    """Interface of a part of the corpus, which contains some of the documents. Several processes read different parts
    at the same time. Each part is read more than once, possibly by different processes. Parts must be picklable,
    because they are sent to other processes. The `repr` of a part must be the same in every run, because it identifies
    the intermediate results from which an interrupted preparation resumes."""

    @property
    def size(self) -> int:
        """Approximate number of bytes that are read for the part."""
        ...

    def documents(self) -> Iterator[str]:
        """Yield the documents of the part. Every call yields the same documents in the same order."""
        ...


class Source(ABC):
    """Base class of text sources. The setting `data.source` selects the text source, and other `data` settings
    configure it."""

    tokenized: ClassVar[bool] = False
    """True if the text is already tokenized, so that the source includes a tokenizer."""

    @classmethod
    def check(cls, spec: "CorpusSpec") -> Iterable[Fault | str]:
        """Return the faults in the settings of a corpus, each with its fix, without reading any files. A source
        that does not override this method accepts no `path`, `dataset` or `options`."""
        return unused(spec, "path", "dataset", "options")

    @classmethod
    @abstractmethod
    def of(cls, spec: "CorpusSpec", root: Path | None) -> "Source":
        """Return the source that the settings of a corpus describe.

        Args:
            root: folder of the prepared corpora.

        Raises:
            DataError: the text must be downloaded first.
        """

    @classmethod
    def fetch(cls, spec: "CorpusSpec", root: Path, progress: Progress) -> None:
        """Download the text unless it is on this machine. Only `tfscale data prepare` calls this method.

        Raises:
            DataError: the text cannot be downloaded.
        """
        return  # by default, there is nothing to download

    def missing(self) -> list[str]:
        """Return the reasons why the text cannot be read, each with its fix, without reading large files. By default,
        the reasons are the faults that `identity` finds."""
        try:
            self.identity()
        except DataError as error:
            return [str(fault) for fault in error.faults]
        return []

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """Return values that identify the text and do not depend on its location. Sources with equal values have equal
        text.

        Raises:
            DataError: the text cannot be read.
        """

    def origin(self) -> dict[str, str]:
        """Return values that describe the origin of the text, such as the commit of a dataset. The values are recorded
        in the manifest but do not affect the fingerprint of the corpus."""
        return {}

    def listing(self) -> Listing:
        """List the files that are read and the files that are skipped. By default, the listing is empty."""
        return Listing()

    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """Divide the documents into parts that can be read at the same time. Every call returns the same parts."""


SOURCES: Registry[type[Source]] = Registry(
    "data.source",
    {
        "wiki": "tfscale.data.wiki:WikiSource",
        "docs": "tfscale.data.docstrings:DocstringSource",
        "text": "tfscale.data.text:TextSource",
        "hub": "tfscale.data.hub_source:HubSource",
        "shards": "tfscale.data.stored:ShardSource",
    },
)


@dataclass(frozen=True)
class CorpusSpec:
    """The user's settings for a corpus. A source ignores or rejects (`Source.check`) the settings that it does not
    use.

    Raises:
        DataError: the settings are invalid. The error names all invalid settings.
    """

    source: str
    """Name of the text source in SOURCES."""
    tokenizer: TokenizerSpec | None = None
    """Tokenizer of the text. None if the source is already tokenized."""
    path: str | None = None
    text_key: str = "text"
    """Key of a JSON object, or name of a Parquet column, that contains the text."""
    dataset: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str = "main"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Additional settings that are specific to the source."""
    heldout_fraction: float = 0.05
    """Fraction of the documents that is used for validation."""
    split_seed: int = 0
    """Seed of the random choice of the documents for validation."""

    def __post_init__(self) -> None:
        try:
            faults = list(SOURCES.get(self.source).check(self))
        except InvalidInput as error:
            raise DataError(*error.faults) from error
        if faults:
            raise DataError(*faults)


def needed(spec: CorpusSpec, name: str, what: str, example: str) -> Iterator[Fault]:
    """Yield a fault if the setting `name`, which the source requires, is not set. The message of the fault describes
    the required value (`what`) and suggests an `example`."""
    if not getattr(spec, name):
        rule = f"must be set, because data.source={spec.source} requires {what}"
        yield Fault(f"data.{name}", None, rule, f"data.{name}={example}", reads=("data.source",))


def unused(spec: CorpusSpec, *names: str) -> Iterator[Fault]:
    """Yield a fault for each setting in `names` that is set although the source does not use it."""
    users = {"path": "data.source=text", "dataset": "data.source=hub", "options": "another data.source"}
    for name in names:
        if value := getattr(spec, name):
            empty = "{}" if name == "options" else "null"
            rule = f"must be {empty} with data.source={spec.source}"
            yield Fault(f"data.{name}", str(value), rule, users[name], reads=("data.source",))


def source_of(spec: CorpusSpec, root: Path | None = None) -> Source:
    """Return the text source that the settings of a corpus describe (`Source.of`)."""
    return SOURCES.get(spec.source).of(spec, root)


def tokenizer_of(spec: CorpusSpec, root: Path | None = None) -> TokenizerSpec:
    """Return the settings of the tokenizer of a corpus. For a tokenizer from the Hub, return settings of kind `file`
    with the path of the local copy, so that the kind is always `bpe` or `file`.

    Raises:
        DataError: the tokenizer must be downloaded first.
    """
    tokenizer = spec.tokenizer
    assert tokenizer is not None, "the source has a tokenizer of its own"
    if tokenizer.name is None:
        return tokenizer
    if exists(tokenizer.path):
        return TokenizerSpec("file", path=tokenizer.path)
    path = fetched_tokenizer(tokenizer.name, root)
    if path is None:
        raise DataError(missing_tokenizer(tokenizer.name, tokenizer.path))
    return TokenizerSpec("file", path=str(path))


def local_path(spec: CorpusSpec) -> Path:
    """Return the setting `path` of a corpus as a Path. The setting must not be None."""
    assert spec.path is not None
    return Path(spec.path)


def fetch(spec: CorpusSpec, root: Path, progress: Progress) -> None:
    """Download the text and the tokenizer of a corpus, unless they are on this machine.

    Raises:
        DataError: the text or the tokenizer cannot be downloaded. The error contains all failures.
    """
    downloads = [partial(SOURCES.get(spec.source).fetch, spec, root, progress)]
    if spec.tokenizer and spec.tokenizer.name and not exists(spec.tokenizer.path):
        downloads.insert(0, partial(fetch_tokenizer, spec.tokenizer.name, root, spec.tokenizer.path, progress))
    faults: list[Fault] = []
    for download in downloads:
        try:
            download()
        except DataError as error:
            faults += error.faults
    if faults:
        raise DataError(*faults)


def fingerprint(spec: CorpusSpec, root: Path | None = None) -> str:
    """Return the fingerprint of a corpus: 16 hex digits that change whenever the tokens would change. The fingerprint
    can be computed before the tokenizer is trained.

    Args:
        root: folder of the prepared corpora, in which the hash of a large text may be cached.

    Raises:
        DataError: the text or the tokenizer is missing or cannot be read.
    """
    if spec.tokenizer is None:
        return read_manifest(local_path(spec)).fingerprint
    content: dict[str, Any] = {
        "format": FORMAT,
        "source": source_of(spec, root).identity(),
        "tokenizer": tokenizer_of(spec, root).identity(),
        "heldout_fraction": spec.heldout_fraction,
        "split_seed": spec.split_seed,
    }
    if module := SOURCES.extension_of(spec.source):
        content["extension"] = [str(each) for each in loaded_extensions() if each.module == module]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def vocab_size(spec: CorpusSpec, root: Path | None = None) -> int:
    """Return the vocabulary size of the tokenizer of a corpus. The vocabulary of a model may be larger. The corpus does
    not have to be prepared yet, unless its source is already tokenized.

    Raises:
        DataError: the file of the tokenizer or the prepared folder is missing or damaged.
    """
    if spec.tokenizer is None:
        return read_manifest(local_path(spec)).tokenizer.vocab_size
    return tokenizer_of(spec, root).size()


def find_missing(spec: CorpusSpec, root: Path | None = None) -> list[str]:
    """Return the reasons why a corpus cannot be prepared, each with its fix, without preparing the corpus.

    Some faults are found only during the preparation, such as bytes that are not UTF-8 or a corpus that is too small to
    split.
    """
    faults = []
    try:
        faults += source_of(spec, root).missing()
    except DataError as error:
        faults.append(str(error))
    if spec.tokenizer:
        try:
            tokenizer_of(spec, root).size()
        except DataError as error:
            faults.append(str(error))
    return faults
