"""Tests of the processes that tfscale starts: they are started in one module, run no files of the working folder, and
end with the process that started them."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from finished import overrides_of
from hypothesis import given
from hypothesis import strategies as st
from processes import alive
from shadows import Shadows
from stages import planned, prepare_folder, train, wait_for

import tfscale
from tfscale import children, import_path
from tfscale.config.machines import LauncherPart
from tfscale.end_with_input import until_input_ends
from tfscale.orchestrate.launchers.attempt import Attempt, Ending
from tfscale.orchestrate.launchers.machine import ThisMachine
from tfscale.orchestrate.launchers.processes import stage_command

PACKAGE = Path(tfscale.__file__).parent
STARTERS = {"children.py", "end_with_input.py"}
"""Modules that may start processes: the one that starts all of them, and a child that passes on its environment."""
POOLS = {"bench/apart.py", "data/workers.py"}
"""Modules with process pools of Python, whose processes inherit the environment."""
WORDS = {"PIPE", "DEVNULL", "Popen", "CompletedProcess", "TimeoutExpired", "CalledProcessError"}
"""Names that other modules may import from subprocess: streams, types and errors."""
OS_STARTERS = ("os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.system", "os.popen", "os.startfile")


def starts(tree: ast.Module) -> Iterator[str]:
    """Yield the calls in a module that can start a process."""
    for node in ast.walk(tree):
        names = {name.name for name in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{name}" for name in names} - {f"subprocess.{word}" for word in WORDS}
        for name in names:
            if name.partition(".")[0] in ("subprocess", "multiprocessing", "pty", "asyncio") or "ProcessPool" in name:
                yield name
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "Popen" or called.startswith(OS_STARTERS):
                yield called


def test_every_process_is_started_in_one_place() -> None:
    files = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
    found = {name for name, file in files.items() if any(starts(ast.parse(file.read_text("utf-8"))))}
    assert found == STARTERS | POOLS


@pytest.mark.parametrize(
    "way",
    [
        "import subprocess",
        "from subprocess import run",
        "from subprocess import Popen; Popen([])",
        "import multiprocessing.pool",
        "from concurrent.futures import ProcessPoolExecutor",
        "import os; os.execv('x', [])",
        "import os; os.posix_spawn('x', [], {})",
    ],
)
def test_the_check_finds_every_way_of_starting_a_process(way: str) -> None:
    assert list(starts(ast.parse(way)))


VARIABLES = st.sampled_from(
    [
        *children.REMOVED,
        "TORCHELASTIC_RUN_ID",
        "PET_NNODES",
        "MLFLOW_TRACKING_URI",
        "SLURM_JOB_ID",
        "OMP_NUM_THREADS",
        "A",
    ]
)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=20)


@given(st.dictionaries(VARIABLES, VALUES))
def test_a_child_inherits_all_but_what_is_meant_for_this_process(variables: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        child = children.environment()
        assert not child.keys() & set(children.REMOVED)
        assert not [name for name in child if name.startswith(("TORCHELASTIC_", "PET_", "MLFLOW_T"))]
        for name in ("SLURM_JOB_ID", "OMP_NUM_THREADS", "A", "PATH"):
            assert child.get(name) == os.environ.get(name)
        assert children.environment({"RANK": "3", "A": "x"}).items() >= {("RANK", "3"), ("A", "x")}, "they are set"
        assert children.environment(defaults={"A": "x"})["A"] == variables.get("A", "x")
        told = {name for name in variables if name.startswith("MLFLOW_")}
        assert told <= children.environment(mlflow=True).keys()


@given(st.dictionaries(VARIABLES, VALUES, max_size=5))
def test_a_shell_turns_an_environment_into_that_of_a_child(variables: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        script = "\n".join(
            [*children.shell_lines(), f"exec {sys.executable} -c 'import os; print(ascii(os.environ.copy()))'"]
        )
        said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        seen = ast.literal_eval(said)
        for name in {*variables, *children.QUIET, "PYTHONSAFEPATH", "PYTHONPATH", "PATH"}:
            assert seen.get(name) == children.environment().get(name), name


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ("", []),
        (":{other}", ["{other}"]),
        (".:{other}:", ["{other}"]),
        ("{here}:{other}", ["{other}"]),
        ("{here}/../here", []),
        ("{link}:{other}", ["{other}"]),
        ("part:{other}", ["part", "{other}"]),
    ],
)
def test_the_working_folder_is_no_place_to_import_from(
    told: str, left: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, link = tmp_path / "here", tmp_path / "link"
    here.mkdir()
    link.symlink_to(here)
    places = {"here": here, "link": link, "other": tmp_path / "other"}
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", told.format(**places))
    child = children.environment()
    assert child.get("PYTHONPATH", "") == ":".join(left).format(**places)
    code = "import os, sys; print(os.getcwd() in map(os.path.realpath, sys.path))"
    assert children.run([sys.executable, "-c", code]).stdout == "False\n"


def test_a_source_tree_that_is_run_in_place_is_run_by_its_children_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "tfscale").symlink_to(PACKAGE)
    code = (
        "from tfscale import children;"
        "import sys; print(children.run([sys.executable, '-c', 'import tfscale; print(tfscale.__file__)']).stdout)"
    )
    monkeypatch.delenv("PYTHONPATH", raising=False)
    said = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(tree / "tfscale" / "__init__.py")


@pytest.fixture
def in_shadows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test in a working folder whose files must not be run, with an empty entry in PYTHONPATH, which stands for
    that folder."""
    shadows = Shadows(tmp_path)
    monkeypatch.chdir(shadows.folder)
    monkeypatch.setenv("PYTHONPATH", ":")
    yield
    assert shadows.run() == []


def end_of(attempt: Attempt) -> Ending | None:
    wait_for(lambda: attempt.poll() is not None)
    return attempt.poll()


FINISHED = Ending("finished", "exit code 0")


def test_stages_do_not_run_files_of_the_working_folder(small: list[str], in_shadows: None) -> None:
    first, second = planned(small)[:2]
    for part in (LauncherPart(kind="torchrun", processes=2), LauncherPart()):
        machine = ThisMachine(part)
        stages = (first,) if part.kind == "torchrun" else (second, second)  # the second grows and trains
        for stage in stages:
            prepare_folder(stage)
            [attempt] = machine.start([stage], {})
            assert end_of(attempt) == FINISHED, attempt.log.read_text()


POOL = """
from tfscale.import_path import leave_working_folder
leave_working_folder()  # as the command line does
import os
from tfscale.data import workers
with workers.Workers(2) as two:
    print(two.map(os.path.basename, [("a/b",), ("c/d",)], lambda counts: None, size=workers.POOL_BYTES))
"""


def test_workers_of_a_preparation_do_not_run_files_of_the_working_folder(tmp_path: Path) -> None:
    shadows = Shadows(tmp_path, AFTER_STARTING | {"multiprocessing", "socket", "signal", "pickle"})
    paths = {"PYTHONPATH": f"{PACKAGE.parent}:"}
    command = [sys.executable, "-c", POOL]
    done = subprocess.run(command, cwd=shadows.folder, env=os.environ | paths, capture_output=True, text=True)
    assert shadows.run() == []
    assert (done.stdout, done.stderr) == ("['b', 'd']\n", "")


@pytest.fixture(scope="module")
def chain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """Overrides of a chain, and the name of one of its stages, which is finished."""
    overrides = overrides_of(corpus, tmp_path_factory.mktemp("chain") / "runs")
    stage = planned(overrides)[0]
    assert train(stage)
    return overrides, stage.path.name


AFTER_STARTING = {"random", "statistics", "tempfile", "queue", "hashlib", "torch", "numpy", "yaml", "typer"}
"""Modules that Python has not yet imported when it starts to run a module."""


@pytest.mark.parametrize(
    ("start", "names"),
    [
        ([str(Path(sys.executable).with_name("tfscale"))], None),
        ([sys.executable, "-m", "tfscale.cli"], AFTER_STARTING),
    ],
)
def test_the_command_line_does_not_run_files_of_the_working_folder(
    start: list[str], names: set[str] | None, chain: tuple[list[str], str], tmp_path: Path
) -> None:
    overrides, stage = chain
    shadows, to = Shadows(tmp_path, names), tmp_path / "grown"
    command = [*start, "grow", stage, "--to", str(to), "--qkv=8", *overrides]
    done = subprocess.run(command, cwd=shadows.folder, capture_output=True, text=True, check=False)
    assert shadows.run() == []
    assert done.returncode == 0, done.stderr
    assert to.exists()


def test_this_process_leaves_the_working_folder_alone_where_it_is_installed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = str(Path(os.__file__).parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "elsewhere", library, "site-packages", str(tmp_path)])
    monkeypatch.setattr(os, "environ", {"PYTHONPATH": "."})
    import_path.leave_working_folder()
    assert sys.path == ["elsewhere", library, "site-packages", str(tmp_path)], "an editable installation comes last"
    assert os.environ["PYTHONSAFEPATH"] == "1"
    assert "." not in os.environ["PYTHONPATH"].split(":")


PARENT = "import sys, time; from tfscale import children; children.start(sys.argv[1:]); time.sleep(600)"
FAMILY = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).wait()"


def family(command: list[str], generations: int) -> list[psutil.Process]:
    """Start a process that starts `command` as tfscale does. Return it with all processes below it when there are
    `generations` of them."""
    parent = psutil.Popen([sys.executable, "-c", PARENT, *command])
    wait_for(lambda: len(parent.children(recursive=True)) == generations)
    return [parent, *parent.children(recursive=True)]


def test_a_command_that_runs_until_input_ends_ends_with_all_that_it_has_started_when_its_parent_is_killed() -> None:
    parent, *below = family(until_input_ends([sys.executable, "-c", FAMILY]), 3)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(*below))


INTERRUPTED = """
import sys, time
try:
    print("here", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("tidy", flush=True)
    sys.exit(7)
"""


def test_a_command_that_runs_until_input_ends_gives_its_exit_code() -> None:
    with children.start(until_input_ends([sys.executable, "-c", "import sys; sys.exit(7)"])) as process:
        assert process.wait() == 7


def test_a_command_that_runs_until_input_ends_is_interrupted_before_it_is_killed() -> None:
    with children.start(until_input_ends([sys.executable, "-c", INTERRUPTED]), stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        process.stdin.close()
        assert process.stdout.read() == b"tidy\n"


def test_a_growth_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stage.yaml")  # reading it would block
    parent, growth = family(stage_command("growing", tmp_path), 1)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(growth))


HELD = "import time; from tfscale.end_with_input import end_with_input; end_with_input(); time.sleep(600)"


def test_a_process_that_watches_its_input_ends_with_its_parent() -> None:
    parent, worker = family([sys.executable, "-c", HELD], 1)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(worker))
