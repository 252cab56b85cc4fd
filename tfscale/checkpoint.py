"""Training state on disk: one format from one rank to many, written and read by training and by growth.

A checkpoint is a folder:

    step-000000001200/
        *.safetensors    model/<name>, exp_avg/<name>, exp_avg_sq/<name>, rng/<device>; whole tensors, or each rank's
                         share of them in files of its own
        state.json       the model's config, the counters
        manifest.json    size and SHA-256 of every other file; written last

It is written under another name, synced and then renamed, so a folder called `step-*` with a manifest is whole.
Nothing in it can carry code.

The layout is that of torch.distributed.checkpoint's safetensors storage, whose reader reads it for any number of ranks.
Its writer makes a copy of all tensors in memory first, which a model that just fits has no room for. So the files are
written one by one: what a file holds of a larger tensor is told in its header, as that reader expects.
"""

import hashlib
import json
import os
import reprlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from tfscale.models.config import ModelConfig, from_dict, to_dict
from tfscale.models.counts import parameters
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.untrusted import check_fields, check_file_name

FORMAT = 1
STATE_FILE = "state.json"
MANIFEST_FILE = "manifest.json"

SAVED_OFFSETS_KEY, CUSTOM_METADATA_KEY = "saved_offsets", "DCP_SHARDING_INFO"
"""Where torch's reader looks for the place of a file's tensors in the whole ones."""


class BrokenCheckpoint(Exception):
    """A checkpoint that is not what was written; the message names the file and the fault."""


class NoRoom(OSError):
    """There is less room on the disk than a checkpoint needs."""


@dataclass(frozen=True)
class Totals:
    """What a lineage has cost so far, parents included."""

    tokens: int = 0
    flops: int = field(default=0, metadata={"largest": 10**30})  # a 1.4B chain passes what 64 bits can count
    """Model FLOPs: forward and backward passes, as `tfscale.models.counts` counts them."""
    seconds: float = 0.0
    """In training steps; evaluation, checkpoints and growth left out."""
    device_seconds: float = 0.0
    joules: float | None = None
    """Energy of the devices in those seconds, as they measure it; None where a part of it is not known."""


@dataclass(frozen=True)
class Counters:
    """Where a stage stands."""

    step: int = 0
    """Optimizer steps of this stage."""
    optimizer_step: int = 0
    """AdamW's own count, behind its bias correction; it goes on over a growth that carries the moments."""
    before: Totals = Totals()
    """Of the lineage when this stage began: what its parents cost."""
    totals: Totals = Totals()
    """Of the lineage now."""
    recent_losses: tuple[float, ...] = ()
    """Training losses of the last steps, which the next one is compared with."""


def folder_name(step: int) -> str:
    """Name of the checkpoint at a step; names sort as steps do."""
    return f"step-{step:012d}"


@dataclass(frozen=True)
class Part:
    """A rank's share of a tensor: `data` [its rows, ...], which begins at `offsets` of the whole."""

    data: Tensor
    offsets: tuple[int, ...]


class Ranks(Protocol):
    """The processes that write a checkpoint together. Its methods are collective calls."""

    rank: int
    size: int

    def any(self, *flags: bool) -> list[bool]:
        """Whether each flag is up on any rank."""

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over the ranks."""


class _Alone:
    rank, size = 0, 1

    def any(self, *flags: bool) -> list[bool]:
        return list(flags)

    def sum(self, *values: float) -> list[float]:
        return list(values)


ALONE: Ranks = _Alone()


def write(
    folder: Path, config: ModelConfig, counters: Counters, tensors: Mapping[str, Tensor | Part], ranks: Ranks = ALONE
) -> int:
    """Writes a checkpoint; each rank what it has of it.

    Returns:
        Bytes of all tensors.

    Raises:
        OSError: the disk is full or away, for one of the ranks; what was there before is untouched.
    """
    size = ranks.sum(sum((value.data if isinstance(value, Part) else value).nbytes for value in tensors.values()))[0]
    write_aside(folder, config, counters, lambda aside: _write_files(aside, tensors, ranks), ranks, int(size))
    return int(size)


def write_aside(
    folder: Path,
    config: ModelConfig,
    counters: Counters,
    fill: Callable[[Path], None],
    ranks: Ranks = ALONE,
    needed: int = 0,
) -> None:
    """Lets every rank's `fill` put safetensors files into a folder, completes it, and gives it its name last.

    Args:
        needed: bytes that the ranks are about to write.

    Raises:
        OSError: it could not be written; what was there before is untouched, and no half of it is left.
    """
    aside = folder.parent / f".{folder.name}.writing"
    leads = ranks.rank == 0

    def begin() -> None:
        check_room(folder, needed)
        if leads:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)

    def put() -> None:
        fill(aside)
        _write_json(aside / _manifest_of(ranks.rank), _entries(aside, ranks))

    def complete() -> None:
        if leads:
            _complete(aside, config, counters, ranks.size)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
            _sync(folder.parent)

    for act in (begin, put, complete):
        fault: Exception | None = None
        try:
            act()
        except (OSError, SafetensorError, BrokenCheckpoint) as error:
            fault = error
        if not ranks.any(fault is not None)[0]:
            continue
        if leads:
            shutil.rmtree(aside, ignore_errors=True)
        if isinstance(fault, NoRoom):
            raise fault
        raise _not_written(folder, fault) from fault


def _not_written(folder: Path, fault: Exception | None) -> OSError:
    existing = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(existing).free / 1e6
    return OSError(f"{folder}: could not be written, with {free:,.1f} MB free: {fault or 'another rank failed'}")


HASHED_AT_ONCE = 8
FILE_BYTES = 2**30
"""A file is ended when it holds so much: what is on a device passes through host memory a file at a time."""


def _write_files(aside: Path, tensors: Mapping[str, Tensor | Part], ranks: Ranks) -> None:
    """Writes tensors into files whose names are this rank's own."""
    parts = {name: _part(value) for name, value in tensors.items()}
    for number, group in enumerate(_groups(parts)):
        offsets = {name: {SAVED_OFFSETS_KEY: list(part.offsets)} for name, part in group.items()}
        content = {name: part.data.detach().contiguous() for name, part in group.items()}
        path = aside / f"rank-{ranks.rank:05d}-{number:05d}.safetensors"
        save_file(content, path, {CUSTOM_METADATA_KEY: json.dumps(offsets)})


def _part(value: Tensor | Part) -> Part:
    return value if isinstance(value, Part) else Part(value, (0,) * value.dim())


def _groups(parts: Mapping[str, Part]) -> Iterator[dict[str, Part]]:
    group: dict[str, Part] = {}
    size = 0
    for name, part in parts.items():
        if group and size + part.data.nbytes > FILE_BYTES:
            yield group
            group, size = {}, 0
        group[name] = part
        size += part.data.nbytes
    if group:
        yield group


def check_room(folder: Path, needed: int) -> None:
    """Makes sure that there is room for `needed` bytes more.

    Raises:
        NoRoom: there is not; the message says what is needed and what is free.
    """
    existing = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise NoRoom(
            f"{folder}: the checkpoint needs {needed / 1e6:,.1f} MB, and {existing} has {free / 1e6:,.1f} MB free. The "
            "checkpoint before it is whole: make room, and the same command goes on."
        )


def _manifest_of(rank: int) -> str:
    return f"rank-{rank:05d}.json"


def _entries(aside: Path, ranks: Ranks) -> dict[str, dict[str, Any]]:
    """Syncs the files that this rank has written, and says what they are."""
    pattern = f"rank-{ranks.rank:05d}-*.safetensors" if ranks.size > 1 else "*.safetensors"
    files = sorted(aside.glob(pattern))
    for file in files:
        _sync(file)
    return _described(files)


def _described(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    hashes = _hashes(files)
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": found} for file, found in zip(files, hashes, strict=True)
    }


def _complete(aside: Path, config: ModelConfig, counters: Counters, ranks: int) -> None:
    state = {"format": FORMAT, "model": to_dict(config), "counters": asdict(counters)}
    _write_json(aside / STATE_FILE, state)
    manifest = _described([aside / STATE_FILE])
    for rank in range(ranks):  # by name: another host's list of the folder may be behind
        manifest |= _json(aside / _manifest_of(rank))
        (aside / _manifest_of(rank)).unlink()
    _write_json(aside / MANIFEST_FILE, manifest)
    for name in (STATE_FILE, MANIFEST_FILE):
        _sync(aside / name)
    _sync(aside)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def verify(folder: Path) -> None:
    """Compares every file with the manifest.

    Raises:
        BrokenCheckpoint: a file is missing, of another size, of other content, or not in the manifest.
    """
    manifest = _manifest(folder)
    for name in (STATE_FILE, *(file.name for file in folder.glob("*.safetensors"))):
        if name not in manifest:
            raise BrokenCheckpoint(f"{folder / name}: not in its manifest")
    for name, expected in manifest.items():
        file = folder / name
        if not file.is_file():
            raise BrokenCheckpoint(f"{file}: missing")
        if file.stat().st_size != expected["bytes"]:
            raise BrokenCheckpoint(f"{file}: {file.stat().st_size} bytes, {expected['bytes']} were written")
    for name, found in zip(manifest, _hashes([folder / name for name in manifest]), strict=True):
        if found != manifest[name]["sha256"]:
            raise BrokenCheckpoint(f"{folder / name}: its content is not what was written (SHA-256 differs)")


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST_FILE
    manifest = _json(path)
    for name, entry in manifest.items():
        try:
            check_file_name(name)
        except ValueError as error:
            raise BrokenCheckpoint(f"{path}: {error}") from error
        if not isinstance(entry, dict) or not entry.keys() >= {"bytes", "sha256"}:
            raise BrokenCheckpoint(f"{path}: says neither size nor SHA-256 of {name}")
    return manifest


def read_state(folder: Path) -> tuple[ModelConfig, Counters]:
    """The model's config and the counters.

    Raises:
        BrokenCheckpoint: state.json is missing, damaged or of another format.
    """
    path = folder / STATE_FILE
    state = _json(path)
    if state.get("format") != FORMAT:
        raise BrokenCheckpoint(f"{path}: format {reprlib.repr(state.get('format'))}; this version reads {FORMAT}")
    try:
        config, counters = from_dict(state["model"]), _counters(state["counters"])
        check_fields(config)
        check_fields(counters)
    except (ValueError, TypeError, KeyError) as error:
        raise BrokenCheckpoint(f"{path}: damaged ({error})") from error
    if min(counters.step, counters.optimizer_step) < 0:
        raise BrokenCheckpoint(f"{path}: damaged (step {counters.step}, optimizer step {counters.optimizer_step})")
    return config, counters


def _counters(values: dict[str, Any]) -> Counters:
    totals = {name: Totals(**values[name]) for name in ("before", "totals")}
    return Counters(**{**values, **totals, "recent_losses": tuple(values["recent_losses"])})


class _Reader(HuggingFaceStorageReader):
    """torch's reader, for headers that may lie: a tensor whose parts do not fill it would keep what memory held. The
    headers are looked through once."""

    _metadata: Metadata | None = None

    def read_metadata(self) -> Metadata:
        """Names, shapes and places of all tensors."""
        if self._metadata is not None:
            return self._metadata
        metadata = super().read_metadata()
        for name, entry in metadata.state_dict_metadata.items():
            assert isinstance(entry, TensorStorageMetadata)
            if sum(chunk.sizes.numel() for chunk in entry.chunks) != entry.size.numel():
                raise BrokenCheckpoint(f"the parts of {name} do not make a tensor of {tuple(entry.size)}")
        self._metadata = metadata
        return metadata


class Stored:
    """The tensors of a checkpoint, however many ranks wrote them."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._reader = folder, _Reader(str(folder))

    def shapes(self) -> dict[str, torch.Size]:
        """Their names and shapes.

        Raises:
            BrokenCheckpoint: a file is no safetensors file.
        """
        try:
            metadata = self._reader.read_metadata()
        except (SafetensorError, OSError, ValueError, TypeError, LookupError, RuntimeError, BrokenCheckpoint) as error:
            raise BrokenCheckpoint(f"{self._folder}: {error}") from error
        entries = metadata.state_dict_metadata.items()
        return {name: entry.size for name, entry in entries if isinstance(entry, TensorStorageMetadata)}

    def read(self, into: Mapping[str, Tensor]) -> None:
        """Fills the given tensors, each by its name; of a sharded one this rank's share.

        Raises:
            BrokenCheckpoint: a tensor is missing or of another shape.
        """
        try:
            with _one_process():
                load(dict(into), storage_reader=self._reader, no_dist=True)
        except (CheckpointException, SafetensorError, OSError) as error:
            raise BrokenCheckpoint(f"{self._folder}: {error}") from error


def shapes(folder: Path) -> dict[str, torch.Size]:
    """Names and shapes of the tensors in a checkpoint; `Stored` for more than one look.

    Raises:
        BrokenCheckpoint: a file is no safetensors file.
    """
    return Stored(folder).shapes()


def read(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fills the given tensors, each by its name; `Stored` for more than one look.

    Raises:
        BrokenCheckpoint: a tensor is missing or of another shape.
    """
    Stored(folder).read(into)


def load_model(folder: Path) -> LanguageModel:
    """The model of a checkpoint, in float32 on the CPU.

    Raises:
        BrokenCheckpoint: it is not whole.
    """
    config, _ = read_state(folder)
    held = sum(shape.numel() for name, shape in shapes(folder).items() if name.startswith("model/"))
    if held != parameters(config):  # before memory is taken for what state.json says
        raise BrokenCheckpoint(f"{folder}: holds {held:,} weights, its {STATE_FILE} says {parameters(config):,}")
    model = build_model(config)
    read(folder, {f"model/{name}": parameter.data for name, parameter in model.named_parameters()})
    return model


def latest(folder: Path, report: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint in a folder of checkpoints. A broken one is set aside under a name that says so, and
    reported."""
    for found in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify(found)
        except BrokenCheckpoint as fault:
            aside = found.with_name(f"broken-{found.name}")
            shutil.rmtree(aside, ignore_errors=True)
            found.rename(aside)
            report(f"set aside as {aside.name}: {fault}")
            continue
        return found
    return None


def sweep(folder: Path) -> None:
    """Removes what killed writes have left. Only for whoever holds the stage's lock: nobody else is writing then."""
    for left in folder.glob(".step-*.writing"):
        shutil.rmtree(left)


def prune(folder: Path, keep: int, every: int = 0) -> None:
    """Removes all checkpoints but the newest `keep`, and those at multiples of `every` steps. The manifest goes first:
    half a checkpoint never looks whole."""
    for old in sorted(folder.glob("step-*"))[:-keep]:
        if every and int(old.name.removeprefix("step-")) % every == 0:
            continue
        (old / MANIFEST_FILE).unlink(missing_ok=True)
        shutil.rmtree(old)


def rng_tensors() -> dict[str, Tensor]:
    """The states of torch's random generators, as tensors to write."""
    states = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng/cuda"] = torch.cuda.get_rng_state()
    return states


def set_rng(states: Mapping[str, Tensor]) -> None:
    """Puts back what `rng_tensors` gave.

    Raises:
        BrokenCheckpoint: it is no state of a generator.
    """
    try:
        torch.set_rng_state(states["rng/cpu"])
        if "rng/cuda" in states:
            torch.cuda.set_rng_state(states["rng/cuda"])
    except (RuntimeError, LookupError) as error:
        raise BrokenCheckpoint(f"rng: {error}") from error


@contextmanager
def _one_process() -> Iterator[None]:
    # DCP warns that no process group is there; that is what we mean.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise BrokenCheckpoint(f"{path}: not a JSON object")
    return values


def _hashes(files: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(min(HASHED_AT_ONCE, os.cpu_count() or 1)) as pool:
        return list(pool.map(_sha256, files))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
