"""Models in the formats of other software, and a check that their tensors match a tfscale model."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.init import build_model
from tfscale.totals import Totals


@dataclass(frozen=True)
class Origin:
    """Origin of an imported model, which is recorded in import.json."""

    format: str
    """Name of the format: `gpt-neox` or `hugging-face`."""
    files: tuple[Path, ...]
    """Files of the model, whose hashes are recorded."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Metadata from the files of the model."""


@dataclass(frozen=True)
class Foreign:
    """Model in the format of other software, whose tensors have been checked."""

    model: ModelConfig
    tensors: Mapping[str, Tensor]
    """Every weight, by its name in the tfscale model, in any floating-point type. Weights are read on access."""
    origin: Origin
    totals: Totals | None = None
    """Cost of training the model, including its parents, or None if unknown."""
    tokenizer: bytes | None = None
    """Content of the tokenizer.json of the model, or None if there is no tokenizer."""


def tensor_faults(
    model: ModelConfig,
    there: Mapping[str, tuple[Sequence[int], str]],
    theirs: Callable[[str], str],
) -> Iterator[str]:
    """Yield a message for each tensor that is missing, unexpected, or does not match the config of the model.

    Args:
        there: shape and type (`F32`, `torch.float32`) of each tensor in the files, by its name in the tfscale model, or
            by its name in the files if the tfscale model has no such tensor.
        theirs: function that converts the name of a tensor in the tfscale model to its name in the files, for messages.
    """
    if model.n_layer > len(there):  # checked before a model of that many layers is built
        yield f"there are {len(there)} tensors, but the {model.n_layer} layers of the config have more"
        return
    wanted = {name: tuple(weight.shape) for name, weight in build_model(model, device="meta").named_parameters()}
    found = {name: (tuple(shape), kind) for name, (shape, kind) in there.items()}
    for name, shape in wanted.items():
        if name not in found:
            yield f"{theirs(name)} is missing"
        elif found[name][0] != shape:
            yield f"{theirs(name)} has shape {found[name][0]}, but the config requires {shape}"
        elif not re.fullmatch(r"B?F\d+|torch\.b?float\d+", found[name][1]):
            yield f"{theirs(name)} has type {found[name][1]}, which is not floating-point"
    for name in found:
        if name not in wanted:
            yield f"{theirs(name)} is not a tensor of the model"
