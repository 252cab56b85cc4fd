"""Benchmark of the growth steps of the paper's chain, from checkpoint to checkpoint and without optimizer moments. Each
growth is compared with a plain copy of the files of the grown checkpoint. All written files are synced."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter

from tfscale import checkpoint
from tfscale.bench.apart import KNOWN, measure_peak, run_apart
from tfscale.bench.rows import Found, Note, Row
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import PAPER, tokenformer
from tfscale.checkpoint import Counters
from tfscale.growth.grow_checkpoint import grow_checkpoint
from tfscale.growth.tokenformer_recipe import GrowthRecipe
from tfscale.models.counts import parameters
from tfscale.models.init import build_model
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.optimizers.adamw import AdamW
from tfscale.training.allocator import HUGE_PAGES

PART = "growth"
RECIPE = GrowthRecipe("exact", new_keys="zero", new_values="random", tau="keep", moments="drop")
QUICK = {name: tokenformer(n, n_layer=2, d=64, heads=2, vocabulary=257) for name, n in (("small", 16), ("large", 64))}
OPTIMIZER = AdamW(lr=1e-3, clip=1.0, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
ROUNDS = 3
"""Number of rounds, each with a growth and a copy. The growth and the copy first delete their files of the previous
round, because files are written faster into freshly freed memory."""


def measure(settings: Settings) -> Iterator[Found]:
    """Measure every growth of the chain."""
    os.environ.update(HUGE_PAGES)  # as in a growing process
    chain = QUICK if settings.quick else {name: config for name, (config, _) in PAPER.items()}
    with tempfile.TemporaryDirectory(prefix="tfscale-bench-") as name:
        folder = Path(name)
        needed = 3 * _bytes(list(chain.values())[-1])
        if shutil.disk_usage(folder).free < needed:
            words = f"skipped: {folder.parent} has less than {needed / 1e9:.1f} GB free; set TMPDIR to another folder"
            yield Note(PART, words)
            return
        (parent, config), *grown = chain.items()
        run_apart(write_first, folder / parent, config)
        for size, target in grown:
            config = RECIPE.grown_config(config, target)
            yield from _growth(folder, parent, size, config)
            shutil.rmtree(folder / parent)
            parent = size


def _bytes(config: TokenFormerConfig) -> int:
    return 4 * parameters(config)


def write_first(folder: Path, config: TokenFormerConfig) -> None:
    """Write the checkpoint of the first model."""
    weights = build_model(config, seed=0).named_parameters()
    checkpoint.write(folder, config, Counters(), {f"model/{name}": weight.detach() for name, weight in weights})


def _growth(folder: Path, parent: str, size: str, config: TokenFormerConfig) -> Iterator[Row]:
    grown, copied = [], []
    for _ in range(ROUNDS):
        grown.append(run_apart(grow, folder / parent, folder / size, config))
        copied.append(run_apart(copy, folder / size, folder / "copy"))
    shutil.rmtree(folder / "copy")
    case, written = f"{parent} to {size}", {"bytes": _bytes(config)}
    peak = {"peak_bytes": run_apart(measure_growth_peak, folder / parent, folder / size, config)} if KNOWN else {}
    yield Row(PART, case, "growth", tuple(grown), {**peak, **written})
    yield Row(PART, case, "copy", tuple(copied), {**written})


def grow(parent: Path, child: Path, config: TokenFormerConfig) -> float:
    """Grow a checkpoint and return the time in seconds."""
    shutil.rmtree(child, ignore_errors=True)
    started = perf_counter()
    grow_checkpoint(parent, child, config, RECIPE, OPTIMIZER, seed=0)
    return perf_counter() - started


def measure_growth_peak(parent: Path, child: Path, config: TokenFormerConfig) -> int:
    """Grow a checkpoint and return the peak memory in bytes."""
    shutil.rmtree(child)
    return measure_peak(partial(grow_checkpoint, parent, child, config, RECIPE, OPTIMIZER, seed=0))


def copy(source: Path, to: Path) -> float:
    """Copy and sync the files of a folder, and return the time in seconds."""
    shutil.rmtree(to, ignore_errors=True)
    started = perf_counter()
    shutil.copytree(source, to)
    for path in (*to.iterdir(), to):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return perf_counter() - started
