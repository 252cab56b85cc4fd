"""Comparison of the first groups of parameter tokens of the last model of a chain, which give models of all sizes from
one checkpoint, with the models that the chain had at those sizes (docs/concepts/growth.md).

    python -m studies.first_groups docs/measurements/first_groups [KEY=VALUE ...]

Trains the chain of `progressive_tiny` on an eighth of its tokens, with one seed: without changes, with nested dropout,
and with the old weights frozen. Finished stages are not trained again. Takes a few minutes on one core.
"""

import sys
from collections.abc import Iterator
from math import exp
from pathlib import Path

import torch

from studies.training import loss_of, planned, train
from tfscale.interop.finished import model_of, open_finished, with_groups
from tfscale.interop.perplexity import score_heldout
from tfscale.models.counts import flops, parameters
from tfscale.models.tokenformer import with_first_groups
from tfscale.plan.arms import Arm
from tfscale.stage.folder import Stage, is_done
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


def trained(overrides: tuple[str, ...]) -> Arm:
    """Train the unfinished stages of the chain of a configuration, and return the chain."""
    chain = planned([*SHORT, *overrides]).chain
    for stage in chain.stages:
        if not is_done(stage):
            train(stage)
    return chain


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


def row(name: str, losses: list[float], own: list[float], share: str) -> str:
    """Return a table row with the perplexity of each size, and in parentheses the loss minus the reference loss in
    `own`, in nats."""
    differences = [round(loss - reference, 3) + 0.0 for loss, reference in zip(losses, own, strict=True)]
    cells = [f"{exp(loss):.3f} ({difference:+.3f})" for loss, difference in zip(losses, differences, strict=True)]
    return f"| {name} | {' | '.join(cells)} | {share} |"


def report(overrides: tuple[str, ...]) -> str:
    """Return the table in Markdown."""
    chains = {name: trained((*settings, *overrides)) for name, settings in TRAININGS.items()}
    first = next(iter(chains.values()))
    own = [loss_of(stage) for stage in first.stages]
    sizes = [f"{parameters(stage.spec.model) / 1000:.0f}K" for stage in first.stages]
    lines = [
        "# The first groups of the last model of a chain",
        "",
        f"| Training | Models | {' | '.join(sizes)} | FLOPs used |",
        f"|---|---|{'---:|' * (len(sizes) + 1)}",
    ]
    for name, chain in chains.items():
        losses = list(losses_of_groups(chain.stages[-1], len(sizes)))
        lines.append(row(f"{name} | stages", [loss_of(stage) for stage in chain.stages], own, f"{used(chain):.0%}"))
        lines.append(row(f"{name} | first groups of the last stage", losses, own, ""))
    lines += [
        "",
        "Validation perplexity per token, and in parentheses the loss minus that of the first row, in nats per token. "
        "The last size is the whole model. FLOPs used: those of the grown stages, as a fraction of those that are "
        "counted, which are of steps of the whole model. One seed.",
    ]
    return "\n".join(lines) + "\n"


def main(folder: Path, overrides: list[str]) -> None:
    """Train all stages, write the table to `folder`, and print it."""
    torch.set_num_threads(1)
    text = report(tuple(overrides))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
