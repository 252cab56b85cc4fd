"""Schedule of a stage. The schedule determines after which steps measurements are logged, the model is evaluated, or a
checkpoint is due because of the number of tokens, which steps use nested dropout, and when the stage ends. The schedule
depends only on the spec of the stage and, with a stopping rule or a trial, on the validation losses of the stage and
its parent."""

from collections.abc import Container, Mapping

import torch

from tfscale.models.init import stream
from tfscale.models.tokenformer import number_of_groups
from tfscale.stage.ending import end_of, needs_loss_at
from tfscale.stage.result import FinalEvaluation
from tfscale.stage.spec import StageSpec, steps_of

CLOSE_WATCH_STEPS = 32
"""Number of steps that are all logged at the beginning of a stage with a parent, regardless of `log_tokens`."""


def evaluations_of(spec: StageSpec) -> int:
    """Return the default number of evaluations of a stage. The evaluations are evenly spaced, and the last one is at
    the end of the stage.

    The default is ten evaluations, or fewer if ten would cost more than a tenth of the training, but at least five,
    because costs at equal perplexity are interpolated between evaluations. A validation token needs only a forward
    pass, which is a third of the cost of a training token.
    """
    return max(5, min(10, 3 * spec.tokens // (10 * spec.data.heldout_tokens)))


def groups_at(spec: StageSpec, step: int) -> int | None:
    """Return the number of leading groups of parameter tokens that a step of a stage uses, or None if the step uses all
    groups. Nested dropout draws this number at random, as Rippel et al. (arXiv 1402.0915) do for units. The number
    depends only on the seed and the step, so it is the same on all ranks and in a resumed stage."""
    if spec.nested_dropout == 0:
        return None
    drawn, place = torch.rand(2, generator=stream(spec.seed, f"nested_dropout:{step}"), dtype=torch.float64).tolist()
    return 1 + int(place * (number_of_groups(spec.model) - 1)) if drawn < spec.nested_dropout else None


class Calendar:
    """Schedule of the actions that are due after each step of a stage."""

    def __init__(self, spec: StageSpec, parent_loss: float | None = None) -> None:
        self._spec, self._parent_loss = spec, parent_loss
        self.steps = spec.steps
        """Number of steps after which the stage ends. This is the number in the spec until a stopping rule or a trial
        has decided on another end."""

    def logs(self, step: int) -> bool:
        """Return whether the measurements of a completed step are logged."""
        just_grown = self._spec.parent is not None and step <= CLOSE_WATCH_STEPS
        return just_grown or self._due(step, self._spec.run.log_tokens, parts=100)

    def checkpoints(self, step: int) -> bool:
        """Return whether `checkpoint_tokens` or `keep_tokens` requires a checkpoint after a step."""
        run = self._spec.run
        return any(self._due(step, tokens, parts=0) for tokens in (run.checkpoint_tokens, run.keep_tokens))

    def evaluates(self, step: int, done: Container[int]) -> bool:
        """Return whether an evaluation is due after a step, given the steps that have already been evaluated."""
        if step in done:
            return False
        if step == 0:
            return self._spec.parent is not None  # otherwise the model is untrained
        by_tokens = self._due(step, self._spec.run.eval_tokens, evaluations_of(self._spec))
        return step == self.steps or needs_loss_at(self._spec, step) or by_tokens

    def decide(self, evaluations: Mapping[int, FinalEvaluation], step: int) -> bool:
        """Update `steps` according to the stopping rule or the trial, given the evaluations by step. Evaluations after
        `step` are ignored. Return True if the number of steps has changed."""
        losses = {at: evaluation.loss for at, evaluation in evaluations.items() if at <= step}
        before, self.steps = self.steps, end_of(self._spec, losses, self._parent_loss) or self._spec.steps
        return self.steps != before

    def _due(self, step: int, tokens: int, parts: int) -> bool:
        """Return whether an action that is repeated every `tokens` tokens, or `parts` times per stage if `tokens` is 0,
        is due after `step`."""
        if step == 0:
            return False
        if tokens:
            return step % steps_of(tokens, self._spec) == 0
        return step * parts // self._spec.steps > (step - 1) * parts // self._spec.steps
