"""Tests of shell completion, with requests as bash makes them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tfscale.cli.main import main

Ask = Callable[..., list[str]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return the completions of the last of the words into which bash has split a line."""

    def asked(*words: str) -> list[str]:
        monkeypatch.setenv("_TFSCALE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(("tfscale", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        monkeypatch.setattr(sys, "argv", ["tfscale"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (None, 0)
        return capsys.readouterr().out.split()

    return asked


def test_groups_and_their_names(ask: Ask) -> None:
    assert "growth=" in ask("run", "gro")
    assert {"exact", "grouped", "paper", "split"} <= set(ask("run", "growth", "="))
    assert ask("run", "growth", "=", "ex") == ["exact"]
    assert ask("run", "growth=ex") == ["growth=exact"]  # request of a shell that does not split words at =


def test_keys_as_far_as_the_next_dot_and_the_last_with_its_values(ask: Ask) -> None:
    assert "schedule.stages=" in ask("run", "schedule.")
    assert set(ask("run", "launcher.s")) == {"launcher.slurm.", "launcher.sharding="}
    assert ask("run", "launcher.sh") == [
        "launcher.sharding=",
        *(f"launcher.sharding={value}" for value in ("auto", "none", "full", "hybrid")),
    ]


def test_values_of_a_choice(ask: Ask) -> None:
    assert ask("run", "optim.lr_schedule", "=") == ["cosine", "wsd", "constant"]
    assert ask("plan", "schedule.rehearse", "=", "t") == ["true"]
    assert ask("plan", "schedule.growth_tokens", "=") == []


def test_ones_own_files_stages_and_verbs(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "optim").mkdir(parents=True)
    (tmp_path / "conf" / "optim" / "mine.yaml").write_text("lr: 1e-3\n")
    (tmp_path / "runs" / "stages" / "tokenformer-24.7K-abc").mkdir(parents=True)
    assert ask("run", "optim", "=", "m") == ["mine", "muon"]
    assert ask("generate", "tok") == ["tokenformer-24.7K-abc"]
    assert ask("eval", "tokenformer-24.7K-abc,ch") == ["tokenformer-24.7K-abc,chain"]
    assert "scratch" in ask("compare", "--baseline", "scr")
    assert ask("list", "sch") == ["schedule"]
    assert ask("stat") == ["status"]


def test_bash_itself_completes_and_neither_torch_nor_hydra_is_loaded(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from tfscale.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'hydra', 'mlflow', 'numpy'} & set(sys.modules)\n"
    )
    (tmp_path / "tfscale").write_text(f"#!{sys.executable}\n{code}")
    (tmp_path / "tfscale").chmod(0o755)
    script = (
        "source <(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 _TFSCALE_COMPLETE=source_bash tfscale)\n"
        "COMP_WORDS=(tfscale run growth = s); COMP_CWORD=4\n"
        "_tfscale_completion tfscale; echo ${COMPREPLY[@]}\n"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert shown.stdout.split() == ["split"]
    assert shown.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_what_other_shells_ask_is_answered(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"_TFSCALE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "tfscale run growth=s"}
    for name, value in {**asked, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["tfscale"])
    with pytest.raises(SystemExit):
        main()
    assert re.findall(r"growth=\w+", capsys.readouterr().out) == ["growth=split"]


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_itself_completes() -> None:
    script = (
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 _TFSCALE_COMPLETE=source_fish tfscale | source\n"
        "complete -C 'tfscale run growth=s'\n"
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shown = subprocess.run(["fish", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert shown.stdout.split() == ["growth=split"]
