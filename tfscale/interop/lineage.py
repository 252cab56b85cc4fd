"""Lineage of a finished stage, and the record of the lineage in an exported folder."""

from typing import Any

from tfscale.interop.finished import FinishedStage, open_finished
from tfscale.models.counts import parameters
from tfscale.stage.folder import lineage
from tfscale.stage.growth_record import read_import
from tfscale.stage.result import to_dict
from tfscale.stage.spec import key_fields


def lineage_of(stage: FinishedStage) -> list[FinishedStage]:
    """Return a stage and its ancestors, oldest first.

    Raises:
        UserFault: the folder of a parent is missing or damaged.
    """

    def parent_of(child: FinishedStage) -> FinishedStage | None:
        parent = child.spec.parent_dir
        return None if parent is None else open_finished((child.folder / parent).resolve())

    return lineage(stage, parent_of)


def record(stage: FinishedStage) -> dict[str, Any]:
    """Return the entry of a stage in lineage.json: its size, settings, costs and final evaluation."""
    result = to_dict(stage.result)
    return {
        "stage": stage.folder.resolve().name,
        "key": stage.result.key,
        "parameters": parameters(stage.spec.model),
        "growth": stage.spec.growth,
        "imported": stage.spec.init_from if read_import(stage.folder) else None,
        "tokens": stage.spec.tokens,
        "before": result["before"],
        "totals": result["totals"],
        "eval": result["eval"],
        "spec": key_fields(stage.spec),
    }
