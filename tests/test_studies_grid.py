"""The studies of when to grow, with planted losses."""

import math
from pathlib import Path

import pytest

from studies.grid_laws import fit_study, write_laws
from studies.grid_runs import RUNS, StudyRun, read_study, write_runs
from studies.held_out import NOISE, ROUNDS, Prediction, plan_chains, predict, score
from studies.paper_chain import cost_at, report
from studies.when_to_grow import BATCH, GRIDS, trunks
from tfscale.advise.runs import growth_factor
from tfscale.models.counts import flops, parameters
from tfscale.stage.folder import Stage

SATURATED = Path(__file__).parents[1] / "docs" / "measurements" / "progressive_saturated" / "table.json"


def compute(lineage: list[Stage]) -> float:
    return float(sum(stage.spec.tokens * flops(stage.spec.model).training for stage in lineage))


def loss(lineage: list[Stage]) -> float:
    """Planted laws, by which growth is better than training from scratch in some of the held-out chains."""
    base, model = lineage[0].spec.model, lineage[-1].spec.model
    if base == model:
        return 1.4 + 0.9 * (compute(lineage) / 1e11) ** -0.3
    before, after = (sum(each.spec.tokens for each in lineage if each.spec.model == one) for one in (base, model))
    return 1.4 + 0.76 * (before / 1e5) ** -0.08 * (after / 1e5) ** -0.12 * growth_factor(base, model) ** -0.05


def run_of(lineage: list[Stage]) -> StudyRun:
    base, last = lineage[0].spec.model, lineage[-1].spec
    grown = base != last.model
    before = sum(each.spec.tokens for each in lineage if each.spec.model == base) if grown else 0
    return StudyRun(
        lineage[-1].key, last.data.fingerprint, last.seed, parameters(last.model), before,
        sum(each.spec.tokens for each in lineage) - before, growth_factor(base, last.model) if grown else 1.0,
        compute(lineage), loss(lineage) * (1 + 0.001 * math.sin(compute(lineage))),
    )  # fmt: skip


def lineages(stages: list[Stage]) -> dict[str, list[Stage]]:
    """Return the lineage of each branch, by its key."""
    by_key = {stage.key: stage for stage in stages}
    found = {}
    for stage in stages:
        lineage = [stage]
        while (parent := lineage[0].spec.parent) is not None:
            lineage.insert(0, by_key[parent])
        if stage.spec.lr_schedule.kind == "wsd":
            found[stage.key] = lineage
    return found


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Stage], Path]:
    """Return the stages of the grid, and a folder with planted losses of its branches."""
    folder = tmp_path_factory.mktemp("grid")
    stages = [stage for each in GRIDS for trunk in trunks(each, [f"runs={folder}"]) for stage in trunk]
    write_runs(folder / RUNS, [run_of(lineage) for lineage in lineages(stages).values()])
    return stages, folder


def test_the_grid_has_the_planned_cells_and_whole_steps(grid: tuple[list[Stage], Path]) -> None:
    stages, folder = grid
    assert all(stage.spec.tokens % BATCH == 0 for stage in stages)
    runs = read_study(folder / RUNS)
    main = [run for run in runs if run.corpus == runs[0].corpus]
    cells = [(run.base_tokens, run.tokens, run.factor) for run in main if run.base_tokens]
    assert len(set(cells)) == 4 * 4 * 3
    assert len(cells) == 4 * 4 * 3 + 2 * 4
    assert len([run for run in runs if run.corpus != runs[0].corpus and run.base_tokens]) == 4


def test_planted_laws_are_recovered_for_held_out_chains(grid: tuple[list[Stage], Path]) -> None:
    _, folder = grid
    chains, stages = plan_chains(ROUNDS[1], [f"runs={folder}"])
    laws, planted = fit_study(read_study(folder / RUNS)), lineages(stages)
    predictions = [predict(chain, laws) for chain in chains]
    losses = {key: loss(lineage) for key, lineage in planted.items()}
    assert len(predictions) == 10
    for chain, each in zip(chains, predictions, strict=True):
        assert each.loss == pytest.approx(losses[each.key], abs=0.005)
        assert each.flops == compute(planted[each.key])
        if chain.scratch is not None:
            assert compute(planted[chain.scratch.key]) == pytest.approx(each.flops, rel=0.02)
            assert each.difference == pytest.approx(losses[chain.scratch.key] - losses[each.key], abs=0.01)
    text = score(predictions, losses)
    assert "10 of 10 losses are inside" in text
    clear = [each for each in predictions if each.difference is not None and abs(each.difference) > NOISE]
    assert {each.difference > 0 for each in clear if each.difference} == {True, False}
    assert f"Of the {len(clear)} differences above the noise of {NOISE} nats, {len(clear)} have" in text


def test_wrong_predictions_are_counted() -> None:
    wrong = Prediction(70_000, 3.75, 10**6, 10**6, 1e12, "a", "b", 1.0, 2.0, 1.9, 2.1, 0.2, 0.1, 0.3)
    text = score([wrong], {"a": 2.2, "b": 2.1})
    assert "0 of 1 losses are inside their 90% interval; the median half-width is 0.100 nats" in text
    assert "Of the 1 differences above the noise of 0.03 nats, 0 have" in text
    assert "2.200 outside" in text
    assert "grow, measured: from scratch" in text


def test_the_laws_and_the_predictions_for_the_papers_chain_are_written(grid: tuple[list[Stage], Path]) -> None:
    _, folder = grid
    write_laws(folder)
    assert "growth from 25K" in (folder / "laws.md").read_text()
    assert (folder / "residuals.svg").stat().st_size
    text = report(folder, SATURATED)
    rows = [line for line in text.splitlines() if line.startswith("| 30.0B |") and "e" in line]
    assert [row.split(" | ")[2] for row in rows] == ["14.02", "11.77"]


def test_the_cost_at_a_loss_is_read_from_two_points() -> None:
    low, high = (1e18, 1.0 + 1e18**-0.1), (1e20, 1.0 + 1e20**-0.1)
    assert cost_at(1.0 + 1e19**-0.1, low, high, 0.1) == pytest.approx(1e19)
    assert cost_at(0.9, low, high, 0.1) == math.inf
