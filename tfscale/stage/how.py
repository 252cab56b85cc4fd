"""The one list of fields that say how or where a stage was run, rather than what it computes.

The stage's key leaves them out, and so does everything that is made to be given away: exports, reports, and the MLflow
mirror.
"""

from collections.abc import Mapping, Sequence
from typing import Any

STAGE = ("label", "run", "parent_dir", "init_dir")
"""Fields of `stage.yaml`."""
ENVIRONMENT = ("host", "argv")
"""Fields of `environment.json`."""
EXPERIMENT = ("runs", "tracking", "launcher.slurm")
"""Settings of the composed configuration."""


def without(values: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The values but for some fields; a dotted name is that of a field within a field."""
    kept = {name: value for name, value in values.items() if name not in fields}
    for name, inner in kept.items():
        below = [field.removeprefix(f"{name}.") for field in fields if field.startswith(f"{name}.")]
        if below and isinstance(inner, Mapping):
            kept[name] = without(inner, below)
    return kept
