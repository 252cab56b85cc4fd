"""Tests of --json for every command, and of output that is only printed for people."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from finished import finished, overrides_of
from schemas import DOCUMENTS, checked, file_of, schema_of
from typer.testing import CliRunner

from tfscale.cli.console import console
from tfscale.cli.main import app
from tfscale.config.folders import conf_dir, group_options
from tfscale.doctor import device_check
from tfscale.doctor.device_check import Outcome
from tfscale.plan.plan import Plan

SERVES = {"ui"}
"""Commands that serve a browser."""


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield f"{before}{name}", command


def test_every_verb_that_prints_has_json() -> None:
    lacking = {
        name
        for name, command in commands(typer.main.get_command(app))
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert lacking == SERVES


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Plan]:
    """Overrides and plan of a chain whose first two stages are finished."""
    overrides = overrides_of(corpus, tmp_path_factory.mktemp("json"))
    return overrides, finished(overrides)


def answer(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert not console.stderr
    command = next(name for name in DOCUMENTS if list(arguments[: len(name.split())]) == name.split())
    return checked(command, result.stdout)


def test_every_document_has_a_schema_which_is_up_to_date() -> None:
    assert set(DOCUMENTS) | SERVES == {name for name, _ in commands(typer.main.get_command(app))}
    for command in DOCUMENTS:
        written = json.loads(file_of(command).read_text(encoding="utf-8"))
        assert written == schema_of(command), "run `python docs/json_schemas.py`"
    assert {file_of(command) for command in DOCUMENTS} == set(file_of("run").parent.iterdir())


def test_each_verb_answers_with_one_document_alone(made: tuple[list[str], Plan], tmp_path: Path) -> None:
    overrides, plan = made
    stage, grown = plan.chain.stages[:2]
    runs = f"runs={plan.runs}"
    short = [*overrides, "baseline=none"]

    planned = answer("plan", *short)
    assert [each["key"] for each in planned["arms"][0]["stages"]] == [each.key for each in plan.chain.stages]

    states = answer("status", *short)
    assert [each["state"] for each in states["arms"][0]["stages"]] == ["done", "done", "waiting", "waiting"]
    assert states["arms"][0]["stages"][0]["evaluation"]["perplexity"] > 1
    assert not states["done"]
    assert answer("status", "--verify", *short)["sound"]

    [corpus] = answer("data", "list", runs)["corpora"]
    prepared = answer("data", "prepare", *overrides)
    assert [each["name"] for each in prepared.pop("files")["read"]] == [f"part{number}.jsonl" for number in range(4)]
    assert corpus == {**prepared, "bytes": corpus["bytes"]}

    [written] = answer("generate", stage.key, "the model", runs, "--tokens", "5")
    assert written["prompt"] + written["text"]
    [measured] = answer("eval", stage.key, runs)
    assert measured["stage"] == stage.path.name
    assert measured["perplexity"] > 1

    by_hand = answer("grow", grown.key, "--qkv", "20", "--to", str(tmp_path / "grown"), runs)
    assert by_hand["loss_before"] == pytest.approx(by_hand["loss_after"], abs=1e-4)
    exported = answer("export", grown.key, "--out", str(tmp_path / "hf"), runs)
    assert Path(exported["folder"], "config.json").is_file()
    imported = answer("import", exported["folder"], "--to", str(tmp_path / "back"))
    assert imported["parameters"] == by_hand["parameters_before"]

    compared = answer("compare", *overrides, "--baseline", "transformer")
    assert compared["rows"]
    assert all(Path(file).is_file() for file in compared["files"])


def test_a_run_answers_with_the_state_of_its_stages(made: tuple[list[str], Plan], tmp_path: Path) -> None:
    overrides, plan = made
    shipped = (conf_dir() / "schedule" / "progressive_tiny.yaml").read_text()
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule" / "two.yaml").write_text(shipped.partition("    stage3:")[0])  # both stages are finished
    two = [text for text in overrides if "stage3" not in text and "stage4" not in text]
    states = answer("run", "schedule=two", "--config-dir", str(tmp_path), *two)
    assert states["done"]
    assert [each["key"] for each in states["arms"][0]["stages"]] == [each.key for each in plan.chain.stages[:2]]


def test_a_number_that_is_none_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    from tfscale.cli.console import answer as printed

    printed({"loss": float("nan"), "path": Path("a"), "sizes": (1, float("inf"))})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "path": "a", "sizes": [1, None]}


def test_every_choice_is_listed_with_a_line_about_it(tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("# Mine: not yours. Nor theirs.\nlr: 1\n")
    choices = answer("list", "--config-dir", str(tmp_path))
    shipped = {(group, name) for group, names in group_options().items() for name in names}
    assert {(each["group"], each["name"]) for each in choices} == shipped | {("optim", "mine")}
    assert all(each["about"] and len(each["about"]) < 130 for each in choices)
    assert [each["about"] for each in choices if each["own"]] == ["Mine"]
    assert {Path(each["file"]).parents[1] for each in choices if not each["own"]} == {conf_dir()}


@pytest.mark.parametrize("kind", ["growth", "growths"])
def test_a_group_is_listed_by_its_name_or_its_plural(kind: str) -> None:
    result = CliRunner().invoke(app, ["list", kind])
    assert "keeping tau" in result.stdout
    assert "tfscale plan growth=" in result.stdout


def test_a_kind_that_there_is_not_is_told_with_the_nearest() -> None:
    result = CliRunner().invoke(app, ["list", "schedulse"])
    assert "did you mean schedule or schedules?" in str(getattr(result.exception, "faults", ""))


def test_the_doctor_finds_this_machine_usable(made: tuple[list[str], Plan]) -> None:
    overrides, plan = made
    found = {each["name"]: each for each in answer("doctor", *overrides)["findings"]}
    without_its_devices = torch.version.cuda and not torch.cuda.is_available()
    assert found["torch"]["state"] == ("note" if without_its_devices else "good")
    assert found["device"]["state"] == "good"
    assert plan.corpus.fingerprint in found["corpus"]["what"]
    assert found["progressive_tiny"]["state"] == "good"


def test_the_doctor_computes_on_a_device_and_tells_what_is_wrong_there(
    made: tuple[list[str], Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_device(device: str) -> list[Outcome]:
        return [Outcome("resume", True, f"the same bits on {device}"), Outcome("memory", False, "3 GB, planned 2 GB")]

    monkeypatch.setattr(device_check, "check_device", check_device)
    found = {each["name"]: each for each in answer("doctor", "--device", "cpu", *made[0], code=1)["findings"]}
    assert (found["resume"]["state"], found["resume"]["what"]) == ("good", "the same bits on cpu")
    assert (found["memory"]["state"], found["memory"]["what"]) == ("broken", "3 GB, planned 2 GB")


def test_the_doctor_says_what_is_broken_and_how_to_mend_it(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    database.write_text("no database")
    overrides = ["runs=/proc/nowhere", f"tracking.uri=sqlite:///{database}", "data=text", "data.path=nowhere"]
    answered = answer("doctor", *overrides, code=1)
    assert not answered["usable"]
    found = {each["name"]: each for each in answered["findings"]}
    assert found["disk"]["state"] == "broken"
    assert "runs=" in found["disk"]["mend"]
    assert "not a database" in found["tracking"]["what"]
    assert found["corpus"]["state"] == "broken"
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(database).execute("SELECT 1 FROM sqlite_master")


def test_the_doctor_asks_a_server_whether_it_is_there(tmp_path: Path) -> None:
    found = answer("doctor", f"runs={tmp_path}", "tracking.uri=http://127.0.0.1:9")["findings"]
    [store] = [each for each in found if each["name"] == "tracking"]
    assert store["state"] == "note"
    assert "refused" in store["what"]
