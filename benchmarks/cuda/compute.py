"""Command `compute`, which trains a chain that is too large for a CPU, and its baselines, from a prepared folder."""

import shutil
import signal
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

from benchmarks.cuda.check import Check
from benchmarks.cuda.prepared import read_order
from tfscale.doctor.stages import StageProcess, start_training
from tfscale.stage.result import has_result, read_result
from tfscale.stage.spec import CHECKPOINTS, read_spec, write_spec

RECORDS = "records.tar.gz"
PACKING_SECONDS = 25.0
"""Time that is reserved at the end of the part, in seconds, for saving checkpoints and packing the records."""
PARALLEL = 3
"""Number of stages that train in parallel, so that some use the device while another compiles."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Planned:
    """Stage to train."""

    title: str
    folder: Path
    parent: Path | None


def compute(check: Check) -> None:
    """Train the stages in order, parents before children, and pack their records into an archive."""
    order, corpus = read_order(check.files)
    with TemporaryDirectory() as name:
        runs = Path(name)
        (runs / "data").mkdir()
        (runs / "data" / corpus.name).symlink_to(corpus.resolve())
        shutil.copytree(check.files / "stages", runs / "stages")
        stages = [_planned(check, runs / "stages" / folder, title) for folder, title in order.items()]
        left = list(stages)
        for stage, process in _train(stages, monotonic() + check.limit - PACKING_SECONDS):
            left.remove(stage)
            check.record.attempt(stage.title, partial(_finish, stage, process))
            _pack(runs / "stages", check.out / RECORDS)
        _pack(runs / "stages", check.out / RECORDS)
        for stage in left:
            check.record.failed(stage.title, "training was not finished within the time limit")


def _planned(check: Check, folder: Path, title: str) -> Planned:
    spec = read_spec(folder)
    write_spec(folder, replace(spec, run=replace(spec.run, device=check.device, threads=check.threads)))
    return Planned(title, folder, (folder / spec.parent_dir).resolve() if spec.parent_dir else None)


def _train(stages: list[Planned], until: float) -> Iterator[tuple[Planned, StageProcess]]:
    """Train the stages and yield each stage with its last process when this process has ended. At the deadline `until`,
    stop the processes that are still running."""
    pending, running = list(stages), dict[Planned, StageProcess]()
    while pending or running:
        for stage, process in list(running.items()):
            code = process.process.poll()
            if code == 0 and not has_result(stage.folder):  # it has grown
                running[stage] = start_training(stage.folder)
            elif code is not None:
                del running[stage]
                yield stage, process
        ready = [stage for stage in pending if stage.parent is None or has_result(stage.parent)]
        if (not ready and not running) or monotonic() > until:
            break
        for stage in ready[: PARALLEL - len(running)]:
            pending.remove(stage)
            running[stage] = start_training(stage.folder, "tfscale.growth" if stage.parent else "tfscale.training")
        sleep(POLL_SECONDS)
    for process in running.values():
        process.process.send_signal(signal.SIGTERM)
    for process in running.values():
        process.process.wait()


def _finish(stage: Planned, process: StageProcess) -> Mapping[str, Any]:
    process.finish()
    result = read_result(stage.folder)
    own = result.totals - result.before
    return {
        "perplexity": result.evaluation.perplexity,
        "loss": result.evaluation.loss,
        "flops_of_lineage": float(result.totals.flops),
        "seconds": own.seconds,
        "tokens_per_second": own.tokens / own.seconds,
        "peak_bytes": result.peak_memory,
    }


def _pack(stages: Path, to: Path) -> None:
    """Write an archive of the stage folders without their checkpoints."""
    part = to.with_suffix(".part")
    with tarfile.open(part, "w:gz") as archive:
        archive.add(stages, "stages", filter=lambda each: None if Path(each.name).name == CHECKPOINTS else each)
    part.replace(to)
