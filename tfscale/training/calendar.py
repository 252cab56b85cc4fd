"""The calendar of a stage: the steps at which it logs, evaluates, saves checkpoints and ends. It depends on the spec
alone or, if a rule ends the stage, also on the evaluations."""

from collections.abc import Container, Mapping

from tfscale.stage.ending import end_of, looks_at
from tfscale.stage.spec import StageSpec, steps_of

CLOSE_WATCH_STEPS = 32
"""Number of steps after a growth that are logged one by one."""


def evaluations_of(spec: StageSpec) -> int:
    """Return the number of evaluations, evenly spaced and the last at the end, of a stage whose settings leave it open:
    ten, or as many as take a tenth of its training, but five at least: costs at equal perplexity are read between them.

    A validation token needs a forward pass only, a third of the cost of a training token.
    """
    return max(5, min(10, 3 * spec.tokens // (10 * spec.data.heldout_tokens)))


class Calendar:
    """Says what is due after each step of a stage."""

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec
        self.steps = spec.steps
        """Steps of the whole stage, as far as is decided."""

    def logs(self, step: int) -> bool:
        """Return whether the step that was just made is logged."""
        just_grown = self._spec.parent is not None and step <= CLOSE_WATCH_STEPS
        return just_grown or self._due(step, self._spec.run.log_tokens, parts=100)

    def checkpoints(self, step: int) -> bool:
        """Return whether a checkpoint is due, apart from those by the clock."""
        run = self._spec.run
        return any(self._due(step, tokens, parts=0) for tokens in (run.checkpoint_tokens, run.keep_tokens))

    def evaluates(self, step: int, done: Container[int]) -> bool:
        """Return whether an evaluation is due.

        Args:
            done: steps that have been evaluated.
        """
        if step in done:
            return False
        if step == 0:
            return self._spec.parent is not None  # what growth did to the loss; an untrained model's is known
        by_tokens = self._due(step, self._spec.run.eval_tokens, evaluations_of(self._spec))
        return step == self.steps or looks_at(self._spec, step) or by_tokens

    def decide(self, losses: Mapping[int, float]) -> bool:
        """Set the end of the stage that the evaluations so far decide.

        Args:
            losses: validation loss by step.

        Returns:
            Whether it is another end than before.
        """
        before, self.steps = self.steps, end_of(self._spec, losses) or self._spec.steps
        return self.steps != before

    def _due(self, step: int, tokens: int, parts: int) -> bool:
        """Return whether something is due after `step` that is due every `tokens` tokens or, for 0, `parts` times per
        stage."""
        if step == 0:
            return False
        if tokens:
            return step % steps_of(tokens, self._spec) == 0
        return step * parts // self._spec.steps > (step - 1) * parts // self._spec.steps
