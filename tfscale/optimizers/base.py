"""Base class of optimizer settings and of the quantities that follow from them, and the registry of optimizers.

`tfscale.optimizers.adamw` is the shipped optimizer. Planning and checking use these classes too, so torch is imported
only where it is used.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.faults import Fault, InvalidInput
from tfscale.models.config import ModelConfig
from tfscale.ranges import NonNegative, Rate
from tfscale.registry import Registry
from tfscale.untrusted import check_fields

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEFAULT = "adamw"


@dataclass(frozen=True)
class Slot:
    """Tensor of the weight's shape that an optimizer keeps for each weight."""

    name: str
    """Key of the slot in the torch optimizer's state and prefix of the tensor's name in a checkpoint."""
    degree: int
    """Power of the gradient that the slot averages, by which growth scales it: 1 for a first moment, 2 for a second."""


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """Settings of an optimizer. Subclasses are frozen dataclasses that add settings of their own."""

    lr: Rate
    """Peak learning rate."""
    clip: NonNegative
    """Maximum gradient norm; 0: no clipping."""

    name: ClassVar[str]
    """Name of the optimizer in `OPTIMIZERS`."""
    row_wise: ClassVar[bool] = False
    """True if the update of a matrix row depends on no other row and is linear in the learning rate, apart from a decay
    of lr * weight_decay. Growth can then give old and new rows separate learning rates."""
    weight_wise: ClassVar[bool] = True
    """True if the update of a weight depends on no other weight, so it can be done in the backward pass."""

    @abstractmethod
    def build(self, weights: Mapping[str, "Tensor"]) -> Sequence["torch.optim.Optimizer"]:
        """Return torch optimizers for these weights, each of which belongs to exactly one of them.

        The learning rate of a parameter group may be a multiple of `lr`; the learning-rate schedule keeps the ratio.

        Args:
            weights: all weights of a model or a single one, by name.
        """

    @abstractmethod
    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        """Return the slots of the weight with this name and number of dimensions."""

    @abstractmethod
    def bytes_per_weight(self, model: ModelConfig) -> float:
        """Return the number of bytes in all slots per trainable parameter of a model."""

    def first_state(self, name: str, weight: "Tensor", step: int) -> dict[str, "Tensor"]:
        """Return the state of a weight after `step` updates, with zeros in the slots, which a checkpoint then fills."""
        import torch

        return {slot.name: torch.zeros_like(weight) for slot in self.slots(name, weight.dim())}

    def new_row_correction(self, steps: int, updates: int, empty: Sequence[int]) -> float:
        """Return the factor that gives rows added by growth the bias correction for their own age. Requires `row_wise`.

        Args:
            steps: number of updates of the new rows, including this one.
            updates: number of updates that the optimizer has counted, including this one.
            empty: degrees of the slots that were empty when the new rows were added.
        """
        return 1.0


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optim.name", {DEFAULT: "tfscale.optimizers.adamw:AdamW"})


def to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer as plain values for JSON, which `from_dict` reads back."""
    named = {} if optimizer.name == DEFAULT else {"name": optimizer.name}  # files and keys omit the name of AdamW
    return named | asdict(optimizer)


def from_dict(values: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer that `to_dict` wrote.

    Raises:
        ValueError: the name is unknown.
        TypeError: a setting is missing or unknown.
    """
    settings = dict(values)
    return OPTIMIZERS.get(settings.pop("name", DEFAULT))(**settings)


def from_settings(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Optimizer:
    """Return an optimizer from a user's settings.

    Args:
        shared: settings that several optimizers may have; those that this optimizer lacks are omitted.
        own: further settings of this optimizer.

    Raises:
        ValueError: the name is unknown, or a setting is missing, unknown or of the wrong type.
    """
    cls = OPTIMIZERS.get(name)
    known = [each.name for each in fields(cls)]
    if unknown := own.keys() - set(known):
        rule = f"must be settings of optim.name={name}"
        raise InvalidInput(Fault("optim.options", ", ".join(sorted(unknown)), rule, f"some of {', '.join(known)}"))
    try:
        optimizer = cls(**{key: value for key, value in shared.items() if key in known} | dict(own))
        check_fields(optimizer)
    except (TypeError, ValueError) as error:
        raise InvalidInput(Fault("optim.options", None, str(error))) from error
    return optimizer
