"""Shorter versions of stages, whose losses rank the candidates before the best ones are trained with all tokens.

A shorter version is not the beginning of the longer stage, because its warm-up and decay are shortened in proportion.
In the middle of a longer stage, the learning rate has not decayed yet, so a comparison there favours lower rates.
"""

from collections.abc import Sequence
from dataclasses import replace

from tfscale.growth.operator import from_dict
from tfscale.plan.specs import Specs
from tfscale.stage.folder import Stage
from tfscale.stage.spec import StageSpec, steps_of


def shortened(stages: Sequence[Stage], fraction: float, specs: Specs) -> tuple[Stage, ...]:
    """Return shorter versions of stages, which are trained with a fraction of the tokens. A child grows from the
    shorter version of its parent if the parent is among the stages.

    Args:
        stages: stages to shorten, parents before children.
        fraction: fraction of the tokens of each stage, above 0 and at most 1.
    """
    if fraction == 1:
        return tuple(stages)
    shorter: dict[str, Stage] = {}
    for stage in stages:
        spec = _shorter(stage.spec, fraction)
        parent = shorter.get(spec.parent or "")
        if parent is not None and spec.growth is not None:
            spec = specs.child_of(parent, spec, from_dict(spec.growth, spec.model))
        shorter[stage.key] = specs.stage(stage.size, spec)
    return tuple(shorter.values())


def _shorter(spec: StageSpec, fraction: float) -> StageSpec:
    tokens = steps_of(round(fraction * spec.tokens), spec) * spec.batch_tokens
    share, schedule, rates = tokens / spec.tokens, spec.lr_schedule, spec.rates
    if rates is not None:
        rates = replace(
            rates,
            old_ramp_tokens=round(share * rates.old_ramp_tokens),
            frozen_tokens=round(share * rates.frozen_tokens),
            new_ramp_tokens=round(share * rates.new_ramp_tokens),
        )
    schedule = replace(schedule, warmup_tokens=round(share * schedule.warmup_tokens))
    return replace(spec, tokens=tokens, lr_schedule=schedule, rates=rates)
