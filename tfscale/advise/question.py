"""Question that `tfscale advise` answers, which consists of a recipe, target sizes and a budget."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tfscale.config.schedule import StagePart
from tfscale.faults import Fault, UserFault
from tfscale.plan.chain import Chain
from tfscale.plan.plan import Plan
from tfscale.plan.specs import Specs, tokenformer, transformer
from tfscale.predict import Prediction
from tfscale.stage.spec import StageSpec

Family = Literal["tokenformer", "transformer"]
Unit = Literal["FLOPs", "device-hours", "dollars"]


@dataclass(frozen=True)
class Recipe:
    """Recipe of an experiment, which determines the stages that train a size from scratch or by growth."""

    chain: Chain

    @staticmethod
    def of_plan(plan: Plan) -> "Recipe":
        return Recipe(Chain(Specs(plan.experiment, plan.corpus)))

    @property
    def sizes(self) -> tuple[StagePart, ...]:
        """Sizes of the schedule, smallest first."""
        return tuple(part for part, _ in self.chain.sizes)

    def scratch(self, size: StagePart, family: Family = "tokenformer") -> StageSpec:
        """Return the spec of the stage that trains a size from scratch."""
        specs, tokens = self.chain.specs, self.chain.base.spec.tokens
        if family == "transformer":
            assert size.transformer is not None, "the size has no Transformer"
            shape = transformer(self.chain.experiment, size.transformer, specs.corpus)
            return specs.scratch(shape, tokens, size.transformer.lr)
        return specs.scratch(tokenformer(self.chain.experiment, size, specs.corpus), tokens, self.rate(size))

    def rate(self, size: StagePart) -> float | None:
        """Return the learning rate that the schedule sets for training a TokenFormer of a size from scratch, or None if
        the schedule does not set a learning rate."""
        return size.lr if size == self.sizes[0] else size.scratch_lr

    def grown(self, base: StagePart, target: StagePart) -> StageSpec:
        """Return the spec of the stage that grows a base to a target size."""
        specs, experiment = self.chain.specs, self.chain.experiment
        parent = specs.stage(base.size, self.scratch(base))
        model = tokenformer(experiment, target, specs.corpus)
        return specs.grown(parent, model, parent.spec.tokens, experiment.growth, self.chain.rate(target.lr))


@dataclass(frozen=True)
class Budget:
    """Budget for all target sizes together."""

    amount: float
    unit: Unit


@dataclass(frozen=True)
class Price:
    """Cost of training a model, per training token."""

    flops: float
    """Model FLOPs per training token."""
    amount: float
    """Cost per training token in the unit of the budget."""


@dataclass(frozen=True)
class Question:
    """Question whether, for a given budget, models of the target sizes should be grown or trained from scratch."""

    recipe: Recipe
    targets: tuple[StagePart, ...]
    """Sizes to reach, which share the budget equally."""
    bases: tuple[StagePart, ...]
    """Sizes of the schedule that are smaller than all targets, smallest first."""
    budget: Budget
    predict: Callable[[StageSpec], Prediction]
    """Function that predicts the cost of a stage."""

    def price(self, spec: StageSpec) -> Price:
        """Return the cost of a stage per training token.

        Raises:
            UserFault: the cost in the unit of the budget is unknown.
        """
        prediction = self.predict(spec)
        costs: dict[Unit, float | None] = {
            "FLOPs": prediction.flops,
            "device-hours": prediction.device_hours,
            "dollars": prediction.dollars,
        }
        amount = costs[self.budget.unit]
        if amount is None:
            dollars = self.budget.unit == "dollars"
            known = "device.price must be set" if dollars else "the speed of the device is unknown"
            hint = "try --flops, or device=h100_sxm launcher.processes=1"
            raise UserFault([Fault("--dollars" if dollars else "--hours", None, f"{known}; {hint}")])
        return Price(prediction.flops_per_token, amount / spec.tokens)


def ask(
    recipe: Recipe, sizes: Sequence[str], amounts: dict[str, float | None], predict: Callable[[StageSpec], Prediction]
) -> Question:
    """Return the question that a user asks on the command line.

    Args:
        sizes: names of target sizes, or an empty sequence for the last size of the schedule.
        amounts: values of the options `--flops`, `--hours` and `--dollars`, by the name of the option, or None for
            options that the user has not set. Exactly one option must be set.

    Raises:
        UserFault: the experiment imports weights, no smaller size of the schedule can grow to a target size, the number
            of budgets is not one, or the budget is not a finite positive number. The error lists all faults.
    """
    faults = [*_size_faults(recipe, sizes), *_budget_faults(amounts)]
    if faults:
        raise UserFault(faults)
    wanted = set(sizes) or {recipe.sizes[-1].size}
    targets = tuple(part for part in recipe.sizes if part.size in wanted)
    bases = recipe.sizes[: recipe.sizes.index(targets[0])]
    (budget,) = (Budget(amount, UNITS[name]) for name, amount in amounts.items() if amount is not None)
    return Question(recipe, targets, bases, budget, predict)


UNITS: dict[str, Unit] = {"--flops": "FLOPs", "--hours": "device-hours", "--dollars": "dollars"}


def _size_faults(recipe: Recipe, sizes: Sequence[str]) -> list[Fault]:
    names, imported = [part.size for part in recipe.sizes], recipe.chain.experiment.init_from
    if imported:
        return [Fault("init_from", imported, "must be null, because imported weights were trained with a fixed budget")]
    if len(names) < 2:
        return [Fault("schedule.stages", None, "must have at least two sizes, so that the smaller one can be grown")]
    allowed = f"must be one of {', '.join(names[1:])}, which a smaller size of the schedule can grow to"
    return [Fault("--size", size, allowed, f"--size {names[-1]}") for size in sizes if size not in names[1:]]


def _budget_faults(amounts: dict[str, float | None]) -> list[Fault]:
    given = {name: amount for name, amount in amounts.items() if amount is not None}
    if len(given) != 1:
        rule = f"must be given exactly once, as one of {', '.join(amounts)}"
        return [Fault("budget", " ".join(given) or None, rule, "--flops 1e13")]
    return [
        Fault(name, amount, "must be a finite number above 0", f"{name} 10")
        for name, amount in given.items()
        if not (amount > 0 and math.isfinite(amount))
    ]
