"""Tests of `tfscale store`."""

from pathlib import Path
from typing import Any

import pytest
from finished import first_stage, overrides_of
from schemas import checked
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.faults import UserFault
from tfscale.store.contents import DONE
from tfscale.store.snapshot import MANIFEST_FILE


def tfscale(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["store", *words, "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return checked(f"store {words[0]}", result.stdout)


def test_the_commands_say_what_they_do(corpus: Path, tmp_path: Path) -> None:
    stage = first_stage(overrides_of(corpus, tmp_path / "here"))
    here, there = (f"runs={tmp_path / name}" for name in ("here", "there"))
    store, text = f"store={tmp_path / 'store'}", Path(stage.spec.run.data_dir).name
    assert set(tfscale("push", here, store)["items"]) == {stage.path.name, text}
    assert [(each["kind"], each["name"], each["state"]) for each in tfscale("ls", store)["items"]] == [
        ("corpus", text, DONE),
        ("stage", stage.path.name, DONE),
    ]
    assert tfscale("pull", store, there, "--only", stage.key[:4])["items"] == {
        stage.path.name: "taken from the store (done)"
    }
    assert tfscale("pull", store, there)["items"][stage.path.name] == "already here"
    assert tfscale("verify", store) | {"read": 0} == {
        "store": str(tmp_path / "store"), "sound": True, "problems": [], "read": 0
    }  # fmt: skip
    assert tfscale("gc", store, "--dry-run")["files"] == []
    (file,) = [path for path in (tmp_path / "store" / "data").rglob("*") if path.name == MANIFEST_FILE]
    file.write_text("{}")
    assert not tfscale("verify", store, code=1)["sound"]
    with pytest.raises(UserFault, match="--only=no_such: must be in"):
        tfscale("pull", store, there, "--only", "no_such")
    with pytest.raises(UserFault, match="store=null: must name a store"):
        tfscale("ls")
