"""Bringing a store up to date with the stage folders, once."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

from tfscale.faults import UserFault
from tfscale.plan.arms import Arm
from tfscale.tracking.arm_run import ArmRun
from tfscale.tracking.comparison_run import ComparisonRun
from tfscale.tracking.contact import Contact
from tfscale.tracking.cursor import Cursor, Sent
from tfscale.tracking.lock import locked
from tfscale.tracking.runs import NAME, PARENT, History, Run, identity
from tfscale.tracking.stage_run import StageRun
from tfscale.tracking.store import Store, StoreError, reason, store_faults
from tfscale.tracking.view import COLOURS


def sync(store: Store, experiment: str, arms: Iterable[Arm], comparison: Path | None = None) -> int:
    """Sends whatever the store lacks of the arms and their stages; without opening it when there is nothing.

    Doing it twice changes nothing, whatever happened in between: a crash, a lost cursor, a lost store.

    Args:
        experiment: the schedule's name.
        arms: the chain first.
        comparison: the folder of their comparison, which may not exist yet; its files are sent again when they have
            changed.

    Returns:
        How many metric values were sent.

    Raises:
        StoreError: the store cannot be reached, or refuses. Part may have been sent; the next sync sends the rest.
    """
    return Session(store, experiment).sync(arms, comparison)


Family = tuple[Run, Sequence[Run]]
"""A run and its children."""


class Session:
    """Syncs of one experiment, one after another, that remember what the store holds."""

    def __init__(self, store: Store, experiment: str) -> None:
        self._store, self._experiment = store, experiment
        self._cursor = Cursor(store, experiment)
        self._contact: Contact | None = None

    def sync(self, arms: Iterable[Arm], comparison: Path | None = None) -> int:
        """As `sync`."""
        arms = tuple(arms)
        families: list[Family] = [
            (ArmRun(each, colour), [StageRun(each, stage, colour) for stage in each.stages])
            for arm, colour in zip(arms, cycle(COLOURS), strict=False)
            for each in arm.by_seed()
        ]
        if comparison:
            families.append((ComparisonRun(arms[0], comparison), []))
        return self._send_lacking(families)

    def _send_lacking(self, families: Sequence[Family]) -> int:
        """Sends what the store lacks of runs, each with its children."""
        cursor = self._cursor
        try:
            cursor.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(cursor.path.with_suffix(".lock")):
                cursor.read()
                if self._store.lacks({sent.run_id for sent in cursor.sent.values()}):
                    self._contact = None
                elif all(self._has_arrived(run, tags) for run, tags in self._tagged(families)):
                    return 0
                return self._send(families)
        except OSError as error:
            raise StoreError(f"the MLflow mirror of {self._experiment}: {error}") from error

    def _send(self, families: Sequence[Family]) -> int:
        contact, self._contact = self._contact or self._open(), None  # dropped, unless all goes well
        faults: list[StoreError] = []
        try:
            sent = sum(self._send_run(contact, run, tags, faults) for run, tags in self._tagged(families))
        finally:
            self._cursor.write()
        if faults:
            raise faults[0]
        self._contact = contact
        return sent

    def _open(self) -> Contact:
        with store_faults(self._store):
            contact = Contact(self._store, self._experiment)
        sent, there = self._cursor.sent, contact.run_ids
        self._cursor.sent = {identity: run for identity, run in sent.items() if run.run_id in there}
        return contact

    def _send_run(self, contact: Contact, run: Run, tags: dict[str, str], faults: list[StoreError]) -> int:
        mark = _mark(run, tags)  # before the sources are read, so that what they gain meanwhile is seen next time
        if mark is None or self._has_arrived(run, tags) or (history := _read(run, faults)) is None:
            return 0
        with store_faults(self._store):
            run_id, sent = contact.send(run, tags, history)
        try:
            # Artifacts may live elsewhere, with credentials of their own: without them the metrics of other runs still
            # arrive. Their clients raise what they like.
            contact.send_files(run, tags)
        except Exception as error:
            faults.append(StoreError(f"artifacts of {tags[NAME]}, MLflow at {self._store.shown}: {reason(error)}"))
        else:
            self._cursor.sent[identity(tags)] = Sent(run_id, mark)
        return sent

    def _has_arrived(self, run: Run, tags: dict[str, str]) -> bool:
        mark, sent = _mark(run, tags), self._cursor.sent.get(identity(tags))
        return mark is None or (sent is not None and sent.mark == mark)

    def _tagged(self, families: Sequence[Family]) -> Iterator[tuple[Run, dict[str, str]]]:
        """The runs with all their tags. A child's are made after its parent's turn, for they hold its run's id."""
        for parent, children in families:
            tags = parent.tags()
            yield parent, tags
            sent = self._cursor.sent.get(identity(tags))
            for child in children:
                yield child, child.tags() | ({PARENT: sent.run_id} if sent else {})


def _read(run: Run, faults: list[StoreError]) -> History | None:
    """A run's history; what cannot be read holds up no other run."""
    try:
        return run.history()
    except UserFault as fault:
        faults.append(StoreError(str(fault)))
        return None


def _mark(run: Run, tags: dict[str, str]) -> str | None:
    mark = run.mark()
    return None if mark is None else f"{mark} {tags.get(PARENT, '')}".rstrip()
