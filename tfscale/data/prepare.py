"""Preparation of a corpus. Each document is assigned to the training split or the validation split and tokenized. The
tokens are written to a folder that is named after the fingerprint of the corpus.

<root>/<fingerprint>/
    manifest.json
    tokenizer.json
    train-00000.safetensors ...
    heldout-00000.safetensors ...

The text is read twice: first to find duplicate documents (`duplicates`), then to tokenize the distinct documents
(`encode`, `assemble`). Each step is divided into tasks that run in several processes. Intermediate results are kept in
a hidden folder of `root` until the corpus is complete. Therefore a preparation that was killed resumes with the
unfinished tasks. The prepared corpus does not depend on interruptions or on the number of processes.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from tfscale.data.assemble import divide_shards, write_heldout, write_shard
from tfscale.data.duplicates import DocumentTotals, Duplicates, Scan, find_duplicates, limit, ranges, scan
from tfscale.data.encode import Distinct, Encoded, encode
from tfscale.data.errors import DataError, Unfinished
from tfscale.data.manifest import (
    FORMAT,
    TOKENIZER_FILE,
    Manifest,
    ShardRecord,
    SplitRecord,
    TokenizerRecord,
    write_manifest,
)
from tfscale.data.prepared import PreparedData, open_data, verify_data
from tfscale.data.progress import Progress, Report, silent
from tfscale.data.shards import ShardLabel, token_dtype
from tfscale.data.sources import KNOWN, CorpusSpec, find_missing, fingerprint, local_path, source_of, tokenizer_of
from tfscale.data.tokenizer import Tokenizer, load_tokenizer
from tfscale.data.work import Pieces, alone_in
from tfscale.data.workers import Counts, Watch, Workers
from tfscale.files import sync
from tfscale.host import cores

WORK = 2
"""Version of the format of intermediate results. It increases when a new version of tfscale changes their content."""
TOKENIZER_SAMPLE_BYTES = 1 << 30
"""Approximate maximum size in bytes of the text that a tokenizer is trained on. If the training split is larger, a
random sample of about this size is used."""


def prepare(spec: CorpusSpec, root: Path, progress: Progress = silent, workers: int = 0) -> PreparedData:
    """Prepare a corpus, unless `root` contains it already or its source is a prepared corpus. Return the opened and
    verified corpus.

    If two processes prepare the same corpus at the same time, the second process waits for the first. During the
    preparation, `root` needs disk space for two copies of the tokens and for about 60 bytes per document.

    Args:
        workers: number of processes, or 0 for one process per core.

    Raises:
        DataError: a file, package or download is missing, the text is faulty, or the corpus is too small to be split or
            to train a tokenizer with the required vocabulary size.
        Unfinished: a process was killed, or a file cannot be read or written, for example because the disk is full.
    """
    if faults := find_missing(spec, root):
        raise DataError(*faults)
    if spec.tokenizer is None:
        return verify_data(open_data(local_path(spec)), root / KNOWN)
    key = fingerprint(spec, root)
    try:
        if not (root / key).exists():
            with Workers(workers or cores()) as processes:
                _Preparation(spec, root, key, processes, progress).run()
        return verify_data(open_data(root / key, key), root / KNOWN)
    except OSError as error:
        raise Unfinished(
            f"{error.filename or root}: {error.strerror}. Fix this problem and run the command again to resume."
        ) from error


class _Preparation:
    def __init__(self, spec: CorpusSpec, root: Path, key: str, workers: Workers, progress: Progress) -> None:
        self._spec, self._root, self._key, self._workers, self._progress = spec, root, key, workers, progress
        self._source = source_of(spec, root)
        self._parts = self._source.parts()
        self._work = root / f".{key}-{self._version()}"

    def _version(self) -> str:
        """Return a hash, 8 hex digits, of the values that determine the intermediate results in addition to the
        fingerprint."""
        settings = (WORK, version("tokenizers"), self._parts)
        return hashlib.sha256(repr(settings).encode()).hexdigest()[:8]

    def run(self) -> None:
        def waits() -> None:
            self._progress(Report("waiting for another process that is preparing the same corpus"))

        try:
            with alone_in(self._work, waits):
                if not (self._root / self._key).exists():
                    self._work.mkdir(exist_ok=True)  # the other process may have failed and removed it
                    self._make()
        except Unfinished:
            raise
        except DataError:
            shutil.rmtree(self._work, ignore_errors=True)  # a fix changes the text and therefore the fingerprint
            raise
        shutil.rmtree(self._work, ignore_errors=True)

    def _make(self) -> None:
        pieces = Pieces(self._work)
        scans = self._scan(pieces)
        heldout_limit = limit(self._spec.heldout_fraction)
        duplicates = self._find_duplicates(pieces, scans, heldout_limit)
        empty = sum(scan.empty for scan in scans)
        found = DocumentTotals(*map(sum, zip(*(each.totals for each in duplicates), strict=True)))
        self._check(found, empty)
        distinct = [
            Distinct(part, number, scan, duplicates, heldout_limit)
            for number, (part, scan) in enumerate(zip(self._parts, scans, strict=True))
        ]
        tokenizer_path = self._tokenizer(pieces, distinct, found)
        tokenizer = load_tokenizer(tokenizer_path)
        encoded = self._encode(pieces, distinct, tokenizer_path, found)
        files, train, heldout = self._assemble(pieces, encoded, tokenizer)
        if fingerprint(self._spec, self._root) != self._key:
            raise DataError(
                f"data.source={self._spec.source}: the text changed while it was being read. Prepare the corpus again."
            )
        manifest = Manifest(
            format=FORMAT,
            fingerprint=self._key,
            source={**self._source.identity(), **self._source.origin()},
            content_sha256=_content(distinct),
            heldout_fraction=self._spec.heldout_fraction,
            split_seed=self._spec.split_seed,
            empty=empty,
            duplicates=found.duplicates,
            tokenizer=self._record(tokenizer),
            train=train,
            heldout=heldout,
            unknown=sum(part.unknown for part in encoded),
        )
        self._publish(manifest, {**files, TOKENIZER_FILE: tokenizer_path})

    def _scan(self, pieces: Pieces) -> list[Scan]:
        tasks = [(part, self._spec.split_seed, pieces[f"scan-{number:05d}"]) for number, part in enumerate(self._parts)]
        total = sum(part.size for part in self._parts)
        return self._workers.map(scan, tasks, self._watch("reading documents", total), total)

    def _find_duplicates(self, pieces: Pieces, scans: list[Scan], heldout_limit: int) -> list[Duplicates]:
        documents = sum(scan.documents for scan in scans)
        tasks = [
            (scans, first, stop, heldout_limit, pieces[f"duplicates-{number:05d}"])
            for number, (first, stop) in enumerate(ranges(documents) if scans else [])
        ]
        return self._workers.map(find_duplicates, tasks, self._watch("looking for duplicates"), 64 * documents)

    def _check(self, found: DocumentTotals, empty: int) -> None:
        if not found.train or not found.heldout:
            raise DataError(
                f"data.validation={self._spec.heldout_fraction}: must give both splits at least one document, but of "
                f"{found.train + found.heldout:,} distinct documents, {found.train:,} are for training and "
                f"{found.heldout:,} for validation (skipped: {empty:,} empty, {found.duplicates:,} duplicates); "
                "try more documents (each .txt file and each line of a .jsonl file is one), or another data.validation "
                "or data.split_seed"
            )

    def _tokenizer(self, pieces: Pieces, distinct: list[Distinct], found: DocumentTotals) -> Path:
        """Train the tokenizer, or copy the user's tokenizer, because the user's file may change during the preparation.
        Return the path of the stored tokenizer, which may be from an earlier attempt to prepare the corpus."""
        path = pieces["tokenizer"].whole()
        if path is not None:
            return path
        spec = tokenizer_of(self._spec, self._root)
        if spec.path is not None:
            content = load_tokenizer(Path(spec.path)).content
        else:
            self._progress(Report("training the tokenizer"))
            sample = _sample(distinct, TOKENIZER_SAMPLE_BYTES / found.train_bytes)
            content = Tokenizer.train(sample, spec.vocab_size).content
        with pieces["tokenizer"].writing() as piece:
            piece.write(content)
        return piece.path

    def _encode(
        self, pieces: Pieces, distinct: list[Distinct], tokenizer: Path, found: DocumentTotals
    ) -> list[Encoded]:
        tasks = [
            (part, tokenizer, pieces[f"train-{part.number:05d}"], pieces[f"heldout-{part.number:05d}"])
            for part in distinct
        ]
        size = found.train_bytes + found.heldout_bytes
        return self._workers.map(encode, tasks, self._watch("tokenizing", size), size)

    def _assemble(
        self, pieces: Pieces, encoded: list[Encoded], tokenizer: Tokenizer
    ) -> tuple[dict[str, Path], SplitRecord, SplitRecord]:
        """Write the shards. Return a mapping from the file name of each shard to its path, and the records of the
        training and validation splits."""
        ordered = self._work / "heldout.tokens"
        heldout = write_heldout(encoded, ordered)
        train_files = [(part.train, part.train_tokens) for part in encoded]
        dtype = token_dtype(tokenizer.vocab_size)
        tasks = [
            task
            for split, files in (("train", train_files), ("heldout", [(ordered, heldout.tokens)]))
            for task in divide_shards(pieces, ShardLabel(str(FORMAT), self._key, tokenizer.sha256, split), dtype, files)
        ]
        size = sum(task.size for task in tasks)
        written = self._workers.map(write_shard, [(task,) for task in tasks], self._watch("writing shards", size), size)
        shards: dict[str, list[ShardRecord]] = {"train": [], "heldout": []}
        for task, (_, record) in zip(tasks, written, strict=True):
            shards[task.label.split].append(record)
        train = SplitRecord(
            documents=sum(part.train_documents for part in encoded),
            tokens=sum(part.train_tokens for part in encoded),
            utf8_bytes=sum(part.train_bytes for part in encoded),
            shards=tuple(shards["train"]),
        )
        return (
            {record.file: path for path, record in written},
            train,
            replace(heldout, shards=tuple(shards["heldout"])),
        )

    def _record(self, tokenizer: Tokenizer) -> TokenizerRecord:
        return TokenizerRecord(
            kind=tokenizer_of(self._spec, self._root).kind,
            vocab_size=tokenizer.vocab_size,
            end_of_text=tokenizer.end_of_text,
            end_of_text_id=tokenizer.end_of_text_id,
            sha256=tokenizer.sha256,
            library=version("tokenizers"),
        )

    def _publish(self, manifest: Manifest, files: dict[str, Path]) -> None:
        """Move the files into one folder under their final names, and publish this folder atomically as the corpus."""
        folder = self._work / "whole"
        folder.mkdir(exist_ok=True)
        for name, path in files.items():
            path.rename(folder / name)
        write_manifest(folder, manifest)
        for file in folder.iterdir():
            sync(file)
        try:
            folder.rename(self._root / self._key)
        except OSError:
            if not (self._root / self._key).exists():
                raise
            # Another process prepared the same tokens on a file system without locks.

    def _watch(self, phase: str, total: int = 0) -> Watch:
        def watch(counts: Counts) -> None:
            done = counts.bytes + counts.found
            self._progress(Report(phase, min(done, total), total, counts.found, counts.documents, counts.tokens))

        return watch


def _sample(distinct: Sequence[Distinct], share: float) -> Iterator[str]:
    """Yield the texts of a random sample of the training documents, which contains about a fraction `share` of all
    training documents. The documents are selected by their digests."""
    for part in distinct:
        for document in part.documents():
            if document.lot is None and int.from_bytes(document.digest[16:24], "big") < share * 2**64:
                yield document.text


def _content(distinct: Sequence[Distinct]) -> str:
    whole = hashlib.sha256()
    for part in distinct:
        whole.update(part.digests())
    return whole.hexdigest()
