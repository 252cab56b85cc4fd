"""The file that shows a stage to be alive."""

import math
import time
from pathlib import Path

from tfscale.stage.events import HEARTBEAT


class Heartbeat:
    """A file that a living stage touches, at most once per second. Its supervisor watches the time of the file."""

    def __init__(self, stage_dir: Path) -> None:
        self._path = stage_dir / HEARTBEAT
        self._last = -math.inf

    def __call__(self) -> None:
        """Record that the stage makes progress."""
        now = time.monotonic()
        if now - self._last >= 1:
            self._path.touch()
            self._last = now
