"""Tests that an optimizer from outside the package trains, stops, resumes, grows and is verified like a built-in
one."""

import re

import pytest
import torch
from extensions.toy_optimizer import Mixed
from stages import StopAt, elsewhere, outcome, planned, same, train, trainer_of

from tfscale.config.compose import compose
from tfscale.models.counts import parameters
from tfscale.models.init import build_model
from tfscale.models.transformer import TransformerConfig
from tfscale.optimizers.base import from_dict, to_dict
from tfscale.plan.checks import check_experiment
from tfscale.stage.spec import read_spec
from tfscale.training.optimizer import ModelOptimizer
from tfscale.verify import verify_stage

MIXED = ("optim.name=mixed", "optim.options={momentum: 0.8}", "growth=grouped")
OPTIMIZER = Mixed(lr=1e-2, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0)
CONFIG = TransformerConfig(2, 16, 2, 50, 8, 32)


def test_each_weight_has_the_slots_of_its_own_algorithm() -> None:
    model = build_model(CONFIG, seed=0)
    optimizer = ModelOptimizer(model, OPTIMIZER, CONFIG)
    assert optimizer.state() == {}
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    slots = optimizer.state()
    assert "momentum_buffer/blocks.0.ffn.up.weight" in slots
    assert {"exp_avg/embedding", "exp_avg_sq/final_norm.weight"} < slots.keys()
    assert "exp_avg/blocks.0.ffn.up.weight" not in slots
    held = sum(tensor.nbytes for tensor in slots.values())
    assert held == pytest.approx(OPTIMIZER.bytes_per_weight(CONFIG) * parameters(CONFIG))
    assert from_dict(to_dict(OPTIMIZER)) == OPTIMIZER


@pytest.mark.parametrize("more", [(), ("launcher.update=in_backward", "optim.clip=0")])
def test_a_stopped_stage_goes_on_bit_for_bit(small: list[str], more: tuple[str, ...]) -> None:
    stage = planned([*small, *MIXED, *more])[0]
    assert isinstance(stage.spec.optimizer, Mixed)
    assert stage.spec.optimizer.momentum == 0.8
    halved = elsewhere(stage, "halved")
    assert train(stage)
    assert not train(halved, StopAt(7))
    assert train(halved)
    assert same(outcome(stage), outcome(halved))
    assert read_spec(stage.path).optimizer == stage.spec.optimizer


def test_it_is_part_of_a_stages_key_and_the_default_is_not(small: list[str]) -> None:
    keys = [
        planned([*small, *more])[0].key for more in (MIXED[2:], ("optim.name=adamw", *MIXED[2:]), MIXED, MIXED[::2])
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ([*MIXED[1:], "optim.name=mixd"], "optim.name=mixd: must be one of adamw, muon, mixed; try mixed"),
        ([*MIXED[::2], "optim.options={beta: 1}"], "optim.options=beta: must be settings of optim.name=mixed"),
        ([*MIXED[::2], "optim.options={momentum: high}"], "optim.options: momentum='high': must be a finite number"),
        ([*MIXED, "growth.rates.new=2"], "growth.rates: must not be set with optim.name=mixed"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_written(overrides: list[str], fault: str) -> None:
    [found] = check_experiment(compose(overrides))
    assert re.search(fault, str(found))


def test_growth_carries_its_slots_and_the_stages_verify(small: list[str]) -> None:
    parent, child = planned([*small, *MIXED[:2], "growth=exact"])[:2]
    assert train(parent)
    name, grown = "momentum_buffer/blocks.0.ffn.keys", trainer_of(child)
    grown.state.load(child.path / "checkpoints" / "step-000000000000")
    before, after = outcome(parent)[0][name], grown.state.tensors()[name]
    assert isinstance(after, torch.Tensor)
    assert torch.equal(after[: len(before)], before)
    assert not after[len(before) :].any()
    assert train(child)
    for stage in (parent, child):
        assert list(verify_stage(stage)) == []
