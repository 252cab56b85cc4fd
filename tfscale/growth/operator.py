"""Base class and registry of growth operators, which turn a trained model into a larger model.

`tfscale.growth.grow_checkpoint` applies an operator, tensor by tensor. An extension registers its own operator
with `@GROWTHS.register(kind)`. Planning also uses these classes, so torch is imported only where it is needed.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tfscale.faults import Fault, InvalidInput
from tfscale.models.config import ModelConfig
from tfscale.models.counts import parameters
from tfscale.registry import Registry
from tfscale.stage.spec import RateSpec
from tfscale.untrusted import check_fields

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Growth(ABC):
    """Settings of a growth operator. Subclasses are frozen dataclasses, which can add more settings.

    The settings are read from `conf/growth/NAME.yaml`, where `kind` is the name of the operator in `GROWTHS`.
    """

    kind: ClassVar[str]
    """Name under which the growth operator is registered in `GROWTHS`."""
    name: str
    """Display name of the growth settings, which is not part of a stage's key."""
    _: KW_ONLY
    lr: Literal["rewarm", "continue"] = "rewarm"
    """Learning rate at the start of the child's warm-up. `rewarm`: zero (official code). `continue`: the last learning
    rate of the parent."""
    data: Literal["continue", "restart"] = "continue"
    """Position in the data at which the child starts. `continue`: the position at which the parent stopped. `restart`:
    the first batch (official code)."""
    peak: float = 1.0
    """Factor by which the schedule's peak learning rate for grown stages is multiplied."""

    def __post_init__(self) -> None:
        if faults := list(self.faults()):
            raise InvalidInput(*faults)

    def faults(self) -> Iterator[Fault | str]:
        """Yield the faults in the settings. Each fault names a setting, such as `growth.noise`."""
        if not 0 < self.peak <= 100:
            yield Fault("growth.peak", self.peak, "must be above 0 and at most 100", "1")

    @property
    def rounds(self) -> bool:
        """True if weights of the child are fractions of the parent's weights, which are rounded to float32."""
        return False

    @property
    def carries(self) -> bool:
        """True if the child starts with the optimizer state and the number of optimizer updates of its parent, provided
        that both have the same optimizer."""
        return True

    @property
    def splits_rates(self) -> bool:
        """True if old and new rows have separate learning rates, which `rates_of` returns."""
        return False

    @property
    def nested_dropout(self) -> float:
        """Probability with which a step of the child uses only the first groups of parameter tokens."""
        return 0.0

    @property
    def corrects_bias(self) -> bool:
        """True if the optimizer must correct the bias of the slots that start empty in new rows."""
        return False

    @abstractmethod
    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> ModelConfig:
        """Return the config of the child: `target`, or the nearest size that the operator can produce.

        Raises:
            ValueError: the parent cannot grow to this size.
        """

    @abstractmethod
    def preserves(self, parent: ModelConfig, child: ModelConfig) -> bool:
        """Return True if this growth preserves all logits up to rounding. `tfscale.growth.grow_stage` then verifies
        that the logits are unchanged."""

    def source_of(self, name: str, parent: ModelConfig, child: ModelConfig) -> str:
        """Return the name of the parent's weight from which the child's weight `name` is computed."""
        return name

    @abstractmethod
    def grow_tensor(
        self, name: str, degree: int, old: "Tensor", parent: ModelConfig, child: ModelConfig, seed: int
    ) -> "Tensor":
        """Return a tensor of the child, as a pure function of the arguments.

        Args:
            name: name of the child's weight.
            degree: 0 for a weight; for an optimizer slot, the power of the gradient that the slot averages.
            old: tensor of the parent.
            seed: seed of the stage, for use with `tfscale.models.init.stream(seed, name)`.
        """

    def rates_of(self, parent: ModelConfig, child: ModelConfig, tokens: int) -> RateSpec | None:
        """Return the separate learning rates of old and new rows for a stage of `tokens` tokens, or None if all rows
        have the same learning rate."""
        return None

    def key_settings(self) -> dict[str, Any]:
        """Return the settings that the spec of a grown stage contains: by default, all settings except `peak`, which is
        included in the learning rate of the stage. The key of the stage includes all returned settings except
        `name`."""
        return {name: value for name, value in vars(self).items() if name != "peak"}

    def changes(self, parent: ModelConfig, child: ModelConfig) -> dict[str, Any]:
        """Return the config fields that differ between parent and child, for growth.json."""
        before, after = asdict(parent), asdict(child)
        differ = [name for name in before if before[name] != after[name]]
        return {"shape": {name: {"before": before[name], "after": after[name]} for name in differ}}

    def facts(self, parent: ModelConfig, child: ModelConfig) -> dict[str, Any]:
        """Return the facts about the growth that growth.json records in addition to the measurements. The values have
        JSON types."""
        facts = {
            **self.changes(parent, child),
            "parameters": {"before": parameters(parent), "after": parameters(child)},
            "preserving": self.preserves(parent, child),
        }
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain


@dataclass(frozen=True)
class Continued(Growth):
    """Growth operator for continued training, which changes neither the model nor the optimizer state."""

    kind: ClassVar[str] = "continued"

    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> ModelConfig:
        if target != parent:
            raise ValueError(
                "the child's model config must be the same as the parent's for continued training (kind=continued)"
            )
        return parent

    def preserves(self, parent: ModelConfig, child: ModelConfig) -> bool:
        return True

    def grow_tensor(
        self, name: str, degree: int, old: "Tensor", parent: ModelConfig, child: ModelConfig, seed: int
    ) -> "Tensor":
        return old


CONTINUED = Continued("none", lr="continue", data="continue")
"""Continued training with the last learning rate, optimizer state and data position of the parent."""

GROWTHS: Registry[type[Growth]] = Registry(
    "growth.kind",
    {
        "tokens": "tfscale.growth.tokenformer_recipe:GrowthRecipe",
        "transformer": "tfscale.growth.transformer_recipe:TransformerGrowth",
        "continued": "tfscale.growth.operator:Continued",
    },
)
SHIPPED = {"tokenformer": "tokens", "transformer": "transformer"}
"""Kinds of the built-in operators by model family. The specs and keys of stages omit these kinds."""


def to_dict(growth: Growth) -> dict[str, Any]:
    """Return growth settings as a dictionary for a stage's spec, which `from_dict` converts back."""
    named = {} if growth.kind in SHIPPED.values() else {"kind": growth.kind}
    return named | growth.key_settings()


def from_dict(values: Mapping[str, Any], model: ModelConfig) -> Growth:
    """Return the growth settings described in the spec of a grown stage.

    Raises:
        ValueError, TypeError: the values do not describe a growth of a model of this family.
    """
    settings = dict(values)
    growth = GROWTHS.get(settings.pop("kind", None) or SHIPPED[model.family])(**settings)
    check_fields(growth)
    return growth
