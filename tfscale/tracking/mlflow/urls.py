"""Tracking URIs of MLflow: the allowed ones, and how a file's path becomes one.

The same file has to be found by SQLAlchemy 2.0, which takes the path in a URL literally, by 2.1, which unquotes it,
and by MLflow, which makes folders for what follows `sqlite:///` without unquoting it.
"""

import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tfscale.faults import Fault, InvalidInput

_DATABASES = ("postgresql", "mysql", "mssql")
_PLAIN = re.compile(r"[\w/ .,:@+=~-]*")
"""Paths that mean the same everywhere."""
_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""Packages of drivers, where the name differs from the module's."""


def sqlite_url(file: Path, query: Mapping[str, str] | None = None) -> str:
    """Return the tracking URI of an absolute path, whatever characters it has.

    Args:
        query: SQLAlchemy's settings of the connection, such as a timeout.
    """
    plain = _PLAIN.fullmatch(str(file))
    if plain and not query:
        return f"sqlite:///{file}"
    from sqlalchemy import URL

    if plain:
        url = URL.create("sqlite", database=str(file), query=query or {})
    else:
        # SQLite itself reads file: URIs. By this longer name of the dialect MLflow makes no folders.
        path = file.as_uri().replace("file://", "file:", 1)
        url = URL.create("sqlite+pysqlite", database=path, query={**(query or {}), "uri": "true"})
    return url.render_as_string(hide_password=False)


def sqlite_file(uri: str) -> tuple[Path, dict[str, str]]:
    """Return the absolute path that a sqlite URI names, and its query.

    Raises:
        ValueError: it names no file.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError as error:
        raise _malformed(uri) from error
    path, query = url.database or "", {name: str(value) for name, value in url.query.items()}
    if query.pop("uri", "") == "true" and path.startswith("file:"):
        path = unquote(urlsplit(path).path, errors="surrogateescape")
    if url.host or path in ("", ":memory:") or path.startswith("file:"):
        raise _invalid(uri, "must name a file", "sqlite:///FILE")
    return Path(path).expanduser().resolve(), query


def read_only(file: Path) -> sqlite3.Connection:
    """Open a sqlite file for reading; a missing one is not created."""
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)


def is_server(uri: str) -> bool:
    """Return True if MLflow reaches this URI through a server, which decides where artifacts are.

    Raises:
        ValueError: it is neither that nor a database's, or its port is not a number.
    """
    scheme = uri.partition(":")[0]
    if scheme in ("http", "https"):
        _check_server(uri)
    if scheme in ("http", "https", "databricks"):
        return True
    if scheme.partition("+")[0] in _DATABASES and "://" in uri:
        return False
    raise _malformed(uri)


def _check_server(uri: str) -> None:
    """Refuse a URI in which a part of the password would be taken for the host, which messages show."""
    try:
        parts = urlsplit(uri)
        clear = "@" not in parts.path and (parts.port is None or parts.port > 0)
    except ValueError:  # the port is not a number
        clear = False
    if not clear:
        raise _invalid(uri, "must be http(s)://HOST:PORT", "%40 for @, %2F for / and %3A for : in a password")


def check_driver(uri: str) -> None:
    """Make sure that a database's driver is installed.

    Raises:
        ValueError: the driver is missing; the message names the package to install.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = make_url(uri)
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise _invalid(uri, f"needs the package {package}", f"pip install '{package}'") from None
    except (SQLAlchemyError, ValueError) as error:
        raise _invalid(uri, str(error)) from None


def _malformed(uri: str) -> InvalidInput:
    rule = "must be sqlite:///FILE, http(s)://HOST or a database's URI; MLflow's file store is no longer maintained"
    return _invalid(uri, rule, "it without tracking.uri, for mlflow.db in the runs folder")


def _invalid(uri: str, rule: str, hint: str = "") -> InvalidInput:
    return InvalidInput(Fault("tracking.uri", repr(uri), rule, hint))
