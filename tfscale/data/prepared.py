"""Functions that open and verify prepared corpora."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tfscale.data.errors import DataError
from tfscale.data.manifest import TOKENIZER_FILE, Manifest, SplitRecord, read_manifest
from tfscale.data.shards import ShardLabel, Tokens, read_shard, token_dtype
from tfscale.files import CachedDigest, sha256_of_all


@dataclass(frozen=True)
class PreparedData:
    """A prepared corpus that is open for reading, with its manifest and the tokens of the training split (`train`) and
    the validation split (`heldout`)."""

    folder: Path
    manifest: Manifest
    train: Tokens
    heldout: Tokens


def open_data(folder: Path, fingerprint: str | None = None) -> PreparedData:
    """Open a prepared corpus. Tokens stay on disk until they are read.

    Raises:
        DataError: the folder is not a prepared corpus, is damaged, or contains a corpus whose fingerprint differs from
            `fingerprint`.
    """
    manifest = read_manifest(folder)
    if fingerprint not in (None, manifest.fingerprint):
        raise DataError(
            f"{folder}: the folder contains the corpus {manifest.fingerprint}, but {fingerprint} is required. "
            "Prepare the required corpus, or set the path of its folder."
        )
    return PreparedData(
        folder,
        manifest,
        train=_open_split(folder, manifest, "train", manifest.train),
        heldout=_open_split(folder, manifest, "heldout", manifest.heldout),
    )


def verify_data(data: PreparedData, known: Path | None = None) -> PreparedData:
    """Check that the files of a prepared corpus match the SHA-256 hashes in its manifest, and return the corpus.

    Args:
        known: folder in which one hash of all files of a large corpus is cached, or None to disable the cache. If no
            file has changed since the hash was cached, the files are not read (`CachedDigest`).

    Raises:
        DataError: a file cannot be read or has changed since it was written.
    """
    manifest = data.manifest
    shards = {shard.file: shard.sha256 for split in (manifest.train, manifest.heldout) for shard in split.shards}
    expected = {TOKENIZER_FILE: manifest.tokenizer.sha256, **shards}
    files = [data.folder / name for name in expected]
    whole = hashlib.sha256("".join(expected.values()).encode()).hexdigest()
    try:
        cached = CachedDigest(known, files)
        if cached.value == whole:
            return data
        digests = sha256_of_all(files)
    except OSError as error:
        raise DataError(
            f"{error.filename}: {error.strerror}. Remove the folder and prepare the corpus again."
        ) from error
    for path, found, wanted in zip(files, digests, expected.values(), strict=True):
        if found != wanted:
            raise DataError(
                f"{path}: the file has changed since it was written (the SHA-256 differs). Remove the folder and "
                "prepare the corpus again."
            )
    cached.keep(whole)
    return data


def _open_split(folder: Path, manifest: Manifest, name: str, split: SplitRecord) -> Tokens:
    label = ShardLabel(str(manifest.format), manifest.fingerprint, manifest.tokenizer.sha256, name)
    dtype = token_dtype(manifest.tokenizer.vocab_size)
    shards = [read_shard(folder / shard.file, label, dtype) for shard in split.shards]
    held = sum(map(len, shards))
    if not held or held != split.tokens:
        raise DataError(
            f"{folder}: the {name} shards contain {held:,} tokens, but the manifest states {split.tokens:,}. "
            "Remove the folder and prepare the corpus again."
        )
    return Tokens(shards, manifest.tokenizer.vocab_size)
