"""Validation of MLflow tracking URIs, and conversion between file paths and SQLite URIs.

SQLAlchemy and MLflow must find the same file. SQLAlchemy 2.0 uses the path in a URL literally, and SQLAlchemy 2.1
unquotes the path. MLflow creates folders for the part after `sqlite:///` without unquoting the path.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tfscale.faults import Fault, InvalidInput

_DATABASES = ("postgresql", "mysql", "mssql")
_PLAIN = re.compile(r"[\w/ .,:@+=~-]*")
"""Pattern of paths that need no quoting, so that SQLAlchemy and MLflow read them in the same way."""
_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""Mapping from the module of a database driver to the package to install, for drivers whose package has another
name."""


def sqlite_url(file: Path, query: Mapping[str, str] | None = None) -> str:
    """Return the tracking URI of a SQLite file. The path of the file must be absolute and may contain any characters.

    Args:
        query: connection settings for SQLAlchemy, such as a timeout.
    """
    plain = _PLAIN.fullmatch(str(file))
    if plain and not query:
        return f"sqlite:///{file}"
    from sqlalchemy import URL

    if plain:
        url = URL.create("sqlite", database=str(file), query=query or {})
    else:
        # SQLite itself reads file: URIs. With this longer dialect name MLflow creates no folders.
        path = file.as_uri().replace("file://", "file:", 1)
        url = URL.create("sqlite+pysqlite", database=path, query={**(query or {}), "uri": "true"})
    return url.render_as_string(hide_password=False)


def sqlite_file(uri: str) -> tuple[Path, dict[str, str]]:
    """Return the absolute path of the file that a SQLite URI names, and the query parameters of the URI by name.

    Raises:
        ValueError: the URI does not name a file.
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


def is_server(uri: str) -> bool:
    """Return True for the URI of an MLflow server, which decides where artifacts are stored, and False for the URI of a
    database server.

    Raises:
        ValueError: the URI names neither an MLflow server nor a database server, or the URI of an MLflow server is
            malformed.
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
    """Raise ValueError if the URI of an MLflow server is malformed, for example because its password contains an
    unquoted `/` or `@`. Part of such a password could be taken for the host, which messages show."""
    try:
        parts = urlsplit(uri)
        clear = "@" not in parts.path and (parts.port is None or parts.port > 0)
    except ValueError:  # the port is not a number
        clear = False
    if not clear:
        raise _invalid(uri, "must be http(s)://HOST:PORT", "%40 for @, %2F for / and %3A for : in a password")


def check_driver(uri: str) -> None:
    """Check that the database driver for a URI is installed.

    Raises:
        ValueError: the URI is invalid, or the driver is not installed. The message names the package to install.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = make_url(uri)
        url.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise _invalid(uri, f"must have a driver, but {package} is not installed", f"pip install '{package}'") from None
    except (SQLAlchemyError, ValueError) as error:
        raise _invalid(uri, str(error)) from None


def _malformed(uri: str) -> InvalidInput:
    rule = "must be sqlite:///FILE, http(s)://HOST or a database's URI; MLflow no longer maintains its file store"
    return _invalid(uri, rule, "to omit tracking.uri, which selects mlflow.db in the runs folder")


def _invalid(uri: str, rule: str, hint: str = "") -> InvalidInput:
    return InvalidInput(Fault("tracking.uri", repr(uri), rule, hint))
