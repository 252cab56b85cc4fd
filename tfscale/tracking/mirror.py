"""The mirror that runs beside training: a thread that brings the store up to date every few seconds."""

from collections.abc import Iterable
from threading import Event, Thread

from tfscale.plan.arms import Arm
from tfscale.tracking.store import Store, StoreError
from tfscale.tracking.sync import Session

_LONGEST_WAIT = 300.0


class Mirror:
    """Mirrors arms into a store until it is stopped. A store that is away is tried again, ever less often, and caught
    up when it is back."""

    def __init__(self, store: Store, experiment: str, arms: Iterable[Arm], seconds: float = 5.0) -> None:
        """
        Args:
            experiment: the schedule's name.
            seconds: between two syncs.
        """
        self.fault: str | None = None
        """Why the store is behind at present; None while it is not."""
        self._session = Session(store, experiment)
        self._arms = tuple(arms)
        self._seconds = seconds
        self._wake = Event()
        self._stopping = False
        self._bug: Exception | None = None
        self._thread = Thread(target=self._run, name="mlflow mirror", daemon=True)

    def start(self) -> None:
        """Begins, and returns at once."""
        self._thread.start()

    def poke(self) -> None:
        """Syncs soon: something has just happened that people wait to see."""
        self._wake.set()

    def stop(self, timeout: float) -> str | None:
        """Syncs for the last time and ends.

        Args:
            timeout: seconds to wait for it at most.

        Returns:
            None when everything has arrived, else why not.

        Raises:
            Exception: the mirror's own fault, kept until now so that training went on.
        """
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout)
        if self._bug is not None:
            raise self._bug
        if self._thread.is_alive():
            return self.fault or f"MLflow was still being written after {timeout:g} s"
        return self.fault

    def _run(self) -> None:
        try:
            wait = 0.0
            while not self._stopping:
                wait = self._seconds if self._sync() else min(max(2 * wait, self._seconds), _LONGEST_WAIT)
                self._wake.wait(wait)
                self._wake.clear()
            self._sync()
        except Exception as bug:
            self._bug = bug
            self.fault = f"tfscale's mirror broke down: {bug!r}"

    def _sync(self) -> bool:
        try:
            self._session.sync(self._arms)
        except StoreError as fault:
            self.fault = str(fault)
            return False
        self.fault = None
        return True
