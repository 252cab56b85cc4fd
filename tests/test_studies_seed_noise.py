"""The noise floor that the study of single seeds derives."""

import math

import numpy as np

from studies.seed_noise import Pair, noise_floor
from tfscale.analysis.intervals import LEVEL

REPETITIONS = 400


def test_single_seeds_stay_within_it_although_the_chains_sizes_share_a_base() -> None:
    within, naive = [], []
    for number in range(REPETITIONS):
        draw = np.random.default_rng(number)
        base = draw.normal(0, 0.01, 3)
        found = [Pair(size, "arm", base, draw.normal(0, 0.003, 3)) for size in "abcd"]
        floor, freedom = noise_floor(found)
        assert freedom >= 2
        difference = abs(draw.normal(0, 0.01) - draw.normal(0, 0.003))
        within.append(difference <= floor)
        naive.append(difference <= 1.96 * math.sqrt(np.mean([(p.chain - p.arm).var(ddof=1) for p in found])))
    tolerance = 3.3 * math.sqrt(LEVEL * (1 - LEVEL) / REPETITIONS)
    assert abs(np.mean(within) - LEVEL) <= tolerance
    assert np.mean(naive) < LEVEL - tolerance, "as if every pair had noise of its own"
