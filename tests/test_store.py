"""Tests of the stage store: downloads are complete and unchanged after kills, with several writers, and with files that
were tampered with."""

import errno
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from finished import first_stage, overrides_of
from s3 import s3_server
from stages import wait_for

from tfscale.stage.folder import Stage
from tfscale.store.contents import DONE, SPARED, find_waste, newest, snapshots, verify
from tfscale.store.pusher import Pusher
from tfscale.store.remote import Damaged, Store, StoreError
from tfscale.store.snapshot import read_manifest
from tfscale.store.stages import pull_corpus, pull_stage, push_corpus, push_stage, state_of

OWN = {"lock", "heartbeat", "training.log", "growing.log"}
"""Files that stay on the machine that wrote them."""


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A finished stage, with its corpus, in a runs folder of its own."""
    overrides = overrides_of(corpus, tmp_path_factory.mktemp("trained"))
    return first_stage([*overrides, "launcher.checkpoint_tokens=1024"])


@pytest.fixture
def stage(trained: Stage, tmp_path: Path) -> Stage:
    """A copy of the finished stage that a test may change."""
    shutil.copytree(trained.path.parents[1], tmp_path / "here")
    return replace(trained, path=tmp_path / "here" / "stages" / trained.path.name)


@pytest.fixture
def elsewhere(stage: Stage, tmp_path: Path) -> Stage:
    """The same stage on another machine, which has nothing yet."""
    return replace(stage, path=tmp_path / "there" / "stages" / stage.path.name)


@pytest.fixture
def files(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path / 'store'}")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as uri:
        yield uri


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store in a folder, and one in S3."""
    if request.param == "file":
        return Store(f"file://{tmp_path / 'store'}")
    return Store(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def contents(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name not in OWN}


def problems_of(store: Store) -> list[str]:
    return [problem for each in snapshots(store) if each.complete for problem in verify(store, each)]


def state_in(store: Store, stage: Stage) -> str | None:
    found = newest(snapshots(store, f"stages/{stage.path.name}"))
    return found.name if found else None


def test_a_stage_and_its_corpus_arrive_elsewhere_as_they_were(store: Store, stage: Stage, elsewhere: Stage) -> None:
    corpus = stage.path / stage.spec.run.data_dir
    push_stage(store, stage.path)
    push_corpus(store, corpus.resolve())
    assert pull_stage(store, elsewhere.path, elsewhere.spec) == DONE
    assert pull_corpus(store, elsewhere.path.parents[1] / "data" / corpus.name)
    assert contents(elsewhere.path) == contents(stage.path)
    assert contents(elsewhere.path / elsewhere.spec.run.data_dir) == contents(corpus)
    assert pull_stage(store, elsewhere.path) is None
    assert not problems_of(store)


KILLED = """
import os, signal, sys
from pathlib import Path
from tfscale.store.remote import Store
from tfscale.store.stages import pull_stage, push_stage

verb, uri, folder, whole = sys.argv[1:]
store, left = Store(uri), int(whole)
name = "put_file" if verb == "push" else "get_file"
real = getattr(store._files, name)

def copy(source, target, **options):
    global left
    if left == 0:
        if verb == "pull" or uri.startswith("file:"):
            Path(target).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    real(source, target, **options)

setattr(store._files, name, copy)
(push_stage if verb == "push" else pull_stage)(store, Path(folder))
"""


def killed(verb: str, store: Store, folder: Path, whole: int) -> None:
    """A process that is killed (SIGKILL) after it has copied some files, in the middle of the next one."""
    command = [sys.executable, "-c", KILLED, verb, store.shown, str(folder), str(whole)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def counted(store: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that a store copies from now on."""
    real, copied = getattr(store._files, name), list[str]()

    def copy(source: str, target: str) -> None:
        copied.append(source)
        real(source, target)

    monkeypatch.setattr(store._files, name, copy)
    return copied


def test_an_upload_that_is_killed_shows_nothing_and_is_resumed(
    store: Store, stage: Stage, elsewhere: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed("push", store, stage.path, whole=3)
    assert state_in(store, stage) is None
    assert pull_stage(store, elsewhere.path) is None
    sent = counted(store, "put_file", monkeypatch)
    push_stage(store, stage.path)
    (snapshot,) = snapshots(store)
    assert len(sent) == len(read_manifest(store, snapshot.path).files) - 3, "what had arrived is not sent again"
    assert pull_stage(store, elsewhere.path) == DONE
    assert contents(elsewhere.path) == contents(stage.path)


def test_a_download_that_is_killed_shows_nothing_and_is_resumed(
    files: Store, stage: Stage, elsewhere: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_stage(files, stage.path)
    killed("pull", files, elsewhere.path, whole=3)
    assert not elsewhere.path.exists()
    fetched = counted(files, "get_file", monkeypatch)
    assert pull_stage(files, elsewhere.path) == DONE
    assert len(fetched) == len(contents(stage.path)) - 3, "what had arrived is not fetched again"
    assert contents(elsewhere.path) == contents(stage.path)


def test_two_writers_of_one_key_leave_one_whole_stage(
    store: Store, stage: Stage, elsewhere: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "stages" / stage.path.name
    shutil.copytree(stage.path, other)
    (other / "environment.json").write_text('{"host": "another"}')
    real = store.create

    def create(path: str, content: bytes) -> None:  # the other writer does everything just before the first one ends
        monkeypatch.setattr(store, "create", real)
        push_stage(store, other)
        real(path, content)

    monkeypatch.setattr(store, "create", create)
    push_stage(store, stage.path)
    assert not problems_of(store)
    assert pull_stage(store, elsewhere.path) == DONE
    first = other if store._atomic else stage.path  # a condition lets the first one win, a folder the last one
    assert contents(elsewhere.path) == contents(first)


NO_CONDITIONS = (errno.ENOSYS, "A header you provided implies functionality that is not implemented")
"""Number and message of the error with which s3fs reports that a server does not support a condition."""


@pytest.mark.parametrize(("error", "written"), [(OSError(*NO_CONDITIONS), True), (OSError(errno.EIO, "lost"), False)])
def test_a_manifest_is_written_without_a_condition_only_if_the_server_has_none(
    stage: Stage, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError, written: bool
) -> None:
    store = Store(f"{bucket}/{tmp_path.name}")
    real = store._files.pipe_file

    def pipe(path: str, content: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise error
        real(path, content)

    monkeypatch.setattr(store._files, "pipe_file", pipe)
    with nullcontext() if written else pytest.raises(StoreError, match="lost"):
        push_stage(store, stage.path)
    assert state_in(store, stage) == (DONE if written else None)


def test_a_file_that_was_changed_in_the_store_is_never_installed(
    files: Store, stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    push_stage(files, stage.path)
    weights = max((tmp_path / "store").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    raw = bytearray(weights.read_bytes())
    raw[len(raw) // 2] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(Damaged, match=r"checkpoints/step-\d+/\S+ differs from its checksum"):
        pull_stage(files, elsewhere.path)
    assert not elsewhere.path.exists()
    (problem,) = problems_of(files)
    assert "safetensors differs from its checksum" in problem


def test_a_checkpoint_that_is_damaged_here_is_not_uploaded(files: Store, stage: Stage) -> None:
    weights = max(stage.path.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"safetensors on this machine differs from its checksum"):
        push_stage(files, stage.path)
    assert state_in(files, stage) is None


def test_files_of_another_stage_are_not_taken_for_this_one(files: Store, stage: Stage, elsewhere: Stage) -> None:
    false = stage.path.with_name("tokenformer-0123456789ab")
    stage.path.rename(false)
    push_stage(files, false)
    with pytest.raises(Damaged, match="not those of the stage tokenformer-0123456789ab"):
        pull_stage(files, elsewhere.path.with_name(false.name))
    assert not elsewhere.path.parent.exists()


def test_errors_of_the_store_are_told_once_and_tried_again(
    files: Store, stage: Stage, elsewhere: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = files.put, [OSError("no network"), OSError("no network"), ValueError("a bug")]

    def put(file: Path, path: str) -> None:
        if left:
            raise left.pop(0)
        real(file, path)

    monkeypatch.setattr(files, "put", put)
    told: list[str] = []
    pusher = Pusher(files, [stage.path], None, told.append, seconds=0.01)
    pusher.start()
    wait_for(lambda: not left)
    assert pusher.finish() is None
    assert [re.findall("no network|a bug", text) for text in told] == [["no network"], ["a bug"]]
    assert pull_stage(files, elsewhere.path) == DONE


def test_a_store_that_stays_away_is_told_at_the_end(files: Store, stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    pusher = Pusher(files, [stage.path], None, lambda text: None, seconds=0.001)
    pusher.start()
    assert "store" in (pusher.finish() or "")


def test_only_the_newest_checkpoint_stays_in_the_store_and_here(files: Store, stage: Stage, elsewhere: Stage) -> None:
    result = (stage.path / "done.json").read_bytes()
    (stage.path / "done.json").unlink()
    last = state_of(stage.path)
    assert last is not None
    before = "step-000000000008"
    shutil.copytree(stage.path / "checkpoints" / last, stage.path / "checkpoints" / before)
    (stage.path / "checkpoints" / last).rename(stage.path / "later")
    push_stage(files, stage.path)
    assert pull_stage(files, elsewhere.path, elsewhere.spec) == before
    (stage.path / "later").rename(stage.path / "checkpoints" / last)
    push_stage(files, stage.path)
    assert [snapshot.name for snapshot in snapshots(files)] == [last]
    assert pull_stage(files, elsewhere.path, elsewhere.spec) == last, "a machine that is behind takes the newer one"
    shutil.rmtree(elsewhere.path / "checkpoints" / last)
    shutil.copytree(stage.path / "checkpoints" / last, elsewhere.path / "checkpoints" / "step-000000000017")
    assert pull_stage(files, elsewhere.path, elsewhere.spec) is None, "one that is ahead keeps its own"
    (stage.path / "done.json").write_bytes(result)
    push_stage(files, stage.path)
    assert [snapshot.name for snapshot in snapshots(files)] == [DONE]


def test_a_growth_that_is_not_checked_yet_is_not_uploaded(stage: Stage) -> None:
    for name in ("done.json", "metrics.jsonl"):
        (stage.path / name).unlink()
    assert state_of(stage.path) is None


def test_waste_is_what_no_manifest_names_for_a_day_and_older_checkpoints(
    files: Store, stage: Stage, elsewhere: Stage, tmp_path: Path
) -> None:
    push_stage(files, stage.path)
    folder = tmp_path / "store" / "stages" / stage.path.name
    shutil.copytree(folder / DONE, folder / "step-000000000004")  # a kill before the older one was removed
    killed("push", files, shutil.copytree(stage.path, elsewhere.path.with_name("tokenformer-0123456789ab")), whole=2)
    now = datetime.now(UTC)
    old = {waste.path for waste in find_waste(files, now)}
    assert {path.split("/")[2] for path in old} == {"step-000000000004"}
    later = {waste.path for waste in find_waste(files, now + SPARED + timedelta(hours=1))} - old
    assert len(later) == 3
    assert all(path.startswith("stages/tokenformer-0123456789ab/done/") for path in later)
