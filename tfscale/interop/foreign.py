"""A model as a foreign format holds it, and whether its tensors are those of a tfscale model."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tfscale.checkpoint import Totals
from tfscale.models.config import ModelConfig
from tfscale.models.init import build_model


@dataclass(frozen=True)
class Origin:
    """Where a model came from, for the record."""

    format: str
    """gpt-neox or hugging-face."""
    files: tuple[Path, ...]
    """Whose hashes are recorded."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its own description of itself."""


@dataclass(frozen=True)
class Foreign:
    """A model from elsewhere, its tensors checked."""

    model: ModelConfig
    tensors: Mapping[str, Tensor]
    """Every weight by its name in the model, of any floating-point type; read when it is asked for."""
    origin: Origin
    totals: Totals | None = None
    """What it cost, parents included; None where that is not known."""
    tokenizer: bytes | None = None
    """Content of its tokenizer.json."""


def tensor_faults(
    model: ModelConfig,
    there: Mapping[str, tuple[Sequence[int], str]],
    theirs: Callable[[str], str],
) -> Iterator[str]:
    """Tensors that are missing, left over, or not what the model's config makes them.

    Args:
        there: shape and type (`F32`, `torch.float32`) of what was found, by its name in the model, or by its own if
            the model has none like it.
        theirs: the foreign name of one in the model, for messages.
    """
    if model.n_layer > len(there):  # before a model of that many layers is made
        yield f"has {len(there)} tensors; the config's {model.n_layer} layers have more"
        return
    wanted = {name: tuple(weight.shape) for name, weight in build_model(model, device="meta").named_parameters()}
    found = {name: (tuple(shape), kind) for name, (shape, kind) in there.items()}
    for name, shape in wanted.items():
        if name not in found:
            yield f"{theirs(name)} is missing"
        elif found[name][0] != shape:
            yield f"{theirs(name)} is {found[name][0]}, by the config {shape}"
        elif not re.fullmatch(r"B?F\d+|torch\.b?float\d+", found[name][1]):
            yield f"{theirs(name)} is of {found[name][1]}, no floating point"
    for name in found:
        if name not in wanted:
            yield f"{theirs(name)} is no tensor of the model"
