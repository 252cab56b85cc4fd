"""Helpers for the precision of matrix products in custom autograd functions, to which autocast does not apply."""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which a matrix product with `x` is computed. This is the autocast dtype if autocast is
    enabled and `x` is not float64, and otherwise the dtype of `x`."""
    kind = x.device.type
    if _is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Return a context manager that disables autocast on the device of `x`."""
    kind = x.device.type
    if _is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def _is_autocast_enabled(kind: str) -> bool:
    # The meta device has no autocast. torch 2.11 cannot compile `torch.amp.is_autocast_available`.
    return kind != "meta" and torch.is_autocast_enabled(kind)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which values of `dtype` are accumulated. This is float32, or `dtype` if it is wider."""
    return torch.promote_types(dtype, torch.float32)


def add_product(total: Tensor, a: Tensor, b: Tensor, first: bool = False) -> None:
    """Add the matrix product of `a` and `b` in place to `total`, which may have a wider dtype. If `first` is True,
    overwrite `total` instead, so that the caller need not fill it with zeros."""
    if a.dtype == total.dtype:
        torch.mm(a, b, out=total) if first else torch.addmm(total, a, b, out=total)
    elif first:
        total.copy_(a @ b)
    else:
        total += a @ b
