"""Tests of export to Hugging Face's libraries and import from them, with transformers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finished import finished, overrides_of
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import tfscale.interop.hf as hf
from tfscale.cli.main import app
from tfscale.data.tokenizer import load_tokenizer
from tfscale.faults import UserFault
from tfscale.interop.adopt import adopt
from tfscale.interop.export import export, sources
from tfscale.interop.exported import read_exported
from tfscale.interop.finished import FinishedStage, model_of, open_finished
from tfscale.models.language_model import LanguageModel
from tfscale.plan.plan import Plan
from tfscale.stage.evaluations import add_evaluation
from tfscale.stage.result import read_result


@pytest.fixture(scope="module")
def plan(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    torch.set_num_threads(1)
    return finished(overrides_of(corpus, tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module", params=["tokenformer", "transformer"])
def stage(plan: Plan, request: pytest.FixtureRequest) -> FinishedStage:
    """A grown TokenFormer, and a Transformer."""
    which = plan.chain.stages[1] if request.param == "tokenformer" else plan.baselines[0].stages[0]
    return open_finished(which.path)


@pytest.fixture(scope="module")
def folder(stage: FinishedStage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "exported-1.0"
    export(stage, out)
    return out


@pytest.fixture
def ours(stage: FinishedStage) -> LanguageModel:
    return model_of(stage)


@pytest.fixture
def theirs(folder: Path) -> hf.TfscaleForCausalLM:
    return AutoModelForCausalLM.from_pretrained(folder)


def some_tokens(batch: int, time: int) -> torch.Tensor:
    return torch.randint(1, 300, (batch, time), generator=torch.Generator().manual_seed(1))


def test_transformers_loads_the_folder(theirs: hf.TfscaleForCausalLM) -> None:
    assert type(theirs) is hf.TfscaleForCausalLM


def test_the_embedding_is_one_tensor_tied_both_ways(theirs: hf.TfscaleForCausalLM, folder: Path) -> None:
    assert theirs.get_output_embeddings().weight is theirs.model.embedding
    theirs.tie_weights()
    assert theirs.get_output_embeddings().weight is theirs.model.embedding
    assert torch.equal(theirs.get_input_embeddings().weight, theirs.model.embedding)
    assert "lm_head.weight" not in read_exported(folder).tensors
    theirs.lm_head.weight.data.mul_(2)
    assert torch.equal(theirs.lm_head.weight, theirs.model.embedding), "also after a change"
    with pytest.raises(ValueError, match="vocabulary"):
        theirs.resize_token_embeddings(400)


def test_it_trains_in_transformers(theirs: hf.TfscaleForCausalLM) -> None:
    tokens = some_tokens(4, 16)
    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        loss = theirs(tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_save_pretrained_and_back_is_bit_equal(
    theirs: hf.TfscaleForCausalLM, ours: LanguageModel, tmp_path: Path
) -> None:
    theirs.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded = dict(again.model.named_parameters())
    assert loaded.keys() == dict(ours.named_parameters()).keys()
    assert all(torch.equal(loaded[name], parameter) for name, parameter in ours.named_parameters())
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text()), "no code lies there"


def test_a_missing_tensor_gets_first_values_and_what_was_there_stays(
    folder: Path, ours: LanguageModel, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    tensors = {f"model.{name}": tensor for name, tensor in read_exported(folder).tensors.items()}
    lost = next(name for name in sorted(tensors) if "blocks.1" in name and "norm" not in name)
    save_file(
        {name: tensor for name, tensor in tensors.items() if name != lost}, tmp_path / "copy" / "model.safetensors"
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "copy")
    for name, parameter in model.model.named_parameters():
        same = torch.equal(parameter, ours.get_parameter(name))
        assert same == (f"model.{name}" != lost), name
    first = model.model.get_parameter(lost.removeprefix("model."))
    assert 0.01 < first.std() < 1


def test_a_model_of_a_config_alone_has_first_values(folder: Path) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        assert "norm" in name or 0.001 < parameter.std() < 0.4, name


def test_the_tokenizer_gives_the_same_tokens_and_text(stage: FinishedStage, folder: Path) -> None:
    text = "The model grows, slowly: é 東京"
    ours, theirs = load_tokenizer(stage.data / "tokenizer.json"), AutoTokenizer.from_pretrained(folder)
    assert theirs(text)["input_ids"] == ours.encode_batch([text])[0]
    assert theirs.decode(theirs(text)["input_ids"]) == text
    assert theirs.eos_token_id == ours.end_of_text_id


def test_the_folder_alone_is_enough_where_there_is_no_tfscale(plan: Plan, tmp_path: Path) -> None:
    """A process that cannot import tfscale loads and saves the model with the code in the folder."""
    stages = [open_finished(stage.path) for stage in (plan.chain.stages[1], plan.baselines[0].stages[0])]
    for number, stage in enumerate(stages):
        export(stage, tmp_path / f"model-{number}.0")
    tokens = some_tokens(1, 12)
    torch.save(tokens, tmp_path / "tokens.pt")
    script = """
import sys, torch
sys.modules["tfscale"] = None  # its import raises ImportError
from transformers import AutoModelForCausalLM
tokens, answers = torch.load("tokens.pt", weights_only=True), []
padded = torch.nn.functional.pad(tokens, (3, 0))
mask = (torch.arange(padded.shape[1]) >= 3).long()[None]
for number in range(2):
    model = AutoModelForCausalLM.from_pretrained(f"./model-{number}.0", trust_remote_code=True)
    model.save_pretrained(f"saved{number}")
    model = AutoModelForCausalLM.from_pretrained(f"./saved{number}", trust_remote_code=True)
    with torch.inference_mode():
        answers += [model(tokens).logits]
        answers += [model.generate(tokens, max_new_tokens=5, do_sample=False, use_cache=kept) for kept in (True, False)]
        answers += [model.generate(padded, attention_mask=mask, max_new_tokens=5, do_sample=False)[:, 3:]]
torch.save(answers, "answers.pt")
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = torch.load(tmp_path / "answers.pt", weights_only=True)
    for number, stage in enumerate(stages):
        logits, cached, recomputed, padded = answers[4 * number : 4 * number + 4]
        with torch.inference_mode():
            assert (logits - model_of(stage)(tokens)).abs().max() < 1e-5
        assert cached.shape == (1, 17)
        assert torch.equal(cached, recomputed)
        assert torch.equal(cached, padded)


def test_the_code_in_the_folder_is_the_projects_own() -> None:
    found = sources()
    package = Path(hf.__file__).parents[1]
    for name, text in found.items():
        assert "tfscale." not in "\n".join(
            line for line in text.splitlines() if line.lstrip().startswith(("from", "import"))
        )
        if name.startswith("tfscale_models_"):
            source = (package / "models" / name.removeprefix("tfscale_models_")).read_text().splitlines()
            assert len(text.splitlines()) == len(source) + 1, "a line of origin, then the file"
    assert "modeling_tfscale.py" in found


def test_an_exported_folder_reads_back_bit_equal(
    stage: FinishedStage, folder: Path, ours: LanguageModel, tmp_path: Path
) -> None:
    found = read_exported(folder)
    assert found.model == stage.spec.model
    adopt(tmp_path / "back", found, corpus=None)
    back = open_finished(tmp_path / "back")
    weights = dict(model_of(back).named_parameters())
    assert all(torch.equal(weights[name], parameter) for name, parameter in ours.named_parameters())
    assert back.result.totals == stage.result.totals, "what it cost came along"
    assert (back.data / "tokenizer.json").read_bytes() == (stage.data / "tokenizer.json").read_bytes()
    export(back, tmp_path / "again")
    assert all(
        torch.equal(found.tensors[name], tensor) for name, tensor in read_exported(tmp_path / "again").tensors.items()
    )


def test_large_weights_are_divided_among_files_that_both_sides_read(
    stage: FinishedStage, ours: LanguageModel, tmp_path: Path
) -> None:
    export(stage, tmp_path / "out", shard_bytes=8000)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    loaded = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "out").model.named_parameters())
    read = read_exported(tmp_path / "out").tensors
    for name, parameter in ours.named_parameters():
        assert torch.equal(loaded[name], parameter)
        assert torch.equal(read[name], parameter)


def test_the_card_and_the_lineage_tell_parents_costs_and_perplexity(plan: Plan, tmp_path: Path) -> None:
    folder = plan.chain.stages[1].path
    add_evaluation(folder, read_result(folder).totals, {"kind": "text", "name": "my.txt", "loss": 2.5257,
        "perplexity": 12.5, "bits_per_byte": 1.5, "tokens": 1000, "context": 32, "stride": 8})  # fmt: skip
    base, grown = (open_finished(stage.path) for stage in plan.chain.stages[:2])
    answer = CliRunner().invoke(
        app, ["export", plan.chain.stages[1].key, "--out", str(tmp_path / "out"), f"runs={plan.runs}"]
    )
    assert answer.exit_code == 0, answer.output
    card, lineage = (
        (tmp_path / "out" / "README.md").read_text(),
        json.loads((tmp_path / "out" / "lineage.json").read_text()),
    )
    assert [each["key"] for each in lineage["stages"]] == [base.result.key, grown.result.key]
    for stage in (base, grown):
        assert stage.folder.name in card
        assert f"{stage.result.evaluation.perplexity:.3f}" in card
        assert f"{stage.result.totals.flops:.3e}" in card
    assert f"{grown.result.totals.flops - base.result.totals.flops:.3e}" in card
    assert "growth `exact`" in card
    assert "| my.txt | perplexity 12.500, 1.5000 bits per byte | 1,000 tokens, windows of 32 every 8 |" in card


def break_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"model_type": "llama"}, "model_type='llama'"),
        ({"tfscale": {"family": "other"}}, "damaged"),
        ({"tfscale": []}, "damaged"),
    ],
)
def test_a_folder_of_another_model_is_refused(
    folder: Path, values: dict[str, object], fault: str, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    break_config(tmp_path / "copy", **values)
    with pytest.raises(UserFault, match=fault):
        read_exported(tmp_path / "copy")


def test_tensors_that_do_not_fit_the_config_are_all_listed(stage: FinishedStage, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    tensors = dict(read_exported(folder).tensors)
    names = sorted(tensors)
    changed = {f"model.{name}": tensor for name, tensor in tensors.items() if name != names[0]}
    changed[f"model.{names[1]}"] = torch.zeros(3, 3)
    save_file({**changed, "model.more": torch.zeros(1)}, tmp_path / "copy" / "model.safetensors")
    with pytest.raises(UserFault) as told:
        read_exported(tmp_path / "copy")
    assert len(told.value.messages) == 3
    assert f"model.{names[0]} is missing" in str(told.value)
    assert f"model.{names[1]} has shape (3, 3)" in str(told.value)
    assert "model.more is not a tensor of the model" in str(told.value)
