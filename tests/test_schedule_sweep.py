"""Choosing a rate from losses: the least one, both edges, and how a range is widened."""

import math

import pytest

from tfscale.tune.sweep import Sweep, beyond, candidates, choose, factors_of, sweep_faults


def test_the_rate_with_the_least_loss_is_chosen() -> None:
    choice = choose({1e-3: 3.2, 2e-3: 3.1, 4e-3: 3.15})
    assert (choice.rate, choice.loss, choice.place) == (2e-3, 3.1, "interior")


@pytest.mark.parametrize(
    ("losses", "place", "next_rate"),
    [
        ({1e-3: 3.0, 2e-3: 3.1, 6e-3: 3.2}, "lowest", 5e-4),
        ({1e-3: 3.2, 2e-3: 3.1, 6e-3: 3.0}, "highest", 1.8e-2),
        ({1e-3: 3.2, 2e-3: 3.0, 6e-3: 3.1}, "interior", None),
        ({1e-3: math.inf, 2e-3: math.inf}, "lowest", 5e-4),
        ({1e-3: 3.0, 2e-3: math.inf}, "lowest", 5e-4),
        ({1e-30: 3.0, 1e-3: 3.1}, "lowest", None),
    ],
)
def test_the_range_goes_on_at_the_edge_where_the_best_is(
    losses: dict[float, float], place: str, next_rate: float | None
) -> None:
    assert choose(losses).place == place
    assert beyond(losses) == next_rate


def test_candidates_are_short_to_write_and_hold_the_present_rate_as_it_is() -> None:
    assert candidates(7e-4, (2, 0.5, 1, 1.4)) == (3.5e-4, 7e-4, 9.8e-4, 1.4e-3)
    assert 1.23456e-3 in candidates(1.23456e-3, (0.5, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-1,0,1", ["'-1' must be a number above 0", "'0' must be a number above 0"]),
        ("1,1.0,2", ["1 and 1 are too close"]),
        ("1", ["at least two numbers"]),
        ("", ["'' must be a number above 0"]),
        ("1,inf,x,nan", ["'inf' must be", "'x' must be", "'nan' must be"]),
        ("2, 0.5", []),
    ],
)
def test_all_that_is_wrong_with_factors_is_told(text: str, words: list[str]) -> None:
    factors, faults = factors_of(text)
    assert len(faults) == len(words)
    for word in words:
        assert any(word in fault for fault in faults)
    assert list(factors) == sorted(factors)


def test_runs_are_counted_from_one_and_further_rates_from_none() -> None:
    assert len(sweep_faults(Sweep((1, 2), -1, 0), 1000)) == 2
    assert len(sweep_faults(Sweep((1, 2), 0, 1001), 1000)) == 1
    assert not sweep_faults(Sweep((1, 2), 0, 1000), 1000)
