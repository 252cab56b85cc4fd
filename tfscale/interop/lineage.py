"""Where a stage comes from: its ancestors, as far as they are still there."""

from typing import Any

from tfscale.interop.finished import Finished, open_finished
from tfscale.models.counts import parameters
from tfscale.schedule.ledger import IMPORT_FILE
from tfscale.training.spec import spec_to_dict


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
        "spec": {name: value for name, value in spec_to_dict(stage.spec).items() if name not in ("run", "parent_dir")},
    }
