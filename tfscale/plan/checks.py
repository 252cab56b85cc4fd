"""Rules between settings, checked when an experiment is composed: before anything is written or launched. What a single
value may be stands with its type in `tfscale.config.schema`."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tfscale.config.schema import Experiment
from tfscale.plan.arm_kind import check_arms
from tfscale.plan.corpus import check_corpus
from tfscale.plan.specs import optimizer
from tfscale.stage.layout import in_backward_faults


def check_experiment(experiment: Experiment) -> list[str]:
    """Faults of settings that do not go together, each with its fix."""
    return [
        *_names(experiment),
        *_model(experiment),
        *_optim(experiment),
        *_data(experiment),
        *_schedule(experiment),
        *_launcher(experiment),
        *_growable(experiment),
    ]


def _names(experiment: Experiment) -> Iterator[str]:
    name = experiment.schedule.name
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        yield f"schedule.name={name!r}: must be a folder's name of letters, digits, spaces and . + - _; try my_chain"


def _model(experiment: Experiment) -> Iterator[str]:
    model = experiment.model
    if model.d_model % model.n_head:
        yield f"model.n_head={model.n_head} does not divide model.d_model={model.d_model}; try model.n_head=1"


def _optim(experiment: Experiment) -> Iterator[str]:
    batch, context = experiment.optim.batch_tokens, experiment.model.context
    if batch < 1 or batch % context:
        near = max(1, round(batch / context)) * context
        yield f"optim.batch_tokens={batch}: must be a multiple of model.context={context}; try {near}"
    try:
        chosen = optimizer(experiment.optim)
    except ValueError as error:
        yield str(error)
        return
    recipes = {"growth": experiment.growth} | {
        f"baseline.arms.{name}.growth": arm.growth for name, arm in experiment.baseline.arms.items() if arm.growth
    }
    for key, recipe in recipes.items():
        if recipe.splits_rates and not chosen.row_wise:
            yield (
                f"{key}.rates: must be left out with optim.name={chosen.name}, which does not update each row of a "
                "weight by itself; try optim.name=adamw"
            )
    ranks = max(1, experiment.launcher.ranks)
    yield from in_backward_faults(experiment.launcher, chosen, ranks, batch // context // ranks)


def _data(experiment: Experiment) -> Iterator[str]:
    data, context = experiment.data, experiment.model.context
    yield from check_corpus(experiment)
    if data.validation_tokens < context:
        yield f"data.validation_tokens={data.validation_tokens}: must be at least model.context={context}; try 65536"


def _schedule(experiment: Experiment) -> Iterator[str]:
    schedule, batch = experiment.schedule, experiment.optim.batch_tokens
    if not schedule.stages:
        yield "schedule.stages is empty; a chain has at least one stage"
    for number, (name, part) in enumerate(schedule.stages.items()):
        key = f"schedule.stages.{name}"
        if number == 0 and part.scratch_lr is not None:
            yield f"{key}.scratch_lr={part.scratch_lr}: must be null, for the first stage is from scratch; try {key}.lr"
        tokens = part.tokens if part.tokens is not None else schedule.growth_tokens
        if tokens < batch:
            yield (
                f"{key}.tokens={tokens}: must be at least one batch, optim.batch_tokens={batch}; try to set it, or "
                "schedule.growth_tokens for all grown stages"
            )
        shape = part.transformer
        if shape is not None and shape.d_model % shape.n_head:
            yield f"{key}.transformer: n_head={shape.n_head} does not divide d_model={shape.d_model}; try n_head=1"
    when = schedule.grow_when.rule
    if when != "budget" and experiment.optim.lr_schedule == "cosine":
        yield (
            f"schedule.grow_when.rule={when}: must be budget with optim.lr_schedule=cosine, whose length has to be "
            "known before it begins; try optim.lr_schedule=wsd or constant"
        )
    sizes = [part.size for part in schedule.stages.values()]
    if len(set(sizes)) < len(sizes):
        yield f"schedule.stages name a size twice: {', '.join(sizes)}; try sizes that differ"
    yield from check_arms(experiment)


def _launcher(experiment: Experiment) -> Iterator[str]:
    launcher = experiment.launcher
    if launcher.kind == "local" and launcher.processes > 1:
        yield (
            f"launcher.processes={launcher.processes}: must be 1 or auto with launcher.kind=local; try "
            "launcher=torchrun"
        )
    if launcher.kind != "slurm" and launcher.nodes > 1:
        yield f"launcher.nodes={launcher.nodes}: must be 1 with launcher.kind={launcher.kind}; try launcher=slurm"
    yield from check_sharing(experiment, launcher.ranks)
    if launcher.kind == "slurm":
        yield from _slurm(experiment)


def check_sharing(experiment: Experiment, ranks: int) -> list[str]:
    """Why so many ranks cannot share a batch, with the next numbers that can."""
    sequences = experiment.optim.batch_tokens // max(1, experiment.model.context)
    if ranks < 2 or sequences % ranks == 0:
        return []
    launcher = experiment.launcher
    name, asked = ("nodes", launcher.nodes) if launcher.kind == "slurm" else ("processes", ranks)
    each = max(1, ranks // max(1, asked))  # ranks that one more of these brings
    fewer, more = range(asked - 1, max(0, asked - 10_000), -1), range(asked + 1, min(2 * asked, sequences // each) + 1)
    even = [next((n for n in near[:10_000] if sequences % (n * each) == 0), None) for near in (fewer, more)]
    offer = " or ".join(f"launcher.{name}={n}" for n in even if n) or "another launcher.slurm.gpus"
    return [
        f"launcher.{name}={asked}: {ranks} processes cannot share the {sequences} sequences of a batch evenly; try "
        f"{offer}, or another optim.batch_tokens"
    ]


def _slurm(experiment: Experiment) -> Iterator[str]:
    slurm = experiment.launcher.slurm
    if slurm.signal_seconds >= 60 * slurm.minutes > 0:
        yield (
            f"launcher.slurm.signal_seconds={slurm.signal_seconds}: must be less than the job's time, "
            f"launcher.slurm.minutes={slurm.minutes}; try {min(120, 30 * slurm.minutes)}"
        )
    if experiment.launcher.device == "cuda" and slurm.gpus == 0:
        yield "launcher.slurm.gpus=0: must be at least 1 with launcher.device=cuda; try launcher.device=auto"
    # These become lines of the script that sbatch reads.
    for name in ("partition", "account", "qos"):
        value = getattr(slurm, name)
        if value is not None and not re.fullmatch(r"[\w.,@+-]+", value):
            yield f"launcher.slurm.{name}={value!r}: must be of letters, digits and . , @ + - _; try null"
    if re.search(r"[%\n\r]", f"{Path.cwd()}/{experiment.runs}"):
        yield f"runs={experiment.runs!r}: must be a path without %, which Slurm replaces; try another folder"


def _growable(experiment: Experiment) -> Iterator[str]:
    """A chain keeps its depth, width, heads and vocabulary, and no count of parameter tokens shrinks."""
    for (_, parent), (name, child) in pairwise(experiment.schedule.stages.items()):
        key = f"schedule.stages.{name}"
        for field, old, new in zip(("qkv", "out", "ffn"), parent.counts, child.counts, strict=True):
            if new < old:
                yield (
                    f"{key}.{field}={new} ({child.size}) cannot grow out of {old} ({parent.size}): no count may "
                    f"shrink; try {old} or more"
                )
        if child.counts == parent.counts:
            yield f"{key} ({child.size}) has as many parameter tokens as {parent.size}: {child.counts}; raise qkv"
