"""Tests of rehearsals, which run every stage and every growth for a few steps, report measurements, and leave no
checkpoint."""

from pathlib import Path

import pytest
from schemas import checked
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.plan.plan import make_plan
from tfscale.plan.rehearsal import STEPS


def test_a_rehearsal_keeps_what_it_rehearses_and_shortens_the_rest() -> None:
    real = make_plan(compose(["schedule=progressive_1b4", "launcher.micro_batch=4", "growth=exact"]))
    short = make_plan(
        compose(["schedule=progressive_1b4", "launcher.micro_batch=4", "growth=exact", "schedule.rehearse=true"])
    )
    assert short.runs != real.runs
    assert short.experiment.data.source == "wiki"
    for long, stage in zip(real.chain.stages, short.chain.stages, strict=True):
        assert stage.spec.model == long.spec.model
        assert stage.spec.optimizer == long.spec.optimizer
        assert stage.spec.batch_tokens == long.spec.batch_tokens
        assert stage.spec.run.micro_batch == 4
        assert stage.spec.steps == STEPS
        if long.spec.growth:
            assert stage.spec.growth == long.spec.growth


def test_a_rehearsal_grows_verifies_reports_and_cleans_up(short: list[str], tmp_path: Path) -> None:
    command = ["run", *short, "growth=exact", "schedule.rehearse=true"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "rehearsal"
    report = checked("run", (folder / "report.json").read_text())["stages"]
    assert len(report) == 2
    for row in report:
        assert row["tokens_per_second"] > 0
        assert row["checkpoint_bytes"] > 0
        assert row["peak_memory"] > 0
    for row in report[1:]:
        found = row["growth"]["comparison"]
        assert found["loss_after"] == pytest.approx(found["loss_before"], abs=1e-9)
    assert not list((folder / "stages").glob("*/checkpoints"))

    before = {path: path.stat().st_mtime_ns for path in folder.glob("stages/*/done.json")}
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    again = {path: path.stat().st_mtime_ns for path in folder.glob("stages/*/done.json")}
    assert again.keys() == before.keys()
    assert all(again[path] > before[path] for path in before), "every rehearsal trains again"
