"""Tests of the location of an invalid value: its file and line."""

from pathlib import Path

import pytest

from tfscale.cli.common import Common
from tfscale.config.folders import conf_dir
from tfscale.config.origins import files_of
from tfscale.faults import UserFault


def faults(overrides: list[str], config_dir: Path | None = None) -> list[str]:
    with pytest.raises(UserFault) as caught:
        Common(overrides, config_dir).plan()
    return caught.value.messages


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Configuration folder with a schedule and an optimizer, each with an invalid value."""
    for group in ("schedule", "optim"):
        (tmp_path / group).mkdir()
    shipped = (conf_dir() / "schedule" / "progressive_tiny.yaml").read_text()
    (tmp_path / "schedule" / "my.yaml").write_text(shipped.replace("qkv: 135", "qkv: 3"))
    (tmp_path / "optim" / "mine.yaml").write_text("# Mine.\nlr: fast\nbatch_tokens: 4096\nmomentum: 0.9\n")
    return tmp_path


def test_a_wrong_value_and_an_unknown_key_are_told_with_file_and_line(own: Path) -> None:
    unknown, wrong = faults(["optim=mine"], own)
    assert unknown.startswith(f"{own / 'optim' / 'mine.yaml'}:4: optim.momentum: unknown key")
    assert wrong.startswith(f"{own / 'optim' / 'mine.yaml'}:2: optim.lr=fast: ")


def test_a_value_that_clashes_with_others_is_told_with_its_line(own: Path) -> None:
    file = own / "schedule" / "my.yaml"
    line = next(n for n, text in enumerate(file.read_text().splitlines(), start=1) if "qkv: 3" in text)
    assert faults(["schedule=my"], own)[0].startswith(f"{file}:{line}: schedule.stages.stage3.qkv=3: ")


def test_a_value_of_the_command_line_has_no_line(own: Path) -> None:
    assert faults(["optim.lr=quick"])[0].startswith("optim.lr=quick: ")
    assert faults(["optim=mine", "optim.lr=quick"], own)[1].startswith("optim.lr=quick: ")


def test_a_path_below_the_current_folder_is_short(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    assert faults(["optim=mine"], own)[1].startswith("optim/mine.yaml:2: ")


def test_the_files_are_those_that_hydra_merges_in_their_order(own: Path) -> None:
    (own / "optim" / "mine.yaml").write_text("defaults:\n  - tiny\nlr: 1e-3\n")
    files = files_of(["schedule=my", "optim=mine", "baseline=[scratch,paper]", "seed=3"], own)
    names = [f"{file.path.parent.name}/{file.path.stem}" for file in files]
    assert (
        names.index("optim/tiny") < names.index("optim/mine") < names.index("schedule/my") < names.index("conf/config")
    )
    assert [file.path.stem for file in files if file.named and file.path.parent.name == "baseline"] == [
        "scratch",
        "paper",
    ]
    assert {file.path.parent.name: file.package for file in files}["schedule"] == ""
