"""Content of manifest.json, which describes a prepared corpus and how the corpus was created."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tfscale.data.errors import DataError
from tfscale.files import read_object, write_json
from tfscale.ranges import Count, Natural
from tfscale.untrusted import check_file_name, from_known

FORMAT = 1
"""Version of the format of prepared corpora. The version is part of every fingerprint. It increases when a new version
of tfscale creates different tokens from the same text."""
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class ShardRecord:
    """Record of a shard in the manifest. A shard is a file of tokens."""

    file: str
    tokens: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitRecord:
    """Record of the training split or the validation split in the manifest."""

    documents: Count
    tokens: Count
    """Number of tokens in the split, including one end-of-text token per document."""
    utf8_bytes: Natural
    """Size of the text of the split in UTF-8 bytes, without end-of-text tokens."""
    shards: tuple[ShardRecord, ...]

    @property
    def bytes_per_token(self) -> float:
        """Average number of UTF-8 bytes per token. An end-of-text token counts as one byte."""
        return (self.utf8_bytes + self.documents) / self.tokens


@dataclass(frozen=True)
class TokenizerRecord:
    """Record of the tokenizer in the manifest. The file of the tokenizer is in the same folder as the manifest."""

    kind: str
    vocab_size: int
    end_of_text: str
    end_of_text_id: int
    sha256: str
    library: str
    """Version of the tokenizers library that trained or applied the tokenizer."""


@dataclass(frozen=True)
class Manifest:
    """Content of manifest.json, which describes a prepared corpus."""

    format: int
    fingerprint: str
    source: dict[str, str]
    """Identity and origin of the text (`Source.identity`, `Source.origin`)."""
    content_sha256: str
    """SHA-256 of the concatenated SHA-256 digests of all distinct documents, in the order of the source."""
    heldout_fraction: float
    split_seed: int
    empty: int
    """Number of documents that were skipped because they contain only white space."""
    duplicates: int
    """Number of documents that were skipped because they repeat an earlier document."""
    tokenizer: TokenizerRecord
    train: SplitRecord
    heldout: SplitRecord
    unknown: Natural | None = None
    """Number of unknown tokens in both splits (`Tokenizer.count_unknown`). None if they were not counted."""

    @property
    def tokens(self) -> int:
        """Number of tokens in the training and validation splits together."""
        return self.train.tokens + self.heldout.tokens

    @property
    def documents(self) -> int:
        """Number of documents in the source, including those that were skipped."""
        return self.train.documents + self.heldout.documents + self.duplicates + self.empty


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST_FILE, asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a prepared corpus.

    Raises:
        DataError: the folder is not a prepared corpus, has a different format, or has a damaged manifest.
    """
    path = folder / MANIFEST_FILE
    try:
        values = read_object(path)
    except ValueError as error:
        raise DataError(f"{error}. The folder is not a prepared corpus. Run `tfscale data prepare`.") from error
    if (found := values.get("format")) != FORMAT:
        raise DataError(
            f"{path}: the corpus has format {found}, but this version of tfscale reads format {FORMAT}. Prepare the "
            "corpus again."
        )
    try:
        manifest = from_known(Manifest, values)
        _check(manifest)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path}: the file is damaged ({error}). Remove the folder and prepare the corpus again."
        ) from error
    return manifest


def _check(manifest: Manifest) -> None:
    tokenizer = manifest.tokenizer
    if not 0 <= tokenizer.end_of_text_id < tokenizer.vocab_size <= 2**32:
        end, size = tokenizer.end_of_text_id, tokenizer.vocab_size
        raise ValueError(f"tokenizer: end_of_text_id={end} must be less than vocab_size={size}")
    for split in (manifest.train, manifest.heldout):
        for shard in split.shards:
            check_file_name(shard.file)
