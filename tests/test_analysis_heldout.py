"""The final evaluation by blocks of the validation text."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_analysis_curves import write_arms

from tfscale.analysis.curves import read_arms, read_stage
from tfscale.analysis.figure import comparison_figure
from tfscale.analysis.table import compare
from tfscale.plan.arms import Arm
from tfscale.stage.folder import Stage
from tfscale.stage.heldout import HELDOUT_FILE, read_blocks
from tfscale.stage.heldout import write_blocks as write_heldout
from tfscale.stage.result import read_result

BLOCKS = 16


def write_blocks(stage: Stage, perplexity: float, scatter: float = 0.1) -> None:
    """Blocks of unequal length around the final loss."""
    draw = np.random.default_rng(7)
    tokens = draw.integers(3, 6, BLOCKS).astype(float)
    off = draw.normal(0, scatter, BLOCKS)
    off -= (off * tokens).sum() / tokens.sum()
    losses = tokens * (math.log(perplexity) + off)
    step = read_result(stage.path).step
    write_heldout(stage.path, step, tokens.tolist(), losses.tolist())


def with_blocks(runs: Path) -> list[Arm]:
    arms = write_arms(runs)
    for stage in {stage.key: stage for arm in arms for stage in arm.stages}.values():
        write_blocks(stage, read_result(stage.path).evaluation.perplexity)
    return arms


def test_blocks_give_intervals_over_documents_with_a_single_seed(tmp_path: Path) -> None:
    table = compare(read_arms(with_blocks(tmp_path)))
    (row,) = [row for row in table.of_size("L") if row.arm == "scratch"]
    assert row.perplexity_over == ("documents",)
    assert row.perplexity_interval is not None
    assert row.perplexity_interval.low < 6 < row.perplexity_interval.high
    assert math.log(row.perplexity_interval.high / 6) == pytest.approx(1.96 * 0.1 / math.sqrt(BLOCKS), rel=0.5)


def test_the_caption_of_a_figure_with_one_seed_says_that_bands_are_over_documents_only(tmp_path: Path) -> None:
    caption = comparison_figure(read_arms(with_blocks(tmp_path)), "title").get_supxlabel()
    assert "Bands: 95% intervals over validation documents only (one seed)." in " ".join(caption.split())


def test_documents_are_the_same_for_both_sides_of_a_comparison(tmp_path: Path) -> None:
    # Both models find the same blocks hard, so which blocks were held out does not matter to their difference.
    table = compare(read_arms(with_blocks(tmp_path)))
    (row,) = [row for row in table.of_size("L") if row.arm == "scratch"]
    assert row.equal_compute is not None
    assert row.equal_compute.interval is not None
    assert row.perplexity_interval is not None
    width = row.equal_compute.interval.high - row.equal_compute.interval.low
    assert width < 0.25 * (row.perplexity_interval.high - row.perplexity_interval.low)


def test_without_the_file_documents_are_left_out(tmp_path: Path) -> None:
    arms = with_blocks(tmp_path)
    (arms[1].stages[1].path / HELDOUT_FILE).unlink()
    (row,) = [row for row in compare(read_arms(arms)).of_size("L") if row.arm == "scratch"]
    assert row.equal_perplexity is not None
    assert (row.perplexity_interval, row.equal_perplexity.interval, row.equal_perplexity.over) == (None, None, ())
    assert read_blocks(tmp_path, 0, 1.0) is None


GOOD: dict[str, Any] = {"step": 5, "tokens": [2, 2], "losses": [3, 5]}


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / HELDOUT_FILE).write_text(json.dumps(GOOD))
    blocks = read_blocks(tmp_path, 5, 2.0)
    assert blocks is not None
    assert (blocks.tokens.tolist(), blocks.losses.tolist()) == ([2, 2], [3, 5])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "delimiter|property name|Expecting"),
        (json.dumps({"step": 5}), "tokens"),
        (json.dumps(GOOD | {"step": 4}), "from step 4, but the final evaluation is from step 5"),
        (json.dumps(GOOD | {"tokens": [2, 2, 2]}), "same length"),
        (json.dumps(GOOD | {"tokens": [4], "losses": [8]}), "at least 2"),
        (json.dumps(GOOD | {"tokens": [4, 0]}), "tokens and a finite loss"),
        (json.dumps(GOOD | {"losses": [3, math.inf]}), "finite"),
        (json.dumps(GOOD | {"losses": [3, 6]}), "mean loss is 2.25, but the final evaluation has 2.0"),
        (json.dumps(GOOD | {"losses": "many"}), "could not convert"),
    ],
)
def test_a_file_of_something_else_is_told(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / HELDOUT_FILE).write_text(content)
    with pytest.raises(ValueError, match=rf"heldout\.json: the file does not match .*({told})"):
        read_blocks(tmp_path, 5, 2.0)


def test_a_stage_reads_its_blocks(tmp_path: Path) -> None:
    stage = read_stage(with_blocks(tmp_path)[0].stages[1])
    assert stage.blocks is not None
    assert stage.end is not None
    assert stage.blocks.losses.sum() / stage.blocks.tokens.sum() == pytest.approx(stage.end.loss)
