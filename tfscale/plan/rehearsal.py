"""Rehearsal of an experiment, in which all stages of the schedule are trained at their real sizes for a few steps each.
It tests a cluster before GPU-hours are spent."""

import shutil
from dataclasses import dataclass, replace
from typing import Any

from tfscale.config.schedule import GrowWhenPart
from tfscale.config.schema import DataPart, Experiment
from tfscale.stage.environment import read_environment
from tfscale.stage.events import last_event, read_events
from tfscale.stage.folder import Stage
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import FinalEvaluation, read_result
from tfscale.stage.spec import CHECKPOINTS

STEPS = 3
"""Number of optimizer steps per stage. The first step allocates the optimizer state, so only the other steps are
timed."""
EMBEDDED = DataPart(source="wiki", tokenizer="bpe", vocab_size=257)
"""Data settings of a rehearsal, which select text that is installed with tfscale and a tokenizer with one token per
byte."""


def rehearsal(experiment: Experiment) -> Experiment:
    """Return the experiment with `STEPS` steps per stage on the text of `EMBEDDED`, with one seed and a separate runs
    folder, and without branches, early ends of stages, rejected growths, tracking and store."""
    schedule, context = experiment.schedule, experiment.model.context
    tokens = STEPS * experiment.optim.batch_tokens
    stages = {name: replace(part, tokens=tokens) for name, part in schedule.stages.items()}
    return replace(
        experiment,
        schedule=replace(
            schedule,
            name=f"{schedule.name}-rehearsal",
            stages=stages,
            growth_tokens=tokens,
            grow_when=GrowWhenPart(),
            branches=None,
            reject_growth=None,
        ),
        data=replace(EMBEDDED, validation_tokens=2 * context),
        launcher=replace(
            experiment.launcher, keep=1, keep_tokens=0, log_tokens=experiment.optim.batch_tokens, eval_tokens=tokens
        ),
        tracking=replace(experiment.tracking, enabled=False),
        runs=f"{experiment.runs}/rehearsal",
        store=None,
        seeds=1,
    )


@dataclass(frozen=True)
class Rehearsed:
    """Speed, memory and checkpoint measurements of a rehearsed stage."""

    stage: Stage
    device: str
    processes: int
    micro_batch: int
    seconds_a_step: float
    """Mean seconds per step, without the first step."""
    tokens_per_second: float
    peak_memory: int
    """Peak memory of the leading rank in bytes. On CUDA, this is the memory allocated for tensors; on a CPU, it is the
    resident set size of the process."""
    checkpoint_bytes: int
    checkpoint_seconds: float
    """Time in seconds to write, hash and sync the last checkpoint and to remove older checkpoints."""
    evaluation: FinalEvaluation
    growth: dict[str, Any] | None
    """Content of growth.json, or None if the stage was not grown."""


def rehearsed(stage: Stage) -> Rehearsed:
    """Read the measurements of a rehearsed stage from its folder, or raise ValueError if the stage is not finished."""
    result, events = read_result(stage.path), read_events(stage.path)
    start = last_event(events, "start") or {}
    steps = [event["total_seconds"] for event in events if event["event"] == "train"]
    saves = [event for event in events if event["event"] == "checkpoint"]
    a_step = (steps[-1] - steps[0]) / (len(steps) - 1) if len(steps) > 1 else steps[-1]
    return Rehearsed(
        stage=stage,
        device=read_environment(stage.path).device,
        processes=start["processes"],
        micro_batch=start["micro_batch"],
        seconds_a_step=a_step,
        tokens_per_second=stage.spec.batch_tokens / a_step,
        peak_memory=result.peak_memory or 0,
        checkpoint_bytes=saves[-1]["bytes"],
        checkpoint_seconds=saves[-1]["seconds"],
        evaluation=result.evaluation,
        growth=read_growth(stage.path),
    )


def release(stage: Stage) -> None:
    """Remove the checkpoints of a rehearsed stage. The measurements of the stage are kept."""
    shutil.rmtree(stage.path / CHECKPOINTS, ignore_errors=True)
