"""Base class for optimizer settings and the registry of optimizers. Planning also uses these classes, so torch is
imported only where it is needed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
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
    """Description of an optimizer state tensor of one weight. The tensor has the shape of the weight."""

    name: str
    """Key of the slot in the state of the PyTorch optimizer, and prefix of the tensor's name in a checkpoint."""
    degree: int
    """Power of the gradient that the slot averages (1: first moment, 2: second moment), for rescaling by growth."""


@dataclass(frozen=True)
class WholeUpdate:
    """Cost of the update of a weight as a whole matrix, which one rank computes for all ranks."""

    size: int
    """Number of values of the weight. If the weight is sharded, its values are gathered before the update. The rank
    that computes the update sends the same number of values to the other ranks."""
    flops: int
    """FLOPs of the update, which only one rank computes."""


HELD = 1 << 24
"""Minimum number of values in a chunk of weights that are updated together as whole matrices. Each chunk is updated
before the next chunk is gathered, so the whole matrices of all weights are not in memory at the same time."""


def chunks(sizes: Sequence[int], ranks: int) -> Iterator[slice]:
    """Yield slices that divide a list of weights into chunks, whose weights are updated together as whole matrices. All
    chunks except the last have at least `HELD` values and at least one weight per rank. `sizes` contains the number of
    values of each weight."""
    begin = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or (end - begin >= ranks and sum(sizes[begin:end]) >= HELD):
            yield slice(begin, end)
            begin = end


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """Settings of an optimizer. Subclasses are frozen dataclasses, which can add more settings."""

    lr: Rate
    """Peak learning rate of the learning-rate schedule."""
    clip: NonNegative
    """Maximum norm of the gradients of all weights together. Larger gradients are scaled down to this norm. 0 disables
    clipping."""
    embedding_ratio: Factor = 1.0
    """Learning rate of the embedding and of the gains and biases of norms, as a multiple of `lr`."""

    name: ClassVar[str]
    """Name under which the optimizer is registered in `OPTIMIZERS`."""
    row_rates: ClassVar[bool] = False
    """True if growth can give old and new rows of a matrix separate learning rates. This requires that the update is
    linear in the learning rate, apart from a decay of lr * weight_decay, and that `freeze` excludes frozen rows when
    the update of the other rows is computed."""
    bias_corrected: ClassVar[bool] = False
    """True if `new_row_correction` corrects the bias of empty slots of new rows (`growth.rates.per_row_bias`)."""
    weight_wise: ClassVar[bool] = True
    """True if each weight can be updated separately during the backward pass, as soon as its gradient is known."""

    @abstractmethod
    def build(self, weights: Mapping[str, "Tensor"], model: ModelConfig) -> Sequence["torch.optim.Optimizer"]:
        """Return PyTorch optimizers for the given weights. Each weight belongs to exactly one PyTorch optimizer. The
        learning rate of a parameter group may be a multiple of `lr`, which the learning-rate schedule preserves.

        Args:
            weights: all weights of a model, or a single weight, by name. The weights may be sharded over ranks.
            model: config of the model, which gives the fan-in of each matrix and the parametrization.
        """

    @abstractmethod
    def slots(self, name: str, dimensions: int) -> tuple[Slot, ...]:
        """Return the slots (optimizer state tensors) of a weight with the given name and number of dimensions."""

    @abstractmethod
    def bytes_per_weight(self, model: ModelConfig) -> float:
        """Return the size of all slots of a model in bytes, divided by the number of trainable parameters."""

    @abstractmethod
    def update_flops(self, model: ModelConfig) -> int:
        """Return the FLOPs of one update of all weights of a model."""

    def whole_updates(self, model: ModelConfig) -> Sequence[WholeUpdate]:
        """Return the costs of all updates of weights as whole matrices. These updates are assigned to the ranks in
        round-robin order. `update_flops` includes the FLOPs of these updates. Every rank updates its own shards of all
        other weights."""
        return ()

    def update_bytes(self, model: ModelConfig, ranks: int) -> int:
        """Return the number of bytes that an update allocates in addition to the slots."""
        return 0

    def freeze(self, part: "torch.optim.Optimizer", weight: "Tensor", rows: int) -> None:  # noqa: B027, optional
        """Exclude the first `rows` rows of a weight from the computation of the next update of its other rows. `part`
        is the PyTorch optimizer of the weight. The caller undoes the update of the first rows. The default does
        nothing, because the update of a row usually depends on no other row."""

    def first_state(self, name: str, weight: "Tensor", step: int) -> dict[str, "Tensor"]:
        """Return the state of a weight in its PyTorch optimizer after `step` updates, with zeros in the slots, which
        the caller overwrites."""
        import torch

        return {slot.name: torch.zeros_like(weight) for slot in self.slots(name, weight.dim())}

    def new_row_correction(self, steps: int, updates: int, empty: Sequence[int]) -> float:
        """Return the factor that corrects the update of rows added by growth, which have had fewer updates than the
        optimizer has counted.

        Args:
            steps: number of updates of the new rows, including the current one.
            updates: number of updates that the optimizer has counted, including the current one.
            empty: degrees of the slots that were empty when the new rows were added.
        """
        return 1.0


OPTIMIZERS: Registry[type[Optimizer]] = Registry(
    "optim.name", {DEFAULT: "tfscale.optimizers.adamw:AdamW", "muon": "tfscale.optimizers.muon:Muon"}
)


def to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """Return the settings of an optimizer as a dictionary for JSON, which `from_dict` converts back."""
    values = {"name": optimizer.name} | asdict(optimizer)
    for name, default in (("name", DEFAULT), ("embedding_ratio", 1.0)):
        if values[name] == default:
            del values[name]  # older versions did not write this field
    return values


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
