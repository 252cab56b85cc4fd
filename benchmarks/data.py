"""What preparing a corpus costs: tokens a second of processor time against the tokenizer alone, memory at two sizes of
the corpus; and what a training step's loader gives. Wikipedia introductions, numbered and repeated; no network.

    python benchmarks/data.py --megabytes 50 --workers 2 [--tokenizer tokenizer.json]
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

from tfscale.data.batches import Batches
from tfscale.data.encode import BATCH_CHARACTERS
from tfscale.data.prepare import prepare
from tfscale.data.prepared import open_data
from tfscale.data.readers import TextPart
from tfscale.data.sources import CorpusSpec
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer
from tfscale.data.wiki import WikiSource

FILE_BYTES = 1 << 24
LEARNT = 8192
"""Entries of the tokenizer where none is named."""


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=50, help="of the smaller corpus; the other has four times")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; none: one that is learnt")
    parser.add_argument("--one", nargs=2, type=Path, metavar=("TEXT", "DATA"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_prepare(*options.one, options.tokenizer, options.workers)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = options.tokenizer or _learn(folder / "tokenizer.json")
        _write(folder / "small", options.megabytes * 1e6)
        _write(folder / "large", options.megabytes * 4e6)
        alone = _alone(folder / "small", tokenizer, options.workers)
        print(f"{'tokenizer alone':22} {alone:12,.0f} tokens/s a core, {options.workers} processes")
        for size in ("small", "large"):
            measured = _in_process(folder / size, folder / "data" / size, tokenizer, options.workers)
            rate = measured["tokens"] / measured["processor"]
            print(
                f"{'prepare, ' + size:22} {rate:12,.0f} tokens/s a core, {rate / alone:.0%} of the "
                f"tokenizer alone; {measured['tokens']:,} tokens in {measured['seconds']:.1f} s; at most "
                f"{measured['leading']:,.0f} MB in the leading process, {measured['working']:,.0f} MB in each other"
            )
        print(f"{'loader':22} {_loader(next((folder / 'data' / 'large').glob('[!.]*'))):12,.0f} tokens/s, context 1024")


def _documents() -> Iterator[str]:
    texts = [text for part in WikiSource().parts() for text in part.documents()]
    for round_ in count():
        for number, text in enumerate(texts):
            yield f"{round_}.{number} {text}"


def _write(folder: Path, size: float) -> None:
    folder.mkdir()
    written, documents = 0, _documents()
    for number in count():
        if written >= size:
            return
        with (folder / f"{number:05d}.jsonl").open("w", encoding="utf-8") as file:
            while file.tell() < FILE_BYTES and written < size:
                for text in islice(documents, 100):
                    written += file.write(json.dumps({"text": text}) + "\n")


def _learn(path: Path) -> Path:
    path.write_bytes(Tokenizer.train(islice(_documents(), 10_000), LEARNT).content)
    return path


def _alone(text: Path, tokenizer: Path, workers: int) -> float:
    """Tokens a second of processor time of processes that do nothing but `encode_batch` of text that they hold."""
    files = sorted(text.iterdir())
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        shares = pool.map(_encode, [(files[n::workers], tokenizer) for n in range(workers)])
    return sum(tokens for tokens, _ in shares) / sum(seconds for _, seconds in shares)


def _encode(share: tuple[list[Path], Path]) -> tuple[int, float]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    files, path = share
    tokenizer = load_tokenizer(path)
    texts = [text for file in files for part in _parts(file) for text in part.documents()]
    began, tokens, batch, held = time.process_time(), 0, [], 0
    for text in [*texts, None]:
        if text is None or held > BATCH_CHARACTERS:
            tokens += sum(map(len, tokenizer.encode_batch(batch)))
            batch, held = [], 0
        if text is not None:
            batch.append(text)
            held += len(text)
    return tokens, time.process_time() - began


def _parts(file: Path) -> list[TextPart]:
    return TextSource(file).parts()


def _in_process(text: Path, root: Path, tokenizer: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(text), str(root), "--tokenizer", str(tokenizer)]
    done = subprocess.run([*command, "--workers", str(workers)], capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _prepare(text: Path, root: Path, tokenizer: Path, workers: int) -> dict[str, float]:
    began = time.perf_counter()
    spec = CorpusSpec("text", TokenizerSpec("file", path=str(tokenizer)), path=str(text), heldout_fraction=0.005)
    manifest = prepare(spec, root, workers=workers).manifest
    seconds = time.perf_counter() - began
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    leading, working = (each.ru_maxrss / 1e3 for each in used)
    return {
        "tokens": manifest.train.tokens + manifest.heldout.tokens,
        "seconds": seconds,
        "processor": sum(each.ru_utime + each.ru_stime for each in used),
        "leading": leading,
        "working": working,
    }


def _loader(folder: Path) -> float:
    batches = Batches(open_data(folder).train, 1024, order_seed=0)
    began, read, rows = time.perf_counter(), 0, 512
    while time.perf_counter() - began < 2:
        inputs, _ = batches.sequences(read // 1024, rows)
        read += inputs.numel()
    return read / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
