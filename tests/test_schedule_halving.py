"""Tests of tuning by successive halving with real training: its choice, its cost, and the reuse of stages."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from stages import StopAt, train
from sweeps import configured, finish, overrides_of, planned

from tfscale.cli.common import Common
from tfscale.cli.tune import Asked, tune
from tfscale.config.compose import compose
from tfscale.plan.plan import Plan, make_plan
from tfscale.tune.cost import flops_with_optimizer, grid_flops, grid_flops_of, planned_flops, spent
from tfscale.tune.halving import search
from tfscale.tune.record import write_record
from tfscale.tune.sweep import Sweep, candidates
from tfscale.tune.tunables import RATIO
from tfscale.tune.tuning import Tuning, chosen, stages_left

NINE = tuple(4.0**power for power in range(-4, 5))
"""Factors so far apart that the best rate is clear."""
OPTIMIZERS = {
    "adamw": [],
    "adamw by fan-in": ["optim.parametrization=fan_in"],
    "muon": ["optim.name=muon", "optim.parametrization=fan_in"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return configured(tmp_path_factory.mktemp("halving"))


@pytest.fixture(scope="module")
def overrides(folder: Path, corpus: Path) -> list[str]:
    return overrides_of(
        folder, corpus, "growth=tuned", "optim.lr=4e-3", "schedule.growth_tokens=4608",
        "schedule.stages.small.tokens=null", "schedule.stages.large.transformer.lr=null",
        "baseline.arms.transformer_scratch.sizes=last",
    )  # fmt: skip


@pytest.fixture(scope="module")
def plan(folder: Path, overrides: list[str]) -> Plan:
    return planned(folder, overrides)


@pytest.fixture(scope="module")
def halved(plan: Plan) -> Tuning:
    tuning = Tuning(plan, ("progressive",), Sweep(NINE, further=2, seeds=1, rungs=3))
    finish(tuning)
    return tuning


def test_a_rung_is_a_stage_of_its_own_with_its_whole_schedule(plan: Plan) -> None:
    """A plan with fewer tokens would train the same stage."""
    tuning = Tuning(plan, ("progressive",), Sweep((0.5, 1), further=0, seeds=1, rungs=3))
    stage = next(trial for trial in tuning.findings()[0].trials if trial.value == 4e-3).stages[0]
    experiment = tuning.experiment
    shorter = replace(experiment, schedule=replace(experiment.schedule, growth_tokens=4608 // 9))
    assert stage.key == make_plan(shorter).chain.stages[0].key
    assert stage.spec.steps == 4


def test_stages_that_grow_start_from_the_whole_parent_in_every_rung(halved: Tuning) -> None:
    base, grown = halved.findings()
    assert base.choice is not None
    (parent,) = [trial for trial in base.trials if trial.value == base.choice.value and trial.rung == 2]
    stages = [stage for trial in grown.trials for stage in trial.stages]
    assert {stage.spec.parent for stage in stages} == {parent.stages[0].key}
    assert {stage.spec.steps for stage in stages} == {4, 12, 36}
    assert {stage.spec.data.start for stage in stages} == {4608}
    for stage in stages:
        assert stage.spec.rates is not None


def of_base(plan: Plan, sweep: Sweep) -> Tuning:
    """Return a tuning of the first size alone."""
    tuning = Tuning(plan, ("progressive",), sweep)
    tuning.tunables = tuning.tunables[:1]
    return tuning


def test_halving_chooses_as_the_full_grid_at_a_third_of_its_cost(halved: Tuning, plan: Plan) -> None:
    halved = of_base(plan, halved.sweep)
    findings = halved.findings()
    assert [Counter(trial.rung for trial in finding.trials) for finding in findings] == [{0: 9, 1: 3, 2: 1}]
    assert planned_flops(halved) == pytest.approx(grid_flops(halved) / 3)
    cost = spent(findings)
    assert cost.flops == pytest.approx(planned_flops(halved))
    assert cost.optimizer_flops is not None
    assert cost.flops + cost.optimizer_flops == pytest.approx(planned_flops(halved, flops_with_optimizer))
    full = of_base(plan, Sweep(NINE, further=2, seeds=1))
    finish(full)
    assert chosen(full.findings()) == chosen(findings)
    assert spent(full.findings()).flops == grid_flops(full) == grid_flops_of(full, full.findings())
    _, record = write_record(halved, findings, [])
    assert record["cost"]["of_a_full_grid"] == pytest.approx(1 / 3)


def test_a_wider_range_uses_the_rungs_of_the_narrower_one(halved: Tuning, plan: Plan) -> None:
    wider = Tuning(plan, ("progressive",), Sweep((*NINE, 4.0**5), further=2, seeds=1, rungs=3))
    trained = finish(wider)
    assert chosen(wider.findings()) == chosen(halved.findings())
    assert [(stage.spec.steps, stage.spec.parent is None) for stage in trained] == [(4, True), (4, False)]


def test_refinement_adds_two_trainings_and_reuses_the_rest(halved: Tuning, plan: Plan) -> None:
    tuning = of_base(plan, Sweep(NINE, further=0, seeds=1, rungs=3, refine=True))
    trained = finish(tuning)
    coarse = chosen(halved.findings())[tuning.tunables[0].key]
    assert sorted(stage.spec.optimizer.lr / coarse for stage in trained) == pytest.approx([0.707, 1.414], rel=0.01)
    assert {stage.spec.steps for stage in trained} == {36}


@pytest.mark.parametrize("optimum", [0.02, 0.5, 0.7])
def test_refinement_finds_the_best_rate_although_short_rungs_prefer_lower_ones(optimum: float) -> None:
    sweep = Sweep((0.25, 0.5, 1, 2, 4), further=6, seeds=1, rungs=3, refine=True)

    def loss_of(rate: float, rung: int) -> float:
        return abs(math.log(rate / (optimum if rung == 2 else optimum / 16)))

    found = search(candidates(optimum / 8, sweep.factors), sweep, loss_of)
    assert found is not None
    assert found.place == "interior"
    assert optimum / 1.2 < found.value < optimum * 1.2


def test_a_stopped_halving_goes_on_and_trains_nothing_twice(plan: Plan) -> None:
    tuning = Tuning(plan, ("transformer_scratch",), Sweep(NINE, further=0, seeds=1, rungs=3))
    left = stages_left(tuning.findings())
    assert train(left[0])
    assert not train(left[1], StopAt(2))
    again = Tuning(plan, ("transformer_scratch",), Sweep(NINE, further=0, seeds=1, rungs=3))
    trained = finish(again)
    assert left[0].key not in {stage.key for stage in trained}
    assert len(trained) == len({stage.key for stage in trained}) == 9 + 3 + 1 - 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_ratio_is_swept_at_the_best_rates_and_these_again_at_another_ratio(
    folder: Path, overrides: list[str], name: str
) -> None:
    plan = planned(folder, [*overrides, *OPTIMIZERS[name], "optim.embedding_ratio=0.01", "schedule.growth_tokens=1536"])
    arms = ("progressive", "tokenformer_scratch", "transformer_scratch")
    tuning = Tuning(plan, arms, Sweep((0.25, 1), further=0, seeds=1, rungs=2, ratios=(0.01, 1)))
    finish(tuning)
    findings = tuning.findings()
    rates = [tunable.key for tunable in tuning.tunables]
    assert [finding.tunable.key for finding in findings] == [*rates, RATIO, *rates]
    assert chosen(findings)[RATIO] == 1
    first, ratio, again = findings[: len(rates)], findings[len(rates)], findings[len(rates) + 1 :]
    for finding in first:
        assert {s.spec.optimizer.embedding_ratio for trial in finding.trials for s in trial.stages} == {0.01}
    for trial in ratio.trials:
        for stage in trial.stages:
            assert stage.spec.optimizer.embedding_ratio == trial.value
        assert {stage.spec.optimizer.lr for stage in trial.stages} <= set(chosen(first).values())
        by_key = {stage.key for stage in trial.stages}
        assert all(stage.spec.parent in by_key for stage in trial.stages if stage.spec.parent)
    for finding in again:
        assert finding.again
        assert {s.spec.optimizer.embedding_ratio for trial in finding.trials for s in trial.stages} == {1}
    assert spent(findings).flops <= planned_flops(tuning)


def test_the_command_states_the_cost_before_and_after_and_writes_the_ratio(
    folder: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """All stages are finished, so nothing is trained."""
    own = [*overrides, "schedule.growth_tokens=1536"]
    sweep = Sweep((0.25, 1), further=0, seeds=1, rungs=2, reduction=2, ratios=(0.1, 1))
    finish(Tuning(planned(folder, own), ("progressive",), sweep))
    asked = Asked(("progressive",), "0.25,1", 0, 1, "pair_halved", rungs=2, reduction=2, ratios="0.1,1")
    assert tune(Common(own, folder / "conf"), asked) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for told in (
        "with 1/2 and all of the tokens",
        "with the optimizer, ",
        "% of a full grid (",
        "times the FLOPs of the plan",
        "optim.embedding_ratio=",
    ):
        assert told in shown
    written = compose(["schedule=pair_halved", *own[1:]], folder / "conf")
    assert f"optim.embedding_ratio={written.optim.embedding_ratio!r}" in shown
    assert written.analysis.tuning_flops
