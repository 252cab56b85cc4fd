"""Names of the fields that describe how or where a stage was run, rather than what the stage computes. All these fields
are excluded from data that is shared: exports, reports, submissions, and copies in trackers."""

from collections.abc import Mapping, Sequence
from typing import Any

STAGE = ("label", "run", "parent_dir", "init_dir")
"""Names of the fields of `stage.yaml` that are excluded from shared data, and also from the key of a stage."""
ENVIRONMENT = ("host", "argv")
"""Names of the fields of `environment.json` that are excluded from shared data."""
EVENT = ("host", "pid", "message")
"""Names of the fields of events in `metrics.jsonl` that are excluded from shared data. A message may contain a path."""
EXPERIMENT = ("runs", "store", "budget", "tracking", "launcher.slurm")
"""Names of the settings of the composed configuration that are excluded from shared data."""


def without(values: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return `values` without `fields`. A name with a dot, such as `launcher.slurm`, stands for a field of a nested
    mapping."""
    kept = {name: value for name, value in values.items() if name not in fields}
    for name, inner in kept.items():
        below = [field.removeprefix(f"{name}.") for field in fields if field.startswith(f"{name}.")]
        if below and isinstance(inner, Mapping):
            kept[name] = without(inner, below)
    return kept
