"""Tests that a model family from outside the package is counted, planned, trained and read like a built-in one."""

import re

import pytest
import torch
from extensions.toy_family import GatedConfig
from stages import elsewhere, outcome, planned, same, train
from torch.utils.flop_counter import FlopCounterMode

from tfscale.config.compose import compose
from tfscale.models.counts import flops, parameters
from tfscale.models.families import from_dict, to_dict
from tfscale.models.init import build_model
from tfscale.plan.checks import check_experiment
from tfscale.stage.spec import read_spec

CONFIG = GatedConfig(2, 32, 2, 100, 16, d_ff=48)
ARM = "+baseline.arms.gated={kind: scratch, title: gated, family: gated, sizes: last}"
SHAPE = "schedule.stages.stage4.shapes={gated: {n_layer: 2, d_model: 16, n_head: 2, d_ff: 24, lr: 5e-3}}"


def test_its_counts_are_those_of_the_module() -> None:
    model = build_model(CONFIG, device="meta")
    assert parameters(CONFIG) == sum(weight.numel() for weight in model.parameters())
    tokens = torch.zeros(2, 16, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.loss(tokens, tokens)
    assert counter.get_total_flops() == tokens.numel() * flops(CONFIG).forward
    assert from_dict(to_dict(CONFIG)) == CONFIG


def test_an_arm_trains_it_at_a_size_of_the_schedule(small: list[str]) -> None:
    [stage] = planned([*small, ARM, SHAPE], "gated")
    assert isinstance(stage.spec.model, GatedConfig)
    assert stage.spec.model.d_ff == 24
    assert stage.spec.optimizer.lr == 5e-3
    again = elsewhere(stage, "again")
    assert train(stage)
    assert train(again)
    assert same(outcome(stage), outcome(again))
    assert read_spec(stage.path).model == stage.spec.model


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ([ARM], "schedule.stages.stage4.shapes.gated: must be set"),
        ([ARM, SHAPE.replace("d_ff: 24", "width: 24")], "schedule.stages.stage4.shapes.gated: .*'width'"),
        ([ARM, SHAPE.replace("d_ff: 24", "d_ff: many")], "schedule.stages.stage4.shapes.gated: d_ff='many'"),
        ([ARM.replace("family: gated", "family: gatd")], "baseline.arms.gated.family=gatd: must be one of .*gated"),
        ([ARM.replace("scratch", "chain").replace(", sizes: last", "")], "family=gated: must be tokenformer or"),
    ],
)
def test_what_it_cannot_be_is_refused_before_anything_is_written(overrides: list[str], fault: str) -> None:
    [found] = check_experiment(compose(overrides))
    assert re.search(fault, str(found))
