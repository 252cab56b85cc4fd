"""Reader of Hugging Face folders written by `tfscale export` or by `save_pretrained` of an exported model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tfscale.data.manifest import TOKENIZER_FILE
from tfscale.faults import UserFault, user_faults
from tfscale.files import read_object
from tfscale.interop.foreign import Foreign, Origin, tensor_faults
from tfscale.models.config import ModelConfig
from tfscale.models.families import from_dict
from tfscale.totals import Totals
from tfscale.untrusted import check_fields, check_file_name

MODEL_TYPE = "tfscale"
PREFIX = "model."
"""Prefix of the names of weights, because the Hugging Face model has the tfscale model as its attribute `model`."""
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
        UserFault: the config does not describe a tfscale model, or tensors are missing, unexpected or of the wrong
            shape. The error lists all faults.
    """
    model = _model(folder / CONFIG_FILE)
    files = _weight_files(folder)
    try:
        tensors = _Tensors(files)
        faults = list(tensor_faults(model, tensors.described(), lambda ours: f"{PREFIX}{ours}"))
    except (SafetensorError, OSError) as error:
        raise UserFault([f"{folder}: {error}"]) from error
    if faults:
        raise UserFault([f"{folder}: {fault}" for fault in faults])
    tokenizer = folder / TOKENIZER_FILE
    return Foreign(
        model,
        tensors,
        Origin("hugging-face", (folder / CONFIG_FILE, *files), _json(folder / CONFIG_FILE)),
        _totals(folder / LINEAGE_FILE),
        tokenizer.read_bytes() if tokenizer.is_file() else None,
    )


class _Tensors(Mapping[str, Tensor]):
    """Mapping from the names of weights to tensors in safetensors files. Each tensor is read on access."""

    def __init__(self, files: list[Path]) -> None:
        opened: list[Any] = [safe_open(file, framework="pt") for file in files]
        self._files = {name.removeprefix(PREFIX): (file, name) for file in opened for name in file.keys()}  # noqa: SIM118

    def described(self) -> dict[str, tuple[list[int], str]]:
        """Return the shape and type of each tensor without reading the values."""
        parts = {name: file.get_slice(theirs) for name, (file, theirs) in self._files.items()}
        return {name: (part.get_shape(), part.get_dtype()) for name, part in parts.items()}

    def __getitem__(self, name: str) -> Tensor:
        file, theirs = self._files[name]
        tensor: Tensor = file.get_tensor(theirs)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


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
    """Return the training cost of the model, or None if the folder does not contain a lineage."""
    if not path.is_file():
        return None
    try:
        totals = Totals(**_json(path)["stages"][-1]["totals"])
        check_fields(totals)
    except (ValueError, TypeError, LookupError) as error:
        raise UserFault([f"{path}: the file is damaged ({error!r})"]) from error
    return totals


def _json(path: Path) -> dict[str, Any]:
    with user_faults():
        return read_object(path)
