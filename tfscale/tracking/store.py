"""The tracking store: where it is, and how MLflow is reached, quietly and without long waits."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tfscale.faults import without_password
from tfscale.tracking.lock import locked
from tfscale.tracking.urls import check_driver, is_server, read_only, sqlite_file, sqlite_url

if TYPE_CHECKING:
    from mlflow import MlflowClient


class StoreError(RuntimeError):
    """The store could not be reached, or refused; the message names it. Nothing is lost: the stage folders hold it
    all, and the next sync sends what is missing."""


@dataclass(frozen=True)
class Store:
    """An MLflow tracking store and what is kept beside the runs about it. Made by `store_at`."""

    uri: str
    artifacts: str | None
    """URI under which new experiments keep their artifacts; None: the server decides."""
    folder: Path
    """Holds a cursor for each experiment."""

    database: Path | None = None
    """The file of a sqlite store; None for any other."""

    @property
    def shown(self) -> str:
        """The store as messages and files name it: a file by its path, any other by its URI without the password."""
        return f"sqlite:///{self.database}" if self.database is not None else without_password(self.uri)

    def lacks(self, run_ids: set[str]) -> bool:
        """Whether runs that were once written are known to be gone. Only a sqlite file can be asked without MLflow,
        in milliseconds; any other store is taken to have kept them."""
        return self.database is not None and not run_ids <= _active_runs(self.database)


def experiment_id(store: Store, name: str) -> str | None:
    """Of an experiment by name, without MLflow; None where the store is no sqlite file, or does not have it."""
    if store.database is None or not store.database.exists():
        return None
    with suppress(sqlite3.Error), closing(read_only(store.database)) as database:
        rows = database.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchall()
        return str(rows[0][0]) if rows else None
    return None


def store_at(runs: Path, uri: str | None = None) -> Store:
    """The store for a folder of runs: by default `mlflow.db` in it, with the artifacts in `mlartifacts`.

    Args:
        uri: any MLflow tracking URI but that of a file store. A relative sqlite path counts from the current folder,
            and `~` is the home folder.

    Raises:
        ValueError: the URI is malformed or a file store's, its database driver is not installed, or MLflow cannot keep
            artifacts under the path.
    """
    runs = runs.resolve()
    folder = runs / "tracking"
    if uri is None or uri.partition(":")[0] in ("sqlite", "sqlite+pysqlite"):
        database, query = sqlite_file(uri) if uri else (runs / "mlflow.db", {})
        return Store(sqlite_url(database, query), _artifacts(database.parent), folder, database)
    if is_server(uri):
        return Store(uri, None, folder)
    check_driver(uri)
    return Store(uri, _artifacts(runs), folder)


def _artifacts(folder: Path) -> str:
    """The URI of the artifacts in a folder.

    Raises:
        ValueError: MLflow reads such URIs as UTF-8 and would write to another folder.
    """
    try:
        os.fsencode(folder).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"runs={os.fsencode(folder)!r}: MLflow cannot keep artifacts under a path that is not UTF-8; try another "
            "folder, or tracking=none"
        ) from None
    return (folder / "mlartifacts").as_uri()


def quiet_environment() -> dict[str, str]:
    """Settings for a process that imports MLflow; each can be overridden in the caller's environment."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        # The mirror comes back by itself, and looks before it creates a run; a request that MLflow repeated after its
        # answer was lost would create the run twice.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        # A pooled connection goes on writing to a sqlite file that has been deleted.
        "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    }


def connect(store: Store) -> "MlflowClient":
    """A client of the store, whose schema exists when this returns. It is addressed by explicit ids alone, so that
    MLFLOW_RUN_ID, MLFLOW_EXPERIMENT_ID and MLFLOW_TRACKING_URI have no say."""
    _quieten()
    from mlflow import MlflowClient

    if store.database is not None:
        _create_schema(store, store.database)
    elif not is_server(store.uri):
        _knock(store)
    return MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)


@contextmanager
def store_faults(store: Store) -> Iterator[None]:
    """Turns whatever MLflow and its parts raise about the store into a StoreError."""
    _quieten()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        raise StoreError(f"MLflow at {store.shown}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of an error, without passwords."""
    return without_password(str(error).splitlines()[0]) if str(error) else type(error).__name__


def _quieten() -> None:
    for name, value in quiet_environment().items():
        os.environ.setdefault(name, value)


def _knock(store: Store) -> None:
    """Connects to a database server once: MLflow tries one that does not answer for hours."""
    from sqlalchemy import create_engine

    engine = create_engine(store.uri)
    with closing(engine.connect()):
        pass
    engine.dispose()


def _create_schema(store: Store, database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that create it together break it, so the second waits for the first.
    with locked(database.with_name(f"{database.name}.lock")):
        if not database.exists() or database.stat().st_size == 0:
            # A kill in the middle leaves tables that MLflow can neither use nor make again; so they are made aside.
            aside = database.with_name(f".{database.name}.making")
            for left in aside.parent.glob(f"{aside.name}*"):  # a journal that stayed would be played into the new file
                left.unlink()
            SqlAlchemyStore(sqlite_url(aside), store.artifacts)  # type: ignore[no-untyped-call]
            aside.rename(database)
        # MLflow tries a file that cannot be opened for minutes; this fails at once.
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
        SqlAlchemyStore(store.uri, store.artifacts)  # type: ignore[no-untyped-call]


def _active_runs(database: Path) -> set[str]:
    if not database.exists():
        return set()
    try:
        with closing(read_only(database)) as connection:
            return {run for (run,) in connection.execute("SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'")}
    except sqlite3.Error:
        return set()  # MLflow will say what is wrong with it
