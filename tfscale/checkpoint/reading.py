"""Functions that read and verify checkpoints. `tfscale.checkpoint.stored`, which reads tensors, is imported only when
it is used, because its import is slow and a stage that starts from scratch does not need it."""

import reprlib
import shutil
from collections.abc import Callable, Mapping
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
    """Compare the files of a checkpoint with its manifest. Raise BrokenCheckpoint if a file in the manifest is missing
    or differs in size or content, or if state.json or a safetensors file is not in the manifest."""
    manifest = read_manifest(folder)
    for name in (STATE_FILE, *(file.name for file in folder.glob("*.safetensors"))):
        if name not in manifest:
            raise BrokenCheckpoint(f"{folder / name}: the file is not in the manifest")
    for name, expected in manifest.items():
        file = folder / name
        if not file.is_file():
            raise BrokenCheckpoint(f"{file}: the file is missing")
        if file.stat().st_size != expected["bytes"]:
            raise BrokenCheckpoint(f"{file}: the file has {file.stat().st_size} bytes instead of {expected['bytes']}")
    for name, found in zip(manifest, sha256_of_all([folder / name for name in manifest]), strict=True):
        if found != manifest[name]["sha256"]:
            raise BrokenCheckpoint(
                f"{folder / name}: the content has changed since it was written (the SHA-256 differs)"
            )


def latest(folder: Path, report: Callable[[str], None]) -> Path | None:
    """Return the newest complete checkpoint in a folder, or None if there is none. Rename each newer checkpoint that is
    broken to `broken-*`, and call `report` with a message that names the fault."""
    for found in sorted(folder.glob("step-*"), reverse=True):
        try:
            verify(found)
        except BrokenCheckpoint as fault:
            aside = found.with_name(f"broken-{found.name}")
            shutil.rmtree(aside, ignore_errors=True)
            found.rename(aside)
            report(f"renamed to {aside.name}: {fault}")
            continue
        return found
    return None


def read_state(folder: Path) -> tuple[ModelConfig, Counters]:
    """Return the config of the model and the counters in a checkpoint. Raise BrokenCheckpoint if state.json is missing,
    damaged or in a different format."""
    path = folder / STATE_FILE
    state = read_json(path)
    if state.get("format") != FORMAT:
        found = reprlib.repr(state.get("format"))
        raise BrokenCheckpoint(f"{path}: the format is {found}, but this version of tfscale reads {FORMAT}")
    try:
        config, counters = from_dict(state["model"]), _counters(state["counters"])
        check_fields(config)
        check_fields(counters)
    except (ValueError, TypeError, KeyError) as error:
        raise BrokenCheckpoint(f"{path}: the file is damaged ({error})") from error
    if min(counters.step, counters.optimizer_step) < 0:
        raise BrokenCheckpoint(
            f"{path}: step={counters.step} and optimizer_step={counters.optimizer_step} must not be negative"
        )
    return config, counters


def _counters(values: dict[str, Any]) -> Counters:
    totals = {name: Totals(**values[name]) for name in ("before", "totals")}
    return Counters(**{**values, **totals, "recent_losses": tuple(values["recent_losses"])})


def shapes(folder: Path) -> dict[str, torch.Size]:
    """Return the shapes of the tensors in a checkpoint by name (`Stored.shapes`)."""
    from tfscale.checkpoint.stored import Stored

    return Stored(folder).shapes()


def read(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Overwrite the given tensors with the tensors of the same names in a checkpoint (`Stored.read`)."""
    from tfscale.checkpoint.stored import Stored

    Stored(folder).read(into)


def load_model(folder: Path) -> LanguageModel:
    """Return the model of a checkpoint, in float32 on the CPU. Raise BrokenCheckpoint if the checkpoint is incomplete
    or damaged."""
    config, _ = read_state(folder)
    held = sum(shape.numel() for name, shape in shapes(folder).items() if name.startswith("model/"))
    if held != parameters(config):  # checked before memory is allocated for the model that state.json describes
        raise BrokenCheckpoint(
            f"{folder}: the files contain {held:,} weights, but {STATE_FILE} states {parameters(config):,}"
        )
    model = build_model(config)
    read(folder, {f"model/{name}": parameter.data for name, parameter in model.named_parameters()})
    return model
