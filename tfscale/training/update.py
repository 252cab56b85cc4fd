"""Methods of updating the weights, either after or during the backward pass."""

from functools import partial

import torch
from torch import Tensor

from tfscale.stage.spec import StageSpec
from tfscale.training.device import Device
from tfscale.training.optimizer import GradientNorms, clip_gradients, gradient_norms
from tfscale.training.rates import RowRates
from tfscale.training.state import StageState


def reads_late(state: StageState, spec: StageSpec, device: Device) -> bool:
    """Return whether the host may queue a step before it has read the loss of the previous step. This requires that the
    device executes queued work asynchronously and can skip an update, and that no value on the host depends on whether
    an update was skipped."""
    per_row_bias = spec.rates is not None and spec.rates.per_row_bias
    return device.queues and state.optimizer.skips and not per_row_bias


def build_update(state: StageState, spec: StageSpec, late: bool) -> "Whole | InBackward":
    """Return the update method that `launcher.update` selects. The caller must call `row_rates.begin` of the update
    method before each step. With `late`, the device decides whether to skip an update, so that the host does not wait
    for the loss."""
    row_rates = RowRates(state.model, spec.rates, spec.optimizer, state.optimizer)
    if spec.run.update == "in_backward":
        return InBackward(state, row_rates)
    return Whole(state, spec.optimizer.clip, row_rates, late)


class Whole:
    """Method that updates all weights after the backward pass, so that the update of a non-finite step can be
    skipped."""

    def __init__(self, state: StageState, clip: float, row_rates: RowRates, late: bool) -> None:
        self.row_rates = row_rates
        self._optimizer, self._late = state.optimizer, late
        self._weights = dict(state.model.named_parameters())
        self._limit = clip or torch.inf

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of a micro-batch, given its loss."""
        loss.backward()

    def finish(self, loss: Tensor) -> GradientNorms:
        """Clip the gradients, update the weights unless the batch's `loss` or a gradient is non-finite, and discard the
        gradients. Return the norms of the gradients before clipping. This is a collective call."""
        norms = gradient_norms(self._weights)
        finite = (loss + norms.total).isfinite()
        if self._late or finite:
            clip_gradients(self._weights, self._limit, norms.total, read=not self._late)
            with self.row_rates(self._weights.values()):
                self._optimizer.step(skipped=~finite if self._late else None)
        self._optimizer.zero_grad()
        return norms


class InBackward:
    """Method that updates each weight as soon as the backward pass has computed its gradient, and then frees the
    gradient. Apart from the gradient of the tied embedding, only the gradients of one layer exist at a time.

    A non-finite loss is detected before any update, because the host waits for the forward pass. A non-finite gradient
    corrupts the weights, which must then be restored from a checkpoint.
    """

    def __init__(self, state: StageState, row_rates: RowRates) -> None:
        self.row_rates = row_rates
        self._optimizer = state.optimizer
        self._norms: dict[str, Tensor] = {}
        self._names = tuple(name for name, _ in state.model.named_parameters())
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
        """Run the backward pass, which updates the weights. If the loss is non-finite, do nothing."""
        if loss.isfinite():
            loss.backward()

    def finish(self, loss: Tensor) -> GradientNorms:
        """Return the gradient norms of the step. If the loss was non-finite, `total` is NaN, and `each` and `names` are
        empty."""
        if not self._norms:
            return GradientNorms(loss.new_tensor(torch.nan), loss.new_empty(0), ())
        each = torch.stack([self._norms[name] for name in self._names])
        self._norms.clear()
        return GradientNorms(torch.linalg.vector_norm(each), each, self._names)
