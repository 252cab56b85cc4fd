"""Names of the fields that describe how or where a stage was run, rather than what it computes. They are excluded from
the key of a stage and from data that is shared: exports, reports, submissions, and copies in trackers."""

from collections.abc import Mapping, Sequence
from typing import Any

STAGE = ("label", "run", "parent_dir", "init_dir")
"""Names of the excluded fields of `stage.yaml`."""
ENVIRONMENT = ("host", "argv")
"""Names of the excluded fields of `environment.json`."""
EVENT = ("host", "pid", "message")
"""Names of the excluded fields of the events in `metrics.jsonl`. A message may contain a path."""
EXPERIMENT = ("runs", "store", "budget", "tracking", "launcher.slurm")
"""Names of the excluded settings of the composed configuration."""


def without(values: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return `values` without `fields`. A dot in a name, as in `launcher.slurm`, leads into a nested mapping."""
    kept = {name: value for name, value in values.items() if name not in fields}
    for name, inner in kept.items():
        below = [field.removeprefix(f"{name}.") for field in fields if field.startswith(f"{name}.")]
        if below and isinstance(inner, Mapping):
            kept[name] = without(inner, below)
    return kept
