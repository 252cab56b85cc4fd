"""Ablation of the matrices that Muon orthogonalises, and of the growth (docs/optimizers.md).

    python -m studies.orthogonalisation docs/measurements/orthogonalisation [KEY=VALUE ...]

Bases of `progressive_tiny` (25K parameters, 1M tokens) grow to 70K and are trained on 200K tokens, in ways that
differ in the growth and in the unit that is orthogonalised. The first update after the growth is measured as in
`studies.parametrization`. Finished stages are not trained again. Takes about three minutes on one core.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import torch

from studies.parametrization import MUON, WIDTH, Arm, first_update
from studies.tables import mean_and_range, page, run_study, table
from studies.training import loss_of, planned, prepare, train
from tfscale.models.matrices import Matrix
from tfscale.optimizers.muon import Muon
from tfscale.stage.folder import is_done

SEEDS = (0, 1)
SIZES = (16, 60)
"""Parameter tokens per attention projection before and after the growth. Feed-forward layers have four times as
many."""
SHORT = ("schedule=progressive_tiny", "schedule.stages.stage1.tokens=1M", "schedule.stages.stage2.lr=0.005",
         "schedule.growth_tokens=200K")  # fmt: skip


class OldAndNewApart(Muon):
    """Muon that orthogonalises old rows and new rows separately. In grouped growth, they form separate groups."""

    def parts(self, matrix: Matrix) -> tuple[int, ...]:
        rows = matrix.rows_of_a_map
        sizes = SIZES if rows in SIZES else [4 * size for size in SIZES]
        return tuple(after - before for before, after in pairwise([0, *sizes]) if after <= rows)


@dataclass(frozen=True)
class Choice:
    """Growth and unit of orthogonalisation of one row of the table."""

    growth: str
    unit: str
    muon: type[Muon]
    overrides: tuple[str, ...]


WHOLE, APART = ("whole matrix", Muon), ("old and new rows apart", OldAndNewApart)
EXACT, GROUPED = ("growth=exact",), ("growth=grouped",)
CHOICES = (
    Choice("exact", *WHOLE, EXACT),
    Choice("exact", *APART, EXACT),
    Choice("exact, matched values", *WHOLE, (*EXACT, "growth.new_values=matched")),
    Choice("exact, new rows at 3 times the rate", *WHOLE, (*EXACT, "growth.rates.new=3")),
    Choice("grouped", *WHOLE, GROUPED),
    Choice("grouped", *APART, GROUPED),
)


def loss(choice: Choice, seed: int, overrides: list[str]) -> float:
    """Train the unfinished stages of a choice, and return its final loss."""
    plan = prepare(planned([*SHORT, f"seed={seed}", f"data.shuffle_seed={seed}", *choice.overrides, *overrides]))
    base, stage = plan.chain.stages[:2]
    if choice.muon is not Muon:
        spec = replace(stage.spec, optimizer=choice.muon(**asdict(stage.spec.optimizer)))
        stage = replace(stage, spec=spec, path=stage.path.with_name(f"{choice.muon.__name__}-{stage.key}"))
    for each in (base, stage):
        if not is_done(each):
            train(each)
    return loss_of(stage)


def rows(overrides: list[str]) -> Iterator[list[str]]:
    """Yield a row for each choice. Differences are taken seed by seed from the first row with the same growth."""
    first: dict[str, list[float]] = {}
    for choice in CHOICES:
        found = [loss(choice, seed, overrides) for seed in SEEDS]
        before = first.setdefault(choice.growth.partition(",")[0], found)
        differences = [after - reference for after, reference in zip(found, before, strict=True)]
        arm = Arm(choice.unit, choice.muon(**asdict(MUON)), WIDTH)
        updates = [first_update(arm, choice.overrides, seed).new_rows for seed in SEEDS]
        spreads = mean_and_range(found, ".4f"), mean_and_range(differences, "+.4f"), mean_and_range(updates, ".2f")
        yield [choice.growth, choice.unit, *spreads]


def study(overrides: list[str]) -> str:
    """Train all stages, and return the losses and the first updates as a page."""
    torch.set_num_threads(1)
    head = ["growth", "orthogonalised", "loss", "difference", "first update of new rows"]
    return page(
        "What Muon orthogonalises",
        f"Validation loss in nats at 70K, {len(SEEDS)} seeds: mean [smallest, largest]; and its difference from\n"
        "the first row of the same growth, seed by seed",
        table("l", head, rows(overrides)),
    )


if __name__ == "__main__":
    run_study(study)
