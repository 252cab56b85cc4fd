"""Remaining budget of a run. The cost of the steps of a stage is reserved before the stage starts."""

import time
from pathlib import Path

from tfscale.config.budget import Budget
from tfscale.models.counts import flops
from tfscale.stage.events import Event, read_events
from tfscale.stage.folder import Stage

ENDING_SECONDS = 2.0
"""Assumed time in seconds that a process needs to end, in addition to its last step and checkpoint."""


class Allowance:
    """The part of a budget that is neither spent nor reserved for a running stage.

    Compute is counted as in a plan, in model FLOPs of training, without the FLOPs of optimizer updates. Steps that are
    repeated after a failure are not counted again. Time is wall-clock time from the first call of `start_clock`,
    including growth, evaluations and checkpoints.
    """

    def __init__(self, budget: Budget) -> None:
        self.trained = 0.0
        """Model FLOPs of the steps that were trained with this allowance. Steps of stages that are still running are
        not included."""
        self._flops, self._seconds = budget.flops, budget.seconds
        self._ends_at: float | None = None
        self._grants: dict[str, range] = {}
        """Steps whose cost is reserved, by the key of the running stage. `range(a, b)` stands for the steps a + 1 to
        b."""
        self._longest = {"step": 0.0, "checkpoint": 0.0}

    def start_clock(self) -> None:
        if self._ends_at is None:
            self._ends_at = time.monotonic() + self._seconds

    def allows(self, stage: Stage) -> bool:
        """Return True if the budget covers at least one more step of a stage. Imported stages need no budget."""
        return self._flops >= step_flops(stage)

    def reserve(self, stage: Stage) -> bool:
        """Reserve the cost of the remaining steps of a stage, or the whole remaining budget if it does not cover all of
        these steps. Return True if at least one step is covered. Otherwise, reserve nothing and return False."""
        if not self.allows(stage):
            return False
        done, cost = reached_step(stage.path), step_flops(stage)
        needed = cost * max(0, stage.spec.steps - done)
        covered = needed <= self._flops
        self._grants[stage.key] = range(done, stage.spec.steps if covered else done + int(self._flops // cost))
        self._flops = self._flops - needed if covered else 0.0
        return True

    def stop_at(self, stage: Stage) -> int | None:
        """Return the step after which the process of a stage must stop, or None if the process may train to the end of
        the stage. `reserve` must have been called for the stage."""
        last = self._grants[stage.key].stop
        return last if last < stage.spec.steps else None

    def release(self, stage: Stage) -> None:
        """Return the cost of the reserved but untrained steps of a stage to the budget, after the process of the stage
        has ended."""
        grant = self._grants.pop(stage.key, None)
        if grant is not None:
            reached = min(max(reached_step(stage.path), grant.start), grant.stop)
            self.trained += (reached - grant.start) * step_flops(stage)
            self._flops += (grant.stop - reached) * step_flops(stage)

    def note(self, stage: Stage, event: Event) -> None:
        """Update the longest known times of a step and of a checkpoint from an event of a stage."""
        if event["event"] == "train" and event["tokens_per_second"]:
            took = stage.spec.batch_tokens / event["tokens_per_second"]
            self._longest["step"] = max(self._longest["step"], took)
        elif event["event"] == "checkpoint":
            self._longest["checkpoint"] = max(self._longest["checkpoint"], event["seconds"])

    @property
    def out_of_time(self) -> bool:
        """True if processes must be asked now to save a checkpoint and end, so that the run stays within the time of
        the budget."""
        ending = ENDING_SECONDS + sum(self._longest.values())
        return self._ends_at is not None and time.monotonic() + ending >= self._ends_at


def step_flops(stage: Stage) -> int:
    """Return the model FLOPs of a step of a stage, or 0 for an imported stage, which is not trained."""
    if stage.spec.init_from is not None:
        return 0
    return stage.spec.batch_tokens * flops(stage.spec.model).training


def reached_step(stage_dir: Path) -> int:
    """Return the last step that a stage has recorded, or 0 if the stage has recorded no step."""
    return max((int(event["step"]) for event in read_events(stage_dir) if "step" in event), default=0)
