"""Where a stage comes from: its ancestors, as far as they are still there."""

from typing import Any

from tfscale.interop.finished import Finished, open_finished
from tfscale.models.counts import parameters
from tfscale.stage.spec import what_of
from tfscale.stage.status import IMPORT_FILE


def lineage_of(stage: Finished) -> list[Finished]:
    """The stage and its ancestors, oldest first.

    Raises:
        UserFault: a parent's folder is missing or damaged.
    """
    found = [stage]
    while found[0].spec.parent_dir is not None:
        found.insert(0, open_finished((found[0].folder / found[0].spec.parent_dir).resolve()))
    return found


def record(stage: Finished) -> dict[str, Any]:
    """What lineage.json says of one stage."""
    origin = stage.folder / IMPORT_FILE
    return {
        "stage": stage.folder.resolve().name,
        "key": stage.done["key"],
        "parameters": parameters(stage.spec.model),
        "growth": stage.spec.growth,
        "imported": stage.spec.init_from if origin.exists() else None,
        "tokens": stage.spec.tokens,
        "before": stage.done["before"],
        "totals": stage.done["totals"],
        "eval": stage.done["eval"],
        "spec": what_of(stage.spec),
    }
