"""Updates of the weights, either after or during the backward pass."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from tfscale.optimizers.sharded import local
from tfscale.stage.spec import StageSpec
from tfscale.training.optimizer import clip_gradients
from tfscale.training.rates import RowRates
from tfscale.training.state import StageState
from tfscale.training.world import Ranks


class Update(Protocol):
    """Interface for the part of a training step that computes gradients and updates the weights."""

    row_rates: RowRates
    """Learning rates of old and new rows. The caller must call `row_rates.begin` before each step."""

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a micro-batch."""

    def grad_norm(self) -> float:
        """Clip the gradients, if clipping is enabled, and return the gradient norm of the whole batch over all ranks
        before clipping. This is a collective call."""

    def bad_gradients(self) -> tuple[str, ...]:
        """Return the names of weights with non-finite gradients. This is a collective call."""

    def apply(self) -> None:
        """Update the weights, unless the backward pass has already updated them."""

    def clear(self) -> bool:
        """Discard the gradients, and return whether any weights have been updated in this step."""


def build_update(state: StageState, world: Ranks, spec: StageSpec) -> Update:
    """Return the update method that a stage's settings select. `InBackward` adds hooks to the model."""
    row_rates = RowRates(state.model, spec.rates, spec.optimizer, state.optimizer)
    if spec.run.update == "in_backward":
        return InBackward(state, row_rates)
    return Whole(state, world, spec.optimizer.clip, row_rates)


class Whole:
    """Update of all weights after all gradients have been computed, so that a non-finite step can be skipped."""

    def __init__(self, state: StageState, world: Ranks, clip: float, row_rates: RowRates) -> None:
        self.row_rates = row_rates
        self._model, self._optimizer, self._world = state.model, state.optimizer, world
        self._limit = clip or torch.inf
        self._applied = False

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def grad_norm(self) -> float:
        return clip_gradients(self._model, self._limit)

    def bad_gradients(self) -> tuple[str, ...]:
        gradients = {name: parameter.grad for name, parameter in self._model.named_parameters()}
        bad = [gradient is not None and not local(gradient).isfinite().all() for gradient in gradients.values()]
        return tuple(name for name, flag in zip(gradients, self._world.any(*map(bool, bad)), strict=True) if flag)

    def apply(self) -> None:
        with self.row_rates(self._model.parameters()):
            self._optimizer.step()
        self._applied = True

    def clear(self) -> bool:
        self._optimizer.zero_grad()
        applied, self._applied = self._applied, False
        return applied


class InBackward:
    """Update of each weight as soon as the backward pass has computed its gradient, which is then freed.

    Only the gradients of one layer exist at a time. A non-finite loss is detected before any update. A non-finite
    gradient corrupts the weights, which must then be restored from a checkpoint.
    """

    def __init__(self, state: StageState, row_rates: RowRates) -> None:
        self.row_rates = row_rates
        self._optimizer = state.optimizer
        self._norms: dict[str, Tensor] = {}
        self._names = [name for name, _ in state.model.named_parameters()]
        for name, parameter in state.model.named_parameters():
            parameter.register_post_accumulate_grad_hook(partial(self._step, name))

    def _step(self, name: str, parameter: Tensor) -> None:
        assert name not in self._norms, f"the gradient of {name} was computed in parts, but it must be complete"
        assert parameter.grad is not None
        self._norms[name] = torch.linalg.vector_norm(parameter.grad)
        with self.row_rates([parameter]):
            self._optimizer.step(parameter)
        parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        if loss.isfinite():
            loss.backward()

    def grad_norm(self) -> float:
        if not self._norms:
            return torch.nan
        norms = torch.stack([self._norms[name] for name in self._names])
        return float(torch.linalg.vector_norm(norms).item())

    def bad_gradients(self) -> tuple[str, ...]:
        return tuple(name for name in self._names if name in self._norms and not self._norms[name].isfinite())

    def apply(self) -> None:
        """Do nothing, because the backward pass has updated the weights."""

    def clear(self) -> bool:
        applied = bool(self._norms)
        self._norms.clear()
        return applied
