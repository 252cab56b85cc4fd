"""Mirror that runs during training: a thread that brings a tracker up to date every few seconds."""

from collections.abc import Iterable
from threading import Event, Thread

from tfscale.plan.arms import Arm
from tfscale.tracking.sync import Session
from tfscale.tracking.tracker import Tracker, TrackingError

_LONGEST_WAIT = 300.0


class Mirror:
    """A thread that mirrors arms to a tracker until it is stopped.

    An unreachable tracker is tried again at increasing intervals, and is brought up to date when it is back.
    """

    def __init__(self, tracker: Tracker, experiment: str, arms: Iterable[Arm], seconds: float = 5.0) -> None:
        """
        Args:
            experiment: name of the schedule.
            seconds: time between two syncs.
        """
        self.fault: str | None = None
        """Reason why the tracker is behind; None while it is up to date."""
        self._tracker = tracker
        self._session = Session(tracker, experiment)
        self._arms = tuple(arms)
        self._seconds = seconds
        self._stopping = Event()
        self._bug: Exception | None = None
        self._thread = Thread(target=self._run, name="tracking mirror", daemon=True)

    def start(self) -> None:
        """Start the thread and return immediately."""
        self._thread.start()

    def stop(self, timeout: float) -> str | None:
        """Sync one last time and end the thread.

        Args:
            timeout: longest wait in seconds.

        Returns:
            None if everything has arrived, otherwise the reason why not.

        Raises:
            Exception: the mirror failed with a bug earlier; it is raised only here so that training continues.
        """
        self._stopping.set()
        self._thread.join(timeout)
        if self._bug is not None:
            raise self._bug
        if self._thread.is_alive():
            return self.fault or f"{self._tracker} was still being written to after {timeout:g} s"
        return self.fault

    def _run(self) -> None:
        try:
            wait = 0.0
            while not self._stopping.wait(wait):
                wait = self._seconds if self._sync() else min(max(2 * wait, self._seconds), _LONGEST_WAIT)
            self._sync()
        except Exception as bug:
            self._bug = bug
            self.fault = f"the mirror has failed: {bug!r}"

    def _sync(self) -> bool:
        try:
            self._session.sync(self._arms)
        except TrackingError as fault:
            self.fault = str(fault)
            return False
        self.fault = None
        return True
