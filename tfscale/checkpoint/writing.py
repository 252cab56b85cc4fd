"""Functions that write a checkpoint under a temporary name, sync the files, and rename the folder last."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from tfscale.checkpoint.contents import FORMAT, MANIFEST_FILE, STATE_FILE, BrokenCheckpoint, Counters, Part
from tfscale.checkpoint.manifest import Described, Entries, describe, read_json
from tfscale.checkpoint.ranks import ALONE, Ranks
from tfscale.files import sync
from tfscale.grouping import grouped
from tfscale.models.config import ModelConfig
from tfscale.models.families import to_dict

FILE_BYTES = 2**30
"""Maximum total size in bytes of the tensors in a file, unless the file has only one tensor. Tensors on a device are
copied to host memory one file at a time."""
_SAVED_OFFSETS, _CUSTOM_METADATA = "saved_offsets", "DCP_SHARDING_INFO"
"""Keys in the metadata of a file under which torch's reader finds the offsets of the shards in the whole tensors."""


class NoRoom(OSError):
    """Error raised when the disk has less free space than a checkpoint needs."""


def write(
    folder: Path, config: ModelConfig, counters: Counters, tensors: Mapping[str, Tensor | Part], ranks: Ranks = ALONE
) -> int:
    """Write a checkpoint, to which each rank adds its own tensors and shards. Return the size in bytes of the tensors
    of all ranks together. Raise OSError if the checkpoint could not be written; existing files are then unchanged. This
    is a collective call."""
    parts = {
        name: value if isinstance(value, Part) else Part(value, (0,) * value.dim()) for name, value in tensors.items()
    }
    [size] = ranks.sum(sum(part.data.nbytes for part in parts.values()))
    write_aside(folder, config, counters, lambda aside: _write_files(aside, parts, ranks), ranks, int(size))
    return int(size)


def write_aside(
    folder: Path,
    config: ModelConfig,
    counters: Counters,
    fill: Callable[[Path], Entries],
    ranks: Ranks = ALONE,
    needed: int = 0,
) -> None:
    """Write a checkpoint in a temporary folder, and rename the folder last. This is a collective call.

    Args:
        fill: function that writes and syncs the safetensors files of a rank in the given folder, and returns their
            entries for the manifest.
        needed: number of bytes that must be free on the disk, for all ranks together.

    Raises:
        OSError: the checkpoint could not be written, or the disk has too little free space (NoRoom). Existing files are
            unchanged, and no partial files are left.
    """
    aside = folder.parent / f".{folder.name}.writing"

    def begin() -> None:
        check_room(folder, needed)
        if ranks.leads:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)

    def put() -> None:
        _write_json(aside / _manifest_of(ranks.rank), fill(aside))

    def complete() -> None:
        if ranks.leads:
            _complete(aside, config, counters, ranks.size)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
            sync(folder.parent)

    for act in (begin, put, complete):
        fault: Exception | None = None
        try:
            act()
        except (OSError, SafetensorError, BrokenCheckpoint) as error:
            fault = error
        if not ranks.any(fault is not None)[0]:
            continue
        if ranks.leads:
            shutil.rmtree(aside, ignore_errors=True)
        if isinstance(fault, NoRoom):
            raise fault
        raise _not_written(folder, fault) from fault


def _not_written(folder: Path, fault: Exception | None) -> OSError:
    existing = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(existing).free / 1e6
    reason = fault or "another rank failed"
    return OSError(f"{folder}: the checkpoint could not be written, with {free:,.1f} MB of free space: {reason}")


def _write_files(aside: Path, parts: Mapping[str, Part], ranks: Ranks) -> Entries:
    with Described() as described:
        for number, group in enumerate(grouped(parts.items(), lambda named: named[1].data.nbytes, FILE_BYTES)):
            offsets = {name: {_SAVED_OFFSETS: list(part.offsets)} for name, part in group}
            content = {name: part.data.detach().contiguous() for name, part in group}
            path = aside / f"rank-{ranks.rank:05d}-{number:05d}.safetensors"
            save_file(content, path, {_CUSTOM_METADATA: json.dumps(offsets)})
            described.add(path)
        return described.entries()


def write_each(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> Entries:
    """Write each tensor to a separate file, and return the entries of the files for the manifest. While the iterator
    computes a tensor with one torch thread, the previous tensor is written, and earlier files are synced and hashed.
    Raise OSError or SafetensorError if a tensor could not be written."""
    with Described() as described, ThreadPoolExecutor(1) as writer, _one_thread():

        def put(path: Path, content: dict[str, Tensor]) -> None:
            save_file(content, path)
            described.add(path)

        pending: Future[None] | None = None
        for number, (name, tensor) in enumerate(tensors):
            if pending is not None:
                pending.result()
            path = folder / f"tensor-{number:05d}.safetensors"
            pending = writer.submit(put, path, {name: tensor.contiguous()})
        if pending is not None:
            pending.result()
        return described.entries()


@contextmanager
def _one_thread() -> Iterator[None]:
    # Additional torch threads would busy-wait between tensors, on cores that writing and hashing can use.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check_room(folder: Path, needed: int) -> None:
    """Raise NoRoom if the disk of `folder` has less than `needed` bytes of free space."""
    existing = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise NoRoom(
            f"{folder}: the checkpoint needs {needed / 1e6:,.1f} MB, but {existing} has only {free / 1e6:,.1f} MB of "
            "free space. The previous checkpoint is intact. Free some space and run the command again to resume."
        )


def _manifest_of(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def _complete(aside: Path, config: ModelConfig, counters: Counters, ranks: int) -> None:
    state = {"format": FORMAT, "model": to_dict(config), "counters": asdict(counters)}
    _write_json(aside / STATE_FILE, state)
    manifest = describe([aside / STATE_FILE])
    for rank in range(ranks):  # not by listing the folder, which may lack recent files of other hosts
        manifest |= read_json(aside / _manifest_of(rank))
        (aside / _manifest_of(rank)).unlink()
    assert all(file.name in manifest for file in aside.glob("*.safetensors")), "a file without an entry in the manifest"
    _write_json(aside / MANIFEST_FILE, manifest)
    sync(aside / MANIFEST_FILE)
    sync(aside)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def sweep(folder: Path) -> None:
    """Remove incomplete checkpoints of processes that were killed. The caller must hold the lock of the stage."""
    for left in folder.glob(".step-*.writing"):
        shutil.rmtree(left)


def prune(folder: Path, keep: int, every: int = 0) -> None:
    """Remove all checkpoints except the newest `keep` checkpoints and, if `every` is not 0, those at multiples of
    `every` steps. The manifest is removed first, so that a partially removed checkpoint never appears complete."""
    for old in sorted(folder.glob("step-*"))[:-keep]:
        if every and int(old.name.removeprefix("step-")) % every == 0:
            continue
        (old / MANIFEST_FILE).unlink(missing_ok=True)
        shutil.rmtree(old)
