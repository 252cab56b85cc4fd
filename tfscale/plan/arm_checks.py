"""Rules of the arms beside a chain, checked when an experiment is composed."""

from collections.abc import Iterator
from dataclasses import fields, replace

from tfscale.config.schema import ArmPart, Experiment
from tfscale.faults import Fault, InvalidInput
from tfscale.models.families import FAMILIES
from tfscale.plan.specs import shaped

_COMMON = {"kind", "title", "lr"}
_SETTINGS = {
    "scratch": {"family", "budget", "sizes", "shape"},
    "trained_on": {"sizes"},
    "one_jump": {"sizes", "growth"},
    "chain": {"family", "growth", "growth_tokens", "transformer_growth"},
}
"""What has a meaning for each kind of arm, beside what all have."""


def check_arms(experiment: Experiment) -> Iterator[Fault]:
    """Faults of `baseline.arms`, each with its mend."""
    for name, arm in experiment.baseline.arms.items():
        key = f"baseline.arms.{name}"
        if name == "progressive":
            rule = "must have another name, for that is the chain's own"
            yield Fault(key, None, rule, "+baseline.arms.my_arm=...")
        yield from _meaningless(key, arm)
        if arm.kind in ("trained_on", "one_jump") and len(experiment.schedule.stages) < 2:
            yield Fault(key, None, "must go with a chain of at least two stages, whose later ones give it its compute")
        if arm.family == "transformer":
            yield from _shapes(key, arm, experiment)
        elif arm.family != "tokenformer":
            yield from _extension_family(key, arm, experiment)
        if arm.kind == "chain" and arm.family in ("tokenformer", "transformer"):
            yield from _chain(key, arm)
        if arm.shape == "compute_optimal" and (arm.family, arm.budget) != ("transformer", "cumulative_compute"):
            rule = "must go with family=transformer and budget=cumulative_compute"
            yield Fault(f"{key}.shape", "compute_optimal", rule, "shape=schedule")


def _meaningless(key: str, arm: ArmPart) -> Iterator[Fault]:
    known = _COMMON | _SETTINGS[arm.kind]
    for field in fields(ArmPart):
        if field.name not in known and getattr(arm, field.name) != field.default:
            value = getattr(arm, field.name)
            shown = value if isinstance(value, str | float) else None
            yield Fault(f"{key}.{field.name}", shown, f"must be left out with kind={arm.kind}, where it means nothing")


def _chain(key: str, arm: ArmPart) -> Iterator[Fault]:
    if arm.family == "tokenformer":
        if arm.transformer_growth is not None:
            yield Fault(f"{key}.transformer_growth", None, "must be null with family=tokenformer", "growth")
        return
    if arm.transformer_growth is None:
        rule = "must be set: family=transformer needs it"
        yield Fault(f"{key}.transformer_growth", None, rule, "what conf/baseline/net2net.yaml has")
    if arm.growth is not None or arm.growth_tokens != 1:
        yield Fault(
            key, None, "must leave out growth and growth_tokens with family=transformer, where they mean nothing"
        )


def _extension_family(key: str, arm: ArmPart, experiment: Experiment) -> Iterator[Fault]:
    """Faults of an arm whose family an extension registers."""
    try:
        FAMILIES.get(arm.family)
    except InvalidInput as error:
        yield from (replace(fault, key=f"{key}.family") for fault in error.faults)
        return
    if arm.kind != "scratch":
        rule = f"must be tokenformer or transformer with kind={arm.kind}"
        yield Fault(f"{key}.family", arm.family, rule, "kind=scratch")
        return
    parts = list(experiment.schedule.stages.items())
    for stage, part in parts if arm.sizes == "all" else parts[-1:]:
        place = f"schedule.stages.{stage}.shapes.{arm.family}"
        if arm.family not in part.shapes:
            rule = f"must be set: {key} needs the fields of the family's config"
            yield Fault(place, None, rule, "{n_layer: 2}", reads=(key,))
            continue
        try:
            shaped(experiment, arm.family, part, vocab_size=1)
        except ValueError as error:
            yield Fault(place, None, str(error), reads=("model",))


def _shapes(key: str, arm: ArmPart, experiment: Experiment) -> Iterator[Fault]:
    """Transformers that the schedule has to have a shape for."""
    parts = list(experiment.schedule.stages.items())
    needed = parts[:1] if arm.kind == "chain" else parts if arm.sizes == "all" else parts[-1:]
    missing = [(stage, part.size) for stage, part in needed if part.transformer is None]
    if arm.shape == "compute_optimal":
        missing = missing[:1] if all(part.transformer is None for _, part in parts) else []
    for stage, size in missing:
        place = f"schedule.stages.{stage}.transformer"
        rule = f"must go with a Transformer at {size}, {place} (n_layer, d_model, n_head)"
        yield Fault(key, None, rule, "to set it, or baseline=tokenformer", reads=(place,))
