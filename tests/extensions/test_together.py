"""Tests of one chain with all toy extensions, which the package does not know and child processes find."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
SCHEDULE = """# @package _global_
defaults:
  - /model: tokenformer_tiny
  - /data: text
  - /optim: tiny
  - /growth: mean_keys

extensions: [extensions.toys]
data: {source: sentences, options: {count: 1000}, vocab_size: 257, validation_tokens: 1024}
model: {n_layer: 1, d_model: 16, n_head: 2, context: 32}
optim: {name: mixed, options: {momentum: 0.8}, batch_tokens: 128, lr: 1e-2}
launcher: {threads: 1}
schedule:
  name: together
  growth_tokens: 512
  stages:
    small: {size: S, qkv: 4, tokens: 1024}
    large: {size: L, qkv: 12, shapes: {gated: {n_layer: 1, d_model: 16, n_head: 2, d_ff: 24}}}
"""
GROWTH = "{kind: mean_keys, name: mean_keys, scale: 0.9}"
BASELINE = """arms:
  half: {kind: share, title: half of it, options: {share: 0.5}}
  gated: {kind: scratch, title: gated, family: gated, sizes: last}
"""
WORDS = ("schedule=together", "tracking.kind=jsonl")


def tfscale(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with the toy extensions on PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-P", "-m", "tfscale.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a user's configuration, in which the chain and its arms were trained."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in (("schedule/together", SCHEDULE), ("growth/mean_keys", GROWTH), ("baseline/toys", BASELINE)):
        path = folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    done = tfscale(folder, "run", *WORDS, "baseline=toys")
    assert done.returncode == 0, done.stderr
    return folder


def specs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("runs/stages/*/stage.yaml")]


def test_a_chain_with_every_toy_is_trained_grown_verified_and_compared(folder: Path) -> None:
    trained = specs(folder)
    assert {spec["model"]["family"] for spec in trained} == {"tokenformer", "gated"}
    assert {spec["optimizer"]["name"] for spec in trained} == {"mixed"}
    assert [spec["growth"]["kind"] for spec in trained if spec["growth"]] == ["mean_keys"]
    [growth] = folder.glob("runs/stages/*/growth.json")
    facts = json.loads(growth.read_text(encoding="utf-8"))
    assert facts["preserving"]
    assert facts["comparison"]["max_logit_difference"] < 1e-9
    names = [json.loads(path.read_text())["name"] for path in folder.glob("runs/jsonl/*/*/run.json")]
    assert {"half of it", "gated"} < set(names)
    for command in (("status", "--verify", "baseline=toys"), ("compare", "--baseline", "toys")):
        done = tfscale(folder, *command, *WORDS)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_extension_and_its_version_are_part_of_each_stage(folder: Path) -> None:
    assert {tuple(spec["extensions"]) for spec in specs(folder)} == {("extensions.toys==1.0",)}


def test_a_stage_without_its_extension_says_which_one_it_needs(folder: Path) -> None:
    stage = next(folder.glob("runs/stages/*/growth.json")).parent
    done = subprocess.run(
        [sys.executable, "-m", "tfscale.training", str(stage)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "needs the extension extensions.toys==1.0; install it and try extensions=[extensions.toys]" in done.stderr
