"""Base class and registry of growth operators, which turn a trained model into a larger model.

`tfscale.growth.grow_checkpoint` applies an operator to one tensor after another. An extension registers its own
operator with `@GROWTHS.register(kind)`. Planning also uses these classes, so torch is imported only where it is needed.
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
    """Display name of the growth settings. The name is not part of a stage's key."""
    _: KW_ONLY
    lr: Literal["rewarm", "continue"] = "rewarm"
    """Learning rate at the start of the child's warm-up. `rewarm`: zero (official code). `continue`: the last learning
    rate of the parent."""
    data: Literal["continue", "restart"] = "continue"
    """Position in the data at which the child starts. `continue`: the position at which the parent stopped. `restart`:
    the first batch (official code)."""
    peak: float = 1.0
    """Factor by which the peak learning rate of a stage is multiplied if the stage grows with these settings."""

    def __post_init__(self) -> None:
        if faults := list(self.faults()):
            raise InvalidInput(*faults)

    def faults(self) -> Iterator[Fault | str]:
        """Yield a fault for each rule that the settings break. Each fault names a setting, such as `growth.noise`."""
        if not 0 < self.peak <= 100:
            yield Fault("growth.peak", self.peak, "must be above 0 and at most 100", "1")

    @property
    def rounds(self) -> bool:
        """True if weights of the child may be fractions of the parent's weights. Rounding the fractions to float32
        changes the logits slightly."""
        return False

    @property
    def carries(self) -> bool:
        """True if the child starts with the optimizer state and the number of optimizer updates of its parent, provided
        that both have the same optimizer."""
        return True

    @property
    def splits_rates(self) -> bool:
        """True if old and new rows of weights have separate learning rates, which `rates_of` returns."""
        return False

    @property
    def nested_dropout(self) -> float:
        """Probability with which a training step of the child uses only the first groups of parameter tokens."""
        return 0.0

    @property
    def corrects_bias(self) -> bool:
        """True if the optimizer must correct the bias of the slots that start empty in new rows."""
        return False

    @abstractmethod
    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> ModelConfig:
        """Return the config of the child. This is `target`, or the config nearest in size that the operator can
        produce.

        Raises:
            ValueError: the operator cannot grow the parent to `target` or a config near it.
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
        """Return a weight or an optimizer slot of the child, as a pure function of the arguments.

        Args:
            name: name of the child's weight.
            degree: 0 for a weight; for an optimizer slot, the power of the gradient that the slot averages.
            old: weight or slot of the parent from which the result is computed (see `source_of`).
            seed: seed of the stage, for use with `tfscale.models.init.stream(seed, name)`.
        """

    def rates_of(self, parent: ModelConfig, child: ModelConfig, tokens: int) -> RateSpec | None:
        """Return the separate learning rates of old and new rows for a stage of `tokens` tokens, or None if old
        and new rows are updated in the same way."""
        return None

    def key_settings(self) -> dict[str, Any]:
        """Return the settings that are stored in the spec of a grown stage. By default, these are all settings except
        `peak`, which is already part of the stage's learning rate. The key of the stage depends on all returned
        settings except `name`."""
        return {name: value for name, value in vars(self).items() if name != "peak"}

    def changes(self, parent: ModelConfig, child: ModelConfig) -> dict[str, Any]:
        """Return the config fields that differ between parent and child, with their values before and after the growth.
        growth.json contains the result."""
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
    """Return growth settings as the dictionary that is stored in the spec of a grown stage. `from_dict` creates growth
    settings from this dictionary."""
    named = {} if growth.kind in SHIPPED.values() else {"kind": growth.kind}
    return named | growth.key_settings()


def from_dict(values: Mapping[str, Any], model: ModelConfig) -> Growth:
    """Return the growth settings described in the spec of a grown stage.

    Raises:
        ValueError, TypeError: the operator is unknown, or a setting is missing, unknown or invalid.
    """
    settings = dict(values)
    growth = GROWTHS.get(settings.pop("kind", None) or SHIPPED[model.family])(**settings)
    check_fields(growth)
    return growth
