"""Tests of checkpoints whose optimizer state does not match the stage's optimizer: converted with a message, or
rejected."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edits import edit, edit_state, edit_tensors, final
from stages import StopAt, planned, train, trainer_of
from typer.testing import CliRunner

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters
from tfscale.checkpoint.slots import slots_fault, slots_in, slots_of
from tfscale.cli.main import app
from tfscale.faults import UserFault
from tfscale.growth.grow_stage import grow_stage
from tfscale.optimizers.adamw import AdamW
from tfscale.optimizers.base import Optimizer
from tfscale.optimizers.muon import Muon
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.stage.folder import Stage
from tfscale.stage.growth_record import optimizer_note, read_growth
from tfscale.stage.spec import key_of, write_spec
from tfscale.verify import verify_stage

SETTINGS = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}
OPTIMIZERS: dict[str, Optimizer] = {"adamw": AdamW(**SETTINGS), "muon": Muon(**SETTINGS)}  # type: ignore[arg-type]
STATES = {
    "adamw": "optimizer.name=adamw (exp_avg, exp_avg_sq)",
    "muon": "optimizer.name=muon (exp_avg, exp_avg_sq, momentum_buffer)",
}
OTHER = {"adamw": "muon", "muon": "adamw"}
SHAPES = {"model/embedding": (9, 4), "model/blocks.0.ffn.keys": (6, 4), "rng/cpu": (5,)}

each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def stages_with(small: list[str], name: str) -> tuple[Stage, Stage]:
    first, second, *_ = planned([*small, "growth=exact", f"optim.name={name}"])
    return first, second


def with_optimizer(stage: Stage, name: str) -> Stage:
    """Return the stage with another optimizer, in a folder of its own."""
    spec = replace(stage.spec, optimizer=OPTIMIZERS[name])
    key = key_of(spec)
    return replace(stage, spec=spec, key=key, path=stage.path.with_name(f"{spec.label}-{key}"))


def state_of(folder: Path) -> tuple[frozenset[str], int]:
    """Return the slots in a checkpoint, and the number of updates recorded in it."""
    return slots_in(checkpoint.shapes(folder)), checkpoint.read_state(folder)[1].optimizer_step


@each_optimizer
def test_a_stage_does_not_go_on_with_the_state_of_another_optimizer(small: list[str], name: str) -> None:
    stage = stages_with(small, name)[0]
    assert not train(stage, StopAt(3))
    edited = replace(stage, spec=replace(stage.spec, optimizer=OPTIMIZERS[OTHER[name]]))
    with pytest.raises(BrokenCheckpoint) as refusal:
        train(edited)
    assert f"contains the state of {STATES[name]}" in str(refusal.value)
    assert f"stage.yaml says {STATES[OTHER[name]]}" in str(refusal.value)
    assert f"change stage.yaml back to {name}" in str(refusal.value)
    assert train(stage), "nothing was lost"
    assert checkpoint.read_state(final(stage.path))[1].optimizer == name


@each_optimizer
def test_growth_within_a_chain_carries_all_slots_and_the_count_of_updates(small: list[str], name: str) -> None:
    parent, child = stages_with(small, name)
    assert train(parent)
    prepare_folder(child)
    grow_stage(child.path)
    slots, updates = state_of(final(child.path))
    assert slots == slots_of(child.spec.optimizer, checkpoint.shapes(final(child.path)))
    assert updates == parent.spec.steps
    assert checkpoint.read_state(final(child.path))[1].optimizer == name
    assert optimizer_note(child.path) is None
    assert train(child)
    assert [verify_stage(stage) for stage in (parent, child)] == [[], []]


@each_optimizer
def test_growth_to_another_optimizer_begins_with_empty_slots_and_says_so(
    small: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parent, grown = stages_with(small, name)
    child = with_optimizer(grown, OTHER[name])
    assert train(parent)
    prepare_folder(child)
    grow_stage(child.path)
    assert state_of(final(child.path)) == (frozenset(), 0), "not even the embedding's, which both would keep"
    slots = STATES[OTHER[name]].partition(" ")[2]
    note = f"the optimizer changes from {name} to {OTHER[name]}, so all slots of {OTHER[name]} {slots} start empty"
    assert note in capsys.readouterr().out
    assert note in (optimizer_note(child.path) or "")
    assert train(child)
    assert verify_stage(child) == []
    assert state_of(final(child.path))[1] == child.spec.steps


def test_a_recipe_that_drops_the_state_does_so_without_a_note(small: list[str]) -> None:
    parent, child, *_ = planned([*small, "growth=exact", "growth.moments=drop"])
    assert train(parent)
    assert train(child)
    growth = read_growth(child.path)
    assert growth is not None
    assert growth["optimizer"] == {
        "parent": "adamw", "child": "adamw", "carried": False, "slots": ["exp_avg", "exp_avg_sq"], "updates": 0,
        "note": None,
    }  # fmt: skip
    assert verify_stage(child) == []


def drop_slots(tensors: dict[str, torch.Tensor]) -> None:
    for name in slots_in(dict.fromkeys(tensors, ())):
        del tensors[name]


def drop_one(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["exp_avg/embedding"]


DAMAGES: dict[str, tuple[Callable[[Stage], object], str]] = {
    "its stage.yaml names another optimizer": (
        lambda stage: write_spec(stage.path, with_optimizer(stage, OTHER[stage.spec.optimizer.name]).spec),
        "contains the state of {state}, but stage.yaml says {other}",
    ),
    "it has lost its slots": (
        lambda stage: edit_tensors(final(stage.path), drop_slots),
        "contains no optimizer state, although the optimizer has made 16 updates",
    ),
    "it has lost one slot": (
        lambda stage: edit_tensors(final(stage.path), drop_one),
        "exp_avg/embedding is missing; stage.yaml says",
    ),
    "it has lost its count": (
        lambda stage: edit_state(final(stage.path), lambda state: state["counters"].update(optimizer_step=0)),
        "contains optimizer state, although the optimizer has made no updates",
    ),
}


@each_optimizer
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_parent_with_other_slots_than_its_optimizers_is_refused_by_growth_and_export_and_found_by_verify(
    small: list[str], damage: str, name: str, tmp_path: Path
) -> None:
    parent, child = stages_with(small, name)
    assert train(parent)
    change, words = DAMAGES[damage]
    fault = words.format(state=STATES[name], other=STATES[OTHER[name]])
    change(parent)
    prepare_folder(child)
    with pytest.raises(BrokenCheckpoint, match=re.escape(fault)):
        grow_stage(child.path)
    assert not list((child.path / "checkpoints").glob("*"))
    for command in (
        ["export", str(parent.path), "--out", str(tmp_path / "out"), *small],
        ["grow", str(parent.path), "--qkv", "8", "--to", str(tmp_path / "out"), *small],
    ):
        answer = CliRunner().invoke(app, command)
        assert isinstance(answer.exception, UserFault)
        assert fault in str(answer.exception)
        assert not (tmp_path / "out").exists()
    known = parent if "stage.yaml" not in damage else with_optimizer(parent, OTHER[name])
    findings = verify_stage(replace(known, path=parent.path))
    assert sum(fault in finding for finding in findings) == 1
    assert not any("the stage's model has" in finding for finding in findings), "the slots are not listed one by one"


@each_optimizer
def test_verify_counts_the_updates_and_compares_the_record_of_a_growth(small: list[str], name: str) -> None:
    parent, child = stages_with(small, name)
    assert train(parent)
    assert train(child)
    edit_state(final(child.path), lambda state: state["counters"].update(optimizer_step=5))
    [finding] = verify_stage(child)
    assert "5 updates, but after 16 updates of the parents and 8 steps it must be 24" in finding

    def forge(growth: Any) -> None:
        growth["optimizer"].update(parent=OTHER[name], updates=-3)

    edit(child.path / "growth.json", forge)
    findings = " ".join(verify_stage(child))
    assert f"the parent's optimizer is {OTHER[name]}, but its stage.yaml says {name}" in findings
    assert f"the state of {OTHER[name]} was carried over to {name}" in findings


def test_a_growth_record_without_the_optimizer_is_still_read(small: list[str]) -> None:
    parent, child = stages_with(small, "adamw")
    assert train(parent)
    assert train(child)
    edit(child.path / "growth.json", lambda growth: growth.pop("optimizer"))
    assert optimizer_note(child.path) is None
    assert verify_stage(child) == []


def test_grow_says_which_slots_the_checkpoint_holds(small: list[str], tmp_path: Path) -> None:
    stage = stages_with(small, "muon")[0]
    assert train(stage)
    command = ["grow", stage.key, "--qkv", "8", *small, "growth=exact"]
    answer = CliRunner().invoke(app, [*command, "--to", str(tmp_path / "one")])
    assert f"state of {STATES['muon']}: carried over, 16 updates" in answer.output
    answer = CliRunner().invoke(app, [*command, "--to", str(tmp_path / "two"), "--json"])
    assert json.loads(answer.stdout)["optimizer"]["updates"] == 16


def test_a_run_says_that_slots_start_empty(small: list[str]) -> None:
    from tfscale.cli.console import console
    from tfscale.cli.view import PlainView
    from tfscale.config.compose import compose
    from tfscale.plan.plan import make_plan

    parent, grown = stages_with(small, "adamw")
    child = with_optimizer(grown, "muon")
    assert train(parent)
    trainer_of(child)
    view = PlainView(make_plan(compose([*small, "growth=exact"])), console)
    with console.capture() as captured:
        view.event(replace(child, key=grown.key), {"event": "start", "step": 0})
    assert "the optimizer changes from adamw to muon" in captured.get()


@pytest.mark.parametrize(
    ("kept", "updates", "fault"),
    [
        ("adamw", 3, None),
        ("none", 0, None),
        ("muon", 3, "contains the state of optimizer.name=muon"),
        ("muon", 0, "contains the state of optimizer.name=muon"),
        ("none", 3, "contains no optimizer state, although the optimizer has made 3 updates"),
        ("adamw", 0, "contains optimizer state, although the optimizer has made no updates"),
    ],
)
def test_a_checkpoint_holds_exactly_its_optimizers_slots_or_none_before_the_first_update(
    kept: str, updates: int, fault: str | None
) -> None:
    slots = slots_of(OPTIMIZERS[kept], SHAPES) if kept in OPTIMIZERS else frozenset()
    found = slots_fault({**SHAPES, **dict.fromkeys(slots, (1,))}, OPTIMIZERS["adamw"], Counters(optimizer_step=updates))
    assert found == fault if fault is None else (found or "").startswith(fault)


@pytest.mark.parametrize(("writer", "fits"), [("muon", True), ("another", False), (None, True)])
def test_optimizers_with_equal_slots_are_told_apart_by_the_name_in_the_checkpoint(
    writer: str | None, fits: bool
) -> None:
    shapes = {**SHAPES, **dict.fromkeys(slots_of(OPTIMIZERS["muon"], SHAPES), (1,))}
    fault = slots_fault(shapes, OPTIMIZERS["muon"], Counters(optimizer_step=3, optimizer=writer))
    assert fits == (fault is None)
    assert fits or str(fault).startswith("contains the state of optimizer.name=another (")
