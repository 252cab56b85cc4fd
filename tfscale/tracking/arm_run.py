"""Tracker run of an arm, which is the parent run of the arm's stages."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tfscale.plan.arms import Arm
from tfscale.stage.events import Event
from tfscale.stage.folder import is_done
from tfscale.tracking.points import curve_points, end_points, milliseconds
from tfscale.tracking.runs import ARM, ARM_KEY, ROLE, About, Contents, Status
from tfscale.tracking.stage_run import StageRun, status_of


@dataclass(frozen=True)
class ArmRun:
    """Run with the final values of an arm's stages over compute. If each stage continues the previous stage, the run
    also contains the curve over all stages."""

    arm: Arm
    colour: str

    def about(self) -> About:
        stages = self.arm.stages
        recipes = dict.fromkeys(
            str(stage.spec.growth["name"]) for stage in self.arm.line if stage.spec.growth is not None
        )
        tags = {
            ROLE: "arm",
            ARM: self.arm.name,
            ARM_KEY: self.arm.key,
            "tfscale.kind": self.arm.kind,
            "tfscale.seed": ",".join(dict.fromkeys(str(stage.spec.seed) for stage in stages)),
            **({"tfscale.growth": ",".join(recipes)} if recipes else {}),
        }
        note = f"{self.arm.title}: {', '.join(stage.size for stage in stages)}"
        return About(self.arm.title, tags, self.colour, note)

    def sources(self) -> list[Path]:
        return [path for run in self.stage_runs() for path in run.sources()]

    def contents(self) -> Contents | None:
        # Completion is checked before the events are read, so that no event of a finished stage is missing.
        begun = [(run, done, events) for run, done, events in self._read() if events]
        if not begun:
            return None
        ended = [each for each in begun if each[1] and each[0].stage in self.arm.stages]
        points = [point for run, _, events in ended for point in end_points(events, run.evaluations())]
        points.sort(key=lambda point: point.time)  # a stage that ends later must not precede one that has been sent
        if self._is_one_lineage():
            points += [
                point for run, _, events in begun if run.stage in self.arm.line for point in curve_points(events)
            ]
        statuses = [status_of(done, events) for _, done, events in begun]
        status = _joint(statuses, unbegun=len(begun) < len(self.arm.all_stages))
        times = [milliseconds(event["time"]) for _, _, events in begun for event in events]
        return Contents(status, min(times), max(times), points)

    def stage_runs(self) -> list[StageRun]:
        """Return the runs of the arm's stages."""
        return [StageRun(self.arm, stage, self.colour) for stage in self.arm.all_stages]

    def _read(self) -> list[tuple[StageRun, bool, list[Event]]]:
        return [(run, is_done(run.stage), run.events()) for run in self.stage_runs()]

    def _is_one_lineage(self) -> bool:
        """Return whether each stage continues the previous stage. Independent stages have no common curve."""
        return all(child.spec.parent == parent.key for parent, child in pairwise(self.arm.line))


def _joint(statuses: list[Status], unbegun: bool) -> Status:
    """Return the status of an arm from the statuses of its stages. An arm is running while a stage runs and between two
    stages."""
    for status in ("running", "failed", "killed"):
        if status in statuses:
            return status
    return "running" if unbegun else "finished"
