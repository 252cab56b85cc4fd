"""Upload and download of prepared corpora."""

from pathlib import Path

from tfscale.data.manifest import MANIFEST_FILE, TOKENIZER_FILE, read_manifest
from tfscale.store.contents import DATA, DONE, newest, snapshots
from tfscale.store.remote import Damaged, Store
from tfscale.store.snapshot import pull, push, work_folder


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
        Damaged: the files are not those of the corpus.
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
