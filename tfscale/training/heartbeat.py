"""The file that shows that a stage is alive."""

import math
import time
from pathlib import Path

from tfscale.stage.events import HEARTBEAT


class Heartbeat:
    """File that a running stage touches, at most once per second. The stage's supervisor watches its modification
    time."""

    def __init__(self, stage_dir: Path) -> None:
        self._path = stage_dir / HEARTBEAT
        self._last = -math.inf

    def __call__(self) -> None:
        """Record that the stage is making progress."""
        now = time.monotonic()
        if now - self._last >= 1:
            self._path.touch()
            self._last = now
