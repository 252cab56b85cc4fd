"""Rules between settings, checked when an experiment is composed: before anything is written or launched."""

import dataclasses
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tfscale.config.schema import Experiment
from tfscale.schedule.arm_checks import check_arms

LARGEST = 10**18
"""Of whole numbers; far beyond what any machine trains, and small enough for every product of a prediction."""

MOST_SEEDS = 1000


def check_experiment(experiment: Experiment) -> list[str]:
    """Faults of single values and of the model's shape, each with its mend."""
    return list(_numbers("", experiment)) or [
        *_names(experiment),
        *_seeds(experiment),
        *_model(experiment),
        *_optim(experiment),
        *_data(experiment),
        *_schedule(experiment),
        *_launcher(experiment),
        *_device(experiment),
    ]


def _numbers(key: str, value: Any) -> Iterator[str]:
    """Numbers that no rule could be held against."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{key}={value}: must be a finite number"
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield f"{key}={float(value) if abs(value) < 10**300 else 'more than 1e300'}: at most 10^18"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(f"{key}.{name}", inner)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _numbers(f"{key}.{field.name}".removeprefix("."), getattr(value, field.name))


def _names(experiment: Experiment) -> Iterator[str]:
    """Names of folders and files."""
    name = experiment.schedule.name
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        yield f"schedule.name={name!r}: names a folder; letters, digits and . + - _ alone"
    data = experiment.data
    paths = {
        "runs": experiment.runs,
        "init_from": experiment.init_from or "",
        "data.path": data.path or "",
        "data.tokenizer_path": data.tokenizer_path or "",
    }
    for key, path in paths.items():
        try:
            Path(path).expanduser().stat()
        except FileNotFoundError:
            continue  # to be made, or told as missing
        except (OSError, RuntimeError, ValueError) as error:
            yield f"{key}={path[:80]!r}: not a path that can be used here ({getattr(error, 'strerror', None) or error})"


def _seeds(experiment: Experiment) -> Iterator[str]:
    if not 1 <= experiment.seeds <= MOST_SEEDS:
        yield f"seeds={experiment.seeds}: how many replicates, 1 to {MOST_SEEDS}"


def _model(experiment: Experiment) -> Iterator[str]:
    model = experiment.model
    for name in ("n_layer", "d_model", "n_head", "context"):
        if getattr(model, name) < 1:
            yield f"model.{name}={getattr(model, name)}: at least 1"
    if model.vocab_size is not None and model.vocab_size < 1:
        yield f"model.vocab_size={model.vocab_size}: at least the tokenizer's, or null for just that"
    if model.n_head > 0 and model.d_model % model.n_head:
        yield f"model.n_head={model.n_head} does not divide model.d_model={model.d_model}"
    if not 0 <= model.rotary <= 1:
        yield f"model.rotary={model.rotary}: a fraction of the head dimensions, 0 to 1"


def _optim(experiment: Experiment) -> Iterator[str]:
    optim, context = experiment.optim, experiment.model.context
    if optim.lr <= 0:
        yield f"optim.lr={optim.lr}: above 0"
    if optim.batch_tokens < 1 or (context > 0 and optim.batch_tokens % context):
        yield f"optim.batch_tokens={optim.batch_tokens}: a multiple of model.context={context}"
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(optim, name) < 1:
            yield f"optim.{name}={getattr(optim, name)}: 0 to less than 1"
    for name in ("warmup", "floor", "decay"):
        if not 0 <= getattr(optim, name) <= 1:
            yield f"optim.{name}={getattr(optim, name)}: a fraction, 0 to 1"
    for name in ("weight_decay", "clip", "eps"):
        if getattr(optim, name) < 0:
            yield f"optim.{name}={getattr(optim, name)}: at least 0"


def _data(experiment: Experiment) -> Iterator[str]:
    data = experiment.data
    if data.source in ("text", "shards") and data.path is None:
        yield f"data.path is not set; data.source={data.source} needs the file or folder: data.path=..."
    if data.source == "hub" and not data.dataset:
        yield "data.dataset is not set; data.source=hub needs a repository: data.dataset=HuggingFaceFW/fineweb-edu"
    if data.source != "hub" and data.dataset:
        yield f"data.dataset={data.dataset}: data.source={data.source} reads none; set data.source=hub"
    if data.tokenizer == "hub" and data.source != "shards" and not data.tokenizer_name:
        yield "data.tokenizer_name is not set; data.tokenizer=hub needs gpt2, gpt_neox_20b or a repository"
    if data.workers < 0:
        yield f"data.workers={data.workers}: at least 1, or auto for one a core"
    if data.tokenizer == "file" and data.source != "shards" and data.tokenizer_path is None:
        yield "data.tokenizer_path is not set; data.tokenizer=file needs a Hugging Face tokenizer.json"
    if data.tokenizer == "bpe" and data.vocab_size < 257:
        yield f"data.vocab_size={data.vocab_size}: at least 257, the bytes and the end of text"
    if not 0 < data.heldout < 1:
        yield f"data.heldout={data.heldout}: a fraction of the documents, above 0 and below 1"
    context = experiment.model.context
    if data.heldout_tokens < context:
        yield f"data.heldout_tokens={data.heldout_tokens}: at least model.context={context}"
    if data.heldout_start < 0:
        yield f"data.heldout_start={data.heldout_start}: at least 0"


def _schedule(experiment: Experiment) -> Iterator[str]:
    schedule = experiment.schedule
    if not schedule.stages:
        yield "schedule.stages is empty; a chain has at least one stage"
    for number, (name, part) in enumerate(schedule.stages.items()):
        if number == 0 and part.scratch_lr is not None:
            yield f"schedule.stages.{name}.scratch_lr: the first stage is from scratch already; set its lr"
        key = f"schedule.stages.{name}"
        for field in ("qkv", "out", "ffn"):
            count = getattr(part, field)
            if count is not None and count < 1:
                yield f"{key}.{field}={count}: at least 1 parameter token"
        tokens = part.tokens if part.tokens is not None else schedule.growth_tokens
        if tokens < experiment.optim.batch_tokens:
            yield (
                f"{key}.tokens={tokens}: at least one batch (optim.batch_tokens={experiment.optim.batch_tokens}); "
                "set it, or schedule.growth_tokens for all grown stages"
            )
        for field in ("lr", "scratch_lr"):
            rate = getattr(part, field)
            if rate is not None and rate <= 0:
                yield f"{key}.{field}={rate}: above 0"
        shape = part.transformer
        if shape is not None and shape.d_ff is not None and shape.d_ff < 1:
            yield f"{key}.transformer.d_ff={shape.d_ff}: at least 1"
        if shape is not None and shape.lr is not None and shape.lr <= 0:
            yield f"{key}.transformer.lr={shape.lr}: above 0"
        if shape is not None and (min(shape.n_layer, shape.d_model, shape.n_head) < 1 or shape.d_model % shape.n_head):
            yield f"{key}.transformer: n_head={shape.n_head} must divide d_model={shape.d_model}, all at least 1"
    yield from _grow_when(experiment)
    if schedule.trained_on_lr is not None and schedule.trained_on_lr <= 0:
        yield f"schedule.trained_on_lr={schedule.trained_on_lr}: above 0"
    sizes = [part.size for part in schedule.stages.values()]
    if len(set(sizes)) < len(sizes):
        yield f"schedule.stages name a size twice: {', '.join(sizes)}"
    yield from check_arms(experiment)


def _grow_when(experiment: Experiment) -> Iterator[str]:
    when, key = experiment.schedule.grow_when, "schedule.grow_when"
    if when.rule != "budget" and experiment.optim.schedule == "cosine":
        yield (
            f"{key}.rule={when.rule}: a cosine's length has to be known before it begins; set optim.schedule=wsd, or "
            f"constant, or {key}.rule=budget"
        )
    if when.every < 0:
        yield f"{key}.every={when.every}: tokens between two looks, at least 0"
    if not 0 < when.least < 10:
        yield f"{key}.least={when.least}: nats, above 0 and below 10"
    if when.looks < 1:
        yield f"{key}.looks={when.looks}: at least 1"


def _launcher(experiment: Experiment) -> Iterator[str]:
    launcher = experiment.launcher
    least_values = {"parallel": 1, "nodes": 1, "keep": 1, "non_finite_cap": 1}
    counts = ("processes", "threads", "micro_batch", "log_tokens", "eval_tokens", "checkpoint_tokens",
              "checkpoint_minutes", "keep_tokens", "retries", "hang_minutes")  # fmt: skip
    for name, least in {**least_values, **dict.fromkeys(counts, 0)}.items():
        if getattr(launcher, name) < least:
            yield f"launcher.{name}={getattr(launcher, name)}: at least {least}"
    if launcher.kind == "local" and launcher.processes > 1:
        yield f"launcher.processes={launcher.processes}: launcher=local trains in one process; use launcher=torchrun"
    if launcher.kind != "slurm" and launcher.nodes > 1:
        yield f"launcher.nodes={launcher.nodes}: launcher={launcher.kind} runs on this machine; use launcher=slurm"
    yield from check_sharing(experiment, launcher.ranks)
    if launcher.update == "in_backward":
        yield from _in_backward(experiment)
    if launcher.kind == "slurm":
        yield from _slurm(experiment)


def _in_backward(experiment: Experiment) -> Iterator[str]:
    """Of what needs all gradients at once, nothing goes with gradients that are dropped one by one."""
    clip, launcher, why = experiment.optim.clip, experiment.launcher, "launcher.update=in_backward"
    if clip:
        yield f"optim.clip={clip}: {why} knows the gradients' norm too late to clip them; set optim.clip=0"
    if launcher.non_finite == "skip":
        yield f"launcher.non_finite=skip: {why} knows of a bad gradient too late; set raise or rollback"
    if launcher.ranks > 1:
        yield f"{why}: is for one process a stage, and there are {launcher.ranks}; set launcher.update=whole"


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
        f"launcher.{name}={asked}: {ranks} processes cannot share the {sequences} sequences of a batch evenly; use "
        f"{offer}, or another optim.batch_tokens"
    ]


def _device(experiment: Experiment) -> Iterator[str]:
    device = experiment.device
    facts = {"memory": device.memory, "bandwidth": device.bandwidth, "link": device.link, "network": device.network,
             "watts": device.watts, "price": device.price,
             **{f"peak.{name}": rate for name, rate in vars(device.peak).items()}}  # fmt: skip
    for name, fact in facts.items():
        if fact is not None and fact <= 0:
            yield f"device.{name}={fact}: above 0, or null where it is not known"
    if not 0 < device.mfu <= 1:
        yield f"device.mfu={device.mfu}: a fraction of the peak, above 0 and at most 1"


def _slurm(experiment: Experiment) -> Iterator[str]:
    slurm = experiment.launcher.slurm
    for name, least in {"gpus": 0, "cpus": 1, "minutes": 1, "signal_seconds": 1, "requeues": 0}.items():
        if getattr(slurm, name) < least:
            yield f"launcher.slurm.{name}={getattr(slurm, name)}: at least {least}"
    if slurm.signal_seconds >= 60 * slurm.minutes > 0:
        yield (
            f"launcher.slurm.signal_seconds={slurm.signal_seconds}: a job of launcher.slurm.minutes={slurm.minutes} "
            "would be told to save before it begins; less than its time"
        )
    if experiment.launcher.device == "cuda" and slurm.gpus == 0:
        yield "launcher.slurm.gpus=0: launcher.device=cuda needs GPUs; ask for some, or set launcher.device=auto"
    # These become lines of the script that sbatch reads.
    for name in ("partition", "account", "qos"):
        value = getattr(slurm, name)
        if value is not None and not re.fullmatch(r"[\w.,@+-]+", value):
            yield f"launcher.slurm.{name}={value!r}: letters, digits and . , @ + - _ alone"
    if re.search(r"[%\n\r]", f"{Path.cwd()}/{experiment.runs}"):
        yield f"runs={experiment.runs!r}: Slurm gives % a meaning of its own in paths; choose another folder"


def check_growable(experiment: Experiment) -> list[str]:
    """Faults of the chain's growth: a chain keeps its depth, width, heads and vocabulary, and no count shrinks."""
    faults = []
    parts = list(experiment.schedule.stages.items())
    for (_, parent), (name, child) in pairwise(parts):
        before, after = parent.counts, child.counts
        key = f"schedule.stages.{name}"
        for field, old, new in zip(("qkv", "out", "ffn"), before, after, strict=True):
            if new < old:
                faults.append(f"{key}.{field}={new} ({child.size}) cannot grow out of {old} ({parent.size}): no count "
                              f"may shrink; at least {old}")  # fmt: skip
        if after == before:
            faults.append(f"{key} ({child.size}) has as many parameter tokens as {parent.size}: {after}; raise qkv")
    return faults
