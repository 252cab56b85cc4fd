"""Finished first stages of a chain, for tests of finished stages."""

from pathlib import Path

from stages import planned, train

from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import Stage


def overrides_of(corpus: Path, runs: Path) -> list[str]:
    """Return the settings of a chain that trains in seconds, with shapes of Transformers for its baselines."""
    shape = "{n_layer: 2, d_model: 16, n_head: 2, d_ff: 32}"
    stages = [
        f"schedule.stages.stage{number}.{key}={value}"
        for number, qkv in enumerate((4, 8, 12, 16), start=1)
        for key, value in (("qkv", qkv), ("transformer", shape))
    ]
    return [
        f"runs={runs}", "data=text", f"data.path={corpus}", "data.vocab_size=300", "data.validation_tokens=1024",
        "model.n_layer=2", "model.d_model=16", "model.n_head=2", "model.context=32", "optim.batch_tokens=128",
        "optim.lr=1e-2", "launcher.threads=1", "tracking=none", "growth=exact",
        "schedule.stages.stage1.tokens=2048", "schedule.growth_tokens=512", *stages,
    ]  # fmt: skip


def first_stage(overrides: list[str]) -> Stage:
    """Train the first stage of the chain, and return it."""
    stage = planned(overrides)[0]
    assert train(stage)
    return stage


def finished(overrides: list[str]) -> Plan:
    """Train the first two stages of the chain and the first Transformer, and return the plan."""
    plan = make_plan(compose([*overrides, "baseline=transformer"]))
    prepare(plan.corpus.spec, plan.runs / "data")
    for stage in (*plan.chain.stages[:2], plan.baselines[0].stages[0]):
        assert train(stage)
    return plan
