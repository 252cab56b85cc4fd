"""Growth of the paper's chain from checkpoint to checkpoint, weights without moments: seconds and memory, beside a
plain copy of the grown checkpoint's files. Both sync what they write."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from tfscale import checkpoint
from tfscale.bench.apart import KNOWN, apart, peak_above
from tfscale.bench.rows import Found, Note, Row, Rows, Verdict
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import PAPER, tokenformer
from tfscale.checkpoint import Counters
from tfscale.growth.checkpoints import grow_checkpoint
from tfscale.growth.recipe import GrowthRecipe
from tfscale.models.config import TokenFormerConfig
from tfscale.models.counts import parameters
from tfscale.models.init import build_model

PART = "growth"
RECIPE = GrowthRecipe("exact", new_keys="zero", new_values="random", tau="keep", moments="drop")
QUICK = {name: tokenformer(n, n_layer=2, d=64, heads=2, vocabulary=257) for name, n in (("small", 16), ("large", 64))}
ROUNDS = 3
"""A growth and a copy in turns, each in place of its last: memory that was just freed takes files faster."""
GIB = 2**30


def measure(settings: Settings) -> Iterator[Found]:
    """Each growth of the chain."""
    chain = QUICK if settings.quick else {name: config for name, (config, _) in PAPER.items()}
    with tempfile.TemporaryDirectory(prefix="tfscale-bench-") as name:
        folder = Path(name)
        needed = 3 * _bytes(list(chain.values())[-1])
        if shutil.disk_usage(folder).free < needed:
            yield Note(
                PART, f"left out: {folder.parent} has less than {needed / 1e9:.1f} GB free; TMPDIR names another"
            )
            return
        (first, config), *grown = chain.items()
        apart(write_first, folder / first, config)
        parent = first
        for size, config in grown:
            yield from _growth(folder, parent, size, config)
            shutil.rmtree(folder / parent)
            parent = size


def _bytes(config: TokenFormerConfig) -> int:
    return 4 * parameters(config)


def write_first(folder: Path, config: TokenFormerConfig) -> None:
    """A checkpoint to grow from."""
    weights = build_model(config, seed=0).named_parameters()
    checkpoint.write(folder, config, Counters(), {f"model/{name}": weight.detach() for name, weight in weights})


def _growth(folder: Path, parent: str, size: str, config: TokenFormerConfig) -> Iterator[Row]:
    grow, copy, peaks = [], [], []
    for _ in range(ROUNDS):
        seconds, peak = apart(grow_here, folder / parent, folder / size, config)
        grow.append(seconds)
        peaks.append(peak)
        copy.append(apart(copy_here, folder / size, folder / "copy"))
    shutil.rmtree(folder / "copy")
    case, written = f"{parent} to {size}", {"bytes": _bytes(config)}
    memory = {"peak_bytes": max(peaks)} if KNOWN else {}
    yield Row(PART, case, "growth", tuple(grow), {**written, **memory})
    yield Row(PART, case, "copy", tuple(copy), {**written})


def grow_here(parent: Path, child: Path, config: TokenFormerConfig) -> tuple[float, int]:
    """Seconds of a growth, and its peak memory above this process's before."""
    shutil.rmtree(child, ignore_errors=True)
    seconds = 0.0

    def grow() -> None:
        nonlocal seconds
        started = perf_counter()
        grow_checkpoint(parent, child, config, RECIPE, seed=0)
        seconds = perf_counter() - started

    if not KNOWN:
        grow()
        return seconds, 0
    peak = peak_above(grow)
    return seconds, peak


def copy_here(source: Path, to: Path) -> float:
    """Seconds of copying a folder's files, synced."""
    shutil.rmtree(to, ignore_errors=True)
    started = perf_counter()
    shutil.copytree(source, to)
    for path in (*to.iterdir(), to):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return perf_counter() - started


def verdicts(rows: Rows, settings: Settings) -> Iterator[Verdict]:
    """The growth to 1.4B."""
    case = "757M to 1.4B"
    if pair := rows.both(PART, case, "growth", "copy"):
        growth, copy = pair
        yield Verdict(PART, f"{case}: speed over copying the bytes", copy.median / growth.median, 0.5, True)
        if "peak_bytes" in growth.figures:
            yield Verdict(PART, f"{case}: memory in GiB", growth.figures["peak_bytes"] / GIB, 2.0, False)
