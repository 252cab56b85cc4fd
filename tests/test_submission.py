"""Results for another person: what `tfscale verify` finds in a folder that was changed after it was written."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from finished import overrides_of
from schemas import checked
from stages import train
from typer.testing import CliRunner

from tfscale.analysis.comparison import compare_arms
from tfscale.analysis.formats import to_json
from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.faults import UserFault
from tfscale.plan.plan import Plan, make_plan
from tfscale.results import read_results
from tfscale.stage.result import read_result
from tfscale.submission.verify import verify_submission
from tfscale.submission.write import SUBMISSION_FILE, checksums, write_submission


@pytest.fixture(scope="module")
def plan(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished chain."""
    plan = make_plan(compose(overrides_of(corpus, tmp_path_factory.mktemp("runs"))))
    prepare(plan.corpus.spec, plan.runs / "data")
    assert all(train(stage) for stage in plan.stages)
    return plan


@pytest.fixture(scope="module")
def written(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    (folder / "table.json").write_text(to_json(compare_arms(plan.arms, "a chain")))
    write_submission(plan, [folder / "table.json"], "tfscale compare", folder / "submission")
    return folder / "submission"


@pytest.fixture
def submission(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "submission"))


def sign(folder: Path) -> None:
    """Lists the files as they are now, as a forger would."""
    record = json.loads((folder / SUBMISSION_FILE).read_text())
    (folder / SUBMISSION_FILE).write_text(json.dumps(record | {"files": checksums(folder)}))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def lower_a_loss(folder: Path) -> None:
    """In every record of the stage, but not in the comparison."""
    stage = max((folder / "stages").iterdir())
    loss = read_result(stage).evaluation.loss
    for name in ("done.json", "metrics.jsonl"):
        change(stage / name, str(loss), str(loss - 0.5))
    (stage / "heldout.json").unlink()


def repeat_a_stage(folder: Path) -> None:
    [record] = (folder / "experiments").iterdir()
    values = json.loads(record.read_text())
    values["arms"][0]["stages"] *= 2
    record.write_text(json.dumps(values))


def read_elsewhere(folder: Path) -> None:
    grown = next(path for path in (folder / "stages").iterdir() if (path / "growth.json").exists())
    parent = json.loads((grown / "stage.yaml").read_text())["parent_dir"]
    change(grown / "stage.yaml", json.dumps(parent), json.dumps(f"../../../elsewhere/{Path(parent).name}"))


def test_a_submission_is_sound_and_a_runs_folder(plan: Plan, submission: Path) -> None:
    assert verify_submission(submission) == []
    assert list(read_results(submission).stages["perplexity"]) == [
        read_result(stage.path).evaluation.perplexity for stage in plan.stages
    ]
    sign(submission)
    assert verify_submission(submission) == []


def test_changed_missing_and_added_files_are_named(submission: Path) -> None:
    done, metrics = (next(submission.rglob(name)) for name in ("done.json", "metrics.jsonl"))
    done.write_text(done.read_text() + " ")
    metrics.unlink()
    (submission / "notes.txt").write_text("mine")
    found = " ".join(verify_submission(submission))
    assert f"{done}: the content has changed since it was written" in found
    assert f"{metrics}: missing, but submission.json lists it" in found
    assert f"{submission / 'notes.txt'}: not listed in submission.json" in found


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (lower_a_loss, r"table.json: growths\[.\].loss_.* is .*, but by the records of the stages it is"),
        (lambda folder: change(next(folder.rglob("table.json")), '"cumulative_tokens": 2048', '"cumulative_tokens": 2'),
         r"table.json: rows\[0\].cumulative_tokens is 2, but by the records of the stages it is 2048"),
        (lambda folder: change(next(folder.rglob("stage.yaml")), '"lr": 0.0', '"lr": 0.1'), "describes the stage"),
        (lambda folder: shutil.rmtree(min((folder / "stages").iterdir())), "the stage is missing or not finished"),
        (repeat_a_stage, "the arm progressive has two stages of the same size and seed"),
        (read_elsewhere, "parent_dir is ../../../elsewhere/.*, but it must be a folder in the submission"),
        (lambda folder: (folder / "link").symlink_to("/"), "is a symbolic link"),
    ],
    ids=["loss", "table", "setting", "stage", "twice", "parent", "link"],
)  # fmt: skip
def test_forged_records_contradict_each_other(submission: Path, forge: Callable[[Path], object], says: str) -> None:
    forge(submission)
    sign(submission)
    answer = CliRunner().invoke(app, ["verify", str(submission), "--json"])
    assert answer.exit_code == 1
    assert any(re.search(says, finding) for finding in checked("verify", answer.stdout)["findings"])


def test_folders_and_stages_that_cannot_be_submitted_are_told_before_anything_is_written(
    plan: Plan, tmp_path: Path
) -> None:
    with pytest.raises(UserFault, match=r"--submit=.*: must not exist; try another folder"):
        write_submission(plan, [], "", tmp_path)
    with pytest.raises(UserFault, match=r"DIR=.*: must be a folder with a submission\.json"):
        CliRunner().invoke(app, ["verify", str(tmp_path)], catch_exceptions=False)
    done = plan.stages[-1].path / "done.json"
    done.rename(tmp_path / "done.json")
    with pytest.raises(UserFault, match=f"needs these unfinished stages: {plan.stages[-1].path.name}; try --run-miss"):
        write_submission(plan, [], "", tmp_path / "out")
    (tmp_path / "done.json").rename(done)
    assert not (tmp_path / "out").exists()
