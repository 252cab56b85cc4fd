"""Tests of `verify`: undamaged runs have no findings, and each damage has a finding that names the file."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from damages import DAMAGES, Ledger
from edits import edit_lines, final, flip_bit, weights
from stages import StopAt, train
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.plan.plan import make_plan
from tfscale.stage.lock import stage_lock
from tfscale.verify import amount, set_aside, verify_stage

STOPPED_AT = 5
LONGER = "schedule.stages.stage4.tokens=1536"
"""Setting of another last stage, which the fixture does not finish."""


def overrides(corpus: Path, runs: Path) -> list[str]:
    sizes = enumerate((4, 8, 18, 32), start=1)
    return [
        f"runs={runs}",
        "data=text",
        f"data.path={corpus}",
        "data.vocab_size=257",
        "data.validation_tokens=1024",
        "model.n_layer=1",
        "model.d_model=16",
        "model.n_head=2",
        "model.context=32",
        "optim.batch_tokens=128",
        "growth=exact",
        "baseline=trained_on",
        "tracking=none",
        "launcher.threads=1",
        "launcher.checkpoint_tokens=256",
        "launcher.keep_tokens=512",
        "schedule.growth_tokens=1024",
        "schedule.stages.stage1.tokens=1024",
        *(f"schedule.stages.stage{number}.qkv={count}" for number, count in sizes),
    ]


@pytest.fixture(scope="module")
def written(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Runs of a chain of four stages, its base with continued training, and another last stage that was stopped."""
    torch.set_num_threads(1)
    settings = overrides(corpus, tmp_path_factory.mktemp("verify") / "runs")
    made = Ledger(make_plan(compose(settings)), make_plan(compose([*settings, LONGER])))
    prepare(made.plan.corpus.spec, made.plan.runs / "data")
    assert all(train(stage) for stage in made.plan.stages)
    assert not train(made.unfinished.chain.stages[-1], StopAt(STOPPED_AT))
    made.plan.runs.rename(made.kept)
    return made


@pytest.fixture
def ledger(written: Ledger) -> Iterator[Ledger]:
    shutil.copytree(written.kept, written.plan.runs)
    yield written
    shutil.rmtree(written.plan.runs, ignore_errors=True)


def test_an_undamaged_ledger_has_no_findings_and_is_left_as_it_was(ledger: Ledger) -> None:
    def everything() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in ledger.plan.runs.rglob("*")}

    before = everything()
    assert ledger.verify() == []
    assert set_aside(ledger.plan) == []
    assert everything() == before
    read = amount(ledger.plan)
    assert (read.stages, read.checkpoints) == (
        5,
        sum(1 for _ in ledger.plan.runs.glob("stages/*/checkpoints/step-*")) - 3,
    )
    assert read.bytes > sum(file.stat().st_size for file in ledger.data.iterdir())
    assert read.events > 5 * 8


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_ledger_has_a_finding_that_names_the_file(ledger: Ledger, name: str) -> None:
    damage, file, words = DAMAGES[name]
    damage(ledger)
    findings = ledger.verify()
    assert any(file in finding and words in finding for finding in findings), findings


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff\x00{", None])
def test_no_file_can_break_its_reader(ledger: Ledger, content: bytes | None) -> None:
    folders = (ledger.child, final(ledger.child), ledger.data)
    files = [file for folder in folders for file in folder.iterdir() if file.is_file()]
    for file in files:
        if file.name in ("lock", "heartbeat", "environment.json"):
            continue
        if content is None and file.name == "heldout.json":
            continue  # stages of older versions have none
        whole = file.read_bytes()
        file.unlink() if content is None else file.write_bytes(content)
        assert any(str(file) in finding or str(file.parent) in finding for finding in ledger.verify()), file
        file.write_bytes(whole)
    assert ledger.verify() == []


def test_what_has_not_begun_or_not_ended_is_no_fault(ledger: Ledger) -> None:
    last = ledger.plan.chain.stages[-1].path
    shutil.rmtree(last)
    assert ledger.verify() == []
    last.mkdir()
    assert ledger.verify() == []
    shutil.rmtree(ledger.plan.runs)
    assert ledger.verify() == []
    assert amount(ledger.plan).stages == 0


def test_a_line_torn_by_a_kill_is_no_fault(ledger: Ledger) -> None:
    metrics = ledger.stopped / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + '{"event": "tra')
    assert ledger.verify() == []
    again = json.dumps({"event": "start", "step": STOPPED_AT})
    metrics.write_text(f'{whole}{{"event": "tra\n{again}\n')
    assert ledger.verify() == []


def test_steps_that_were_done_again_count_once(ledger: Ledger) -> None:
    metrics = ledger.stopped / "metrics.jsonl"
    *history, _ = metrics.read_text().splitlines()
    start = json.dumps({"event": "start", "step": 4})
    again = [line for line in history if json.loads(line).get("step", 0) > 4]
    metrics.write_text("".join(f"{line}\n" for line in [*history, start, *again]))
    assert ledger.verify() == []


def test_a_checkpoint_whose_event_a_kill_has_cost_is_no_fault(ledger: Ledger) -> None:
    edit_lines(ledger.stopped / "metrics.jsonl", lambda lines: lines.__delitem__(slice(-2, None)))
    for old in sorted((ledger.stopped / "checkpoints").glob("step-*"))[:-1]:
        shutil.rmtree(old)
    assert ledger.verify() == []


def test_a_checkpoint_that_was_set_aside_is_mentioned_and_no_fault(ledger: Ledger) -> None:
    broken = final(ledger.stopped)
    flip_bit(weights(broken))
    broken.rename(broken.with_name(f"broken-{broken.name}"))
    assert ledger.verify() == []
    (mention,) = set_aside(ledger.unfinished)
    assert f"broken-{broken.name}" in mention


def test_a_checkpoint_that_a_live_stage_removes_is_no_fault(ledger: Ledger) -> None:
    old = sorted((ledger.stopped / "checkpoints").glob("step-*"))[0]
    (old / "manifest.json").unlink()
    with stage_lock(ledger.stopped):
        assert ledger.verify() == []
    assert any("manifest.json" in finding for finding in ledger.verify())


def test_one_wrong_total_is_not_told_a_hundred_times(ledger: Ledger) -> None:
    def double(lines: list[str]) -> None:
        for number, line in enumerate(lines):
            event = json.loads(line)
            if "total_flops" in event:
                lines[number] = json.dumps({**event, "total_flops": 2 * event["total_flops"]})

    edit_lines(ledger.child / "metrics.jsonl", double)
    told = [finding for finding in verify_stage(ledger.plan.chain.stages[1]) if "metrics.jsonl" in finding]
    assert len(told) == 6
    assert "has further problems" in told[-1]


def test_a_stage_may_be_verified_by_itself(ledger: Ledger) -> None:
    stage = ledger.plan.chain.stages[1]
    assert verify_stage(stage) == []
    assert verify_stage(replace(stage, key="0" * 12)) != []


def test_status_verify_tells_how_much_is_well_or_what_is_wrong(ledger: Ledger, corpus: Path) -> None:
    command = ["status", "--verify", *overrides(corpus, ledger.plan.runs)]
    well = CliRunner().invoke(app, command)
    assert well.exit_code == 0, well.output
    assert "no problems found: 5 of 5 stages have begun" in well.stdout
    assert len(well.stdout.splitlines()) == 1
    flip_bit(weights(final(ledger.child)))
    wrong = CliRunner().invoke(app, command)
    assert wrong.exit_code == 1
    assert str(weights(final(ledger.child))) in wrong.stdout
