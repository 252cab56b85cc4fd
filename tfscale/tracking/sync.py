"""Bringing a tracker up to date with the stage folders."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

from tfscale.faults import UserFault, without_password
from tfscale.plan.arms import Arm
from tfscale.tracking.arm_run import ArmRun
from tfscale.tracking.comparison_run import ComparisonRun
from tfscale.tracking.contact import Contact, stamp
from tfscale.tracking.cursor import Cursor, Sent
from tfscale.tracking.runs import About, Run
from tfscale.tracking.tracker import Tracker, TrackingError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of the arms, the chain's first: those of the comparison's figures."""

Family = tuple[Run, Sequence[Run]]
"""A run and its children."""


class Session:
    """Syncs of one experiment with one tracker.

    Doing it twice changes nothing, whatever happened in between: a crash, a lost cursor, a lost store.
    """

    def __init__(self, tracker: Tracker, experiment: str) -> None:
        """
        Args:
            experiment: the schedule's name.
        """
        self._tracker, self._experiment = tracker, experiment
        self._cursor = Cursor(tracker, experiment)
        self._contact: Contact | None = None

    def sync(self, arms: Iterable[Arm], comparison: Path | None = None) -> int:
        """Send whatever the tracker lacks of arms and their stages. It is not connected to when it lacks nothing.

        Args:
            arms: the chain first.
            comparison: the folder of their comparison, which may not exist yet.

        Returns:
            The number of values sent.

        Raises:
            TrackingError: the tracker cannot be reached, or refuses. Part may have been sent; the next sync sends the
                rest.
        """
        try:
            with self._cursor.held():
                return self._sync(_families(tuple(arms), comparison))
        except OSError as error:
            raise TrackingError(f"{self._cursor.path}: {error}") from error

    def _sync(self, families: Sequence[Family]) -> int:
        if self._tracker.lacks({sent.run_id for sent in self._cursor.sent.values()}):
            self._contact = None
        elif all(self._has_arrived(turn) for turn in self._turns(families)):
            return 0
        contact, self._contact = self._contact or self._connect(), None  # dropped, unless all goes well
        faults: list[TrackingError] = []
        try:
            sent = sum(self._send(contact, turn, faults) for turn in self._turns(families))
        finally:
            self._cursor.write()
        if faults:
            raise faults[0]
        self._contact = contact
        return sent

    def _connect(self) -> Contact:
        with self._faults():
            contact = Contact(self._tracker.connect(self._experiment))
            there = contact.run_ids()
        self._cursor.sent = {identity: run for identity, run in self._cursor.sent.items() if run.run_id in there}
        return contact

    def _turns(self, families: Sequence[Family]) -> Iterator["_Turn"]:
        """Yield the runs, each child after its parent's turn, for it needs the id of its parent's run."""
        for parent, children in families:
            turn = _turn(parent, None)
            yield turn
            sent = self._cursor.sent.get(turn.about.identity)
            for child in children:
                yield _turn(child, sent.run_id if sent else None)

    def _has_arrived(self, turn: "_Turn") -> bool:
        sent = self._cursor.sent.get(turn.about.identity)
        return turn.mark is None or (sent is not None and sent.mark == turn.mark)

    def _send(self, contact: Contact, turn: "_Turn", faults: list[TrackingError]) -> int:
        """Send a run; what cannot be read, and files that cannot be sent, hold up no other run."""
        if turn.mark is None or self._has_arrived(turn):
            return 0
        try:
            contents = turn.run.contents()
        except UserFault as fault:
            faults.append(TrackingError(str(fault)))
            return 0
        if contents is None:
            return 0
        with self._faults():
            run_id, sent = contact.send(turn.about, contents, turn.parent)
        try:
            with self._faults(f"files of {turn.about.name}, "):  # they may be kept elsewhere, with other credentials
                contact.send_files(run_id, contents.files)
        except TrackingError as fault:
            faults.append(fault)
        else:
            self._cursor.sent[turn.about.identity] = Sent(run_id, turn.mark)
        return sent

    @contextmanager
    def _faults(self, what: str = "") -> Iterator[None]:
        """Turn whatever a tracker and its client library raise into a TrackingError."""
        try:
            yield
        except Exception as error:
            lines = str(error).splitlines() or [type(error).__name__]
            raise TrackingError(without_password(f"{what}{self._tracker}: {lines[0]}")) from error


@dataclass(frozen=True)
class _Turn:
    """A run whose turn it is to be sent."""

    run: Run
    about: About
    parent: str | None
    """Id of the parent's run."""
    mark: str | None
    """Changes with everything that is sent; None while the run has not begun. No measurement is read for it."""


def _turn(run: Run, parent: str | None) -> _Turn:
    about, stamps = run.about(), [stamp(path) for path in run.sources()]
    mark = hashlib.sha256(json.dumps([asdict(about), parent, stamps]).encode()).hexdigest()[:16]
    return _Turn(run, about, parent, mark if stamps else None)


def _families(arms: Sequence[Arm], comparison: Path | None) -> list[Family]:
    runs = [ArmRun(each, colour) for arm, colour in zip(arms, cycle(COLOURS), strict=False) for each in arm.by_seed()]
    families: list[Family] = [(run, run.stage_runs()) for run in runs]
    if comparison:
        families.append((ComparisonRun(arms[0], comparison), []))
    return families
