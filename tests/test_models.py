"""Tests of the results of Pattention and of both model families."""

import math
from dataclasses import replace

import pytest
import torch
from test_models_pattention import pattention
from torch.nn import functional as F

from tfscale.models.config import ModelConfig
from tfscale.models.families import from_dict, to_dict
from tfscale.models.init import build_model, init_tensor
from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.pattention import Pattention, QKVPattention
from tfscale.models.rotary import rotary_table, rotate, rotated_heads
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig


def groups(*sizes: int) -> tuple[TokenGroup, ...]:
    return tuple(TokenGroup(n, default_tau("l2_norm_gelu", n)) for n in sizes)


def tokenformer(**changes: object) -> TokenFormerConfig:
    values = {"n_layer": 2, "d_model": 32, "n_head": 4, "vocab_size": 67, "context": 16, "qkv": groups(12),
              "out": groups(10), "ffn": groups(40), **changes}  # fmt: skip
    return TokenFormerConfig(**values)  # type: ignore[arg-type]


TRANSFORMER = TransformerConfig(n_layer=2, d_model=32, n_head=4, vocab_size=67, context=16, d_ff=128)
FAMILIES: list[ModelConfig] = [
    tokenformer(),
    tokenformer(qkv=groups(8, 4), out=groups(5, 5), ffn=groups(30, 10)),
    TRANSFORMER,
]


def test_pattention_is_equation_16() -> None:
    x, keys, values = torch.randn(5, 8), torch.randn(12, 8), torch.randn(12, 6)
    scores = x @ keys.T
    expected = F.gelu(scores / scores.norm(dim=-1, keepdim=True) * math.sqrt(12)) @ values
    torch.testing.assert_close(pattention(x, keys, values, groups(12), "l2_norm_gelu"), expected)


def test_each_group_has_its_own_norm() -> None:
    x, keys, values = torch.randn(5, 8), torch.randn(12, 8), torch.randn(12, 6)
    apart = pattention(x, keys[:8], values[:8], groups(8), "l2_norm_gelu") + pattention(
        x, keys[8:], values[8:], groups(4), "l2_norm_gelu"
    )
    torch.testing.assert_close(pattention(x, keys, values, groups(8, 4), "l2_norm_gelu"), apart)


@pytest.mark.parametrize("kind", ["l2_norm_gelu", "l1_norm_gelu", "gelu_l2_norm"])
def test_a_zero_row_gives_zero_and_finite_gradients(kind: str) -> None:
    keys = torch.randn(12, 8, requires_grad=True)
    out = pattention(torch.zeros(1, 8), keys, torch.randn(12, 6), groups(12), kind)  # type: ignore[arg-type]
    out.sum().backward()
    assert (out == 0).all()
    assert keys.grad is not None
    assert keys.grad.isfinite().all()


def test_softmax_is_exp_and_l1_times_tau() -> None:
    x, keys, values = torch.randn(5, 8), torch.randn(12, 8), torch.randn(12, 6)
    expected = 12 * torch.softmax(x @ keys.T, -1) @ values
    torch.testing.assert_close(pattention(x, keys, values, (TokenGroup(12, 12.0),), "softmax"), expected)


def test_queries_keys_and_values_made_together_equal_three_layers() -> None:
    layer = QKVPattention(8, groups(6, 3), "l2_norm_gelu")
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 8)
    for joint, alone in zip(layer(x).unbind(-2), (layer.query, layer.key, layer.value), strict=True):
        assert isinstance(alone, Pattention)
        torch.testing.assert_close(joint, alone(x))


@pytest.mark.parametrize("config", FAMILIES)
def test_the_future_does_not_reach_the_past(config: ModelConfig) -> None:
    model = build_model(config, seed=0)
    tokens = torch.randint(67, (1, 16))
    changed = tokens.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 67
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[0, :10], after[0, :10])
    assert not torch.allclose(before[0, 10:], after[0, 10:])


@pytest.mark.parametrize("config", FAMILIES)
def test_an_untrained_model_knows_nothing(config: ModelConfig) -> None:
    tokens = torch.randint(67, (8, 17))
    loss = build_model(config, seed=0).loss(tokens[:, :-1], tokens[:, 1:])
    assert loss.item() == pytest.approx(math.log(67), abs=0.5)


def test_the_transformer_is_the_textbook_one() -> None:
    model = build_model(TRANSFORMER, seed=3)
    weights = dict(model.named_parameters())
    tokens = torch.randint(67, (2, 16))
    x = weights["embedding"][tokens]
    table = rotary_table(TRANSFORMER, torch.arange(16), x.dtype)
    assert table is not None
    mask = torch.full((16, 16), -torch.inf).triu(1)
    for i in range(2):
        w = {name.removeprefix(f"blocks.{i}."): weights[name] for name in weights if name.startswith(f"blocks.{i}.")}
        normed = F.layer_norm(x, (32,), w["attention_norm.weight"])
        q, k, v = ((normed @ part.T).view(2, 16, 4, 8) for part in w["attention.qkv.weight"].chunk(3))
        q, k, v = (part.transpose(1, 2) for part in (rotate(q, table), rotate(k, table), v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(8) + mask
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 16, 32) @ w["attention.output.weight"].T
        normed = F.layer_norm(x, (32,), w["ffn_norm.weight"])
        x = x + F.gelu(normed @ w["ffn.up.weight"].T) @ w["ffn.down.weight"].T
    x = F.layer_norm(x, (32,), weights["final_norm.weight"], weights["final_norm.bias"])
    torch.testing.assert_close(model(tokens), x @ weights["embedding"].T, rtol=1e-4, atol=1e-4)


def test_rotary_depends_on_distance_alone_and_can_be_left_out() -> None:
    config = tokenformer()
    table = rotary_table(config, torch.arange(16), torch.float64)
    assert table is not None
    q, k = (torch.randn(8, dtype=torch.float64).expand(16, 1, 8) for _ in range(2))
    scores = rotate(q, table)[:, 0] @ rotate(k, table)[:, 0].T
    torch.testing.assert_close(scores[0, 3], scores[7, 10])
    assert rotary_table(tokenformer(rotary=0.0), torch.arange(16), torch.float32) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_heads_rotated_in_place_are_the_rotated_ones_with_their_gradients(dtype: torch.dtype) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    table, exact = (rotary_table(tokenformer(), torch.arange(16), each) for each in (wide, torch.float64))
    assert table is not None
    assert exact is not None
    qkv, gradients = torch.randn(2, 16, 3, 4, 8).to(dtype).requires_grad_(), torch.randn(3, 2, 16, 4, 8).to(dtype)
    ours = rotated_heads(qkv * 1, table)  # a leaf must not be overwritten
    q, k, v = qkv.double().unbind(2)
    expected = rotate(q, exact), rotate(k, exact), v
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs.to(dtype))
    (d_ours,) = torch.autograd.grad(ours, qkv, tuple(gradients))
    (d_expected,) = torch.autograd.grad(expected, qkv, tuple(gradients.double()))
    torch.testing.assert_close(d_ours, d_expected)


def test_what_was_overwritten_by_rotation_cannot_be_used_unnoticed() -> None:
    table = rotary_table(tokenformer(), torch.arange(16), torch.float32)
    qkv = torch.randn(2, 16, 3, 4, 8, requires_grad=True).exp()  # exp needs its output in the backward pass
    q, _, _ = rotated_heads(qkv, table)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        q.sum().backward()


@pytest.mark.parametrize("config", FAMILIES)
def test_a_config_is_read_back_as_it_was(config: ModelConfig) -> None:
    assert from_dict(to_dict(config)) == config


def test_initial_values_are_those_of_the_official_configs() -> None:
    config = tokenformer(n_layer=12, d_model=768, n_head=12)
    keys = init_tensor("blocks.0.ffn.keys", (2304, 768), config, seed=0)
    values = init_tensor("blocks.0.ffn.values", (2304, 768), config, seed=0)
    assert keys.std().item() == pytest.approx(0.02, rel=0.01)
    assert values.std().item() == pytest.approx(2 / 12 / math.sqrt(768), rel=0.01)


def test_scaled_first_values_follow_width_and_depth() -> None:
    official = tokenformer(n_layer=12, d_model=768, n_head=12)
    wide, small = replace(official, init="scaled"), tokenformer(n_layer=2, d_model=32, init="scaled")
    keys, values = "blocks.0.ffn.keys", "blocks.0.ffn.values"
    assert wide.init_std(keys) == pytest.approx(official.init_std(keys))
    assert small.init_std(keys) == pytest.approx(0.02 * math.sqrt(768 / 32))
    assert small.init_std(values) == pytest.approx(1 / math.sqrt(2 * 2 * 32))
    assert small.init_std("embedding") == official.init_std("embedding")
    assert init_tensor(keys, (4000, 32), small, seed=0).std().item() == pytest.approx(small.init_std(keys), rel=0.02)
    assert "init" not in to_dict(official)  # existing keys and checkpoints do not change
    assert from_dict(to_dict(small)) == small


def test_a_tensors_first_values_depend_on_seed_and_name_alone() -> None:
    small, large = tokenformer(n_layer=2), tokenformer(n_layer=2, qkv=groups(6), out=groups(3), vocab_size=99)
    a = dict(build_model(small, seed=5).named_parameters())["blocks.1.ffn.keys"]
    b = dict(build_model(large, seed=5).named_parameters())["blocks.1.ffn.keys"]
    assert torch.equal(a, b)
    assert not torch.equal(a, dict(build_model(small, seed=6).named_parameters())["blocks.1.ffn.keys"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_head": 5}, "n_head=5: must divide d_model=32"),
        ({"rotary": 1.5}, "rotary=1.5"),
        ({"norm_activation": "relu"}, "norm_activation='relu'"),
        ({"ffn": ()}, "at least one parameter token"),
        ({"init": "xavier"}, "init='xavier': must be one of official, scaled"),
    ],
)
def test_an_impossible_model_is_refused_in_words(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tokenformer(**changes)
