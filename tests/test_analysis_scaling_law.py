"""Fits of L(C) = E + A C^-alpha."""

from pathlib import Path

import numpy as np
import pytest
from test_analysis_curves import write_stage

from tfscale.analysis import scaling_law
from tfscale.analysis.curves import read_arms
from tfscale.analysis.intervals import Array
from tfscale.analysis.scaling_law import Frontier, fit_law, frontier, scaling_laws
from tfscale.plan.arms import Arm


@pytest.fixture(autouse=True)
def few_refits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer refits per law, of which the tests make many."""
    monkeypatch.setattr(scaling_law, "REFITS", 200)


COMPUTE = np.geomspace(1e17, 1e20, 24)


def law(compute: Array) -> Array:
    return 1.7 + 2.0 * (compute / 1e18) ** -0.25


def points(losses: Array) -> Frontier:
    return Frontier(("k",), COMPUTE, losses, np.arange(len(losses)))


def test_an_exact_law_is_found() -> None:
    fit = fit_law("arm", points(law(COMPUTE)))
    assert fit is not None
    assert (fit.irreducible, fit.exponent) == (pytest.approx(1.7, abs=1e-3), pytest.approx(0.25, abs=1e-3))
    assert fit.loss(COMPUTE) == pytest.approx(law(COMPUTE), rel=1e-6)


def test_one_bad_point_hardly_moves_it() -> None:
    losses = law(COMPUTE)
    losses[12] *= 1.3
    fit = fit_law("arm", points(losses))
    assert fit is not None
    assert fit.loss(COMPUTE) == pytest.approx(law(COMPUTE), rel=5e-3)


def test_the_band_holds_new_points_at_about_the_stated_rate_and_the_intervals_the_truth() -> None:
    hits, found = [], []
    for number in range(25):
        draw = np.random.default_rng(number)
        fit = fit_law("arm", points(law(COMPUTE) * np.exp(draw.normal(0, 0.003, len(COMPUTE)))))
        assert fit is not None
        low, high = fit.band(COMPUTE)
        again = law(COMPUTE) * np.exp(draw.normal(0, 0.003, len(COMPUTE)))
        hits.append(((low <= again) & (again <= high)).mean())
        irreducible, exponent = fit.intervals
        found.append((1.7 in irreducible, 0.25 in exponent))
    assert 0.9 < np.mean(hits) < 0.99
    assert np.mean(found) > 0.8


def test_the_same_points_give_the_same_band() -> None:
    losses = law(COMPUTE) * np.exp(np.random.default_rng(0).normal(0, 0.003, len(COMPUTE)))
    first, second = (fit_law("arm", points(losses)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.refits, second.refits)


@pytest.mark.parametrize("chosen", [slice(0, 4), slice(0, 3)])
def test_few_points_or_a_short_range_are_not_fitted(chosen: slice) -> None:
    runs = np.arange(24)
    assert fit_law("arm", Frontier((), COMPUTE[chosen], law(COMPUTE)[chosen], runs[chosen])) is None
    close = np.linspace(1e18, 2e18, 20)
    assert fit_law("arm", Frontier((), close, law(close), runs[:20])) is None


def test_the_frontier_is_what_nothing_cheaper_was_below(tmp_path: Path) -> None:
    small = write_stage(tmp_path, "s", "S", [16, 10, 9], 800)
    large = write_stage(tmp_path, "l", "L", [16, 12, 9.5, 8], 1200)
    chain = write_stage(tmp_path, "c", "S", [16, 5, 4], 800)
    arms = read_arms([Arm("scratch", "scratch", "scratch", (small, large)), Arm("c", "c", "chain", (chain,))])
    found = frontier(arms[0], "tokens")
    assert found.compute.tolist() == [800, 1200], "evaluations during training do not count"
    assert np.exp(found.losses) == pytest.approx([9, 8])
    assert found.keys == ("s", "l")
    assert found.runs.tolist() == [0, 1]
    assert scaling_laws(arms, "tokens") == ()


def test_seeds_are_averaged_before_the_frontier_is_chosen(tmp_path: Path) -> None:
    ends = {"S": (800, (8.0, 10.0)), "L": (1200, (9.0, 8.8)), "X": (1600, (7.0, 7.2))}
    stages = [
        write_stage(tmp_path, f"{size}{seed}", size, [16, 12, perplexity], tokens, seed=seed)
        for size, (tokens, perplexities) in ends.items()
        for seed, perplexity in enumerate(perplexities)
    ]
    chain = Arm("c", "c", "chain", (write_stage(tmp_path, "c", "S", [16, 5, 4], 800),))
    arm, _ = read_arms([Arm("scratch", "scratch", "scratch", tuple(stages)), chain])
    found = frontier(arm, "tokens")
    # The lucky seed of S was at 8, below both of L; on average, L is lower.
    assert np.exp(found.losses) == pytest.approx([80**0.5, 79.2**0.5, 50.4**0.5])
    assert found.keys == ("S0", "S1", "L0", "L1", "X0", "X1")


def test_branches_of_one_run_vary_together_which_widens_the_intervals() -> None:
    widths, hits = {"together": [], "apart": []}, []  # type: ignore[var-annotated]
    for number in range(25):
        runs = np.repeat(np.arange(6), 4)
        off = np.random.default_rng(number).normal(0, 0.004, 6)[runs]
        losses = law(COMPUTE) * np.exp(off)
        for name, groups in (("together", runs), ("apart", np.arange(24))):
            fit = fit_law("arm", Frontier((), COMPUTE, losses, groups))
            assert fit is not None
            widths[name].append(fit.intervals[1].high - fit.intervals[1].low)
            if name == "together":
                hits.append(0.25 in fit.intervals[1])
    assert np.mean(widths["together"]) > 1.4 * np.mean(widths["apart"])
    assert np.mean(hits) > 0.8
