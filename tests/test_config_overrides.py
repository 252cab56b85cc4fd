"""Tests of overrides with any characters, paths, configurations of other projects, and the report of all faults at
once."""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from fuzzing import fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tfscale.cli.common import Common
from tfscale.cli.main import app
from tfscale.cli.run import _amiss
from tfscale.config.compose import compose
from tfscale.config.folders import SHIPPED_ALONE, group_options
from tfscale.config.keys import inner_type, known_keys, type_of
from tfscale.config.overrides import parse
from tfscale.config.schema import Experiment
from tfscale.faults import UserFault

OTHER = Path(__file__).parent / "other_conf"
GROUPS = group_options()
TEXT_KEYS = sorted(key for key in known_keys({}) if inner_type(type_of(key)) is str)
PATHS = ["runs", "init_from", "data.path", "data.tokenizer_path"]
VALUES = ["é", "李明", "a=b", "=", "a#b", "(", "a(1)", "[x", "[a,b]", "{a: b}", "it's", "a;b", "a&b", "a!b",
          "my folder", " lead", "trail ", "a,b", "20261128", "12e45678", "1e5", "true", "nan", "a:b", "a\\,b", "%2F",
          "$HOME", "a~x", 'a"b', "'a", "@x", "*", "?", "-1", "0x10", "1_000", "٣", "choice(1,2)", "range(1,3)", "a|b",
          "<x>", "\u202e"]  # fmt: skip


def faults(*overrides: str, config_dir: Path | None = None) -> list[str]:
    with pytest.raises(UserFault) as caught:
        Common(overrides, config_dir).plan(_amiss)
    return caught.value.messages


def read(text: str) -> object:
    (override,), () = parse([text], GROUPS)
    return override.value


@pytest.mark.parametrize("value", VALUES)
def test_a_text_setting_takes_every_character_as_it_stands(value: str) -> None:
    experiment = compose([f"runs={value}", f"data.path=x/{value}"])
    assert (experiment.runs, experiment.data.path) == (value, f"x/{value}")


@fuzz(300)
@given(st.sampled_from(TEXT_KEYS), st.sampled_from(["", "+", "++"]), st.text(max_size=30))
@example("runs", "", "null")
@example("data.path", "", "${x")
def test_any_text_that_is_not_in_quotes_is_read_as_itself(key: str, adds: str, text: str) -> None:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if not quoted and (text != "null" or key == "runs"):
        assert read(f"{adds}{key}={text}") == text


@fuzz(15)
@given(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20))
def test_any_path_reaches_the_experiment(text: str) -> None:
    if text[0] in "'\"" or "${" in text or text in ("null", "???"):
        return
    experiment = compose([f"runs=./{text}", f"data.path=./{text}"])
    assert (experiment.runs, experiment.data.path) == (f"./{text}", f"./{text}")


@pytest.mark.parametrize(
    ("text", "value"),
    [("runs='a b'", "a b"), ('runs="a, b"', "a, b"), ("runs='it\\'s'", "it's"), ("data.path=null", None),
     ("data.path='null'", "null"), ("runs=null", "null"), ("tracking.uri=null", None), ("runs='a'b'", "'a'b'")],
)  # fmt: skip
def test_quotes_hold_a_text_and_null_is_none_where_it_may_be(text: str, value: str | None) -> None:
    assert read(text) == value


def test_an_interpolation_in_a_text_is_still_followed() -> None:
    assert compose(["seed=7", "runs=runs-${seed}"]).runs == "runs-7"


@pytest.mark.parametrize("key", PATHS)
def test_every_path_expands_the_home_folder(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in (f"{key}=~/corpus", f"{key}='~/corpus'"):
        value: object = compose([text])
        for part in key.split("."):
            value = getattr(value, part)
        assert value == f"{tmp_path}/corpus"
    monkeypatch.chdir(tmp_path)
    assert compose([f"{key}=a/~"]) == compose([f"{key}='a/~'"])
    assert faults(f"{key}=~nobody-here/x")[0].startswith(f"{key}=~nobody-here/x: must be a valid path")
    assert f"{key}=: must name a file or folder" in faults(f"{key}=")[0]
    assert "embedded null" in faults(f"{key}=a\0b")[0]
    assert "File name too long" in faults(f"{key}={'x' * 5000}")[0]


def test_every_text_that_names_a_file_is_a_path() -> None:
    """Every new setting that names a file must be declared as a path."""
    named = {
        key for key in TEXT_KEYS if key.rpartition(".")[2].endswith(("path", "file", "dir", "folder", "from", "runs"))
    }
    assert named == set(PATHS)


VERBS = [["run"], ["plan"], ["compare"], ["report"], ["tune"], ["status"], ["grow", "x", "--to", "y", "--qkv", "9"],
         ["generate", "x", "y"], ["export", "x", "--out", "y"], ["eval", "x"], ["sync", "http://127.0.0.1:9"],
         ["doctor"], ["ui"], ["data", "prepare"], ["data", "list"]]  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_refuses_an_empty_runs_folder(
    verb: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(app, [*verb, "runs="])
    assert isinstance(said.exception, UserFault), said.exception
    assert "runs=: must name a file or folder" in str(said.exception)
    assert not list(tmp_path.iterdir())


def test_a_value_that_the_shell_took_apart_is_shown_in_quotes() -> None:
    told = faults("data=text", "data.path=my", "corpus")[0]
    assert told.endswith("quote both: 'data.path=my corpus'")
    assert shlex.split(told.rpartition(": ")[2]) == ["data.path=my corpus"]


@pytest.mark.parametrize("title", ["Müller's", "a (new) arm", "李明", "a = b", "1;2 & 3", "x # y", "what!"])
def test_special_characters_inside_a_dictionary_are_shown_in_quotes_that_can_be_pasted(title: str) -> None:
    (told,) = faults("baseline=scratch", f"+baseline.arms.mine={{kind: scratch, title: {title}}}")
    (pasted,) = shlex.split(told.rpartition("need quotes: ")[2])
    assert compose(["baseline=scratch", pasted]).baseline.arms["mine"].title == title


@pytest.mark.parametrize(
    ("override", "told"),
    [("optim.lr=é", "optim.lr=é: must be a number"), ("schedule=李明", "schedule=李明: unknown schedule"),
     ("launcher.device=(", "launcher.device=(: must be 'auto', 'cpu' or 'cuda'"),
     ("optim.lr=nan", "optim.lr=nan: must be a finite number"), ("seed=1.5", "seed=1.5: must be a whole number"),
     ("tracking.enabled=maybe", "tracking.enabled=maybe: must be true or false"),
     ("optim.clip=-1", "optim.clip=-1: must be at least 0"),
     ("optim.min_lr_ratio=2", "must be a fraction, from 0 to 1; try 0.1"),
     ("seed=99999999999999999999", "must be at most 10^18"),
     ("optim.lr_schedule=cosin", "did you mean 'cosine'?")],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_says_what_it_must_be(override: str, told: str) -> None:
    (fault,) = faults(override)
    assert told in fault


TOGETHER: list[tuple[list[str], list[str]]] = [
    (["optim.lr=abc", "optim.clip=-1"], ["optim.lr=abc", "optim.clip=-1"]),
    (["growth.noise=20", "optim.lr=-1"], ["growth.noise=20", "optim.lr=-1"]),
    (["growth.noise=20", "growth.peak=-1"], ["growth.noise=20", "growth.peak=-1"]),
    (["optim=nope", "optim.lr=-1"], ["optim=nope", "optim.lr=-1"]),
    (["nonsense", "schedule=nope", "trian=1", "optim.lr=x"], ["nonsense", "schedule=nope", "trian=1", "optim.lr=x"]),
    (["optim.lr=x", "model.n_head=3"], ["optim.lr=x", "model.n_head=3"]),
    (["baseline=scratch", "baseline.arms.trained_on.sizes=all", "baseline.arms.trained_on.shape=compute_optimal",
      "seeds=0"], ["baseline.arms.trained_on.shape", "seeds=0", "baseline.arms.trained_on.shape"]),
    (["optim.lr=x", "data=text", "data.path=/nowhere"], ["optim.lr=x", "data: path=/nowhere"]),
    (["model.n_head=3", "data=text", "data.path=/nowhere"], ["model.n_head=3", "data: path=/nowhere"]),
    (["optim.lr=x", "runs=/proc/nowhere/x"], ["optim.lr=x"]),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "told"), TOGETHER, ids=[" ".join(each) for each, _ in TOGETHER])
def test_faults_of_all_phases_are_told_together(overrides: list[str], told: list[str]) -> None:
    found = "\n".join(faults(*overrides))
    for word in told:
        assert word in found


@pytest.mark.parametrize(
    "overrides",
    [["model.context=abc", "optim.batch_tokens=100"], ["model.d_model=x", "model.n_head=3"], ["data.source=nope"],
     ["schedule=tow", "schedule.stages.mine.qkv=3", "optim.batch_tokens=100"], ["schedule.growth_tokens=many"],
     ["optim=nope", "model.context=100"], ["schedule.stages.stage2.qkv=x"], ["data.path='~nobody-here/x'", "data=text"],
     ["launcher.kind=mars", "launcher.processes=4"]],
    ids=" ".join,
)  # fmt: skip
def test_what_follows_from_a_fault_is_not_told_too(overrides: list[str]) -> None:
    assert len(faults(*overrides)) == 1


SINGLE = {"optim.lr": "x", "optim.clip": "-1", "seeds": "0", "model.rotary": "2", "launcher.device": "tpu",
          "growth": "no", "trian": "1", "runs": "", "schedule.stages.stage2.lr": "-1", "device.mfu": "0",
          "data.validation": "1", "optim.beta1": "one", "growth.noise": "99", "launcher.keep": "0"}  # fmt: skip


@fuzz(10)
@given(st.lists(st.sampled_from(sorted(SINGLE)), min_size=2, max_size=6, unique=True))
def test_any_faulty_values_are_all_told_and_each_once(keys: list[str]) -> None:
    told = faults(*(f"{key}={SINGLE[key]}" for key in keys))
    for key in keys:
        if key == "growth.noise" and "growth" in keys:
            continue  # this rule needs the recipe, which could not be read
        assert sum(f"{key}={SINGLE[key]}" in line for line in told) == 1, (key, told)
    assert len(told) == len(set(told))


@pytest.fixture
def other_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which contains the conf/ folder of another project."""
    shutil.copytree(OTHER, tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_another_projects_conf_is_named_with_file_and_line(other_project: Path) -> None:
    (told,) = faults()
    assert told.startswith("conf/config.yaml:5: contains settings unknown to tfscale: 'epochs' and 'lr'.")
    assert "--config-dir none" in told
    assert len(faults("optim.lr=-1")) == 2
    with pytest.raises(UserFault, match=r"conf/config\.yaml:5"):
        CliRunner().invoke(app, ["list", "models"], catch_exceptions=False)


def test_another_projects_conf_can_be_left_aside(other_project: Path) -> None:
    assert compose(["data=docs"], config_dir=SHIPPED_ALONE) == shipped(other_project, "data=docs")
    (other_project / "own" / "optim").mkdir(parents=True)
    listed = CliRunner().invoke(app, ["list", "models", "--config-dir", "none"], catch_exceptions=False)
    assert listed.exit_code == 0
    assert "resnet50" not in listed.output
    assert CliRunner().invoke(app, ["plan", "--config-dir", "none"], catch_exceptions=False).exit_code == 0


def shipped(folder: Path, *overrides: str) -> Experiment:
    os.chdir(folder.parent)
    try:
        return compose(overrides)
    finally:
        os.chdir(folder)


def test_a_group_file_of_another_project_is_named_with_what_to_do(other_project: Path) -> None:
    (other_project / "conf" / "config.yaml").unlink()
    told = faults()
    assert told[0].startswith("conf/optim/tiny.yaml:1: optim.type: unknown key")
    assert "--config-dir none" in told[0]


@pytest.mark.parametrize(
    "text", ["defaults:\n  - model: resnet50\n", "db: {driver: mysql}\n", "hydra:\n  run: {dir: .}\nepochs: 1\n"]
)
def test_roots_of_other_projects_are_recognised(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    (told,) = faults()
    assert told.startswith("conf/config.yaml:")
    assert "--config-dir none" in told


def test_a_copy_of_the_shipped_conf_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfscale.config.folders import conf_dir

    shutil.copytree(conf_dir(), tmp_path / "conf")
    root = tmp_path / "conf" / "config.yaml"
    root.write_text(root.read_text().replace("seed: 0", "seed: 5").replace("progressive_tiny", "progressive_small"))
    monkeypatch.chdir(tmp_path)
    experiment = compose([])
    assert (experiment.seed, experiment.schedule.name) == (5, "progressive_small")
    root.write_text(root.read_text().replace("seed: 5", "seed: five"))
    assert faults()[0].startswith("conf/config.yaml:")
    assert "seed=five: must be a whole number" in faults()[0]
