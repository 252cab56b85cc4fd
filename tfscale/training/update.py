"""Two ways from gradients to new weights."""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from tfscale.stage.spec import StageSpec
from tfscale.training.optimizer import clip_gradients
from tfscale.training.rates import Apart
from tfscale.training.sharding import local
from tfscale.training.state import StageState
from tfscale.training.world import Ranks


class Update(Protocol):
    """What a training step does with its loss."""

    apart: Apart
    """The rates of old and new rows, to be told of every step."""

    def backward(self, loss: Tensor) -> None:
        """Makes the gradients of a micro-batch."""

    def grad_norm(self) -> float:
        """Of the whole batch, over all ranks, before clipping. A collective call."""

    def bad_gradients(self) -> tuple[str, ...]:
        """Weights whose gradients are not finite. A collective call."""

    def apply(self) -> None:
        """Updates the weights, if they are not yet."""

    def clear(self) -> bool:
        """Drops what is left of the step; whether some weights have its update."""


def build_update(state: StageState, world: Ranks, spec: StageSpec) -> Update:
    """The way that a stage's settings name. Building it in the backward pass changes what `state` does from then on."""
    apart = Apart(state.model, spec.rates, spec.optimizer, state.optimizer)
    if spec.run.update == "in_backward":
        return InBackward(state, apart)
    return Whole(state, world, spec.optimizer.clip, apart)


class Whole:
    """First all gradients, then one update of all weights. So a bad step can be left out."""

    def __init__(self, state: StageState, world: Ranks, clip: float, apart: Apart) -> None:
        self.apart = apart
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
        with self.apart(self._model.parameters()):
            self._optimizer.step()
        self._applied = True

    def clear(self) -> bool:
        self._optimizer.zero_grad()
        applied, self._applied = self._applied, False
        return applied


class InBackward:
    """Each weight is updated when the backward pass has made its gradient, which is then dropped: there are never more
    than a layer's. After a bad gradient the weights are no good any more; a loss that is no number is seen in time."""

    def __init__(self, state: StageState, apart: Apart) -> None:
        self.apart = apart
        self._optimizer = state.optimizer
        self._norms: dict[str, Tensor] = {}
        self._names = [name for name, _ in state.model.named_parameters()]
        for name, parameter in state.model.named_parameters():
            parameter.register_post_accumulate_grad_hook(partial(self._step, name))

    def _step(self, name: str, parameter: Tensor) -> None:
        assert name not in self._norms, f"{name} got its gradient in pieces; each must be whole"
        assert parameter.grad is not None
        self._norms[name] = torch.linalg.vector_norm(parameter.grad)
        with self.apart([parameter]):
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
        """Nothing: it has been done."""

    def clear(self) -> bool:
        applied = bool(self._norms)
        self._norms.clear()
        return applied
