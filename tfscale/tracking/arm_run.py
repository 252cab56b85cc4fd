"""One arm: the parent of its stages' runs."""

from dataclasses import dataclass
from itertools import pairwise

from tfscale.plan.arms import Arm
from tfscale.stage.events import Event
from tfscale.stage.folder import is_done
from tfscale.tracking.points import Point, curve_points, end_point, evaluations_over_compute, milliseconds
from tfscale.tracking.runs import ARM, ARM_KEY, COLOUR, NAME, NOTE, ROLE, Artifact, Corpus, History, Status, digest
from tfscale.tracking.stage_run import StageRun, status_of


@dataclass(frozen=True)
class ArmRun:
    """Its stages' ends over compute, and where each stage goes on from the one before, their common curve."""

    arm: Arm
    colour: str

    def tags(self) -> dict[str, str]:
        stages = self.arm.stages
        recipes = dict.fromkeys(str(stage.spec.growth["name"]) for stage in stages if stage.spec.growth is not None)
        tags = {
            NAME: self.arm.title,
            NOTE: f"{self.arm.title}: {', '.join(stage.size for stage in stages)}",
            COLOUR: self.colour,
            ROLE: "arm",
            ARM: self.arm.name,
            ARM_KEY: self.arm.key,
            "tfscale.kind": self.arm.kind,
            "tfscale.seed": ",".join(dict.fromkeys(str(stage.spec.seed) for stage in stages)),
        }
        return tags | ({"tfscale.growth": ",".join(recipes)} if recipes else {})

    def params(self) -> dict[str, str]:
        return {}

    def files(self) -> list[Artifact]:
        return []

    def corpus(self) -> Corpus | None:
        return None

    def mark(self) -> str | None:
        marks = [stage.mark() for stage in self._stages()]
        return digest(self.tags(), marks) if any(marks) else None

    def history(self) -> History | None:
        # Whether it is done is asked first, so that a finished stage lacks no event.
        begun = [(run, done, events) for run, done, events in self._read() if events]
        if not begun:
            return None
        points = [point for run, done, events in begun if done for point in _ends(run, events)]
        points.sort(key=lambda point: point.time)  # a stage that ends later must not come before one already sent
        if self._is_one_lineage():
            points += [point for _, _, events in begun for point in curve_points(events)]
        statuses = [status_of(done, events) for _, done, events in begun]
        status = _joint(statuses, unbegun=len(begun) < len(self.arm.stages))
        times = [milliseconds(event["time"]) for _, _, events in begun for event in events]
        return History(points, status, min(times), max(times))

    def _read(self) -> list[tuple[StageRun, bool, list[Event]]]:
        return [(run, is_done(run.stage), run.events()) for run in self._stages()]

    def _stages(self) -> list[StageRun]:
        return [StageRun(self.arm, stage, self.colour) for stage in self.arm.stages]

    def _is_one_lineage(self) -> bool:
        """Whether each stage goes on from the one before. Runs of their own each have a curve, and no common one."""
        stages = self.arm.stages
        return all(child.spec.parent == parent.key for parent, child in pairwise(stages))


def _ends(run: StageRun, events: list[Event]) -> list[Point]:
    return [*end_point(events), *evaluations_over_compute(run.evaluations(), events)]


def _joint(statuses: list[Status], unbegun: bool) -> Status:
    """An arm's, from its stages': while one runs the arm does, and so it does between two of them."""
    for status in ("RUNNING", "FAILED", "KILLED"):
        if status in statuses:
            return status
    return "RUNNING" if unbegun else "FINISHED"
