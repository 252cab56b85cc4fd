"""Tracker run of an arm, which is the parent run of the arm's stages."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tfscale.plan.arms import Arm
from tfscale.stage.evaluations import read_evaluations
from tfscale.stage.events import read_events
from tfscale.stage.folder import is_done
from tfscale.tracking.points import curve_points, end_points, milliseconds
from tfscale.tracking.runs import ARM, ARM_KEY, ROLE, About, Contents, Status
from tfscale.tracking.stage_run import StageRun, status_of


@dataclass(frozen=True)
class ArmRun:
    """Tracker run with the final measurements of an arm's stages over compute. If each stage continues the previous
    stage, the run also contains the validation perplexity during all stages."""

    arm: Arm
    colour: str

    def about(self) -> About:
        stages = self.arm.stages
        recipes = dict.fromkeys(
            str(stage.spec.growth["name"]) for stage in self.arm.main_line if stage.spec.growth is not None
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
        read = [(stage, is_done(stage), read_events(stage.path)) for stage in self.arm.all_stages]
        begun = [(stage, done, events) for stage, done, events in read if events]
        if not begun:
            return None
        ended = [(stage, events) for stage, done, events in begun if done and stage in self.arm.stages]
        points = [point for stage, events in ended for point in end_points(events, read_evaluations(stage.path))]
        points.sort(key=lambda point: point.time)  # values of stages that end later come after those already sent
        if all(child.spec.parent == parent.key for parent, child in pairwise(self.arm.main_line)):
            # Each stage continues the previous one. Independent stages have no common curve.
            points += [
                point for stage, _, events in begun if stage in self.arm.main_line for point in curve_points(events)
            ]
        statuses = [status_of(done, events) for _, done, events in begun]
        status = _joint(statuses, unbegun=len(begun) < len(self.arm.all_stages))
        times = [milliseconds(event["time"]) for _, _, events in begun for event in events]
        return Contents(status, min(times), max(times), points)

    def stage_runs(self) -> list[StageRun]:
        """Return the runs of the arm's stages."""
        return [StageRun(self.arm, stage, self.colour) for stage in self.arm.all_stages]


def _joint(statuses: list[Status], unbegun: bool) -> Status:
    """Return the status of an arm from the statuses of its stages. An arm is running while a stage runs and between two
    stages."""
    for status in ("running", "failed", "killed"):
        if status in statuses:
            return status
    return "running" if unbegun else "finished"
