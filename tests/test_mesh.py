"""Tests of plans for 64 and 512 devices against FSDP2, with the real 1.4B models on a mesh of a fake process group and
a training step of fake tensors, without memory or a network."""

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest

from tfscale.config.compose import compose
from tfscale.models.config import ModelConfig
from tfscale.plan.plan import make_plan
from tfscale.predict import planned_machine, predict
from tfscale.predict.cost import Prediction
from tfscale.stage.spec import StageSpec

CLUSTER = [
    "schedule=progressive_1b4",
    "baseline=transformer",
    "launcher.kind=slurm",
    "device=h100_sxm",
    "model.context=64",
]  # irrelevant here
PER_HOST = 8
Case = tuple[str, int, str, str]
CASES: list[Case] = [
    ("tokenformer", 64, "full", "adamw"),
    ("tokenformer", 64, "full", "muon"),
    ("tokenformer", 64, "hybrid", "adamw"),
    ("tokenformer", 512, "full", "adamw"),
    ("transformer", 512, "full", "adamw"),
]


def planned(family: str, devices: int, sharding: str, optimizer: str) -> tuple[StageSpec, Prediction]:
    """Return the spec of the largest stage of a family, and its predicted layout."""
    overrides = [
        *CLUSTER,
        f"optim.name={optimizer}",
        f"launcher.nodes={devices // PER_HOST}",
        f"launcher.sharding={sharding}",
    ]
    plan = make_plan(compose([*overrides, "launcher.activation_checkpointing=none"]))
    spec = next(arm.stages[-1].spec for arm in plan.arms if arm.stages[-1].spec.model.family == family)
    return spec, predict(spec, planned_machine(plan.experiment), [])


def steps_of_rank_0() -> dict[Case, dict[str, int]]:
    """Return the bytes of the weights, gradients and moments on rank 0 after a training step, by case."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed.tensor import DTensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from tfscale.models.init import build_model
    from tfscale.training.device import Device
    from tfscale.training.optimizer import ModelOptimizer
    from tfscale.training.parallel import parallelize
    from tfscale.training.world import World

    class Mesh(World):
        """Rank 0 of a world whose other ranks do not exist."""

        def __init__(self, size: int) -> None:
            self.rank, self.size, self.local_size = 0, size, PER_HOST
            torch.distributed.init_process_group("fake", rank=0, world_size=size, store=FakeStore())

    def own(tensors: list[torch.Tensor]) -> int:
        assert tensors
        assert all(isinstance(tensor, DTensor) for tensor in tensors)
        return sum(tensor.to_local().nbytes for tensor in tensors if isinstance(tensor, DTensor))

    def step(family: str, devices: int, sharding: str, optimizer: str) -> dict[str, int]:
        spec, found = planned(family, devices, sharding, optimizer)
        one = replace(found.layout, micro_batch=1, evaluation_batch=1)
        model, world = build_model(spec.model, device="meta"), Mesh(devices)
        objective = parallelize(model, world, Device("cpu", bf16=False, compiled=False), one)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            updates = ModelOptimizer(model, spec.optimizer, spec.model)
            tokens = torch.zeros(1, spec.model.context, dtype=torch.long)
            objective(tokens, tokens).backward()
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            held = {"weights": own(list(model.parameters())), "gradients": own(gradients)}
            updates.step()
            held["moments"] = own(list(updates.state().values()))
        world.close()
        return held

    return {case: step(*case) for case in CASES}


@pytest.fixture(scope="module")
def held() -> dict[Case, dict[str, int]]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:  # keeps process groups out of this process
        return alone.submit(steps_of_rank_0).result()


def rows_and_widths(model: ModelConfig) -> list[tuple[int, int]]:
    """Return the first dimension of every weight, and the bytes of one of its rows."""
    from tfscale.models.init import build_model

    shapes = [tuple(parameter.shape) for parameter in build_model(model, device="meta").parameters()]
    return [(shape[0], 4 * math.prod(shape[1:])) for shape in shapes]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_device_holds_what_the_plan_says_up_to_a_row_of_each_tensor(
    case: Case, held: dict[Case, dict[str, int]]
) -> None:
    spec, found = planned(*case)
    shards = found.machine.shards(found.layout.sharding)
    weights = rows_and_widths(spec.model)
    # FSDP2 divides a tensor by rows, so its first ranks hold up to one row more than the equal share in the plan, and
    # its last ranks less.
    assert held[case]["weights"] == sum(math.ceil(rows / shards) * width for rows, width in weights)
    slots = 2 if case[3] == "adamw" else 1
    for part, times in (("weights", 1), ("gradients", 1), ("moments", slots)):
        more = held[case][part] - getattr(found.memory, part)
        assert 0 <= more < times * sum(width for _, width in weights), part
        assert held[case][part] == pytest.approx(getattr(found.memory, part), rel=0.011)
