"""Cost of all sizes together, with planted losses and on the recorded comparison."""

import json
from pathlib import Path

import numpy as np
import pytest

from studies.family_cost import NOISE, Reading, Target, cost, recorded, report

RECORDED = Path(__file__).parents[1] / "docs" / "measurements" / "progressive_saturated_readings"


def planted(size: str, floor: float) -> list[Reading]:
    """Losses that fall by 0.1 per factor e of compute, to `floor` at 1e13 FLOPs."""
    return [
        Reading(arm, size, flops, floor + 0.1 * np.log(1e13 / flops))
        for arm in ("transformer_scratch", "tokenformer_scratch")
        for flops in (1e12, 2e12, 4e12, 1e13)
    ]


def test_costs_are_read_between_decayed_models() -> None:
    small, large = planted("S", 1.6), planted("L", 1.4)
    target = Target("S", 1.6 + 0.1 * np.log(10 / 3))
    assert cost(target, small[:4]) == (pytest.approx(3e12), False)
    chain = [target, Target("L", 1.4 + 0.1 * np.log(10 / 5))]
    table = report(chain, 1e13, [*small, *large])
    lower, higher = (1e13 / (8e12 * np.exp(shift / 0.1)) - 1 for shift in (NOISE, -NOISE))
    costs = f"25% more | {-lower:.0%} less, {higher:.0%} more |"
    assert f"| Transformer | 3.00e12 | 5.00e12 | 8.00e12 | {costs}" in table


def test_a_run_that_both_sides_share_costs_the_same_on_both() -> None:
    small = planted("S", 1.6)
    assert cost(Target("S", small[0].loss), small[:4], shift=0.1) == (pytest.approx(1e12), False)


@pytest.mark.parametrize(("family", "verdict"), [(1e13, "at least 900% more"), (0.5e12, "at most 50% less")])
def test_a_loss_above_all_readings_is_a_bound(family: float, verdict: str) -> None:
    table = report([Target("S", 3.0)], family, planted("S", 1.6))
    assert f"| Transformer | <= 1.00e12 | <= 1.00e12 | {verdict} |" in table


def test_the_recorded_losses_fall_with_compute() -> None:
    chain, family, readings = recorded(RECORDED)
    stated = json.loads((RECORDED / "table.json").read_text())["families"][0]["at_perplexities_of_chain"]["chain"]
    assert family == stated["high"]
    for arm in ("transformer_scratch", "tokenformer_scratch"):
        for target in chain:
            losses = [each.loss for each in readings if (each.arm, each.size) == (arm, target.size)]
            assert losses == sorted(losses, reverse=True)
            assert len(losses) >= 4
