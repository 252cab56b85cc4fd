"""Construction of stage specs and model configs from the settings of an experiment."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tfscale.config.compose import runs_dir
from tfscale.config.schedule import StagePart, TransformerPart
from tfscale.config.schema import Experiment, OptimPart
from tfscale.extensions import loaded_extensions
from tfscale.faults import Fault, UserFault
from tfscale.growth.operator import GROWTHS, Growth, to_dict
from tfscale.host import cores
from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops, nearest, parameters
from tfscale.models.families import FAMILIES
from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig
from tfscale.optimizers.base import OPTIMIZERS, Optimizer, from_settings
from tfscale.plan.corpus import Corpus
from tfscale.stage.folder import Stage, as_it_ended
from tfscale.stage.learning_rate import learning_rate
from tfscale.stage.result import read_result
from tfscale.stage.run_options import RunOptions
from tfscale.stage.spec import DataSpec, EndingSpec, LearningRateSchedule, RunSpec, StageSpec, key_of, read_spec
from tfscale.totals import Totals
from tfscale.untrusted import check_fields

MOST_LANES = 8
"""Maximum number of batches that are evaluated at the same time. Each batch needs memory for activations."""
TOKENS_PER_PARAMETER = 20
"""Compute-optimal number of training tokens per parameter, by the Chinchilla rule of thumb (arXiv 2203.15556)."""
WIDEST_HEAD = 2**16
"""Maximum width of an attention head of a compute-optimal Transformer."""


class Specs:
    """Factory for the stages of one experiment, with one seed."""

    def __init__(self, experiment: Experiment, corpus: Corpus) -> None:
        self.experiment, self.corpus, self.runs = experiment, corpus, runs_dir(experiment)

    def stage(self, size: str, spec: StageSpec) -> Stage:
        """Return the stage with the given size and spec. If the stage is finished, `spec.tokens` is replaced by the
        actual number of training tokens."""
        spec = replace(spec, extensions=self._extensions(spec))
        key = key_of(spec)
        path = self.runs / "stages" / f"{spec.label}-{key}"
        return Stage(size, key, path, as_it_ended(spec, path))

    def first(self, part: StagePart) -> StageSpec:
        """Return the spec of the chain's first stage, which is trained from scratch or imported from the folder
        `init_from`. Raise UserFault if this folder contains no suitable imported stage."""
        spec = self.scratch(tokenformer(self.experiment, part, self.corpus), self.tokens(part), part.lr)
        if self.experiment.init_from:
            return _begin_from(spec, self.experiment.init_from)
        return self.ending(spec, part)

    def ending(self, spec: StageSpec, part: StagePart) -> StageSpec:
        """Return the spec with the rule of `schedule.grow_when` that may end the stage early. The spec is returned
        unchanged for the last stage of the chain and with `rule=budget`."""
        when = self.experiment.schedule.grow_when
        if when.rule == "budget" or part is list(self.experiment.schedule.stages.values())[-1]:
            return spec
        every = max(1, round((when.eval_every or spec.tokens / 20) / spec.batch_tokens)) * spec.batch_tokens
        return replace(spec, ending=EndingSpec(when.rule, every, when.min_delta, when.patience, spec.tokens))

    def grown(self, parent: Stage, target: ModelConfig, tokens: int, growth: Growth, rate: float | None) -> StageSpec:
        """Return the spec of a stage that grows from `parent` to the size of `target`, the config of an ungrown model.
        `tokens` and `rate` have the same meaning as in `scratch`, except that the learning rate is multiplied by
        `growth.peak`. Raise UserFault if the parent cannot grow to this size."""
        try:
            model = growth.grown_config(parent.spec.model, target)
        except ValueError as error:
            raise UserFault([Fault("growth", growth.name, f"{parent.spec.label} {error}")]) from error
        spec = self.scratch(model, tokens, rate)
        spec = replace(
            spec,
            optimizer=replace(spec.optimizer, lr=spec.optimizer.lr * growth.peak),
            rates=growth.rates_of(parent.spec.model, model, spec.tokens),
            nested_dropout=growth.nested_dropout,
        )
        return self.child_of(parent, spec, growth)

    def child_of(self, parent: Stage, spec: StageSpec, growth: Growth) -> StageSpec:
        """Return a copy of `spec` for a stage that starts from the final state of `parent` instead of from scratch.
        `growth` determines the position in the data and the learning rate at which the stage starts."""
        old = parent.spec
        start = old.data.start + old.tokens if growth.data == "continue" else 0
        last_step = old.tokens - old.batch_tokens
        rate = (
            learning_rate(old.lr_schedule, old.optimizer.lr, last_step, old.tokens) if growth.lr == "continue" else 0.0
        )
        return replace(
            spec,
            data=replace(spec.data, start=start),
            lr_schedule=replace(spec.lr_schedule, warmup_from=rate),
            parent=parent.key,
            parent_dir=f"../{parent.path.name}",
            growth=to_dict(growth),
            parent_ending=old.may_end_early,
        )

    def _extensions(self, spec: StageSpec) -> tuple[str, ...]:
        """Return the extensions whose classes the stage uses. The extension of a corpus source is omitted, because the
        fingerprint of the corpus includes it."""
        used = {
            FAMILIES.extension_of(spec.model.family),
            OPTIMIZERS.extension_of(spec.optimizer.name),
            GROWTHS.extension_of((spec.growth or {}).get("kind", "")),
        }
        return tuple(str(extension) for extension in loaded_extensions() if extension.module in used)

    def tokens(self, part: StagePart) -> int:
        return part.tokens if part.tokens is not None else self.experiment.schedule.growth_tokens

    def scratch(self, model: ModelConfig, tokens: int, rate: float | None) -> StageSpec:
        """Return the spec of a stage that trains `model` from scratch. `tokens` is rounded to whole steps, at least
        one. The peak learning rate is `rate` or, if `rate` is None, optim.lr."""
        optim, data = self.experiment.optim, self.experiment.data
        tokens = max(1, round(tokens / optim.batch_tokens)) * optim.batch_tokens
        return StageSpec(
            label=f"{model.family}-{humanize(parameters(model))}",
            model=model,
            data=DataSpec(
                self.corpus.fingerprint,
                order_seed=data.shuffle_seed,
                start=0,
                heldout_tokens=data.validation_tokens,
                heldout_start=data.validation_start,
            ),
            tokens=tokens,
            batch_tokens=optim.batch_tokens,
            optimizer=optimizer(optim, rate),
            lr_schedule=LearningRateSchedule(
                optim.lr_schedule, round(tokens * optim.warmup), 0.0, optim.min_lr_ratio, optim.decay_fraction
            ),
            seed=self.experiment.seed,
            run=self._run(),
        )

    def _run(self) -> RunSpec:
        launcher = self.experiment.launcher
        options = {item.name: getattr(launcher, item.name) for item in fields(RunOptions)}
        options["threads"] = threads(self.experiment)
        return RunSpec(**options, data_dir=self.corpus.folder, lanes=lanes(self.experiment))


def _begin_from(spec: StageSpec, init_from: str) -> StageSpec:
    """Return the spec of a stage that imports the weights in the folder `init_from` instead of training the model of
    `spec`. Raise UserFault if the folder is not an imported stage, if the imported model was grown, or if it differs
    from `spec` in shape or number of training tokens. The error lists all differences."""
    folder = Path(init_from).absolute()
    try:
        imported, result = read_spec(folder), read_result(folder)
    except ValueError as error:
        rule = f"must be a folder that `tfscale import` created: {error}"
        raise UserFault([Fault("init_from", init_from, rule)]) from error
    if imported.init_from is None:
        rule = "must be an imported stage, but tfscale trained this stage"
        raise UserFault([Fault("init_from", init_from, rule, "a folder that `tfscale import` created")])
    faults = [Fault("init_from", init_from, rule) for rule in _differences(spec, imported, result.totals)]
    if faults:
        raise UserFault(faults)
    return replace(spec, model=imported.model, init_from=imported.init_from, init_dir=str(folder))


def _differences(spec: StageSpec, imported: StageSpec, totals: Totals) -> Iterator[str]:
    wanted, there = spec.model, imported.model
    if not isinstance(wanted, TokenFormerConfig) or not isinstance(there, TokenFormerConfig):
        yield f"must be a TokenFormer to start a chain, but is a {there.family}"
        return
    for name in ("n_layer", "d_model", "n_head", "vocab_size", "context", "rotary", "norm_activation"):
        if getattr(wanted, name) != getattr(there, name):
            now, needed = getattr(wanted, name), getattr(there, name)
            yield f"the imported model has {name}={needed}, not {now}; try model.{name}={needed}"
    for name, count, imported_count in zip(("qkv", "out", "ffn"), wanted.tokens, there.tokens, strict=True):
        if count != imported_count:
            change = f"try {name}={imported_count} in the first stage of the schedule"
            yield f"the imported model has {imported_count} {name} tokens, not {count}; {change}"
    known = totals.tokens
    if known and round(known / spec.batch_tokens) * spec.batch_tokens != spec.tokens:
        change = f"try tokens={known} in the first stage of the schedule"
        yield f"the imported model was trained on {known:,} tokens, not {spec.tokens:,}; {change}"
    if known and totals.flops != known * flops(there).training:
        yield "must not be a model that was grown, because its cost is that of several sizes; try `tfscale grow`"


def optimizer(optim: OptimPart, rate: float | None = None) -> Optimizer:
    """Return the optimizer that the settings `optim` describe, with the peak learning rate `rate` or, if `rate` is
    None, optim.lr. Raise ValueError if the optimizer or an option is unknown."""
    names = ("lr", "beta1", "beta2", "eps", "weight_decay", "clip", "embedding_ratio")
    shared = {name: getattr(optim, name) for name in names}
    return from_settings(optim.name, shared | ({} if rate is None else {"lr": rate}), optim.options)


def _common(experiment: Experiment, vocab_size: int) -> dict[str, Any]:
    model = experiment.model
    return {
        "vocab_size": vocab_size,
        "context": model.context,
        "rotary": model.rotary,
        "init": model.init,
        "base_fan_in": model.d_model if experiment.optim.parametrization == "fan_in" else None,
    }


def tokenformer(experiment: Experiment, part: StagePart, corpus: Corpus) -> TokenFormerConfig:
    """Return the config of an ungrown TokenFormer with the size of a stage. Each Pattention layer has one group of
    parameter tokens, with the default tau."""
    model = experiment.model
    qkv, out, ffn = ((TokenGroup(n, default_tau(model.norm_activation, n)),) for n in part.counts)
    return TokenFormerConfig(
        n_layer=model.n_layer,
        d_model=model.d_model,
        n_head=model.n_head,
        qkv=qkv,
        out=out,
        ffn=ffn,
        norm_activation=model.norm_activation,
        **_common(experiment, corpus.vocab_size),
    )


def transformer(experiment: Experiment, part: TransformerPart, corpus: Corpus) -> TransformerConfig:
    """Return the config of the Transformer that the schedule sets for a stage."""
    return TransformerConfig(
        n_layer=part.n_layer,
        d_model=part.d_model,
        n_head=part.n_head,
        d_ff=part.d_ff if part.d_ff is not None else 4 * part.d_model,
        **_common(experiment, corpus.vocab_size),
    )


def compute_optimal(compute: int, models: Sequence[TransformerConfig]) -> tuple[int, TransformerConfig]:
    """Return the index of a model in `models` and the config of a compute-optimal Transformer that is derived from this
    model. The model is made wider or narrower until training it on 20 tokens per parameter, including the embedding,
    costs about `compute` model FLOPs. The numbers of layers and heads and the ratio of d_ff to d_model are kept. Of all
    models in `models`, the one whose number of parameters changes least is used."""
    widened = [_widened(model, compute) for model in models]
    changes = [abs(math.log(parameters(w) / parameters(m))) for w, m in zip(widened, models, strict=True)]
    least = changes.index(min(changes))
    return least, widened[least]


def _widened(model: TransformerConfig, compute: int) -> TransformerConfig:
    def of(head: int) -> TransformerConfig:
        width = head * model.n_head
        return replace(model, d_model=width, d_ff=max(1, round(width * model.d_ff / model.d_model)))

    def cost(head: int) -> int:
        return TOKENS_PER_PARAMETER * parameters(of(head)) * flops(of(head)).training

    return of(nearest(cost, compute, WIDEST_HEAD))


def shaped(experiment: Experiment, family: str, part: StagePart, vocab_size: int) -> ModelConfig:
    """Return the config of the model that the schedule sets for a stage in `family`, a model family that an extension
    registers. Raise ValueError if the family is unknown or the shape is invalid."""
    own = {name: value for name, value in part.shapes[family].items() if name != "lr"}
    try:
        config = FAMILIES.get(family).from_fields(_common(experiment, vocab_size) | own)
        check_fields(config)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return config


def threads(experiment: Experiment) -> int:
    """Return the number of CPU threads per process."""
    launcher = experiment.launcher
    if launcher.threads or launcher.kind == "slurm":
        return launcher.threads or launcher.slurm.cpus
    return max(1, cores() // (launcher.parallel * max(1, launcher.ranks)))


def lanes(experiment: Experiment) -> int:
    """Return the number of batches that an evaluation may process at the same time. With launcher.kind=local, the
    parallel stages share the cores of the machine equally; with other launchers, the number is 1."""
    launcher = experiment.launcher
    if launcher.kind != "local":
        return 1
    return max(1, min(MOST_LANES, cores() // (launcher.parallel * threads(experiment))))


def humanize(count: int) -> str:
    """Return a count in short form, such as 123.6M or 16.4K."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:,.1f}{unit}"
    return str(count)
