"""Base class of optimizer settings and of the quantities that follow from them, and the registry of optimizers.

`tfscale.optimizers.adamw` and `tfscale.optimizers.muon` are the shipped optimizers. Planning and checking use these
classes too, so torch is imported only where it is used.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from tfscale.faults import Fault, InvalidInput
from tfscale.models.config import ModelConfig
from tfscale.ranges import Factor, NonNegative, Rate
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


@dataclass(frozen=True)
class WholeUpdate:
    """Cost of updating a weight as a whole matrix, which one of several ranks does for all others."""

    size: int
    """Number of values in the weight, which the rank gathers if it is sharded, and sends to the others."""
    flops: int
    """FLOPs that this rank alone computes."""


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """Settings of an optimizer. Subclasses are frozen dataclasses that add settings of their own."""

    lr: Rate
    """Peak learning rate."""
    clip: NonNegative
    """Maximum gradient norm; 0: no clipping."""
    embedding_ratio: Factor = 1.0
    """Learning rate of the embedding and of the gains and biases of norms, as a multiple of `lr`."""

    name: ClassVar[str]
    """Name of the optimizer in `OPTIMIZERS`."""
    row_rates: ClassVar[bool] = False
    """True if growth can give old and new rows of a matrix separate learning rates: the update is linear in the
    learning rate, apart from a decay of lr * weight_decay, and `freeze` excludes frozen rows from it."""
    bias_corrected: ClassVar[bool] = False
    """True if `new_row_correction` corrects the bias of empty slots of new rows (`growth.rates.per_row_bias`)."""
    weight_wise: ClassVar[bool] = True
    """True if each weight can be updated by itself in the backward pass, as soon as its gradient is known."""

    @abstractmethod
    def build(self, weights: Mapping[str, "Tensor"], model: ModelConfig) -> Sequence["torch.optim.Optimizer"]:
        """Return torch optimizers for these weights, each of which belongs to exactly one of them.

        The learning rate of a parameter group may be a multiple of `lr`; the learning-rate schedule keeps the ratio.

        Args:
            weights: all weights of a model or a single one, by name; they may be sharded over ranks.
            model: config of the model, whose `matrix` gives fan-in and fan-out of each matrix and whose `base_fan_in`
                gives the parametrization.
        """

    @abstractmethod
    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        """Return the slots of the weight with this name and number of dimensions."""

    @abstractmethod
    def bytes_per_weight(self, model: ModelConfig) -> float:
        """Return the number of bytes in all slots per trainable parameter of a model."""

    @abstractmethod
    def update_flops(self, model: ModelConfig) -> int:
        """Return the FLOPs of one update of all weights of a model."""

    def whole_updates(self, model: ModelConfig) -> Sequence[WholeUpdate]:
        """Return the updates that ranks divide between them, in the order in which they take turns. The FLOPs of
        `update_flops` include theirs. Every rank updates the values that it holds of all other weights."""
        return ()

    def freeze(self, part: "torch.optim.Optimizer", weight: "Tensor", rows: int) -> None:  # noqa: B027, optional
        """Exclude the first rows of a weight from the next update of the others; their own update is undone afterwards.
        Nothing has to be done if the update of a row depends on no other row.

        Args:
            part: torch optimizer of the weight, from `build`.
            rows: number of frozen rows of the whole weight; 0: none.
        """

    def first_state(self, name: str, weight: "Tensor", step: int) -> dict[str, "Tensor"]:
        """Return the state of a weight after `step` updates, with zeros in the slots, which a checkpoint then fills."""
        import torch

        return {slot.name: torch.zeros_like(weight) for slot in self.slots(name, weight.dim())}

    def new_row_correction(self, steps: int, updates: int, empty: Sequence[int]) -> float:
        """Return the factor that gives rows added by growth the bias correction for their own age.

        Args:
            steps: number of updates of the new rows, including this one.
            updates: number of updates that the optimizer has counted, including this one.
            empty: degrees of the slots that were empty when the new rows were added.
        """
        return 1.0


OPTIMIZERS: Registry[type[Optimizer]] = Registry(
    "optim.name", {DEFAULT: "tfscale.optimizers.adamw:AdamW", "muon": "tfscale.optimizers.muon:Muon"}
)


def to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer as plain values for JSON, which `from_dict` reads back."""
    values = {"name": optimizer.name} | asdict(optimizer)
    for name, default in (("name", DEFAULT), ("embedding_ratio", 1.0)):
        if values[name] == default:
            del values[name]  # files from before the field existed do not have it
    return values


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
