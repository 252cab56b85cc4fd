"""Pattention with the norm of the scores computed from the Gram matrix of the keys.

The norm of the scores s = K x can be computed without the scores, because |s|^2 = x^T (K^T K) x. Scaling the input
first therefore leaves a GELU network without biases, whose element-wise operations torch.compile fuses. The additional
cost is the product K^T K, once per batch, and a product with a d x d matrix per token, which is d / (3 n) of the FLOPs
of a forward and a backward pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tfscale.models.parameter_tokens import ALIGNMENT
from tfscale.models.precision import product_dtype
from tfscale.models.tiled_pattention import NORM_EPS


def gram_pattention(x: Tensor, projections: Sequence[tuple[Tensor, Tensor]], tau: float) -> Tensor:
    """Return the outputs [tokens, projections, d_out] of Pattention projections with `l2_norm_gelu` and one group.

    Args:
        x: inputs [tokens, d_in].
        projections: keys [n, d_in] and values [n, d_out] of each projection.
    """
    return torch.stack([_one(x, keys, values, tau) for keys, values in projections], dim=1)


def _one(x: Tensor, keys: Tensor, values: Tensor, tau: float) -> Tensor:
    dtype, missing = product_dtype(x), -len(keys) % ALIGNMENT
    keys, values = (F.pad(each.to(dtype), (0, 0, 0, missing)) for each in (keys, values))
    scaled = (x * _scale(x, keys, tau)).to(dtype)
    return F.gelu(scaled @ keys.T) @ values


def _scale(x: Tensor, keys: Tensor, tau: float) -> Tensor:
    """Return tau divided by the norm of the scores [tokens, 1], computed in at least float32 from keys in the precision
    of the scores."""
    with torch.autocast(x.device.type, enabled=False):
        wide = torch.promote_types(x.dtype, torch.float32)
        keys, x = keys.to(wide), x.to(wide)
        squares = (x @ (keys.T @ keys) * x).sum(-1, keepdim=True)
        return torch.rsqrt(squares / tau**2 + NORM_EPS)
