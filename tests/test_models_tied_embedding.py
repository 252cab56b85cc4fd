"""Tests that both uses of the embedding share one gradient, which equals the sum that autograd would compute."""

import torch
from torch import Tensor
from torch.nn import functional as F

from tfscale.models.tied_embedding import look_up

TOKENS = torch.tensor([[3, 1, 3], [0, 6, 3]])
TARGETS = torch.tensor([[1, 3, 0], [6, 3, 5]])


def embedding() -> Tensor:
    return torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def through_both(rows: Tensor, weight: Tensor) -> Tensor:
    return F.cross_entropy((rows.tanh() @ weight.T).flatten(0, -2), TARGETS.flatten())


def test_the_gradient_is_autograds_with_rows_that_repeat_and_with_batches_that_add_up() -> None:
    ours, autograds = embedding(), embedding()
    for tokens in (TOKENS, TOKENS.flip(1)):
        through_both(*look_up(tokens, ours)).backward()
        through_both(F.embedding(tokens, autograds), autograds).backward()
    torch.testing.assert_close(ours.grad, autograds.grad, rtol=0, atol=1e-15)


def test_without_the_second_use_it_is_a_plain_lookup() -> None:
    ours, autograds = embedding(), embedding()
    look_up(TOKENS, ours)[0].square().sum().backward()
    F.embedding(TOKENS, autograds).square().sum().backward()
    torch.testing.assert_close(ours.grad, autograds.grad, rtol=0, atol=0)


def test_rows_of_bf16_are_added_in_the_precision_of_the_weights() -> None:
    weight = embedding().detach().float().requires_grad_()
    rows, again = look_up(TOKENS, weight)
    (rows.to(torch.bfloat16).sum() + 0 * again.square().sum()).backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert weight.grad[:, 0].tolist() == [1, 1, 0, 3, 0, 0, 1, 0]


def test_without_gradients_nothing_is_kept() -> None:
    weight = embedding()
    with torch.no_grad():
        rows, again = look_up(TOKENS, weight)
    assert again is weight
    assert not rows.requires_grad
