"""Tests of the evaluation of finished stages: perplexity in windows, and zero-shot tasks with the evaluation
harness."""

import json
import math
import random
import re
from dataclasses import asdict, replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from finished import finished, overrides_of
from schemas import checked
from task_files import write_task, write_tasks
from texts import MARK, PACK
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers
from torch.nn import functional as F
from tracked import run
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.data.prepared import open_data
from tfscale.data.tokenizer import Tokenizer
from tfscale.faults import UserFault
from tfscale.interop.finished import FinishedStage, model_of, open_finished, tokenizer_of
from tfscale.interop.harness import PAPER, HarnessModel, run_tasks
from tfscale.interop.perplexity import encode_text, score_heldout, score_text, total_loss
from tfscale.models.language_model import LanguageModel
from tfscale.plan.experiments import record
from tfscale.plan.plan import Plan
from tfscale.stage.evaluations import read_evaluations
from tfscale.tracking.mlflow.tracker import MlflowTracker


@pytest.fixture(scope="module")
def plan(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    torch.set_num_threads(1)
    return finished(overrides_of(corpus, tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def stage(plan: Plan) -> FinishedStage:
    return open_finished(plan.chain.stages[1].path)


@pytest.fixture(scope="module")
def model(stage: FinishedStage) -> LanguageModel:
    return model_of(stage)


@pytest.fixture(scope="module")
def tokenizer(stage: FinishedStage) -> Tokenizer:
    return tokenizer_of(stage)


def tfscale(*arguments: object) -> str:
    answer = CliRunner().invoke(app, list(map(str, arguments)))
    if answer.exception is not None:
        raise answer.exception
    return answer.output


def log_probability(model: LanguageModel, before: list[int], after: list[int]) -> float:
    """Return the log-probability of tokens, computed with a separate pass per token and at most one context before
    it."""
    seen, total = [*before], 0.0
    with torch.inference_mode():
        for token in after:
            window = seen[-model.config.context :]
            total += model(torch.tensor([window]))[0, -1].log_softmax(-1)[token].item()
            seen.append(token)
    return total


def test_heldout_loss_without_overlap_is_the_one_of_training(stage: FinishedStage, model: LanguageModel) -> None:
    score = score_heldout(stage, model, stride=32)
    assert score.loss == pytest.approx(stage.result.evaluation.loss, abs=1e-6)
    assert score.perplexity == pytest.approx(stage.result.evaluation.perplexity, rel=1e-6)
    assert score.bits_per_byte == pytest.approx(stage.result.evaluation.bits_per_byte, rel=1e-6)
    assert score.tokens == stage.result.evaluation.heldout_tokens


def test_the_heldout_loss_is_that_of_the_text_that_the_stage_evaluates(
    stage: FinishedStage, model: LanguageModel
) -> None:
    tokens = open_data(stage.data, stage.spec.data.fingerprint).heldout[64 : 64 + 320 + 1]
    data = replace(stage.spec.data, heldout_start=64, heldout_tokens=320)
    moved = replace(stage, spec=replace(stage.spec, data=data))
    assert score_heldout(moved, model, stride=32).loss == pytest.approx(total_loss(model, tokens, 32) / 320, rel=1e-6)


@pytest.mark.parametrize("length", [2, 20, 33, 40, 97])
@pytest.mark.parametrize("stride", [1, 5, 32])
def test_sliding_windows_count_every_token_once_with_what_is_before_it(
    model: LanguageModel, length: int, stride: int
) -> None:
    tokens = np.array(random.Random(length).choices(range(300), k=length))  # noqa: S311
    expected = 0.0
    for target in range(1, length):
        # The first window with the token ends at the first multiple of the stride at or after it.
        end = min(length - 1, 32 if target <= 32 else 32 + math.ceil((target - 32) / stride) * stride)
        begin = max(0, end - 32)
        logits = model(torch.from_numpy(tokens[None, begin:target]))[0, -1]
        expected += F.cross_entropy(logits, torch.tensor(tokens[target])).item()
    assert total_loss(model, tokens, stride) == pytest.approx(expected, rel=1e-5)


def test_a_texts_score_counts_its_bytes_and_the_ends_of_documents(
    model: LanguageModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    documents = ["the model grows é", "keys and values"]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"text": each}) for each in documents))
    text = encode_text(tmp_path / "text.jsonl", tokenizer, max_unknown=0)
    score = score_text(text, model, stride=32)
    end = tokenizer.end_of_text_id
    tokens = [token for each in tokenizer.encode_batch(documents) for token in [*each, end]]
    assert score.tokens == len(tokens)
    assert score.bytes == len("".join(documents).encode()) + 2
    assert score.bits_per_byte == pytest.approx(score.loss * score.tokens / score.bytes / math.log(2))
    assert -score.loss * score.tokens == pytest.approx(log_probability(model, [end], tokens), rel=1e-4)


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return write_tasks(tmp_path / "tasks")


def test_the_papers_six_tasks_give_what_a_token_by_token_recompute_gives(
    stage: FinishedStage, model: LanguageModel, tokenizer: Tokenizer, tasks: Path
) -> None:
    """The test uses the command line and local task files, without a network."""
    shown = tfscale("eval", stage.folder, "--tasks", "paper", "--task-path", tasks)
    found = {entry["name"]: entry for entry in read_evaluations(stage.folder) if entry["kind"] == "task"}
    assert found.keys() == set(PAPER)
    for name in PAPER:
        assert name in shown
        assert found[name]["shots"] == 0
    choices = [json.loads(line) for line in (tasks / "hellaswag.jsonl").read_text().splitlines()]
    right = []
    for choice in choices:
        start = tokenizer.encode_batch([choice["start"]])[0]
        whole = tokenizer.encode_batch([f"{choice['start']} {end}" for end in choice["ends"]])
        scores = [log_probability(model, start, tokens[len(start) :]) for tokens in whole]
        right.append(scores.index(max(scores)) == choice["label"])
    assert found["hellaswag"]["metrics"]["acc"] == pytest.approx(sum(right) / len(right))
    assert found["hellaswag"]["samples"] == 8
    assert found["hellaswag"]["version"] == "2.0"
    texts = [json.loads(line)["text"] for line in (tasks / "lambada_openai.jsonl").read_text().splitlines()]
    logs = []
    for text in texts:
        before, word = text.rsplit(" ", 1)
        start = tokenizer.encode_batch([before])[0]
        rest = tokenizer.encode_batch([f"{before} {word}"])[0][len(start) :]
        # The harness cuts the beginning once, before all tokens of the last word.
        kept = [*start, *rest][-33:][: -len(rest)]
        logs.append(log_probability(model, kept, rest))
    assert found["lambada_openai"]["metrics"]["perplexity"] == pytest.approx(math.exp(-np.mean(logs)), rel=1e-4)


def test_a_text_beyond_the_context_loses_its_beginning_and_no_more(model: LanguageModel, tokenizer: Tokenizer) -> None:
    tokens = torch.randint(1, 300, (60,), generator=torch.Generator().manual_seed(0))
    requests = [(("", ""), tokens[:start].tolist(), tokens[start:].tolist()) for start in (58, 30, 5)]
    with torch.inference_mode():
        logits = model(tokens[None, -33:-1])[0].log_softmax(-1)  # the first prediction uses the whole context
    chosen = logits.gather(-1, tokens[-32:, None])[:, 0]
    found = HarnessModel(model, tokenizer)._loglikelihood_tokens(requests)
    for (score, likeliest), counted in zip(found, (2, 30, 32), strict=True):
        assert score == pytest.approx(chosen[-counted:].sum().item(), rel=1e-6)
        assert likeliest == bool((logits.argmax(-1)[-counted:] == tokens[-counted:]).all())


def test_whole_texts_are_scored_in_windows_that_do_not_overlap(
    model: LanguageModel, tokenizer: Tokenizer, tasks: Path
) -> None:
    [result] = run_tasks(model, tokenizer, ["whole_text"], tasks, limit=None)
    texts = [json.loads(line)["text"] for line in (tasks / "lambada_openai.jsonl").read_text().splitlines()]
    nats = sum(
        total_loss(model, np.array([tokenizer.end_of_text_id, *tokenizer.encode_batch([text])[0]]), 32)
        for text in texts
    )
    assert result.metrics["bits_per_byte"] == pytest.approx(nats / sum(map(len, texts)) / math.log(2), rel=1e-6)


def test_the_harness_can_let_the_model_write(model: LanguageModel, tokenizer: Tokenizer, tasks: Path) -> None:
    written = HarnessModel(model, tokenizer)._go_on("the model", {"until": "\n", "max_gen_toks": 12})
    assert written
    stopped = HarnessModel(model, tokenizer)._go_on("the model", {"until": [written[3:6]], "max_gen_toks": 12})
    assert stopped == written[: written.find(written[3:6])]
    first = written.lstrip().split(" ")[0]
    lead = len(written) - len(written.lstrip())
    write_task(
        tasks, "written", [{"text": "the model" + written[:lead], "made": first}], "generate_until",
        doc_to_text="{{text}}", doc_to_target="{{made}}", metric_list=[{"metric": "exact_match"}],
        generation_kwargs={"until": [" "], "max_gen_toks": 12},
    )  # fmt: skip
    [result] = run_tasks(model, tokenizer, ["written"], tasks, limit=None)
    assert set(result.metrics) >= {"exact_match"}


def test_evaluations_are_kept_once_beside_the_costs(stage: FinishedStage, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the model grows from small to large")
    before = len(read_evaluations(stage.folder))
    for _ in range(2):
        tfscale("eval", stage.folder, "--text", tmp_path / "a.txt", "--stride", "8")
    tfscale("eval", stage.folder, "--text", tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("another text")
    tfscale("eval", stage.folder, "--text", tmp_path / "a.txt")
    entries = read_evaluations(stage.folder)[before:]
    assert [entry["stride"] for entry in entries] == [8, 32, 32]
    assert len({entry["sha256"] for entry in entries}) == 2
    assert all(entry["perplexity"] == pytest.approx(math.exp(entry["loss"])) for entry in entries)
    written = json.loads((stage.folder / "evaluations.json").read_text())
    assert written["totals"] == asdict(stage.result.totals)
    assert not list(stage.folder.glob(".*")), "no partial file is left"


def test_a_text_is_measured_the_same_with_a_mark_and_in_any_packing(stage: FinishedStage, tmp_path: Path) -> None:
    content = b"the model grows from small to large"
    for name in ("a.txt", "marked.txt", "A.TXT.XZ", "packed.txt"):
        packed = PACK[".xz"] if name == "A.TXT.XZ" else PACK[".gz"] if name == "packed.txt" else PACK[""]
        (tmp_path / name).write_bytes(packed((MARK if name != "a.txt" else b"") + content))
    texts = [each for file in sorted(tmp_path.iterdir()) for each in ("--text", file)]
    found = checked("eval", CliRunner().invoke(app, list(map(str, ["eval", stage.folder, *texts, "--json"]))).stdout)
    assert len(found) == 4
    assert len({(entry["loss"], entry["tokens"], entry["bytes"]) for entry in found}) == 1


def test_files_that_are_left_out_of_a_text_are_told(stage: FinishedStage, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    for name in ("a.txt", ".hidden.txt", "notes.md"):
        (tmp_path / "text" / name).write_text("the model grows")
    shown = tfscale("eval", stage.folder, "--text", tmp_path / "text")
    assert f"warning: --text {tmp_path / 'text'}: 2 skipped (1 hidden; 1 unsupported format .md)" in shown


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.txt", b"", "contains no text"),
        ("a.txt", MARK, "contains no text"),
        ("a.txt", b" \n\t", "contains no text"),
        ("a.jsonl", b"", "contains no text"),
        ("a.json", b"[]", "contains no text"),
        ("a.jsonl", b'{"text": ""}\n{"text": " "}\n', "contains no text"),
        ("a.txt.gz", PACK[".gz"](b""), "contains no text"),
        ("a.txt.gz", b"", "the file is empty"),
        ("a.jsonl", b'{"text": null}', "the value is null"),
        ("a.txt", "text".encode("utf-16"), "the text is in UTF-16"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9", "git lfs pull"),
        ("a.md", b"text", "unsupported format .md"),
    ],
)  # fmt: skip
def test_a_text_without_text_is_refused_before_any_other_is_recorded(
    stage: FinishedStage, tmp_path: Path, name: str, content: bytes, fault: str
) -> None:
    (tmp_path / "good.txt").write_text("the model grows and grows")
    (tmp_path / name).write_bytes(content)
    before = read_evaluations(stage.folder)
    with pytest.raises(UserFault, match=rf"--text .*{re.escape(name)}.*: .*{re.escape(fault)}"):
        tfscale("eval", stage.folder, "--text", tmp_path / "good.txt", "--text", tmp_path / name)
    assert read_evaluations(stage.folder) == before


def test_faults_of_all_texts_are_told_together(stage: FinishedStage, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserFault) as told:
        tfscale("eval", stage.folder, "--text", tmp_path / "empty.txt", "--text", tmp_path / "nowhere.txt")
    assert len(told.value.messages) == 2


def test_unknown_tokens_of_a_text_are_told_and_too_many_refused(tmp_path: Path) -> None:
    library = Library(models.WordLevel({"[UNK]": 0, "known": 1, "</s>": 2}, "[UNK]"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = Tokenizer(library.to_str().encode(), "words")
    (tmp_path / "a.txt").write_text("known other " + "known " * 97)
    text = encode_text(tmp_path / "a.txt", words, max_unknown=0.01)
    assert text.unknown == 1
    (note,) = text.notes
    assert "the tokenizer has no entry for 1 of 100 tokens (1.00%)" in note
    with pytest.raises(UserFault, match=r"--text .*a\.txt: data\.max_unknown=0\.005: .* 1 of 100 tokens"):
        encode_text(tmp_path / "a.txt", words, max_unknown=0.005)


def test_every_finished_stage_of_the_chain_is_measured_and_tracked(
    plan: Plan, corpus: Path, store: MlflowTracker
) -> None:
    record(plan)
    tracked = (text for text in overrides_of(corpus, plan.runs) if text != "tracking=none")
    shown = tfscale("eval", "chain", *tracked, f"tracking.uri={store.uri}")
    for stage in plan.chain.stages[:2]:
        assert stage.path.name in shown
        heldout = next(entry for entry in read_evaluations(stage.path) if entry["name"] == "heldout")
        assert heldout["perplexity"] == pytest.approx(open_finished(stage.path).result.evaluation.perplexity, rel=1e-6)
        metrics = run(store, stage.size, name=plan.experiment.schedule.name).data.metrics
        assert metrics["eval/heldout/perplexity"] == heldout["perplexity"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--stride", "33"], "--stride 33: must be at most 32"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--tasks", "hellaswag", "--task-path", "nowhere"], "--task-path nowhere"),
    ],
)
def test_a_users_fault_is_told(stage: FinishedStage, arguments: list[str], fault: str) -> None:
    with pytest.raises(UserFault, match=fault):
        tfscale("eval", stage.folder, *arguments)


def test_a_task_without_its_data_is_the_users_to_mend(model: LanguageModel, tokenizer: Tokenizer, tasks: Path) -> None:
    (tasks / "hellaswag.jsonl").unlink()
    with pytest.raises(UserFault, match="the harness cannot load the tasks"):
        run_tasks(model, tokenizer, ["hellaswag"], tasks, limit=None)


def test_a_damaged_record_is_not_overwritten(stage: FinishedStage, tmp_path: Path) -> None:
    path = stage.folder / "evaluations.json"
    kept = path.read_bytes() if path.exists() else None
    path.write_text('{"format": 1, "evaluations": "lost"}')
    with pytest.raises(UserFault, match="the file is damaged"):
        tfscale("eval", stage.folder)
    assert "lost" in path.read_text()
    path.unlink()
    if kept:
        path.write_bytes(kept)
