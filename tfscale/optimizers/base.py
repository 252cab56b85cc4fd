"""Base class for the settings of an optimizer, and the registry of all optimizers. Planning also uses the settings, so
torch is imported only where it is needed."""

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
    """Description of one of the tensors in the optimizer state of a weight. The tensor has the shape of the weight."""

    name: str
    """Key of the slot in the state of the PyTorch optimizer, and prefix of the tensor's name in a checkpoint."""
    degree: int
    """Power of the gradient that the slot averages, which is 1 for a first moment and 2 for a second moment. Growth
    operators rescale a slot according to this power."""


@dataclass(frozen=True)
class WholeUpdate:
    """Cost of an update that requires the whole matrix of a weight instead of a shard. One rank computes the update for
    all ranks."""

    size: int
    """Number of values of the weight. If the weight is sharded, its values are gathered before the update. The rank
    that computes the update sends the same number of values to the other ranks."""
    flops: int
    """FLOPs of the update, which only one rank computes."""


HELD = 1 << 24
"""Minimum number of values in a chunk of weights that are updated together as whole matrices. Each chunk is updated
before the next chunk is gathered, so that the whole matrices of a large model are not all in memory together."""


def chunks(sizes: Sequence[int], ranks: int) -> Iterator[slice]:
    """Yield slices that divide a list of weights into chunks. The weights of a chunk are updated together as whole
    matrices. All chunks except the last have at least `HELD` values and at least one weight per rank. `sizes` contains
    the number of values of each weight."""
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
    """True if growth can give old and new rows of a matrix separate learning rates. This requires that the whole update
    is linear in the learning rate, and that weight decay removes the fraction lr * weight_decay of a weight. If the
    update of a row depends on other rows, `freeze` must exclude frozen rows from the computation."""
    bias_corrected: ClassVar[bool] = False
    """True if `new_row_correction` corrects the bias of empty slots of new rows (`growth.rates.per_row_bias`)."""
    weight_wise: ClassVar[bool] = True
    """True if each weight can be updated separately during the backward pass, as soon as its gradient is known."""

    @abstractmethod
    def build(self, weights: Mapping[str, "Tensor"], model: ModelConfig) -> Sequence["torch.optim.Optimizer"]:
        """Return PyTorch optimizers for the given weights. Each weight belongs to exactly one PyTorch optimizer. The
        learning rate of a parameter group may be a multiple of `lr`. The learning-rate schedule preserves this ratio.

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
        """Return the cost of each update that requires the whole matrix of a weight instead of a shard. Each of these
        updates is computed by one rank for all ranks; the updates are assigned to the ranks in round-robin order.
        `update_flops` includes the FLOPs of these updates. The shards of all other weights are updated by the ranks
        that hold them."""
        return ()

    def update_bytes(self, model: ModelConfig, ranks: int) -> int:
        """Return the number of bytes that an update of all weights temporarily allocates on each rank, in addition to
        the slots."""
        return 0

    def freeze(self, part: "torch.optim.Optimizer", weight: "Tensor", rows: int) -> None:  # noqa: B027, optional
        """Exclude the first `rows` rows of a weight from the computation of later updates of its other rows, until this
        method is called again. With 0, no rows are excluded. `part` is the PyTorch optimizer of the weight. The caller
        undoes the updates of the first rows. The default does nothing, because the update of a row usually depends on
        no other row."""

    def first_state(self, name: str, weight: "Tensor", step: int) -> dict[str, "Tensor"]:
        """Return the state that the PyTorch optimizer of a weight needs to continue after `step` updates. The slots
        contain zeros, which the caller overwrites."""
        import torch

        return {slot.name: torch.zeros_like(weight) for slot in self.slots(name, weight.dim())}

    def new_row_correction(self, steps: int, updates: int, empty: Sequence[int]) -> float:
        """Return the factor by which the update of rows added by growth is multiplied, to correct its bias. These rows
        have had fewer updates than the optimizer has counted. The factor does not apply to weight decay.

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
        shared: settings that several optimizers have in common. Those that this optimizer does not have are ignored.
        own: settings of this optimizer, which override `shared`.

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
