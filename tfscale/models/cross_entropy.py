"""Memory-efficient cross-entropy loss for models with tied embeddings. The loss never stores the logits of all tokens
at once.

The logits of one tile of tokens contribute to the loss and, if needed, to the gradients, before the logits of the next
tile overwrite them. Logits are therefore computed only once. A buffer for the logits of one tile replaces tensors with
a total of three values per token and vocabulary entry. On a CPU, where the buffer stays in the caches, this loss is
faster than a loss that stores all logits.

torch 2.13 has a chunked `F.linear_cross_entropy`. It is not used here because torch 2.11 does not have it, and because
it ignores autocast and keeps the embedding's gradient in the precision of the matrix products.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tfscale.models.precision import add_product, product_dtype, wide, without_autocast
from tfscale.models.tiles import logit_rows

Reduction = Literal["mean", "sum"]


def cross_entropy(
    hidden: Tensor, embedding: Tensor, targets: Tensor, reduction: Reduction = "mean", fused: bool = False
) -> Tensor:
    """Return the cross-entropy -log softmax(hidden embedding^T)[target] in nats, summed or averaged over the tokens.
    The result is a scalar in float32 or a wider dtype, and can be differentiated once.

    Matrix products are computed in the precision of `hidden`, or of autocast if autocast is enabled; exponentials, sums
    and the embedding's gradient are computed in at least float32. torch.compile does not compile the loop over the
    tiles of tokens.

    Args:
        hidden: [..., d_model].
        embedding: [vocab_size, d_model].
        targets: [...], token ids.
        fused: True to fuse the element-wise operations on the logits with torch.compile, which saves time on a GPU.
    """
    summed = torch.compiler.disable(_summed) if torch.compiler.is_compiling() else _summed
    loss = summed(hidden.flatten(0, -2), embedding, targets.flatten(), fused)
    return loss if reduction == "sum" else loss / targets.numel()


@torch.no_grad()
def token_losses(hidden: Tensor, embedding: Tensor, targets: Tensor, fused: bool = False) -> Tensor:
    """Return the cross-entropy of every token in nats, without gradients, in the shape of `targets`."""
    losses = hidden.new_empty(targets.numel(), dtype=wide(product_dtype(hidden)))
    tokens = torch.compiler.disable(_by_chunks) if torch.compiler.is_compiling() else _by_chunks
    tokens(hidden.flatten(0, -2), embedding, targets.flatten(), fused, None, losses)
    return losses.view(targets.shape)


def _summed(hidden: Tensor, embedding: Tensor, targets: Tensor, fused: bool) -> Tensor:
    if torch.is_grad_enabled() and (hidden.requires_grad or embedding.requires_grad):
        loss: Tensor = _CrossEntropy.apply(hidden, embedding, targets, fused)  # type: ignore[no-untyped-call]
        return loss
    return _by_chunks(hidden, embedding, targets, fused, None)


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy whose forward pass also computes the gradients. The backward pass only multiplies these gradients
    by the gradient of the loss."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, embedding: Tensor, targets: Tensor, fused: bool) -> Tensor:
        d_hidden = torch.empty_like(hidden)
        d_embedding = torch.empty_like(embedding, dtype=wide(embedding.dtype))
        loss = _by_chunks(hidden, embedding, targets, fused, (d_hidden, d_embedding))
        ctx.save_for_backward(d_hidden, d_embedding.to(embedding.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_embedding = ctx.saved_tensors
        return d_hidden.mul_(d_loss), d_embedding.mul_(d_loss), None, None


def _by_chunks(
    hidden: Tensor,
    embedding: Tensor,
    targets: Tensor,
    fused: bool,
    gradients: tuple[Tensor, Tensor] | None,
    losses: Tensor | None = None,
) -> Tensor:
    """Return the summed loss of `hidden` [tokens, d_model]. If `losses` [tokens] is given, it is overwritten with the
    loss of each token. If `gradients` is given, its two tensors are overwritten with the gradients of `hidden` and
    `embedding`."""
    dtype = product_dtype(hidden)
    weight, targets = embedding.to(dtype), targets[:, None]
    rows = logit_rows(len(hidden), len(embedding), hidden.device.type)
    buffer = hidden.new_empty(rows, len(embedding), dtype=dtype)
    loss = hidden.new_zeros((), dtype=wide(dtype))
    softmax: _Softmax = _fused_softmax() if fused else _softmax
    with without_autocast(hidden):
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            states = hidden[chunk].to(dtype)
            logits = torch.mm(states, weight.T, out=buffer[: len(states)])
            chunk_losses, d_logits, total = softmax(logits, targets[chunk], gradients is not None)
            loss += chunk_losses.sum()
            if losses is not None:
                losses[chunk] = chunk_losses[:, 0]
            if gradients is not None:
                assert d_logits is not None
                d_hidden, d_embedding = gradients
                d_hidden[chunk] = d_logits @ weight / total
                add_product(d_embedding, d_logits.T, (states / total).to(dtype), first=start == 0)
    return loss


_Softmax = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None, Tensor]]


def _softmax(logits: Tensor, target: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return three values: the losses [tokens, 1]; the gradient of the logits times `total`, or None if `gradient` is
    False; and `total`. The logits may be overwritten. `total` [tokens, 1] is the denominator of the softmax. The caller
    divides by it only after the gradient is reduced to d_model values per token, because this takes fewer divisions."""
    scores = logits.to(wide(logits.dtype))
    scores -= scores.amax(-1, keepdim=True)
    at_target = scores.gather(1, target)
    total = scores.exp_().sum(-1, keepdim=True)
    losses = total.log() - at_target
    return losses, scores.scatter_add_(1, target, -total).to(logits.dtype) if gradient else None, total


def _fusable_softmax(logits: Tensor, target: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the same values as `_softmax`. torch.compile fuses the operations of this function and stores no
    intermediate result of the size of the logits. In `_softmax`, torch.compile would store the operand of
    `scatter_add_` in the wider dtype."""
    scores = logits.to(wide(logits.dtype))
    scores = scores - scores.amax(-1, keepdim=True)
    exponentials = scores.exp()
    total = exponentials.sum(-1, keepdim=True)
    losses = total.log() - scores.gather(1, target)
    if not gradient:
        return losses, None, total
    is_target = torch.arange(logits.shape[1], device=logits.device) == target
    return losses, torch.where(is_target, exponentials - total, exponentials).to(logits.dtype), total


@functools.cache
def _fused_softmax() -> _Softmax:
    compiled = torch.compile(_fusable_softmax, dynamic=False)

    def fused(logits: Tensor, target: Tensor, gradient: bool) -> tuple[Tensor, Tensor | None, Tensor]:
        for rows in (logits, target):  # one compilation for all tiles, which differ in size
            torch._dynamo.maybe_mark_dynamic(rows, 0)
        return compiled(logits, target, gradient)

    return fused
