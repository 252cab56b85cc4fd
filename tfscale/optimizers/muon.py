"""Muon optimizer (Jordan et al., 2024), which updates the matrices of the blocks by orthogonalised momentum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.models.matrices import Matrix, is_block_matrix
from tfscale.optimizers.adamw import AdamW
from tfscale.optimizers.base import HELD, Slot, WholeUpdate, chunks
from tfscale.ranges import Count, Momentum

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Muon(AdamW):
    """Settings of Muon for the matrices of the blocks, and of AdamW for all other weights.

    `lr` is the learning rate of the matrices. As in torch.optim.Muon, weight decay is decoupled and is multiplied by
    the learning rate, but not by `update_scale`.
    """

    momentum: Momentum = 0.95
    """Decay rate of the running mean of the gradients of matrices. The update uses Nesterov's momentum."""
    ns_steps: Count = 5
    """Number of Newton-Schulz iterations."""
    orthogonalize: Literal["whole", "groups"] = "whole"
    """Rows of the keys or values of a Pattention that are orthogonalised together. `whole`: all rows of a projection.
    `groups`: the rows of each group of parameter tokens."""

    name: ClassVar[str] = "muon"
    weight_wise: ClassVar[bool] = False
    bias_corrected: ClassVar[bool] = False

    def build(self, weights: Mapping[str, "Tensor"], model: ModelConfig) -> Sequence["torch.optim.Optimizer"]:
        from tfscale.optimizers.orthogonal_momentum import OrthogonalMomentum, Update

        updates, others = [], {}
        for name, weight in weights.items():
            if is_block_matrix(name, weight.dim()):
                matrix = model.matrix(name)
                updates.append(Update(weight, update_scale(matrix, model), self.parts(matrix)))
            else:
                others[name] = weight
        built: list[torch.optim.Optimizer] = []
        if updates:
            built.append(OrthogonalMomentum(updates, self.lr, self.weight_decay, self.momentum, self.ns_steps))
        return [*built, *super().build(others, model)] if others else built

    def parts(self, matrix: Matrix) -> tuple[int, ...]:
        """Return the numbers of rows of the matrices that are stacked in a weight and orthogonalised separately."""
        if self.orthogonalize == "groups" and matrix.groups:
            return matrix.groups
        return (matrix.rows_of_a_map,) * matrix.maps

    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        return (Slot("momentum_buffer", 1),) if is_block_matrix(name, dimensions) else super().slots(name, dimensions)

    def first_state(self, name: str, weight: "Tensor", step: int) -> dict[str, "Tensor"]:
        state = super().first_state(name, weight, step)
        return {"momentum_buffer": state["momentum_buffer"]} if is_block_matrix(name, weight.dim()) else state

    def bytes_per_weight(self, model: ModelConfig) -> float:
        return 8.0 - 4.0 * model.n_layer * model.block_matrices / parameters(model)

    def update_flops(self, model: ModelConfig) -> int:
        return sum(each.flops for each in self.whole_updates(model)) + super().update_flops(model)

    def whole_updates(self, model: ModelConfig) -> Sequence[WholeUpdate]:
        return model.n_layer * [self._whole_update(matrix) for matrix in model.block_weights.values()]

    def update_bytes(self, model: ModelConfig, ranks: int) -> int:
        sizes = [each.size for each in self.whole_updates(model)]
        chunk = max(sum(sizes[weights]) for weights in chunks(sizes, ranks))
        # The gathered matrices of a chunk, and the updates of this chunk and of the previous one. While a batch of the
        # chunk is orthogonalised, also a copy of the batch, two iterates and their Gram matrices, in at most float32.
        return 4 * 3 * chunk + 4 * 4 * min(chunk, max(HELD, *sizes))

    def _whole_update(self, matrix: Matrix) -> WholeUpdate:
        parts = self.parts(matrix)
        columns = matrix.size // sum(parts)
        return WholeUpdate(matrix.size, sum(newton_schulz_flops(rows, columns, self.ns_steps) for rows in parts))

    def freeze(self, part: "torch.optim.Optimizer", weight: "Tensor", rows: int) -> None:
        from tfscale.optimizers.orthogonal_momentum import OrthogonalMomentum

        if isinstance(part, OrthogonalMomentum):
            part.frozen[weight] = rows


def update_scale(matrix: Matrix, model: ModelConfig) -> float:
    """Return the factor that multiplies the orthogonalised update of a matrix. This factor is about the spectral norm
    of the update at a learning rate of one.

    With the standard parametrization, the factor is sqrt(max(1, fan_out / fan_in)), as in torch.optim.Muon for a matrix
    [fan_out, fan_in]. With the parametrization by fan-in, the factor is sqrt(fan_out / fan_in), so that the RMS of the
    outputs changes by at most the RMS of the inputs (arXiv 2310.17813).
    """
    ratio = matrix.fan_out / matrix.fan_in
    return math.sqrt(max(1.0, ratio) if model.base_fan_in is None else ratio)


def newton_schulz_flops(rows: int, columns: int, steps: int) -> int:
    """Return the FLOPs of the matrix products that orthogonalise one matrix [rows, columns] with `steps` Newton-Schulz
    iterations."""
    short, long = min(rows, columns), max(rows, columns)
    return steps * (4 * short**2 * long + 2 * short**3)
