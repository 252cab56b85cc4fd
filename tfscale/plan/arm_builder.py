"""The arms of an experiment: each a way of getting to the schedule's sizes, and the stages that it takes."""

from typing import assert_never

from tfscale.config.schema import ArmPart, StagePart
from tfscale.growth.recipe import GrowthRecipe, without_new_tokens
from tfscale.growth.transformer_recipe import TransformerGrowth, grow_shape
from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops, parameters
from tfscale.models.transformer import TransformerConfig
from tfscale.plan.arms import Arm, cumulative_flops
from tfscale.plan.compute_optimal import compute_optimal
from tfscale.plan.specs import Specs, shaped, tokenformer, transformer
from tfscale.stage.folder import Stage
from tfscale.stage.spec import StageSpec


class ArmBuilder:
    """The chain of an experiment, with one seed, and the arms beside it."""

    def __init__(self, specs: Specs) -> None:
        self._specs, self._experiment = specs, specs.experiment
        self._parts = list(self._experiment.schedule.stages.values())
        recipe = self._experiment.growth
        self.chain = self._progressive(f"progressive ({recipe.name})", recipe)

    def arm(self, name: str, part: ArmPart) -> Arm:
        """The arm that a part of the configuration describes, which `checks` has found nothing wrong with."""
        if part.transformer_growth is not None:
            return self._transformer_chain(name, part, part.transformer_growth)
        if part.kind == "chain":
            return self._other_chain(name, part)
        sizes = list(zip(self._parts, self.chain.stages, strict=True))
        if part.kind == "scratch":
            sizes = sizes if part.sizes == "all" else sizes[-1:]
            stages = [self._specs.stage(size.size, self._scratch(part, size, target)) for size, target in sizes]
            return Arm(name, part.title, "scratch", tuple(stages))
        sizes = sizes[1:] if part.sizes == "all" else sizes[-1:]
        if part.kind == "trained_on":
            make = self._trained_on
        elif part.kind == "one_jump":
            make = self._one_jump
        else:
            assert_never(part.kind)
        stages = [self._specs.stage(size.size, make(part, size, target)) for size, target in sizes]
        return Arm(name, part.title, part.kind, (self.chain.stages[0], *stages))

    def _progressive(self, title: str, recipe: GrowthRecipe) -> Arm:
        """The chain itself: each size grows out of the one before, when the schedule says."""
        first, *others = self._parts
        stages = [self._specs.stage(first.size, self._specs.first(first))]
        for part in others:
            spec = self._specs.grown(stages[-1], part, self._specs.tokens(part), recipe, part.lr)
            stages.append(self._specs.stage(part.size, self._specs.ending(spec, part)))
        return Arm("progressive", title, "chain", tuple(stages))

    def _other_chain(self, name: str, part: ArmPart) -> Arm:
        """Grown like the chain, with another recipe or a multiple of its tokens."""
        recipe = part.growth or self._experiment.growth
        stages = [self.chain.stages[0]]
        for size, target in list(zip(self._parts, self.chain.stages, strict=True))[1:]:
            tokens = target.spec.tokens if target.spec.ending else self._specs.tokens(size)
            spec = self._specs.grown(stages[-1], size, round(part.growth_tokens * tokens), recipe, part.lr or size.lr)
            stages.append(self._specs.stage(size.size, spec))
        return Arm(name, part.title, "chain", tuple(stages))

    def _transformer_chain(self, name: str, part: ArmPart, growth: TransformerGrowth) -> Arm:
        """The first size's Transformer, grown towards the parameters of each size, and trained there up to the chain's
        cumulative compute."""
        stages: list[Stage] = []
        spent = 0
        for size, target in zip(self._parts, self.chain.stages, strict=True):
            rate = part.lr or (size.transformer.lr if size.transformer is not None else None)
            if stages:
                old = stages[-1].spec.model
                assert isinstance(old, TransformerConfig)
                model = grow_shape(old, growth, parameters(target.spec.model))
                tokens = (cumulative_flops(self.chain, target) - spent) // flops(model).training
                spec = self._specs.child_of(stages[-1], self._specs.scratch(model, tokens, rate), growth)
            else:
                assert size.transformer is not None
                model = transformer(self._experiment, size.transformer, self._specs.corpus)
                tokens = cumulative_flops(self.chain, target) // flops(model).training
                spec = self._specs.scratch(model, tokens, size.transformer.lr)
            spent += spec.tokens * flops(model).training
            stages.append(self._specs.stage(size.size, spec))
        return Arm(name, part.title, "chain", tuple(stages))

    def _scratch(self, part: ArmPart, size: StagePart, target: Stage) -> StageSpec:
        """A model of one size from scratch."""
        base = self.chain.stages[0]
        if part.family == "tokenformer" and target == base:
            return base.spec  # the chain's base is this arm's first run
        model, rate = self._model(part, size, target)
        tokens = {
            "stage_tokens": target.spec.tokens,
            "base_tokens": base.spec.tokens,
            "cumulative_compute": cumulative_flops(self.chain, target) // flops(model).training,
        }
        return self._specs.scratch(model, tokens[part.budget], part.lr or rate)

    def _model(self, part: ArmPart, size: StagePart, target: Stage) -> tuple[ModelConfig, float | None]:
        """A model to be trained from scratch, and the learning rate that the schedule has for it."""
        experiment, corpus = self._experiment, self._specs.corpus
        if part.family == "tokenformer":
            return tokenformer(experiment, size, corpus), size.scratch_lr
        if part.family != "transformer":
            return shaped(experiment, part.family, size, corpus.vocab_size), size.shapes[part.family].get("lr")
        if part.shape == "schedule":
            assert size.transformer is not None
            return transformer(experiment, size.transformer, corpus), size.transformer.lr
        shapes = [each.transformer for each in self._parts if each.transformer is not None]
        models = [transformer(experiment, shape, corpus) for shape in shapes]
        nearest, model = compute_optimal(cumulative_flops(self.chain, target), models)
        return model, shapes[nearest].lr

    def _trained_on(self, part: ArmPart, size: StagePart, target: Stage) -> StageSpec:
        """The chain's first model, for what the chain spent on growing to one size."""
        base = self.chain.stages[0]
        tokens = self._spent_after_base(target) // flops(base.spec.model).training
        spec = self._specs.scratch(base.spec.model, tokens, part.lr or self._experiment.schedule.trained_on_lr)
        return self._specs.child_of(base, spec, without_new_tokens(self._experiment.growth))

    def _one_jump(self, part: ArmPart, size: StagePart, target: Stage) -> StageSpec:
        """The chain's first model, grown to one size at once, for what the chain spent on growing to it."""
        base, recipe = self.chain.stages[0], part.growth or self._experiment.growth
        tokens = self._spent_after_base(target) // flops(target.spec.model).training
        return self._specs.grown(base, size, tokens, recipe, part.lr or size.lr)

    def _spent_after_base(self, target: Stage) -> int:
        return cumulative_flops(self.chain, target) - cumulative_flops(self.chain, self.chain.stages[0])
