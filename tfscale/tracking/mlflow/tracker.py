"""Tracker that uses an MLflow tracking store, by default a SQLite file in the runs folder."""

import os
import sqlite3
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale import children
from tfscale.faults import Fault, InvalidInput
from tfscale.files import locked
from tfscale.tracking.mlflow.urls import check_driver, is_server, sqlite_file, sqlite_url
from tfscale.tracking.tracker import Sink, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient

REACH_SECONDS = 5.0
"""Maximum time in seconds to wait for the response of a server when checking whether it is reachable."""


class MlflowTracker(Tracker):
    """MLflow tracking store. By default, the store is the SQLite file `mlflow.db` in the runs folder, and artifacts are
    in `mlartifacts` in the same folder.

    Args:
        uri: any MLflow tracking URI except the URI of a file store. A relative SQLite path is relative to the current
            folder, and `~` is the home folder.

    Raises:
        ValueError: the URI is malformed or names a file store, the driver of the database is not installed, or the path
            for artifacts is not valid UTF-8, which MLflow requires.
    """

    title = "MLflow"

    def __init__(self, runs: Path, uri: str | None = None) -> None:
        runs = runs.resolve()
        self.database: Path | None = None
        """Path of the file of a SQLite store, or None for other stores."""
        self.artifacts: str | None = None
        """URI for the artifacts of new experiments, or None for an MLflow server, which chooses the URI itself."""
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
        """Return an MLflow client for the store. Create a missing schema, and set the variables of `quiet_environment`
        that this process lacks. The client uses only explicit IDs, so MLFLOW_RUN_ID, MLFLOW_EXPERIMENT_ID and
        MLFLOW_TRACKING_URI have no effect."""
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
        """Return True if any of the given runs is missing from a SQLite store or has been deleted. For other stores,
        return False. The query does not import MLflow and takes milliseconds."""
        if self.database is None:
            return False
        try:
            with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as connection:
                found = connection.execute("SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'")
                return not run_ids <= {run_id for (run_id,) in found}
        except sqlite3.Error:  # the file is missing, or MLflow will report the error
            return bool(run_ids)

    def unreachable(self) -> str | None:
        """Return the reason why the store cannot be reached, or None if no problem is found. This method does not
        import MLflow. A missing SQLite file is not an error, and database servers are not contacted."""
        try:
            if self.database is not None and self.database.exists():
                _try_sqlite(self.database)
            elif self.uri.startswith(("http://", "https://")):
                urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=REACH_SECONDS).close()  # noqa: S310
        except (sqlite3.Error, OSError, ValueError) as error:
            return str(error)
        return None


def quiet_environment() -> dict[str, str]:
    """Return default values of environment variables that disable MLflow's telemetry, informational log output, HTTP
    retries and reuse of database connections, and that limit the duration of its requests."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # The mirror itself retries, and checks whether a run exists before creating it. If MLflow repeated a request
        # whose response was lost, the run would be created twice.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        # A pooled connection continues to write to a SQLite file that has been deleted.
        "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    }


def ui_command(tracker: MlflowTracker, port: int = 5000) -> list[str]:
    """Return the command that serves MLflow's web interface for a store. The command must run in the environment that
    `ui_environment` returns.

    Raises:
        ValueError: the store is an MLflow server, which has a web interface of its own.
    """
    if tracker.artifacts is None:
        raise ValueError(f"tracking.uri={tracker.shown}: the store is an MLflow server; open this URI in a browser")
    return [
        *children.python("mlflow", "server"),
        *("--backend-store-uri", tracker.uri),
        *("--artifacts-destination", tracker.artifacts),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]


def ui_environment() -> dict[str, str]:
    """Return the environment for the command that `ui_command` returns. It disables the telemetry and background jobs
    of MLflow, but variables that are already set take precedence. The environment of this process is not changed."""
    defaults = {**quiet_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return children.environment(defaults=defaults, mlflow=True)


def experiment_id(tracker: MlflowTracker, name: str) -> str | None:
    """Return the ID of an experiment in a SQLite store. Return None if the store is of another kind, does not exist or
    cannot be read, or does not contain the experiment."""
    if tracker.database is None or not tracker.exists() or tracker.unreachable():
        return None
    found = tracker.client().get_experiment_by_name(name)
    return None if found is None else str(found.experiment_id)


def _artifacts(folder: Path) -> str:
    try:
        os.fsencode(folder).decode("utf-8")
    except UnicodeDecodeError:
        rule = "must be a path in UTF-8, because MLflow cannot store artifacts elsewhere"
        hint = "another folder, or tracking=none"
        raise InvalidInput(Fault("runs", repr(os.fsencode(folder)), rule, hint)) from None
    return (folder / "mlartifacts").as_uri()


def _create_schema(database: Path, artifacts: str | None) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that create the store at the same time would corrupt it, so the second process waits.
    with locked(database.with_name(f"{database.name}.lock")):
        if not database.exists() or database.stat().st_size == 0:
            # A killed process would leave tables that MLflow can neither use nor recreate, so a temporary file is used.
            aside = database.with_name(f".{database.name}.making")
            for left in aside.parent.glob(f"{aside.name}*"):  # an old journal would be applied to the new file
                left.unlink()
            SqlAlchemyStore(sqlite_url(aside), artifacts)  # type: ignore[no-untyped-call]
            aside.rename(database)


def _try_sqlite(database: Path) -> None:
    """Raise sqlite3.Error if a SQLite file cannot be read. Without this check, MLflow would retry for minutes."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _try_server(uri: str) -> None:
    """Raise sqlalchemy.exc.SQLAlchemyError if a database server does not respond. Without this check, MLflow would
    retry for hours."""
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    engine.connect().close()
    engine.dispose()
