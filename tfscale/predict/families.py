"""Predicted cost of a whole plan, and of all sizes of the schedule both by growth and from scratch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops
from tfscale.plan.arms import cumulative_flops
from tfscale.plan.plan import Plan
from tfscale.plan.specs import tokenformer, transformer
from tfscale.predict.cost import Prediction
from tfscale.stage.folder import is_done
from tfscale.stage.spec import StageSpec, steps_of


@dataclass(frozen=True)
class Family:
    """Group of runs, such as one run per size, with the sums of their costs. A sum other than `flops` is None if the
    cost of any run is unknown."""

    title: str
    budget: Literal["chain", "base_tokens", "cumulative_compute", "plan", "left"]
    """Training budget of the runs. `chain`: each run is a stage of the chain with its planned tokens. `base_tokens`:
    each run has the tokens of the chain's first model. `cumulative_compute`: each run has the compute that the chain
    spends to reach the same size. `plan`: each run is a stage of the plan with its planned tokens. `left`: each run is
    an unfinished stage of the plan with its planned tokens."""
    runs: tuple[Prediction, ...]

    @property
    def flops(self) -> int:
        return sum(run.flops for run in self.runs)

    @property
    def seconds(self) -> float | None:
        """Wall time of all runs one after another, in seconds."""
        return _sum([run.seconds for run in self.runs])

    @property
    def device_hours(self) -> float | None:
        return _sum([run.device_hours for run in self.runs])

    @property
    def kilowatt_hours(self) -> float | None:
        return _sum([run.kilowatt_hours for run in self.runs])

    @property
    def dollars(self) -> float | None:
        return _sum([run.dollars for run in self.runs])


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def families(plan: Plan, reckon: Callable[[StageSpec], Prediction]) -> list[Family]:
    """Return groups of runs, whose costs `reckon` predicts, for a comparison of the total costs. The first group is the
    chain. For each model family, there are two groups of all sizes from scratch, one with the tokens of the chain's
    first model (300B in the paper) and one with the chain's cumulative compute. The last groups are all stages of the
    plan and, if only some stages are finished, the unfinished stages."""
    chain = plan.chain.stages
    base = sum(stage.spec.tokens for stage in plan.chain.lineage(chain[0]))
    found = [Family("the chain", "chain", tuple(reckon(stage.spec) for stage in plan.chain.all_stages))]
    for title, models in _models(plan):
        full, equal = [], []
        for stage, model in zip(chain, models, strict=True):
            full.append(_scratch(stage.spec, model, base))
            equal.append(_scratch(stage.spec, model, cumulative_flops(plan.chain, stage) // flops(model).training))
        found.append(Family(title, "base_tokens", tuple(map(reckon, full))))
        found.append(Family(title, "cumulative_compute", tuple(map(reckon, equal))))
    left = [stage for stage in plan.stages if not is_done(stage)]
    whole = "this plan" if len(plan.replicates) == 1 else f"this plan, {len(plan.replicates)} seeds"
    found.append(Family(whole, "plan", tuple(reckon(stage.spec) for stage in plan.stages)))
    if 0 < len(left) < len(plan.stages):
        found.append(Family("unfinished stages", "left", tuple(reckon(stage.spec) for stage in left)))
    return found


def _models(plan: Plan) -> Iterator[tuple[str, list[ModelConfig]]]:
    """Yield the title of each model family for which the schedule defines a model of every size, and these models in
    the order of the schedule."""
    experiment, corpus = plan.experiment, plan.corpus
    parts = list(experiment.schedule.stages.values())
    shapes = [part.transformer for part in parts if part.transformer is not None]
    if len(shapes) == len(parts):
        yield "Transformer", [transformer(experiment, shape, corpus) for shape in shapes]
    yield "TokenFormer", [tokenformer(experiment, part, corpus) for part in parts]


def _scratch(spec: StageSpec, model: ModelConfig, tokens: int) -> StageSpec:
    return spec.from_scratch(model, steps_of(tokens, spec) * spec.batch_tokens)
