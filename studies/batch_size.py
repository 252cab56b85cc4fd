"""Comparison of the losses of the small chain and its scratch arms at three batch sizes.

    python -m studies.batch_size docs/measurements/batch_size [KEY=VALUE ...]

Trains the chain, and the last size of both scratch arms, of `progressive_tiny` with batches of 512, 1,024 and 2,048
tokens, at learning rates that grow at most with the square root of the batch size. The optimizer's share of the FLOPs
falls as the batch grows. Takes about fifteen minutes on two cores; finished stages are not trained again.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from studies.training import loss_of, planned, train_all
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
        stages = next(each.stages for each in self.plan.arms if each.name == arm)
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
    return Trial(batch, rate, planned([*sizes, *rates, *overrides]))


def optimizer_share(stage: Stage) -> float:
    """Return the optimizer's share of the FLOPs of a finished stage."""
    totals = read_result(stage.path).totals
    assert totals.optimizer_flops is not None
    return totals.optimizer_flops / (totals.flops + totals.optimizer_flops)


def report(trials: list[Trial]) -> str:
    """Return a table in Markdown with the lowest loss of each arm and batch size."""
    lines = [
        "| Arm | Batch, tokens | Learning rate | Loss at 254K | Optimizer's share of the FLOPs |",
        "|---|---:|---:|---:|---:|",
    ]
    for arm in ARMS:
        for batch in RATES:
            last = {each.rate: each.stages(arm)[-1] for each in trials if each.batch == batch}
            rate = min(last, key=lambda rate: loss_of(last[rate]))
            share = optimizer_share(last[rate])
            title = next(each.title for each in trials[0].plan.arms if each.name == arm)
            lines.append(f"| {title} | {batch:,} | {rate:g} | {loss_of(last[rate]):.4f} | {share:.1%} |")
    note = (
        "Validation loss in nats per token at equal tokens, at the best of the learning rates that were tried (one for "
        "512 tokens, two for the others). One seed; differences below about 0.02 are noise."
    )
    return "# Batch size\n\n" + "\n".join(lines) + f"\n\n{note}\n"


def main(folder: Path, overrides: list[str]) -> None:
    """Train all stages, write the table to `folder`, and print it."""
    trials = [trial(batch, rate, overrides) for batch, rates in RATES.items() for rate in rates]
    train_all([each.stages(arm) for each in trials for arm in ARMS])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(report(trials), encoding="utf-8")
    print(report(trials))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
