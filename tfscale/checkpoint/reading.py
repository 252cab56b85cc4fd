"""Reading of checkpoints by any number of ranks, with checks of their contents.

The reader of tensors is imported inside functions, so that a stage that begins from scratch need not wait for it.
"""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tfscale.checkpoint.contents import FORMAT, STATE_FILE, BrokenCheckpoint, Counters
from tfscale.checkpoint.manifest import read_json, read_manifest
from tfscale.files import sha256_of_all
from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.models.families import from_dict
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.totals import Totals
from tfscale.untrusted import check_fields


def verify(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        BrokenCheckpoint: a file is missing, differs from the manifest in size or content, or is not in the manifest.
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
    for name, found in zip(manifest, sha256_of_all([folder / name for name in manifest]), strict=True):
        if found != manifest[name]["sha256"]:
            raise BrokenCheckpoint(f"{folder / name}: its content is not what was written (SHA-256 differs)")


def read_state(folder: Path) -> tuple[ModelConfig, Counters]:
    """Return the model's config and the counters.

    Raises:
        BrokenCheckpoint: state.json is missing, damaged or in another format.
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


def shapes(folder: Path) -> dict[str, torch.Size]:
    """Return the names and shapes of the tensors in a checkpoint; use `Stored` to read more than once.

    Raises:
        BrokenCheckpoint: a file is not a safetensors file.
    """
    from tfscale.checkpoint.stored import Stored

    return Stored(folder).shapes()


def read(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill the given tensors by name; use `Stored` to read more than once.

    Raises:
        BrokenCheckpoint: a tensor is missing or has another shape.
    """
    from tfscale.checkpoint.stored import Stored

    Stored(folder).read(into)


def load_model(folder: Path) -> LanguageModel:
    """Return the model of a checkpoint, in float32 on the CPU.

    Raises:
        BrokenCheckpoint: the checkpoint is not whole.
    """
    config, _ = read_state(folder)
    held = sum(shape.numel() for name, shape in shapes(folder).items() if name.startswith("model/"))
    if held != parameters(config):  # checked before memory is allocated for the model that state.json describes
        raise BrokenCheckpoint(f"{folder}: holds {held:,} weights, its {STATE_FILE} says {parameters(config):,}")
    model = build_model(config)
    read(folder, {f"model/{name}": parameter.data for name, parameter in model.named_parameters()})
    return model
