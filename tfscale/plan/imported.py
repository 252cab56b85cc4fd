"""First stage of a plan that begins with imported weights."""

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
    """Return a stage that takes its weights from the folder `init_from` instead of being trained as `spec` says.

    Raises:
        UserFault: the folder is not an imported stage, or differs from `spec` in shape or tokens; all are listed.
    """
    folder = Path(init_from).absolute()
    try:
        imported, result = read_spec(folder), read_result(folder)
    except ValueError as error:
        rule = f"{error} `tfscale import` makes such a folder."
        raise UserFault([Fault("init_from", init_from, rule)]) from error
    if imported.init_from is None:
        rule = "must be an imported stage, and this one was trained here; `tfscale import` makes what is needed"
        raise UserFault([Fault("init_from", init_from, rule)])
    faults = [Fault("init_from", init_from, rule) for rule in _differences(spec, imported, result.totals)]
    if faults:
        raise UserFault(faults)
    return replace(spec, model=imported.model, init_from=imported.init_from, init_dir=str(folder))


def _differences(spec: StageSpec, imported: StageSpec, totals: Totals) -> Iterator[str]:
    wanted, there = spec.model, imported.model
    if not isinstance(wanted, TokenFormerConfig) or not isinstance(there, TokenFormerConfig):
        yield f"is a {there.family}; a chain grows out of a TokenFormer"
        return
    for name in ("n_layer", "d_model", "n_head", "vocab_size", "context", "rotary", "norm_activation"):
        if getattr(wanted, name) != getattr(there, name):
            yield f"its {name} is {getattr(there, name)}; set model.{name} to it ({getattr(wanted, name)} now)"
    for name, now, needed in zip(("qkv", "out", "ffn"), wanted.tokens, there.tokens, strict=True):
        if now != needed:
            yield f"it has {needed} {name} tokens; set {name} of the schedule's first stage to that ({now} now)"
    known = totals.tokens
    if known and round(known / spec.batch_tokens) * spec.batch_tokens != spec.tokens:
        stated = f"{spec.tokens:,} now"
        yield f"it was trained on {known:,} tokens; set tokens of the schedule's first stage to that ({stated})"
    if known and totals.flops != known * flops(there).training:
        yield "has grown itself, and its cost is that of several sizes; go on from it with `tfscale grow`"
