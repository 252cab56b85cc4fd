"""Synchronization of a tracker with the runs folder. Each metric value is sent exactly once."""

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

from tfscale.faults import UserFault, without_password
from tfscale.files import locked, read_object, write_json
from tfscale.plan.arms import Arm
from tfscale.tracking.experiment_runs import ArmRun, ComparisonRun
from tfscale.tracking.points import Point
from tfscale.tracking.runs import About, Artifact, Run
from tfscale.tracking.tracker import Sink, Tracker, TrackingError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of the arms, starting with the chain, as in the figures of the comparison."""

Family = tuple[Run, Sequence[Run]]
"""A parent run with its child runs."""
Stamp = tuple[str, int, int]
"""Name of a file, its size in bytes, and its modification time in nanoseconds since 1970."""


class Session:
    """Synchronization of one experiment with one tracker. The experiment has the name of its schedule. The session
    connects to the tracker only if there is data to send.

    Syncs are idempotent, even after a crash or if the cursor file or the tracker's data has been lost.
    """

    def __init__(self, tracker: Tracker, experiment: str) -> None:
        self._tracker, self._experiment = tracker, experiment
        self._cursor = _Cursor(tracker, experiment)
        self._sink: Sink | None = None
        self._stored: dict[str, Counter[Hashable]] = {}
        """Number of values that the tracker has stored, by run ID and key of the value (`Sink.point_key`). Only runs
        that were sent over this connection are included."""
        self._files: dict[tuple[str, Path], Stamp | None] = {}

    def sync(self, arms: Iterable[Arm], comparison: Path | None = None) -> int:
        """Send all data of the arms, their stages and their comparison that the tracker does not have. Return the
        number of metric values sent.

        Args:
            arms: arms of the experiment, starting with the chain.
            comparison: folder of the comparison of the arms, which may not exist yet.

        Raises:
            TrackingError: the tracker cannot be reached or refuses the data. Some data may have been sent. The next
                sync sends all missing data.
        """
        try:
            with self._cursor.held():
                return self._sync(_families(tuple(arms), comparison))
        except OSError as error:
            raise TrackingError(f"{self._cursor.path}: {error}") from error

    def _sync(self, families: Sequence[Family]) -> int:
        if self._tracker.lacks({sent.run_id for sent in self._cursor.sent.values()}):
            self._sink = None
        elif all(self._has_arrived(candidate) for candidate in self._candidates(families)):
            return 0
        sink, self._sink = self._sink or self._connect(), None  # after an error, what is stored is unknown
        faults: list[TrackingError] = []
        try:
            sent = sum(self._send(sink, candidate, faults) for candidate in self._candidates(families))
        finally:
            self._cursor.write()
        if faults:
            raise faults[0]
        self._sink = sink
        return sent

    def _connect(self) -> Sink:
        with self._faults():
            sink = self._tracker.connect(self._experiment)
            there = sink.run_ids()
        self._cursor.sent = {identity: run for identity, run in self._cursor.sent.items() if run.run_id in there}
        self._stored, self._files = {}, {}
        return sink

    def _candidates(self, families: Sequence[Family]) -> Iterator["_Candidate"]:
        """Yield a candidate for each run. Each parent run precedes its child runs, which need its ID."""
        for parent, children in families:
            candidate = _candidate(parent, None)
            yield candidate
            sent = self._cursor.sent.get(candidate.about.identity)
            for child in children:
                yield _candidate(child, sent.run_id if sent else None)

    def _has_arrived(self, candidate: "_Candidate") -> bool:
        sent = self._cursor.sent.get(candidate.about.identity)
        return candidate.mark is None or (sent is not None and sent.mark == candidate.mark)

    def _send(self, sink: Sink, candidate: "_Candidate", faults: list[TrackingError]) -> int:
        """Send the data of a run that the tracker does not have, and return the number of metric values sent. Errors in
        the contents or files of the run are added to `faults`, so that other runs are still sent."""
        if candidate.mark is None or self._has_arrived(candidate):
            return 0
        try:
            contents = candidate.run.contents()
        except UserFault as fault:
            faults.append(TrackingError(str(fault)))
            return 0
        if contents is None:
            return 0
        with self._faults():
            run_id = sink.open(candidate.about, contents, candidate.parent)
            sent = self._send_points(sink, run_id, contents.points)
            sink.finish(run_id, contents)  # last, so that a finished run has all values
        try:
            # Files may be stored elsewhere with other credentials.
            with self._faults(f"files of {candidate.about.name}, "):
                self._send_files(sink, run_id, contents.files)
        except TrackingError as fault:
            faults.append(fault)
        else:
            self._cursor.sent[candidate.about.identity] = _Sent(run_id, candidate.mark)
        return sent

    def _send_points(self, sink: Sink, run_id: str, points: Iterable[Point]) -> int:
        if run_id not in self._stored:
            self._stored[run_id] = sink.stored_counts(run_id)
        seen: Counter[Hashable] = Counter()
        missing = []
        for point in points:
            point_key = sink.point_key(point)
            seen[point_key] += 1
            if seen[point_key] > self._stored[run_id][point_key]:
                missing.append(point)
        sink.send(run_id, missing)
        self._stored[run_id].update(map(sink.point_key, missing))
        return len(missing)

    def _send_files(self, sink: Sink, run_id: str, files: Iterable[Artifact]) -> None:
        for file in files:
            now = _stamp(file.path)
            if now is None or self._files.get((run_id, file.path)) != now:
                sink.send_file(run_id, file)
                self._files[run_id, file.path] = now

    @contextmanager
    def _faults(self, what: str = "") -> Iterator[None]:
        try:
            yield
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise TrackingError(without_password(f"{what}{self._tracker}: {lines[0]}")) from error


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return path.name, stat.st_size, stat.st_mtime_ns


@dataclass(frozen=True)
class _Sent:
    run_id: str
    mark: str
    """Value of `_Candidate.mark` when the run was sent."""


class _Cursor:
    """Record of the runs whose data a tracker has received completely, by identity (`About.identity`). The record is
    kept in a file in the runs folder, so that the tracker need not be queried. If the file is missing or
    outdated, the next sync is slower, because it queries the tracker."""

    def __init__(self, tracker: Tracker, experiment: str) -> None:
        name = hashlib.sha256(f"{tracker.uri}\n{experiment}".encode()).hexdigest()[:16]
        self.path = tracker.folder / f"{name}.json"
        self.sent: dict[str, _Sent] = {}
        self._head = {"store": tracker.shown, "experiment": experiment}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the experiment, so that no other process syncs it, and read the cursor file. A file that is missing or
        cannot be read counts as empty."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_suffix(".lock")):
            try:
                runs = read_object(self.path)["runs"]
                self.sent = {identity: _Sent(**sent) for identity, sent in runs.items()}
            except (ValueError, TypeError, KeyError, AttributeError):
                self.sent = {}
            yield

    def write(self) -> None:
        write_json(self.path, {**self._head, "runs": {identity: asdict(sent) for identity, sent in self.sent.items()}})


@dataclass(frozen=True)
class _Candidate:
    """Run of an experiment, with the data that determine whether the run must be sent."""

    run: Run
    about: About
    parent: str | None
    """ID of the parent run, or None if there is no parent or the parent has not been sent."""
    mark: str | None
    """Digest of the run's description, its parent ID, and the stamps (`Stamp`) of its source files. None before the run
    starts. If the digest changes, the run is sent again."""


def _candidate(run: Run, parent: str | None) -> _Candidate:
    about, stamps = run.about(), [_stamp(path) for path in run.sources()]
    mark = hashlib.sha256(json.dumps([asdict(about), parent, stamps]).encode()).hexdigest()[:16]
    return _Candidate(run, about, parent, mark if stamps else None)


def _families(arms: Sequence[Arm], comparison: Path | None) -> list[Family]:
    runs = [ArmRun(each, colour) for arm, colour in zip(arms, cycle(COLOURS), strict=False) for each in arm.by_seed()]
    families: list[Family] = [(run, run.stage_runs()) for run in runs]
    if comparison:
        families.append((ComparisonRun(arms[0], comparison), []))
    return families
