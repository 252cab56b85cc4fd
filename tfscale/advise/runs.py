"""Finished runs in a runs folder. Each run trains one model, either from scratch or after growth from the model of
another run."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tfscale.analysis.curves import StageCurve, joined, read_stage
from tfscale.growth.operator import Continued
from tfscale.models.config import ModelConfig
from tfscale.models.counts import non_embedding_parameters
from tfscale.stage import how
from tfscale.stage.folder import Stage, as_it_ended
from tfscale.stage.result import DONE_FILE, Result, read_result
from tfscale.stage.spec import StageSpec, key_fields, read_spec


@dataclass(frozen=True)
class Run:
    """Training of one model to the end of a finished stage. If a run has several stages, such as the stages of a
    trunk and a final branch, each continues the training of the previous one."""

    stages: tuple[Stage, ...]
    """Stages that train the model at its size, in order. The last stage ends the run."""
    origin: "Run | None"
    """Run from which the model has grown, or None if the model was trained from scratch."""

    @cached_property
    def result(self) -> Result:
        return read_result(self.stages[-1].path)

    @cached_property
    def curve(self) -> StageCurve:
        """Evaluations of all stages of the run."""
        return joined([read_stage(stage) for stage in self.stages])

    @property
    def first(self) -> StageSpec:
        return self.stages[0].spec

    @property
    def model(self) -> ModelConfig:
        return self.first.model

    @property
    def decayed(self) -> bool:
        """True if the learning rate had decayed at the end of the run."""
        return self.stages[-1].spec.lr_schedule.kind != "constant"

    @property
    def tokens(self) -> int:
        """Number of training tokens of this run, without the runs from which it grew."""
        return sum(stage.spec.tokens for stage in self.stages)

    @property
    def flops(self) -> float:
        """Cumulative model FLOPs of the run and of the runs from which it grew."""
        return self.result.totals.flops

    @property
    def loss(self) -> float:
        """Final validation loss in nats per token."""
        return self.result.evaluation.loss

    @property
    def factor(self) -> float:
        """Factor by which growth multiplied the number of non-embedding parameters."""
        assert self.origin is not None, "a run from scratch has not grown"
        return growth_factor(self.origin.model, self.model)


def growth_factor(small: ModelConfig, large: ModelConfig) -> float:
    """Return the number of non-embedding parameters of `large` divided by that of `small`."""
    return non_embedding_parameters(large) / non_embedding_parameters(small)


@dataclass(frozen=True)
class Found:
    """Finished runs found in a runs folder."""

    runs: tuple[Run, ...]
    unused: tuple[str, ...]
    """Names of the folders of finished stages that diverged or cannot be read."""


def read_runs(runs: Path) -> Found:
    """Return all runs that end with a finished stage of a runs folder. A run is omitted if it or a run from which it
    grew contains a stage that diverged, cannot be read, has imported weights, or belongs to a rejected growth."""
    stages: dict[str, Stage] = {}
    unused = []
    for done in sorted((runs / "stages").glob(f"[!.]*/{DONE_FILE}")):
        try:
            spec, result = read_spec(done.parent), read_result(done.parent)
        except ValueError:
            unused.append(done.parent.name)
            continue
        if result.eval is not None and not math.isfinite(result.eval.loss):
            unused.append(done.parent.name)
            continue
        stages[result.key] = Stage(spec.label, result.key, done.parent, as_it_ended(spec, done.parent))
    found = (_run(stage, stages) for stage in stages.values())
    return Found(tuple(run for run in found if run is not None), tuple(unused))


def _run(last: Stage, stages: dict[str, Stage]) -> Run | None:
    """Return the run that ends with a stage, or None if `read_runs` omits this run."""
    part = [last]
    while (parent := part[0].spec.parent) is not None and is_continued(part[0].spec):
        if parent not in stages:
            return None
        part.insert(0, stages[parent])
    if part[0].spec.init_from is not None or last.spec.rejected or part[0].spec.returns:
        return None
    if parent is None:
        return Run(tuple(part), None)
    origin = _run(stages[parent], stages) if parent in stages else None
    return origin and Run(tuple(part), origin)


def is_continued(spec: StageSpec) -> bool:
    """Return True if a stage continues the training of its parent without a change of the model or the optimizer
    state."""
    return spec.growth is not None and spec.growth.get("kind") == Continued.kind


def recipe_of(spec: StageSpec) -> str:
    """Return, as a JSON string, the settings that all stages to which one law is fitted must have in common: batch
    size, optimizer, extensions, data, learning-rate schedule and growth recipe. The first token of the data, the seed
    of the data order, and the warm-up may differ."""
    what = key_fields(spec)
    names = ("batch_tokens", "optimizer", "extensions")
    kept: dict[str, object] = {name: what[name] for name in names if name in what}
    kept["data"] = how.without(what["data"], ("start", "order_seed"))
    kept["schedule"] = how.without(what["schedule"], ("warmup_tokens", "warmup_from"))
    kept["growth"] = what["growth"] and how.without(what["growth"], ("name",))
    return json.dumps(kept, sort_keys=True)
