"""evaluations.json: measurements of the model of a finished stage, together with the training cost of the model.

    {"format": 1, "totals": {"tokens": ..., "flops": ..., ...}, "evaluations": [
        {"kind": "text", "name": "heldout" or a file, "sha256": ..., "time": ..., "loss": ..., "perplexity": ...,
         "bits_per_byte": ..., "tokens": ..., "bytes": ..., "context": ..., "stride": ...},
        {"kind": "task", "name": ..., "version": ..., "time": ..., "shots": 0, "samples": ..., "harness": ...,
         "metrics": {"acc": ..., "acc_stderr": ...}}]}

Only the latest measurement is kept for each text and stride, and for each task, task version and number of samples.
"""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfscale.faults import UserFault
from tfscale.files import read_object, write_json
from tfscale.totals import Totals

EVALUATIONS_FILE = "evaluations.json"
FORMAT = 1
MEASURES = ("loss", "perplexity", "bits_per_byte")
"""Names of the metrics that an evaluation on a text measures."""
_SAME = ("kind", "name", "sha256", "stride", "samples", "version")
"""Names of the fields that identify a measurement. A new entry replaces an earlier one with equal values of these
fields."""


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return the evaluations of the stage in `folder`, or an empty list if there are no evaluations.

    Raises:
        UserFault: the file is damaged, or another version of tfscale wrote it.
    """
    path = folder / EVALUATIONS_FILE
    if not path.exists():
        return []
    try:
        values = read_object(path)
        found = [dict(entry) for entry in values["evaluations"]]
        known = values["format"] == FORMAT and all(entry["kind"] in ("text", "task") for entry in found)
        for entry in found if known else ():
            datetime.fromisoformat(entry["time"])
            measured(entry)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserFault([f"{path}: the file is damaged ({error!r}). Move it to another folder."]) from error
    if not known:
        raise UserFault([f"{path}: another version of tfscale wrote the file. Move it to another folder."])
    return found


def measured(entry: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of one evaluation, such as the loss, by name."""
    figures = entry["metrics"] if entry["kind"] == "task" else {name: entry[name] for name in MEASURES}
    return {str(name): float(value) for name, value in figures.items()}


def add_evaluation(folder: Path, totals: Totals, entry: dict[str, Any]) -> None:
    """Add an evaluation with the current time to evaluations.json in `folder`, and set the training cost of the model
    to `totals`. An earlier evaluation on the same text with the same stride, or on the same task with the same version
    and number of samples, is removed.

    Raises:
        UserFault: the existing file is damaged, another version of tfscale wrote it, or the file cannot be written.
    """
    others = [old for old in read_evaluations(folder) if any(old.get(name) != entry.get(name) for name in _SAME)]
    entry = {**entry, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    path = folder / EVALUATIONS_FILE
    try:
        write_json(path, {"format": FORMAT, "totals": asdict(totals), "evaluations": [*others, entry]})
    except OSError as error:
        raise UserFault([f"{path}: {error.strerror}"]) from error
