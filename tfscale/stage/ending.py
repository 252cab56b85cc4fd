"""Early end of a stage by a stopping rule or a trial. The end depends only on the spec and the validation losses.

With a stopping rule, the learning rate is constant after the warm-up, and the validation loss is checked at regular
intervals. As soon as the stopping rule is met, the end of the stage is fixed: with `wsd` the learning rate then decays
over the last fraction `decay` of the stage; with `constant` the stage ends immediately. A stage never exceeds its
budget.

A trial rejects a growth if, after a given number of tokens, the validation loss exceeds the last validation loss of the
parent by more than a bound. The stage then ends immediately, without a decay of the learning rate. The stopping rule is
checked only after the trial.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_never

from tfscale.stage.result import read_result
from tfscale.stage.spec import EndingSpec, StageSpec, steps_of

FEWEST_POINTS = 4
"""Minimum number of evaluations for fitting a curve with three parameters."""
_EXPONENTS = tuple(0.02 * 1.02**number for number in range(245))
"""Exponents b of the curves that `gain_by_curve` compares, from 0.02 to 2.5."""


def needs_loss_at(spec: StageSpec, step: int) -> bool:
    """Return whether the stopping rule or the trial of a stage needs the validation loss after a step."""
    by_rule = spec.ending is not None and step > 0 and step % steps_of(spec.ending.every_tokens, spec) == 0
    return by_rule or (spec.trial is not None and step == steps_of(spec.trial.tokens, spec))


def parent_loss(spec: StageSpec, stage_dir: Path) -> float | None:
    """Return the last validation loss of a stage's parent in nats per token, or None if the stage has no trial. Raise
    ValueError if the parent is not finished."""
    if spec.trial is None or spec.parent_dir is None:
        return None
    return read_result(stage_dir / spec.parent_dir).evaluation.loss


def end_of(spec: StageSpec, losses: Mapping[int, float], before: float | None = None) -> int | None:
    """Return the number of steps after which a stage ends, or None if the stopping rule has not decided the end yet.
    Without a stopping rule, return the number of steps in the spec, unless the trial has rejected the growth.

    Args:
        losses: validation losses of all evaluations so far, in nats per token, by step.
        before: last validation loss of the parent in nats per token. Required if the stage has a trial.
    """
    tried = steps_of(spec.trial.tokens, spec) if spec.trial else 0
    if spec.trial and before is not None and tried in losses and not losses[tried] <= before + spec.trial.bound:
        return tried
    if spec.ending is None:
        return spec.steps
    most = spec.ending.most_tokens // spec.batch_tokens
    decay = spec.lr_schedule.decay if spec.lr_schedule.kind == "wsd" else 0.0
    looks: list[tuple[int, float]] = []
    for step in sorted(step for step in losses if needs_loss_at(spec, step)):
        tokens = step * spec.batch_tokens
        if tokens <= spec.lr_schedule.warmup_tokens or step <= tried:
            continue
        looks.append((tokens, losses[step]))
        last = most if decay == 1 else math.ceil(step / (1 - decay))
        if last >= most:
            return most  # the decay at the end of the budget has begun
        if holds(spec.ending, looks):
            return last
    return None


def holds(ending: EndingSpec, looks: Sequence[tuple[int, float]]) -> bool:
    """Return whether a stopping rule is met. The rule `plateau` is met if the loss has fallen by less than
    `ending.least` over the last `ending.looks` evaluations. The rule `predicted_gain` is met if the remaining budget is
    predicted to lower the loss by less than `ending.least`. If there are too few evaluations, the rule is not met.

    Args:
        looks: number of tokens and validation loss in nats per token, for each evaluation after the warm-up and the
            trial.
    """
    if ending.rule == "plateau":
        return len(looks) > ending.looks and looks[-1 - ending.looks][1] - looks[-1][1] < ending.least
    if ending.rule == "predicted_gain":
        enough = len(looks) >= max(FEWEST_POINTS, ending.looks)
        return enough and gain_by_curve(looks, ending.most_tokens) < ending.least
    assert_never(ending.rule)


def gain_by_curve(looks: Sequence[tuple[int, float]], tokens: int) -> float:
    """Return the decrease of the loss, in nats per token, that is predicted between the last evaluation in `looks` and
    the end of training at `tokens` tokens. The curve E + A / tokens^b is fitted to `looks` by least squares. If the
    curve does not fall, return 0."""
    best, gain = math.inf, 0.0
    mean_loss = sum(loss for _, loss in looks) / len(looks)
    last = looks[-1][0]
    for exponent in _EXPONENTS:
        # With tokens relative to those of the last evaluation, E and A follow from a straight-line fit in x.
        xs = [(at / last) ** -exponent for at, _ in looks]
        mean_x = sum(xs) / len(xs)
        spread = sum((x - mean_x) ** 2 for x in xs)
        together = sum((x - mean_x) * (loss - mean_loss) for x, (_, loss) in zip(xs, looks, strict=True))
        slope = together / spread if spread > 0 else 0.0
        missed = sum((loss - mean_loss - slope * (x - mean_x)) ** 2 for x, (_, loss) in zip(xs, looks, strict=True))
        if missed < best:
            best, gain = missed, max(0.0, slope) * (1 - (tokens / last) ** -exponent)
    return gain
