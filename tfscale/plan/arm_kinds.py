"""The built-in kinds of arms: training from scratch, continued training of the chain's first model, growth in one step,
and other chains."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from tfscale.config.schedule import StagePart
from tfscale.config.schema import Experiment
from tfscale.faults import Fault, InvalidInput, UserFault
from tfscale.growth.operator import Growth
from tfscale.growth.tokenformer_recipe import without_new_tokens
from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops
from tfscale.models.families import FAMILIES
from tfscale.plan.arm_kind import ArmKind
from tfscale.plan.arms import Arm, training_flops
from tfscale.plan.branches import branch, trunk_through, trunk_tokens
from tfscale.plan.chain import Chain
from tfscale.plan.specs import compute_optimal, shaped, tokenformer, transformer
from tfscale.stage.folder import Stage
from tfscale.stage.spec import StageSpec


class Scratch(ArmKind):
    """An arm that trains one model from scratch for each selected size. `sizes` selects all sizes or only the last
    size."""

    settings = ("family", "budget", "sizes", "shape")
    from_scratch = True

    def faults(self, key: str, experiment: Experiment) -> Iterator[Fault]:
        part = self.part
        sizes = list(experiment.schedule.stages.values())
        needed = sizes if part.sizes == "all" else sizes[-1:]
        if part.family == "transformer":
            if part.shape == "compute_optimal":  # one shape is enough
                needed = needed[:1] if all(size.transformer is None for size in sizes) else []
            yield from _without_transformer(key, experiment, needed)
        elif part.family != "tokenformer":
            yield from _without_shape(key, part.family, experiment, needed)
        if part.shape == "compute_optimal" and (part.family, part.budget) != ("transformer", "cumulative_compute"):
            rule = "must be used with family=transformer and budget=cumulative_compute"
            yield Fault(f"{key}.shape", "compute_optimal", rule, "shape=schedule")

    def stages(self, chain: Chain) -> Sequence[Stage]:
        sizes = chain.sizes if self.part.sizes == "all" else chain.sizes[-1:]
        return [chain.specs.stage(size.size, self._spec(chain, size, target)) for size, target in sizes]

    def arm(self, name: str, chain: Chain) -> Arm:
        branches, part = chain.experiment.schedule.branches, self.part
        own_only = branches is None or branches.readings == "own"
        if own_only or part.budget != "cumulative_compute" or part.shape == "compute_optimal":
            return super().arm(name, chain)
        stages: list[Stage] = []
        trunk: list[Stage] = []
        readings: list[Stage] = []
        for size, target in chain.sizes if part.sizes == "all" else chain.sizes[-1:]:
            budgets = self._budgets(chain, target)
            through = self._through(budgets, chain, size, target)
            before = accumulate((stage.spec.tokens for stage in through), initial=0)
            ends = [branch(stage, chain.specs, tokens) for stage, tokens in zip(through, before, strict=False)]
            stages.append(ends.pop(budgets.index(chain.spent(target))))
            trunk += through
            readings += ends
        return Arm(name, part.title, part.kind, tuple(stages), tuple(trunk), tuple(readings))

    def _budgets(self, chain: Chain, target: Stage) -> list[int]:
        """Return the compute budgets at which the model of one size has a branch, in model FLOPs and in increasing
        order."""
        budgets = sorted(chain.spent(each) for _, each in chain.sizes)
        branches = chain.experiment.schedule.branches
        if branches is None or self._is_base(chain, target):  # the chain's base is trained in one stage
            return budgets
        return [budgets[0] // 2**halvings for halvings in range(branches.smaller_readings, 0, -1)] + budgets

    def _is_base(self, chain: Chain, target: Stage) -> bool:
        """Return True if the arm uses the chain's first stage, instead of a stage of its own, at the size of
        `target`."""
        return self.part.family == "tokenformer" and target == chain.base

    def _through(self, budgets: Sequence[int], chain: Chain, size: StagePart, target: Stage) -> Sequence[Stage]:
        """Return a trunk that trains the model of one size, with one stage for each compute budget. Each stage ends
        where the trunk, together with a branch that starts there, uses the budget. The warm-up is as long as in a run
        with the budget of this size, but no longer than the first stage. Raise UserFault if
        `schedule.branches.smaller_readings` leaves less than one step between two budgets."""
        spec = self._spec(chain, size, target)
        ends = [trunk_tokens(budget // flops(spec.model).training, chain.specs) for budget in budgets]
        if any(later - end < spec.batch_tokens for end, later in pairwise(ends[: len(ends) - len(chain.sizes) + 1])):
            number = len(ends) - len(chain.sizes)
            rule = f"must leave at least one step between the budgets of runs from scratch at {size.size}"
            raise UserFault([Fault("schedule.branches.smaller_readings", number, rule, "a smaller number")])
        if spec.tokens != ends[0]:
            schedule = replace(spec.lr_schedule, warmup_tokens=min(ends[0], spec.lr_schedule.warmup_tokens))
            spec = replace(spec, tokens=ends[0], lr_schedule=schedule, ending=None)
        return trunk_through(chain.specs.stage(size.size, spec), ends, chain.specs)

    def _spec(self, chain: Chain, size: StagePart, target: Stage) -> StageSpec:
        if self._is_base(chain, target):
            return chain.base.spec
        model, rate = self._model(chain, size, target)
        tokens = {
            "stage_tokens": target.spec.tokens,
            "base_tokens": chain.base.spec.tokens,
            "cumulative_compute": trunk_tokens(chain.spent(target) // flops(model).training, chain.specs),
        }
        return chain.specs.scratch(model, tokens[self.part.budget], self.part.lr or rate)

    def _model(self, chain: Chain, size: StagePart, target: Stage) -> tuple[ModelConfig, float | None]:
        experiment, corpus = chain.experiment, chain.specs.corpus
        if self.part.family == "tokenformer":
            return tokenformer(experiment, size, corpus), size.scratch_lr
        if self.part.family != "transformer":
            model = shaped(experiment, self.part.family, size, corpus.vocab_size)
            return model, size.shapes[self.part.family].get("lr")
        if self.part.shape == "schedule":
            assert size.transformer is not None
            return transformer(experiment, size.transformer, corpus), size.transformer.lr
        shapes = [each.transformer for each, _ in chain.sizes if each.transformer is not None]
        nearest, model = compute_optimal(
            chain.spent(target), [transformer(experiment, each, corpus) for each in shapes]
        )
        return model, shapes[nearest].lr


class _FromBase(ArmKind):
    """An arm that consists of the chain's first stage and of one further stage for each selected size. Each further
    stage starts from the chain's first model. `sizes` selects all sizes after the first, or only the last size."""

    def faults(self, key: str, experiment: Experiment) -> Iterator[Fault]:
        if len(experiment.schedule.stages) < 2:
            rule = "must be used with a chain of at least two stages, because later stages determine the arm's compute"
            yield Fault(key, None, rule)

    def stages(self, chain: Chain) -> Sequence[Stage]:
        sizes = chain.sizes[1:] if self.part.sizes == "all" else chain.sizes[-1:]
        return [chain.base, *(self._stage(chain, *each) for each in sizes)]

    @abstractmethod
    def _stage(self, chain: Chain, size: StagePart, target: Stage) -> Stage: ...


class TrainedOn(_FromBase):
    """An arm that continues the training of the chain's first model without growth, in a separate stage for each
    selected size. The compute of such a stage is the compute that the chain spends after its first stage to reach the
    size."""

    settings = ("sizes",)
    one_model = True

    def _stage(self, chain: Chain, size: StagePart, target: Stage) -> Stage:
        model = chain.base.spec.model
        tokens = trunk_tokens(chain.spent_after_base(target) // flops(model).training, chain.specs)
        rate = self.part.lr or chain.rate(chain.experiment.schedule.trained_on_lr)
        spec = chain.specs.scratch(model, tokens, rate)
        growth = without_new_tokens(chain.experiment.growth)
        return chain.specs.stage(size.size, chain.specs.child_of(chain.base, spec, growth))


class OneJump(_FromBase):
    """An arm that grows the chain's first model to each selected size in one step. The compute of a grown stage is the
    compute that the chain spends after its first stage to reach the size."""

    settings = ("sizes", "growth")
    own_rate = True

    def _stage(self, chain: Chain, size: StagePart, target: Stage) -> Stage:
        growth = self.part.growth or chain.experiment.growth
        tokens = trunk_tokens(chain.spent_after_base(target) // flops(target.spec.model).training, chain.specs)
        rate = self.part.lr or chain.rate(size.lr)
        spec = chain.specs.grown(chain.base, target.spec.model, tokens, growth, rate)
        return chain.specs.stage(size.size, spec)


class OtherChain(ArmKind):
    """An arm that is another chain, either of TokenFormers or of Transformers. A chain of TokenFormers starts with the
    first stage of the main chain."""

    settings = ("family", "growth", "growth_tokens", "transformer_growth")
    own_rate = True

    def faults(self, key: str, experiment: Experiment) -> Iterator[Fault]:
        part = self.part
        if part.family == "tokenformer":
            if part.transformer_growth is not None:
                yield Fault(f"{key}.transformer_growth", None, "must be null with family=tokenformer", "growth")
            return
        if part.family != "transformer":
            rule = "must be tokenformer or transformer with kind=chain"
            yield Fault(f"{key}.family", part.family, rule, "kind=scratch")
            return
        yield from _without_transformer(key, experiment, list(experiment.schedule.stages.values())[:1])
        if part.transformer_growth is None:
            rule = "must be set, because family=transformer requires it"
            yield Fault(f"{key}.transformer_growth", None, rule, "the value in conf/baseline/net2net.yaml")
        if part.growth is not None or part.growth_tokens != 1:
            rule = "must not set growth or growth_tokens with family=transformer, which does not use them"
            yield Fault(key, None, rule)

    def stages(self, chain: Chain) -> Sequence[Stage]:
        if self.part.transformer_growth is not None:
            return self._transformers(chain, self.part.transformer_growth)
        growth = self.part.growth or chain.experiment.growth
        stages = [chain.base]
        for size, target in chain.sizes[1:]:
            tokens = target.spec.tokens if target.spec.ending else chain.specs.tokens(size)
            tokens = round(self.part.growth_tokens * tokens)
            rate = self.part.lr or chain.rate(size.lr)
            spec = chain.specs.grown(stages[-1], target.spec.model, tokens, growth, rate)
            stages.append(chain.specs.stage(size.size, spec))
        return stages

    def _transformers(self, chain: Chain, growth: Growth) -> Sequence[Stage]:
        """Return the stages of a chain of Transformers. The first stage trains the Transformer of the first size from
        scratch. Each later stage grows the model to about as many parameters as the main chain's model of the same
        size, and trains until the arm has used the main chain's cumulative compute at this size. With
        `schedule.branches` and a growth with `lr=continue`, later stages use the first size's learning rate. The arm's
        own `lr` has priority."""
        specs = chain.specs
        first, base = chain.sizes[0]
        assert first.transformer is not None
        model: ModelConfig = transformer(chain.experiment, first.transformer, specs.corpus)
        tokens = trunk_tokens(chain.spent(base) // flops(model).training, specs)
        spec = specs.scratch(model, tokens, first.transformer.lr)
        stages = [specs.stage(first.size, spec)]
        one_rate = chain.experiment.schedule.branches is not None and growth.lr == "continue"
        for size, target in chain.sizes[1:]:
            shape = first.transformer if one_rate else size.transformer
            rate = self.part.lr or (shape.lr if shape is not None else None)
            model = growth.grown_config(model, target.spec.model)
            left = chain.spent(target) - training_flops(stages)
            tokens = trunk_tokens(left // flops(model).training, specs)
            spec = specs.grown(stages[-1], target.spec.model, tokens, growth, rate)
            stages.append(specs.stage(size.size, spec))
        return stages


def _without_transformer(key: str, experiment: Experiment, sizes: Sequence[StagePart]) -> Iterator[Fault]:
    for stage, part in experiment.schedule.stages.items():
        if part in sizes and part.transformer is None:
            place = f"schedule.stages.{stage}.transformer"
            rule = f"must have a Transformer at {part.size}, but {place} is null"
            hint = "setting its n_layer, d_model and n_head, or baseline=tokenformer"
            yield Fault(key, None, rule, hint, reads=(place,))


def _without_shape(key: str, family: str, experiment: Experiment, sizes: Sequence[StagePart]) -> Iterator[Fault]:
    """Yield a fault for each of `sizes` at which the schedule sets no shape or an invalid shape for `family`, the model
    family of an extension. If the family is not registered, yield a single fault."""
    try:
        FAMILIES.get(family)
    except InvalidInput as error:
        yield from (replace(fault, key=f"{key}.family") for fault in error.faults)
        return
    for stage, part in experiment.schedule.stages.items():
        place = f"schedule.stages.{stage}.shapes.{family}"
        if part not in sizes:
            continue
        if family not in part.shapes:
            rule = f"must be set, because {key} requires the fields of the family's config"
            yield Fault(place, None, rule, "{n_layer: 2}", reads=(key,))
            continue
        try:
            shaped(experiment, family, part, vocab_size=1)
        except ValueError as error:
            yield Fault(place, None, str(error), reads=("model",))
