"""Tests of the memory of a step besides activations: allocations of an update, and the gradients under DDP."""

from collections.abc import Iterator
from typing import Any
from weakref import finalize

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tfscale.bench.sizes import tokenformer
from tfscale.models.counts import memory
from tfscale.models.execution import Execution
from tfscale.models.init import build_model
from tfscale.optimizers import base
from tfscale.optimizers.muon import Muon
from tfscale.stage.layout import Layout
from tfscale.training.device import Device
from tfscale.training.optimizer import ModelOptimizer
from tfscale.training.parallel import parallelize, reducing_gradients
from tfscale.training.world import World

CONFIG = tokenformer(16, n_layer=2, d=32, heads=2, context=32, vocabulary=64)
MUON = Muon(lr=0.02, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0)


class Live(TorchDispatchMode):
    """Counter of the bytes of existing tensors that were created in this context."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, operator: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        found = operator(*given, **(named or {}))
        known = {id(each.untyped_storage()) for each in tree_leaves((given, named)) if isinstance(each, Tensor)}
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and id(storage := tensor.untyped_storage()) not in known:
                self.bytes += storage.nbytes()
                self.peak = max(self.peak, self.bytes)
                finalize(storage, self._free, storage.nbytes())
        return found

    def _free(self, size: int) -> None:
        self.bytes -= size


@pytest.mark.parametrize("held", [1, 1 << 11, 1 << 24])
def test_the_memory_of_an_update_by_muon_is_counted(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(base, "HELD", held)
    model = build_model(CONFIG, seed=0)
    updates = ModelOptimizer(model, MUON, CONFIG)
    for _ in range(2):  # in the second update, the slots exist
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        with Live() as live:
            updates.step()
    assert 0.5 < live.peak / MUON.update_bytes(CONFIG, ranks=1) < 1.1
    without = memory(CONFIG, Execution(1))
    with_update = memory(CONFIG, Execution(1, update_bytes=10**9))
    assert with_update.total - without.total + without.temporary == 10**9 - without.activations - without.logits


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_with_ddp_buckets_exist_beside_the_gradients_of_earlier_micro_batches(group: None) -> None:
    world = World()
    world.size = 2  # only the model sees two ranks
    model = build_model(CONFIG, seed=0)
    objective = parallelize(model, world, Device("cpu", False, False), Layout("none", "none", 1, 1, "set"))
    assert isinstance(objective, DistributedDataParallel)
    tokens = torch.zeros(1, CONFIG.context, dtype=torch.long)

    def gradients(last: bool) -> dict[int, int]:
        with reducing_gradients(objective, last):
            objective(tokens, tokens).backward()
        stored = [weight.grad.untyped_storage() for weight in model.parameters() if weight.grad is not None]
        return {storage.data_ptr(): storage.nbytes() for storage in stored}

    buckets = gradients(last=True)  # DDP makes the gradients views of its buckets
    model.zero_grad(set_to_none=True)
    own = gradients(last=False)
    assert not own.keys() & buckets.keys()
    both = sum({**own, **buckets}.values())
    assert memory(CONFIG, Execution(1, buckets=True)).gradients == pytest.approx(both, rel=0.01)
