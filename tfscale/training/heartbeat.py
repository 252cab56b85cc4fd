"""Heartbeat file that shows that a stage makes progress."""

import math
import time
from pathlib import Path

from tfscale.stage.events import HEARTBEAT


class Heartbeat:
    """Heartbeat file that a running stage touches at most once per second. The supervisor of the stage watches the
    modification time of the file."""

    def __init__(self, stage_dir: Path) -> None:
        self._path = stage_dir / HEARTBEAT
        self._last = -math.inf

    def __call__(self) -> None:
        """Touch the heartbeat file, unless it was touched less than a second ago."""
        now = time.monotonic()
        if now - self._last >= 1:
            self._path.touch()
            self._last = now
