"""Text to tokens: a corpus is split by document, tokenized and written once, then found again by its fingerprint.

<root>/<fingerprint>/
    manifest.json
    tokenizer.json
    train-00000.safetensors ...
    heldout-00000.safetensors ...
"""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np

from tfscale.data.errors import DataError
from tfscale.data.manifest import FORMAT, TOKENIZER_FILE, Manifest, SplitRecord, TokenizerRecord, write_manifest
from tfscale.data.prepared import PreparedData, open_data, verify_data
from tfscale.data.shards import ShardLabel, ShardWriter, token_dtype
from tfscale.data.sources import CorpusSpec, find_missing, fingerprint, local_path, source_of
from tfscale.data.split import Progress, split_documents
from tfscale.data.spool import Spool
from tfscale.data.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer, pieces

BATCH_CHARACTERS = 1 << 20
"""Text that is tokenized at once."""


def prepare(spec: CorpusSpec, root: Path, progress: Progress | None = None) -> PreparedData:
    """The corpus as tokens, made now or found in `root` from before.

    Two processes may prepare the same corpus at once: the first to finish is used by both. While it works, the text of
    the corpus stands a second time in a hidden folder of `root`; memory grows by a hash a document, not with the text.

    Raises:
        DataError: something is missing, the text is faulty, or the corpus is too small for its split or tokenizer.
    """
    if faults := find_missing(spec):
        raise DataError("\n".join(faults))
    if spec.tokenizer is None:
        return _whole(open_data(local_path(spec)))
    key = fingerprint(spec)
    final = root / key
    if not final.exists():
        aside = root / f".{key}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            aside.mkdir(parents=True)
            _write(spec, spec.tokenizer, key, aside, progress or _silent)
            _publish(aside, final)
        except OSError as error:
            raise DataError(f"{error.filename or root}: {error.strerror}. The corpus was not prepared.") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return _whole(open_data(final, key))


def _whole(data: PreparedData) -> PreparedData:
    verify_data(data)
    return data


def _silent(phase: str, documents: int) -> None:
    pass


def _publish(aside: Path, final: Path) -> None:
    try:
        aside.rename(final)
    except OSError:
        if not final.exists():
            raise
        # Another process was first, with the same tokens.


def _write(spec: CorpusSpec, tokenizer_spec: TokenizerSpec, key: str, folder: Path, progress: Progress) -> None:
    source = source_of(spec)
    with Spool(folder / "train.text") as train, Spool(folder / "heldout.text") as heldout:
        found = split_documents(source.documents(), spec.heldout_fraction, spec.split_seed, train, heldout, progress)
        tokenizer = _tokenizer(tokenizer_spec, train, progress)
        (folder / TOKENIZER_FILE).write_bytes(tokenizer.content)

        def writer(split: str) -> ShardWriter:
            return ShardWriter(
                folder, ShardLabel(str(FORMAT), key, tokenizer.sha256, split), token_dtype(tokenizer.vocab_size)
            )

        manifest = Manifest(
            format=FORMAT,
            fingerprint=key,
            source=source.identity(),
            content_sha256=found.content_sha256,
            heldout_fraction=spec.heldout_fraction,
            split_seed=spec.split_seed,
            empty=found.empty,
            duplicates=found.duplicates,
            tokenizer=TokenizerRecord(
                kind=tokenizer_spec.kind,
                vocab_size=tokenizer.vocab_size,
                end_of_text=tokenizer.end_of_text,
                end_of_text_id=tokenizer.end_of_text_id,
                sha256=tokenizer.sha256,
                library=version("tokenizers"),
            ),
            train=_tokenize(train, train.read(), tokenizer, writer("train"), progress),
            heldout=_tokenize(heldout, heldout.read_at(found.heldout_places), tokenizer, writer("heldout"), progress),
        )
    if fingerprint(spec) != key:
        raise DataError(f"source={spec.source}: the text changed while it was read. Prepare it again.")
    write_manifest(folder, manifest)


def _tokenizer(spec: TokenizerSpec, train: Spool, progress: Progress) -> Tokenizer:
    if spec.path is not None:
        return load_tokenizer(Path(spec.path))
    progress("training the tokenizer", train.documents)
    return Tokenizer.train(train.read(), spec.vocab_size)


def _tokenize(
    spool: Spool, texts: Iterable[str], tokenizer: Tokenizer, writer: ShardWriter, progress: Progress
) -> SplitRecord:
    """Writes the spool's documents, read as `texts`, each followed by the end-of-text token."""
    end = [tokenizer.end_of_text_id]
    done = 0
    for batch in _batches(texts):
        encoded = tokenizer.encode_batch([piece for piece, _ in batch])
        tokens = chain.from_iterable(
            chain(piece, end if last else ()) for piece, (_, last) in zip(encoded, batch, strict=True)
        )
        writer.add(np.fromiter(tokens, token_dtype(tokenizer.vocab_size)))
        done += sum(last for _, last in batch)
        progress("tokenizing", done)
    shards = writer.close()
    return SplitRecord(spool.documents, sum(shard.tokens for shard in shards), spool.utf8_bytes, shards)


def _batches(texts: Iterable[str]) -> Iterator[list[tuple[str, bool]]]:
    """Pieces of documents, and whether each is the last of its document."""
    batch: list[tuple[str, bool]] = []
    characters = 0
    for text in texts:
        parts = list(pieces(text))
        for number, piece in enumerate(parts, start=1):
            batch.append((piece, number == len(parts)))
            characters += len(piece)
            if characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch
