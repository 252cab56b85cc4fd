"""Background thread that updates a tracker every few seconds during training."""

from collections.abc import Iterable
from threading import Event, Thread

from tfscale.plan.arms import Arm
from tfscale.tracking.sync import Session
from tfscale.tracking.tracker import Tracker, TrackingError

_LONGEST_WAIT = 300.0


class Mirror:
    """Background thread that mirrors arms to a tracker every `seconds` seconds until `stop` is called. While syncs
    fail, the interval is doubled after each sync, up to 5 minutes. The next successful sync sends the missing data."""

    def __init__(self, tracker: Tracker, experiment: str, arms: Iterable[Arm], seconds: float = 5.0) -> None:
        self.fault: str | None = None
        """Reason why the last sync failed, or None if the last sync succeeded or no sync has ended yet."""
        self._tracker = tracker
        self._session = Session(tracker, experiment)
        self._arms = tuple(arms)
        self._seconds = seconds
        self._stopping = Event()
        self._bug: Exception | None = None
        self._thread = Thread(target=self._run, name="tracking mirror", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> str | None:
        """Ask the thread to run a final sync and end, and wait for at most `timeout` seconds. Return the reason why the
        tracker is not up to date, or None if it is up to date.

        Raises:
            Exception: the thread failed with an unexpected error, which is raised only here so that training continues.
        """
        self._stopping.set()
        self._thread.join(timeout)
        if self._bug is not None:
            raise self._bug
        if self._thread.is_alive():
            return self.fault or f"{self._tracker}: the last sync did not finish within {timeout:g} s"
        return self.fault

    def _run(self) -> None:
        try:
            wait = 0.0
            while not self._stopping.wait(wait):
                wait = self._seconds if self._sync() else min(max(2 * wait, self._seconds), _LONGEST_WAIT)
            self._sync()
        except Exception as bug:
            self._bug = bug
            self.fault = f"the mirror failed with an unexpected error: {bug!r}"

    def _sync(self) -> bool:
        try:
            self._session.sync(self._arms)
        except TrackingError as fault:
            self.fault = str(fault)
            return False
        self.fault = None
        return True
