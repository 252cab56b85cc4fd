"""Laws, multipliers and mixing times with planted truth."""

import numpy as np
import pytest

from tfscale.advise.law import FAR, LEVEL, Law, Measured, fit, interval
from tfscale.advise.observed import mixing_time, multipliers
from tfscale.analysis.intervals import Array

NOISE = 0.003
COMPUTE = np.geomspace(1e11, 1e13, 6)[:, None]
GRID = np.array([
    (before, after, factor)
    for before in np.geomspace(1.2e5, 5.9e7, 4)
    for after in np.geomspace(4e5, 2.5e7, 4)
    for factor in (2.0, 3.75, 8.0)
])  # fmt: skip


def scratch(values: Array) -> Array:
    return 1.3 + 0.9 * (values[:, 0] / 1e12) ** -0.2


def growth(values: Array) -> Array:
    before, after, factor = np.log(values / [1e7, 2e6, 1]).T
    return np.asarray(1.3 + np.exp(-0.6 - 0.12 * before - 0.15 * after + 0.03 * before * after - 0.1 * factor))


def fitted(values: Array, losses: Array, has_product_term: bool = False, refits: int = 39) -> Law:
    names = tuple(map(str, range(values.shape[1])))
    return fit(Measured(names, values, losses, (0,) * len(values), has_product_term), refits)


def test_exact_laws_are_found() -> None:
    law = fitted(COMPUTE, scratch(COMPUTE))
    assert law.irreducible == pytest.approx(1.3, abs=1e-4)
    assert law.parameters[2] == pytest.approx(-0.2, abs=1e-4)
    law = fitted(GRID, growth(GRID), has_product_term=True)
    assert law.loss(GRID / 2) == pytest.approx(growth(GRID / 2), rel=1e-5)


def test_the_irreducible_loss_depends_on_a_variable_that_several_runs_vary() -> None:
    losses = growth(GRID) - 1.3 + 1.4 * GRID[:, 2] ** -0.06
    law = fit(Measured(("0", "1", "2"), GRID, losses, (0,) * len(GRID), True, floor_of=2), 1)
    assert law.parameters[1] == pytest.approx(-0.06, abs=1e-4)
    larger = GRID * [2, 2, 1.5]
    assert law.loss(larger) == pytest.approx(growth(larger) - 1.3 + 1.4 * larger[:, 2] ** -0.06, rel=1e-4)
    one = GRID[GRID[:, 2] == 8]
    assert Measured(("0", "1", "2"), one, growth(one), (0,) * len(one), True, floor_of=2).floor_parameters == 1


@pytest.mark.parametrize(
    ("truth", "measured", "places"),
    [
        (scratch, COMPUTE, np.array([[3e11], [3e12], [3e13], [9e13]])),
        (growth, GRID, np.array([(1e6, 1e6, 3), (5.9e7, 2.5e7, 5), (3e6, 1e8, 8), (2e8, 2e7, 2)])),
    ],
)
def test_intervals_contain_the_planted_law_and_new_runs_at_about_the_stated_rate(
    truth: object, measured: Array, places: Array
) -> None:
    assert callable(truth)
    laws, runs, widths = [], [], []
    for number in range(20):
        draw = np.random.default_rng(number)
        losses = truth(measured) * np.exp(draw.normal(0, NOISE, len(measured)))
        law = fitted(measured, losses, has_product_term=truth is growth)
        for place, loss in zip(places, truth(places), strict=True):
            draws = law.draws(place)
            around = interval(draws)
            laws.append(loss in around)
            runs.append(loss * np.exp(draw.normal(0, NOISE)) in interval(law.run_draws(draws)))
            widths.append((around.high - around.low) / 2)
    assert LEVEL - 0.12 < np.mean(laws) <= 1
    assert LEVEL - 0.12 < np.mean(runs) <= 1
    assert np.median(widths) < 0.05


def test_the_variance_between_seeds_widens_the_interval() -> None:
    draw = np.random.default_rng(1)
    values = np.concatenate([COMPUTE, COMPUTE[:2], COMPUTE[:2]])
    seeds = (0,) * 6 + (1, 1, 2, 2)
    noise = draw.normal(0, 0.001, len(values))
    losses = scratch(values) * np.exp(noise + np.array([0, 0.02, -0.02])[list(seeds)])
    one = fitted(COMPUTE, losses[:6])
    three = fit(Measured(("0",), values, losses, seeds), 39)
    widths = [interval(law.draws(np.array([1e12]))) for law in (one, three)]
    assert widths[1].high - widths[1].low > 3 * (widths[0].high - widths[0].low)
    assert one.seed_noise == 0
    assert 0 < three.seed_noise < 0.02  # the residuals contain the rest of the variance
    certain = np.full(39, 2.0)
    runs = [interval(law.run_draws(certain)) for law in (one, three)]
    assert runs[1].high - runs[1].low > 3 * (runs[0].high - runs[0].low)


def test_far_outside_the_runs_the_interval_covers_other_forms() -> None:
    law = fitted(COMPUTE, scratch(COMPUTE))
    near, extrapolates = (law.draws(np.array([1e13 * factor])) for factor in (0.99 * FAR, 1.01 * FAR))
    around = interval(extrapolates)
    assert interval(near).high - interval(near).low < 1e-3
    assert around.high == pytest.approx(scratch(np.array([[1e13]]))[0], abs=1e-3)
    assert around.low < scratch(np.array([[1e14]]))[0] - 0.01


def test_more_tokens_than_measured_do_not_raise_the_loss() -> None:
    few = GRID[(GRID[:, 0] < 1e7) & (GRID[:, 1] < 1e7)]
    before, after, _ = np.log(few / [1e6, 1e6, 1]).T
    rising = fitted(few, 1.3 + np.exp(-0.6 - 0.1 * before - 0.1 * after + 0.1 * before * after), has_product_term=True)
    edge = few.max(axis=0)
    assert (rising.draws(edge * [5, 5, 1]) <= rising.draws(edge)).all()
    assert rising.loss(edge[None] * [5, 5, 1]) <= rising.loss(edge[None])


def test_the_compute_of_a_loss_is_the_inverse_of_the_law_and_infinite_below_its_floor() -> None:
    law = fitted(COMPUTE, scratch(COMPUTE))
    assert law.first_at(np.full(39, scratch(np.array([[2e12]]))[0])) == pytest.approx(2e12, rel=1e-3)
    assert np.isinf(np.median(law.first_at(np.full(39, 1.2))))


def test_too_few_budgets_do_not_suffice() -> None:
    assert not Measured(("0",), COMPUTE[:4], scratch(COMPUTE[:4]), (0,) * 4).suffices
    two_levels = GRID[np.isin(GRID[:, 0], GRID[[0, -1], 0])]
    assert not Measured(("a", "b", "c"), two_levels, growth(two_levels), (0,) * len(two_levels), True).suffices
    assert Measured(("a", "b", "c"), GRID, growth(GRID), (0,) * len(GRID), True).suffices


def test_the_compute_multiplier_is_that_of_power_laws_and_is_not_extrapolated() -> None:
    compute = np.linspace(0, 4, 9)
    slow, fast = (np.stack([compute, 1 - 0.1 * (compute + shift)], axis=1) for shift in (0, np.log(2)))
    found = multipliers(slow, fast)
    assert [point.multiplier for point in found] == pytest.approx([2.0] * len(found))
    assert np.log(found[0].loss) == pytest.approx(fast[0, 1])
    assert np.log(found[-1].loss) == pytest.approx(slow[-1, 1])


def test_the_mixing_time_is_where_the_curve_from_scratch_is_met() -> None:
    tokens = np.linspace(0, 1000, 21)
    from_scratch = np.stack([tokens + 1, np.full(21, 2.0)], axis=1)
    grown = np.stack([tokens[:10], 2.5 - tokens[:10] / 500], axis=1)
    assert mixing_time(grown, from_scratch, 500, 0.0).tokens == pytest.approx(250)
    assert mixing_time(grown, from_scratch, 500, 0.05).tokens == pytest.approx(200)
    not_met = mixing_time(grown[:4], from_scratch, 500, 0.0)
    assert (not_met.tokens, not_met.measured) == (None, 150)
    assert mixing_time(grown, from_scratch, 5000, 0.0).measured == 0
