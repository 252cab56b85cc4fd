"""Which stores there are."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracked import finished_chain, sync

from tfscale.tracking.mlflow.tracker import MlflowTracker, ui_command, ui_environment
from tfscale.tracking.tracker import TrackingError


def test_the_default_store_is_in_the_runs_folder_by_absolute_uris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = MlflowTracker(Path("my runs"))
    assert store.uri == f"sqlite:///{tmp_path}/my runs/mlflow.db"
    assert store.artifacts == f"file://{tmp_path}/my%20runs/mlartifacts"
    assert store.database == tmp_path / "my runs" / "mlflow.db"


def test_a_relative_sqlite_uri_counts_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = MlflowTracker(Path("runs"), "sqlite:///here.db?timeout=3")
    assert (store.uri, store.database) == (f"sqlite:///{tmp_path}/here.db?timeout=3", tmp_path / "here.db")
    assert store.artifacts == f"file://{tmp_path}/mlartifacts"


def test_a_server_decides_where_its_artifacts_are(tmp_path: Path) -> None:
    store = MlflowTracker(tmp_path, "http://127.0.0.1:5000")
    assert (store.artifacts, store.database) == (None, None)


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///:memory:"])
def test_a_uri_that_keeps_nothing_or_is_a_file_store_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ValueError, match=r"tracking\.uri=.*sqlite:///"):
        MlflowTracker(tmp_path, uri)


def test_messages_never_show_a_password(tmp_path: Path) -> None:
    store = MlflowTracker(tmp_path, "https://ann:secret@mlflow.example.org/team")
    assert store.shown == "https://mlflow.example.org/team"


def test_a_file_that_is_no_database_is_a_store_error_that_names_it(tmp_path: Path) -> None:
    store = MlflowTracker(tmp_path)
    (tmp_path / "mlflow.db").write_text("not a database, and long enough to be looked at as one\n" * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db: .*not a database"):
        sync(store, "tiny", [finished_chain(tmp_path)])


def test_the_page_of_a_server_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="open this URI in a browser"):
        ui_command(MlflowTracker(tmp_path, "http://127.0.0.1:5000"))


def test_the_page_is_served_to_this_machine_alone_and_phones_nobody(tmp_path: Path) -> None:
    command = ui_command(MlflowTracker(tmp_path), port=5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5001"
    assert ui_environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_store_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    code = "from pathlib import Path; from tfscale.tracking.mlflow.tracker import MlflowTracker; "
    code += f"MlflowTracker(Path({str(tmp_path)!r})).client()"
    making = subprocess.Popen([sys.executable, "-c", code])
    aside = tmp_path / ".mlflow.db.making"
    while not (aside.exists() and aside.stat().st_size > 100_000) and making.poll() is None:
        time.sleep(0.005)
    making.kill()
    assert making.wait() != 0
    assert not (tmp_path / "mlflow.db").exists()
    assert MlflowTracker(tmp_path).client().search_experiments()
