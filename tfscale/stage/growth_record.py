"""growth.json and import.json: the origin of the initial weights of a stage that did not begin from scratch.

growth.json contains the parent, the recipe, facts about the growth (`tfscale.growth.operator.Growth.facts`), the origin
of the initial optimizer state, the comparison of the logits before and after the growth, and the time and peak memory
of the growth. import.json contains the names and hashes of the files from which the weights were imported.
"""

from pathlib import Path
from typing import Any

from tfscale.files import read_object
from tfscale.stage.spec import CHECKPOINTS

GROWTH_FILE = "growth.json"
IMPORT_FILE = "import.json"


def is_grown(stage_dir: Path) -> bool:
    """Return whether the initial checkpoint of a stage has been imported, or grown and verified."""
    made = any((stage_dir / name).exists() for name in (GROWTH_FILE, IMPORT_FILE))
    return made and any((stage_dir / CHECKPOINTS).glob("step-*"))


def read_growth(stage_dir: Path) -> dict[str, Any] | None:
    """Return the content of growth.json, or None if the file does not exist. Raise ValueError if the file is not a JSON
    object."""
    return read_object(stage_dir / GROWTH_FILE) if (stage_dir / GROWTH_FILE).exists() else None


def optimizer_note(stage_dir: Path) -> str | None:
    """Return the message in growth.json that explains why the optimizer state was not carried over although the recipe
    requires it. Return None if there is no message or growth.json is damaged."""
    try:
        state = (read_growth(stage_dir) or {}).get("optimizer")
    except ValueError:
        return None
    note = state.get("note") if isinstance(state, dict) else None
    return None if note is None else str(note)
