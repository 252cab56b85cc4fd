"""Tests of the files in a stage folder. Each has one reader and one writer, and files of older versions stay
readable."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tfscale.files import new_folder, read_object, sha256_of, sha256_of_all, write_atomically, write_json
from tfscale.stage.environment import Environment, read_environment, write_environment
from tfscale.stage.folder import lineage
from tfscale.stage.result import DONE_FILE, FinalEvaluation, Result, StageSpeed, read_result, write_result
from tfscale.totals import NO_COST, Totals

OLD: dict[str, Any] = {
    "key": "0123456789ab",
    "step": 4,
    "tokens": 1024,
    "before": {"tokens": 0, "flops": 0, "seconds": 0.0, "device_seconds": 0.0},
    "totals": {"tokens": 1024, "flops": 9000, "seconds": 2.5, "device_seconds": 5.0},
    "eval": {"loss": 2.0, "perplexity": 7.4, "bits_per_byte": 1.1},
    "checkpoint": "step-000000000004",
}
"""Content of a done.json of the first version, without energy, memory, speed and the size of the evaluation."""


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    evaluation = FinalEvaluation(math.inf, math.inf, math.inf, 512, 2048.0)
    totals = Totals(1024, 10**25, 2.5, 5.0, joules=70.0, optimizer_flops=10**24)
    written = Result("key", 4, 1024, NO_COST, totals, evaluation, "step-4", 1, 10, 20, StageSpeed(99, 1e12))
    write_result(tmp_path, written)
    assert read_result(tmp_path) == written
    assert [file.name for file in tmp_path.iterdir()] == [DONE_FILE]


def test_a_result_of_an_older_version_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / DONE_FILE, {**OLD, "of_a_newer_version": True})
    result = read_result(tmp_path)
    assert result.totals == Totals(1024, 9000, 2.5, 5.0, joules=None, optimizer_flops=None)
    assert (result.evaluation.loss, result.evaluation.heldout_tokens) == (2.0, None)
    assert (result.non_finite, result.peak_memory, result.speed) == (0, None, None)


def test_the_optimizers_flops_of_a_lineage_are_unknown_as_soon_as_one_part_is() -> None:
    known, unknown = Totals(tokens=2, optimizer_flops=6), Totals(tokens=1)
    assert (known + known).optimizer_flops == 12
    assert (NO_COST + known).optimizer_flops == (known - NO_COST).optimizer_flops == 6
    assert (known + unknown).optimizer_flops is None
    assert (known - unknown).optimizer_flops is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("step", "4"), ("totals", None), ("totals", {"flops": "many"}), ("checkpoint", "../else"), ("eval", [])],
)
def test_a_result_that_nothing_wrote_is_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    write_json(tmp_path / DONE_FILE, {**OLD, name: value})
    with pytest.raises(ValueError, match=r"done\.json: the file is not a valid result"):
        read_result(tmp_path)


def test_a_stage_without_a_result_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finished"):
        read_result(tmp_path)


def test_an_environment_is_read_as_it_was_written_and_may_be_partial(tmp_path: Path) -> None:
    written = Environment("node7", "NVIDIA H100 80GB HBM3", "bf16", packages={"torch": "2.13", "tfscale": None})
    write_environment(tmp_path, written)
    assert read_environment(tmp_path) == written
    (tmp_path / "environment.json").write_text(json.dumps({"device": "x86_64"}))
    assert read_environment(tmp_path).device == "x86_64"


def test_a_lineage_begins_with_the_oldest() -> None:
    parents = {"c": "b", "b": "a"}
    assert lineage("c", parents.get) == ["a", "b", "c"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "made" / "x.json"
    write_json(file, {"a": 1})
    assert read_object(file) == {"a": 1}
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "made"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, None])
def test_what_is_no_object_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.json: "):
        read_object(tmp_path / "x.json")


def test_a_folder_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "new") as aside:
        (aside / "no" / "file").touch()
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "new") as aside:
        (aside / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "file"]


def test_files_are_hashed_in_their_order(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(20)]
    for file in files:
        file.write_text(file.name)
    assert sha256_of_all(files) == [sha256_of(file) for file in files]
