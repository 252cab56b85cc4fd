"""Tests of the predicted cost of the weight update against calculations by hand."""

import pytest
from test_schedule_predict import BATCH_FLOPS, CLUSTER, PAPER, PARAMETERS, predicted

from tfscale.orchestrate.speed import Speed


def muon_flops() -> list[int]:
    """Return the FLOPs of five Newton-Schulz iterations on each matrix of the largest stage, in block order."""

    def one(n: int) -> int:  # n x 768
        return 5 * (4 * 768**2 * n + 2 * 768**3)

    return 12 * [*(6 * [one(8620)]), *(2 * [one(8620)]), *(2 * [one(34480)])]


def test_the_optimizers_share_is_its_flops_over_those_of_a_step() -> None:
    adamw, muon = predicted(*CLUSTER, "launcher.nodes=8"), predicted(*CLUSTER, "launcher.nodes=8", "optim.name=muon")
    assert adamw.update_flops == 14 * PARAMETERS
    assert muon.update_flops == sum(muon_flops()) + 14 * PARAMETERS
    assert muon.flops == adamw.flops
    for found in (adamw, muon):
        assert found.optimizer_share == pytest.approx(found.update_flops / (BATCH_FLOPS + found.update_flops))
    assert 0.003 < muon.optimizer_share < 0.03


def test_muons_products_are_divided_by_matrix_and_their_results_sent_to_all() -> None:
    settings = [*CLUSTER, "launcher.nodes=8", "optim.name=muon", "launcher.activation_checkpointing=none"]
    steps = [predicted(*settings, f"launcher.sharding={name}").step for name in ("none", "full", "hybrid")]
    matrices = PARAMETERS - 50304 * 768 - 2 * 768
    memory = (3 * 4 * PARAMETERS + 2 * (4 * matrices + 8 * (PARAMETERS - matrices))) / 3.35e12
    rate, sent = 0.35 * 989.4e12, 4 * matrices / 400e9
    products = max(sum(muon_flops()[rank::64]) for rank in range(64)) / rate
    assert products > sum(muon_flops()) / 64 / rate, "120 matrices are not divided evenly by 64 ranks"
    gathered = [0, 4 * matrices * (63 / 64) / 400e9, 4 * matrices * (7 / 8) / 450e9]
    for step, shards, each in zip(steps, (1, 64, 8), gathered, strict=True):
        assert step is not None
        held = (memory + 14 * PARAMETERS / rate) / shards
        assert step.update == pytest.approx(held + products + each + sent)


def test_one_device_does_all_of_muons_products_and_sends_nothing() -> None:
    found = predicted(*PAPER, "device=h200", "device.bandwidth=null", "optim.name=muon")
    assert found.step is not None
    assert found.step.update == pytest.approx(found.update_flops / (0.35 * 989.4e12))


def test_a_measured_speed_includes_the_updates_of_the_stages_that_it_was_measured_on() -> None:
    speed = Speed("tokenformer", 10**9, "elsewhere", "NVIDIA H200", "bf16", 1, 2e14, optimizer_ratio=0.25)
    found = predicted(*PAPER, "device=h200", "device.bandwidth=null", speeds=[speed])
    assert found.measured
    assert found.step is not None
    assert found.step.seconds == pytest.approx((BATCH_FLOPS + found.update_flops) / (1.25 * 2e14))
