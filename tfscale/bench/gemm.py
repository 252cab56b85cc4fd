"""The matrix-multiply peak: what every share of the machine is a share of."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from tfscale.bench.settings import Settings

NAME = "matrix product"
"""The contestant that every case has."""
PRODUCTS = 8
"""In a row: one alone is too short beside the steps that it is held against to see what else the machine does."""


def side(settings: Settings) -> int:
    """Rows of the square matrices."""
    return 8192 if settings.device == "cuda" else 2048


def matrix_product(settings: Settings) -> Callable[[], object]:
    """Products of square matrices, in the precision of training: bf16 on CUDA, float32 on the CPU."""
    dtype = torch.bfloat16 if settings.device == "cuda" else torch.float32
    a, b = (torch.randn(side(settings), side(settings), device=settings.device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b, out=out)

    return run


def rate(settings: Settings, found: Mapping[str, Sequence[float]]) -> float:
    """FLOPs a second of the products among measured seconds."""
    return PRODUCTS * 2 * side(settings) ** 3 / median(found[NAME])
