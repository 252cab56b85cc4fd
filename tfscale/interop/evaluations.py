"""Adding to evaluations.json (`tfscale.stage.evaluations`)."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tfscale.faults import UserFault
from tfscale.files import write_json
from tfscale.interop.finished import Finished
from tfscale.stage.evaluations import EVALUATIONS_FILE, FORMAT, read_evaluations

_SAME = ("kind", "name", "sha256", "stride", "samples", "version")
"""Fields that say what was measured, and how."""


def add_evaluation(stage: Finished, entry: dict[str, Any]) -> None:
    """Adds one, or takes the place of what measured the same.

    Raises:
        UserFault: the file that is there is not what tfscale wrote, or cannot be written.
    """
    others = [old for old in read_evaluations(stage.folder) if any(old.get(n) != entry.get(n) for n in _SAME)]
    entry = {**entry, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    values = {"format": FORMAT, "totals": asdict(stage.result.totals), "evaluations": [*others, entry]}
    try:
        write_json(stage.folder / EVALUATIONS_FILE, values)
    except OSError as error:
        raise UserFault([f"{stage.folder / EVALUATIONS_FILE}: {error.strerror}"]) from error
