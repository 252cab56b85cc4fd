"""Reading and writing of files in a store. A store can have any URI that fsspec supports."""

import errno
import hashlib
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec

from tfscale.faults import Fault, InvalidInput, without_password

ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf"})
"""URI schemes of object stores, in which a file appears only when it is complete. In stores with other schemes, a file
is written under a temporary name and then renamed."""
EXTRAS = {"s3": "tfscale[s3]", "s3a": "tfscale[s3]", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
"""Mapping from a URI scheme to the package to install for its fsspec driver."""


class StoreError(Exception):
    """Error raised when a store cannot be used. The message contains no password."""


class Damaged(StoreError):
    """Error raised when files in a store are damaged or belong to another stage or corpus."""


class Store:
    """Folder of files at a URI. Paths are relative to the folder and use `/` as the separator.

    Methods raise StoreError if a file to read does not exist or the store cannot be used.
    """

    def __init__(self, uri: str) -> None:
        """Open a store without connecting to it. The fsspec driver looks up the credentials itself.

        Raises:
            InvalidInput: fsspec does not support the URI, or the driver for its scheme is not installed.
        """
        protocol = fsspec.core.split_protocol(uri)[0] or "file"
        try:
            self._files, self._root = fsspec.url_to_fs(uri, skip_instance_cache=True)
        except ImportError as error:
            rule = f"must have a scheme whose driver is installed ({error})"
            hint = f"pip install '{EXTRAS[protocol]}'" if protocol in EXTRAS else ""
            raise InvalidInput(Fault("store", uri, rule, hint)) from error
        except ValueError as error:
            raise InvalidInput(Fault("store", uri, f"must be a URI that fsspec supports ({error})")) from error
        self._root = self._root.rstrip("/")
        self._atomic = protocol in ATOMIC
        self.shown = without_password(uri)
        """URI without its password, for messages."""

    def files(self, folder: str = "") -> dict[str, int]:
        """Return a mapping from the path of every file below a folder, relative to the folder, to the size of the file
        in bytes. The mapping is empty if the folder does not exist."""
        root = self._path(folder)
        with self._faults(folder):
            self._files.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._files.find(root, detail=True)
        return {path.removeprefix(f"{root}/"): int(info["size"]) for path, info in found.items()}

    def modified(self, path: str) -> datetime | None:
        """Return the time at which a file was written, or None if the store does not record modification times."""
        with self._faults(path), suppress(NotImplementedError):
            found: datetime = self._files.modified(self._path(path))
            return found
        return None

    def read(self, path: str) -> bytes:
        with self._faults(path):
            content: bytes = self._files.cat_file(self._path(path))
        return content

    def sha256(self, path: str) -> str:
        """Read a file and return the SHA-256 digest of its content as a hexadecimal string."""
        with self._faults(path), self._files.open(self._path(path), "rb") as content:
            digest = hashlib.file_digest(content, "sha256")
        return digest.hexdigest()

    def get(self, path: str, to: Path) -> None:
        """Copy a file to this machine. If copying fails, an incomplete file may be left."""
        with self._faults(path):
            self._files.get_file(self._path(path), str(to))

    def put(self, file: Path, path: str) -> None:
        """Copy a file from this machine to the store, atomically."""
        with self._faults(path), self._atomic_target(self._path(path)) as target:
            self._files.put_file(str(file), target)

    def create(self, path: str, content: bytes) -> None:
        """Write a file atomically. If the file exists, for example because another machine has just created it, object
        stores with conditional writes keep the existing file, and other stores replace it."""
        if not self._atomic:
            self.write(path, content)
            return
        with self._faults(path), suppress(FileExistsError):
            try:
                self._files.pipe_file(self._path(path), content, mode="create")
            except (NotImplementedError, OSError) as error:  # ENOSYS: the server has no conditional writes
                if isinstance(error, OSError) and error.errno != errno.ENOSYS:
                    raise
                self._files.pipe_file(self._path(path), content)

    def write(self, path: str, content: bytes) -> None:
        """Write a file atomically, and replace an existing file."""
        with self._faults(path), self._atomic_target(self._path(path)) as target:
            self._files.pipe_file(target, content)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files in the given order. Files that do not exist are ignored. Folders that become empty are also
        removed."""
        for path in paths:
            target = self._path(path)
            with self._faults(path), suppress(FileNotFoundError):
                self._files.rm_file(target)
            if not self._atomic:
                with suppress(OSError):  # only an empty folder can be removed
                    self._files.rmdir(self._files._parent(target))

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    @contextmanager
    def _atomic_target(self, target: str) -> Iterator[str]:
        """Yield a path to which the `with` block writes a file. If the store is not atomic, the path is temporary, and
        the file is renamed to `target` at the end of the block."""
        if self._atomic:
            yield target
            return
        aside = f"{target}.{secrets.token_hex(4)}.part"
        self._files.makedirs(self._files._parent(target), exist_ok=True)
        yield aside
        self._files.mv(aside, target)

    @contextmanager
    def _faults(self, path: str) -> Iterator[None]:
        """Convert the exceptions of all drivers, which have no common type, to StoreError."""
        try:
            yield
        except Exception as error:
            where = f"{self.shown}/{path}".rstrip("/")
            raise StoreError(without_password(f"{where}: {error or type(error).__name__}")) from error
