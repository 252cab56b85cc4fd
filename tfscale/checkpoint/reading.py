"""Checkpoints are read by any number of ranks, and believed only after a look."""

import reprlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from tfscale.checkpoint.contents import FORMAT, MANIFEST_FILE, STATE_FILE, BrokenCheckpoint, Counters, Totals
from tfscale.checkpoint.files import digests, read_json
from tfscale.models.config import ModelConfig, from_dict
from tfscale.models.counts import parameters
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.untrusted import check_fields, check_file_name


def verify(folder: Path) -> None:
    """Compares every file with the manifest.

    Raises:
        BrokenCheckpoint: a file is missing, of another size, of other content, or not in the manifest.
    """
    manifest = read_manifest(folder)
    for name in (STATE_FILE, *(file.name for file in folder.glob("*.safetensors"))):
        if name not in manifest:
            raise BrokenCheckpoint(f"{folder / name}: not in its manifest")
    for name, expected in manifest.items():
        file = folder / name
        if not file.is_file():
            raise BrokenCheckpoint(f"{file}: missing")
        if file.stat().st_size != expected["bytes"]:
            raise BrokenCheckpoint(f"{file}: {file.stat().st_size} bytes, {expected['bytes']} were written")
    for name, found in zip(manifest, digests([folder / name for name in manifest]), strict=True):
        if found != manifest[name]["sha256"]:
            raise BrokenCheckpoint(f"{folder / name}: its content is not what was written (SHA-256 differs)")


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MANIFEST_FILE
    manifest = read_json(path)
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
    state = read_json(path)
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


@contextmanager
def _one_process() -> Iterator[None]:
    # DCP warns that no process group is there; that is what we mean.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
