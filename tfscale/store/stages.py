"""Upload and download of stages and prepared corpora."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from tfscale.data.manifest import MANIFEST_FILE, TOKENIZER_FILE, read_manifest
from tfscale.files import read_object
from tfscale.stage.environment import ENVIRONMENT_FILE
from tfscale.stage.events import METRICS_FILE
from tfscale.stage.growth_record import GROWTH_FILE, IMPORT_FILE
from tfscale.stage.heldout import HELDOUT_FILE
from tfscale.stage.lock import stage_lock
from tfscale.stage.result import DONE_FILE, has_result, read_result
from tfscale.stage.spec import CHECKPOINTS, STAGE_FILE, StageSpec, key_of, read_spec, write_spec
from tfscale.store.contents import DATA, DONE, STAGES, Snapshot, newest, progress, snapshots, superseded
from tfscale.store.remote import Damaged, Store, StoreError
from tfscale.store.snapshot import pull, push, work_folder

PUSHED = (STAGE_FILE, GROWTH_FILE, IMPORT_FILE, ENVIRONMENT_FILE, METRICS_FILE, HELDOUT_FILE, DONE_FILE)
"""Names of the files of a stage that are uploaded if they exist, in addition to one checkpoint."""


def state_of(stage_dir: Path) -> str | None:
    """Return the name for a snapshot of the current files of a stage: `done` if the stage is finished, and otherwise
    the name of its newest complete checkpoint. Return None if there is nothing to upload, for example because the
    growth of the stage has not been verified yet."""
    if has_result(stage_dir):
        return DONE
    begun = any((stage_dir / name).exists() for name in (METRICS_FILE, GROWTH_FILE, IMPORT_FILE))
    complete = sorted((stage_dir / CHECKPOINTS).glob("step-*/manifest.json")) if begun else []
    return complete[-1].parent.name if complete else None


def push_stage(store: Store, stage_dir: Path) -> None:
    """Upload a finished stage, or an unfinished stage with its newest checkpoint, and then remove older snapshots of
    the stage from the store. A stage is not uploaded if its snapshot in the store is at least as advanced.

    Raises:
        StageHeld: another process uploads the stage.
        OSError, ValueError: the files of the stage are damaged, or a newer checkpoint has replaced the checkpoint to
            upload in the meantime.
    """
    state, item = state_of(stage_dir), f"{STAGES}/{stage_dir.name}"
    if state is None:
        return
    found = snapshots(store, item)
    best = newest(found)
    if best is None or progress(best.name) < progress(state):
        with _frozen(stage_dir, state) as files:
            push(store, f"{item}/{state}", files, _recorded(files))
        found = snapshots(store, item)
    for old in superseded(found):
        store.remove(old.paths)


@contextmanager
def _frozen(stage_dir: Path, state: str) -> Iterator[dict[str, Path]]:
    """Yield a mapping from the path of each file to upload, relative to the stage folder, to a copy of the file. The
    copies do not change while training continues. The copies of checkpoint files are hard links if the file system
    supports hard links."""
    checkpoint = Path(CHECKPOINTS, read_result(stage_dir).checkpoint if state == DONE else state)
    with work_folder(stage_dir.parents[1], "push", stage_dir.name) as aside:
        shutil.rmtree(aside, ignore_errors=True)
        (aside / checkpoint).mkdir(parents=True)
        try:
            for name in PUSHED:
                if (stage_dir / name).exists():
                    shutil.copy(stage_dir / name, aside / name)
            for file in (stage_dir / checkpoint).iterdir():
                _link(file, aside / checkpoint / file.name)
            (aside / checkpoint / "manifest.json").stat()  # fails if the checkpoint has been removed meanwhile
            yield {str(file.relative_to(aside)): file for file in aside.rglob("*") if file.is_file()}
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _recorded(files: Mapping[str, Path]) -> dict[str, str]:
    """Return a mapping from the path of each file of the checkpoint, relative to the stage folder, to the SHA-256 that
    the manifest of the checkpoint states."""
    (manifest,) = (Path(path) for path in files if path.endswith("/manifest.json"))
    entries = read_object(files[str(manifest)])
    return {str(manifest.with_name(name)): str(entry["sha256"]) for name, entry in entries.items()}


def _link(file: Path, to: Path) -> None:
    try:
        os.link(file, to)
    except OSError:  # a file system without hard links
        shutil.copy(file, to)


def pull_stage(store: Store, stage_dir: Path, spec: StageSpec | None = None) -> str | None:
    """Download the newest snapshot of a stage, unless the stage is at least as advanced on this machine.

    Args:
        spec: spec of the stage on this machine. Its paths replace the paths in the downloaded spec, which are valid
            only on the machine that uploaded the stage. If None, the downloaded spec is not changed.

    Returns:
        The name of the snapshot, `done` or `step-*`, or None if nothing was downloaded.

    Raises:
        Damaged: the files in the store are damaged or belong to another stage.
        StageHeld: another process works on the stage or downloads it.
        OSError: the files cannot be written.
    """
    if has_result(stage_dir):
        return None
    found = newest(snapshots(store, f"{STAGES}/{stage_dir.name}"))
    here = state_of(stage_dir)
    if found is None or (here is not None and progress(found.name) <= progress(here)):
        return None
    with (
        stage_lock(stage_dir) if stage_dir.exists() else nullcontext(),
        work_folder(stage_dir.parents[1], "pull", stage_dir.name) as aside,
    ):
        found = _pull_newest(store, found, aside)
        _check(aside, stage_dir.name, found.name)
        if spec is not None:
            pulled = read_spec(aside)
            run = replace(pulled.run, data_dir=spec.run.data_dir)
            write_spec(aside, replace(pulled, run=run, parent_dir=spec.parent_dir, init_dir=spec.init_dir))
        _replace(stage_dir, aside)
    return found.name


def _pull_newest(store: Store, found: Snapshot, to: Path) -> Snapshot:
    """Download a snapshot, or a newer snapshot that has replaced it in the meantime. Return the downloaded snapshot."""
    while True:
        try:
            pull(store, found.path, to)
        except StoreError:
            now = newest(snapshots(store, found.item))
            if now is None or now.name == found.name:
                raise
            found = now
        else:
            return found


def _check(folder: Path, name: str, state: str) -> None:
    """Raise Damaged if downloaded files belong to another stage, or a file is missing or invalid."""
    try:
        keys, checkpoint = {name.rpartition("-")[2], key_of(read_spec(folder))}, state
        if state == DONE:
            result = read_result(folder)
            keys, checkpoint = keys | {result.key}, result.checkpoint
    except ValueError as error:
        raise Damaged(str(error)) from error
    if len(keys) > 1 or not (folder / CHECKPOINTS / checkpoint / "manifest.json").is_file():
        raise Damaged(f"{folder}: the files from the store are not those of the stage {name}")


def _replace(stage_dir: Path, aside: Path) -> None:
    """Replace a stage folder with a downloaded folder. For a moment, there is no stage folder."""
    stage_dir.parent.mkdir(parents=True, exist_ok=True)
    old = aside.with_name("old")
    shutil.rmtree(old, ignore_errors=True)
    if stage_dir.exists():
        stage_dir.rename(old)
    aside.rename(stage_dir)
    shutil.rmtree(old, ignore_errors=True)


def push_corpus(store: Store, folder: Path) -> None:
    """Upload a prepared corpus, unless it is already in the store.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder is not a prepared corpus.
    """
    manifest = read_manifest(folder)
    shards = [shard.file for split in (manifest.train, manifest.heldout) for shard in split.shards]
    names = (MANIFEST_FILE, TOKENIZER_FILE, *shards)
    push(store, f"{DATA}/{folder.name}/{DONE}", {name: folder / name for name in names})


def pull_corpus(store: Store, folder: Path) -> bool:
    """Download a prepared corpus, unless it is already on this machine or not in the store. Return True if the corpus
    was downloaded.

    Raises:
        Damaged: the files in the store are damaged or belong to another corpus.
        StageHeld: another process downloads the corpus.
        OSError: the files cannot be written.
    """
    if folder.exists() or newest(snapshots(store, f"{DATA}/{folder.name}")) is None:
        return False
    with work_folder(folder.parents[1], "pull", folder.name) as aside:
        pull(store, f"{DATA}/{folder.name}/{DONE}", aside)
        try:
            found = read_manifest(aside).fingerprint
        except ValueError as error:
            raise Damaged(str(error)) from error
        if found != folder.name:
            raise Damaged(f"{aside}: the files from the store are those of the corpus {found}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(folder)
    return True
