"""From an experiment to its stages: what will be trained, out of what, with which identity. Nothing is written and
nothing is run here."""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tfscale.config.compose import runs_dir
from tfscale.config.schema import ArmPart, Experiment, StagePart, TransformerPart
from tfscale.faults import UserFault
from tfscale.growth.recipe import GrowthRecipe, grow_config, without_new_tokens
from tfscale.models.config import ModelConfig, TokenFormerConfig, TokenGroup, TransformerConfig, default_tau
from tfscale.models.counts import flops, parameters
from tfscale.schedule.arms import Arm, ArmStage
from tfscale.schedule.checks import check_experiment, check_growable
from tfscale.schedule.corpus import Corpus, corpus_of
from tfscale.schedule.imported import begin_from
from tfscale.schedule.rates import rates_of
from tfscale.schedule.rehearsal import rehearsal
from tfscale.training.learning_rate import learning_rate
from tfscale.training.spec import DataSpec, OptimizerSpec, RunSpec, ScheduleSpec, StageSpec, key_of


@dataclass(frozen=True)
class Plan:
    """An experiment, decided."""

    experiment: Experiment
    corpus: Corpus
    runs: Path
    chain: Arm
    baselines: tuple[Arm, ...]

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The chain first."""
        return (self.chain, *self.baselines)

    @property
    def stages(self) -> tuple[ArmStage, ...]:
        """Every stage once, parents before children."""
        return tuple({stage.key: stage for arm in self.arms for stage in arm.stages}.values())


def make_plan(experiment: Experiment) -> Plan:
    """The plan of an experiment.

    Raises:
        UserFault: with all that is wrong: values out of range, sizes that do not grow out of each other, a missing
            Transformer shape.
    """
    faults = [*check_experiment(experiment), *check_growable(experiment)]
    if faults:
        raise UserFault(faults)
    if experiment.schedule.rehearse:
        experiment = rehearsal(experiment)
    builder = _Builder(experiment, corpus_of(experiment))
    chain = builder.chain()
    baselines = tuple(builder.arm(name, part, chain) for name, part in experiment.baseline.arms.items())
    return Plan(experiment, builder.corpus, builder.runs, chain, baselines)


class _Builder:
    def __init__(self, experiment: Experiment, corpus: Corpus) -> None:
        self.experiment, self.corpus, self.runs = experiment, corpus, runs_dir(experiment)
        self.parts = list(experiment.schedule.stages.values())

    def chain(self) -> Arm:
        stages = [self._stage(self.parts[0].size, self._first_spec(self.parts[0]))]
        for part in self.parts[1:]:
            stages.append(self._stage(part.size, self._grown_spec(stages[-1], part)))
        return Arm("progressive", f"progressive ({self.experiment.growth.name})", "chain", tuple(stages))

    def arm(self, name: str, part: ArmPart, chain: Arm) -> Arm:
        if part.kind == "trained_on":
            targets = list(chain.stages[1:]) if part.sizes == "all" else [chain.stages[-1]]
            stages = [self._stage(target.size, self._trained_on_spec(chain, target)) for target in targets]
            return Arm(name, part.title, "trained_on", (chain.stages[0], *stages))
        sizes = list(zip(self.parts, chain.stages, strict=True))
        sizes = sizes if part.sizes == "all" else sizes[-1:]
        stages = [self._stage(size.size, self._scratch_spec(part, size, target, chain)) for size, target in sizes]
        return Arm(name, part.title, "scratch", tuple(stages))

    def _stage(self, size: str, spec: StageSpec) -> ArmStage:
        key = key_of(spec)
        return ArmStage(size, key, self.runs / "stages" / f"{spec.label}-{key}", spec)

    def _first_spec(self, part: StagePart) -> StageSpec:
        spec = self._spec(tokenformer(self.experiment, part, self.corpus), self._tokens(part), part.lr)
        return begin_from(spec, self.experiment.init_from) if self.experiment.init_from else spec

    def _grown_spec(self, parent: ArmStage, part: StagePart) -> StageSpec:
        assert isinstance(parent.spec.model, TokenFormerConfig)
        model = grow_config(parent.spec.model, part.counts, self.experiment.growth)
        recipe = self.experiment.growth
        spec = self._spec(model, self._tokens(part), part.lr)
        spec = replace(
            spec,
            optimizer=replace(spec.optimizer, lr=spec.optimizer.lr * recipe.peak),
            rates=rates_of(recipe, parent.spec.model, model, spec.tokens),
        )
        return self._child_of(parent, spec, recipe)

    def _trained_on_spec(self, chain: Arm, target: ArmStage) -> StageSpec:
        base = chain.stages[0]
        spent = cumulative_flops(chain, target) - base.spec.tokens * flops(base.spec.model).training
        tokens = spent // flops(base.spec.model).training
        spec = self._spec(base.spec.model, tokens, self.experiment.schedule.trained_on_lr)
        return self._child_of(base, spec, without_new_tokens(self.experiment.growth))

    def _scratch_spec(self, part: ArmPart, size: StagePart, target: ArmStage, chain: Arm) -> StageSpec:
        model: ModelConfig
        if part.family == "transformer":
            assert size.transformer is not None
            model, rate = transformer(self.experiment, size.transformer, self.corpus), size.transformer.lr
        elif target == chain.stages[0]:
            return target.spec  # the chain's base is this arm's first run
        else:
            model, rate = tokenformer(self.experiment, size, self.corpus), size.scratch_lr
        if part.budget == "stage_tokens":
            return self._spec(model, target.spec.tokens, rate)
        if part.budget == "base_tokens":
            return self._spec(model, chain.stages[0].spec.tokens, rate)
        return self._spec(model, cumulative_flops(chain, target) // flops(model).training, rate)

    def _child_of(self, parent: ArmStage, spec: StageSpec, recipe: GrowthRecipe) -> StageSpec:
        old = parent.spec
        start = old.data.start + old.tokens if recipe.data == "continue" else 0
        last_step = old.tokens - old.batch_tokens
        rate = learning_rate(old.schedule, old.optimizer.lr, last_step, old.tokens) if recipe.lr == "continue" else 0.0
        return replace(
            spec,
            data=replace(spec.data, start=start),
            schedule=replace(spec.schedule, warmup_from=rate),
            parent=parent.key,
            parent_dir=f"../{parent.path.name}",
            growth=recipe.operator(),
        )

    def _tokens(self, part: StagePart) -> int:
        return part.tokens if part.tokens is not None else self.experiment.schedule.growth_tokens

    def _spec(self, model: ModelConfig, tokens: int, rate: float | None) -> StageSpec:
        optim, data = self.experiment.optim, self.experiment.data
        tokens = max(1, round(tokens / optim.batch_tokens)) * optim.batch_tokens
        return StageSpec(
            label=f"{model.family}-{humanize(parameters(model))}",
            model=model,
            data=DataSpec(self.corpus.fingerprint, data.order_seed, 0, data.heldout_tokens),
            tokens=tokens,
            batch_tokens=optim.batch_tokens,
            optimizer=OptimizerSpec(
                lr=rate if rate is not None else optim.lr,
                beta1=optim.beta1,
                beta2=optim.beta2,
                eps=optim.eps,
                weight_decay=optim.weight_decay,
                clip=optim.clip,
            ),
            schedule=ScheduleSpec(optim.schedule, round(tokens * optim.warmup), 0.0, optim.floor, optim.decay),
            seed=self.experiment.seed,
            run=self._run(),
        )

    def _run(self) -> RunSpec:
        launcher = self.experiment.launcher
        names = [item.name for item in fields(RunSpec) if item.name != "data_dir"]
        values: dict[str, Any] = {name: getattr(launcher, name) for name in names}
        return RunSpec(**{**values, "data_dir": self.corpus.folder, "threads": threads(self.experiment)})


def tokenformer(experiment: Experiment, part: StagePart, corpus: Corpus) -> TokenFormerConfig:
    """A TokenFormer of a stage's size that did not grow: one group a layer, tau of its count."""
    model = experiment.model
    qkv, out, ffn = (
        (TokenGroup(n, default_tau(model.norm_activation, n)),) for n in part.counts
    )  # fmt: skip
    return TokenFormerConfig(
        n_layer=model.n_layer,
        d_model=model.d_model,
        n_head=model.n_head,
        vocab_size=corpus.vocab_size,
        context=model.context,
        qkv=qkv,
        out=out,
        ffn=ffn,
        norm_activation=model.norm_activation,
        rotary=model.rotary,
    )


def transformer(experiment: Experiment, part: TransformerPart, corpus: Corpus) -> TransformerConfig:
    """The Transformer beside a stage."""
    return TransformerConfig(
        n_layer=part.n_layer,
        d_model=part.d_model,
        n_head=part.n_head,
        vocab_size=corpus.vocab_size,
        context=experiment.model.context,
        d_ff=part.d_ff if part.d_ff is not None else 4 * part.d_model,
        rotary=experiment.model.rotary,
    )


def cumulative_flops(chain: Arm, target: ArmStage) -> int:
    """Model FLOPs of the chain up to and including a stage."""
    stages = chain.stages[: chain.stages.index(target) + 1]
    return sum(stage.spec.tokens * flops(stage.spec.model).training for stage in stages)


def threads(experiment: Experiment) -> int:
    """CPU threads of each process."""
    launcher = experiment.launcher
    if launcher.threads or launcher.kind == "slurm":
        return launcher.threads or launcher.slurm.cpus
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // (launcher.parallel * max(1, launcher.ranks)))


def humanize(count: int) -> str:
    """123.6M, 16.4K."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:,.1f}{unit}"
    return str(count)
