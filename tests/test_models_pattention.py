"""Tests of the implementations of Pattention against its definition."""

import pytest
import torch
from torch import Tensor, nn

from tfscale.models import tiles
from tfscale.models.execution import Recompute
from tfscale.models.init import build_model
from tfscale.models.parameter_tokens import Groups, NormActivation, TokenGroup, default_tau
from tfscale.models.pattention import Pattention, pattentions, plain_pattention
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig

IN, OUT = 24, 20
LIMIT = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 1e-2}
"""Relative tolerance for the norm of a result, of a few rounding errors."""

KINDS: list[NormActivation] = ["l2_norm_gelu", "l1_norm_gelu", "gelu_l2_norm", "softmax"]


@pytest.fixture(autouse=True)
def _many_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "SCORE_TOKENS", 9)
    monkeypatch.setattr(tiles, "REMADE_SCORE_TOKENS", 7)
    monkeypatch.setitem(tiles.TILE_VALUES, "cpu", 0)


def groups(*sizes: int, kind: NormActivation = "l2_norm_gelu") -> Groups:
    return tuple(TokenGroup(n, default_tau(kind, n)) for n in sizes)


def operands(n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 8, IN), (n, IN), (n, OUT))
    x, keys, values = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    return x, keys, values


def pattention(
    x: Tensor, keys: Tensor, values: Tensor, groups: Groups, kind: NormActivation, recompute: bool = False
) -> Tensor:
    return pattentions(x, [(keys, values)], groups, kind, recompute).squeeze(-2)


def results(out: Tensor, operands: tuple[Tensor, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(out.shape, generator=generator).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, operands, gradient)]


def assert_close(ours: list[Tensor], theirs: list[Tensor], limit: float) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        assert mine.isfinite().all()
        assert (mine - other).double().norm() <= limit * other.double().norm()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("sizes", [(33,), (20, 9, 4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_output_and_gradients_are_the_plain_ones(dtype: torch.dtype, sizes: tuple[int, ...], recompute: bool) -> None:
    parts, given = groups(*sizes), operands(sum(sizes), dtype)
    ours = results(pattention(*given, parts, "l2_norm_gelu", recompute), given)
    assert_close(ours, results(plain_pattention(*given, parts, "l2_norm_gelu"), given), LIMIT[dtype])


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("sizes", [(33,), (20, 9, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_projections_made_together_are_each_ones_own(
    kind: NormActivation, sizes: tuple[int, ...], recompute: bool
) -> None:
    parts, (x, *weights) = groups(*sizes, kind=kind), operands(33, torch.float64)
    weights += [torch.randn_like(weight).requires_grad_() for weight in weights]
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    pairs.append((weights[2], weights[1]))  # two projections may share their keys
    ours = pattentions(x, pairs, parts, kind, recompute)
    theirs = torch.stack([plain_pattention(x, *pair, parts, kind) for pair in pairs], dim=-2)
    assert ours.shape == (5, 8, 3, OUT)
    assert_close(results(ours, (x, *weights)), results(theirs, (x, *weights)), 1e-14)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_under_autocast_products_are_bf16_and_float64_is_left_alone(dtype: torch.dtype, recompute: bool) -> None:
    given = operands(33, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        ours = pattention(*given, groups(33), "l2_norm_gelu", recompute)
        theirs = plain_pattention(*given, groups(33), "l2_norm_gelu")
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.bfloat16)
    assert_close(results(ours, given), results(theirs, given), LIMIT[ours.dtype])


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_recomputed(kind: NormActivation, recompute: bool) -> None:
    parts, given = groups(20, 13, kind=kind), operands(33, torch.float64)
    ours = results(pattention(*given, parts, kind, recompute), given)
    assert_close(ours, results(plain_pattention(*given, parts, kind), given), 1e-14)


@pytest.mark.parametrize("recompute", [False, True])
def test_zero_rows_give_zero_and_the_plain_gradients(recompute: bool) -> None:
    x, keys, values = operands(33, torch.float64)
    with torch.no_grad():
        x[2] = 0
        x[4, 3] *= 1e-160  # its squares underflow
    given = (x, keys, values)
    ours = results(pattention(*given, groups(33), "l2_norm_gelu", recompute), given)
    assert (ours[0][2] == 0).all()
    assert_close(ours, results(plain_pattention(*given, groups(33), "l2_norm_gelu"), given), 1e-14)


@pytest.mark.parametrize("recompute", [False, True])
def test_operands_and_gradients_may_lie_in_memory_as_they_like(recompute: bool) -> None:
    x = torch.randn(IN, 8, 5, dtype=torch.float64).permute(2, 1, 0).requires_grad_()
    keys = torch.randn(IN, 33, dtype=torch.float64).T.requires_grad_()
    values = torch.randn(33, 2 * OUT, dtype=torch.float64)[:, ::2].requires_grad_()
    given = (x, keys, values)
    ours, theirs = (
        torch.autograd.grad(out.sum(), given)  # the gradient of a sum is expanded: all its strides are zero
        for out in (
            pattention(*given, groups(33), "l2_norm_gelu", recompute),
            plain_pattention(*given, groups(33), "l2_norm_gelu"),
        )
    )
    assert_close(list(ours), list(theirs), 1e-14)


def kept_bytes(recompute: bool, tokens: int, n: int) -> int:
    """Return the bytes saved for the backward pass, without the operands."""
    x, keys, values = (torch.randn(rows, 16, requires_grad=True) for rows in (tokens, n, n))
    own, kept = {each.data_ptr() for each in (x, keys, values)}, 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.untyped_storage().nbytes() if tensor.data_ptr() not in own else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pattention(x, keys, values, groups(n), "l2_norm_gelu", recompute)
    return kept


def test_one_value_a_score_is_kept_and_with_recompute_one_a_token() -> None:
    assert kept_bytes(False, tokens=64, n=100) == 4 * 64 * (100 + 1)
    assert kept_bytes(True, tokens=64, n=100) == 4 * 64


def tokenformer(kind: NormActivation = "l2_norm_gelu") -> TokenFormerConfig:
    parts = {"qkv": groups(8, 4, kind=kind), "out": groups(10, kind=kind), "ffn": groups(30, 10, kind=kind)}
    return TokenFormerConfig(n_layer=2, d_model=32, n_head=4, vocab_size=67, context=16, norm_activation=kind, **parts)


CONFIGS = [
    *(tokenformer(kind) for kind in KINDS),
    TransformerConfig(n_layer=2, d_model=32, n_head=4, vocab_size=67, context=16, d_ff=64),
]


@pytest.mark.parametrize("recompute", ["pattention", "blocks"])
@pytest.mark.parametrize("config", CONFIGS)
def test_a_model_that_recomputes_learns_the_same(
    config: TokenFormerConfig | TransformerConfig, recompute: Recompute
) -> None:
    tokens = torch.randint(67, (3, 17), generator=torch.Generator().manual_seed(0))
    found = []
    for what in ("none", recompute):
        model = build_model(config, seed=0).double()
        model.recompute = what
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == 1 + len(list(model.parameters()))
    assert_close(found[1], found[0], 1e-12)


def test_recompute_reaches_every_pattention_and_can_be_taken_back() -> None:
    model = build_model(CONFIGS[0], seed=0)
    layers = [module for module in model.modules() if isinstance(module, Pattention)]
    assert len(layers) == 2 * 5
    for what, expected in (("pattention", True), ("blocks", False), ("none", False)):
        model.recompute = what  # type: ignore[assignment]
        assert model.recompute == what
        assert {layer.recompute for layer in layers} == {expected}


@pytest.mark.parametrize("recompute", ["none", "pattention", "blocks"])
def test_compiled_blocks_learn_the_same(recompute: Recompute) -> None:
    torch._dynamo.reset()
    tokens = torch.randint(67, (3, 17), generator=torch.Generator().manual_seed(0))
    found = []
    for compiled in (False, True):
        model = build_model(CONFIGS[0], seed=0).double()
        model.recompute = recompute
        if compiled:
            for block in model.blocks:
                assert isinstance(block, nn.Module)
                block.compile(backend="aot_eager")
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert_close(found[1], found[0], 1e-12)
