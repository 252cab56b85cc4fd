"""Location of the MLflow store, and quiet access to it without long waits."""

import os
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale.faults import Fault, InvalidInput
from tfscale.tracking.lock import locked
from tfscale.tracking.mlflow.urls import check_driver, is_server, read_only, sqlite_file, sqlite_url
from tfscale.tracking.tracker import Sink, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

REACH_SECONDS = 5.0
"""Longest time to wait for a response when checking whether a server is reachable."""


class MlflowTracker(Tracker):
    """An MLflow tracking store: by default `mlflow.db` in the runs folder, with the artifacts in `mlartifacts`.

    Args:
        uri: any MLflow tracking URI except that of a file store. A relative SQLite path is relative to the current
            folder, and `~` is the home folder.

    Raises:
        ValueError: the URI is malformed or a file store's, its database driver is not installed, or MLflow cannot keep
            artifacts under the path.
    """

    title = "MLflow"

    def __init__(self, runs: Path, uri: str | None = None) -> None:
        runs = runs.resolve()
        self.database: Path | None = None
        """File of a SQLite store; None for any other store."""
        self.artifacts: str | None = None
        """URI under which new experiments keep their artifacts; None if the server decides."""
        if uri is None or uri.partition(":")[0] in ("sqlite", "sqlite+pysqlite"):
            self.database, query = sqlite_file(uri) if uri else (runs / "mlflow.db", {})
            self.artifacts = _artifacts(self.database.parent)
            uri = sqlite_url(self.database, query)
        elif not is_server(uri):
            check_driver(uri)
            self.artifacts = _artifacts(runs)
        super().__init__(runs, uri)

    @property
    def shown(self) -> str:
        return f"sqlite:///{self.database}" if self.database is not None else super().shown

    def connect(self, experiment: str) -> Sink:
        from tfscale.tracking.mlflow.sink import MlflowSink

        return MlflowSink(self.client(), experiment, self.artifacts)

    def client(self) -> "MlflowClient":
        """Return a client of the store, whose schema is created if missing. Only explicit IDs are used, so
        MLFLOW_RUN_ID, MLFLOW_EXPERIMENT_ID and MLFLOW_TRACKING_URI have no effect."""
        for name, value in quiet_environment().items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        if self.database is not None:
            _create_schema(self.database, self.artifacts)
            _try_sqlite(self.database)
        elif not is_server(self.uri):
            _try_server(self.uri)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def exists(self) -> bool:
        return self.database is None or self.database.exists()

    def lacks(self, run_ids: set[str]) -> bool:
        """Return `Tracker.lacks` of a SQLite file, queried without MLflow in milliseconds; False for other stores."""
        if self.database is None:
            return False
        try:
            with closing(read_only(self.database)) as connection:
                found = connection.execute("SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'")
                return not run_ids <= {run_id for (run_id,) in found}
        except sqlite3.Error:  # the file is missing, or MLflow will report its fault
            return bool(run_ids)

    def unreachable(self) -> str | None:
        """Return why the store cannot be reached, without importing MLflow; see `Tracker.unreachable`. A missing SQLite
        file is not a fault, and a database server is not contacted."""
        try:
            if self.database is not None and self.database.exists():
                _try_sqlite(self.database)
            elif self.uri.startswith(("http://", "https://")):
                urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=REACH_SECONDS).close()  # noqa: S310
        except (sqlite3.Error, OSError, ValueError) as error:
            return str(error)
        return None


def quiet_environment() -> dict[str, str]:
    """Return environment variables for a process that imports MLflow; the caller's environment can override each."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # The mirror retries by itself, and checks before it creates a run; if MLflow repeated a request whose response
        # was lost, the run would be created twice.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        # A pooled connection continues to write to a SQLite file that has been deleted.
        "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    }


def _artifacts(folder: Path) -> str:
    """Return the URI of the artifacts in a folder.

    Raises:
        ValueError: the path is not UTF-8, as which MLflow reads such URIs, so it would write to another folder.
    """
    try:
        os.fsencode(folder).decode("utf-8")
    except UnicodeDecodeError:
        rule = "MLflow cannot keep artifacts under a path that is not UTF-8"
        hint = "another folder, or tracking=none"
        raise InvalidInput(Fault("runs", repr(os.fsencode(folder)), rule, hint)) from None
    return (folder / "mlartifacts").as_uri()


def _create_schema(database: Path, artifacts: str | None) -> None:
    """Create the SQLite store if it does not exist."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that create the store at the same time would break it, so the second waits for the first.
    with locked(database.with_name(f"{database.name}.lock")):
        if not database.exists() or database.stat().st_size == 0:
            # A kill would leave tables that MLflow can neither use nor recreate, so they are created in another file.
            aside = database.with_name(f".{database.name}.making")
            for left in aside.parent.glob(f"{aside.name}*"):  # a leftover journal would be applied to the new file
                left.unlink()
            SqlAlchemyStore(sqlite_url(aside), artifacts)  # type: ignore[no-untyped-call]
            aside.rename(database)


def _try_sqlite(database: Path) -> None:
    """Read from a SQLite file first, because MLflow retries for minutes if it cannot be opened."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _try_server(uri: str) -> None:
    """Connect to a database server first, because MLflow retries for hours if it does not answer."""
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    engine.connect().close()
    engine.dispose()
