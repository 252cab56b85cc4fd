"""Compiled stages: how often they compile, and when."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from stages import elsewhere, planned, train, trainer_of

from tfscale.stage.events import read_events
from tfscale.stage.layout import EVALUATION_TOKENS
from tfscale.training.costs import Costs


class Compiler:
    """A compiler that compiles nothing, but counts."""

    def __init__(self) -> None:
        self.graphs = self.while_timed = 0
        self.timed = False

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs += 1
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


def test_a_grown_stage_compiles_four_graphs_and_none_while_it_is_timed(
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
    assert compiler.graphs == 4, "a micro-batch, the rest of a batch, an evaluation, and the loss"
    assert compiler.while_timed == 0
    assert [event["seconds"] > 0 for event in read_events(compiled.path) if event["event"] == "compiled"] == [True]
    for event, same in zip(evaluations(compiled), evaluations(eager), strict=True):
        assert event == pytest.approx(same, rel=1e-4)


def evaluations(stage: Any) -> list[float]:
    return [event["loss"] for event in read_events(stage.path) if event["event"] == "eval"]
