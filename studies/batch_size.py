"""Comparison of the losses of the small chain and its scratch arms at three batch sizes.

    python -m studies.batch_size docs/measurements/batch_size [KEY=VALUE ...]

Trains the chain, and the last size of both scratch arms, of `progressive_tiny` with batches of 512, 1,024 and 2,048
tokens, at learning rates that grow at most with the square root of the batch size. The optimizer's share of the FLOPs
falls as the batch grows. Takes about fifteen minutes on two cores; finished stages are not trained again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from studies.tables import page, run_study, table
from studies.training import arm_by_seed, loss_of, planned, prepare, train_all
from tfscale.plan.plan import Plan
from tfscale.stage.folder import Stage
from tfscale.stage.result import read_result

RATES = {512: (0.01,), 1024: (0.01, 0.014), 2048: (0.014, 0.02)}
"""Learning rates of models from scratch, by batch size in tokens. Grown stages have half the learning rate."""
ARMS = ("progressive", "tokenformer_scratch", "transformer_scratch")


@dataclass(frozen=True)
class Trial:
    """Plan with one batch size and one learning rate."""

    batch: int
    rate: float
    plan: Plan

    def stages(self, arm: str) -> tuple[Stage, ...]:
        """Return the stages to train: the whole chain, or the last size of a scratch arm. The last stage is
        compared."""
        stages = arm_by_seed(self.plan, arm)[0].stages
        return stages if arm == "progressive" else stages[-1:]


def trial(batch: int, rate: float, overrides: list[str]) -> Trial:
    """Return the plan of a batch size and a learning rate as a `Trial`."""
    rates = [
        f"optim.lr={rate}",
        f"schedule.stages.stage4.scratch_lr={rate}",
        f"schedule.stages.stage4.transformer.lr={rate}",
    ]
    rates += [f"schedule.stages.stage{number}.lr={rate / 2}" for number in (2, 3, 4)]
    sizes = ["schedule=progressive_tiny", "baseline=scratch", f"optim.batch_tokens={batch}"]
    return Trial(batch, rate, prepare(planned([*sizes, *rates, *overrides])))


def optimizer_share(stage: Stage) -> float:
    """Return the optimizer's share of the FLOPs of a finished stage."""
    totals = read_result(stage.path).totals
    assert totals.optimizer_flops is not None
    return totals.optimizer_flops / (totals.flops + totals.optimizer_flops)


def rows(trials: list[Trial]) -> Iterator[list[str]]:
    """Yield a row for each arm and batch size, with the learning rate that has the lowest loss."""
    for arm in ARMS:
        for batch in RATES:
            last = {each.rate: each.stages(arm)[-1] for each in trials if each.batch == batch}
            rate = min(last, key=lambda rate: loss_of(last[rate]))
            title = arm_by_seed(trials[0].plan, arm)[0].title
            share = optimizer_share(last[rate])
            yield [title, f"{batch:,}", f"{rate:g}", f"{loss_of(last[rate]):.4f}", f"{share:.1%}"]


def study(overrides: list[str]) -> str:
    """Train all stages, and return the lowest loss of each arm and batch size as a page."""
    trials = [trial(batch, rate, overrides) for batch, rates in RATES.items() for rate in rates]
    train_all(each.stages(arm) for each in trials for arm in ARMS)
    head = ["Arm", "Batch, tokens", "Learning rate", "Loss at 254K", "Optimizer's share of the FLOPs"]
    note = (
        "Validation loss in nats per token at equal tokens, at the best of the learning rates that were tried (one for "
        "512 tokens, two for the others). One seed; differences below about 0.02 are noise."
    )
    return page("Batch size", table("lr", head, rows(trials)), note)


if __name__ == "__main__":
    run_study(study)
