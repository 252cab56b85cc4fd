"""Learning-rate schedule, which is a pure function of the position in a stage."""

import math
from typing import assert_never

from tfscale.stage.spec import LearningRateSchedule


def learning_rate(schedule: LearningRateSchedule, peak: float, position: int, tokens: int) -> float:
    """Return the learning rate of the step that begins after `position` tokens of a stage of `tokens` tokens.

    The learning rate rises linearly to `peak` during the warm-up. With `constant`, it then stays at `peak`. With
    `cosine`, it falls to `floor * peak` along a half cosine. With `wsd`, it stays at `peak` and then falls linearly
    to `floor * peak` over the last fraction `decay` of the stage.
    """
    warmup = schedule.warmup_tokens
    if position < warmup:
        return schedule.warmup_from + (peak - schedule.warmup_from) * position / warmup
    if schedule.kind == "constant":
        return peak
    if schedule.kind == "cosine":
        progress = (position - warmup) / max(1, tokens - warmup)
        return peak * (schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * progress)) / 2)
    if schedule.kind == "wsd":
        remaining = (tokens - position) / max(1.0, schedule.decay * tokens)
        return peak * (schedule.floor + (1 - schedule.floor) * min(1.0, remaining))
    assert_never(schedule.kind)
