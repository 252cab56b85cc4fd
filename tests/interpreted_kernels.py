"""Print the relative errors of the Triton kernels against the definition. With TRITON_INTERPRET=1, the kernels run on a
CPU."""

import json
from itertools import product

import torch

from tfscale.models import norm_gelu_kernels
from tfscale.models.parameter_tokens import Groups, TokenGroup
from tfscale.models.pattention import joined_pattention, plain_pattention

TOKENS, IN, OUT = 3, 6, 4
SHAPES: tuple[tuple[Groups, int, bool], ...] = (
    ((TokenGroup(33, 5.7),), 1, True),
    ((TokenGroup(20, 3.0), TokenGroup(50, 7.1)), 3, False),
)
"""Token groups, number of projections, and True if the backward pass recomputes the scores."""


def main() -> None:
    """Print a line of JSON with the errors of the output and of all gradients by case."""
    norm_gelu_kernels.LARGEST_BLOCK = 32  # several blocks in a row of scores
    norm_gelu_kernels.wrap_triton = lambda kernel: kernel  # torch 2.11 refuses interpreted kernels
    cases = product((torch.float64, torch.float32, torch.bfloat16), SHAPES)
    print(json.dumps([(str(dtype), errors(dtype, *shape)) for dtype, shape in cases]))


def errors(dtype: torch.dtype, groups: Groups, projections: int, recompute: bool) -> list[float]:
    """Return the relative errors of the output and of the gradients of the input, keys and values."""
    generator = torch.Generator().manual_seed(0)
    n = sum(group.n for group in groups)
    shapes = [(TOKENS, IN), *[(n, IN), (n, OUT)] * projections]
    x, *weights = (torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes)
    pairs = [*zip(weights[::2], weights[1::2], strict=True)]
    gradient = torch.randn(TOKENS, projections, OUT, generator=generator).to(dtype)
    ours = joined_pattention(x, pairs, groups, "l2_norm_gelu", recompute, kernels=True)
    defined = torch.stack([plain_pattention(x, *pair, groups, "l2_norm_gelu") for pair in pairs], dim=-2)
    found, expected = ([out, *torch.autograd.grad(out, (x, *weights), gradient)] for out in (ours, defined))
    return [((a - b).double().norm() / b.double().norm()).item() for a, b in zip(found, expected, strict=True)]


if __name__ == "__main__":
    main()
