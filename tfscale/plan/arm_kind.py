"""Kinds of arms: ways of getting to the schedule's sizes beside the chain.

`tfscale.plan.arm_kinds` has the shipped ones. An extension adds one of its own:

    @ARM_KINDS.register("half_budget")
    class HalfBudget(ArmKind): ...
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from typing import ClassVar

from tfscale.config.schema import ArmPart, Experiment
from tfscale.faults import Fault, InvalidInput
from tfscale.plan.arms import Arm
from tfscale.plan.chain import Chain
from tfscale.registry import Registry
from tfscale.stage.folder import Stage

_COMMON = ("kind", "title", "lr")


class ArmKind(ABC):
    """A kind of arm. It defines the settings that apply to the arm and the stages that the arm consists of.

    Args:
        part: settings of the arm, under `baseline.arms.NAME`.
    """

    settings: ClassVar[Collection[str]] = ()
    """Fields of `ArmPart` that have a meaning beside `kind`, `title` and `lr`."""
    from_scratch: ClassVar[bool] = False
    """True if every stage is trained from scratch, so that a scaling law can be fitted to the stages."""
    one_model: ClassVar[bool] = False
    """True if all stages train the chain's first model, whatever size they are named after."""
    own_rate: ClassVar[bool] = False
    """True if `tfscale tune` searches for a separate learning rate for the arm."""

    def __init__(self, part: ArmPart) -> None:
        self.part = part

    def faults(self, key: str, experiment: Experiment) -> Iterator[Fault | str]:
        """Yield what is wrong with the arm, whose settings are those below `key`."""
        return iter(())

    @abstractmethod
    def stages(self, chain: Chain) -> Sequence[Stage]:
        """Return the stages of the arm, parents before children."""


ARM_KINDS: Registry[type[ArmKind]] = Registry(
    "kind",
    {
        "scratch": "tfscale.plan.arm_kinds:Scratch",
        "trained_on": "tfscale.plan.arm_kinds:TrainedOn",
        "one_jump": "tfscale.plan.arm_kinds:OneJump",
        "chain": "tfscale.plan.arm_kinds:OtherChain",
    },
)


def arm_kind(name: str) -> type[ArmKind]:
    """Return the kind of an arm that was recorded; of one whose extension is not loaded, what holds for most."""
    return ARM_KINDS.get(name) if name in ARM_KINDS.names else ArmKind


def plan_arm(name: str, part: ArmPart, chain: Chain) -> Arm:
    """Return the arm that a part of the configuration describes, in which `check_arms` has found nothing wrong."""
    return Arm(name, part.title, part.kind, tuple(ARM_KINDS.get(part.kind)(part).stages(chain)))


def check_arms(experiment: Experiment) -> Iterator[Fault | str]:
    """Yield what is wrong with `baseline.arms`."""
    for name, part in experiment.baseline.arms.items():
        key = f"baseline.arms.{name}"
        if name == "progressive":
            rule = "must have another name, for that is the chain's own"
            yield Fault(key, None, rule, "+baseline.arms.my_arm=...")
        try:
            kind = ARM_KINDS.get(part.kind)(part)
        except InvalidInput as error:
            yield from (fault.below(key) for fault in error.faults)
            continue
        yield from _meaningless(key, kind)
        yield from kind.faults(key, experiment)


def _meaningless(key: str, kind: ArmKind) -> Iterator[Fault]:
    part, defaults = kind.part, ArmPart(kind=kind.part.kind, title=kind.part.title)
    for name in (field.name for field in fields(ArmPart)):
        value = getattr(part, name)
        if name not in (*_COMMON, *kind.settings) and value != getattr(defaults, name):
            shown = value if isinstance(value, str | float) else None
            yield Fault(f"{key}.{name}", shown, f"must be left out with kind={part.kind}, where it means nothing")
