"""Chain of two sizes, and training of all stages that a tuning of it needs."""

from pathlib import Path

from stages import train

from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import Stage
from tfscale.tune.tuning import Tuning, stages_left

SCHEDULE = """# @package _global_
defaults:
  - /model: tokenformer_tiny
  - /data: text
  - /optim: tiny_adamw
  - /growth: grouped

schedule:
  name: pair
  growth_tokens: 1024
  stages:
    small: {size: S, qkv: 4, tokens: 2048, transformer: {n_layer: 1, d_model: 16, n_head: 2, d_ff: 32}}
    large: {size: L, qkv: 8, transformer: {n_layer: 1, d_model: 16, n_head: 2, d_ff: 32, lr: 2e-6}}
"""


def configured(folder: Path) -> Path:
    """Write the configuration of the chain into the folder, and return the folder."""
    (folder / "conf" / "schedule").mkdir(parents=True)
    (folder / "conf" / "schedule" / "pair.yaml").write_text(SCHEDULE, encoding="utf-8")
    return folder


def overrides_of(folder: Path, corpus: Path, *more: str) -> list[str]:
    return [
        "schedule=pair", f"runs={folder / 'runs'}", f"data.path={corpus}", "data.vocab_size=257",
        "data.validation_tokens=512", "model.n_layer=1", "model.d_model=16", "model.n_head=2", "model.context=32",
        "optim.batch_tokens=128", "launcher.threads=1", "tracking=none",
        "baseline=[transformer,tokenformer,trained_on]", *more,
    ]  # fmt: skip


def planned(folder: Path, overrides: list[str]) -> Plan:
    plan = make_plan(compose(overrides, folder / "conf"))
    prepare(plan.corpus.spec, plan.runs / "data")
    return plan


def finish(tuning: Tuning) -> list[Stage]:
    """Train all stages that a tuning needs, and return them."""
    trained = []
    while left := stages_left(tuning.findings()):
        for stage in left:
            assert train(stage)
        trained += left
    return trained
