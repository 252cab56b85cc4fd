"""First stage of a plan that starts from imported weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tfscale.faults import Fault, UserFault
from tfscale.models.counts import flops
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.stage.result import read_result
from tfscale.stage.spec import StageSpec, read_spec
from tfscale.totals import Totals


def begin_from(spec: StageSpec, init_from: str) -> StageSpec:
    """Return a stage that imports the weights in the folder `init_from` instead of training the model of `spec`.

    Raises:
        UserFault: the folder is not an imported stage, or differs from `spec` in shape or tokens. The error lists all
            differences.
    """
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
