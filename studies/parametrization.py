"""Measurement of the size of updates at several numbers of parameter tokens, and of the first update after a growth.

    python -m studies.parametrization docs/measurements/parametrization

The first table is a coordinate check in the style of muP (arXiv 2203.03466): the RMS change of the outputs of the last
feed-forward layer over the first steps, for models with 16 to 960 parameter tokens. The second table compares the first
update after a growth from 16 to 60 tokens with the last update before it, by the RMS change of the logits. Takes about
two minutes on one core.
"""

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from studies.tables import mean_and_range, page, table, write_page
from tfscale.config.compose import compose
from tfscale.growth.tokenformer_recipe import GrowthRecipe
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.optimizers.adamw import AdamW
from tfscale.optimizers.base import Optimizer, Slot
from tfscale.optimizers.muon import Muon
from tfscale.training.optimizer import ModelOptimizer
from tfscale.training.rates import RowRates

WIDTH, CONTEXT, SEQUENCES = 32, 64, 8
TOKENS = (16, 60, 240, 960)
STEPS = 4
SEEDS = (0, 1, 2)
COMMON: dict[str, Any] = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}
ADAMW = AdamW(lr=5e-3, **COMMON)
MUON = Muon(lr=0.02, embedding_ratio=0.1, **COMMON)
WORDS = ("small", "models", "grow", "by", "adding", "tokens", "to", "their", "keys", "and", "values")


@dataclass(frozen=True)
class Arm:
    """An optimizer with a parametrization."""

    title: str
    optimizer: Optimizer
    base_fan_in: int | None


ARMS = (
    Arm("AdamW, standard", ADAMW, None),
    Arm("AdamW, fan_in", ADAMW, WIDTH),
    Arm("Muon, standard", MUON, None),
    Arm("Muon, fan_in", MUON, WIDTH),
)


def model_config(n: int, base_fan_in: int | None) -> TokenFormerConfig:
    """Return the config of a TokenFormer with `n` parameter tokens per attention projection and 4n in the feed-forward
    layers."""
    qkv, out, ffn = ((TokenGroup(tokens, default_tau("l2_norm_gelu", tokens)),) for tokens in (n, n, 4 * n))
    return TokenFormerConfig(2, WIDTH, 4, 257, CONTEXT, qkv, out, ffn, init="scaled", base_fan_in=base_fan_in)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets [sequences, context] of a batch of random words, one token per byte."""
    draw = random.Random(seed)  # noqa: S311
    lines = [" ".join(draw.choices(WORDS, k=CONTEXT)).encode()[: CONTEXT + 1] for _ in range(SEQUENCES)]
    tokens = torch.tensor([list(line) for line in lines])
    return tokens[:, :-1], tokens[:, 1:]


def train(model: LanguageModel, updates: ModelOptimizer, batches: range, rates: RowRates | None = None) -> None:
    """Train a model for one step per batch, with separate learning rates for old and new rows if `rates` is given."""
    for number in batches:
        updates.zero_grad()
        model.loss(*batch(number)).backward()
        with nullcontext() if rates is None else rates(model.parameters()):
            updates.step()


def change_of_outputs(arm: Arm, n: int, seed: int) -> float:
    """Return the RMS change of the last feed-forward layer's outputs on one batch over the first `STEPS` steps."""
    config = model_config(n, arm.base_fan_in)
    model = build_model(config, seed)
    outputs: list[Tensor] = []

    def look() -> Tensor:
        handle = (
            model.blocks[-1]
            .get_submodule("ffn")
            .register_forward_hook(lambda module, inputs, output: outputs.append(output))
        )
        with torch.no_grad():
            model(batch(seed)[0])
        handle.remove()
        return outputs.pop()

    before = look()
    train(model, ModelOptimizer(model, arm.optimizer, config), range(seed * 100, seed * 100 + STEPS))
    return _rms(look() - before)


@dataclass(frozen=True)
class FirstUpdate:
    """RMS change of the logits in the first update after a growth, relative to the last update before it."""

    all_rows: float
    old_rows: float
    """Change if only the old rows and the weights that do not grow are updated."""
    new_rows: float
    """Change if only the new rows are updated."""


def first_update(arm: Arm, growth: Sequence[str], seed: int, steps: int = 300) -> FirstUpdate:
    """Train a model with 16 parameter tokens at a constant learning rate, grow it to 60, and update it once.

    Args:
        growth: overrides that select the growth.
    """
    config = model_config(16, arm.base_fan_in)
    parent = build_model(config, seed)
    updates = ModelOptimizer(parent, arm.optimizer, config)
    probe = batch(10**6)[0]
    train(parent, updates, range(steps - 1))
    last = _change(parent, probe, lambda: train(parent, updates, range(steps - 1, steps)))
    recipe = compose(growth).growth
    assert isinstance(recipe, GrowthRecipe)
    child, updates = _grown(parent, updates, arm, recipe, seed, steps)
    rates = RowRates(child, recipe.rates_of(config, child.config, 0), arm.optimizer, updates)
    rates.begin(tokens=0, steps=1, updates=steps + 1)
    first = {name: weight.detach().clone() for name, weight in child.named_parameters()}
    train(child, updates, range(steps, steps + 1), rates)
    then = {name: weight.detach().clone() for name, weight in child.named_parameters()}
    old = {name: len(weight) for name, weight in parent.named_parameters()}

    def change(*, of_old: bool, of_new: bool) -> float:
        _set(child, first)
        moved = {
            name: torch.cat([(then if of_old else first)[name][:rows], (then if of_new else first)[name][rows:]])
            for name, rows in old.items()
        }
        return _change(child, probe, lambda: _set(child, moved)) / last

    return FirstUpdate(
        change(of_old=True, of_new=True), change(of_old=True, of_new=False), change(of_old=False, of_new=True)
    )


@torch.no_grad()
def _grown(
    parent: LanguageModel, updates: ModelOptimizer, arm: Arm, recipe: GrowthRecipe, seed: int, steps: int
) -> tuple[LanguageModel, ModelOptimizer]:
    config = parent.config
    target = recipe.grown_config(config, model_config(60, arm.base_fan_in))
    child = build_model(target)
    optimizer = ModelOptimizer(child, arm.optimizer, target)
    optimizer.reset(steps)
    old, new = _tensors(parent, updates), _tensors(child, optimizer)
    for name, weight in child.named_parameters():
        for slot in (Slot("model", 0), *arm.optimizer.slots(name, weight.dim())):
            path = f"{slot.name}/{name}"
            new[path].copy_(recipe.grow_tensor(name, slot.degree, old[path], config, target, seed))
    return child, optimizer


def _tensors(model: LanguageModel, optimizer: ModelOptimizer) -> dict[str, Tensor]:
    return {f"model/{name}": weight for name, weight in model.named_parameters()} | optimizer.state()


@torch.no_grad()
def _set(model: LanguageModel, weights: dict[str, Tensor]) -> None:
    for name, weight in model.named_parameters():
        weight.copy_(weights[name])


def _change(model: LanguageModel, tokens: Tensor, update: Callable[[], None]) -> float:
    with torch.no_grad():
        before = model(tokens)
    update()
    with torch.no_grad():
        return _rms(model(tokens) - before)


def _rms(tensor: Tensor) -> float:
    return tensor.square().mean().sqrt().item()


def output_rows(changes: dict[Arm, list[list[float]]]) -> Iterator[list[str]]:
    """Yield a row of the first table for each arm."""
    for arm, of_tokens in changes.items():
        spreads = [mean_and_range(each, ".2f") for each in of_tokens]
        yield [arm.title, *spreads, f"{mean(of_tokens[-1]) / mean(of_tokens[0]):.1f}"]


def growth_rows() -> Iterator[list[str]]:
    """Yield a row of the second table for each growth and arm."""
    for growth in ("grouped", "exact"):
        for arm in ARMS:
            updates = [first_update(arm, [f"growth={growth}"], seed) for seed in SEEDS]
            changes = zip(*((each.all_rows, each.old_rows, each.new_rows) for each in updates), strict=True)
            yield [arm.title, growth, *(mean_and_range(change, ".2f") for change in changes)]


def report(changes: dict[Arm, list[list[float]]]) -> str:
    """Return both tables as a page. Numbers are means over seeds, with the smallest and the largest value in
    brackets."""
    return page(
        "Parametrization",
        f"RMS change of the last feed-forward layer's outputs over {STEPS} steps, {len(SEEDS)} seeds",
        table("l", ["", *(f"n = {n}" for n in TOKENS), "last / first"], output_rows(changes)),
        f"First update after growing from 16 to 60 tokens, relative to the last one before, {len(SEEDS)} seeds",
        table("l", ["", "growth", "all rows", "old rows and other weights", "new rows"], growth_rows()),
    )


def draw(changes: dict[Arm, list[list[float]]], path: Path) -> None:
    """Draw the coordinate check."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for arm, of_tokens in changes.items():
        style = "-" if arm.base_fan_in else "--"
        axes.loglog(TOKENS, [mean(each) for each in of_tokens], style, marker="o", label=arm.title)
    axes.set_xlabel("parameter tokens per projection")
    axes.set_ylabel(f"RMS change of outputs over {STEPS} steps")
    axes.set_xticks(TOKENS, [str(n) for n in TOKENS])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, dpi=150)


def main(folder: Path) -> None:
    """Measure the changes, and write the tables and the figure to a folder."""
    torch.set_num_threads(1)
    changes = {arm: [[change_of_outputs(arm, n, seed) for seed in SEEDS] for n in TOKENS] for arm in ARMS}
    write_page(folder / "table.md", report(changes))
    draw(changes, folder / "coordinates.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
