"""Checks of the rules that relate several settings of an experiment to each other, and of a few rules for single
settings. The ranges of single settings are declared in `tfscale.config.schema`."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tfscale.config.schema import Experiment
from tfscale.faults import Fault, InvalidInput, as_faults
from tfscale.plan.arm_kind import check_arms
from tfscale.plan.corpus import check_corpus
from tfscale.plan.specs import optimizer
from tfscale.stage.layout import in_backward_faults, nested_dropout_faults


def check_experiment(experiment: Experiment) -> list[Fault]:
    """Return a fault for each setting, or combination of settings, that is not allowed."""
    return [
        *_names(experiment),
        *_model(experiment),
        *_optim(experiment),
        *_data(experiment),
        *_schedule(experiment),
        *as_faults(check_arms(experiment)),
        *_launcher(experiment),
        *_growable(experiment),
    ]


def _names(experiment: Experiment) -> Iterator[Fault]:
    name = experiment.schedule.name
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        rule = "must be a folder name of letters, digits, spaces and . + - _"
        yield Fault("schedule.name", repr(name), rule, "my_chain")


def _model(experiment: Experiment) -> Iterator[Fault]:
    model = experiment.model
    if model.d_model % model.n_head:
        rule = f"must divide model.d_model={model.d_model}"
        yield Fault("model.n_head", model.n_head, rule, "1", reads=("model.d_model",))


def _optim(experiment: Experiment) -> Iterator[Fault]:
    batch, context = experiment.optim.batch_tokens, experiment.model.context
    if batch < 1 or batch % context:
        near = max(1, round(batch / context)) * context
        rule = f"must be a multiple of model.context={context}"
        yield Fault("optim.batch_tokens", batch, rule, str(near), reads=("model.context",))
    try:
        chosen = optimizer(experiment.optim)
    except InvalidInput as error:
        yield from error.faults
        return
    recipes = {"growth": experiment.growth} | {
        f"baseline.arms.{name}.growth": arm.growth for name, arm in experiment.baseline.arms.items() if arm.growth
    }
    for key, recipe in recipes.items():
        if recipe.splits_rates and not chosen.row_rates:
            rule = f"must not be set with optim.name={chosen.name}, which has one learning rate for all rows"
            yield Fault(f"{key}.rates", None, rule, "optim.name=adamw", reads=("optim.name",))
        elif recipe.corrects_bias and not chosen.bias_corrected:
            rule = f"must be false with optim.name={chosen.name}, whose matrices have no bias correction"
            yield Fault(f"{key}.rates.per_row_bias", "true", rule, reads=("optim.name",))
    if any(recipe.nested_dropout for recipe in recipes.values()):
        device = "cpu" if experiment.launcher.device == "cpu" else "cuda"
        yield from nested_dropout_faults(experiment.launcher, device)
    ranks = max(1, experiment.launcher.ranks)
    yield from in_backward_faults(experiment.launcher, chosen, ranks, batch // context // ranks)


def _data(experiment: Experiment) -> Iterator[Fault]:
    data, context = experiment.data, experiment.model.context
    yield from check_corpus(experiment)
    if data.validation_tokens < context:
        rule = f"must be at least model.context={context}"
        yield Fault("data.validation_tokens", data.validation_tokens, rule, "65536", reads=("model.context",))


def _schedule(experiment: Experiment) -> Iterator[Fault]:
    schedule, batch = experiment.schedule, experiment.optim.batch_tokens
    if not schedule.stages:
        yield Fault("schedule.stages", None, "must have at least one stage")
    for number, (name, part) in enumerate(schedule.stages.items()):
        key = f"schedule.stages.{name}"
        if number == 0 and part.scratch_lr is not None:
            rule = "must be null, because the first stage is trained from scratch"
            yield Fault(f"{key}.scratch_lr", part.scratch_lr, rule, f"{key}.lr")
        tokens = part.tokens if part.tokens is not None else schedule.growth_tokens
        if tokens < batch:
            rule = f"must be at least one batch, optim.batch_tokens={batch}"
            hint = "a larger value, or schedule.growth_tokens=... for all grown stages"
            reads: tuple[str, ...] = ("optim.batch_tokens", "schedule.growth_tokens")
            yield Fault(f"{key}.tokens", tokens, rule, hint, reads)
        trial = schedule.reject_growth
        if number and trial is not None and not batch <= trial.after_tokens <= tokens - batch:
            rule = f"must be from one batch, optim.batch_tokens={batch}, to one batch less than the tokens of {key}"
            place = "schedule.reject_growth.after_tokens"
            yield Fault(place, trial.after_tokens, rule, str(tokens // 10), ("optim.batch_tokens", key))
        shape = part.transformer
        if shape is not None and shape.d_model % shape.n_head:
            yield Fault(f"{key}.transformer.n_head", shape.n_head, f"must divide d_model={shape.d_model}", "1")
    when = schedule.grow_when.rule
    if when != "budget" and experiment.optim.lr_schedule == "cosine":
        rule = "must be budget with optim.lr_schedule=cosine, whose length must be known in advance"
        reads = ("optim.lr_schedule",)
        yield Fault("schedule.grow_when.rule", when, rule, "optim.lr_schedule=wsd or constant", reads)
    yield from _branches(experiment)
    sizes = [part.size for part in schedule.stages.values()]
    primary = experiment.analysis.primary.size
    if primary is not None and primary not in sizes:
        rule = "must be a size of the schedule"
        yield Fault("analysis.primary.size", primary, rule, f"one of {', '.join(sizes)}", reads=("schedule.stages",))
    if len(set(sizes)) < len(sizes):
        yield Fault("schedule.stages", None, f"must not repeat a size: {', '.join(sizes)}", "different sizes")


def _branches(experiment: Experiment) -> Iterator[Fault]:
    schedule, optim = experiment.schedule, experiment.optim
    if schedule.branches is None:
        return
    reads = ("schedule.branches",)
    if optim.lr_schedule != "constant":
        rule = "must be constant with schedule.branches, which decay the learning rate"
        yield Fault("optim.lr_schedule", optim.lr_schedule, rule, "constant", reads)
    if experiment.growth.lr != "continue":
        rule = "must be continue with schedule.branches, because the trunk has only one warm-up"
        yield Fault("growth.lr", experiment.growth.lr, rule, "continue", reads)
    later = {f"schedule.stages.{name}.lr": part.lr for name, part in list(schedule.stages.items())[1:]}
    for key, rate in {**later, "schedule.trained_on_lr": schedule.trained_on_lr}.items():
        if rate is not None:
            rule = "must be null with schedule.branches, whose trunk has the learning rate of the first stage"
            yield Fault(key, rate, rule, "null", reads)
    if schedule.branches.smaller_readings and schedule.branches.readings != "all":
        rule = "must be all with schedule.branches.smaller_readings, which adds budgets to those of the chain"
        reads = ("schedule.branches.smaller_readings",)
        yield Fault("schedule.branches.readings", schedule.branches.readings, rule, "all", reads)
    if experiment.init_from is not None:
        rule = "must be null with schedule.branches, because imported weights have no learning rate to continue"
        yield Fault("init_from", repr(experiment.init_from), rule, "null", reads)


def _launcher(experiment: Experiment) -> Iterator[Fault]:
    launcher = experiment.launcher
    if launcher.kind == "local" and launcher.processes > 1:
        rule = "must be 1 or auto with launcher.kind=local"
        yield Fault("launcher.processes", launcher.processes, rule, "launcher=torchrun", reads=("launcher.kind",))
    if launcher.kind != "slurm" and launcher.nodes > 1:
        rule = f"must be 1 with launcher.kind={launcher.kind}"
        yield Fault("launcher.nodes", launcher.nodes, rule, "launcher=slurm", reads=("launcher.kind",))
    yield from check_sharing(experiment, launcher.ranks)
    if launcher.kind == "slurm":
        yield from _slurm(experiment)
    if experiment.budget is not None and launcher.kind == "slurm":
        rule = "must be null with launcher.kind=slurm, whose jobs outlive the command"
        yield Fault("budget", experiment.budget, rule, "launcher.slurm.minutes", reads=("launcher.kind",))
    if experiment.budget is not None and experiment.schedule.rehearse:
        rule = "must be null with schedule.rehearse=true, which trains three steps per stage"
        yield Fault("budget", experiment.budget, rule, "null", reads=("schedule.rehearse",))


def check_sharing(experiment: Experiment, ranks: int) -> list[Fault]:
    """Return a list with a fault if the sequences of a batch cannot be divided evenly among the ranks, otherwise an
    empty list. The fault suggests the nearest suitable numbers of nodes or processes."""
    sequences = experiment.optim.batch_tokens // max(1, experiment.model.context)
    if ranks < 2 or sequences % ranks == 0:
        return []
    launcher = experiment.launcher
    name, asked = ("nodes", launcher.nodes) if launcher.kind == "slurm" else ("processes", ranks)
    each = max(1, ranks // max(1, asked))  # ranks per node or process
    fewer, more = range(asked - 1, max(0, asked - 10_000), -1), range(asked + 1, min(2 * asked, sequences // each) + 1)
    even = [next((n for n in near[:10_000] if sequences % (n * each) == 0), None) for near in (fewer, more)]
    offer = " or ".join(f"launcher.{name}={n}" for n in even if n) or "another launcher.slurm.gpus"
    rule = f"{ranks} processes cannot share the {sequences} sequences of a batch evenly"
    reads = ("launcher.kind", "launcher.slurm", "optim.batch_tokens", "model.context")
    return [Fault(f"launcher.{name}", asked, rule, f"{offer}, or another optim.batch_tokens", reads)]


def _slurm(experiment: Experiment) -> Iterator[Fault]:
    slurm = experiment.launcher.slurm
    if slurm.signal_seconds >= 60 * slurm.minutes > 0:
        key, hint = "launcher.slurm.signal_seconds", str(min(120, 30 * slurm.minutes))
        rule = f"must be less than the time limit of the job, launcher.slurm.minutes={slurm.minutes}"
        yield Fault(key, slurm.signal_seconds, rule, hint, reads=("launcher.slurm.minutes",))
    if experiment.launcher.device == "cuda" and slurm.gpus == 0:
        rule = "must be at least 1 with launcher.device=cuda"
        yield Fault("launcher.slurm.gpus", 0, rule, "launcher.device=auto", reads=("launcher.device",))
    # These settings become lines of the script that sbatch reads.
    for name in ("partition", "account", "qos"):
        value = getattr(slurm, name)
        if value is not None and not re.fullmatch(r"[\w.,@+-]+", value):
            rule = "must consist of letters, digits and . , @ + - _"
            yield Fault(f"launcher.slurm.{name}", repr(value), rule, "null")
    if re.search(r"[%\n\r]", f"{Path.cwd()}/{experiment.runs}"):
        yield Fault("runs", repr(experiment.runs), "must be a path without %, which Slurm replaces", "another folder")


def _growable(experiment: Experiment) -> Iterator[Fault]:
    for (before, parent), (name, child) in pairwise(experiment.schedule.stages.items()):
        above, key = f"schedule.stages.{before}", f"schedule.stages.{name}"
        for field, old, new in zip(("qkv", "out", "ffn"), parent.counts, child.counts, strict=True):
            if new < old:
                rule = f"must be at least {old}, because {child.size} grows from {parent.size}: no count may decrease"
                yield Fault(f"{key}.{field}", new, rule, str(old), reads=(above,))
        if child.counts == parent.counts:
            rule = f"must have more parameter tokens than {parent.size}, which also has {child.counts}"
            yield Fault(key, None, rule, "a larger qkv", reads=(above,))
