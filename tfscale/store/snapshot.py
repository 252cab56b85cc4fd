"""Upload and download of snapshots. A snapshot is a folder in a store that contains the files of a stage or corpus as
they were at one point in time.

All files except manifest.json are named by their SHA-256, so a repeated upload writes the same bytes to the same names,
even if two machines upload at the same time. manifest.json lists the original paths of the files and is written last.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from tfscale.files import sha256_of, sync
from tfscale.ranges import Natural
from tfscale.stage.lock import stage_lock
from tfscale.store.remote import Damaged, Store, StoreError
from tfscale.untrusted import check_file_name, from_known

MANIFEST_FILE = "manifest.json"
WORK = ".store"
"""Name of a folder in the runs folder. The folder contains the files of uploads and downloads in progress, and the name
under which the runs folder owns leases."""
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """Entry of a manifest, which describes one file of the snapshot by its path, its size in bytes, and its SHA-256."""

    path: str
    """Path of the file relative to the folder of the stage or corpus, with `/` as the separator."""
    bytes: Natural
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Content of a snapshot's manifest.json, which lists the files of the snapshot."""

    format: int
    files: tuple[Entry, ...]


def push(
    store: Store, snapshot: str, files: Mapping[str, Path], recorded: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Upload a snapshot, first its files and then its manifest. Files that an interrupted upload has already copied
    are not uploaded again. A snapshot that already has a manifest is not changed.

    Args:
        snapshot: folder of the snapshot in the store.
        files: mapping from the path in the snapshot to the file on this machine. The files must not change during the
            upload.
        recorded: mapping from the path in the snapshot to the expected SHA-256 of the file. Files without an entry are
            not checked.

    Raises:
        OSError: a file cannot be read.
        ValueError: the SHA-256 of a file differs from the expected one in `recorded`.
    """
    there = store.files(snapshot)
    if MANIFEST_FILE in there:
        return
    entries = tuple(Entry(path, file.stat().st_size, sha256_of(file)) for path, file in sorted(files.items()))
    if damaged := [entry.path for entry in entries if recorded.get(entry.path, entry.sha256) != entry.sha256]:
        raise ValueError(f"{snapshot}: {', '.join(damaged)} on this machine differs from its checksum")
    for entry in entries:
        if there.get(entry.sha256) != entry.bytes:
            store.put(files[entry.path], f"{snapshot}/{entry.sha256}")
    there = store.files(snapshot)
    for entry in entries:
        if there.get(entry.sha256) != entry.bytes:
            raise StoreError(f"{store.shown}/{snapshot}: {entry.path} is missing after the upload; try again")
    store.create(f"{snapshot}/{MANIFEST_FILE}", json.dumps(asdict(Manifest(FORMAT, entries))).encode())


def pull(store: Store, snapshot: str, to: Path) -> None:
    """Download a snapshot into a folder, which then contains exactly the files of the snapshot, synced to disk. Files
    that an interrupted download has left in the folder are kept if they match their checksums.

    Raises:
        Damaged: a file in the store differs from its checksum, or the manifest is invalid.
        OSError: a file cannot be written.
    """
    manifest = read_manifest(store, snapshot)
    paths = {to / entry.path for entry in manifest.files}
    for old in list(to.rglob("*")):
        if old.is_file() and old not in paths:
            old.unlink()
    for entry in manifest.files:
        if not _is(to / entry.path, entry):
            _download(store, snapshot, entry, to / entry.path)


def _download(store: Store, snapshot: str, entry: Entry, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    store.get(f"{snapshot}/{entry.sha256}", part)
    if not _is(part, entry):
        part.unlink()
        raise Damaged(f"{store.shown}/{snapshot}: {entry.path} differs from its checksum; remove this folder")
    sync(part)
    part.replace(path)


def _is(path: Path, entry: Entry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes and sha256_of(path) == entry.sha256


def read_manifest(store: Store, snapshot: str) -> Manifest:
    """Return the manifest of a snapshot.

    Raises:
        Damaged: the manifest is invalid.
    """
    content = store.read(f"{snapshot}/{MANIFEST_FILE}")
    try:
        manifest = from_known(Manifest, json.loads(content))
        _check(manifest)
    except (ValueError, TypeError, RecursionError) as error:
        raise Damaged(f"{store.shown}/{snapshot}/{MANIFEST_FILE}: the file is damaged ({error})") from error
    return manifest


def _check(manifest: Manifest) -> None:
    if manifest.format != FORMAT:
        raise ValueError(f"the format is {manifest.format}, but this version of tfscale reads {FORMAT}")
    for entry in manifest.files:
        for part in PurePosixPath(entry.path).parts or ("",):
            check_file_name(part)
        if not re.fullmatch(r"[0-9a-f]{64}", entry.sha256):
            raise ValueError(f"{entry.path}: the SHA-256 must have 64 hexadecimal digits")


@contextmanager
def work_folder(runs: Path, what: str, name: str) -> Iterator[Path]:
    """Yield the path of a folder for the temporary files of an upload or download. Until the `with` block ends, no
    other process can use the folder. The folder may not exist yet, or may contain files that an interrupted process has
    left. The caller creates and removes the folder.

    Args:
        what: `push` or `pull`.
        name: name of the stage or corpus.

    Raises:
        StageHeld: another process uses the folder.
    """
    folder = runs / WORK / what / name
    folder.mkdir(parents=True, exist_ok=True)
    with stage_lock(folder):
        yield folder / "files"
