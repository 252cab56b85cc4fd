"""Tests of the pure parts of training: learning rate, events, specs, optimizer."""

import json
import math
import platform
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tfscale.models.init import build_model
from tfscale.models.transformer import TransformerConfig
from tfscale.optimizers.adamw import AdamW
from tfscale.optimizers.base import Optimizer
from tfscale.optimizers.muon import Muon
from tfscale.stage.events import EventLog, EventTail, read_events
from tfscale.stage.learning_rate import learning_rate
from tfscale.stage.lock import StageHeld, held, stage_lock
from tfscale.stage.spec import (
    DataSpec,
    LearningRateSchedule,
    RunSpec,
    StageSpec,
    key_of,
    read_spec,
    spec_from_dict,
    spec_to_dict,
)
from tfscale.training.allocator import allocator
from tfscale.training.calendar import evaluations_of
from tfscale.training.optimizer import ModelOptimizer, clip_gradients, gradient_norms

SPEC = StageSpec(
    label="any",
    model=TransformerConfig(1, 16, 2, 50, 8, 32),
    data=DataSpec("abc", 0, 0, 64),
    tokens=1600,
    batch_tokens=16,
    optimizer=AdamW(lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0),
    lr_schedule=LearningRateSchedule("cosine", 160, 0.0, 0.1, 0.2),
    seed=0,
    run=RunSpec(data_dir="data"),
)


def rate(position: int, **changes: object) -> float:
    return learning_rate(replace(SPEC.lr_schedule, **changes), 1.0, position, 1600)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "evaluations"), [(10**9, 10), (4_000_000, 10), (2_000_000, 9), (400_000, 5), (1, 5)]
)
def test_evaluations_are_fewer_where_they_would_take_much_of_a_stage(tokens: int, evaluations: int) -> None:
    assert evaluations_of(replace(SPEC, tokens=tokens, data=DataSpec("abc", 0, 0, 65_536))) == evaluations


def test_the_warm_up_is_linear_from_where_it_is_told() -> None:
    assert rate(0) == 0
    assert rate(80) == pytest.approx(0.5)
    assert rate(80, warmup_from=0.4) == pytest.approx(0.7)
    assert rate(160) == pytest.approx(1)


def test_cosine_goes_from_the_peak_to_the_floor() -> None:
    assert rate(880) == pytest.approx(0.55)
    assert rate(1600) == pytest.approx(0.1)
    assert rate(1600, floor=0.0) == pytest.approx(0, abs=1e-12)


def test_wsd_stays_and_then_falls_linearly() -> None:
    assert rate(1280, kind="wsd") == pytest.approx(1)
    assert rate(1440, kind="wsd") == pytest.approx(0.55)
    assert rate(1600, kind="wsd") == pytest.approx(0.1)


def test_constant_stays() -> None:
    assert rate(1599, kind="constant") == 1


def test_only_matrices_decay() -> None:
    model = build_model(SPEC.model, seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = ModelOptimizer(model, replace(SPEC.optimizer, lr=0.1, weight_decay=1.0), SPEC.model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        expected = before[name] * (0.9 if parameter.dim() > 1 else 1.0)
        torch.testing.assert_close(parameter.detach(), expected)


def with_gradients(factor: float) -> torch.nn.Module:
    model = build_model(SPEC.model, seed=0)
    for number, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.grad = factor * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("factor", [1e-6, 1e-2, 1.0])
@pytest.mark.parametrize("limit", [0.5, math.inf])
@pytest.mark.parametrize("read", [True, False])
def test_gradients_are_clipped_bit_for_bit_as_torch_clips_them(factor: float, limit: float, read: bool) -> None:
    ours, theirs = with_gradients(factor), with_gradients(factor)
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit)
    weights = dict(ours.named_parameters())
    norms = gradient_norms(weights)
    assert torch.equal(norms.total, norm)
    clip_gradients(weights, limit, norms.total, read)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert torch.equal(mine.grad, other.grad)


@pytest.mark.parametrize("optimizer", [SPEC.optimizer, Muon(**asdict(SPEC.optimizer))])
def test_a_device_that_skips_an_update_keeps_weights_and_slots_to_the_last_bit(optimizer: Optimizer) -> None:
    models = [with_gradients(1.0) for _ in range(2)]
    updates = [ModelOptimizer(model, optimizer, SPEC.model) for model in models]
    for update, skipped in zip(updates, (None, torch.tensor(False)), strict=True):
        assert update.skips
        update.step(skipped=skipped)
    for parameter in models[1].parameters():
        assert parameter.grad is not None
        parameter.grad[0] = math.nan
    updates[1].step(skipped=torch.tensor(True))
    for model, update in zip(models, updates, strict=True):
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, 1e-3 * number)
        update.step(skipped=torch.tensor(False))
    for one, other in zip(*(list(model.parameters()) for model in models), strict=True):
        assert torch.equal(one, other)
    for name, slot in updates[0].state().items():
        assert torch.equal(slot, updates[1].state()[name])


@pytest.mark.parametrize(
    ("version", "mebibytes"), [("2.31", 32), ("2.36", 256), ("2.40.1", 256), ("2.39+git", 256), ("", 32)]
)
def test_an_older_glibc_is_told_the_most_that_it_takes(
    version: str, mebibytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", version))
    assert allocator()["MALLOC_MMAP_THRESHOLD_"] == str(mebibytes * 2**20)


def test_another_c_library_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert allocator()


def test_a_spec_is_read_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "stage.yaml").write_text(json.dumps(spec_to_dict(SPEC)))
    assert read_spec(tmp_path) == SPEC


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"label": 3}', "\x00"])
def test_a_spec_that_is_none_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "stage.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"stage\.yaml"):
        read_spec(tmp_path)


def test_the_key_is_what_a_stage_computes() -> None:
    assert key_of(spec_from_dict(spec_to_dict(SPEC))) == key_of(SPEC)
    how = [
        replace(SPEC, label="other"),
        replace(SPEC, run=RunSpec(data_dir="elsewhere", device="cuda", micro_batch=3, threads=7)),
        replace(SPEC, parent_dir="../other"),
    ]
    assert {key_of(spec) for spec in how} == {key_of(SPEC)}
    what = [
        SPEC,
        replace(SPEC, seed=1),
        replace(SPEC, tokens=3200),
        replace(SPEC, parent="abc"),
        replace(SPEC, growth={"name": "exact"}),
        replace(SPEC, data=replace(SPEC.data, start=16)),
        replace(SPEC, optimizer=replace(SPEC.optimizer, lr=2e-3)),
        replace(SPEC, lr_schedule=replace(SPEC.lr_schedule, floor=0.0)),
        replace(SPEC, model=replace(SPEC.model, d_ff=64)),  # type: ignore[type-var]
    ]
    assert len({key_of(spec) for spec in what}) == len(what)


def write(stage_dir: Path, *steps: int, start: int = 0) -> None:
    log = EventLog(stage_dir)
    log.write("start", step=start)
    for step in steps:
        log.write("train", step=step, loss=1 / step)
    log.close()


def test_steps_that_were_done_again_count_once(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3, 4)
    write(tmp_path, 3, 4, 5, start=2)
    steps = [event["step"] for event in read_events(tmp_path) if event["event"] == "train"]
    assert steps == [1, 2, 3, 4, 5]


def test_a_line_torn_by_a_kill_is_skipped_and_the_next_is_whole(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "st')
    write(tmp_path, 3, start=2)
    steps = [event["step"] for event in read_events(tmp_path) if event["event"] == "train"]
    assert steps == [1, 2, 3]


def test_a_tail_gives_each_event_once(tmp_path: Path) -> None:
    tail = EventTail(tmp_path)
    assert tail.new() == []
    write(tmp_path, 1)
    assert [event["event"] for event in tail.new()] == ["start", "train"]
    assert tail.new() == []
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "eval",')
        file.flush()
        assert tail.new() == []
        file.write(' "step": 2}\n')
    assert [event["step"] for event in tail.new()] == [2]


def test_a_stage_is_worked_on_by_one_process(tmp_path: Path) -> None:
    assert held(tmp_path) is None
    with stage_lock(tmp_path):
        assert "process" in (held(tmp_path) or "")
        with pytest.raises(StageHeld, match="is in use by process"), stage_lock(tmp_path):
            pass
    assert held(tmp_path) is None
    with stage_lock(tmp_path):
        pass


def test_the_floor_of_a_cosine_is_monotone() -> None:
    rates = [rate(position) for position in range(160, 1601, 16)]
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert not any(math.isnan(value) for value in rates)


def test_the_optimizer_is_torchs_to_the_last_bit() -> None:
    ours, theirs = (build_model(SPEC.model, seed=0) for _ in range(2))
    optimizer = ModelOptimizer(ours, SPEC.optimizer, SPEC.model)
    [built] = SPEC.optimizer.build(dict(theirs.named_parameters()), SPEC.model)
    reference = torch.optim.AdamW(built.param_groups)
    assert reference.param_groups[0]["fused"]
    for step in range(3):
        torch.manual_seed(step)
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        for each in (optimizer, reference):
            each.step()
            each.zero_grad()
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.grad is None
            assert torch.equal(mine, its)
