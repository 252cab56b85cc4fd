"""Benchmark of the data loader and of corpus preparation, which is compared with the tokenizer alone in tokens per
second of processor time. The text consists of numbered and repeated Wikipedia introductions. Nothing is downloaded."""

import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path

from tfscale.bench.apart import run_apart
from tfscale.bench.rows import Found, Note, Row
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import ON_CPU, ON_CUDA, Size
from tfscale.data.batches import Batches
from tfscale.data.errors import DataError
from tfscale.data.prepare import prepare
from tfscale.data.prepared import open_data
from tfscale.data.sources import CorpusSpec
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer
from tfscale.data.wiki import WikiSource

PART, PREPARATION = "data", "preparation"
VOCABULARY = 8192
FILE_DOCUMENTS, BATCH_DOCUMENTS = 25_000, 500


def measure(settings: Settings) -> Iterator[Found]:
    """Measure the tokenizer, the preparation and the loader."""
    documents, workers = (1000, 1) if settings.quick else (60_000, settings.threads)
    with tempfile.TemporaryDirectory(prefix="tfscale-bench-") as name:
        folder = Path(name)
        tokenizer, text = folder / "tokenizer.json", folder / "text"
        try:
            tokenizer.write_bytes(Tokenizer.train(islice(_documents(), min(documents, 10_000)), VOCABULARY).content)
        except DataError as error:
            yield Note(PART, f"skipped: {error}")
            return
        write_text(text, documents)
        alone = _speed_of_tokenizer(sorted(text.iterdir()), tokenizer, workers)
        yield Row(PART, PREPARATION, "tokenizer alone", (), {"tokens_per_core_second": alone})
        prepared = run_apart(measure_preparation, text, folder / "data", tokenizer, workers)
        share = {"share_of_tokenizer": prepared["tokens_per_core_second"] / alone}
        yield Row(PART, PREPARATION, "prepare", (), {**prepared, **share})
        data = next((folder / "data").glob("[!.]*"))
        for size in ON_CUDA if settings.on_cuda else ON_CPU:
            if settings.wants(size.name):
                yield _loader(data, size, 0.2 if settings.quick else 2.0)


def _documents() -> Iterator[str]:
    texts = [text for part in WikiSource().parts() for text in part.documents()]
    return (f"{round_}.{number} {text}" for round_ in count() for number, text in enumerate(texts))


def write_text(folder: Path, documents: int) -> None:
    """Write the given number of documents as JSON Lines files into a new folder."""
    folder.mkdir()
    texts = islice(_documents(), documents)
    for number in range(-(-documents // FILE_DOCUMENTS)):
        lines = (json.dumps({"text": text}) + "\n" for text in islice(texts, FILE_DOCUMENTS))
        (folder / f"{number:05d}.jsonl").write_text("".join(lines), encoding="utf-8")


def _speed_of_tokenizer(files: Sequence[Path], tokenizer: Path, workers: int) -> float:
    """Return the tokens per second of processor time of worker processes that only encode text in memory."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        shares = pool.starmap(encode, [(files[number::workers], tokenizer) for number in range(workers)])
    return sum(tokens for tokens, _ in shares) / sum(seconds for _, seconds in shares)


def encode(files: Sequence[Path], tokenizer: Path) -> tuple[int, float]:
    """Encode files and return the number of tokens and the processor time in seconds."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    loaded = load_tokenizer(tokenizer)
    parts = chain.from_iterable(TextSource(file).parts() for file in files)
    texts = [text for part in parts for text in part.documents()]
    began, tokens = time.process_time(), 0
    for start in range(0, len(texts), BATCH_DOCUMENTS):
        tokens += sum(map(len, loaded.encode_batch(texts[start : start + BATCH_DOCUMENTS])))
    return tokens, time.process_time() - began


def measure_preparation(text: Path, root: Path, tokenizer: Path, workers: int) -> dict[str, float]:
    """Prepare a corpus and return the speed, and the peak memory of this process and of its workers."""
    began = time.perf_counter()
    spec = CorpusSpec("text", TokenizerSpec("file", path=str(tokenizer)), path=str(text), heldout_fraction=0.005)
    manifest = prepare(spec, root, workers=workers).manifest
    seconds = time.perf_counter() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    tokens = manifest.train.tokens + manifest.heldout.tokens
    return {
        "tokens_per_core_second": tokens / sum(each.ru_utime + each.ru_stime for each in used),
        "tokens_per_second": tokens / seconds,
        "peak_bytes": used[0].ru_maxrss * 1024,
        "worker_peak_bytes": used[1].ru_maxrss * 1024,
    }


def _loader(folder: Path, size: Size, seconds: float) -> Row:
    batches = Batches(open_data(folder).train, size.time, order_seed=0)
    times: list[float] = []
    while sum(times) < seconds:
        started = time.perf_counter()
        batches.sequences(len(times) * size.sequences, size.sequences)
        times.append(time.perf_counter() - started)
    return Row(PART, size.name, "loader", tuple(times), {"tokens_per_second": size.tokens * len(times) / sum(times)})
