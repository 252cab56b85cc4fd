"""Muon's update of matrices, computed on one device or divided over several ranks.

torch.optim.Muon orthogonalises each weight as one matrix on every rank, and scales the update by the shape of this
matrix. Here a weight may stack several matrices (fused queries, keys and values), the scale is a setting, rows that are
frozen after a growth are excluded from the orthogonalisation, and weights may be sharded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from tfscale.optimizers.base import chunks
from tfscale.optimizers.eager import EagerOptimizer
from tfscale.optimizers.sharded import first_row, local, whole

STACKED = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Maximum number of values in a batch of matrices of equal shape that are orthogonalised together, by device type.
Larger matrices are orthogonalised one by one, because each of them keeps the device busy and a batch would copy them.
One matrix of width 768 occupies less than half of a large GPU."""


@dataclass(frozen=True)
class Update:
    """Weight that Muon updates, and the settings of its update."""

    weight: Tensor
    scale: float
    """Factor by which the orthogonalised update is multiplied, in addition to the learning rate."""
    parts: tuple[int, ...]
    """Numbers of rows of the matrices that are stacked in the weight and orthogonalised separately. The sum is the
    number of rows of the weight."""


class OrthogonalMomentum(EagerOptimizer, torch.optim.Muon):
    """Muon with one parameter group per weight. With several ranks, each rank orthogonalises some of the weights and
    sends the results to all other ranks, so the weights of all ranks stay bitwise equal.

    As in torch's fused optimizers, updates are skipped if the attribute `found_inf`, a scalar on the device, is 1.
    """

    _step_supports_amp_scaling = True
    found_inf: Tensor | None = None

    def __init__(self, updates: Sequence[Update], lr: float, weight_decay: float, momentum: float, ns_steps: int):
        groups = [{"params": [each.weight]} for each in updates]
        super().__init__(groups, lr=lr, weight_decay=weight_decay, momentum=momentum, ns_steps=ns_steps)
        self._updates = list(updates)
        self.frozen: dict[Tensor, int] = {}
        """Numbers of leading rows that are excluded from the orthogonalisation, by weight. In an update, only weight
        decay changes these rows."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the weights that have gradients. All ranks must call this method together."""
        assert closure is None
        active = [(each, group) for each, group in zip(self._updates, self.param_groups, strict=True)
                  if each.weight.grad is not None]  # fmt: skip
        for members in chunks([each.weight.numel() for each, _ in active], _rank_and_number()[1]):
            chunk = active[members]
            directions = self._orthogonal([(each, self._direction(each.weight, group)) for each, group in chunk])
            for (each, group), direction in zip(chunk, directions, strict=True):
                rows = local(each.weight)
                first = first_row(each.weight)
                kept: float | Tensor = 1.0
                if self.found_inf is not None:
                    kept = 1 - self.found_inf.double()
                    direction.mul_(kept)
                rows.mul_(1 - kept * (group["lr"] * group["weight_decay"]))
                rows.add_(direction[first : first + len(rows)], alpha=-group["lr"] * each.scale)

    def _direction(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        """Update the momentum of a weight. Return Nesterov's momentum, which is the matrix to orthogonalise. If the
        weight is sharded, the result is gathered from all ranks."""
        assert weight.grad is not None
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum_buffer"]
        gradient = weight.grad
        if self.found_inf is not None:  # the momentum does not change, and the values to orthogonalise are finite
            gradient = torch.where(self.found_inf.bool(), momentum, gradient)
        momentum.lerp_(gradient, 1 - group["momentum"])
        return whole(gradient.lerp(momentum, group["momentum"]))

    def _orthogonal(self, given: list[tuple[Update, Tensor]]) -> list[Tensor]:
        """Return the orthogonalised matrices of all given weights. Each matrix is computed by one rank and sent to the
        other ranks."""
        rank, ranks = _rank_and_number()
        mine = [index for index in range(len(given)) if index % ranks == rank]
        done = dict(zip(mine, self._orthogonal_here([given[index] for index in mine]), strict=True))
        results = []
        for index, (_, matrix) in enumerate(given):
            result = done.get(index)
            if ranks > 1:
                result = torch.empty_like(matrix) if result is None else result
                dist.broadcast(result, src=index % ranks)
            assert result is not None
            results.append(result)
        return results

    def _orthogonal_here(self, given: list[tuple[Update, Tensor]]) -> list[Tensor]:
        results = [torch.zeros_like(matrix) for _, matrix in given]
        parts: list[tuple[Tensor, Tensor]] = []  # rows of the matrices, and rows of the results to fill
        for (each, matrix), result in zip(given, results, strict=True):
            begin = 0
            for rows in each.parts:
                end = begin + rows
                begin = max(begin, min(self.frozen.get(each.weight, 0), end))
                if begin < end:
                    parts.append((matrix[begin:end], result[begin:end]))
                begin = end
        defaults = self.defaults
        for batch in _batches(parts):
            stacked = torch.stack([matrix for matrix, _ in batch])
            found = orthogonalize(stacked, defaults["ns_coefficients"], defaults["ns_steps"], defaults["eps"])
            for (_, result), each_found in zip(batch, found, strict=True):
                result.copy_(each_found)
        return results


def _rank_and_number() -> tuple[int, int]:
    """Return the rank of this process and the number of ranks."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def orthogonalize(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Return the given matrices [batch, rows, columns], orthogonalised by Muon's quintic Newton-Schulz iteration. The
    returned matrices have the singular vectors of the given matrices, and singular values near one. They are computed
    and returned in bf16 on CUDA, and in the dtype of the given matrices on a CPU."""
    a, b, c = coefficients
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # the spectral norm is then at most one
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _batches(parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Group pairs of a matrix and the output tensor for its orthogonalised form into batches, and yield each batch as a
    list. All matrices of a batch have the same shape, and a batch of several matrices has at most `STACKED` values."""

    def shape(part: tuple[Tensor, Tensor]) -> tuple[int, ...]:
        return tuple(part[0].shape)

    for (rows, columns), equal in groupby(sorted(parts, key=shape), key=shape):
        batch = list(equal)
        size = max(1, STACKED[batch[0][0].device.type] // (rows * columns))
        for begin in range(0, len(batch), size):
            yield batch[begin : begin + size]
