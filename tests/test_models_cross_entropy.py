"""Tests of the chunked cross-entropy against the plain one."""

import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

from tfscale.models import cross_entropy as module
from tfscale.models import tiles
from tfscale.models.cross_entropy import Reduction, cross_entropy
from tfscale.models.init import build_model
from tfscale.models.transformer import TransformerConfig

VOCAB, WIDTH = 61, 32
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-2}
"""Relative tolerance for the norm of each gradient, of some tens of rounding errors."""


@pytest.fixture(autouse=True)
def _many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "LOGIT_TOKENS", 10)
    monkeypatch.setitem(tiles.TILE_VALUES, "cpu", 20 * VOCAB)


def case(dtype: torch.dtype = torch.float32, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = (torch.randn(3, 17, WIDTH, generator=generator) * scale).to(dtype).requires_grad_()
    embedding = torch.randn(VOCAB, WIDTH, generator=generator).to(dtype).requires_grad_()
    return hidden, embedding, torch.randint(VOCAB, (3, 17), generator=generator)


def plain(hidden: Tensor, embedding: Tensor, targets: Tensor, reduction: Reduction) -> Tensor:
    logits = (hidden @ embedding.T).flatten(0, 1)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(wide, targets.flatten(), reduction=reduction)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = ours.detach().double(), theirs.detach().double()
    return float((ours - theirs).norm() / theirs.norm())


def assert_equal(hidden: Tensor, embedding: Tensor, targets: Tensor, limit: float, reduction: Reduction) -> None:
    ours, theirs = cross_entropy(hidden, embedding, targets, reduction), plain(hidden, embedding, targets, reduction)
    assert ours.dtype == theirs.dtype
    assert relative_error(ours, theirs) < limit
    for mine, other in zip(
        torch.autograd.grad(3 * ours, (hidden, embedding)),
        torch.autograd.grad(3 * theirs, (hidden, embedding)),
        strict=True,
    ):
        assert mine.dtype == other.dtype
        assert relative_error(mine, other) < limit


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_the_plain_ones(dtype: torch.dtype, reduction: Reduction) -> None:
    assert_equal(*case(dtype), TOLERANCE[dtype], reduction)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_under_autocast_products_are_bf16_and_float64_is_left_alone(dtype: torch.dtype) -> None:
    hidden, embedding, targets = case(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(hidden, embedding, targets, 1e-14 if dtype == torch.float64 else 1e-2, "sum")
        low = cross_entropy(hidden, embedding, targets)
    assert (low == cross_entropy(hidden, embedding, targets)) == (dtype == torch.float64)


def test_huge_logits_neither_overflow_nor_lose_the_likeliest() -> None:
    assert_equal(*case(scale=1e4), 1e-6, "sum")


def test_a_tied_embedding_gets_the_gradient_of_both_its_uses() -> None:
    _, embedding, targets = case()
    gradients = []
    for function in (cross_entropy, plain):
        loss = function(F.embedding(targets.flip(0), embedding).tanh(), embedding, targets, "mean")
        gradients.append(torch.autograd.grad(loss, embedding)[0])
    assert relative_error(*gradients) < 1e-6


@pytest.mark.parametrize("frozen", [0, 1])
def test_one_side_may_be_frozen(frozen: int) -> None:
    hidden, embedding, targets = case()
    (hidden, embedding)[frozen].requires_grad_(False)
    wanted = (hidden, embedding)[1 - frozen]
    (ours,) = torch.autograd.grad(cross_entropy(hidden, embedding, targets), wanted)
    (theirs,) = torch.autograd.grad(plain(hidden, embedding, targets, "mean"), wanted)
    assert relative_error(ours, theirs) < 1e-6


@pytest.fixture(params=[torch.no_grad, torch.inference_mode])
def _without_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    with request.param():
        yield


@pytest.mark.usefixtures("_without_gradients")
def test_evaluation_gives_the_same_loss() -> None:
    hidden, embedding, targets = case()
    ours = cross_entropy(hidden, embedding, targets, "sum")
    assert relative_error(ours, plain(hidden, embedding, targets, "sum")) < 1e-6


def test_torch_compile_goes_around_the_loop_and_changes_nothing() -> None:
    hidden, embedding, targets = case()

    def loss(states: Tensor) -> Tensor:
        return cross_entropy(states.tanh(), embedding, targets)

    compiled = torch.compile(loss, backend="aot_eager")
    for _ in range(2):
        ours, theirs = compiled(hidden), loss(hidden)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert relative_error(*(torch.autograd.grad(each, hidden)[0] for each in (ours, theirs))) < 1e-6


def test_a_second_backward_pass_is_an_error_and_not_a_wrong_gradient() -> None:
    hidden, embedding, targets = case()
    loss = cross_entropy(hidden, embedding, targets)
    (2 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError):
        loss.backward()


@pytest.mark.parametrize("tokens", [1, 511, 512, 513, 1024, 8192, 10_000])
def test_tiles_are_even_and_bounded(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rows = tiles.logit_rows(tokens, 50_304, "cpu")
    count = -(-tokens // rows)
    assert rows <= 512
    assert count == -(-tokens // 512)
    assert count * rows - tokens < count


@pytest.mark.parametrize("gradient", [False, True])
def test_the_fusable_softmax_is_the_other_one_to_the_last_bit(gradient: bool) -> None:
    logits = torch.randn(40, VOCAB, generator=torch.Generator().manual_seed(0)).bfloat16()
    target = torch.arange(40)[:, None]
    fusable = module._fusable_softmax(logits, target, gradient)
    for mine, other in zip(fusable, module._softmax(logits, target, gradient), strict=True):
        assert (mine is None and other is None) or (mine is not None and other is not None and torch.equal(mine, other))


def test_compiled_softmax_stores_no_logits_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.ir.is_cpu", lambda value: False)  # on a CPU, it stores all exponentials
    logits, target = torch.randn(16, 300).bfloat16(), torch.zeros(16, 1, dtype=torch.int64)
    with torch._inductor.config.patch(fx_graph_cache=False):
        _, [code] = run_and_get_code(torch.compile(module._fusable_softmax), logits, target, True)
    assert re.findall(r"empty_strided_cpu\(\(16, 300\), .*(torch\.\w+)\)", code) == ["torch.bfloat16"]


def test_compiled_parts_learn_the_same() -> None:
    config = TransformerConfig(n_layer=2, d_model=32, n_head=4, vocab_size=VOCAB, context=16, d_ff=64)
    tokens = torch.randint(VOCAB, (3, 17), generator=torch.Generator().manual_seed(0))
    gradients = []
    for compiled in (False, True):
        model = build_model(config, seed=0).double()
        if compiled:
            model.compile_parts()
        with torch.compiler.set_stance("force_eager"):  # tests the code to be compiled, not the compiler
            model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        assert relative_error(ours, theirs) < 1e-14
