"""Tests of the layout for `auto` settings: by the memory model, by an earlier layout, and on unknown devices."""

from dataclasses import replace

import pytest
from test_training_parts import SPEC

from tfscale.models.counts import MEMORY_SHARE, memory
from tfscale.models.execution import Execution
from tfscale.models.parameter_tokens import TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.stage.layout import EVALUATION_TOKENS, Hardware, Layout, choose_layout, halved, layout_of
from tfscale.stage.spec import StageSpec

GROUPS = [(TokenGroup(n, 1.0),) for n in (2048, 2048, 8192)]
LARGE = replace(SPEC, model=TokenFormerConfig(12, 768, 12, 50304, 1024, *GROUPS), batch_tokens=16 * 1024)
BEFORE = Layout("full", "blocks", micro_batch=2, evaluation_batch=3, micro_batch_by="dry step")


def needed(**execution: object) -> int:
    """Return the smallest free memory that fits a step."""
    return int(memory(LARGE.model, Execution(**execution)).total / MEMORY_SHARE) + 1  # type: ignore[arg-type]


def chosen(
    spec: StageSpec, free: int | None, ranks: tuple[int, int] = (1, 1), before: Layout | None = None, lanes: int = 1
) -> Layout:
    devices, per_host = ranks
    return choose_layout(spec, Hardware(device="cpu", memory=free, devices=devices, per_host=per_host), before, lanes)


def running(**run: object) -> StageSpec:
    return replace(LARGE, run=replace(LARGE.run, **run))  # type: ignore[arg-type]


def test_as_many_sequences_as_fit() -> None:
    assert chosen(LARGE, needed(sequences=16)).micro_batch == 16
    assert chosen(LARGE, needed(sequences=16) - 2).micro_batch == 8
    assert chosen(LARGE, needed(sequences=5)).micro_batch == 4
    assert chosen(LARGE, 1).micro_batch == 1
    assert chosen(LARGE, needed(sequences=16), (4, 4)).micro_batch == 4, "a fourth of the batch"
    assert chosen(running(micro_batch=3), 1).micro_batch == 3
    assert chosen(running(update="in_backward"), 1).micro_batch == 16


def test_what_one_sequence_needs_is_recomputed() -> None:
    for recompute in ("none", "pattention", "blocks"):
        assert chosen(LARGE, needed(sequences=1, recompute=recompute)).recompute == recompute
    assert chosen(running(activation_checkpointing="pattention"), 1).recompute == "pattention"
    assert chosen(replace(SPEC, run=replace(SPEC.run)), 1).recompute == "blocks", "a Transformer has no Pattention"


def test_a_model_is_divided_where_it_does_not_fit_whole() -> None:
    assert chosen(LARGE, needed(sequences=1, buckets=True), (4, 2)).sharding == "none"
    assert chosen(LARGE, needed(sequences=1, buckets=True) - 2, (4, 2)).sharding == "full"
    assert chosen(LARGE, 1).sharding == "none", "one process has nobody to share with"
    assert chosen(running(sharding="hybrid"), 1, (4, 2)).sharding == "hybrid"
    assert chosen(running(sharding="hybrid"), 1, (4, 4)).sharding == "full"
    assert chosen(running(sharding="hybrid"), 1, (4, 1)).sharding == "none"
    with pytest.raises(ValueError, match="5 processes in total and 2 on this host; try full"):
        chosen(running(sharding="hybrid"), 1, (5, 2))


def test_a_device_that_is_not_known_holds_one_sequence_of_anything() -> None:
    assert chosen(LARGE, None, (4, 2)) == Layout("none", "none", 1, 1, "memory model")
    assert chosen(running(micro_batch=3, sharding="full"), None, (4, 2)).sharding == "full"
    assert chosen(running(micro_batch=3), None).micro_batch == 3


def test_a_resume_keeps_what_was_chosen_and_a_setting_overrules_it() -> None:
    plenty = needed(sequences=64)
    assert chosen(LARGE, plenty, (4, 4), BEFORE) == Layout("full", "blocks", 2, 3, "as before")
    told = running(micro_batch=4, activation_checkpointing="none", sharding="none")
    assert chosen(told, plenty, (4, 4), BEFORE) == Layout("none", "none", 4, 3, "set")


def test_the_layout_of_a_start_event_is_read_back_and_one_that_is_none_is_chosen_anew() -> None:
    event = {"event": "start", "step": 3, "device": "cpu", **vars(BEFORE)}
    assert layout_of(event) == BEFORE
    del event["lanes"]  # older events do not have it
    assert layout_of(event) == BEFORE
    for wrong in ({}, {"micro_batch": 2}, {**event, "micro_batch": "2"}, {**event, "sharding": "some"}):
        assert layout_of(wrong) is None


def test_evaluations_run_side_by_side_as_far_as_memory_reaches() -> None:
    assert chosen(LARGE, 10**12, lanes=4).lanes == 4
    assert chosen(LARGE, 10**12).lanes == 1
    batch = EVALUATION_TOKENS["cpu"] // LARGE.model.context
    three = needed(sequences=3 * batch, recompute="blocks")
    assert chosen(LARGE, three, lanes=4).lanes == 3
    assert chosen(LARGE, three - 2, lanes=4).lanes == 2
    assert chosen(LARGE, 1, lanes=4).lanes == 1
    before = replace(BEFORE, sharding="none", evaluation_batch=2 * batch)
    assert chosen(LARGE, three, before=before, lanes=4).lanes == 1, "of the batches that were chosen before"


@pytest.mark.parametrize(("most", "size"), [(100, 12), (11, 6), (3, 3), (2, 2), (0, 1)])
def test_halving_finds_the_first_that_fits(most: int, size: int) -> None:
    tried: list[int] = []

    def fits(sequences: int) -> bool:
        tried.append(sequences)
        return sequences <= most

    assert halved(12, fits) == size
    assert len(tried) <= 4
