"""Trunks and branches (`schedule.branches`).

A trunk trains with one learning rate through all of its stages. A branch continues a stage of the trunk while the
learning rate falls linearly to 0, and ends with the model that is compared. The next stage of the trunk continues from
the stage of the trunk, not from the branch, so the cost of a later model includes the trunk but not the branches of
earlier models.
"""

from collections.abc import Sequence
from dataclasses import replace

from tfscale.growth.operator import CONTINUED
from tfscale.plan.arms import Arm
from tfscale.plan.specs import Specs
from tfscale.stage.folder import Stage
from tfscale.stage.spec import LearningRateSchedule, RateSpec, StageSpec

TO_ZERO = LearningRateSchedule("wsd", warmup_tokens=0, warmup_from=0.0, floor=0.0, decay=1.0)
"""Schedule whose learning rate falls linearly from the peak to 0 over the whole stage."""


def branched(arm: Arm, specs: Specs) -> Arm:
    """Return a copy of an arm in which the stages have become the trunk, and each model is the end of a branch of one
    of these stages. Without `schedule.branches`, return the arm unchanged."""
    if specs.experiment.schedule.branches is None:
        return arm
    return replace(arm, stages=tuple(branch(stage, specs) for stage in arm.stages), trunk=arm.stages)


def branch(trunk: Stage, specs: Specs, before: int = 0) -> Stage:
    """Return a branch that continues `trunk`, a stage of a trunk, while the learning rate falls to 0. The number of
    tokens of the branch is the fraction `schedule.branches.fraction` of the tokens that the trunk has used at this
    size, rounded to whole steps. The trunk has used the tokens of the stage `trunk` and `before` tokens in earlier
    stages."""
    part = specs.experiment.schedule.branches
    assert part is not None, "a branch requires schedule.branches"
    batch = trunk.spec.batch_tokens
    tokens = _branch_steps((before + trunk.spec.tokens) // batch, part.fraction) * batch
    return specs.stage(trunk.size, replace(continued(trunk, tokens, specs), lr_schedule=TO_ZERO))


def trunk_tokens(tokens: int, specs: Specs) -> int:
    """Return the number of tokens of a trunk, a multiple of the batch size, such that the trunk and its branch together
    have as nearly as possible `tokens` tokens. Without `schedule.branches`, return `tokens` unchanged."""
    part, batch = specs.experiment.schedule.branches, specs.experiment.optim.batch_tokens
    if part is None:
        return tokens
    near = round(tokens / batch / (1 + part.fraction))
    missed = {
        abs((steps + _branch_steps(steps, part.fraction)) * batch - tokens): steps
        for steps in range(max(1, near - 2), near + 3)  # of two equally near numbers, the larger one
    }
    return missed[min(missed)] * batch


def _branch_steps(trunk_steps: int, fraction: float) -> int:
    return max(1, round(fraction * trunk_steps))


def trunk_through(first: Stage, ends: Sequence[int], specs: Specs) -> tuple[Stage, ...]:
    """Return a trunk that trains one model without growth. `ends` contains the numbers of tokens, counted from the
    start of the trunk, after which the stages end, in increasing order. The first stage is `first`, which must end
    after `ends[0]` tokens."""
    stages, reached = [first], first.spec.tokens
    for end in ends[1:]:
        tokens = max(first.spec.batch_tokens, end - reached)
        stages.append(specs.stage(first.size, continued(stages[-1], tokens, specs)))
        reached += tokens
    return tuple(stages)


def continued(parent: Stage, tokens: int, specs: Specs) -> StageSpec:
    """Return the spec of a stage that continues the training of `parent` with an unchanged learning rate."""
    schedule = replace(parent.spec.lr_schedule, warmup_tokens=0)
    spec = replace(parent.spec, tokens=tokens, lr_schedule=schedule, rates=settled(parent.spec.rates))
    spec = replace(spec, ending=None, trial=None, returns=False)
    by_a_rule = parent.spec.may_end_early or parent.spec.parent_ending
    return replace(specs.child_of(parent, spec, CONTINUED), parent_ending=by_a_rule)


def settled(rates: RateSpec | None) -> RateSpec | None:
    """Return the factors of the learning rate for old and new rows at the end of a stage with `rates`, when all ramps
    are over. Return None if `rates` is None or both factors are 1."""
    if rates is None:
        return None
    old = 1.0 if rates.old_ramp_tokens else rates.old
    new = 1.0 if rates.new_ramp_tokens else rates.new
    return None if (old, new) == (1.0, 1.0) else RateSpec(rates.rows, old, 0, 0, new, False, False)
