"""Tests of output that cannot be written: a full disk, a closed or broken pipe, a closed terminal, an encoding without
some characters. Training must never depend on it."""

import errno
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from finished import overrides_of
from rich.console import Console

from tfscale.cli.streams import Stream, in_words
from tfscale.cli.view import LiveView, PlainView
from tfscale.config.compose import compose
from tfscale.config.folders import conf_dir
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.folder import is_done

COMMAND = [sys.executable, "-m", "tfscale.cli"]
FULL = Path("/dev/full")
NO_ROOM = "standard output: No space left on device"


def shell(line: str, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which "$@" is a tfscale command."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "bash", *COMMAND, *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def two_stages(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a chain of two stages, neither of which is trained."""
    folder = tmp_path_factory.mktemp("output")
    shipped = (conf_dir() / "schedule" / "progressive_tiny.yaml").read_text()
    (folder / "schedule").mkdir()
    (folder / "schedule" / "two.yaml").write_text(shipped.partition("    stage3:")[0])
    overrides = [
        text for text in overrides_of(corpus, folder / "runs") if "stage3" not in text and "stage4" not in text
    ]
    return ["schedule=two", f"--config-dir={folder}", *overrides]


@pytest.fixture(scope="module")
def trained(two_stages: list[str]) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Overrides of the chain, and the result of training it with a full disk for its output."""
    return two_stages, shell('"$@" > /dev/full', ["run", *two_stages])


def plan_of(arguments: list[str]) -> Plan:
    _, folder = arguments[1].split("=")
    return make_plan(compose([arguments[0], *arguments[2:]], Path(folder)))


def elsewhere(arguments: list[str], runs: Path) -> list[str]:
    return [f"runs={runs}" if text.startswith("runs=") else text for text in arguments]


def test_a_run_whose_output_finds_no_room_trains_everything(
    trained: tuple[list[str], subprocess.CompletedProcess[str]],
) -> None:
    """The run also prepares the corpus, and the message must not blame the corpus."""
    arguments, answer = trained
    assert all(is_done(stage) for stage in plan_of(arguments).stages)
    assert answer.returncode == 1
    warning, error = answer.stderr.splitlines()
    assert warning == f"warning: {NO_ROOM}; the command continues without output"
    assert error.startswith(f"error: {NO_ROOM}")
    assert "run the same command again to print it" in error


@pytest.mark.parametrize(
    ("line", "verb", "code", "told"),
    [
        ('"$@" >&-', "run", 1, "error: standard output: the stream is closed"),
        ('"$@" <&- >&- 2>&-', "status", 1, ""),
        ('"$@" 2>&-', "status", 0, ""),
        ('"$@" | true', "status", 1, ""),
        ('"$@" --json > /dev/full', "status", 1, f"error: {NO_ROOM}"),
        ('"$@" --json 2> /dev/full', "status", 0, ""),
        ('"$@" --help > /dev/full', "status", 1, f"error: {NO_ROOM}"),
    ],
)
def test_lost_output_is_told_by_the_exit_code_and_never_by_a_traceback(
    trained: tuple[list[str], subprocess.CompletedProcess[str]], line: str, verb: str, code: int, told: str
) -> None:
    answer = shell(line, [verb, *trained[0]])
    assert answer.returncode == code
    assert answer.stderr.startswith(told)
    assert len(answer.stderr.splitlines()) == bool(told)
    if "--json 2>" in line:
        assert json.loads(answer.stdout)["done"]


def test_a_reader_that_leaves_stops_no_training(
    trained: tuple[list[str], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    before, arguments = plan_of(trained[0]), elsewhere(trained[0], tmp_path)
    shutil.copytree(before.runs, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / before.chain.stages[1].path.relative_to(before.runs))
    answer = shell('"$@" | head -n 1', ["run", *arguments])
    assert all(is_done(stage) for stage in plan_of(arguments).stages)
    assert answer.returncode == 1
    assert answer.stderr == "warning: standard output: Broken pipe; the command continues without output\n"
    assert len(answer.stdout.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_table_has_plain_characters_where_the_encoding_lacks_others(
    trained: tuple[list[str], subprocess.CompletedProcess[str]], encoding: str
) -> None:
    answer = shell('"$@"', ["run", *trained[0]], PYTHONIOENCODING=f"{encoding}:strict")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert " -> " in answer.stdout
    assert "perplexity" in answer.stdout


def test_a_locale_without_an_encoding_shows_names_that_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule" / "größer.yaml").write_text("# Größer → mehr\n", encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    answer = shell('"$@"', ["list", "schedules", "--config-dir", str(tmp_path)], **plain)
    assert answer.returncode == 0
    assert "Gr??er -> mehr" in answer.stdout


def test_a_folder_that_was_removed_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "removed").mkdir()
    answer = shell(f'cd {tmp_path}/removed && rmdir ../removed && "$@"', ["status", f"runs={tmp_path}"])
    assert answer.returncode == 2
    assert (
        answer.stderr
        == "error: the working folder has been removed; change to another folder and run the command again\n"
    )


def test_a_file_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    answer = shell('"$@"', ["bench", "--quick", "--out", str(tmp_path / "a file" / "x")])
    assert answer.returncode == 2
    assert (
        answer.stderr.splitlines()[-1]
        == f"error: --out {tmp_path}/a file/x: cannot be created (Not a directory); name another folder"
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "error: runs/x: Permission denied\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
    ],
)
def test_an_error_of_the_operating_system_is_told_in_a_line(
    error: OSError, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert in_words(fail) == 1
    assert capsys.readouterr().err == told


def test_an_error_that_may_be_ours_keeps_its_traceback() -> None:
    with pytest.raises(OSError, match="a fault of ours"):
        in_words(lambda: (_ for _ in ()).throw(OSError("a fault of ours")))


@contextmanager
def gone() -> Iterator[int]:
    """Yield the file descriptor of a terminal whose other end is closed."""
    master, slave = pty.openpty()
    os.close(master)
    yield slave
    os.close(slave)


@contextmanager
def full() -> Iterator[int]:
    with FULL.open("wb") as file:
        yield file.fileno()


@contextmanager
def unread() -> Iterator[int]:
    """Yield the file descriptor of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextmanager
def reading_only() -> Iterator[int]:
    with Path(os.devnull).open("rb") as file:
        yield file.fileno()


@pytest.mark.parametrize(
    ("broken", "code"),
    [(gone, errno.EIO), (full, errno.ENOSPC), (unread, errno.EPIPE), (reading_only, errno.EBADF)],
    ids=["terminal gone", "disk full", "pipe unread", "not for writing"],
)
def test_a_view_goes_on_when_its_stream_is_broken(
    broken: object, code: int, two_stages: list[str], tmp_path: Path
) -> None:
    plan = plan_of(elsewhere(two_stages, tmp_path))
    with broken() as number:  # type: ignore[operator]
        stream = Stream(number)
        file = io.TextIOWrapper(io.BufferedWriter(stream), encoding="ascii", errors="tfscale")
        console = Console(file=file, force_terminal=True, width=80, height=24, legacy_windows=False)
        for view in (LiveView(plan, console), PlainView(plan, console)):
            with view:
                view.started(plan.stages[0], "training")
                view.tick()
                view.retrying(plan.stages[0], "again")
                view.finished(plan.stages[0])
        assert stream.lost is not None
        assert stream.lost.errno == code
        file.close()


def test_a_pipe_that_its_reader_made_non_blocking_gets_all() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found = bytearray()

    def read() -> None:
        while piece := os.read(reader, 1 << 16):
            found.extend(piece)

    thread = threading.Thread(target=read)
    stream, text = Stream(writer), b"x" * 1_000_000
    threading.Timer(0.2, thread.start).start()
    file = io.BufferedWriter(stream)
    file.write(text)
    file.flush()
    os.close(writer)
    thread.join()
    os.close(reader)
    assert bytes(found) == text
    assert stream.lost is None
