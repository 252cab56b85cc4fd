"""Reading stages' folders. `write_stage` and `write_arms` make them as training does, for all tests of this room."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tfscale.analysis.curves import Cost, curve, read_arms, read_stage
from tfscale.checkpoint import folder_name
from tfscale.models.counts import parameters
from tfscale.models.transformer import TransformerConfig
from tfscale.optimizers.adamw import AdamW
from tfscale.plan.arms import Arm
from tfscale.stage.events import EventLog
from tfscale.stage.folder import Stage
from tfscale.stage.result import DONE_FILE, FinalEvaluation, Result, write_result
from tfscale.stage.spec import DataSpec, LearningRateSchedule, RunSpec, StageSpec
from tfscale.totals import NO_COST, Totals
from tfscale.untrusted import from_known

MODEL = TransformerConfig(n_layer=1, d_model=8, n_head=2, vocab_size=16, context=8, d_ff=32)
BATCH = 8
FLOPS_A_TOKEN = 1000
OPTIMIZER_FLOPS_A_TOKEN = 20
TOKENS_A_SECOND = 100.0


def spec(
    tokens: int, parent: Stage | None = None, grown: bool = False, heldout_tokens: int = 64, seed: int = 0
) -> StageSpec:
    return StageSpec(
        label="any",
        model=MODEL,
        data=DataSpec(fingerprint="corpus", order_seed=0, start=0, heldout_tokens=heldout_tokens),
        tokens=tokens,
        batch_tokens=BATCH,
        optimizer=AdamW(lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0),
        lr_schedule=LearningRateSchedule(kind="cosine", warmup_tokens=0, warmup_from=0.0, floor=0.0, decay=0.0),
        seed=seed,
        run=RunSpec(data_dir="."),
        parent=parent.key if parent else None,
        parent_dir=f"../{parent.path.name}" if parent else None,
        growth={"name": "exact"} if grown else None,
    )


def write_stage(
    runs: Path,
    key: str,
    size: str,
    perplexities: list[float],
    tokens: int,
    parent: Stage | None = None,
    before: int = 0,
    grown: bool = False,
    finished: bool = True,
    seed: int = 0,
) -> Stage:
    """A stage of `tokens` tokens whose evenly spaced evaluations, one at step 0 first, read `perplexities`. `before`:
    tokens of its lineage. Without perplexities nothing is written."""
    stage = Stage(size, key, runs / f"{size}-{key}", spec(tokens, parent, grown, seed=seed))
    if not perplexities:
        return stage
    stage.path.mkdir(parents=True)
    log = EventLog(stage.path)
    log.write("start", step=0)
    steps = tokens // BATCH
    total = NO_COST
    for index, perplexity in enumerate(perplexities):
        step = round(steps * index / (len(perplexities) - 1))
        total = totals_after(before + step * BATCH)
        totals = {f"total_{name}": value for name, value in vars(total).items()}
        log.write("eval", step=step, tokens=step * BATCH, **reading(perplexity), **totals)
    log.close()
    if finished:
        write_result(stage.path, result(key, steps, tokens, total, perplexities[-1]))
    return stage


def totals_after(tokens: int) -> Totals:
    seconds = tokens / TOKENS_A_SECOND
    return Totals(tokens, FLOPS_A_TOKEN * tokens, seconds, 2 * seconds, None, OPTIMIZER_FLOPS_A_TOKEN * tokens)


def spent(tokens: int) -> Cost:
    return Cost.of_totals(totals_after(tokens))


def result(key: str, steps: int, tokens: int, total: Totals, perplexity: float) -> Result:
    evaluation = from_known(FinalEvaluation, reading(perplexity))
    return Result(key, steps, tokens, NO_COST, total, evaluation, folder_name(steps))


def reading(perplexity: float) -> dict[str, float]:
    loss = math.log(perplexity)
    return {"loss": loss, "perplexity": perplexity, "bits_per_byte": loss / math.log(2) / 4, "heldout_tokens": 64}


def write_arms(runs: Path) -> list[Arm]:
    """A chain of S (800 tokens) and L (400 more), a scratch arm of equal cumulative cost, and S trained on."""
    small = write_stage(runs, "c1", "S", [16, 10, 8], 800)
    large = write_stage(runs, "c2", "L", [12, 7, 6, 5], 400, parent=small, before=800, grown=True)
    scratch = [write_stage(runs, "t1", "S", [16, 11, 9], 800), write_stage(runs, "t2", "L", [16, 9, 7.5, 6], 1200)]
    on = write_stage(runs, "o2", "L", [8, 7.5, 7], 400, parent=small, before=800)
    return [
        Arm("progressive", "progressive", "chain", (small, large)),
        Arm("scratch", "from scratch", "scratch", tuple(scratch)),
        Arm("on", "small model trained on", "trained_on", (on,)),
    ]


def write_seeds(runs: Path, seeds: int = 3) -> list[Arm]:
    """The chain and the scratch arm of `write_arms` with several seeds, whose curves differ by 2%."""
    chain, scratch = [], []
    for seed in range(seeds):
        off = 1 + 0.02 * (seed - (seeds - 1) / 2)
        small = write_stage(runs, f"c1{seed}", "S", [16, 10 * off, 8 * off], 800, seed=seed)
        large = [12 * off, 7 * off, 6 * off, 5 * off]
        chain += [small, write_stage(runs, f"c2{seed}", "L", large, 400, small, 800, grown=True, seed=seed)]
        scratch += [
            write_stage(runs, f"t1{seed}", "S", [16, 11 * off, 9 * off], 800, seed=seed),
            write_stage(runs, f"t2{seed}", "L", [16, 9 * off, 7.5 * off, 6 * off], 1200, seed=seed),
        ]
    return [
        Arm("progressive", "progressive", "chain", tuple(chain)),
        Arm("scratch", "from scratch", "scratch", tuple(scratch)),
    ]


def one_arm(*stages: Stage, kind: str = "chain") -> Arm:
    return Arm(kind, kind, kind, stages)


def test_a_stage_gives_its_evaluations_its_start_and_its_end(tmp_path: Path) -> None:
    small = write_stage(tmp_path, "c1", "S", [16, 10, 8], 800)
    large = read_stage(write_stage(tmp_path, "c2", "L", [12, 6, 5], 400, parent=small, before=800, grown=True))
    assert [(e.step, e.tokens, e.perplexity) for e in large.evaluations] == [(0, 0, 12), (25, 200, 6), (50, 400, 5)]
    assert large.start == spent(800)
    assert large.end is not None
    assert large.end.totals == spent(1200)
    assert large.grown
    assert large.parameters == parameters(MODEL)
    assert large.heldout_tokens == 64


def test_the_jump_at_growth_is_on_the_chains_curve(tmp_path: Path) -> None:
    (chain, *_) = read_arms(write_arms(tmp_path))
    points = curve(chain.stages, "tokens")
    assert points[1:4] == [(800, 8), (800, 12), (pytest.approx(936), 7)]


def test_a_curve_leaves_out_the_evaluation_before_any_training(tmp_path: Path) -> None:
    stage = read_stage(write_stage(tmp_path, "c1", "S", [16, 10, 8], 800))
    assert curve([stage], "flops") == [(400_000, 10), (800_000, 8)]
    assert curve([stage], "device_seconds") == [(8, 10), (16, 8)]


def test_a_stage_under_way_has_evaluations_and_no_end(tmp_path: Path) -> None:
    stage = read_stage(write_stage(tmp_path, "c1", "S", [16, 10], 800, finished=False))
    assert len(stage.evaluations) == 2
    assert stage.end is None


def test_a_stage_that_has_not_begun_is_empty_even_if_its_parent_has_not_ended(tmp_path: Path) -> None:
    small = write_stage(tmp_path, "c1", "S", [], 800)
    stage = read_stage(write_stage(tmp_path, "c2", "L", [], 400, parent=small, before=800, grown=True))
    assert (stage.evaluations, stage.start, stage.end, stage.grown) == ((), None, None, False)


def test_an_evaluation_made_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    written = write_stage(tmp_path, "c1", "S", [16, 10, 8], 800)
    log = EventLog(written.path)
    log.write("start", step=50)
    totals = {f"total_{name}": value for name, value in vars(totals_after(400)).items()}
    log.write("eval", step=50, tokens=400, **reading(10.5), **totals)
    log.close()
    assert [(e.step, e.perplexity) for e in read_stage(written).evaluations] == [(0, 16), (50, 10.5), (100, 8)]


def test_a_parent_without_an_end_is_told(tmp_path: Path) -> None:
    small = write_stage(tmp_path, "c1", "S", [16, 10, 8], 800)
    large = write_stage(tmp_path, "c2", "L", [12, 6, 5], 400, parent=small, before=800)
    (small.path / DONE_FILE).unlink()
    with pytest.raises(ValueError, match=r"S-c1.*done\.json is missing.*tfscale run"):
        read_stage(large)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "c1"}'])
def test_a_broken_end_is_told(tmp_path: Path, content: str) -> None:
    stage = write_stage(tmp_path, "c1", "S", [16, 10, 8], 800)
    (stage.path / DONE_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"done\.json: the file is not a valid result"):
        read_stage(stage)


def test_arms_evaluated_on_different_text_are_refused(tmp_path: Path) -> None:
    chain = one_arm(Stage("S", "a", tmp_path / "a", spec(800)))
    other = one_arm(Stage("S", "b", tmp_path / "b", spec(800, heldout_tokens=128)), kind="scratch")
    with pytest.raises(ValueError, match=r"scratch S.*128.*chain S.*64.*are not comparable"):
        read_arms([chain, other])
    same_text = replace(other, stages=(replace(other.stages[0], spec=spec(1600)),))
    assert len(read_arms([chain, same_text])) == 2


def test_stages_of_one_size_are_replicates_told_apart_by_their_seed(tmp_path: Path) -> None:
    chain, _ = read_arms(write_seeds(tmp_path))
    assert chain.sizes == ("S", "L")
    assert [stage.key for stage in chain.replicates("L")] == ["c20", "c21", "c22"]
    assert chain.replicates("XL") == ()
