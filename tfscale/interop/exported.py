"""Reader of Hugging Face folders written by `tfscale export` or by `save_pretrained` of an exported model."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from tfscale.data.manifest import TOKENIZER_FILE
from tfscale.faults import UserFault, user_faults
from tfscale.files import read_object
from tfscale.interop.foreign import Foreign, match
from tfscale.models.config import ModelConfig
from tfscale.models.families import from_dict
from tfscale.totals import Totals
from tfscale.untrusted import check_fields, check_file_name, from_known

MODEL_TYPE = "tfscale"
PREFIX = "model."
"""Prefix of the names of weights in exported files. The Hugging Face model stores the tfscale model in its attribute
`model`, so the names of weights begin with this prefix."""
CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE = "config.json", "model.safetensors", "model.safetensors.index.json"
LINEAGE_FILE = "lineage.json"


def is_exported(folder: Path) -> bool:
    """Return True if a folder contains the config of an exported tfscale model."""
    try:
        return bool(_json(folder / CONFIG_FILE).get("model_type") == MODEL_TYPE)
    except UserFault:
        return False


def read_exported(folder: Path) -> Foreign:
    """Read the model in a folder that `tfscale export` or `save_pretrained` wrote.

    Raises:
        UserFault: a file is missing or damaged, the config does not describe a tfscale model, or tensors are missing,
            unexpected or of the wrong shape. The error lists all faulty tensors.
    """
    model = _model(folder / CONFIG_FILE)
    files = _weight_files(folder)
    try:
        stored = {name: weight for file in files for name, weight in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        raise UserFault([f"{folder}: {error}"]) from error
    tensors, faults = match(model, stored, lambda name: f"{PREFIX}{name}")
    if faults:
        raise UserFault([f"{folder}: {fault}" for fault in faults])
    tokenizer = folder / TOKENIZER_FILE
    return Foreign(
        model,
        tensors,
        format="hugging-face",
        files=(folder / CONFIG_FILE, *files),
        settings=_json(folder / CONFIG_FILE),
        totals=_totals(folder / LINEAGE_FILE),
        tokenizer=tokenizer.read_bytes() if tokenizer.is_file() else None,
    )


def _model(path: Path) -> ModelConfig:
    values = _json(path)
    if values.get("model_type") != MODEL_TYPE:
        found = values.get("model_type")
        raise UserFault(
            [f"{path}: model_type={found!r}: must be {MODEL_TYPE}, because only exports of tfscale can be imported"]
        )
    try:
        model = from_dict(values["tfscale"])
        check_fields(model)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserFault([f"{path}: the file is damaged ({error!r})"]) from error
    return model


def _weight_files(folder: Path) -> list[Path]:
    if not (folder / INDEX_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    try:
        names = sorted(set(_json(folder / INDEX_FILE)["weight_map"].values()))
        for name in names:
            check_file_name(name)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserFault([f"{folder / INDEX_FILE}: the file is damaged ({error!r})"]) from error
    return [folder / name for name in names]


def _totals(path: Path) -> Totals | None:
    """Return the training cost of the model, or None if the folder does not contain lineage.json."""
    if not path.is_file():
        return None
    try:
        return from_known(Totals, _json(path)["stages"][-1]["totals"])
    except (ValueError, TypeError, LookupError) as error:
        raise UserFault([f"{path}: the file is damaged ({error!r})"]) from error


def _json(path: Path) -> dict[str, Any]:
    with user_faults():
        return read_object(path)
