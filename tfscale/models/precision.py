"""Precision of matrix products inside autograd functions, where autocast has no effect by itself."""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the precision of a matrix product with `x`: the dtype of x, or that of autocast if it is on and x is not
    float64."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Return a context manager in which every product has the precision of its operands."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the precision of long sums over values of `dtype`, which is at least float32."""
    return torch.promote_types(dtype, torch.float32)


def add_product(total: Tensor, a: Tensor, b: Tensor, first: bool = False) -> None:
    """Add the product of `a` and `b` in place to `total`, which may have a wider dtype. The `first` product overwrites
    the total, which saves filling it with zeros."""
    if first:
        product(a, b, out=total)
    elif a.dtype == total.dtype:
        torch.addmm(total, a, b, out=total)
    else:
        total += a @ b


def product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Write the product of `a` and `b` into `out`, which may have a wider dtype."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)
