"""Tracker that writes a folder per run, with one JSON object per line for each value."""

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from hashlib import sha256
from pathlib import Path

from tfscale.tracking.points import Point
from tfscale.tracking.runs import About, Artifact, Contents
from tfscale.tracking.tracker import TRACKERS, Sink, Tracker


@TRACKERS.register("jsonl")
class JsonLinesTracker(Tracker):
    title = "JSON lines"

    def __init__(self, runs: Path, uri: str | None) -> None:
        super().__init__(runs, uri or str(runs.resolve() / "jsonl"))

    def connect(self, experiment: str) -> Sink:
        return JsonLines(Path(self.uri) / experiment)


class JsonLines(Sink):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run_ids(self) -> set[str]:
        return {path.parent.name for path in self._folder.glob("*/run.json")}

    def open(self, about: About, contents: Contents, parent: str | None) -> str:
        run_id = sha256(about.identity.encode()).hexdigest()[:12]
        run = {"name": about.name, "parent": parent, "tags": about.tags, "params": contents.params}
        (self._folder / run_id).mkdir(parents=True, exist_ok=True)
        (self._folder / run_id / "run.json").write_text(json.dumps(run))
        return run_id

    def stored_counts(self, run_id: str) -> Counter[Hashable]:
        values = self._folder / run_id / "values.jsonl"
        lines = values.read_text().splitlines() if values.exists() else []
        return Counter(self.point_key(Point(*json.loads(line))) for line in lines)

    def send(self, run_id: str, points: Sequence[Point]) -> None:
        with (self._folder / run_id / "values.jsonl").open("a") as values:
            values.writelines(json.dumps(point) + "\n" for point in points)

    def send_file(self, run_id: str, file: Artifact) -> None:
        (self._folder / run_id / file.path.name).write_bytes(file.content())

    def finish(self, run_id: str, contents: Contents) -> None:
        (self._folder / run_id / "status").write_text(contents.status)
