"""Tests of `--groups`, which evaluates, generates with and exports the first groups of a model that grew by groups."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from finished import finished, overrides_of
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.faults import UserFault
from tfscale.interop.exported import read_exported
from tfscale.interop.finished import model_of, open_finished, with_groups
from tfscale.interop.perplexity import score_heldout
from tfscale.models.counts import parameters
from tfscale.plan.plan import Plan
from tfscale.stage.evaluations import read_evaluations


@pytest.fixture(scope="module")
def plan(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    torch.set_num_threads(1)
    overrides = overrides_of(corpus, tmp_path_factory.mktemp("runs"))
    grouped = [text.replace("growth=exact", "growth=grouped") for text in overrides]
    return finished([*grouped, "growth.new_values=random"])  # so that the second group matters


def tfscale(*arguments: object) -> Any:
    answer = CliRunner().invoke(app, list(map(str, arguments)))
    if answer.exception is not None:
        raise answer.exception
    return json.loads(answer.stdout) if "--json" in arguments else answer.stdout


def test_the_first_groups_are_evaluated_like_a_model_and_not_recorded(plan: Plan) -> None:
    folder = plan.chain.stages[1].path
    [stage] = with_groups([open_finished(folder)], 1)
    assert parameters(stage.model) == parameters(plan.chain.stages[0].spec.model)
    [found] = tfscale("eval", folder, "--groups", 1, "--json")
    assert (found["stage"], found["groups"]) == (folder.name, 1)
    assert found["loss"] == score_heldout(stage, model_of(stage), 32).loss
    [whole] = tfscale("eval", folder, "--groups", 2, "--json")
    assert whole["loss"] == pytest.approx(open_finished(folder).result.evaluation.loss, abs=1e-6)
    assert whole["loss"] != found["loss"]
    assert read_evaluations(folder) == []


def test_the_first_groups_generate(plan: Plan) -> None:
    folder = plan.chain.stages[1].path
    call = ("generate", folder, "the model", "--tokens", 12, "--json")
    [part], [whole] = tfscale(*call, "--groups", 1), tfscale(*call)
    assert part["parameters"] == parameters(plan.chain.stages[0].spec.model) < whole["parameters"]
    assert part["text"] != whole["text"]
    assert part["evaluation"] is None, "that of the whole model is not that of its first groups"


def test_the_first_groups_are_exported_with_the_lineage_of_the_stage(plan: Plan, tmp_path: Path) -> None:
    folder = plan.chain.stages[1].path
    tfscale("export", folder, "--groups", 1, "--out", tmp_path / "hf")
    [stage] = with_groups([open_finished(folder)], 1)
    exported = read_exported(tmp_path / "hf")
    assert exported.model == stage.model
    weights = dict(model_of(stage).named_parameters())
    assert weights.keys() == exported.tensors.keys()
    assert all(torch.equal(exported.tensors[name], weight) for name, weight in weights.items())
    lineage = json.loads((tmp_path / "hf" / "lineage.json").read_text(encoding="utf-8"))
    assert lineage["groups"] == 1
    assert lineage["stages"][-1]["key"] == plan.chain.stages[1].key
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert "the first 1 of 2 groups of parameter tokens" in card
    assert "has not been evaluated" in card


@pytest.mark.parametrize("verb", ["eval", "generate", "export"])
def test_what_has_no_such_groups_is_refused(plan: Plan, tmp_path: Path, verb: str) -> None:
    base, grown, transformer = (stage.path for stage in (*plan.chain.stages[:2], plan.baselines[0].stages[0]))
    out = ("--out", tmp_path / "hf") if verb == "export" else ()
    for groups in (0, 3):
        with pytest.raises(UserFault, match=rf"--groups={groups}: must be from 1 to 2, as .* has 2; try 2"):
            tfscale(verb, grown, *out, "--groups", groups)
    for folder in (base, transformer):
        with pytest.raises(UserFault, match=r"--groups=1: must be used with a TokenFormer that has grown by groups"):
            tfscale(verb, folder, *out, "--groups", 1)
    assert not any(tmp_path.iterdir())


def test_faults_of_all_stages_are_told_together(plan: Plan) -> None:
    with pytest.raises(UserFault) as told:
        tfscale("eval", ",".join(str(stage.path) for stage in plan.chain.stages[:2]), "--groups", 3)
    assert len(told.value.messages) == 2
