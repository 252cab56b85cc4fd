"""The benchmark: every part runs, the references compute what ours does, and a result is told in full."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tfscale.bench.chart import chart, has_chart
from tfscale.bench.contestants import CONTESTANTS, GPT2, contestant
from tfscale.bench.pattention import AS_USED, both_passes, implementations
from tfscale.bench.reference import official, plain, written_out
from tfscale.bench.rows import Note, Row, Rows, Verdict
from tfscale.bench.run import Result
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import PROGRESSIVE_1
from tfscale.bench.worker import from_line, measure, to_line, verdicts
from tfscale.models.init import build_model

FIGURES = {
    ("pattention", "n = 576"): {"share_of_peak", "kept_bytes", "peak_bytes"},
    ("step", "progressive_tiny 25K"): {"tokens_per_second", "share_of_peak", "parameters", "peak_bytes"},
    ("growth", "small"): {"bytes"},
    ("overhead", ""): set(),
    ("data", "124M"): set(),
    ("orchestration", "start"): set(),
}
"""What every contestant of a part, in one of its cases, is told of."""


@pytest.mark.parametrize(("part", "case"), FIGURES)
def test_every_part_measures_at_its_smallest(part: str, case: str) -> None:
    settings = Settings("cpu", quick=True, threads=1, case=case)
    found = list(measure(part, settings))
    rows = [each for each in found if isinstance(each, Row)]
    assert rows, found
    assert all(row.seconds or row.figures for row in rows)
    contestants = [row for row in rows if row.name not in ("matrix product", "six products", AS_USED)]
    assert all(FIGURES[part, case] <= row.figures.keys() for row in contestants)
    assert all(from_line(to_line(each)) == each for each in found)
    assert all(isinstance(verdict, Verdict) for verdict in verdicts(part, Rows(rows), settings))


@pytest.mark.parametrize("name", ["ours", "recomputing", "official"])
def test_pattentions_that_are_compared_compute_the_same(name: str) -> None:
    n, settings = 24, Settings("cpu", quick=True, threads=1)
    x, keys, values, gradient = (
        torch.randn(shape, 8, dtype=torch.float64, requires_grad=True) for shape in (5, n, n, 5)
    )
    one, other = (implementations(settings, n)[each] for each in (name, "plain"))
    out = one(x, keys, values)
    torch.testing.assert_close(out, other(x, keys, values), rtol=1e-6, atol=1e-9)
    given = (x, keys, values)
    ours, theirs = (torch.autograd.grad(each(*given), given, gradient) for each in (one, other))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    both_passes(settings, one, x, keys, values, gradient)


@pytest.mark.parametrize("projection", [official, plain])
def test_models_that_are_compared_compute_the_same(projection: object) -> None:
    config = PROGRESSIVE_1.tokenformer
    ours, theirs = build_model(config, seed=0), written_out(config, projection, "cpu")  # type: ignore[arg-type]
    tokens = torch.randint(config.vocab_size, (2, 16))
    losses = [model.loss(tokens, tokens.roll(-1, 1)) for model in (ours, theirs)]
    torch.testing.assert_close(*losses)
    gradients = [
        torch.autograd.grad(loss, tuple(model.parameters())) for loss, model in zip(losses, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_contestant_learns(name: str) -> None:
    if name == GPT2:
        pytest.importorskip("transformers")
    made = contestant(name, PROGRESSIVE_1, Settings("cpu", quick=True, threads=1))
    losses = [made.step() for _ in range(30)]
    assert losses[-1] < losses[0]


def test_the_command_writes_the_whole_result(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tfscale.cli", "bench", "growth", "--quick", "--json", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {row["name"] for row in result["rows"]} == {"growth", "copy"}
    assert {"median", "quartiles", "seconds", "figures"} <= result["rows"][0].keys()
    assert {"device", "processor", "cores", "threads", "load", "packages"} <= result["machine"].keys()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md"]
    assert "small to large | growth" in next(tmp_path.glob("*.md")).read_text()


def test_a_part_that_does_not_exist_is_told() -> None:
    done = subprocess.run([sys.executable, "-m", "tfscale.cli", "bench", "steps"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "steps: no such part" in done.stderr


def test_the_chart_shows_what_was_measured_and_its_targets(tmp_path: Path) -> None:
    rows = [Row("step", "124M", name, (seconds,)) for name, seconds in (("ours", 2.0), ("Transformer", 3.0))]
    said = [Verdict("step", "124M: tokens/s", 1.5, 1.0, True), Verdict("step", "124M: memory", 0.0, 1.1, False)]
    result = Result({"device": "A device 9000"}, rows, [], said, broken=False)
    svg = chart(result, "svg").decode()
    assert all(f"<!-- {words} -->" in svg for words in ("124M", "Transformer", "124M: memory", "A device 9000"))
    assert not has_chart(Result({}, [Row("data", "preparation", "prepare")], [], [], broken=False))


def test_a_verdict_knows_its_direction() -> None:
    assert Verdict("step", "speed", 1.2, 1.0, at_least=True).reached
    assert not Verdict("step", "time", 1.2, 1.0, at_least=False).reached


def test_quartiles_are_of_the_rounds() -> None:
    assert Row("step", "case", "ours", (1.0, 2.0, 3.0, 4.0, 5.0)).quartiles == (2.0, 4.0)
    assert Row("step", "case", "ours", (3.0, 1.0)).quartiles == (1.0, 3.0)
    assert from_line(to_line(Note("step", "left out"))) == Note("step", "left out")
