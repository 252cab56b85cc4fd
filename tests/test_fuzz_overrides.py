"""Fuzz tests of overrides: they make a plan, or all faults are reported, and nothing is written."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import EXAMPLES, NUMBERS, assert_readable, fuzz
from hypothesis import event, example, given
from hypothesis import strategies as st

from tfscale.config.compose import compose
from tfscale.config.folders import group_options
from tfscale.faults import UserFault
from tfscale.plan.plan import make_plan
from tfscale.predict import Machine, predict
from tfscale.text import duration, gigabytes

MACHINE = Machine(device="cpu", name="a machine", memory=8 << 30, peak=1e11)


def keys_of(value: Any, prefix: str = "") -> Iterator[str]:
    for name, inner in value.items():
        yield f"{prefix}{name}"
        if isinstance(inner, dict):
            yield from keys_of(inner, f"{prefix}{name}.")


KEYS = sorted(keys_of(dataclasses.asdict(compose(["baseline=scratch"]))))
ODD_KEYS = ["hydra.run.dir", "hydra/launcher", "hydra.searchpath", "hydra", "_target_", "optim._target_", "defaults",
            "schedule.stages.new", "schedule.stages.new.size", "optim@model", "seed.x", "", ".", "a.b.c", "model.",
            "ключ", "schedule.stages.stage1.0", "reference", "conf"]  # fmt: skip
ODD_VALUES = ["${seed}", "${optim.lr}", "${oc.env:HOME}", "${oc.env:NOT_SET}", "${hydra:job.name}", "${", "${${seed}}",
              "${.lr}", "${oc.decode:1}", "???", "null", "true", "[]", "{}", "[1,2]", "{a: 1}", "1,2", "range(1,3)",
              "choice(1,2)", "glob(*)", "int(3)", "'1e-3'", '"x y"', "'it''s'", "../../x", "\\", "\\,", "%s", "a=b",
              "@x", "'~nobody/x'", "$(true)", "`true`", "; true", "1_000", "1e400", "15B", "-15B", "1.5.5M",
              "0x10", "٣", "\ud800", "\0", "\n", "\u202e", "9" * 5000, "x" * 5000]  # fmt: skip
WAYS = ["", "", "", "", "+", "++", "~"]


def hydra(value: Any) -> str:
    """Return a value in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {hydra(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(hydra, value)) + "]"
    return "null" if value is None else str(value)


NESTED = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(["x", "progressive_tiny", "1K"])).filter(
        lambda value: len(str(value)) < 100
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["size", "qkv", "tokens", "kind", "title", "lr", "x", "0"]), inner, max_size=4),
    ),
    max_leaves=8,
).map(hydra)
VALUES = st.one_of(
    st.sampled_from(ODD_VALUES),
    NUMBERS.filter(lambda value: abs(value) < 1e301 or value != value).map(str),
    NESTED,
    st.text(max_size=10),
    st.sampled_from(sorted({name for names in group_options().values() for name in names})),
)


@st.composite
def overrides(draw: st.DrawFn) -> str:
    key = draw(st.one_of(st.sampled_from(KEYS), st.sampled_from(KEYS), st.sampled_from(ODD_KEYS)))
    if key.endswith("path"):  # avoid reading the whole disk
        return f"{key}={draw(st.sampled_from(['nowhere', 'null', 'x' * 5000, '${runs}', '[]', '3']))}"
    text = f"{draw(st.sampled_from(WAYS))}{key}={draw(VALUES)}"
    if draw(st.integers(0, 4)):
        return text
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.text(max_size=3)) + text[at + draw(st.integers(0, 3)) :]


@pytest.fixture(scope="module", autouse=True)
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def plan_or_faults(*texts: str) -> list[str]:
    """Return the reported faults, or an empty list if a plan with costs was made."""
    try:
        plan = make_plan(compose(texts))
    except UserFault as fault:
        assert_readable(fault)
        return fault.messages
    for stage in plan.stages:
        prediction = predict(stage.spec, MACHINE, [])
        assert prediction.seconds is not None
        assert duration(prediction.seconds)
        assert gigabytes(prediction.memory.total)
    return []


@fuzz(45)
@given(st.lists(st.one_of(overrides(), overrides(), overrides(), st.text(max_size=20)), min_size=1, max_size=3))
@example(["+baseline.arms=" + "{a:" * 300 + "1" + "}" * 300])
@example(["optim.lr=" + "[" * 3000 + "]" * 3000])
@example(["runs='~nobody/x'"])
@example(["model.d_model=" + "9" * 5000])
@example(["schedule.stages.stage1.transformer={n_layer: 1, d_model: 8, n_head: 1, d_ff: -1}", "baseline=scratch"])
def test_any_overrides_make_a_plan_or_are_told(empty_folder: Path, texts: list[str]) -> None:
    event("rejected" if plan_or_faults(*texts) else "planned")
    assert not list(empty_folder.iterdir())


NUMBER_KEYS = sorted(
    key
    for key, value in {
        f"{part}.{name}": value
        for part in ("optim", "model", "data", "launcher", "growth")
        for name, value in vars(getattr(compose([]), part)).items()
    }.items()
    if isinstance(value, (int, float)) and not isinstance(value, bool)
)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e400"] if EXAMPLES else ["nan"])
@pytest.mark.parametrize("key", NUMBER_KEYS if EXAMPLES else NUMBER_KEYS[::2])
def test_a_number_that_is_none_is_refused_with_its_key(key: str, number: str) -> None:
    faults = plan_or_faults(f"{key}={number}")
    assert any(key in line for line in faults), faults


@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".hidden", "a\nb"])
def test_an_experiments_name_stays_in_the_runs_folder(name: str) -> None:
    assert any(
        "schedule.name" in line or "not an override" in line for line in plan_or_faults(f"schedule.name='{name}'")
    )
