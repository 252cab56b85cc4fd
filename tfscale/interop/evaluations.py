"""evaluations.json: what a finished stage's model has been measured on since, beside what it cost.

    {"format": 1, "totals": {"tokens": ..., "flops": ..., ...}, "evaluations": [
        {"kind": "text", "name": "heldout" or a file's, "sha256": ..., "time": ..., "loss": ..., "perplexity": ...,
         "bits_per_byte": ..., "tokens": ..., "bytes": ..., "context": ..., "stride": ...},
        {"kind": "task", "name": ..., "version": ..., "time": ..., "shots": 0, "samples": ..., "harness": ...,
         "metrics": {"acc": ..., "acc_stderr": ...}}]}

The same text in the same windows, or the same task with as many samples, is kept once: the last time it was measured.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfscale.faults import UserFault
from tfscale.interop.finished import Finished
from tfscale.training.files import write_json

EVALUATIONS_FILE = "evaluations.json"
FORMAT = 1
_SAME = ("kind", "name", "sha256", "stride", "samples", "version")
"""Fields that say what was measured, and how."""


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """What a stage has been measured on; empty if there is nothing yet.

    Raises:
        UserFault: the file is not what tfscale wrote.
    """
    path = folder / EVALUATIONS_FILE
    if not path.exists():
        return []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = [dict(entry) for entry in values["evaluations"]]
        known = values["format"] == FORMAT and all(entry["kind"] in ("text", "task") for entry in found)
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise UserFault([f"{path}: not what tfscale wrote ({error!r}); move it away"]) from error
    if not known:
        raise UserFault([f"{path}: of another version of tfscale; move it away"])
    return found


def add_evaluation(stage: Finished, entry: dict[str, Any]) -> None:
    """Adds one, or takes the place of what measured the same.

    Raises:
        UserFault: the file that is there is not what tfscale wrote, or cannot be written.
    """
    others = [old for old in read_evaluations(stage.folder) if any(old.get(n) != entry.get(n) for n in _SAME)]
    entry = {**entry, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    values = {"format": FORMAT, "totals": stage.done["totals"], "evaluations": [*others, entry]}
    try:
        write_json(stage.folder / EVALUATIONS_FILE, values)
    except OSError as error:
        raise UserFault([f"{stage.folder / EVALUATIONS_FILE}: {error.strerror}"]) from error
