"""Whether a tracking store answers, asked without MLflow."""

import sqlite3
import urllib.request
from contextlib import closing

from tfscale.tracking.store import Store
from tfscale.tracking.urls import read_only

SECONDS = 5.0
"""How long a server is waited for."""


def unreachable(store: Store) -> str | None:
    """Why a store cannot be reached; None where it can, where a sqlite file is not there yet, and where it is a
    database server, which is not asked."""
    if store.database is not None:
        return _unreadable(store) if store.database.exists() else None
    if not store.uri.startswith(("http://", "https://")):
        return None
    try:
        with urllib.request.urlopen(f"{store.uri.rstrip('/')}/health", timeout=SECONDS):  # noqa: S310
            return None
    except (OSError, ValueError) as error:
        return str(error)


def _unreadable(store: Store) -> str | None:
    assert store.database is not None
    try:
        with closing(read_only(store.database)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return None
