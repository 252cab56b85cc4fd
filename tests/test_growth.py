"""Tests of the growth of configs, tensors and checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tfscale import checkpoint
from tfscale.checkpoint import Counters
from tfscale.checkpoint.slots import slots_in, slots_of
from tfscale.growth.grow_checkpoint import grow_checkpoint
from tfscale.growth.grow_stage import compare_logits
from tfscale.growth.tokenformer_recipe import GrowthRecipe
from tfscale.models.execution import Recompute
from tfscale.models.init import build_model, first_groups_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import NormActivation, TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig, number_of_groups
from tfscale.optimizers.adamw import AdamW
from tfscale.optimizers.base import Optimizer
from tfscale.optimizers.muon import Muon
from tfscale.totals import Totals

PAPER = GrowthRecipe("paper", "random", "random", "recompute", moments="drop", data="restart")
EXACT = GrowthRecipe("exact", "zero", "random", "keep")
GROUPED = GrowthRecipe("grouped", "random", "zero", "group")
SPLIT = GrowthRecipe("split", "split", "split", "split")
ADAMW, MUON = (kind(lr=1.0, clip=0.0, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.0) for kind in (AdamW, Muon))
MATCHED_VALUES = replace(EXACT, name="matched values", new_values="matched")
PRESERVING = [EXACT, MATCHED_VALUES, GROUPED, SPLIT]


def model_of(kind: NormActivation = "l2_norm_gelu", seed: int = 0) -> LanguageModel:
    """Return a model with keys large enough to affect its outputs."""
    qkv, out, ffn = ((TokenGroup(n, default_tau(kind, n)),) for n in (6, 5, 20))
    config = TokenFormerConfig(2, 16, 2, 40, 8, qkv, out, ffn, norm_activation=kind)
    model = build_model(config, seed=seed).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def grown(model: LanguageModel, tokens: tuple[int, int, int], recipe: GrowthRecipe, seed: int = 1) -> LanguageModel:
    assert isinstance(model.config, TokenFormerConfig)
    config = recipe.grown_config(model.config, model.config.with_tokens(tokens))
    child = build_model(config).double()
    child.load_state_dict(
        {
            name: recipe.grow_tensor(name, 0, tensor, model.config, config, seed)
            for name, tensor in model.state_dict().items()
        }
    )
    return child


def change(before: LanguageModel, after: LanguageModel) -> float:
    tokens = torch.arange(16).view(2, 8)
    return (before(tokens) - after(tokens)).abs().max().item()


@pytest.mark.parametrize("recipe", PRESERVING, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("tokens", [(12, 10, 40), (7, 5, 23), (23, 19, 75), (18, 5, 20)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_preserving_recipe_preserves_logits(recipe: GrowthRecipe, tokens: tuple[int, int, int], seed: int) -> None:
    model = model_of(seed=seed)
    child = grown(model, tokens, recipe)
    assert recipe.preserves(model.config, child.config)  # type: ignore[arg-type]
    assert change(model, child) < 1e-12


@pytest.mark.parametrize("recipe", PRESERVING, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("kind", ["l2_norm_gelu", "l1_norm_gelu", "gelu_l2_norm", "softmax"])
@pytest.mark.parametrize("tokens", [(12, 10, 40), (15, 11, 47)])
def test_what_is_said_to_preserve_does_and_nothing_else(
    recipe: GrowthRecipe, kind: NormActivation, tokens: tuple[int, int, int]
) -> None:
    model = model_of(kind)
    child = grown(model, tokens, recipe)
    said = recipe.preserves(model.config, child.config)  # type: ignore[arg-type]
    assert said == (change(model, child) < 1e-11)


@pytest.mark.parametrize("recipe", PRESERVING, ids=lambda recipe: recipe.name)
def test_growth_can_be_repeated(recipe: GrowthRecipe) -> None:
    model = model_of()
    twice = grown(grown(model, (9, 8, 30), recipe), (20, 17, 70), recipe, seed=2)
    assert change(model, twice) < 1e-12


def test_recipes_mix_along_a_chain() -> None:
    model = model_of()
    child = model
    for recipe, tokens in (
        (GROUPED, (9, 8, 30)),
        (EXACT, (12, 9, 41)),
        (SPLIT, (25, 20, 90)),
        (GROUPED, (30, 30, 100)),
    ):
        child = grown(child, tokens, recipe)
    assert change(model, child) < 1e-12


@pytest.mark.parametrize("kind", ["l2_norm_gelu", "softmax"])
def test_the_first_groups_of_a_grown_model_are_the_models_before_bit_for_bit(kind: NormActivation) -> None:
    models = [model_of(kind)]
    for tokens in ((9, 8, 30), (10, 9, 31), (30, 20, 100)):
        models.append(grown(models[-1], tokens, GROUPED))
    tokens = torch.arange(16).view(2, 8)
    for count, model in enumerate(models, start=1):
        found = first_groups_model(models[-1], count)
        assert found.config == model.config
        assert found.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in found.state_dict().items())
        assert torch.equal(found(tokens), model(tokens))


def test_layers_that_have_not_all_grown_have_no_common_number_of_groups() -> None:
    child = grown(model_of(), (6, 10, 40), GROUPED)
    assert [number_of_groups(each) for each in (model_of().config, child.config)] == [1, 1]
    recipe = replace(GROUPED, nested_dropout=0.3)
    with pytest.raises(ValueError, match="must grow in every layer"):
        recipe.grown_config(model_of().config, child.config)


@pytest.mark.parametrize("recompute", ["none", "pattention", "blocks"])
def test_groups_that_a_pass_leaves_out_have_no_effect_and_gradients_of_zero(recompute: Recompute) -> None:
    child = grown(grown(model_of(), (9, 8, 30), GROUPED), (12, 10, 40), GROUPED)
    with torch.no_grad():
        for parameter in child.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    alone, tokens = first_groups_model(child, 2), torch.arange(16).view(2, 8)
    child.recompute = recompute
    with child.using_first_groups(2):
        loss = child.loss(tokens, tokens.roll(-1, 1))
        loss.backward()
    expected = alone.loss(tokens, tokens.roll(-1, 1))
    expected.backward()
    assert torch.equal(loss, expected)
    assert not torch.equal(child.loss(tokens, tokens.roll(-1, 1)), expected), "after the pass, all groups are used"
    for name, weight in alone.named_parameters():
        gradient = child.get_parameter(name).grad
        assert gradient is not None
        assert weight.grad is not None
        assert torch.equal(gradient[: len(weight)], weight.grad), name
        assert not gradient[len(weight) :].any(), name


def test_the_papers_growth_keeps_old_rows_and_changes_the_function() -> None:
    model = model_of()
    child = grown(model, (12, 10, 40), PAPER)
    old, new = model.state_dict(), child.state_dict()
    for name, tensor in old.items():
        assert torch.equal(new[name][: len(tensor)], tensor), name
    assert child.config.ffn == (TokenGroup(40, 40**0.5),)  # type: ignore[union-attr]
    assert not PAPER.preserves(model.config, child.config)  # type: ignore[arg-type]
    assert change(model, child) > 0.1


def test_rows_added_later_are_not_those_added_before() -> None:
    first = grown(model_of(), (12, 10, 40), PAPER)
    second = grown(first, (18, 15, 60), PAPER)
    keys = second.state_dict()["blocks.0.ffn.keys"]
    assert not torch.allclose(keys[20:40], keys[40:60])


def test_noise_tells_copies_apart() -> None:
    child = grown(model_of(), (12, 10, 40), replace(SPLIT, noise=0.1))
    keys = child.state_dict()["blocks.0.ffn.keys"]
    assert not torch.allclose(keys[:20], keys[20:])
    assert not replace(SPLIT, noise=0.1).preserves(model_of().config, child.config)  # type: ignore[arg-type]


def test_noise_on_old_rows_is_a_fraction_of_their_own_spread() -> None:
    model = model_of()
    noisy = grown(model, (8, 7, 25), replace(GROUPED, noise=0.1))
    old = model.get_parameter("blocks.0.ffn.keys")
    moved = noisy.get_parameter("blocks.0.ffn.keys")[:20] - old
    assert moved.std().item() == pytest.approx(0.1 * old.std().item(), rel=0.2)
    assert not replace(GROUPED, noise=0.1).preserves(model.config, noisy.config)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "recipe"), [("keys", replace(GROUPED, new_keys="matched")), ("values", MATCHED_VALUES)]
)
def test_matched_rows_are_as_large_as_the_old_ones(name: str, recipe: GrowthRecipe) -> None:
    rows = grown(model_of(), (8, 7, 60), recipe).get_parameter(f"blocks.1.ffn.{name}")
    assert rows[20:].std().item() == pytest.approx(rows[:20].std().item(), rel=0.1)
    assert not torch.equal(rows[20:40], rows[:20])


def test_an_asymmetric_reset_empties_the_moments_of_copies_alone() -> None:
    recipe = replace(SPLIT, moments="asymmetric")
    parent = model_of().config
    assert isinstance(parent, TokenFormerConfig)
    child = recipe.grown_config(parent, parent.with_tokens((12, 5, 20)))
    name, old = "blocks.0.attention.qkv.query.values", torch.rand(6, 4)
    for degree in (1, 2):
        moments = recipe.grow_tensor(name, degree, old, parent, child, 0)  # type: ignore[arg-type]
        assert torch.equal(moments[:6], old)
        assert not moments[6:].any()


def test_copies_of_a_split_see_the_gradients_that_their_moments_say() -> None:
    """The carried moments of copies are the old moments, divided as the gradients are."""
    model = model_of()
    child = grown(model, (12, 10, 40), SPLIT)
    tokens = torch.arange(16).view(2, 8)
    for each in (model, child):
        each.loss(tokens, tokens.roll(-1, 1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = SPLIT.grow_tensor(name, 1, parameter.grad, model.config, child.config, 0)  # type: ignore[arg-type]
        torch.testing.assert_close(child.get_parameter(name).grad, expected)


@pytest.mark.parametrize("recipe", [EXACT, GROUPED], ids=lambda recipe: recipe.name)
def test_every_new_token_gets_a_gradient(recipe: GrowthRecipe) -> None:
    child = grown(model_of(), (12, 10, 40), recipe)
    tokens = torch.arange(16).view(2, 8)
    child.loss(tokens, tokens.roll(-1, 1)).backward()
    keys, values = child.get_parameter("blocks.0.ffn.keys").grad, child.get_parameter("blocks.0.ffn.values").grad
    assert keys is not None
    assert values is not None
    assert ((keys[20:] != 0).any(1) | (values[20:] != 0).any(1)).all()


def test_dead_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="would never get a gradient"):
        GrowthRecipe("dead", "zero", "zero", "keep")


@pytest.mark.parametrize("settings", [("split", "random", "keep"), ("random", "random", "split")])
def test_half_a_split_is_refused(settings: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="must be split if and only if"):
        GrowthRecipe("half", *settings)  # type: ignore[arg-type]


def test_a_shrinking_count_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="number of out tokens would shrink from 5 to 4"):
        EXACT.grown_config(model_of().config, model_of().config.with_tokens((6, 4, 20)))  # type: ignore[arg-type]


def test_new_rows_take_a_gentle_first_step_with_carried_moments() -> None:
    """With a large step count, AdamW does not correct the bias of fresh zero moments, so the first step would be too
    large."""
    old = torch.nn.Parameter(torch.randn(6, 4))
    optimizer = torch.optim.AdamW([old], lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(200):
        old.grad = torch.randn(6, 4)
        optimizer.step()
    parent = model_of().config
    child = EXACT.grown_config(parent, parent.with_tokens((12, 5, 20)))  # type: ignore[arg-type]

    def first_step(second: str) -> torch.Tensor:
        recipe = replace(EXACT, new_second_moment=second)
        state = optimizer.state[old]
        new = torch.nn.Parameter(torch.zeros(12, 4))
        fresh = torch.optim.AdamW([new], lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
        name = "blocks.0.attention.qkv.query.keys"
        fresh.state[new] = {"step": state["step"].clone()} | {
            slot: recipe.grow_tensor(name, degree, state[slot], parent, child, 0)  # type: ignore[arg-type]
            for slot, degree in (("exp_avg", 1), ("exp_avg_sq", 2))
        }
        torch.manual_seed(0)
        new.grad = torch.randn(12, 4)
        fresh.step()
        return new.detach()[6:].abs()

    zero, mean = first_step("zero"), first_step("mean")
    assert zero.mean() == pytest.approx(0.1 / 0.05**0.5, rel=1e-3)  # independent of the gradient
    assert mean.mean() < 0.25 * zero.mean()  # a tenth of a full step, at the scale of the old rows' gradients


def parent_in(tmp_path: Path, optimizer: Optimizer) -> Path:
    """Write a checkpoint of 7 steps with optimizer slots, and return its folder."""
    model = model_of().float()
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for name, tensor in model.state_dict().items():
        for slot in optimizer.slots(name, tensor.dim()):
            tensors[f"{slot.name}/{name}"] = torch.rand_like(tensor)
    totals = Totals(tokens=700, flops=9000, seconds=3.0, device_seconds=3.0)
    folder = tmp_path / "parent" / checkpoint.folder_name(7)
    checkpoint.write(folder, model.config, Counters(7, 7, Totals(), totals), tensors)
    return folder


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=lambda optimizer: optimizer.name)
@pytest.mark.parametrize("recipe", [PAPER, EXACT, GROUPED, SPLIT], ids=lambda recipe: recipe.name)
def test_a_grown_checkpoint_is_the_grown_model(tmp_path: Path, recipe: GrowthRecipe, optimizer: Optimizer) -> None:
    parent = parent_in(tmp_path, optimizer)
    old_config, _ = checkpoint.read_state(parent)
    assert isinstance(old_config, TokenFormerConfig)
    config = recipe.grown_config(old_config, old_config.with_tokens((12, 11, 50)))
    folder = tmp_path / "child" / checkpoint.folder_name(0)
    grow_checkpoint(parent, folder, config, recipe, optimizer, seed=1)
    checkpoint.verify(folder)
    found, counters = checkpoint.read_state(folder)
    assert found == config
    assert counters.step == 0
    assert counters.totals == counters.before == Totals(700, 9000, 3.0, 3.0)
    assert counters.optimizer_step == (0 if recipe.moments == "drop" else 7)
    expected = grown(checkpoint.load_model(parent).double(), (12, 11, 50), recipe).float()
    for name, tensor in checkpoint.load_model(folder).state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    shapes = checkpoint.shapes(folder)
    assert slots_in(shapes) == (slots_of(optimizer, shapes) if recipe.moments == "carry" else frozenset())
    assert json.loads((folder / "state.json").read_text())["model"]["family"] == "tokenformer"


def test_the_verification_sees_a_change_and_its_absence(tmp_path: Path) -> None:
    parent = parent_in(tmp_path, ADAMW)
    old_config, _ = checkpoint.read_state(parent)
    assert isinstance(old_config, TokenFormerConfig)
    tokens = torch.arange(16).view(2, 8)
    for recipe, same in ((EXACT, True), (PAPER, False)):
        folder = tmp_path / recipe.name / checkpoint.folder_name(0)
        config = recipe.grown_config(old_config, old_config.with_tokens((12, 11, 50)))
        grow_checkpoint(parent, folder, config, recipe, ADAMW, seed=1)
        result = compare_logits(parent, folder, tokens, tokens.roll(-1, 1))
        assert (result.max_logit_difference <= result.tolerance) == same
        assert (result.loss_before == pytest.approx(result.loss_after, abs=1e-12)) == same
