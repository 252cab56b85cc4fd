"""What preparing a corpus costs, in tokens a second of processor time against the tokenizer alone; and what the loader
gives. Wikipedia introductions, numbered and repeated; no network."""

import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from tfscale.bench.apart import apart
from tfscale.bench.rows import Found, Note, Row, Rows, Verdict
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import ON_CPU, ON_CUDA, Size
from tfscale.bench.step import PART as STEP
from tfscale.data.batches import Batches
from tfscale.data.encode import BATCH_CHARACTERS
from tfscale.data.errors import DataError
from tfscale.data.prepare import prepare
from tfscale.data.prepared import open_data
from tfscale.data.sources import CorpusSpec
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer
from tfscale.data.wiki import WikiSource

PART = "data"
FILE_BYTES = 1 << 24
LEARNT = 8192
"""Entries of the tokenizer."""
PREPARATION, LOADER = "preparation", "loader"


def measure(settings: Settings) -> Iterator[Found]:
    """Tokenizer, preparation, loader."""
    size, workers = (1e6, 1) if settings.quick else (40e6, settings.threads)
    with tempfile.TemporaryDirectory(prefix="tfscale-bench-") as name:
        folder = Path(name)
        try:
            tokenizer = _learn(folder / "tokenizer.json", 500 if settings.quick else 10_000)
        except DataError as error:
            yield Note(PART, f"left out: {error}")
            return
        write_text(folder / "text", size)
        alone = _alone(folder / "text", tokenizer, workers)
        yield Row(PART, PREPARATION, "tokenizer alone", (), {"tokens_per_core_second": alone})
        prepared = apart(prepare_here, folder / "text", folder / "data", tokenizer, workers)
        yield Row(
            PART, PREPARATION, "prepare", (), {**prepared, "of_tokenizer": prepared["tokens_per_core_second"] / alone}
        )
        data = next((folder / "data").glob("[!.]*"))
        shapes = ON_CUDA if settings.device == "cuda" else ON_CPU
        for shape in filter(lambda shape: settings.wants(shape.name), shapes):
            yield _loader(data, shape, 0.2 if settings.quick else 2.0)


def _documents() -> Iterator[str]:
    texts = [text for part in WikiSource().parts() for text in part.documents()]
    for round_ in count():
        for number, text in enumerate(texts):
            yield f"{round_}.{number} {text}"


def write_text(folder: Path, size: float) -> None:
    """About so many bytes of documents."""
    folder.mkdir()
    written, documents = 0, _documents()
    for number in count():
        if written >= size:
            return
        with (folder / f"{number:05d}.jsonl").open("w", encoding="utf-8") as file:
            while file.tell() < FILE_BYTES and written < size:
                for text in islice(documents, 100):
                    written += file.write(json.dumps({"text": text}) + "\n")


def _learn(path: Path, documents: int) -> Path:
    path.write_bytes(Tokenizer.train(islice(_documents(), documents), LEARNT).content)
    return path


def _alone(text: Path, tokenizer: Path, workers: int) -> float:
    """Tokens a second of processor time of processes that do nothing but `encode_batch` of text that they hold."""
    files = sorted(text.iterdir())
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        shares = pool.map(encode_here, [(files[n::workers], tokenizer) for n in range(workers)])
    return sum(tokens for tokens, _ in shares) / sum(seconds for _, seconds in shares)


def encode_here(share: tuple[list[Path], Path]) -> tuple[int, float]:
    """Tokens of the files, and the processor's seconds."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    files, path = share
    tokenizer = load_tokenizer(path)
    texts = [text for file in files for part in TextSource(file).parts() for text in part.documents()]
    batches: list[list[str]] = [[]]
    held = 0
    for text in texts:
        batches[-1].append(text)
        held += len(text)
        if held > BATCH_CHARACTERS:
            batches.append([])
            held = 0
    began = time.process_time()
    tokens = sum(len(each) for batch in batches for each in tokenizer.encode_batch(batch))
    return tokens, time.process_time() - began


def prepare_here(text: Path, root: Path, tokenizer: Path, workers: int) -> dict[str, float]:
    """Speed of a preparation, and the most memory of its leading process and of each other one."""
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
    row = Row(PART, size.name, LOADER, tuple(times))
    return Row(PART, size.name, LOADER, row.seconds, {"tokens_per_second": size.tokens / row.median})


def verdicts(rows: Rows, settings: Settings) -> Iterator[Verdict]:
    """The loader against the fastest step of each size; those of this run."""
    for row in rows.of(PART):
        speeds = [step.figures.get("tokens_per_second", 0.0) for step in rows.of(STEP) if step.case == row.case]
        if row.name == LOADER and any(speeds):
            times = row.figures["tokens_per_second"] / max(speeds)
            yield Verdict(PART, f"{row.case}: loader over the step's need", times, 20.0, True)
