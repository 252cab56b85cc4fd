"""Comparison of the first groups of parameter tokens of the last model of a chain, which give models of all sizes from
one checkpoint, with the models that the chain had at those sizes (docs/concepts/growth.md).

    python -m studies.first_groups docs/measurements/first_groups [KEY=VALUE ...]

Trains the chain of `progressive_tiny` on an eighth of its tokens, with one seed: without changes, with nested dropout,
and with the old weights frozen. Finished stages are not trained again. Takes a few minutes on one core.
"""

from collections.abc import Iterator
from math import exp

import torch

from studies.tables import page, run_study, table
from studies.training import loss_of, planned, prepare, train_all
from tfscale.interop.finished import model_of, open_finished, with_groups
from tfscale.interop.perplexity import score_heldout
from tfscale.models.counts import flops, parameters
from tfscale.models.tokenformer import with_first_groups
from tfscale.plan.arms import Arm
from tfscale.stage.folder import Stage
from tfscale.training.calendar import groups_at

SHORT = ("schedule=progressive_tiny", "schedule.stages.stage1.tokens=500K", "schedule.growth_tokens=50K",
         "launcher.compile=off")  # fmt: skip
TRAININGS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "nested dropout 0.25": ("growth.nested_dropout=0.25",),
    "nested dropout 0.5": ("growth.nested_dropout=0.5",),
    "old weights frozen": ("growth.rates.frozen=1",),
}
"""Settings of each chain, by its name in the table. All other chains are compared with the first."""


def losses_of_groups(last: Stage, sizes: int) -> Iterator[float]:
    """Yield the validation loss of the first group of a model, of its first two groups, and so on."""
    for count in range(1, sizes + 1):
        [stage] = with_groups([open_finished(last.path)], count)
        yield score_heldout(stage, model_of(stage), stage.model.context).loss


def used(chain: Arm) -> float:
    """Return the FLOPs that the steps of the grown stages use, as a fraction of the counted FLOPs, which are those of
    steps of the whole model."""
    grown = [stage.spec for stage in chain.stages[1:]]
    steps = [(spec.model, groups_at(spec, step)) for spec in grown for step in range(spec.steps)]
    spent = sum(flops(with_first_groups(model, count) if count else model).training for model, count in steps)
    return spent / sum(flops(model).training for model, _ in steps)


def cells(losses: list[float], own: list[float]) -> list[str]:
    """Return the perplexity of each size, and in parentheses the loss minus the reference loss in `own`, in nats."""
    differences = [round(loss - reference, 3) + 0.0 for loss, reference in zip(losses, own, strict=True)]
    return [f"{exp(loss):.3f} ({difference:+.3f})" for loss, difference in zip(losses, differences, strict=True)]


def rows(chains: dict[str, Arm]) -> Iterator[list[str]]:
    """Yield two rows for each chain: its stages, and the first groups of its last stage."""
    own = [loss_of(stage) for stage in next(iter(chains.values())).stages]
    for name, chain in chains.items():
        losses = [loss_of(stage) for stage in chain.stages]
        of_groups = list(losses_of_groups(chain.stages[-1], len(own)))
        yield [name, "stages", *cells(losses, own), f"{used(chain):.0%}"]
        yield [name, "first groups of the last stage", *cells(of_groups, own), ""]


def study(overrides: list[str]) -> str:
    """Train all stages, and return the perplexities as a page."""
    torch.set_num_threads(1)
    plans = {name: prepare(planned([*SHORT, *settings, *overrides])) for name, settings in TRAININGS.items()}
    chains = {name: plan.chain for name, plan in plans.items()}
    train_all(chain.stages for chain in chains.values())
    sizes = [f"{parameters(stage.spec.model) / 1000:.0f}K" for stage in chains["as it is"].stages]
    note = (
        "Validation perplexity per token, and in parentheses the loss minus that of the first row, in nats per token. "
        "The last size is the whole model. FLOPs used: those of the grown stages, as a fraction of those that are "
        "counted, which are of steps of the whole model. One seed."
    )
    head = ["Training", "Models", *sizes, "FLOPs used"]
    return page("The first groups of the last model of a chain", table("llr", head, rows(chains)), note)


if __name__ == "__main__":
    run_study(study)
