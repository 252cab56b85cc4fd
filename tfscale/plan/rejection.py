"""Rejected growths (`schedule.reject_growth`).

A growth is tested after `after_tokens` tokens of its stage. The growth is rejected if the validation loss then exceeds
the parent's last validation loss by more than a bound. In this case, the chain returns to the parent, trains the parent
further for the planned tokens of the stage, and grows the parent again. The second growth is not tested. The rejected
stage is recorded as the parent of the stage that trains further, so that all later costs include the rejected growth.
"""

from collections.abc import Iterator
from dataclasses import replace

from tfscale.growth.operator import CONTINUED
from tfscale.plan.arms import Arm
from tfscale.plan.branches import settled
from tfscale.plan.specs import Specs
from tfscale.stage.folder import Stage
from tfscale.stage.spec import StageSpec, TrialSpec, steps_of
from tfscale.text import count


def on_trial(spec: StageSpec, specs: Specs) -> StageSpec:
    """Return the spec of a grown stage with a test of the growth (`StageSpec.trial`). Without `schedule.reject_growth`,
    return the spec unchanged."""
    part = specs.experiment.schedule.reject_growth
    if part is None:
        return spec
    tokens = steps_of(part.after_tokens, spec) * spec.batch_tokens
    return replace(spec, trial=TrialSpec(tokens, part.bound, spec.tokens))


def kept(stage: Stage) -> Stage:
    """Return a copy of a rejected stage with the number of tokens that the stage would have if its growth had been
    kept. Any other stage is returned unchanged."""
    if stage.spec.trial is None or not stage.spec.rejected:
        return stage
    return replace(stage, spec=replace(stage.spec, tokens=stage.spec.trial.most_tokens))


def trained_on(parent: Stage, rejected: Stage, tokens: int, rate: float | None, specs: Specs) -> Stage:
    """Return the stage that trains `parent` for `tokens` further tokens after a rejected growth. The stage starts with
    the optimizer state of the parent, at the position in the data at which the parent stopped. Its peak learning rate
    is `rate` or, if `rate` is None, optim.lr."""
    growth = replace(CONTINUED, lr=specs.experiment.growth.lr)
    spec = replace(specs.scratch(parent.spec.model, tokens, rate), rates=settled(parent.spec.rates))
    spec = specs.child_of(parent, spec, growth)
    spec = replace(spec, parent=rejected.key, parent_dir=f"../{rejected.path.name}", returns=True)
    return specs.stage(parent.size, spec)


def rejections(arm: Arm) -> Iterator[str]:
    """Yield a sentence for each rejected growth of an arm."""
    for stage, back in zip(arm.detours[::2], arm.detours[1::2], strict=True):
        assert stage.spec.trial is not None, "a detour begins with a rejected growth"
        seed = f" of seed {stage.spec.seed}" if len(arm.seeds) > 1 else ""
        yield (
            f"the growth to {stage.size}{seed} was rejected, because after {count(stage.spec.tokens)} tokens its loss "
            f"was more than {stage.spec.trial.bound:g} nats above its parent's; {back.size} is trained for "
            f"{count(back.spec.tokens)} further tokens and grows again, and all costs include the rejected growth"
        )
