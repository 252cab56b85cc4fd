"""Optimizer settings, and the quantities that follow from them. `tfscale.optimizers.adamw` is the shipped optimizer.

Planning and checking read these classes too, so torch is imported only where it is used.
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
    """One tensor that an optimizer keeps for a weight, of the weight's shape."""

    name: str
    """Key in the state of the torch optimizer, and prefix of the tensor's name in a checkpoint."""
    degree: int
    """Power of the gradient that it averages: 1 for a first moment, 2 for a second. Growth scales it accordingly."""


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """Settings of an optimizer. Subclasses are frozen dataclasses that add settings of their own."""

    lr: Rate
    """Peak learning rate."""
    clip: NonNegative
    """Largest gradient norm; 0: no clipping."""

    name: ClassVar[str]
    """Name in `OPTIMIZERS`."""
    row_wise: ClassVar[bool] = False
    """True if the update of a matrix row depends on no other row and, apart from a decay of lr * weight_decay, is
    linear in the learning rate. Growth can then give old and new rows separate learning rates."""
    weight_wise: ClassVar[bool] = True
    """True if the update of a weight depends on no other weight, so that it can take place in the backward pass."""

    @abstractmethod
    def build(self, weights: Mapping[str, "Tensor"]) -> Sequence["torch.optim.Optimizer"]:
        """Return torch optimizers that update these weights, each weight by one of them.

        The learning rate of a parameter group may be a multiple of `lr`; the learning-rate schedule keeps the ratio.

        Args:
            weights: by name; all of a model, or one.
        """

    @abstractmethod
    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        """Return the slots of a weight with a name and a number of dimensions."""

    @abstractmethod
    def bytes_per_weight(self, model: ModelConfig) -> float:
        """Return the bytes of all slots per trained value of a model."""

    def first_state(self, name: str, weight: "Tensor", step: int) -> dict[str, "Tensor"]:
        """Return the state of a weight after `step` updates, with slots of zeros that a checkpoint then fills."""
        import torch

        return {slot.name: torch.zeros_like(weight) for slot in self.slots(name, weight.dim())}

    def new_row_correction(self, steps: int, updates: int, empty: Sequence[int]) -> float:
        """Return the factor that gives rows added by growth the bias correction of their own age. Needs `row_wise`.

        Args:
            steps: updates of the new rows, this one included.
            updates: updates that the optimizer counts, this one included.
            empty: degrees of the slots that the new rows began without.
        """
        return 1.0


OPTIMIZERS: Registry[type[Optimizer]] = Registry("optim.name", {DEFAULT: "tfscale.optimizers.adamw:AdamW"})


def to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Return plain values for JSON, which `from_dict` reads back."""
    named = {} if optimizer.name == DEFAULT else {"name": optimizer.name}  # files and keys of AdamW do not name it
    return named | asdict(optimizer)


def from_dict(values: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer that `to_dict` wrote.

    Raises:
        ValueError: an unknown name.
        TypeError: a missing or unknown setting.
    """
    settings = dict(values)
    return OPTIMIZERS.get(settings.pop("name", DEFAULT))(**settings)


def from_settings(name: str, shared: Mapping[str, Any], own: Mapping[str, Any]) -> Optimizer:
    """Return an optimizer from a user's settings.

    Args:
        shared: settings that several optimizers may have; those that this one lacks are left out.
        own: further settings of this one.

    Raises:
        ValueError: an unknown name, a missing or unknown setting, or one of another type.
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
