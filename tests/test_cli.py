"""Tests of the command line from a user's point of view."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stages import planned, train

from tfscale.cli.main import app
from tfscale.cli.streams import in_words
from tfscale.config.compose import compose
from tfscale.plan.plan import make_plan

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="requires a machine without CUDA")


def tfscale(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tfscale.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_help_lists_every_verb_and_loads_neither_torch_nor_mlflow() -> None:
    shown = tfscale("--help")
    for verb in ("run", "plan", "compare", "tune", "status", "grow", "generate", "import", "export", "eval", "ui"):
        assert f"\n  {verb} " in shown.stdout
    code = "import sys, tfscale.cli.main; print(*({'torch', 'mlflow', 'hydra', 'numpy'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


@pytest.mark.parametrize("arguments", [["run", "schedule=progresive_tiny", "trian.lr=1"], ["rnu"]])
def test_a_users_fault_ends_the_process_with_exit_2_and_no_traceback(arguments: list[str], tmp_path: Path) -> None:
    answer = tfscale(*arguments, cwd=tmp_path)
    assert answer.returncode == 2, answer.stdout
    assert answer.stderr.strip()
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "schedule=progresive_tiny"],
        ["run", "schedule=progressive_tiny", "trian.lr=1"],
        ["run", "schedule.stages.stage2.qkv=1"],
        ["run", "data=text", "data.path=nowhere"],
        ["run", "runs=/proc/nowhere"],
        ["run", "schedule=progressive_1b4"],
        ["run", "tracking.uri=nonsense"],
        ["run", "tracking.uri=foo://bar"],
        pytest.param(["run", "launcher.device=cuda"], marks=without_cuda),
        pytest.param(["plan", "launcher.device=cuda"], marks=without_cuda),
        ["compare", "--baseline", "scrach"],
        ["compare"],
        ["compare", "baseline=scratch"],
        ["generate", "nothing"],
        ["grow", "nothing", "--to", "x", "--qkv", "99"],
        ["plan", "--config-dir", "nowhere"],
        ["rnu"],
        ["run", "--quick"],
    ],
)
def test_a_users_fault_is_told_with_exit_2_and_nothing_is_written(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_words(lambda: app(arguments, prog_name="tfscale")) == 2
    told = capfd.readouterr().err
    assert told.strip()
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_plan_prints_the_papers_sizes_and_writes_nothing(tmp_path: Path) -> None:
    shown = tfscale("plan", "schedule=progressive_1b4", "baseline=scratch", cwd=tmp_path)
    assert shown.returncode == 0
    for size in ("124M", "354M", "754M", "1.31B"):
        assert size in shown.stdout
    assert "missing" in shown.stdout
    assert not list(tmp_path.iterdir())


def test_a_finished_stage_writes_grows_and_shows_its_status(
    short: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for stage in planned(short):
        assert train(stage)
    plan = make_plan(compose(short))
    stage = plan.chain.stages[0]

    def here(*arguments: str) -> tuple[int, str, str]:
        code = in_words(lambda: app(arguments, prog_name="tfscale"))
        return code, *capfd.readouterr()

    generate = ("generate", stage.key, "the model", f"runs={plan.runs}", "--tokens", "40", "--seed", "3")
    first = tfscale(*generate)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("the model")
    assert here(*generate)[1] == first.stdout
    grow = ("grow", stage.key, "--qkv", "12", "--to", str(tmp_path / "grown"), *short, "growth=exact")
    assert here(*grow)[0] == 0
    assert (tmp_path / "grown" / "manifest.json").exists()
    code, _, told = here(*grow)
    assert code == 2
    assert "must not exist yet" in told
    assert here("status", *short)[1].count("done") == 2


def test_it_runs_from_any_folder_with_conf_inside_the_wheel(tmp_path: Path) -> None:
    """The wheel contains conf/, so a wheel built from this tree composes without a source tree."""
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(root)],
        check=True,
    )
    site = tmp_path / "site"
    wheel = next(tmp_path.glob("*.whl"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import tfscale; from tfscale.config.compose import compose; from tfscale.config.folders import conf_dir\n"
        "print(tfscale.__file__, conf_dir(), compose(['schedule=progressive_1b4']).schedule.name)"
    )
    shown = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.split() == [
        str(site / "tfscale" / "__init__.py"),
        str(site / "tfscale" / "conf"),
        "progressive_1b4",
    ]
