"""What autocast means inside an autograd function, which autocast itself does not enter."""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """The precision of a matrix product with `x`: its own, or autocast's where that is on. Autocast leaves float64."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Where every product has the precision of its operands."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The precision of long sums over values of `dtype`: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def add_product(total: Tensor, a: Tensor, b: Tensor, first: bool = False) -> None:
    """Adds a product to a total that may be wider than its factors, in place. The `first` one
    is written over what is there, which saves filling the total with zeros."""
    if first:
        product(a, b, out=total)
    elif a.dtype == total.dtype:
        torch.addmm(total, a, b, out=total)
    else:
        total += a @ b


def product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Writes a product where it may be wider than its factors."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)
