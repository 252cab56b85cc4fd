"""Tests of former names of settings."""

from pathlib import Path

import pytest

from tfscale.config import aliases
from tfscale.config.compose import compose
from tfscale.config.keys import known_keys
from tfscale.faults import UserFault


@pytest.fixture(autouse=True)
def unsaid() -> None:
    aliases._note.cache_clear()


def test_every_former_key_has_a_present_one() -> None:
    known = set(known_keys({}))
    assert not known & set(aliases.KEYS)
    assert set(aliases.KEYS.values()) <= known


def test_a_former_key_on_the_command_line_is_accepted_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    experiment = compose(["optim.schedule=wsd", "schedule.grow_when={rule: plateau, looks: 3}"])
    assert (experiment.optim.lr_schedule, experiment.schedule.grow_when.patience) == ("wsd", 3)
    assert capsys.readouterr().err.splitlines() == [
        "note: optim.schedule is now optim.lr_schedule; the old name is accepted until version 0.3",
        "note: schedule.grow_when.looks is now schedule.grow_when.patience; the old name is accepted until version 0.3",
    ]


def test_a_former_key_in_a_file_is_accepted_and_its_faults_have_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "optim").mkdir()
    file = tmp_path / "optim" / "mine.yaml"
    file.write_text("defaults:\n  - tiny\nfloor: 0.25\n")
    assert compose(["optim=mine"], tmp_path).optim.min_lr_ratio == 0.25
    assert compose(["optim=mine", "optim.min_lr_ratio=0.5"], tmp_path).optim.min_lr_ratio == 0.5
    assert capsys.readouterr().err.count("optim.floor is now optim.min_lr_ratio") == 1
    file.write_text("defaults:\n  - tiny\nfloor: 25\n")
    with pytest.raises(UserFault) as caught:
        compose(["optim=mine"], tmp_path)
    assert caught.value.messages[0].startswith(f"{file}:3: optim.min_lr_ratio=25: must be")
