"""Costs of all sizes together, with planted numbers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_analysis_branches import write_chain
from test_analysis_curves import FLOPS_A_TOKEN, write_arms, write_seeds, write_stage
from test_analysis_planted import loss

from tfscale.analysis.answer import answer_of
from tfscale.analysis.comparison import compare_arms
from tfscale.analysis.curves import NO_COST, ArmCurve, Cost, Evaluation, StageCurve, read_arms
from tfscale.analysis.family import EqualFamily, FamilyComparison, compare_families, family_cost
from tfscale.analysis.family_words import cell, family_clause, family_sentences
from tfscale.analysis.intervals import LEVEL
from tfscale.plan.arms import Arm

TOKENS = FLOPS_A_TOKEN


def scratch_arm(runs: Path, small: list[float], large: list[float]) -> Arm:
    """Runs of S (800 tokens) and L (1200 tokens) from scratch."""
    stages = (write_stage(runs, "u1", "S", small, 800), write_stage(runs, "u2", "L", large, 1200))
    return Arm("scratch", "from scratch", "scratch", stages)


def compared(*arms: Arm, noise: float | None = None) -> FamilyComparison:
    chain, arm = read_arms(arms)
    found = compare_families(chain, arm, "flops", noise)
    assert found is not None
    return found


def test_a_chain_pays_for_each_stage_once(tmp_path: Path) -> None:
    [chain] = read_arms(write_arms(tmp_path)[:1])
    for sizes, tokens in ((["S"], 800), (["S", "L"], 1200)):
        found = family_cost(chain, chain, sizes, "flops")
        assert found is not None
        assert (found.bound, found.shown) == ("exact", pytest.approx(tokens * TOKENS))


def test_the_family_of_a_trunk_pays_for_it_once_and_for_every_branch(tmp_path: Path) -> None:
    [chain] = read_arms([write_chain(tmp_path)])
    for sizes, tokens in ((["S"], 800 + 160), (["L"], 800 + 400 + 80), (["S", "L"], 800 + 160 + 400 + 80)):
        found = family_cost(chain, chain, sizes, "flops")
        assert found is not None
        assert found.shown == pytest.approx(tokens * TOKENS)


def test_runs_from_scratch_pay_for_each_size_until_it_has_the_chains_perplexity(tmp_path: Path) -> None:
    found = compared(write_arms(tmp_path)[0], scratch_arm(tmp_path, [16, 8, 7], [16, 9, 5, 4])).at_chain
    assert [(each.size, each.bound) for each in found.arm.readings] == [("S", "at most"), ("L", "at most")]
    assert [each.cumulative for each in found.arm.readings] == pytest.approx([400 * TOKENS, 800 * TOKENS])
    assert (found.arm.low, found.arm.high) == (0, pytest.approx(1200 * TOKENS))
    assert (found.chain.bound, found.chain.shown) == ("exact", pytest.approx(1200 * TOKENS))


def test_sizes_that_were_not_reached_give_a_lower_bound_in_which_early_ones_count_as_nothing(tmp_path: Path) -> None:
    found = compared(write_arms(tmp_path)[0], scratch_arm(tmp_path, [16, 8, 7], [16, 9, 7, 6])).at_chain
    assert (found.arm.sizes("at most"), found.arm.sizes("at least")) == (("S",), ("L",))
    assert (found.arm.bound, found.arm.shown) == ("at least", pytest.approx(1200 * TOKENS))
    assert (found.excess.low, found.excess.high) == (-1, pytest.approx(0))


def test_a_model_from_which_several_sizes_start_counts_once(tmp_path: Path) -> None:
    base = write_stage(tmp_path, "b", "S", [16, 8], 800)
    stages = [
        write_stage(tmp_path, key, size, [8, last], tokens, parent=base, before=800)
        for key, size, last, tokens in (("m", "M", 7, 80), ("l", "L", 6, 160))
    ]
    [arm] = read_arms([Arm("jump", "grown in one jump", "one_jump", tuple(stages))])
    found = family_cost(arm, arm, ["M", "L"], "flops")
    assert found is not None
    assert found.shown == pytest.approx((800 + 80 + 160) * TOKENS)


def test_at_the_other_arms_perplexities_a_chain_stops_early_only_where_no_size_needs_more(tmp_path: Path) -> None:
    chain = write_arms(tmp_path)[0]  # L is at 6 after two thirds of its 400 tokens
    found = compared(chain, scratch_arm(tmp_path, [16, 12, 10], [16, 9, 7, 6])).at_arm
    assert found.chain.sizes("at most") == ("S", "L")
    large = chain.stages[1].spec.tokens * 2 // 3 // 8 * 8
    assert found.chain.high == pytest.approx((800 + large) * TOKENS, rel=0.01)
    assert found.arm.shown == pytest.approx(2000 * TOKENS)


def test_a_branch_is_paid_until_the_perplexity_is_reached(tmp_path: Path) -> None:
    # S gets to 9 half way from 10 to 8 in its branch of 160 tokens; L gets to 9 in its trunk, and needs no branch.
    found = compared(write_chain(tmp_path), scratch_arm(tmp_path, [16, 10, 9], [16, 10, 9])).at_arm
    small = 800 * (960 / 800) ** (np.log(10 / 9) / np.log(10 / 8)) - 800
    assert found.chain.high == pytest.approx((800 + small + 200) * TOKENS)


def test_shared_runs_cost_the_same_on_both_sides(tmp_path: Path) -> None:
    chain = write_arms(tmp_path)[0]
    large = write_stage(tmp_path, "x", "L", [16, 9, 7, 6], 1200)
    found = compared(chain, Arm("x", "x", "scratch", (chain.stages[0], large)))
    for equal in (found.at_chain, found.at_arm):
        first = [side.readings[0] for side in (equal.chain, equal.arm)]
        assert [(each.bound, each.cumulative) for each in first] == [("exact", pytest.approx(800 * TOKENS))] * 2


def test_arms_without_all_sizes_have_no_family(tmp_path: Path) -> None:
    chain, scratch, on = read_arms(write_arms(tmp_path))
    assert compare_families(chain, on, "flops", None) is None
    running = replace(scratch, stages=(scratch.stages[0], replace(scratch.stages[1], finished=False)))
    assert compare_families(chain, running, "flops", None) is None


def test_bounds_and_noise_decide_the_verdict(tmp_path: Path) -> None:
    chain = write_arms(tmp_path)[0]
    weak = scratch_arm(tmp_path / "weak", [16, 12, 10], [16, 9, 8, 7])
    saves = compared(chain, weak).at_chain
    assert (saves.verdict, family_clause(saves)) == ("saves", "it saves at least 40.0%")
    assert cell(saves) == "better, saves >= 40.0%"
    assert compared(chain, weak, noise=1.0).at_chain.verdict == "open"
    undecided = compared(chain, scratch_arm(tmp_path / "undecided", [16, 8, 7], [16, 9, 6, 4.9])).at_chain
    assert undecided.verdict == "open"
    assert cell(undecided) == f"open (<= {-undecided.excess.low:.1%} less)"
    assert -0.3 < undecided.excess.low < -0.2


def test_a_chain_costs_more_than_an_arm_that_was_there_at_its_first_evaluations(tmp_path: Path) -> None:
    found = compared(write_arms(tmp_path)[0], scratch_arm(tmp_path, [16, 4, 4], [16, 4, 4, 4])).at_chain
    assert found.verdict == "costs more"
    assert family_clause(found).startswith("it costs at least ")
    assert found.excess.high == np.inf


def family(kind: str, shifts: Sequence[float], budgets: Sequence[float], head_start: float = 1.0) -> ArmCurve:
    """Runs of two sizes from scratch on one power law. The second has half the first's loss in addition. Both have
    decayed ends at their budget, and the arm kinds other than the chain at three more budgets."""
    stages = []
    for size, own, more in (("S", budgets[0], 0.0), ("L", budgets[1], 0.3)):
        for seed, shift in enumerate(shifts):
            ends = [own] if kind == "chain" else [own / 4, own / 2, own, own * 2]
            runs = [_run(f"{kind}{size}{seed}", size, seed, each, head_start, shift + more) for each in ends]
            mine = next(run for run, each in zip(runs, ends, strict=True) if each == own)
            stages.append(replace(mine, readings=tuple(runs) if len(runs) > 1 else ()))
    return ArmCurve(kind, kind, kind, tuple(stages))


def _run(key: str, size: str, seed: int, budget: float, head_start: float, shift: float) -> StageCurve:
    """A run whose evaluations before the decayed end are 0.5 above it."""
    points = [(budget * part, 0.5) for part in (0.1, 0.5)] + [(budget, 0.0)]
    evaluations = [
        Evaluation(step, cost, Cost(*[cost] * 5), value, float(np.exp(value)), 1.0)
        for step, (cost, above) in enumerate(points, start=1)
        for value in [float(loss(cost, head_start)) + shift + above]
    ]
    return StageCurve(size, f"{key}-{budget:g}", None, False, 1, 64, NO_COST, tuple(evaluations), True, seed)


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfscale.analysis.bootstrap.DRAWS", 800)


def planted(draw: np.random.Generator, head_start: float) -> EqualFamily:
    chain = family("chain", draw.normal(0, 0.005, 3), [1e9, 2e9], head_start)
    arm = family("scratch", draw.normal(0, 0.005, 3), [1e9, 2e9])
    found = compare_families(chain, arm, "flops", None)
    assert found is not None
    return found.at_chain


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(("head_start", "verdict"), [(1.6, "saves"), (0.6, "costs more")])
def test_intervals_of_exact_readings_hold_the_planted_cost_at_the_stated_rate(head_start: float, verdict: str) -> None:
    results = [planted(np.random.default_rng(number), head_start) for number in range(100)]
    excess = 1 / head_start - 1
    hits = [each.interval is not None and excess in each.interval for each in results]
    assert all(each.exact for each in results)
    assert np.mean(hits) >= LEVEL - 3.3 * np.sqrt(LEVEL * (1 - LEVEL) / len(results))
    assert np.mean([each.verdict == verdict for each in results]) > 0.9


@pytest.mark.usefixtures("few_draws")
def test_equal_families_are_rarely_told_apart() -> None:
    verdicts = [planted(np.random.default_rng(number), 1.0).verdict for number in range(100)]
    assert verdicts.count("no difference") >= 100 * (LEVEL - 0.07)


def test_two_seeds_that_differ_in_speed_leave_the_costs_of_all_samples_defined() -> None:
    def at_two_speeds(arm: ArmCurve) -> ArmCurve:
        return replace(arm, stages=tuple(replace(run, evaluations=slowed(run), readings=()) for run in arm.stages))

    def slowed(run: StageCurve) -> tuple[Evaluation, ...]:
        slower = 2.0 ** (run.seed or 0)
        times = [e.totals.device_seconds * slower for e in run.evaluations]
        costs = [replace(e.totals, device_seconds=time) for e, time in zip(run.evaluations, times, strict=True)]
        return tuple(replace(e, totals=cost) for e, cost in zip(run.evaluations, costs, strict=True))

    chain, arm = (at_two_speeds(family(kind, [0.0, 0.01], [1e9, 2e9])) for kind in ("chain", "scratch"))
    with np.errstate(over="raise", invalid="raise"):
        found = compare_families(chain, arm, "device_seconds", None)
    assert found is not None
    for equal in (found.at_chain, found.at_arm):
        assert equal.interval is not None
        assert equal.interval.low <= equal.interval.high


def test_the_sentence_gives_both_ways_in_flops_seconds_and_money(tmp_path: Path) -> None:
    found = compare_arms(write_arms(tmp_path), "t")
    sentence, bounds = family_sentences(found.families, 3600.0)
    assert sentence.startswith(
        "All sizes together, compared with from scratch: at the chain's perplexities, it saves at least 40.0% in FLOPs "
        "(1.20e6 against at least 2.00e6) and it saves at least 40.0% in device-seconds (24 against at least 40; "
        "$24.00 against at least $40.00); at the other arm's perplexities, it saves at least "
    )
    assert sentence.endswith("; with the optimizer's FLOPs included, the verdicts are the same.")
    assert bounds.startswith("At most: ")
    assert "$" not in family_sentences(found.families, None)[0]


def test_the_answer_has_a_sentence_and_a_cell_per_size_and_arm(tmp_path: Path) -> None:
    answer = answer_of(compare_arms(write_arms(tmp_path), "t"))
    assert answer.sentence == (
        "In one seed, at L and 1.20e6 cumulative FLOPs, the chain (5.00 perplexity) is better than from scratch (6.00) "
        "and small model trained on (7.00); for all sizes together, each at the chain's perplexity: compared with from "
        "scratch, it saves at least 40.0%."
    )
    assert answer.arms == ("from scratch", "small model trained on")
    assert answer.rows == (
        ("S", "better by 1.00", ""),
        ("L", "better by 1.00", "better by 2.00"),
        ("all sizes", "better, saves >= 40.0%", ""),
    )
    assert "Open:" not in answer.note


def test_the_answer_calls_level_what_the_noise_does_not_tell_apart(tmp_path: Path) -> None:
    (_, large, together) = answer_of(compare_arms(write_arms(tmp_path), "t", assumed_noise=0.2)).rows
    assert large == ("L", "level, -1.00", "better by 2.00")
    assert together[1] == "better, saves >= 40.0%", "also if it is that much worse"
    seeds = answer_of(compare_arms(write_seeds(tmp_path / "seeds"), "t"))
    assert seeds.sentence.startswith("Over 3 seeds, at L and 1.20e6 cumulative FLOPs, the chain (5.00 perplexity) is ")
    assert seeds.rows[1][1].startswith("better by 1.00 [")


def test_an_answer_waits_for_something_to_compare(tmp_path: Path) -> None:
    answer = answer_of(compare_arms(write_arms(tmp_path)[:1], "t"))
    assert (answer.sentence, answer.arms) == ("There is nothing to compare yet.", ())
