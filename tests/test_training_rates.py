"""Tests of separate learning rates for old and new parameter tokens."""

import copy
from dataclasses import replace

import pytest
import torch
from stages import ADAMW, MUON, StopAt, assert_resumes_bit_for_bit, elsewhere, outcome, planned, same, train, trainer_of
from torch import Tensor

from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.optimizers.adamw import AdamW
from tfscale.stage.folder import Stage
from tfscale.stage.spec import RateSpec
from tfscale.training.optimizer import ModelOptimizer
from tfscale.training.rates import Factors, RowRates, factors

OPTIMIZER = AdamW(lr=1e-2, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=0.0)
EVEN = RateSpec((4, 4, 16), old=1.0, old_ramp_tokens=0, frozen_tokens=0, new=1.0, per_row_bias=False,
                new_second_moment=False)  # fmt: skip


def model() -> LanguageModel:
    """Return a model with six tokens per projection, of which four are old, and 24 in the feed-forward layer, 16 of
    them old."""
    qkv, out, ffn = ((TokenGroup(n, 1.0),) for n in (6, 6, 24))
    return build_model(TokenFormerConfig(2, 16, 2, 40, 8, qkv, out, ffn), seed=0)


def old_and_new(before: dict[str, Tensor], after: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the changes of old weights and of new rows."""
    old, new = [], []
    for name, tensor in after.items():
        moved = tensor - before[name]
        rows = {6: 4, 24: 16}[len(tensor)] if name.endswith((".keys", ".values")) else len(tensor)
        old.append(moved[:rows])
        new.append(moved[rows:])
    return old, [rows for rows in new if rows.numel()]


def update(rates: RateSpec | None, tokens: int = 0, steps: int = 1, updates: int = 1) -> tuple[list[Tensor], ...]:
    """Return the changes of old weights and of new rows after one AdamW step on a fixed gradient."""
    trained = model()
    before = copy.deepcopy(trained.state_dict())
    optimizer = ModelOptimizer(trained, OPTIMIZER, trained.config)
    row_rates = RowRates(trained, rates, OPTIMIZER, optimizer)
    for number, parameter in enumerate(trained.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    row_rates.begin(tokens, steps, updates)
    with row_rates(trained.parameters()):
        optimizer.step()
    return old_and_new(before, trained.state_dict())


def scaled(moves: list[Tensor], factor: float) -> list[Tensor]:
    return [factor * move for move in moves]


def close(moves: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-8) for a, b in zip(moves, wanted, strict=True))


@pytest.mark.parametrize(("old", "new"), [(0.3, 1.0), (1.0, 3.0), (0.0, 1.0), (0.5, 2.0)])
def test_an_update_is_that_of_a_learning_rate_of_its_own(old: float, new: float) -> None:
    plain = update(None)
    apart = update(replace(EVEN, old=old, new=new))
    assert close(apart[0], scaled(plain[0], old))
    assert close(apart[1], scaled(plain[1], new))


def test_even_rates_leave_every_bit() -> None:
    for plain, apart in zip(update(None), update(EVEN), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plain, apart, strict=True))


def test_frozen_weights_stay_bit_for_bit_and_move_afterwards() -> None:
    rates = replace(EVEN, frozen_tokens=100)
    assert not any(move.any() for move in update(rates, tokens=99)[0])
    assert all(move.any() for move in update(rates, tokens=99)[1])
    assert close(update(rates, tokens=100)[0], update(None)[0])


def test_the_old_rate_rises_linearly_to_the_stages_own() -> None:
    rates = replace(EVEN, old=0.2, old_ramp_tokens=1000)
    olds = [factors(rates, OPTIMIZER, tokens, 1, 1).old for tokens in (0, 500, 1000, 5000)]
    assert olds == pytest.approx([0.2, 0.6, 1.0, 1.0])


def test_the_rate_of_new_rows_rises_from_that_of_the_others_and_falls_back() -> None:
    rates = replace(EVEN, new=1.3, new_ramp_tokens=1000)
    news = [factors(rates, OPTIMIZER, tokens, 1, 1).new for tokens in (0, 500, 1000, 1500, 2000, 5000)]
    assert news == pytest.approx([1.0, 1.15, 1.3, 1.15, 1.0, 1.0])
    assert (news[0], news[-1]) == (1.0, 1.0), "exactly, so that nothing is rounded there"
    plain, apart = update(None), update(rates, tokens=1000)
    assert all(torch.equal(a, b) for a, b in zip(plain[0], apart[0], strict=True)), "old rows keep the stage's rate"
    assert close(apart[1], scaled(plain[1], 1.3))


def test_rows_count_their_own_steps_for_the_bias_correction() -> None:
    """The reference is AdamW. New rows have empty moments and a step count of 1, and old rows a step count of 51."""
    step, betas = 50, (OPTIMIZER.beta1, OPTIMIZER.beta2)
    gradient = torch.randn(6, 4)
    fresh, aged = torch.zeros(6, 4, requires_grad=True), torch.zeros(6, 4, requires_grad=True)
    for weight, age in ((fresh, 0), (aged, step)):
        optimizer = torch.optim.AdamW([weight], lr=1e-2, betas=betas, weight_decay=0.0, fused=True)
        moments = {"exp_avg": torch.zeros(6, 4), "exp_avg_sq": torch.zeros(6, 4)}
        optimizer.state[weight] = {"step": torch.tensor(float(age)), **moments}
        weight.grad = gradient.clone()
        optimizer.step()
    rates = replace(EVEN, per_row_bias=True, new_second_moment=True)
    correction = factors(rates, OPTIMIZER, 0, 1, step + 1).correction
    assert torch.allclose(correction * aged, fresh, rtol=1e-4)
    assert correction == pytest.approx(2.236, abs=0.3)
    assert factors(replace(rates, per_row_bias=False), OPTIMIZER, 0, 1, 51) == Factors(1.0, 1.0, 1.0)


def test_the_correction_leaves_weight_decay_alone() -> None:
    rates = replace(EVEN, per_row_bias=True)
    plain, corrected = update(None)[1], update(rates, steps=1, updates=51)[1]
    ratio = (1 - 0.9**51) / (1 - 0.9)
    start = model().state_dict()
    [rows] = [tensor[4:] for name, tensor in start.items() if name == "blocks.0.attention.output.keys"]
    place = [tuple(move.shape) for move in plain].index(tuple(rows.shape))
    assert not torch.allclose(corrected[place], ratio * plain[place], rtol=1e-6)


GROWN = ("growth=grouped", "growth.rates.old=0.3", "growth.rates.old_ramp=0.5", "growth.rates.new=2",
         "growth.rates.per_row_bias=true")  # fmt: skip


def grown(small: list[str], *more: str) -> Stage:
    parent, child = planned([*small, *GROWN, *more])[:2]
    if not (parent.path / "done.json").exists():
        assert train(parent)
    return child


def test_a_stopped_stage_goes_on_bit_for_bit(small: list[str]) -> None:
    child = grown(small)
    assert train(child)
    halved = elsewhere(child, "halved")
    assert not train(halved, StopAt(3))
    assert train(halved)
    assert same(outcome(child), outcome(halved))


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
def test_a_stage_that_was_stopped_within_the_ramp_of_new_rows_goes_on_bit_for_bit(
    small: list[str], optimizer: tuple[str, ...]
) -> None:
    parent, child = planned([*small, *optimizer, "growth=rewarmed", "growth.rates.new_ramp=0.5"])[:2]
    assert train(parent)
    assert_resumes_bit_for_bit(child)


def test_updates_in_the_backward_pass_are_the_same(small: list[str]) -> None:
    child = grown(small, "optim.clip=0")
    assert train(child)
    inside = elsewhere(grown(small, "optim.clip=0", "launcher.update=in_backward"), "inside")
    assert train(inside)
    assert same(outcome(child), outcome(inside))


@pytest.mark.parametrize("optimizer", [ADAMW, (*MUON, "growth.rates.per_row_bias=false")], ids=["adamw", "muon"])
def test_a_frozen_parent_is_found_again_in_its_child(small: list[str], optimizer: tuple[str, ...]) -> None:
    rates = ("growth.rates.frozen=1", "growth.rates.old=1", "growth.rates.old_ramp=0")
    child = grown(small, *rates, *optimizer)
    trainer = trainer_of(child)
    trainer._restore()
    before = copy.deepcopy(trainer.state.model.state_dict())
    assert train(child)
    after = outcome(child)[0]
    assert torch.equal(before["embedding"], after["model/embedding"])
    keys = "blocks.0.ffn.keys"
    assert child.spec.rates is not None
    rows = child.spec.rates.rows[2]
    assert torch.equal(before[keys][:rows], after[f"model/{keys}"][:rows])
    assert not torch.equal(before[keys][rows:], after[f"model/{keys}"][rows:])


def test_rates_are_part_of_the_stages_identity_and_plain_ones_are_not(small: list[str]) -> None:
    plain, apart = planned([*small, "growth=grouped"]), planned([*small, *GROWN])
    assert plain[0].key == apart[0].key
    assert plain[1].key != apart[1].key
    assert plain[1].spec.rates is None


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("growth.rates.old=-1", "growth.rates.old=-1.0: must be a factor from 0 to 10; try 1"),
        ("growth.rates.frozen=2", "growth.rates.frozen=2.0: must be a fraction from 0 to 1"),
        ("growth.rates.old_ramp=0.5", "the factor is already 1"),
        ("growth.rates.new_ramp=0.5", "the factor is already 1"),
        ("growth.rates={new: 3, new_ramp: 0.6}", "growth.rates.new_ramp=0.6: must be a fraction from 0 to 0.5"),
        ("growth.peak=0", "growth.peak=0.0: must be above 0"),
        ("growth.moments=asymmetric", "must be used with growth by split"),
    ],
)
def test_settings_out_of_range_are_named(small: list[str], setting: str, told: str) -> None:
    with pytest.raises(UserFault, match=told.replace("(", r"\(")):
        compose([*small, "growth=grouped", setting])
