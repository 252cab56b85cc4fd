"""Models that were read from the files of other software, and the matching of their tensors to a tfscale model."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.init import build_model
from tfscale.totals import Totals


@dataclass(frozen=True)
class Foreign:
    """Model that was read from the files of other software. Its tensors match the config `model`."""

    model: ModelConfig
    tensors: Mapping[str, Tensor]
    """Weights by their names in the tfscale model. The weights can have any floating-point type, and may be
    memory-mapped from a file."""
    format: str
    """Name of the format: `gpt-neox` or `hugging-face`."""
    files: tuple[Path, ...]
    """Files of the model. import.json records their hashes."""
    settings: Mapping[str, Any]
    """Settings from the files of the model, such as the config. import.json records these settings."""
    totals: Totals | None = None
    """Cost of training the model, including the cost of its parents, or None if the cost is unknown."""
    tokenizer: bytes | None = None
    """Content of the tokenizer.json of the model, or None if there is no tokenizer."""


def match(
    model: ModelConfig, stored: Mapping[str, Tensor], stored_name: Callable[[str], str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Match the tensors in files to the weights of a model.

    Args:
        stored: tensors in the files, by their names in the files.
        stored_name: function that converts the name of a weight of the tfscale model to its name in the files.

    Returns:
        The tensors by their names in the tfscale model, and a message for each tensor that is missing, unexpected, or
        of the wrong shape or type. If there are fewer tensors than layers, there is only one message.
    """
    if model.n_layer > len(stored):  # checked before a model of that many layers is built
        return {}, [f"there are {len(stored)} tensors, but the {model.n_layer} layers of the config have more"]
    matched: dict[str, Tensor] = {}
    faults: list[str] = []
    unexpected = dict.fromkeys(stored)
    for name, weight in build_model(model, device="meta").named_parameters():
        theirs = stored_name(name)
        unexpected.pop(theirs, None)
        found = stored.get(theirs)
        if found is None:
            faults.append(f"{theirs} is missing")
        elif found.shape != weight.shape:
            faults.append(f"{theirs} has shape {tuple(found.shape)}, but the config requires {tuple(weight.shape)}")
        elif not re.fullmatch(r"torch\.b?float\d+", str(found.dtype)):
            faults.append(f"{theirs} has type {found.dtype}, which is not floating-point")
        else:
            matched[name] = found
    return matched, faults + [f"{name} is not a tensor of the model" for name in unexpected]
