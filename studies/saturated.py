"""Choice of the learning rates of `progressive_saturated` by the loss at its last size.

    python -m studies.saturated docs/measurements/progressive_saturated [KEY=VALUE ...]

Trains the chain, and the last size of both scratch arms, at half, once and twice the learning rates of the schedule.
Losses are measured on held-out text after the validation tokens, which no comparison uses. Takes an hour and a half on
two cores; finished stages are not trained again. The stages at the schedule's own rates are those that `tfscale
compare` reports.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from studies.tables import page, run_study, table
from studies.training import arm_by_seed, planned, prepare, train_all
from tfscale.data.prepared import open_data
from tfscale.interop.finished import model_of, open_finished
from tfscale.interop.perplexity import total_loss
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage, is_done

FACTORS = (0.5, 1.0, 2.0)
ARMS = {
    "progressive": "chain",
    "tokenformer_scratch": "TokenFormer from scratch",
    "transformer_scratch": "Transformer from scratch",
}


@dataclass(frozen=True)
class Trial:
    """Plan with one learning rate for the matrices of all trunks."""

    rate: float
    plan: Plan

    def stages(self, name: str) -> tuple[Stage, ...]:
        """Return the stages of the trunk and of the branches of an arm in the order of training, or, for a scratch arm,
        only those of the last size."""
        arm = arm_by_seed(self.plan, name)[0]
        both = [stage for pair in zip(arm.trunk or (), arm.stages, strict=True) for stage in pair]
        return tuple(both if name == "progressive" else both[-2:])


def trials(overrides: list[str]) -> list[Trial]:
    """Return a `Trial` for each factor on the learning rate of the schedule."""
    common = ["schedule=progressive_saturated", "baseline=scratch", *overrides]
    base = planned(common).experiment
    rates = [factor * base.optim.lr for factor in FACTORS]
    return [Trial(rate, prepare(planned([*common, *_rates(rate, list(base.schedule.stages))]))) for rate in rates]


def _rates(rate: float, stages: list[str]) -> list[str]:
    first, *later = (f"schedule.stages.{name}" for name in stages)
    scratch = [f"{stage}.scratch_lr={rate:g}" for stage in later]
    return [f"optim.lr={rate:g}", *scratch, *(f"{stage}.transformer.lr={rate:g}" for stage in (first, *later))]


def unreported_loss(stage: Stage) -> float:
    """Return the loss of a finished stage on the held-out tokens after the validation tokens, in nats per token."""
    finished = open_finished(stage.path)
    data, spec = open_data(finished.data, finished.spec.data.fingerprint), finished.spec
    first = spec.data.heldout_start + spec.data.heldout_tokens
    tokens = np.asarray(data.heldout[first:])
    return total_loss(model_of(finished), tokens, spec.model.context) / (len(tokens) - 1)


def rows(found: list[Trial]) -> Iterator[list[str]]:
    """Yield a row with the losses of each arm by learning rate."""
    for name, title in ARMS.items():
        last = {trial.rate: trial.stages(name)[-1] for trial in found}
        losses = {rate: unreported_loss(stage) for rate, stage in last.items() if is_done(stage)}
        cells = [f"{losses[rate]:.4f}" if rate in losses else "not trained" for rate in last]
        yield [title, *cells, f"{min(losses, key=losses.__getitem__):g}"]


def study(overrides: list[str]) -> str:
    """Train all trials, and return the losses by arm and learning rate as a page."""
    found = trials(overrides)
    train_all(trial.stages(name) for trial in found for name in ARMS)
    head = ["Arm", *(f"{trial.rate:g}" for trial in found), "Best"]
    note = (
        "Loss at the last size in nats per token, on held-out text that no comparison reads, by the learning rate of "
        "matrices. One seed; differences below about 0.02 are noise."
    )
    return page("Learning rates of progressive_saturated", table("lr", head, rows(found)), note)


if __name__ == "__main__":
    run_study(study, "rates.md")
