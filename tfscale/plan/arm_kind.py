"""Base class and registry of the kinds of arms. Each kind of arm trains models of the sizes in a schedule in a
different way.

The built-in kinds are in `tfscale.plan.arm_kinds`. An extension can register another kind:

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
from tfscale.plan.branches import branched
from tfscale.plan.chain import Chain
from tfscale.registry import Registry
from tfscale.stage.folder import Stage

_COMMON = ("kind", "title", "lr")


class ArmKind(ABC):
    """Base class of the kinds of arms. An instance plans the stages of one arm. The settings of the arm, `part`, are
    those under `baseline.arms.NAME`."""

    settings: ClassVar[Collection[str]] = ()
    """Fields of `ArmPart` that apply to this kind, in addition to `kind`, `title` and `lr`."""
    from_scratch: ClassVar[bool] = False
    """True if every stage is trained from scratch, so that a scaling law can be fitted to the stages."""
    one_model: ClassVar[bool] = False
    """True if all stages train the chain's first model without growth. The size of a stage is then the size in the
    schedule that determines its budget, not the size of its model."""
    own_rate: ClassVar[bool] = False
    """True if `tfscale tune` searches for a separate learning rate for the arm even if the arm sets no `lr`."""

    def __init__(self, part: ArmPart) -> None:
        self.part = part

    def faults(self, key: str, experiment: Experiment) -> Iterator[Fault | str]:
        """Yield the faults in the settings of the arm. The keys of these settings begin with `key`, such as
        `baseline.arms.NAME`."""
        return iter(())

    @abstractmethod
    def stages(self, chain: Chain) -> Sequence[Stage]:
        """Return the stages of the arm, parents before children. With `schedule.branches`, these stages are the
        trunk."""

    def arm(self, name: str, chain: Chain) -> Arm:
        """Return the planned arm. With `schedule.branches`, the trunk of the arm consists of the stages that `stages`
        returns, and the models are branches of the trunk."""
        return branched(Arm(name, self.part.title, self.part.kind, tuple(self.stages(chain))), chain.specs)


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
    """Return the class that is registered for the kind `name`, or `ArmKind` if there is none. A recorded arm can have a
    kind from an extension that is not loaded."""
    return ARM_KINDS.get(name) if name in ARM_KINDS.names else ArmKind


def check_arms(experiment: Experiment) -> Iterator[Fault | str]:
    """Yield the faults in the settings of all arms under `baseline.arms`."""
    for name, part in experiment.baseline.arms.items():
        key = f"baseline.arms.{name}"
        if name == "progressive":
            rule = "must have another name, because progressive is the name of the chain"
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
            yield Fault(f"{key}.{name}", shown, f"must not be set with kind={part.kind}, which does not use it")
