"""Fits of L(C) = E + A C^-alpha."""

from pathlib import Path

import numpy as np
import pytest
from test_analysis_curves import write_stage

from tfscale.analysis.curves import read_arms
from tfscale.analysis.intervals import Array
from tfscale.analysis.scaling_law import Frontier, fit_law, frontier, scaling_laws
from tfscale.plan.arms import Arm

COMPUTE = np.geomspace(1e17, 1e20, 24)


def law(compute: Array) -> Array:
    return 1.7 + 2.0 * (compute / 1e18) ** -0.25


def points(losses: Array) -> Frontier:
    return Frontier(("k",), COMPUTE, losses)


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


@pytest.mark.parametrize("chosen", [slice(0, 5), slice(0, 3)])
def test_few_points_or_a_short_range_are_not_fitted(chosen: slice) -> None:
    assert fit_law("arm", Frontier((), COMPUTE[chosen], law(COMPUTE)[chosen])) is None
    close = np.linspace(1e18, 2e18, 20)
    assert fit_law("arm", Frontier((), close, law(close))) is None


def test_the_frontier_is_what_nothing_cheaper_was_below(tmp_path: Path) -> None:
    small = write_stage(tmp_path, "s", "S", [16, 10, 9], 800)
    large = write_stage(tmp_path, "l", "L", [16, 12, 9.5, 8], 1200)
    chain = write_stage(tmp_path, "c", "S", [16, 5, 4], 800)
    arms = read_arms([Arm("scratch", "scratch", "scratch", (small, large)), Arm("c", "c", "chain", (chain,))])
    found = frontier(arms[0], "tokens")
    assert found.compute.tolist() == [400, 800, 1200]
    assert np.exp(found.losses) == pytest.approx([10, 9, 8])
    assert found.keys == ("s", "l")
    assert scaling_laws(arms, "tokens") == ()
