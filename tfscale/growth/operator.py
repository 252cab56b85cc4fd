"""Growth operators: how a trained model becomes a larger one.

`tfscale.growth.tokenformer_recipe` adds parameter tokens to a TokenFormer, `tfscale.growth.transformer_recipe` makes a
Transformer wider or deeper, and `tfscale.growth.grow_checkpoint` applies an operator, tensor by tensor. An extension
adds one of its own:

    @GROWTHS.register("interleave")
    @dataclass(frozen=True)
    class Interleave(Growth): ...

Planning reads these classes too, so torch is imported only where it is used.
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
    """Settings of a growth operator. Subclasses are frozen dataclasses that add settings of their own.

    `conf/growth/NAME.yaml` holds the settings; `kind` in it is the name in `GROWTHS`.
    """

    kind: ClassVar[str]
    """Name in `GROWTHS`."""
    name: str
    """Name of these settings, for people; not part of a stage's key."""
    _: KW_ONLY
    lr: Literal["rewarm", "continue"] = "rewarm"
    """Learning rate at which the child's warm-up starts. `rewarm`: zero (official code). `continue`: the parent's last
    one."""
    data: Literal["continue", "restart"] = "continue"
    """Position in the data at which the child starts. `continue`: where its parent stopped. `restart`: the first batch
    (official code)."""
    peak: float = 1.0
    """Factor of the peak learning rate that the schedule gives grown stages."""

    def __post_init__(self) -> None:
        if faults := list(self.faults()):
            raise InvalidInput(*faults)

    def faults(self) -> Iterator[Fault | str]:
        """Yield what is wrong with the settings, with keys such as `growth.noise`."""
        if not 0 < self.peak <= 100:
            yield Fault("growth.peak", self.peak, "must be a factor, above 0 and at most 100", "1")

    @property
    def rounds(self) -> bool:
        """True if weights of the child are fractions of its parent's, which float32 has to round."""
        return False

    @property
    def carries(self) -> bool:
        """True if the child begins with its parent's optimizer state and step count, False if it begins without."""
        return True

    @property
    def splits_rates(self) -> bool:
        """True if old and new rows have separate learning rates, which `rates_of` returns."""
        return False

    @abstractmethod
    def grown_config(self, parent: ModelConfig, target: ModelConfig) -> ModelConfig:
        """Return the config that the parent grows to, of the size of `target`. A config that the growth can make is
        returned unchanged.

        Raises:
            ValueError: the parent cannot grow there.
        """

    @abstractmethod
    def preserves(self, parent: ModelConfig, child: ModelConfig) -> bool:
        """Return whether this growth leaves every logit as it was, up to rounding. Every growth is checked for it."""

    def source_of(self, name: str, parent: ModelConfig) -> str:
        """Return the name of the parent's weight that the child's weight `name` is made from."""
        return name

    @abstractmethod
    def grow_tensor(
        self, name: str, degree: int, old: "Tensor", parent: ModelConfig, child: ModelConfig, seed: int
    ) -> "Tensor":
        """Return the child's tensor. It must be a pure function of the arguments.

        Args:
            name: name of the child's weight.
            degree: 0 for the weight itself; for a slot of the optimizer the power of the gradient that it averages.
            old: the parent's tensor.
            seed: seed of the stage; `tfscale.models.init.stream(seed, name)` draws from it.
        """

    def rates_of(self, parent: ModelConfig, child: ModelConfig, tokens: int) -> RateSpec | None:
        """Return the learning rates of old and new rows over a stage of `tokens` tokens; None: all have the same."""
        return None

    def key_settings(self) -> dict[str, Any]:
        """Return the settings that the growth itself needs, which are part of the stage's key: all but `peak`, which
        the stage's learning rate holds."""
        return {name: value for name, value in vars(self).items() if name != "peak"}

    def changes(self, parent: ModelConfig, child: ModelConfig) -> dict[str, Any]:
        """Return the fields of the config that differ, for growth.json."""
        before, after = asdict(parent), asdict(child)
        differ = [name for name in before if before[name] != after[name]]
        return {"shape": {name: {"before": before[name], "after": after[name]} for name in differ}}

    def facts(self, parent: ModelConfig, child: ModelConfig) -> dict[str, Any]:
        """Return what growth.json says of a growth beside what was measured, as JSON reads it back."""
        facts = {
            **self.changes(parent, child),
            "parameters": {"before": parameters(parent), "after": parameters(child)},
            "preserving": self.preserves(parent, child),
        }
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain


GROWTHS: Registry[type[Growth]] = Registry(
    "growth.kind",
    {
        "tokens": "tfscale.growth.tokenformer_recipe:GrowthRecipe",
        "transformer": "tfscale.growth.transformer_recipe:TransformerGrowth",
    },
)
SHIPPED = {"tokenformer": "tokens", "transformer": "transformer"}
"""Kinds of the shipped operators by the family that they grow. Files and keys do not name these."""


def to_dict(growth: Growth) -> dict[str, Any]:
    """Return what a stage's spec says of its growth, which `from_dict` reads."""
    named = {} if growth.kind in SHIPPED.values() else {"kind": growth.kind}
    return named | growth.key_settings()


def from_dict(values: Mapping[str, Any], model: ModelConfig) -> Growth:
    """Return the growth in the spec of a stage whose model has grown.

    Raises:
        ValueError, TypeError: it is none for such a model.
    """
    settings = dict(values)
    growth = GROWTHS.get(settings.pop("kind", None) or SHIPPED[model.family])(**settings)
    check_fields(growth)
    return growth
