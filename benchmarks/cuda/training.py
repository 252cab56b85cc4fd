"""Part `training`, which trains a complete stage of 124M parameters, including data loading and checkpoints."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cuda.check import Check
from tfscale.bench.sizes import PAPER, tokenformer
from tfscale.bench.trained import planned_memory
from tfscale.doctor.stages import events_of, stage, start_training, write_corpus
from tfscale.stage.spec import RunSpec, StageSpec, write_spec

WARM_UP_EVENTS = 5
"""Number of training events, one per step, that are not timed because the first steps compile."""


def training(check: Check) -> None:
    """Train the stage and compare its peak memory with the plan."""
    steps, sequences = (8, 4) if check.tiny else (30, 32)
    model = tokenformer(24, 2, 64, 4, 64, 512) if check.tiny else PAPER["124M"][0]
    micro_batch = sequences // 2  # the plan assumes that gradients of an earlier micro-batch exist
    run = RunSpec(data_dir="../data", device=check.device, threads=check.threads, micro_batch=micro_batch, log_tokens=1)
    spec = stage(model, run, steps, sequences, lr=1e-4)
    folder = check.out / "training"
    shutil.rmtree(folder, ignore_errors=True)
    write_corpus(folder / "data", model.vocab_size, spec.tokens + model.context, 33 * model.context)
    found = check.record.attempt("124M stage", partial(_train, folder / "stage", spec))
    if found:
        peak = found["peak_bytes"] if check.on_cuda else None  # on the CPU, it is that of the whole process
        planned = planned_memory(model, micro_batch, check.device, found["recompute"])
        check.bound_peak("124M stage", peak, planned)
    shutil.rmtree(folder)


def _train(folder: Path, spec: StageSpec) -> Mapping[str, Any]:
    write_spec(folder, spec)
    start_training(folder).finish()
    trained = events_of(folder, "train")
    return {
        "tokens_per_second": median(event["tokens_per_second"] for event in trained[WARM_UP_EVENTS:]),
        "seconds_of_first_step": spec.batch_tokens / trained[0]["tokens_per_second"],
        "recompute": events_of(folder, "start")[-1]["recompute"],
        "peak_bytes": trained[-1]["peak_memory"],
        "first_loss": trained[0]["loss"],
        "last_loss": trained[-1]["loss"],
        "checkpoint_seconds": events_of(folder, "checkpoint")[-1]["seconds"],
    }
