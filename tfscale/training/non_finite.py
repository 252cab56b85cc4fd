"""Detection of steps with a non-finite loss or gradient, and the policy for such steps (`launcher.non_finite`)."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from tfscale.stage.events import Event, EventLog
from tfscale.stage.spec import StageSpec


class NonFinite(Exception):
    """Error raised if a loss or a gradient is non-finite and training must not continue. The message says whether
    weights were already updated."""


@dataclass(frozen=True)
class BadStep:
    """Training step with a non-finite loss or gradient norm."""

    step: int
    loss: float
    grad_norm: float
    where: tuple[str, ...]
    """Names of the weights whose gradients have a non-finite norm."""

    def __str__(self) -> str:
        more = f" and {len(self.where) - 3} more" if len(self.where) > 3 else ""
        spoilt = f"gradients of {', '.join(self.where[:3])}{more}" if self.where else "only the loss"
        return f"step {self.step}: loss {self.loss}, gradient norm {self.grad_norm}; non-finite: {spoilt}"


class NonFinitePolicy:
    """Policy that decides how training continues after a step with a non-finite loss or gradient.

    Args:
        stage: name of the stage's folder, for messages.
        past: `non_finite` events from before the stage was resumed.
    """

    def __init__(self, stage: str, spec: StageSpec, past: Iterable[Event]) -> None:
        self._stage, self._run = stage, spec.run
        past = list(past)
        self._bad = {event["step"] for event in past}
        self._passed_over = {event["step"] for event in past if event["policy"] == "rollback"}

    @property
    def count(self) -> int:
        """Number of non-finite steps of the stage so far, including steps before the stage was resumed."""
        return len(self._bad)

    def passes_over(self, step: int) -> bool:
        """Return whether to skip a step because its loss or gradient was non-finite and training was rolled back."""
        return step in self._passed_over

    def follow(self, bad: BadStep, log: EventLog) -> Literal["skip", "rollback"]:
        """Record a non-finite step, and return the action with which training continues.

        Raises:
            NonFinite: the policy is `raise`, or there are more non-finite steps than `non_finite_cap` allows.
        """
        policy, cap = self._run.non_finite, self._run.non_finite_cap
        self._bad.add(bad.step)
        values = {**asdict(bad), "loss": str(bad.loss), "grad_norm": str(bad.grad_norm)}
        log.write("non_finite", **values, policy=policy, count=self.count)
        kept = f"The weights of step {bad.step - 1} were kept"
        if self._run.update == "in_backward" and bad.where:
            kept = "Some weights were already updated, so the stage continues from its last checkpoint"
        fix = f"{kept}. Decrease optim.lr or increase optim.warmup"
        if policy == "raise":
            other = "rollback" if self._run.update == "in_backward" else "skip"
            raise NonFinite(f"{self._stage}, {bad}. {fix}, or set launcher.non_finite={other}.")
        if self.count > cap:
            raise NonFinite(f"{self._stage}, {bad}. This exceeds launcher.non_finite_cap={cap}. {fix}.")
        if policy == "rollback":
            self._passed_over.add(bad.step)
        return policy
