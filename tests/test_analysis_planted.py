"""Planted curves with a known saving: how often the intervals hold it, and what is called a saving."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tfscale.analysis import bootstrap
from tfscale.analysis.bootstrap import ReplicateCurves, draw_together, seed_weights, seeded
from tfscale.analysis.equal_cost import EqualPerplexity, at_equal_compute, at_equal_perplexity
from tfscale.analysis.intervals import LEVEL, Array, interval_of
from tfscale.analysis.words import cost_clause
from tfscale.stage.heldout import BlockLosses

SLOPE, BUDGET = 0.1, 1e12
REPETITIONS = 300
TOLERANCE = 3.3 * math.sqrt(LEVEL * (1 - LEVEL) / REPETITIONS)
"""Deviation of a rate over REPETITIONS from the stated one that is exceeded once in a thousand times by chance."""


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use fewer draws per interval, because the tests compute thousands of intervals."""
    monkeypatch.setattr(bootstrap, "DRAWS", 1000)


def loss(compute: Array | float, head_start: float = 1.0) -> Array:
    """A power law of perplexity. A head start of 2 is at every loss with half the compute: a saving of 1/2."""
    return np.asarray(5.0 - SLOPE * np.log(np.asarray(compute) * head_start))


def planted(
    name: str,
    draw: np.random.Generator,
    seeds: int,
    noise: float,
    head_start: float = 1.0,
    budget: float = BUDGET,
    blocks: float | None = None,
) -> ReplicateCurves:
    """Runs whose seeds move their whole curve by `noise`, and whose validation blocks by `blocks` nats."""
    compute = np.geomspace(budget / 20, budget, 11)
    shifts = draw.normal(0, noise, (seeds, 1)) if noise else np.zeros((seeds, 1))
    losses = loss(compute, head_start) + shifts
    read = None
    if blocks is not None:
        off = draw.normal(0, blocks, 64)  # the text held out suits this model so much, block by block
        tokens = np.full(64, 1024.0)
        read = tuple(BlockLosses(tokens, tokens * (each + off)) for each in losses[:, -1])
        losses = losses + off.mean()
    keys = tuple(f"{name}{seed}-{draw.integers(2**60)}" for seed in range(seeds))
    return ReplicateCurves(keys, np.log(np.tile(compute, (seeds, 1))), losses, read, step=budget / 1000, finished=True)


def paired(
    draw: np.random.Generator, together: float, apart: float, head_start: float
) -> tuple[ReplicateCurves, ReplicateCurves]:
    """A chain and an arm whose replicates of one seed share a deviation, and have another one each."""
    shared = draw.normal(0, together, (3, 1))
    runs = (planted("chain", draw, 3, apart, head_start), planted("arm", draw, 3, apart))
    chain, arm = (replace(run, losses=run.losses + shared, seeds=(0, 1, 2)) for run in runs)
    return chain, arm


def repeat(make: Callable[[np.random.Generator], EqualPerplexity | None]) -> list[EqualPerplexity]:
    results = [make(np.random.default_rng(number)) for number in range(REPETITIONS)]
    return [result for result in results if result is not None]


def bounds(results: list[EqualPerplexity]) -> set[str | None]:
    return {result.bound for result in results}


def coverage(results: list[EqualPerplexity], saving: float) -> float:
    return float(np.mean([result.interval is not None and saving in result.interval for result in results]))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("saving", [0.5, 0.1, -0.25])
def test_intervals_over_seeds_hold_a_known_saving_at_the_stated_rate(seeds: int, saving: float) -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        chain = planted("chain", draw, seeds, 0.01, head_start=1 / (1 - saving))
        return at_equal_perplexity(chain, planted("arm", draw, seeds, 0.01), None)

    results = repeat(once)
    assert coverage(results, saving) >= LEVEL - TOLERANCE
    assert {result.over for result in results} == {("seeds",)}


@pytest.mark.parametrize(("head_start", "bound"), [(1.5, "at least"), (0.7, "at most")])
def test_bounds_hold_a_planted_saving_on_their_side_at_the_stated_rate(head_start: float, bound: str) -> None:
    results = repeat(lambda draw: at_equal_perplexity(*paired(draw, 0.0, 0.005, head_start), None))
    results = [result for result in results if result.outcome != "no difference"]
    assert len(results) > 0.9 * REPETITIONS
    assert bounds(results) == {bound}
    assert abs(coverage(results, 1 - 1 / head_start) - LEVEL) <= TOLERANCE
    ends = [each.interval.high if bound == "at least" else each.interval.low for each in results if each.interval]
    assert np.isinf(ends).all(), "a bound has no other end"


@pytest.mark.parametrize("head_start", [2.2, 1.95])
def test_a_chain_that_was_there_before_its_stage_has_a_lower_bound_that_holds_the_planted_saving(
    head_start: float,
) -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        # The chain's stage begins at half of the arm's cost: it reached the target about there, or before.
        chain, arm = paired(draw, 0.0, 0.005, head_start)
        compute = np.geomspace(BUDGET / 2, BUDGET, 11)
        losses = loss(compute, head_start) + (chain.losses - loss(np.exp(chain.log_compute[0]), head_start))
        return at_equal_perplexity(
            replace(chain, log_compute=np.log(np.tile(compute, (3, 1))), losses=losses), arm, None
        )

    saves = [result for result in repeat(once) if result.outcome == "saves"]
    assert len(saves) > 0.9 * REPETITIONS
    assert bounds(saves) == {"at least"}
    assert coverage(saves, 1 - 1 / head_start) >= LEVEL - TOLERANCE
    censored = [each for each in saves if each.state == "at least"]
    assert len(censored) > 0.2 * REPETITIONS
    assert all(each.saving == pytest.approx(0.5) for each in censored), "set by the schedule, not measured"
    assert all(each.interval is not None and each.interval.high == math.inf for each in censored)


def test_draws_that_bound_a_saving_from_the_other_side_give_no_confidence() -> None:
    # The chain costs twice as much, and whether it reached the arm's final loss is left to chance.
    results = repeat(
        lambda draw: at_equal_perplexity(
            planted("chain", draw, 3, 0.01, 0.5, 2 * BUDGET), planted("arm", draw, 3, 0.01), None
        )
    )
    unsure = [each for each in results if each.outcome == "costs more" and each.interval is not None]
    assert len(unsure) > 0.5 * REPETITIONS
    assert all(math.isinf(each.interval.low) or math.isinf(each.interval.high) for each in unsure if each.interval)
    assert any(math.isinf(each.interval.low) and math.isinf(each.interval.high) for each in unsure if each.interval)


def test_comparisons_do_not_share_the_random_error_of_their_draws() -> None:
    tokens, off = np.full(64, 1024.0), np.random.default_rng(0).normal(0, 0.1, 64)
    run = replace(planted("run", np.random.default_rng(0), 1, 0.0), blocks=(BlockLosses(tokens, tokens * off),))
    drawn = [draw_together(replace(run, keys=(key,))).curves[0].losses[:, -1] for key in "aab"]
    assert np.array_equal(drawn[0], drawn[1])
    assert abs(np.corrcoef(drawn[0], drawn[2])[0, 1]) < 0.15


@pytest.mark.parametrize("together", [0.05, 0.0])
def test_replicates_that_go_together_give_intervals_of_their_differences(together: float) -> None:
    results = repeat(lambda draw: at_equal_perplexity(*paired(draw, together, 0.005, 1.5), None))
    assert coverage(results, 1 / 3) >= LEVEL - TOLERANCE
    assert [result.outcome for result in results].count("saves") > 0.9 * REPETITIONS


def test_what_goes_together_would_hide_a_saving_from_runs_taken_apart() -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        chain, arm = paired(draw, 0.05, 0.005, 1.5)
        return at_equal_perplexity(chain, replace(arm, seeds=(3, 4, 5)), None)

    assert [result.outcome for result in repeat(once)].count("saves") < 0.5 * REPETITIONS


def test_intervals_over_documents_hold_a_known_saving_at_the_stated_rate() -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        chain = planted("chain", draw, 1, 0.0, head_start=1.5, blocks=0.1)
        return at_equal_perplexity(chain, planted("arm", draw, 1, 0.0, blocks=0.1), None)

    results = repeat(once)
    assert abs(coverage(results, 1 / 3) - LEVEL) <= TOLERANCE + 0.01  # 64 blocks are not quite infinitely many
    assert {result.over for result in results} == {("documents",)}


def test_intervals_over_both_hold_it_where_either_alone_would_not() -> None:
    def once(blocks: bool) -> Callable[[np.random.Generator], EqualPerplexity | None]:
        def make(draw: np.random.Generator) -> EqualPerplexity | None:
            chain = planted("chain", draw, 5, 0.005, head_start=1.5, blocks=0.2)
            arm = planted("arm", draw, 5, 0.005, blocks=0.2)
            if not blocks:
                chain, arm = (
                    ReplicateCurves(r.keys, r.log_compute, r.losses, None, r.step, True) for r in (chain, arm)
                )
            return at_equal_perplexity(chain, arm, None)

        return make

    assert coverage(repeat(once(blocks=True)), 1 / 3) >= LEVEL - TOLERANCE
    assert coverage(repeat(once(blocks=False)), 1 / 3) < 0.8


def test_the_interval_of_one_runs_perplexity_holds_it_at_exactly_the_stated_rate() -> None:
    for seeds in (2, 3):
        hits = []
        for number in range(REPETITIONS):
            run = planted("run", np.random.default_rng(number), seeds, 0.02)
            hits.append(float(loss(BUDGET)) in interval_of(draw_together(run).curves[0].losses[:, -1]))
        assert abs(np.mean(hits) - LEVEL) <= TOLERANCE


def test_drawing_three_seeds_with_replacement_would_not_hold_it() -> None:
    # Why seeds are weighed and not resampled.
    hits = []
    for number in range(REPETITIONS):
        draw = np.random.default_rng(number)
        losses = draw.normal(0, 1, 3)
        hits.append(0.0 in interval_of(draw.choice(losses, (1000, 3)).mean(axis=1)))
    assert np.mean(hits) < 0.85


def test_weights_make_students_t() -> None:
    deviations = np.array([-1.0, 0.2, 0.8])
    draws = seed_weights(3, seeded("test")) @ deviations
    error = deviations.std(ddof=1) / math.sqrt(3)
    low, high = np.quantile(draws / error, [0.025, 0.975])
    assert (-low, high) == (pytest.approx(4.303, rel=0.15), pytest.approx(4.303, rel=0.15))


@pytest.mark.parametrize("budget", [1.0, 0.25])
def test_a_chain_that_never_crosses_is_never_called_a_saving(budget: float) -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        # At its end it stays 0.1 nats and more above the arm's last loss, ten times the noise.
        head_start = math.exp(-1.0) if budget == 1 else budget
        chain = planted("chain", draw, 3, 0.01, head_start, budget * BUDGET)
        return at_equal_perplexity(chain, planted("arm", draw, 3, 0.01), None)

    outcomes = [result.outcome for result in repeat(once)]
    assert "saves" not in outcomes
    assert outcomes.count("costs more") > 0.8 * REPETITIONS
    assert all(result.saving is None for result in repeat(once))


def test_a_cheap_chain_that_stops_short_is_not_reached() -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        # On a better curve than the arm's, but given a tenth of its compute.
        chain = planted("chain", draw, 3, 0.005, head_start=1.2, budget=BUDGET / 10)
        return at_equal_perplexity(chain, planted("arm", draw, 3, 0.005), None)

    outcomes = [result.outcome for result in repeat(once)]
    assert "saves" not in outcomes
    assert "costs more" not in outcomes
    assert outcomes.count("not reached") > 0.9 * REPETITIONS


def test_equal_curves_are_called_a_saving_no_more_often_than_stated() -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        return at_equal_perplexity(planted("chain", draw, 3, 0.01), planted("arm", draw, 3, 0.01), None)

    outcomes = [result.outcome for result in repeat(once)]
    tail = (1 - LEVEL) / 2
    limit = tail + 3.3 * math.sqrt(tail * (1 - tail) / REPETITIONS)
    assert outcomes.count("saves") / REPETITIONS <= limit
    assert outcomes.count("costs more") / REPETITIONS <= limit


def test_a_cheap_chain_that_ends_level_is_no_saving_until_it_surely_got_there() -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        # A quarter of the arm's compute, to the arm's very loss: whether a chain crosses is left to chance.
        chain = planted("chain", draw, 3, 0.01, head_start=4, budget=BUDGET / 4)
        return at_equal_perplexity(chain, planted("arm", draw, 3, 0.01), None)

    results = repeat(once)
    outcomes = [result.outcome for result in results]
    tail = (1 - LEVEL) / 2
    assert outcomes.count("saves") / REPETITIONS <= tail + 3.3 * math.sqrt(tail * (1 - tail) / REPETITIONS)
    assert outcomes.count("no difference") > 0.9 * REPETITIONS
    assert coverage(results, 0.75) >= LEVEL - TOLERANCE


def test_a_saving_well_above_the_noise_is_called_one() -> None:
    def once(draw: np.random.Generator) -> EqualPerplexity | None:
        chain = planted("chain", draw, 3, 0.005, head_start=1.6)
        return at_equal_perplexity(chain, planted("arm", draw, 3, 0.005), None)

    assert [result.outcome for result in repeat(once)].count("saves") > 0.9 * REPETITIONS


def test_differences_at_equal_compute_are_held_too() -> None:
    hits = []
    truth = math.exp(loss(BUDGET, 1.5)) - math.exp(loss(BUDGET))
    for number in range(REPETITIONS):
        draw = np.random.default_rng(number)
        arm = planted("arm", draw, 3, 0.01, budget=1.7 * BUDGET)  # measured there between two of its points
        result = at_equal_compute(planted("chain", draw, 3, 0.01, head_start=1.5), arm)
        assert result is not None
        assert result.interpolated
        assert result.interval is not None
        hits.append(truth in result.interval)
    assert np.mean(hits) >= LEVEL - TOLERANCE


def test_two_seeds_far_apart_have_an_interval() -> None:
    draw = np.random.default_rng(0)
    shared = draw.normal(0, 60, (2, 1))  # some draws are beyond the range of exp, for both runs together
    runs = (planted(name, draw, 2, 0.1) for name in ("chain", "arm"))
    found = at_equal_compute(*(replace(run, losses=run.losses + shared, seeds=(0, 1)) for run in runs))
    assert found is not None
    assert found.interval is not None
    assert found.difference in found.interval


def test_a_chain_that_may_have_reached_the_loss_for_less_is_not_called_equal() -> None:
    draw = np.random.default_rng(0)
    found = at_equal_perplexity(planted("c", draw, 3, 0.01, 4, BUDGET / 4), planted("a", draw, 3, 0.01), None)
    assert found is not None
    assert found.outcome == "no difference"
    assert cost_clause(found).startswith(
        "whether it reaches the final perplexity is within noise (saving at equal perplex"
    )


def test_the_same_runs_give_the_same_interval_whatever_stands_beside_them() -> None:
    draw = np.random.default_rng(0)
    chain, arm, other = (planted(name, draw, 3, 0.01) for name in ("chain", "arm", "other"))
    first = at_equal_perplexity(chain, arm, None)
    at_equal_perplexity(chain, other, None)
    assert at_equal_perplexity(chain, arm, None) == first
