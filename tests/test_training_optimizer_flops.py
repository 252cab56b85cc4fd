"""Tests of the FLOPs of optimizer updates in the cost record of a lineage."""

import json
import math

import pytest
from edits import edit, edit_state, final
from stages import ADAMW, MUON, StopAt, planned, train

from tfscale import checkpoint
from tfscale.analysis.curves import read_stage
from tfscale.stage.events import METRICS_FILE, read_events
from tfscale.stage.folder import Stage
from tfscale.stage.result import DONE_FILE, read_result
from tfscale.verify import verify_stage

TOTALS = ("before", "totals")


def update_flops(stage: Stage) -> int:
    return stage.spec.optimizer.update_flops(stage.spec.model)


def forget(stage: Stage) -> None:
    """Remove the optimizer's FLOPs from the files of a stage, as in stages recorded by older versions."""
    lines = [json.loads(line) for line in (stage.path / METRICS_FILE).read_text().splitlines()]
    for event in lines:
        event.pop("total_optimizer_flops", None)
    (stage.path / METRICS_FILE).write_text("".join(f"{json.dumps(event)}\n" for event in lines))
    for folder in (stage.path / "checkpoints").glob("step-*"):
        edit_state(folder, lambda state: [state["counters"][name].pop("optimizer_flops") for name in TOTALS])
    if (stage.path / DONE_FILE).exists():
        edit(stage.path / DONE_FILE, lambda end: [end[name].pop("optimizer_flops") for name in TOTALS])


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
def test_every_update_of_a_lineage_is_counted_once(small: list[str], optimizer: tuple[str, ...]) -> None:
    base, grown = planned([*small, *optimizer, "growth=exact"])[:2]
    assert train(base)
    assert not train(grown, StopAt(3))
    assert train(grown)
    of_base = base.spec.steps * update_flops(base)
    of_both = of_base + grown.spec.steps * update_flops(grown)
    assert read_result(base.path).totals.optimizer_flops == of_base
    result = read_result(grown.path)
    assert (result.before.optimizer_flops, result.totals.optimizer_flops) == (of_base, of_both)
    evaluations = [event for event in read_events(grown.path) if event["event"] == "eval"]
    first, last = evaluations[0], evaluations[-1]
    assert (first["total_optimizer_flops"], last["total_optimizer_flops"]) == (of_base, of_both)
    _, counters = checkpoint.read_state(final(grown.path))
    assert counters.totals == result.totals
    assert [verify_stage(stage) for stage in (base, grown)] == [[], []]
    end = read_stage(grown).end
    assert end is not None
    assert end.totals.flops_with_optimizer == result.totals.flops + of_both


def test_a_stage_from_before_they_were_counted_stays_whole_and_so_does_what_grows_out_of_it(small: list[str]) -> None:
    base, grown = planned([*small, "growth=exact"])[:2]
    assert not train(base, StopAt(5))
    forget(base)
    assert train(base)
    assert read_result(base.path).totals.optimizer_flops is None
    assert train(grown)
    assert read_result(grown.path).totals.optimizer_flops is None
    assert [verify_stage(stage) for stage in (base, grown)] == [[], []]
    end = read_stage(grown).end
    assert end is not None
    assert end.totals.flops > 0
    assert math.isnan(end.totals.flops_with_optimizer)


def test_a_finished_stage_from_before_is_the_same_as_ever(small: list[str]) -> None:
    base, grown = planned([*small, "growth=exact"])[:2]
    assert train(base)
    forget(base)
    assert train(grown)
    assert read_result(grown.path).totals.optimizer_flops is None
    assert [verify_stage(stage) for stage in (base, grown)] == [[], []]
