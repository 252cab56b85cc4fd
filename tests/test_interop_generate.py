"""Tests of text generation by finished stages on the command line."""

from pathlib import Path

import pytest
import torch
from finished import finished, overrides_of
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.faults import UserFault
from tfscale.plan.plan import Plan


@pytest.fixture(scope="module")
def plan(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    torch.set_num_threads(1)
    return finished(overrides_of(corpus, tmp_path_factory.mktemp("runs")))


def written(*arguments: object) -> tuple[str, str]:
    answer = CliRunner().invoke(app, ["generate", *map(str, arguments)])
    if answer.exception is not None:
        raise answer.exception
    return answer.stdout, answer.stderr


def test_a_stage_goes_on_from_the_prompt_the_same_way_for_the_same_seed(plan: Plan) -> None:
    call = (plan.chain.stages[0].key, "the model", f"runs={plan.runs}", "--tokens", 12)
    text, note = written(*call, "--seed", 3)
    assert text.startswith("the model")
    assert len(text.strip()) > len("the model")
    assert note == ""
    assert written(*call, "--seed", 3)[0] == text != written(*call, "--seed", 4)[0]
    greedy = written(*call, "--temperature", 0)[0]
    assert greedy == written(*call, "--top-k", 1)[0] == written(*call, "--top-p", 1e-9)[0]


@pytest.mark.parametrize("temperature", ["1e-300", "5e-324", "1e-45", "1e-10"])
def test_a_very_low_temperature_takes_the_likeliest_token(plan: Plan, temperature: str) -> None:
    call = (plan.chain.stages[0].key, "the model", f"runs={plan.runs}", "--tokens", 12)
    assert written(*call, "--temperature", temperature)[0] == written(*call, "--temperature", 0)[0]


@pytest.mark.parametrize("temperature", ["1e300", "1.7e308"])
def test_a_very_high_temperature_draws_among_all_tokens(plan: Plan, temperature: str) -> None:
    text, _ = written(plan.chain.stages[0].key, "x", f"runs={plan.runs}", "--tokens", 12, "--temperature", temperature)
    assert text.startswith("x")


def test_a_text_beyond_the_context_says_what_the_model_saw(plan: Plan) -> None:
    text, note = written(
        plan.chain.stages[0].key, "the model", f"runs={plan.runs}", "--tokens", 200, "--temperature", 5
    )
    assert "note:" not in text
    assert "32 tokens; each time the context was full, generation continued from its last 16" in note


def test_every_finished_stage_of_the_chain_writes_side_by_side(plan: Plan, corpus: Path) -> None:
    table, _ = written("chain", "the model", *overrides_of(corpus, plan.runs), "--tokens", 9, "--temperature", 0)
    done, waiting = plan.chain.stages[:2], plan.chain.stages[2:]
    for stage in done:
        alone, _ = written(stage.key, "the model", f"runs={plan.runs}", "--tokens", 9, "--temperature", 0)
        row = table[table.index(stage.path.name) :]
        assert alone.split()[0] in row
        assert "".join(alone.split()) in "".join(row.split()), "the same text as alone"
    assert not any(stage.path.name in table for stage in waiting)
    two, _ = written(",".join(stage.key for stage in done), "the model", f"runs={plan.runs}", "--tokens", 4)
    assert all(stage.path.name in two for stage in done)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nothing", "x"], "nothing: no stage matches this name"),
        (["chain", "x"], "no stage of progressive_tiny is finished"),
        (["nothing", "x", "--top-p", "0"], "--top-p=0.0: must be above 0 and at most 1"),
        (["nothing", "x", "--top-p", "-1"], "--top-p=-1.0: must be above 0 and at most 1"),
        (["nothing", "x", "--temperature", "inf"], "--temperature=inf: must be finite and at least 0"),
    ],
)
def test_a_users_fault_is_told(arguments: list[str], fault: str, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserFault, match=fault):
        written(*arguments, *overrides_of(corpus, tmp_path))


@pytest.mark.parametrize(
    "option",
    [["--top-p", "nan"], ["--temperature", "nan"], ["--temperature", "-1"], ["--top-p", "1.5"], ["--top-k", "-1"]],
)
def test_what_is_no_setting_of_sampling_is_refused(option: list[str]) -> None:
    answer = CliRunner().invoke(app, ["generate", "nothing", "x", *option])
    assert answer.exit_code == 2 or isinstance(answer.exception, UserFault)
