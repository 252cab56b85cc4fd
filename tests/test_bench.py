"""Tests of the benchmarks: every part runs, reference implementations compute the same, and results are complete."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from schemas import checked

from benchmarks.chart import draw_chart, has_chart
from benchmarks.gram import gram_pattention
from benchmarks.pattention import AS_USED, PRODUCTS, make_implementations, official, run_both_passes
from benchmarks.step import ENTRIES, GPT2, build_reference, plain
from benchmarks.targets import Verdict, judge
from tfscale.bench import step
from tfscale.bench.contest import MATRIX_PRODUCT, Contestant
from tfscale.bench.rows import Note, Row, from_line, to_line
from tfscale.bench.run import measure, run
from tfscale.bench.settings import Settings
from tfscale.bench.sizes import ON_CUDA, PROGRESSIVE_1, Size
from tfscale.bench.trained import OURS, OURS_MUON, TRANSFORMER, TRANSFORMER_MUON, Entry
from tfscale.models.init import build_model
from tfscale.models.parameter_tokens import TokenGroup
from tfscale.models.pattention import plain_pattention

ROOT = Path(__file__).parents[1]
STEP = {"tokens_per_second", "share_of_peak", "peak_bytes"}
FIGURES = {
    ("benchmarks.pattention", "n = 576"): STEP,
    ("benchmarks.step", "progressive_tiny 25K"): STEP,
    ("benchmarks.data", "124M"): set(),
    ("benchmarks.orchestration", "progressive_tiny"): set(),
    ("benchmarks.memory", "transformer 18M 8x256 bf16"): {"peak_bytes", "planned_bytes"},
}
"""Figures of every contestant of a part, in one of its cases. Two other parts are measured by the command below."""


@pytest.mark.usefixtures("two_stages")
@pytest.mark.parametrize(("part", "case"), FIGURES)
def test_every_part_measures_its_smallest_case(part: str, case: str) -> None:
    settings = Settings("cpu", quick=True, threads=1, case=case)
    found = list(measure(part, settings))
    rows = [each for each in found if isinstance(each, Row)]
    assert rows, found
    assert all(row.seconds or row.figures for row in rows)
    contestants = [row for row in rows if row.name not in (MATRIX_PRODUCT, PRODUCTS, AS_USED)]
    assert all(FIGURES[part, case] <= row.figures.keys() for row in contestants)
    assert all(from_line(to_line(each)) == each for each in found)
    assert all(verdict.part == part.rpartition(".")[2] for verdict in judge(rows, on_cuda=False))


def test_every_size_is_compiled_for_its_own_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.Size] = []

    def compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        compiled.append(inputs[0].shape)  # with a symbolic shape, the first input is a number
        return graph.forward

    double = torch.compile(lambda x: 2 * x, backend=compiler)

    def start(entry: Entry, size: Size, settings: Settings) -> Contestant:
        double(torch.ones(size.tokens))
        return Contestant(entry.name, lambda: 1.0, 1.0, size.tokens)

    monkeypatch.setattr(step, "measure_case", lambda *_, **__: [])
    before = torch.get_float32_matmul_precision()
    list(step.measure(Settings("cuda", quick=True, threads=1), [OURS], start))
    torch.set_float32_matmul_precision(before)
    assert compiled == [(size.tokens,) for size in ON_CUDA]


@pytest.mark.parametrize("name", ["ours", "recomputing", "official"])
def test_pattentions_that_are_compared_compute_the_same(name: str) -> None:
    n, settings = 24, Settings("cpu", quick=True, threads=1)
    x, keys, values, gradient = (
        torch.randn(shape, 8, dtype=torch.float64, requires_grad=True) for shape in (5, n, n, 5)
    )
    one, other = (make_implementations(settings, n)[each] for each in (name, "plain"))
    out = one(x, keys, values)
    torch.testing.assert_close(out, other(x, keys, values), rtol=1e-6, atol=1e-9)
    given = (x, keys, values)
    ours, theirs = (torch.autograd.grad(each(*given), given, gradient) for each in (one, other))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    run_both_passes(settings, one, x, keys, values, gradient)


def test_the_norm_from_the_gram_matrix_is_the_norm_of_the_scores() -> None:
    x, keys, values, gradient = (
        torch.randn(shape, 8, dtype=torch.float64, requires_grad=True) for shape in (5, 24, 24, 5)
    )
    given, groups = (x, keys, values), (TokenGroup(24, 3.0),)
    ours = gram_pattention(x, [(keys, values)], 3.0).squeeze(1)
    both = [ours, plain_pattention(x, keys, values, groups, "l2_norm_gelu")]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(*(torch.autograd.grad(out, given, gradient) for out in both))


@pytest.mark.parametrize("projection", [official, plain])
def test_models_that_are_compared_compute_the_same(projection: object) -> None:
    config = PROGRESSIVE_1.tokenformer
    ours, theirs = build_model(config, seed=0), build_reference(config, projection, "cpu")  # type: ignore[arg-type]
    tokens = torch.randint(config.vocab_size, (2, 16))
    losses = [model.loss(tokens, tokens.roll(-1, 1)) for model in (ours, theirs)]
    torch.testing.assert_close(*losses)
    gradients = [
        torch.autograd.grad(loss, tuple(model.parameters())) for loss, model in zip(losses, (ours, theirs), strict=True)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_contestant_learns(entry: Entry) -> None:
    if entry == GPT2:
        pytest.importorskip("transformers")
    model = entry.build(PROGRESSIVE_1, Settings("cpu", quick=True, threads=1))
    losses = [model.step() for _ in range(30)]
    assert losses[-1] < losses[0]


def test_the_command_writes_the_whole_result(tmp_path: Path) -> None:
    options = ["--quick", "--threads", "1", "--case", "25K", "--json", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "tfscale.cli", "bench", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = checked("bench", done.stdout)
    models = [entry.name for entry in (OURS, TRANSFORMER, OURS_MUON, TRANSFORMER_MUON)]
    assert {row["name"] for row in result["rows"]} == {*models, MATRIX_PRODUCT}
    assert all(row["figures"]["update_share"] > 0 for row in result["rows"] if row["name"] in models)
    assert {"median", "quartiles", "seconds", "figures"} <= result["rows"][0].keys()
    assert {"device", "processor", "cores", "threads", "load", "packages"} <= result["machine"].keys()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md"]
    assert "progressive_tiny 25K | ours" in next(tmp_path.glob("*.md")).read_text()


def test_the_benchmarks_of_the_checkout_write_the_whole_result(tmp_path: Path) -> None:
    options = ["--quick", "--threads", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks", "growth", "overhead", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".png", ".svg"]
    result = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert {row["name"] for row in result["rows"]} >= {"growth", "copy", "a checkpoint"}
    assert all(row["figures"]["bytes"] for row in result["rows"] if row["part"] == "growth")
    assert [verdict["part"] for verdict in result["verdicts"]] == ["overhead"]
    assert "small to large | growth" in done.stdout


def test_a_part_that_fails_is_reported_and_the_others_are_measured(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("def measure(settings): 1 / 0")
    (tmp_path / "works.py").write_text(
        "from tfscale.bench.rows import Note\ndef measure(settings): yield Note('works', 'done')"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    result = run(
        {"fails": "fails", "works": "works"},
        Settings("cpu", quick=True, threads=1),
        tell=lambda found: None,
        variables={"PYTHONPATH": path},
    )
    assert result.failed
    assert [note.part for note in result.notes] == ["fails", "works"]
    assert "exit code 1" in result.notes[0].words


def test_the_chart_shows_what_was_measured_and_its_targets() -> None:
    rows = [Row("step", "124M", name, (seconds,)) for name, seconds in (("ours", 2.0), ("Transformer", 3.0))]
    said = [Verdict("step", "124M: tokens/s", 1.5, 1.0, True), Verdict("step", "124M: memory", 0.0, 1.1, False)]
    svg = draw_chart("A device 9000", rows, said, "svg").decode()
    assert all(f"<!-- {words} -->" in svg for words in ("124M", "Transformer", "124M: memory", "A device 9000"))
    assert not has_chart([Row("data", "preparation", "prepare")], [])


def test_targets_are_judged_where_both_contestants_were_measured() -> None:
    def row(part: str, case: str, name: str, seconds: float, **figures: float) -> Row:
        return Row(part, case, name, (seconds,), figures)

    rows = [
        row("pattention", "n = 8560", "official", 3.0),
        row("pattention", "n = 8560", "ours", 2.0),
        row("step", "124M", "ours", 1.0, tokens_per_second=100.0, peak_bytes=9.0),
        row("step", "124M", "Transformer", 1.0, tokens_per_second=125.0, peak_bytes=10.0),
        row("data", "124M", "loader", 1.0, tokens_per_second=4000.0),
    ]
    judged = {verdict.name: (round(verdict.value, 3), verdict.reached) for verdict in judge(rows, on_cuda=False)}
    assert judged == {
        "n = 8560: speed over official": (1.5, True),
        "124M: tokens/s over Transformer's": (0.8, False),
        "124M: memory over the Transformer's": (0.9, True),
        "124M: loader over the step's need": (40.0, True),
    }


def test_a_verdict_knows_its_direction() -> None:
    assert Verdict("step", "speed", 1.2, 1.0, at_least=True).reached
    assert not Verdict("step", "time", 1.2, 1.0, at_least=False).reached


def test_quartiles_are_of_the_rounds() -> None:
    assert Row("step", "case", "ours", (1.0, 2.0, 3.0, 4.0, 5.0)).quartiles == (2.0, 4.0)
    assert Row("step", "case", "ours", (3.0, 1.0)).quartiles == (1.0, 3.0)
    assert from_line(to_line(Note("step", "left out"))) == Note("step", "left out")
