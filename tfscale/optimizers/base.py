"""Base class for optimizer settings and the registry of optimizers.

The package includes one optimizer, `tfscale.optimizers.adamw`. Planning and validation also use these classes, so torch
is imported only where it is needed.
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
    """Optimizer state tensor of one weight, with the shape of the weight."""

    name: str
    """Key of the slot in the torch optimizer's state, and prefix of the tensor's name in a checkpoint."""
    degree: int
    """Power of the gradient that the slot averages: 1 for a first moment, 2 for a second moment. Growth rescales the
    slot by this power."""


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """Settings of an optimizer. Subclasses are frozen dataclasses that add settings of their own."""

    lr: Rate
    """Peak learning rate."""
    clip: NonNegative
    """Maximum gradient norm, or 0 to disable clipping."""

    name: ClassVar[str]
    """Name of the optimizer in `OPTIMIZERS`."""
    row_wise: ClassVar[bool] = False
    """True if the update of a matrix row does not depend on other rows and is linear in the learning rate, apart from a
    weight decay of `lr * weight_decay`. Growth can then give old and new rows separate learning rates."""
    weight_wise: ClassVar[bool] = True
    """True if the update of a weight does not depend on other weights, so that weights can be updated during the
    backward pass."""

    @abstractmethod
    def build(self, weights: Mapping[str, "Tensor"]) -> Sequence["torch.optim.Optimizer"]:
        """Return torch optimizers for the given weights; each weight belongs to exactly one optimizer.

        The learning rate of a parameter group may be a multiple of `lr`; the learning-rate schedule preserves the
        ratio.

        Args:
            weights: all weights of a model, or a single weight, by name.
        """

    @abstractmethod
    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        """Return the slots of a weight with the given name and number of dimensions."""

    @abstractmethod
    def bytes_per_weight(self, model: ModelConfig) -> float:
        """Return the size of all slots in bytes per trainable parameter of a model."""

    def first_state(self, name: str, weight: "Tensor", step: int) -> dict[str, "Tensor"]:
        """Return the optimizer state of a weight after `step` updates, with zeros in the slots, to be filled from a
        checkpoint."""
        import torch

        return {slot.name: torch.zeros_like(weight) for slot in self.slots(name, weight.dim())}

    def new_row_correction(self, steps: int, updates: int, empty: Sequence[int]) -> float:
        """Return the factor that corrects the update of rows added by growth for their own number of updates, which is
        smaller than that of the optimizer. Requires `row_wise`.

        Args:
            steps: number of updates of the new rows, including the current one.
            updates: number of updates that the optimizer has counted, including the current one.
            empty: degrees of the slots that were empty when the new rows were added.
        """
        return 1.0


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optim.name", {DEFAULT: "tfscale.optimizers.adamw:AdamW"})


def to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Return the settings of an optimizer as a dictionary for JSON, which `from_dict` converts back."""
    named = {} if optimizer.name == DEFAULT else {"name": optimizer.name}  # files and keys omit the name of AdamW
    return named | asdict(optimizer)


def from_dict(values: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer described by a dictionary from `to_dict`.

    Raises:
        ValueError: the name is unknown.
        TypeError: a setting is missing or unknown.
    """
    settings = dict(values)
    return OPTIMIZERS.get(settings.pop("name", DEFAULT))(**settings)


def from_settings(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Optimizer:
    """Return an optimizer from a user's settings.

    Args:
        shared: settings common to several optimizers; settings that this optimizer does not have are ignored.
        own: settings that only this optimizer has.

    Raises:
        ValueError: the name is unknown, or a setting is missing, unknown or of the wrong type.
    """
    cls = OPTIMIZERS.get(name)
    known = [each.name for each in fields(cls)]
    if unknown := own.keys() - set(known):
        rule = f"must be settings of optim.name={name}"
        raise InvalidInput(Fault("optim.options", ", ".join(sorted(unknown)), rule, f"one of {', '.join(known)}"))
    try:
        optimizer = cls(**{key: value for key, value in shared.items() if key in known} | dict(own))
        check_fields(optimizer)
    except (TypeError, ValueError) as error:
        raise InvalidInput(Fault("optim.options", None, str(error))) from error
    return optimizer
