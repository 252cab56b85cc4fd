"""Tests of the noise floor of a pair of arms on planted losses."""

import numpy as np
import pytest
from test_analysis_planted import REPETITIONS, TOLERANCE, few_draws, planted  # noqa: F401

from tfscale.analysis.equal_cost import EqualPerplexity, at_equal_perplexity
from tfscale.analysis.intervals import LEVEL
from tfscale.analysis.noise import NoiseFloor, noise_floor
from tfscale.analysis.words import cost_clause


@pytest.mark.parametrize("seeds", [2, 4])
def test_the_noise_floor_is_what_a_single_run_and_several_stay_within_at_the_stated_rate(seeds: int) -> None:
    within = []
    for number in range(REPETITIONS):
        draw = np.random.default_rng(number)
        several, single = planted("a", draw, seeds, 0.02), planted("b", draw, 1, 0.02)
        floors = noise_floor(several, single, assumed=1.0), noise_floor(single, several, assumed=1.0)
        assert floors[0] == floors[1]
        assert floors[0] is not None
        assert floors[0].source == "seeds"
        within.append(abs(several.losses[:, -1].mean() - single.losses[0, -1]) <= floors[0].nats)
    assert abs(np.mean(within) - LEVEL) <= TOLERANCE


def test_a_noise_floor_is_that_of_its_pair_whatever_other_arms_do() -> None:
    draw = np.random.default_rng(0)
    chain, steady, wild = (planted(name, draw, 1, 0.01) for name in ("chain", "steady", "wild"))
    assert noise_floor(planted("chain", draw, 3, 0.001), steady, 0.02).nats < 0.02  # type: ignore[union-attr]
    assert noise_floor(chain, planted("wild", draw, 3, 0.07), 0.02).nats > 0.02  # type: ignore[union-attr]
    assert noise_floor(chain, steady, 0.02) == noise_floor(chain, wild, 0.02) == NoiseFloor(0.02, "assumed")
    assert noise_floor(chain, steady, None) is None
    assert noise_floor(planted("chain", draw, 3, 0.01), planted("arm", draw, 3, 0.01), 0.02) is None


def test_a_difference_within_the_noise_floor_is_explained_if_its_interval_excludes_zero() -> None:
    def once(assumed: float | None) -> EqualPerplexity:
        draw = np.random.default_rng(0)
        chain, arm = (planted(name, draw, 1, 0.0, off, blocks=0.001) for name, off in (("chain", 1.2), ("arm", 1.0)))
        found = at_equal_perplexity(chain, arm, assumed)
        assert found is not None
        return found

    assert cost_clause(once(None)).startswith("it saves at least 16.")
    assert "with 95% confidence over validation documents alone at least" in cost_clause(once(None))
    within = once(0.03)
    assert within.outcome == "no difference"
    assert within.interval is not None
    assert 0 not in within.interval
    words = "there is no difference within the noise floor of 0.030 nats (over validation documents alone [1"
    assert cost_clause(within).startswith(words)
