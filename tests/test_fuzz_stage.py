"""Fuzz tests of a stage.yaml written by someone else: the stage runs, or the process exits with code 2 and a
message."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fuzzing import assert_readable, corrupted, edited, fuzz
from hypothesis import event, example, given
from hypothesis import strategies as st

from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.faults import PREEMPTED
from tfscale.plan.plan import make_plan
from tfscale.stage.spec import STAGE_FILE, StageSpec, read_spec, spec_from_dict, spec_to_dict
from tfscale.training.__main__ import _train
from tfscale.training.preemption import Preemption

SPECS = {
    "first": make_plan(compose([])).chain.stages[0].spec,
    "grown": make_plan(compose([])).chain.stages[1].spec,
    "transformer": make_plan(compose(["baseline=transformer"])).baselines[0].stages[0].spec,
}
DOCUMENTS = {name: spec_to_dict(spec) for name, spec in SPECS.items()}


def written(folder: Path, content: str | bytes) -> Path:
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    (folder / STAGE_FILE).write_bytes(raw)
    return folder


def read_or_told(folder: Path) -> StageSpec | None:
    try:
        return read_spec(folder)
    except ValueError as error:
        assert_readable(error, STAGE_FILE)
        return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stage")


@fuzz(150)
@given(st.sampled_from(sorted(DOCUMENTS)).flatmap(lambda name: edited(DOCUMENTS[name])))
def test_any_stage_is_read_or_told(folder: Path, document: Any) -> None:
    spec = read_or_told(written(folder, json.dumps(document)))
    event("rejected" if spec is None else "read")
    if spec is not None:
        assert spec.steps >= 1
        assert spec.sequences >= 1
        assert spec_from_dict(spec_to_dict(spec)) == spec


@fuzz(60)
@given(corrupted(json.dumps(DOCUMENTS["grown"], indent=2).encode()))
@example(b"[" * 100_000)
@example(b"\xff\xfe{}")
@example(b"null")
@example(b'{"model": ' + b"9" * 5000 + b"}")
def test_any_bytes_of_a_stage_are_read_or_told(folder: Path, content: bytes) -> None:
    read_or_told(written(folder, content))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("tokens",), "many", "tokens='many': must be an integer"),
        (("tokens",), -512, "tokens=-512: must be at least 0"),
        (("batch_tokens",), 0, "batch_tokens=0"),
        (("optimizer", "lr"), "1e-3", "optimizer.lr='1e-3': must be a finite number"),
        (("optimizer", "lr"), float("nan"), "optimizer.lr=nan"),
        (("optimizer", "beta1"), 1, "optimizer.beta1=1"),
        (("schedule", "kind"), "linear", "'cosine' or 'wsd' or 'constant'"),
        (("model", "qkv", 0, "n"), 1.5, "model.qkv[0].n=1.5"),
        (("model", "n_layer"), True, "model.n_layer=True"),
        (("run", "data_dir"), 3, "run.data_dir=3: must be text"),
        (("run", "keep"), 0, "run.keep=0"),
        (("run", "threads"), -1, "run.threads=-1"),
        (("data", "start"), 10**30, "data.start=1000"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, place: tuple[Any, ...], value: Any, words: str) -> None:
    document = json.loads(json.dumps(DOCUMENTS["first"]))
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    with pytest.raises(ValueError, match=re.escape(words)):
        read_spec(written(tmp_path, json.dumps(document)))


def test_all_wrong_fields_are_told_at_once(tmp_path: Path) -> None:
    document = {**DOCUMENTS["first"], "tokens": "x", "seed": None}
    with pytest.raises(ValueError, match=r"tokens='x'.*seed=None"):
        read_spec(written(tmp_path, json.dumps(document)))


class Stopped(Preemption):
    """Request to stop a stage immediately after its start."""

    def __call__(self) -> bool:
        return True


@pytest.fixture(scope="module")
def ready(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageSpec]:
    """Folder of a stage that can be trained, and its spec."""
    folder = tmp_path_factory.mktemp("ready")
    model = ["model.n_layer=1", "model.d_model=8", "model.n_head=2", "model.context=16"]
    text = ["data=text", f"data.path={corpus}", "data.vocab_size=257", "data.validation_tokens=64"]
    plan = make_plan(compose([*model, *text, f"runs={folder}", "optim.batch_tokens=64", "launcher.threads=1"]))
    prepare(plan.corpus.spec, folder / "data")
    stage = plan.chain.stages[0]
    return stage.path, replace(stage.spec, tokens=128)


# Sizes that fit into any memory or exceed all integers, because the test does not depend on the memory of the machine.
SMALL: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, "x", [], {}, -1, 0, 1, 2, 3, 16, 64, 257, 0.5, 1e30, 2**64, float("nan")]),
    st.sampled_from(["auto", "cpu", "cuda", "bf16", "off", "skip", "../..", "../../data", "/", "/etc/passwd", "a\0b"]),
)


@fuzz(30)
@given(st.data())
def test_any_stage_trains_or_is_told_with_exit_2(
    ready: tuple[Path, StageSpec], capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    folder, spec = ready
    document = data.draw(edited({**spec_to_dict(spec), "parent": None}, SMALL))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    code = _train(written(folder, json.dumps(document)), Stopped())
    event(f"exit {code}")
    message = capsys.readouterr().err
    if code == 1:
        assert document["init_from"] is not None
        assert "has no complete checkpoint" in message
    else:
        assert code in (0, 2, PREEMPTED)
    if code == 2:
        assert_readable(message)
        assert not (folder / "checkpoints").exists()
