"""Separate learning rates for the old and new parameter tokens of a grown stage, which are rows of one tensor.

An update is linear in the learning rate. Therefore all rows are first updated with the same learning rate, and the
change of rows that have another learning rate is then multiplied by a factor. This requires a copy of these rows during
the update, but works with fused optimizers and without splitting the slots.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor

from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import layer_of
from tfscale.optimizers.base import Optimizer
from tfscale.optimizers.sharded import first_row, local
from tfscale.stage.spec import RateSpec
from tfscale.training.optimizer import ModelOptimizer


class Factors(NamedTuple):
    """Factors by which the learning rates of old weights and new rows are multiplied in one update."""

    old: float
    new: float
    correction: float
    """Bias-correction factor by which the update of new rows, apart from weight decay, is additionally multiplied."""


def factors(rates: RateSpec, optimizer: Optimizer, tokens: int, steps: int, updates: int) -> Factors:
    """Return the learning-rate factors of an update.

    Args:
        tokens: number of tokens that the stage has trained on before the current step.
        steps: number of steps of the stage so far, including the current step.
        updates: number of updates that the optimizer has counted, including the current update.
    """
    old = rates.old
    if rates.old_ramp_tokens:
        old += (1 - old) * min(1.0, tokens / rates.old_ramp_tokens)
    if tokens < rates.frozen_tokens:
        old = 0.0
    new = rates.new
    if rates.new_ramp_tokens:
        new = 1 + (new - 1) * max(0.0, 1 - abs(tokens / rates.new_ramp_tokens - 1))
    correction = 1.0
    if rates.per_row_bias:
        correction = optimizer.new_row_correction(steps, updates, empty=(1, 2) if rates.new_second_moment else (1,))
    return Factors(old, new, correction)


class RowRates:
    """Separate learning rates for old and new rows of weights, or one learning rate for all rows if `rates` is None."""

    def __init__(
        self, model: LanguageModel, rates: RateSpec | None, settings: Optimizer, optimizer: ModelOptimizer
    ) -> None:
        self._rates, self._settings, self._optimizer = rates, settings, optimizer
        rows = dict(zip(("qkv", "out", "ffn"), rates.rows, strict=True)) if rates is not None else {}
        self._old_rows: dict[Tensor, int | None] = {
            parameter: rows.get(layer_of(name) or "") for name, parameter in model.named_parameters()
        }
        """Number of old rows of each weight, or None if the weight does not grow."""
        self._factors = Factors(1.0, 1.0, 1.0)

    def begin(self, tokens: int, steps: int, updates: int) -> None:
        """Compute the learning-rate factors of the next step. The arguments are those of `factors`."""
        if self._rates is not None:
            self._factors = factors(self._rates, self._settings, tokens, steps, updates)

    @contextmanager
    def __call__(self, weights: Iterable[Tensor]) -> Iterator[None]:
        """Return a context manager that applies the learning-rate factors to the optimizer's update of `weights`."""
        if self._rates is None:
            yield
            return
        old, new, correction = self._factors
        changed = []
        for weight in weights:
            of_old, of_new = self._split(weight)
            if (known := self._old_rows[weight]) is not None:
                self._optimizer.freeze(weight, known if old == 0 else 0)
            decay = self._optimizer.decay(weight)
            changed += [(rows, rows.clone(), old, 1.0, decay) for rows in of_old if old != 1]
            changed += [(rows, rows.clone(), new, correction, decay) for rows in of_new if (new, correction) != (1, 1)]
        yield
        for rows, before, factor, corrected, shrink in changed:
            lost = shrink * before
            rows.copy_(before + factor * (corrected * (rows - before + lost) - lost))

    def _split(self, weight: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the old rows and the new rows of a weight on this rank, as two lists of at most one tensor."""
        rows, known = local(weight.detach()), self._old_rows[weight]
        if known is None:
            return [rows], []
        here = min(max(known - first_row(weight), 0), len(rows))
        return [rows[:here]], [rows[here:]]
