"""A ledger that is true has no findings; one that is damaged has a finding that names the file."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stages import StopAt, train
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.schedule.plan import Plan, make_plan
from tfscale.schedule.verify import amount, set_aside, verify_plan, verify_stage
from tfscale.training.lock import StageLock

STOPPED_AT = 5
LONGER = "schedule.stages.stage4.tokens=1536"
"""Makes another last stage, which the fixture leaves unfinished."""


def overrides(corpus: Path, runs: Path) -> list[str]:
    sizes = enumerate((4, 8, 18, 32), start=1)
    return [
        f"runs={runs}",
        "data=text",
        f"data.path={corpus}",
        "data.vocab_size=257",
        "data.heldout_tokens=1024",
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


@dataclass(frozen=True)
class Ledger:
    """Runs folder with a copy of what was written, to be damaged."""

    plan: Plan
    unfinished: Plan
    """Whose last stage was stopped."""

    @property
    def kept(self) -> Path:
        return self.plan.runs.with_name("kept")

    @property
    def base(self) -> Path:
        return self.plan.chain.stages[0].path

    @property
    def child(self) -> Path:
        return self.plan.chain.stages[1].path

    @property
    def stopped(self) -> Path:
        return self.unfinished.chain.stages[-1].path

    @property
    def data(self) -> Path:
        return next((self.plan.runs / "data").glob("[!.]*"))

    def verify(self) -> list[str]:
        return [*verify_plan(self.plan), *verify_plan(self.unfinished)]


@pytest.fixture(scope="module")
def written(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """A chain of four stages, its base trained on, and another last stage that was stopped."""
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


def final(stage: Path) -> Path:
    return sorted((stage / "checkpoints").glob("step-*"))[-1]


def weights(checkpoint: Path) -> Path:
    return next(checkpoint.glob("*.safetensors"))


def edit(file: Path, change: Callable[[Any], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def edit_lines(file: Path, change: Callable[[list[str]], object]) -> None:
    lines = file.read_text().splitlines()
    change(lines)
    file.write_text("".join(f"{line}\n" for line in lines))


def edit_event(stage: Path, kind: str, number: int, **values: object) -> None:
    """Changes an event of a kind: the first, the second, ..., or -1 for the last."""

    def change(lines: list[str]) -> None:
        index = [n for n, line in enumerate(lines) if json.loads(line)["event"] == kind][number]
        lines[index] = json.dumps({**json.loads(lines[index]), **values})

    edit_lines(stage / "metrics.jsonl", change)


def sign(checkpoint: Path) -> None:
    """Makes the manifest agree with what is there."""
    files = [file for file in checkpoint.iterdir() if file.name != "manifest.json"]
    signed = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256(file.read_bytes()).hexdigest()} for file in files
    }
    (checkpoint / "manifest.json").write_text(json.dumps(signed))


def edit_state(checkpoint: Path, change: Callable[[Any], object]) -> None:
    edit(checkpoint / "state.json", change)
    sign(checkpoint)


def edit_tensors(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(weights(checkpoint))
    change(tensors)
    save_file(tensors, weights(checkpoint))
    sign(checkpoint)


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def resize(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.startswith("model/") and tensors[name].dim() == 2)
    tensors[name] = tensors[name][:-1].contiguous()


def shorten_shard(data: Path) -> None:
    shard = next(data.glob("train-*"))
    shard.write_bytes(shard.read_bytes()[:-2])


def tear(lines: list[str]) -> None:
    index = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == "train")
    lines[index] = lines[index][:20]


def repeat(lines: list[str]) -> None:
    index = next(n for n, line in enumerate(lines) if json.loads(line)["event"] == "train")
    lines.insert(index, lines[index])


def slow_down(end: dict[str, Any]) -> None:
    """Adds seconds to what a stage's parents had cost and to nothing else."""
    end["before"]["seconds"] += 0.5
    end["totals"]["seconds"] += 1.0


DAMAGES: dict[str, tuple[Callable[[Ledger], object], str, str]] = {
    "stage.yaml is gone": (lambda it: (it.child / "stage.yaml").unlink(), "stage.yaml", "No such file"),
    "stage.yaml describes another stage": (
        lambda it: edit(it.child / "stage.yaml", lambda spec: spec.update(seed=7)),
        "stage.yaml",
        "describes the stage",
    ),
    "stage.yaml is half there": (
        lambda it: (it.child / "stage.yaml").write_text((it.child / "stage.yaml").read_text()[:99]),
        "stage.yaml",
        "not a stage of this version",
    ),
    "stage.yaml leads to another parent": (
        lambda it: edit(it.child / "stage.yaml", lambda spec: spec.update(parent_dir=f"../{it.child.name}")),
        "stage.yaml",
        "parent_dir leads to",
    ),
    "stage.yaml leads to no parent": (
        lambda it: edit(it.child / "stage.yaml", lambda spec: spec.update(parent_dir=None)),
        "stage.yaml",
        "must stand together",
    ),
    "stage.yaml leads to no corpus": (
        lambda it: edit(it.child / "stage.yaml", lambda spec: spec["run"].update(data_dir="../../nowhere")),
        "nowhere/manifest.json",
        "Not a prepared corpus",
    ),
    "done.json has another key": (
        lambda it: edit(it.child / "done.json", lambda end: end.update(key="0" * 12)),
        "done.json",
        "key is 000000000000",
    ),
    "done.json has another step": (
        lambda it: edit(it.child / "done.json", lambda end: end.update(step=3)),
        "done.json",
        "step is 3",
    ),
    "done.json has other tokens": (
        lambda it: edit(it.child / "done.json", lambda end: end.update(tokens=3)),
        "done.json",
        "tokens is 3",
    ),
    "done.json lacks its totals": (
        lambda it: edit(it.child / "done.json", lambda end: end.pop("totals")),
        "done.json",
        "KeyError: 'totals'",
    ),
    "done.json has other FLOPs": (
        lambda it: edit(it.child / "done.json", lambda end: end["totals"].update(flops=1)),
        "done.json",
        "1 FLOPs",
    ),
    "done.json begins where its parent did not end": (
        lambda it: edit(it.child / "done.json", lambda end: end["before"].update(seconds=0.0)),
        "done.json",
        "its parent",
    ),
    "done.json's seconds do not add up": (
        lambda it: edit(it.plan.chain.stages[-1].path / "done.json", slow_down),
        "done.json",
        "4 stages of its lineage add up to",
    ),
    "done.json has another evaluation": (
        lambda it: edit(it.child / "done.json", lambda end: end["eval"].update(perplexity=1.0)),
        "metrics.jsonl",
        "perplexity of the last evaluation",
    ),
    "the parent's done.json is gone": (lambda it: (it.base / "done.json").unlink(), "done.json", "grows out of"),
    "the parent is gone": (lambda it: shutil.rmtree(it.base), "stage.yaml", "grows out of"),
    "the final checkpoint is gone": (lambda it: shutil.rmtree(final(it.child)), "step-000000000008", "missing"),
    "a checkpoint is cut short": (
        lambda it: weights(final(it.child)).write_bytes(weights(final(it.child)).read_bytes()[:-7]),
        ".safetensors",
        "were written",
    ),
    "a checkpoint has a flipped bit": (lambda it: flip_bit(weights(final(it.child))), ".safetensors", "SHA-256"),
    "an older checkpoint has a flipped bit": (
        lambda it: flip_bit(weights(it.child / "checkpoints" / "step-000000000004")),
        "step-000000000004",
        "SHA-256",
    ),
    "a checkpoint's manifest is gone": (
        lambda it: (final(it.child) / "manifest.json").unlink(),
        "manifest.json",
        "No such file",
    ),
    "a file that nobody wrote lies in a checkpoint": (
        lambda it: save_file({"model/x": torch.ones(1)}, final(it.child) / "zz.safetensors"),
        "zz.safetensors",
        "not in its manifest",
    ),
    "a checkpoint holds another model": (
        lambda it: edit_state(final(it.child), lambda state: state["model"].update(context=64)),
        "state.json",
        "context=64",
    ),
    "a checkpoint stands at another step": (
        lambda it: edit_state(final(it.child), lambda state: state["counters"].update(step=7)),
        "state.json",
        "step is 7",
    ),
    "a checkpoint has other totals": (
        lambda it: edit_state(final(it.child), lambda state: state["counters"]["totals"].update(seconds=1e9)),
        "state.json",
        "done.json says",
    ),
    "a checkpoint begins elsewhere": (
        lambda it: edit_state(final(it.child), lambda state: state["counters"]["before"].update(device_seconds=0.0)),
        "state.json",
        "its parents ended at",
    ),
    "a weight has another shape": (lambda it: edit_tensors(final(it.child), resize), "step-", "model/"),
    "a weight is missing": (
        lambda it: edit_tensors(final(it.child), lambda tensors: tensors.pop("model/blocks.0.attention.output.keys")),
        "step-",
        "model/blocks.0.attention.output.keys is not there",
    ),
    "metrics.jsonl is gone": (lambda it: (it.child / "metrics.jsonl").unlink(), "metrics.jsonl", "missing"),
    "metrics.jsonl is torn in the middle": (
        lambda it: edit_lines(it.child / "metrics.jsonl", tear),
        "metrics.jsonl",
        "not a whole event",
    ),
    "metrics.jsonl lacks its end": (
        lambda it: edit_lines(it.child / "metrics.jsonl", lambda lines: lines.pop()),
        "metrics.jsonl",
        "its last event is no end",
    ),
    "metrics.jsonl has an event twice": (
        lambda it: edit_lines(it.child / "metrics.jsonl", repeat),
        "metrics.jsonl",
        "steps rise",
    ),
    "an event has other tokens": (
        lambda it: edit_event(it.child, "train", 2, tokens=5),
        "metrics.jsonl",
        "train of step 3: 5 tokens",
    ),
    "an event has other total tokens": (
        lambda it: edit_event(it.child, "train", 2, total_tokens=10**6),
        "metrics.jsonl",
        "train of step 3: 1,000,000 tokens",
    ),
    "an event has other FLOPs": (
        lambda it: edit_event(it.child, "train", 2, total_flops=10**15),
        "metrics.jsonl",
        "1,000,000,000,000,000 FLOPs",
    ),
    "an event goes back in time": (
        lambda it: edit_event(it.child, "train", 2, total_seconds=0.0),
        "metrics.jsonl",
        "less than its parents'",
    ),
    "an event's seconds jump": (
        lambda it: edit_event(it.child, "train", 2, total_seconds=1e9),
        "metrics.jsonl",
        "before it were",
    ),
    "an event has no step": (
        lambda it: edit_event(it.child, "eval", 0, step=None),
        "metrics.jsonl",
        "event of no step",
    ),
    "growth.json is gone": (lambda it: (it.child / "growth.json").unlink(), "growth.json", "missing"),
    "growth.json has another parent": (
        lambda it: edit(it.child / "growth.json", lambda growth: growth.update(parent="0" * 12)),
        "growth.json",
        "parent is 000000000000",
    ),
    "growth.json has another recipe": (
        lambda it: edit(it.child / "growth.json", lambda growth: growth["recipe"].update(noise=1.0)),
        "growth.json",
        "recipe is",
    ),
    "growth.json has other shapes": (
        lambda it: edit(it.child / "growth.json", lambda growth: growth["tokens"]["qkv"].update(after=9)),
        "growth.json",
        "tokens is",
    ),
    "growth.json does not preserve": (
        lambda it: edit(it.child / "growth.json", lambda growth: growth["comparison"].update(max_logit_difference=1)),
        "growth.json",
        "moved logits",
    ),
    "the corpus is gone": (lambda it: shutil.rmtree(it.data), "manifest.json", "Not a prepared corpus"),
    "the corpus is another": (
        lambda it: edit(it.data / "manifest.json", lambda manifest: manifest.update(fingerprint="0" * 16)),
        "corpus 0000000000000000",
        "asked for is",
    ),
    "a shard is cut short": (lambda it: shorten_shard(it.data), "train-00000.safetensors", "by its manifest"),
    "a shard has a flipped bit": (
        lambda it: flip_bit(next(it.data.glob("heldout-*"))),
        "heldout-00000.safetensors",
        "SHA-256",
    ),
    "a shard is gone": (lambda it: next(it.data.glob("heldout-*")).unlink(), "heldout-00000.safetensors", "No such"),
    "the tokenizer has changed": (lambda it: flip_bit(it.data / "tokenizer.json"), "tokenizer.json", "SHA-256"),
    "a folder is called after another stage": (
        lambda it: shutil.copytree(it.child, it.child.with_name("tokenformer-1.0K-0123456789ab")),
        "tokenformer-1.0K-0123456789ab/stage.yaml",
        "the folder's name says 0123456789ab",
    ),
    "a folder holds no stage": (
        lambda it: shutil.copytree(it.child / "checkpoints", it.child.parent / "mine"),
        "mine/stage.yaml",
        "No such file",
    ),
    "a stopped stage's newest checkpoint is gone": (
        lambda it: shutil.rmtree(final(it.stopped)),
        "step-000000000005",
        "the stage stood there last",
    ),
    "a stopped stage's checkpoint has a flipped bit": (
        lambda it: flip_bit(weights(final(it.stopped))),
        "step-000000000005",
        "SHA-256",
    ),
    "a stopped stage's event has other tokens": (
        lambda it: edit_event(it.stopped, "train", -1, total_tokens=1),
        "metrics.jsonl",
        "1 tokens",
    ),
}


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
    with StageLock(ledger.stopped):
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
    assert "and more" in told[-1]


def test_a_stage_may_be_verified_by_itself(ledger: Ledger) -> None:
    stage = ledger.plan.chain.stages[1]
    assert verify_stage(stage) == []
    assert verify_stage(replace(stage, key="0" * 12)) != []


def test_status_verify_tells_how_much_is_well_or_what_is_wrong(ledger: Ledger, corpus: Path) -> None:
    command = ["status", "--verify", *overrides(corpus, ledger.plan.runs)]
    well = CliRunner().invoke(app, command)
    assert well.exit_code == 0, well.output
    assert "all is well with 5 of 5 stages" in well.stdout
    assert len(well.stdout.splitlines()) == 1
    flip_bit(weights(final(ledger.child)))
    wrong = CliRunner().invoke(app, command)
    assert wrong.exit_code == 1
    assert str(weights(final(ledger.child))) in wrong.stdout
