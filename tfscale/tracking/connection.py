"""Connection to an experiment of a tracker. The connection keeps track of the metric values that the tracker has
stored, so that each value is sent exactly once."""

from collections import Counter
from collections.abc import Hashable, Iterable
from pathlib import Path

from tfscale.tracking.points import Point
from tfscale.tracking.runs import About, Artifact, Contents
from tfscale.tracking.tracker import Sink

Stamp = tuple[str, int, int]


class Connection:
    """Connection to an experiment of a tracker, with a record of the values and files stored in each run. After an
    error, the contents of the tracker are unknown, and a new connection must be created."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._stored: dict[str, Counter[Hashable]] = {}
        self._files: dict[tuple[str, Path], Stamp | None] = {}

    def send(self, about: About, contents: Contents, parent: str | None) -> tuple[str, int]:
        """Send the data of a run that the tracker does not have, except files, and return the ID of the run and the
        number of values sent. The status is sent last, so that a run with the status `finished` has all values.

        Args:
            parent: ID of the parent run, or None if there is no parent.
        """
        run_id = self._sink.open(about, contents, parent)
        if run_id not in self._stored:
            self._stored[run_id] = self._sink.stored_counts(run_id)
        missing = self._missing(contents.points, self._stored[run_id])
        self._sink.send(run_id, missing)
        self._stored[run_id].update(map(self._sink.point_key, missing))
        self._sink.finish(run_id, contents)
        return run_id, len(missing)

    def send_files(self, run_id: str, files: Iterable[Artifact]) -> None:
        """Send the files of a run that are new or have changed since they were last sent."""
        for file in files:
            now = stamp(file.path)
            if now is None or self._files.get((run_id, file.path)) != now:
                self._sink.send_file(run_id, file)
                self._files[run_id, file.path] = now

    def _missing(self, points: Iterable[Point], stored: Counter[Hashable]) -> list[Point]:
        seen: Counter[Hashable] = Counter()
        missing = []
        for point in points:
            point_key = self._sink.point_key(point)
            seen[point_key] += 1
            if seen[point_key] > stored[point_key]:
                missing.append(point)
        return missing


def stamp(path: Path) -> Stamp | None:
    """Return the name, size and modification time of a file, or None if the file does not exist."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return path.name, stat.st_size, stat.st_mtime_ns
