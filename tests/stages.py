"""Real training of stages, for tests that stop, kill and repeat them."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tfscale import checkpoint
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.data.prepared import open_data
from tfscale.growth.grow_stage import grow_stage
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.plan.plan import make_plan
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage
from tfscale.stage.result import read_result
from tfscale.training.device import Device, resolve
from tfscale.training.loop import Trainer
from tfscale.training.preemption import Preemption
from tfscale.training.world import World

ADAMW: tuple[str, ...] = ()
MUON = ("optim.name=muon", "optim.parametrization=fan_in", "optim.embedding_ratio=0.5")

TIMES = ("time", "seconds", "total_seconds", "total_device_seconds", "tokens_per_second", "peak_memory", "pid")


def planned(overrides: list[str], arm: str = "progressive") -> tuple[Stage, ...]:
    plan = make_plan(compose([*overrides, "baseline=scratch"]))
    prepare(plan.corpus.spec, plan.runs / "data")
    return next(each for each in plan.arms if each.name == arm).stages


class StopAt(Preemption):
    """Request to stop before a step, or in the middle of the evaluation at that step."""

    def __init__(self, step: int, polls: int = 1) -> None:
        super().__init__()
        self.step, self.polls, self.trainer = step, polls, None

    def __call__(self) -> bool:
        assert isinstance(self.trainer, Trainer)
        if self.trainer.step < self.step:
            return False
        self.polls -= 1
        return self.polls <= 0


def trainer_of(stage: Stage, preempted: Preemption | None = None, device: Device | None = None) -> Trainer:
    prepare_folder(stage)
    spec, folder = stage.spec, stage.path
    if spec.parent is not None and not (folder / "growth.json").exists():
        grow_stage(folder)
    data = open_data(folder / spec.run.data_dir, spec.data.fingerprint)
    trainer = Trainer(folder, spec, data, device or resolve(spec.run), World(), preempted or Preemption())
    if isinstance(preempted, StopAt):
        preempted.trainer = trainer
    return trainer


def train(stage: Stage, preempted: Preemption | None = None) -> bool:
    return trainer_of(stage, preempted).run()


def outcome(stage: Stage) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any]]:
    """Return weights and moments, measurements, and totals, which must not depend on how often a stage was stopped."""
    folder = stage.path / "checkpoints" / read_result(stage.path).checkpoint
    tensors = {name: torch.empty(shape) for name, shape in checkpoint.shapes(folder).items() if "rng" not in name}
    checkpoint.read(folder, tensors)
    events = [
        {name: value for name, value in event.items() if name not in TIMES}
        for event in read_events(stage.path)
        if event["event"] in ("train", "eval")
    ]
    _, counters = checkpoint.read_state(folder)
    return tensors, events, {"tokens": counters.totals.tokens, "flops": counters.totals.flops}


def same(a: Any, b: Any) -> bool:
    return a[0].keys() == b[0].keys() and all(torch.equal(a[0][name], b[0][name]) for name in a[0]) and a[1:] == b[1:]


def assert_resumes_bit_for_bit(child: Stage) -> None:
    """Train a grown stage as a whole and, in another folder, with a stop after three steps; expect equal outcomes."""
    assert train(child)
    halved = elsewhere(child, "halved")
    assert not train(halved, StopAt(3))
    assert train(halved)
    assert same(outcome(child), outcome(halved))


def elsewhere(stage: Stage, name: str) -> Stage:
    return replace(stage, path=stage.path.with_name(f"{name}-{stage.key}"))


def process(stage: Stage) -> subprocess.Popen[bytes]:
    prepare_folder(stage)
    command = [sys.executable, "-m", "tfscale.training", str(stage.path)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("the condition was not met within two minutes")
