"""The paper's published points through the same functions as our own runs."""

import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from points import perplexity_at

from tfscale.analysis.bootstrap import replicate_curves
from tfscale.analysis.curves import ArmCurve, StageCurve, curve
from tfscale.analysis.family import compare_families
from tfscale.analysis.reference import published_arms
from tfscale.analysis.table import Row, compare
from tfscale.config.compose import compose

PAPER = Path(__file__).parent.parent / "conf" / "reference" / "tokenformer_paper.yaml"
SIZES = ("124M", "354M", "757M", "1.4B")


def paper() -> dict[str, ArmCurve]:
    return {arm.name: arm for arm in published_arms(OmegaConf.to_container(OmegaConf.load(PAPER)))}  # type: ignore


def stage_of(arm: ArmCurve, size: str) -> StageCurve:
    (stage,) = arm.replicates(size)
    return stage


def row(chain: str, baseline: str, size: str) -> Row:
    arms = paper()
    table = compare([arms[chain], arms[baseline]], "device_seconds")
    return next(row for row in table.of_size(size) if row.arm == baseline)


@pytest.mark.parametrize(("budget", "ratio"), [("15b", 4.36), ("30b", 2.96), ("60b", 1.89)])
def test_the_papers_cost_ratios_at_1_4b(budget: str, ratio: float) -> None:
    assert row(f"progressive_{budget}", "transformer", "1.4B").cost_ratio == pytest.approx(ratio, abs=0.005)


def test_only_the_60b_chain_reaches_the_tables_transformer() -> None:
    states = [row(f"progressive_{budget}", "transformer", "1.4B").equal_perplexity for budget in ("15b", "30b", "60b")]
    assert [state and state.state for state in states] == ["not reached", "not reached", "at least"]
    gaps = [state.gap for state in states if state]
    assert gaps == pytest.approx([0.51, 0.14, 0.0])


OUTCOMES = {
    "15b": ["costs more", "costs more", "not reached"],
    "30b": ["costs more", "not reached", "not reached"],
    "60b": ["not reached", "not reached", "saves"],
}
"""Where the difference at equal cumulative cost is above 0, the Transformer had been where the chain ends for less."""


@pytest.mark.parametrize("budget", OUTCOMES)
def test_outcomes_on_the_papers_points(budget: str) -> None:
    rows = [row(f"progressive_{budget}", "transformer", size).equal_perplexity for size in SIZES[1:]]
    assert [each and each.outcome for each in rows] == OUTCOMES[budget]
    assert all(each and each.interval is None for each in rows)


def test_with_a_noise_floor_of_a_hundredth_the_60b_chain_is_level_at_1_4b() -> None:
    arms = paper()
    table = compare([arms["progressive_60b"], arms["transformer"]], "device_seconds", assumed_noise=0.01)
    (last,) = [row for row in table.of_size("1.4B") if row.arm == "transformer"]
    assert last.equal_perplexity is not None
    assert last.equal_perplexity.outcome == "no difference"
    assert last.equal_perplexity.saving == pytest.approx(1 - 6141 / 11629)


def test_flops_follow_from_tokens_where_the_models_stand_beside() -> None:
    def stage(size: str, flops: float) -> StageCurve:
        return StageCurve(size, size, None, False, 1, 1, None, (), False, flops_per_token=flops)

    ours = ArmCurve("progressive", "", "chain", (stage("124M", 1e9), stage("354M", 3e9)))
    arms = {arm.name: arm for arm in published_arms(OmegaConf.to_container(OmegaConf.load(PAPER)), [ours])}  # type: ignore
    small, large, unknown, _ = arms["progressive_30b"].stages
    assert small.end is not None
    assert large.end is not None
    assert unknown.end is not None
    assert small.end.totals.flops == pytest.approx(3e20)
    assert large.end.totals.flops == pytest.approx(3e20 + 9e19)
    assert math.isnan(unknown.end.totals.flops)
    assert math.isnan(arms["transformer"].stages[0].evaluations[0].totals.flops)


def test_every_published_point_carries_where_it_was_read() -> None:
    for arm in paper().values():
        for stage in arm.stages:
            for evaluation in stage.evaluations:
                assert evaluation.read_from is not None
                plotted = arm.name == "transformer_as_plotted"
                assert evaluation.read_from["perplexity"] == ("figure" if plotted else "table")


def test_the_threefold_saving_holds_for_the_transformer_as_plotted() -> None:
    result = row("progressive_30b", "transformer_as_plotted", "1.4B").equal_perplexity
    assert result is not None
    assert result.speed_up == pytest.approx(1.96, abs=0.005)
    assert result.saving == pytest.approx(1 - 1 / 2.96, abs=0.005)


EQUAL_CUMULATIVE_COST = [
    ("354M", [0.61, 0.20, -0.04]),
    ("757M", [0.23, -0.08, -0.14]),
    ("1.4B", [-0.56, -0.64, -0.48]),
]


@pytest.mark.parametrize(("size", "differences"), EQUAL_CUMULATIVE_COST)
def test_growth_loses_at_first_and_wins_at_last_at_equal_cumulative_cost(size: str, differences: list[float]) -> None:
    # Here in device time alone, of which 15 hours are the error of reading the short scratch runs off the figure.
    for budget, difference in zip(("15b", "30b", "60b"), differences, strict=True):
        result = row(f"progressive_{budget}", "transformer", size).equal_compute
        assert result is not None
        assert result.interpolated
        assert result.difference == pytest.approx(difference, abs=0.02)


@pytest.mark.parametrize(("size", "differences"), EQUAL_CUMULATIVE_COST)
def test_the_same_in_the_tokens_that_the_chains_device_time_buys_from_scratch(
    size: str, differences: list[float]
) -> None:
    arms = paper()
    scratch = stage_of(arms["transformer"], size)
    assert scratch.end is not None
    rate = scratch.end.totals.tokens / scratch.end.totals.device_seconds
    for budget, difference in zip(("15b", "30b", "60b"), differences, strict=True):
        stage = stage_of(arms[f"progressive_{budget}"], size)
        assert stage.end is not None
        perplexity = perplexity_at(curve([scratch], "tokens"), rate * stage.end.totals.device_seconds)
        assert perplexity is not None
        assert stage.end.perplexity - perplexity == pytest.approx(difference, abs=0.0101)


def test_the_stage_costs_and_the_cost_of_the_family() -> None:
    arms = paper()
    alone = stage_of(arms["progressive_30b"], "1.4B").marginal
    assert alone is not None
    assert alone.tokens == pytest.approx(30e9)
    assert alone.device_seconds / 3600 == pytest.approx(1124, abs=25)  # the paper's Figure 4
    found = compare_families(arms["progressive_30b"], arms["transformer"], "device_seconds", None)
    assert found is not None
    assert found.at_chain.chain.shown / 3600 == pytest.approx(3928)
    assert found.at_arm.arm.shown / 3600 == pytest.approx(24810)
    assert found.at_chain.arm.sizes("at least") == ("124M",), "its Transformer ended above the chain's base"
    assert {found.at_chain.verdict, found.at_arm.verdict} == {"open"}, "too few points were published"


def test_what_was_not_published_is_not_known() -> None:
    arms = paper()
    assert math.isnan(arms["transformer"].stages[0].marginal.flops)  # type: ignore[union-attr]
    assert replicate_curves(arms["progressive_30b"].replicates("1.4B"), "flops") is None


def test_every_point_says_where_each_of_its_numbers_was_read() -> None:
    values: Any = OmegaConf.to_container(OmegaConf.load(PAPER))
    points = [point for arm in values["arms"] for stage in arm["stages"] for point in stage["points"]]
    assert {kind for point in points for kind in point["read_from"].values()} == {"table", "text", "figure", "derived"}
    assert all(tuple(s["size"] for s in arm["stages"]) == SIZES for arm in values["arms"] if arm["kind"] == "chain")


POINT = {
    "tokens": 1e9,
    "perplexity": 9.0,
    "device_hours": 2.0,
    "read_from": {"tokens": "table", "perplexity": "table", "device_hours": "table"},
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "chains"}, "chains"),
        ({"sizes": []}, "sizes"),
        ({"stages": [{"size": "S"}]}, "points"),
        ({"stages": [{"size": "S", "points": [POINT | {"flops": 1}]}]}, "flops"),
        ({"stages": [{"size": "S", "points": [POINT | {"read_from": {"tokens": "table"}}]}]}, "read_from"),
    ],
)
def test_a_wrong_field_is_told_with_the_arms_name(change: dict[str, Any], told: str) -> None:
    good = {"name": "mine", "title": "Mine", "kind": "scratch", "stages": [{"size": "S", "points": [POINT]}]}
    assert published_arms({"arms": [good]})[0].stages[0].finished
    with pytest.raises(ValueError, match=f"reference arm mine: .*{told}"):
        published_arms({"arms": [good | change]})


def test_the_papers_schedule_brings_the_papers_points_and_others_bring_none() -> None:
    brought = compose(["schedule=progressive_1b4"]).reference
    assert [arm.name for arm in published_arms({"arms": brought.arms})] == list(paper())
    assert compose(["schedule=progressive_1b4", "reference=none"]).reference.arms == []
    assert compose([]).reference.arms == []
    assert compose(["reference=tokenformer_paper"]).reference == brought
