"""Tests of compiled stages: the number of compilations and their time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from stages import elsewhere, planned, train, trainer_of

from tfscale.bench.sizes import tokenformer
from tfscale.models.init import build_model
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage
from tfscale.stage.layout import EVALUATION_TOKENS, Layout
from tfscale.training.costs import Costs
from tfscale.training.device import Device
from tfscale.training.parallel import parallelize
from tfscale.training.world import World


class Compiler:
    """Compiler that counts graphs without compiling them."""

    def __init__(self) -> None:
        self.graphs = self.symbolic = self.while_timed = 0
        self.timed = False

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        self.symbolic += any(isinstance(each, torch.SymInt) for each in inputs)
        self.while_timed += self.timed
        return graph.forward


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    made, begin, end = Compiler(), Costs.begin, Costs.end

    def timed(self: Costs) -> None:
        made.timed = True
        begin(self)

    def not_timed(self: Costs) -> None:
        end(self)
        made.timed = False

    monkeypatch.setattr(Costs, "begin", timed)
    monkeypatch.setattr(Costs, "end", not_timed)
    torch.compiler.reset()
    with torch.compiler.set_stance(force_backend=made):
        yield made
    torch.compiler.reset()


def test_a_grown_stage_compiles_five_graphs_and_none_while_it_is_timed(
    small: list[str], compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EVALUATION_TOKENS, "cpu", 8 * 32)
    uneven = ["launcher.micro_batch=3", f"data.validation_tokens={20 * 32}"]  # of 4 and of 8 sequences
    parent, eager = planned([*small, *uneven])[:2]
    assert train(parent)
    assert train(eager)
    assert compiler.graphs == 0
    compiled = elsewhere(planned([*small, *uneven, "launcher.compile=on"])[1], "compiled")
    trainer = trainer_of(compiled)
    assert trainer.run(), "it evaluates first, then trains, evaluates again, and so on"
    assert compiler.graphs == 5, "a micro-batch, the rest of a batch, an evaluation, and the losses of both kinds"
    assert compiler.symbolic == 2, "the losses, whose tiles differ in size"
    assert compiler.while_timed == 0
    assert [event["seconds"] > 0 for event in read_events(compiled.path) if event["event"] == "compiled"] == [True]
    for event, same in zip(evaluations(compiled), evaluations(eager), strict=True):
        assert event == pytest.approx(same, rel=1e-4)


def test_data_parallelism_leaves_a_block_in_one_piece(compiler: Compiler) -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    class TwoRanks(World):
        """Rank 0 of two, where the other rank does not exist."""

        def __init__(self) -> None:
            self.rank, self.size, self.local_size = 0, 2, 2
            torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())

    world, model = (
        TwoRanks(),
        build_model(tokenformer(1024, 1, 256, 2, 16, 67), seed=0),
    )  # exceeds the first bucket
    try:
        layout = Layout("none", "none", micro_batch=2, evaluation_batch=2, micro_batch_by="set")
        objective = parallelize(model, world, Device("cpu", bf16=False, compiled=True), layout)
        tokens = torch.zeros(2, 16, dtype=torch.long)
        objective(tokens, tokens)
        del objective
    finally:
        world.close()
    assert compiler.graphs == 2, "the block and the loss"


def evaluations(stage: Stage) -> list[float]:
    return [event["loss"] for event in read_events(stage.path) if event["event"] == "eval"]
