"""Tests of the choice of a value by its loss: minimum, edges of the range, its extension, and successive halving."""

import math
from collections.abc import Callable

import pytest

from tfscale.tune.halving import search
from tfscale.tune.sweep import Choice, Sweep, beyond, candidates, choose, numbers_of, sweep_faults


def test_the_rate_with_the_least_loss_is_chosen() -> None:
    choice = choose({1e-3: 3.2, 2e-3: 3.1, 4e-3: 3.15})
    assert (choice.value, choice.loss, choice.place) == (2e-3, 3.1, "interior")


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
        ("1,2000", ["'2000' must be a number above 0 and at most 1000"]),
        ("2, 0.5", []),
    ],
)
def test_all_that_is_wrong_with_numbers_is_told(text: str, words: list[str]) -> None:
    numbers, faults = numbers_of("--ratios", text, most=1000)
    assert len(faults) == len(words)
    for word, fault in zip(words, faults, strict=True):
        assert word in fault
    assert list(numbers) == sorted(numbers)


@pytest.mark.parametrize(
    ("sweep", "faults"),
    [
        (Sweep((1, 2), -1, 0), 2),
        (Sweep((1, 2), 0, 1001), 1),
        (Sweep((1, 2), 0, 1, rungs=0, reduction=1), 2),
        (Sweep((1, 2), 0, 1000, rungs=1, reduction=2), 0),
    ],
)
def test_numbers_of_a_sweep_are_bounded(sweep: Sweep, faults: int) -> None:
    assert len(sweep_faults(sweep, 1000)) == faults


def searched(
    first: tuple[float, ...], sweep: Sweep, loss: Callable[[float, int], float], most: float = math.inf
) -> tuple[Choice, dict[tuple[float, int], float], int]:
    """Run a search. Return its choice, all losses that it used, and the number of rounds that needed new losses."""
    known: dict[tuple[float, int], float] = {}
    asked: list[tuple[float, int]] = []

    def loss_of(value: float, rung: int) -> float | None:
        asked.append((value, rung))
        return known.get((value, rung))

    rounds = 0
    while (choice := search(first, sweep, loss_of, most)) is None:
        known |= {place: loss(*place) for place in asked}
        asked.clear()
        rounds += 1
    return choice, known, rounds


def distance(best: float) -> Callable[[float, int], float]:
    """Return a loss function that increases with the distance from the best value in every rung."""
    return lambda value, rung: abs(math.log(value / best)) - rung


NINE = tuple(2.0**power for power in range(-4, 5))
THREE_RUNGS = Sweep(NINE, further=3, seeds=1, rungs=3)


def test_each_rung_keeps_the_best_third_of_the_one_before() -> None:
    choice, known, rounds = searched(NINE, THREE_RUNGS, distance(1.9))
    assert (choice.value, choice.place, rounds) == (2, "interior", 3)
    assert [sorted(value for value, rung in known if rung == each) for each in range(3)] == [list(NINE), [1, 2, 4], [2]]
    cost = sum(THREE_RUNGS.fraction(rung) for _, rung in known)
    assert cost == pytest.approx(THREE_RUNGS.trainings(9)) == pytest.approx(THREE_RUNGS.grid(NINE) / 3)


@pytest.mark.parametrize("best", [0.07, 0.3, 1, 3.3, 13])
def test_halving_and_the_full_grid_choose_the_same(best: float) -> None:
    full, _, _ = searched(NINE, Sweep(NINE, further=3, seeds=1), distance(best))
    halved, _, _ = searched(NINE, THREE_RUNGS, distance(best))
    assert (halved.value, halved.place) == (full.value, full.place)


def in_rung(known: dict[tuple[float, int], float], rung: int) -> list[float]:
    return sorted(value for value, each in known if each == rung)


def test_a_range_is_widened_in_the_first_rung_where_that_is_cheap() -> None:
    choice, known, _ = searched(NINE, THREE_RUNGS, distance(64))
    assert (choice.value, choice.place) == (64, "interior")
    assert in_rung(known, 0) == [*NINE, 32, 64, 128]
    assert in_rung(known, 1) == [32, 64, 128]
    assert in_rung(known, 2) == [64]
    choice, known, _ = searched(NINE, Sweep(NINE, further=1, seeds=1, rungs=3), distance(64))
    assert (choice.value, choice.place) == (64, "highest")
    assert [max(in_rung(known, rung)) for rung in range(3)] == [32, 64, 64]


def test_a_neighbour_joins_a_later_rung_if_the_best_value_moves_with_the_tokens() -> None:
    choice, known, _ = searched(NINE, THREE_RUNGS, lambda value, rung: distance(4 if rung == 0 else 0.5)(value, rung))
    assert (choice.value, choice.place) == (0.5, "interior")
    assert in_rung(known, 1) == [0.25, 0.5, 1, 2, 4, 8]
    assert in_rung(known, 2) == [0.5]


@pytest.mark.parametrize("rung_of_divergence", [0, 1, 2])
def test_a_value_that_diverges_with_more_tokens_loses_its_place_to_the_next(rung_of_divergence: int) -> None:
    def loss(value: float, rung: int) -> float:
        return math.inf if value > 2 and rung >= rung_of_divergence else distance(4)(value, rung)

    choice, known, _ = searched(NINE, THREE_RUNGS, loss)
    assert (choice.value, choice.place) == (2, "interior")
    assert known[2, 2] == choice.loss < math.inf


def test_where_all_diverge_lower_values_are_tried() -> None:
    choice, known, _ = searched(NINE, THREE_RUNGS, lambda value, rung: math.inf)
    assert math.isinf(choice.loss)
    assert in_rung(known, 0) == [0.0078, 0.0156, 0.0312, *NINE]
    assert len(known) == 12
    choice, _, _ = searched(NINE, THREE_RUNGS, lambda value, rung: math.inf if value > 0.02 else -value)
    assert (choice.value, choice.place) == (0.0156, "interior")


def test_refinement_ends_between_two_worse_neighbours_with_all_tokens() -> None:
    sweep = Sweep(NINE, further=3, seeds=1, rungs=3, refine=True)
    choice, known, _ = searched(NINE, sweep, distance(1.9))
    assert (choice.value, choice.place) == (2, "interior")
    assert in_rung(known, 2) == [1.41, 2, 2.83]
    assert sum(sweep.fraction(rung) for _, rung in known) == pytest.approx(sweep.trainings(9))
    assert sweep.trainings(9) < sweep.grid(NINE) / 3
    assert sweep.grid(NINE) == 17
    choice, known, _ = searched(NINE, sweep, distance(1.44))
    assert (choice.value, choice.place) == (1.41, "interior")
    assert in_rung(known, 2) == [1, 1.41, 2, 2.83]


def test_no_value_above_the_largest_is_tried() -> None:
    first = (100.0, 300.0, 900.0)
    choice, known, _ = searched(first, Sweep(first, further=3, seeds=1), distance(5000), most=1000)
    assert choice.value == 900
    assert max(value for value, _ in known) == 900
