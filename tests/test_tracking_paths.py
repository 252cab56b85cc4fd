"""The tracking store under any path, and no password in any message."""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from fuzzing import fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from tracked import client, contents, fetch, finished_chain, free_port, serving, sync, wait_for
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.faults import UserFault, without_password
from tfscale.plan.experiments import experiment_of
from tfscale.plan.plan import make_plan
from tfscale.tracking.mlflow.tracker import MlflowTracker, experiment_id
from tfscale.tracking.mlflow.urls import sqlite_file, sqlite_url
from tfscale.tracking.tracker import TrackingError

NAMES = ["job%2Fbranch", "r%20x", "100%", "what?", "a#b", "with space", "q'uo\"te", "a&b;c+d=e", "é李明", "back\\slash",
         "new\nline", "a@b:c", "{x}[1]<y>|*", " lead", "~", "日本?%3F#;"]  # fmt: skip
WORST = "job%2Fw?x #é&;+'\"\\ 李"


def metrics_in(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM metrics").fetchone()[0])


@pytest.mark.parametrize("name", NAMES)
def test_the_store_lies_in_the_runs_folder_whatever_its_name(name: str, tmp_path: Path, empty_database: Path) -> None:
    runs = tmp_path / name
    arm = finished_chain(runs)
    shutil.copy(empty_database, runs / "mlflow.db")
    store = MlflowTracker(runs)
    assert sync(store, "tiny", [arm]) > 0
    assert list(tmp_path.iterdir()) == [runs]
    assert metrics_in(runs / "mlflow.db") > 0
    assert experiment_id(store, "tiny") is not None
    assert store.unreachable() is None
    assert not store.lacks(set())
    (_, *files) = [file for file in (runs / "mlartifacts").rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"stage.yaml", "done.json"}
    again = MlflowTracker(tmp_path / "elsewhere", store.uri)
    assert (again.database, again.artifacts) == (store.database, store.artifacts)
    assert set(contents(again).values()) == {1}


@fuzz(60)
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
@example("%2F?uri=true")
@example("file:x")
def test_a_path_survives_its_way_into_a_url_and_back(name: str) -> None:
    if name in (".", ".."):
        return
    file = Path("/runs") / name / "mlflow.db"
    for query in ({}, {"timeout": "3"}):
        assert sqlite_file(sqlite_url(file, query)) == (file, query)


def test_a_sqlite_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert MlflowTracker(tmp_path, "sqlite:///~/my.db").database == tmp_path / "my.db"


def test_a_path_that_mlflow_would_change_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(ValueError, match=r"caf\\xe9.*UTF-8.*; try another folder, or tracking=none"):
        MlflowTracker(folder)


def test_a_run_a_report_and_a_sync_work_in_a_folder_with_any_name(
    short: list[str], two_stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    here = tmp_path / WORST
    shutil.copytree(two_stages, here)
    monkeypatch.chdir(here)
    (here / "runs").mkdir()
    shutil.copy(empty_database, here / "runs" / "mlflow.db")
    shutil.copy(empty_database, here / "other.db")
    overrides = [*(text for text in short if not text.startswith("runs=")), "runs=runs", "tracking=mlflow"]
    said = CliRunner().invoke(app, ["run", *overrides], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "tracking is not up to date" not in said.output
    assert metrics_in(here / "runs" / "mlflow.db") > 0
    report = CliRunner().invoke(app, ["report", *overrides, "--baseline", "trained_on"], catch_exceptions=False)
    assert report.exit_code == 0, report.output
    assert "tracking is not up to date" not in report.output
    assert (experiment_of(make_plan(compose(overrides))).comparison / "report.html").is_file()
    export = CliRunner().invoke(app, ["export", "chain", *overrides, "--out", "ex?%2F"], catch_exceptions=False)
    assert export.exit_code == 0, export.output
    said = CliRunner().invoke(
        app, ["sync", sqlite_url(here / "other.db"), *overrides, "--json"], catch_exceptions=False
    )
    assert json.loads(said.stdout)["experiments"][0]["values_sent"] > 0
    assert metrics_in(here / "other.db") > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [WORST]


def test_mlflows_page_serves_a_store_with_any_name(tmp_path: Path, empty_database: Path) -> None:
    runs, port = tmp_path / WORST, free_port()
    arm = finished_chain(runs)
    shutil.copy(empty_database, runs / "mlflow.db")
    store = MlflowTracker(runs)
    sync(store, "tiny", [arm])
    with serving(store, port):
        assert "<title>MLflow</title>" in wait_for(lambda: fetch(port))
        remote = client(MlflowTracker(tmp_path, f"http://127.0.0.1:{port}"))
        found = remote.get_experiment_by_name("tiny")
        assert found is not None
        assert len(remote.search_runs([found.experiment_id])) == 3
    assert list(tmp_path.iterdir()) == [runs, *tmp_path.glob("tracking")]


URIS = ["postgresql://ann:{}@h/db", "mysql+nodriver://ann:{}@h/db", "mysql://h/db?password={}",
        "mssql+a+b://ann:{}@h/db", "foo://ann:{}@h", "https://ann:{}@127.0.0.1:9/x"]  # fmt: skip


@pytest.mark.parametrize("password", ["secret-1", "se@cret-1", "se/cret-1", "se:cret-1", "secret-1%40"])
@pytest.mark.parametrize("uri", URIS)
def test_a_message_about_a_store_shows_no_password(uri: str, password: str, tmp_path: Path) -> None:
    whole = uri.format(password)
    assert "cret-1" not in without_password(f"a {whole} b {whole}")
    try:
        shown = MlflowTracker(tmp_path, whole).shown
    except ValueError as error:
        shown = str(error)
    assert "cret-1" not in shown


@pytest.mark.parametrize("uri", URIS)
def test_no_verb_shows_a_password(uri: str, small: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    whole = uri.format("se@cret/-1")
    tracked = [*small, "tracking=mlflow", f"tracking.uri={whole}"]
    for words in (
        ["sync", whole, *small],
        ["run", *small, f"trackng.uri={whole}"],
        ["run", *tracked],
        ["ui", *tracked],
    ):
        said = CliRunner().invoke(app, words)
        assert "cret" not in f"{said.output}{said.exception or ''}{capfd.readouterr()}", words
        assert said.exception is None or isinstance(said.exception, UserFault | SystemExit), said.exception


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (
            "postgresql+psycopg2://u:p@h/db",
            "must have a driver, but psycopg2-binary is not installed; try pip install 'psycopg2-binary'",
        ),
        ("mysql+pymysql://u:p@h/db", "must have a driver, but pymysql is not installed"),
        ("mssql+pyodbc://u:p@h/db", "must have a driver, but pyodbc is not installed"),
        ("mysql+nodriver://u:p@h/db", "nodriver"),
        ("postgresql://h:port/db", "tracking.uri='postgresql://h:port/db'"),
        ("oracle://h/db", "must be sqlite:///FILE"),
    ],
)
def test_a_database_without_its_driver_is_told_with_the_package(uri: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        MlflowTracker(tmp_path, uri)


def test_what_is_no_url_keeps_its_at_sign() -> None:
    for text in ("runs=a@b: must be", "user@host", "sqlite:////home/a/b.db"):
        assert without_password(text) == text


def test_a_page_on_a_port_that_is_taken_is_refused_before_a_link_is_shown(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = CliRunner().invoke(app, ["ui", "--port", str(port), f"runs={tmp_path}"])
    assert isinstance(said.exception, UserFault)
    assert f"--port={port}: must be a free port" in str(said.exception)
    assert "http://" not in said.output


def test_a_driver_that_is_missing_inside_mlflow_is_an_error_of_tracking(
    store: MlflowTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TrackingError, match=r"MLflow at .*import of mlflow halted"):
        sync(store, "tiny", [finished_chain(tmp_path)])


def test_sqlalchemy_is_not_loaded_for_the_default_store() -> None:
    code = "import sys; from pathlib import Path; from tfscale.tracking.mlflow.tracker import MlflowTracker; "
    code += "MlflowTracker(Path('runs')); print('sqlalchemy' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"
