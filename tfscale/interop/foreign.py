"""Models in the formats of other software, and a check that their tensors match a tfscale model."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.init import build_model
from tfscale.totals import Totals


@dataclass(frozen=True)
class Foreign:
    """Model in the format of other software, whose tensors have been checked."""

    model: ModelConfig
    tensors: Mapping[str, Tensor]
    """Mapping from the name of each weight in the tfscale model to the weight, which has any floating-point type and
    may be memory-mapped from a file."""
    format: str
    """Name of the format: `gpt-neox` or `hugging-face`."""
    files: tuple[Path, ...]
    """Files of the model, whose hashes are recorded in import.json."""
    settings: Mapping[str, Any]
    """Settings from the files of the model, such as the config, which are recorded in import.json."""
    totals: Totals | None = None
    """Cost of training the model, including the cost of its parents, or None if the cost is unknown."""
    tokenizer: bytes | None = None
    """Content of the tokenizer.json of the model, or None if there is no tokenizer."""


def tensor_faults(model: ModelConfig, tensors: Mapping[str, Tensor], theirs: Callable[[str], str]) -> Iterator[str]:
    """Yield a message for each tensor that is missing, unexpected, or does not match the config of the model.

    Args:
        tensors: tensors in the files, by their names in the tfscale model, or by their names in the files if the
            tfscale model has no such tensors.
        theirs: function that converts the name of a tensor in the tfscale model to its name in the files, for messages.
    """
    if model.n_layer > len(tensors):  # checked before a model of that many layers is built
        yield f"there are {len(tensors)} tensors, but the {model.n_layer} layers of the config have more"
        return
    wanted = {name: tuple(weight.shape) for name, weight in build_model(model, device="meta").named_parameters()}
    for name, shape in wanted.items():
        if name not in tensors:
            yield f"{theirs(name)} is missing"
        elif (found := tuple(tensors[name].shape)) != shape:
            yield f"{theirs(name)} has shape {found}, but the config requires {shape}"
        elif not re.fullmatch(r"torch\.b?float\d+", str(tensors[name].dtype)):
            yield f"{theirs(name)} has type {tensors[name].dtype}, which is not floating-point"
    for name in tensors:
        if name not in wanted:
            yield f"{theirs(name)} is not a tensor of the model"
