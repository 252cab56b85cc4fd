"""Tests of preparation in parts: with several processes, killed and resumed, and with metadata from stored results."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from processes import command_line, pid_is_alive
from stages import wait_for

from tfscale import files
from tfscale.cli.data import progress_words
from tfscale.data import assemble, duplicates, readers, workers
from tfscale.data import prepare as preparing
from tfscale.data.errors import DataError
from tfscale.data.prepare import prepare
from tfscale.data.progress import Report
from tfscale.data.sources import KNOWN, CorpusSpec, fingerprint
from tfscale.data.stored import stored, unfinished
from tfscale.data.tokenizer import TokenizerSpec

SMALL = {"PART_BYTES": 3000, "SHARD_TOKENS": 900, "RANGE_DOCUMENTS": 64, "POOL_BYTES": 1}
"""Sizes with which a few kilobytes of text make many parts, shards and ranges."""


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with 600 documents in three files, of which a hundred are duplicates and some are empty."""
    folder = tmp_path_factory.mktemp("text")
    draw = random.Random(0)  # noqa: S311
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "☃"]
    documents = [f"{n} " + " ".join(draw.choices(words, k=draw.randint(1, 12))) for n in range(500)]
    documents += [*draw.sample(documents, 100), "", " \n"]
    draw.shuffle(documents)
    for number in range(3):
        lines = (json.dumps({"text": document}) + "\n" for document in documents[number::3])
        (folder / f"{number}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def spec_of(text: Path, vocab_size: int = 280) -> CorpusSpec:
    return CorpusSpec("text", TokenizerSpec("bpe", vocab_size), path=str(text), heldout_fraction=0.1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PART_BYTES", SMALL["PART_BYTES"])
    monkeypatch.setattr(assemble, "SHARD_TOKENS", SMALL["SHARD_TOKENS"])
    monkeypatch.setattr(duplicates, "RANGE_DOCUMENTS", SMALL["RANGE_DOCUMENTS"])
    monkeypatch.setattr(workers, "POOL_BYTES", SMALL["POOL_BYTES"])


@pytest.fixture
def expected(text: Path, tmp_path: Path, small: None) -> dict[str, bytes]:
    """Files of the corpus after a preparation by one process without interruption."""
    return files_of(prepare(spec_of(text), tmp_path / "expected", workers=1).folder)


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


PREPARE = f"""
import os, signal, sys
from pathlib import Path
from tfscale.data import assemble, duplicates, readers, workers
from tfscale.data.prepare import prepare
from tfscale.data.sources import CorpusSpec
from tfscale.data.tokenizer import TokenizerSpec

readers.PART_BYTES, assemble.SHARD_TOKENS, duplicates.RANGE_DOCUMENTS, workers.POOL_BYTES = {tuple(SMALL.values())}
text, root, processes, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
reports = 0

def watch(report):
    global reports
    reports += 1
    print(report.phase, report.found, flush=True)
    if reports == last:
        import psutil
        print("children", *(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

prepare(CorpusSpec("text", TokenizerSpec("bpe", 280), path=text, heldout_fraction=0.1), root, watch, processes)
"""


def run(text: Path, root: Path, processes: int, last: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PREPARE, str(text), str(root), str(processes), str(last)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_parts_and_ranges_change_nothing(
    text: Path, tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PART_BYTES", 1 << 26)
    monkeypatch.setattr(duplicates, "RANGE_DOCUMENTS", 1 << 20)
    assert files_of(prepare(spec_of(text), tmp_path / "whole").folder) == expected
    assert sum(name.startswith("train") for name in expected) > 3
    assert json.loads(expected["manifest.json"])["duplicates"] == 100


def test_two_processes_make_what_one_makes(text: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    assert run(text, tmp_path / "data", processes=2).returncode == 0
    (folder,) = (tmp_path / "data").iterdir()
    assert files_of(folder) == expected


def test_a_preparation_that_is_killed_at_every_step_ends_with_the_same_bytes(
    text: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    root = tmp_path / "data"
    kills = 0
    for last in range(2, 40):
        done = run(text, root, processes=1, last=last)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
        assert len(unfinished(root)) == 1
        assert not stored(root)
    assert kills > 5
    found = {line.rsplit(" ", 1)[0] for line in done.stdout.splitlines() if int(line.rsplit(" ", 1)[1])}
    assert {"reading documents", "tokenizing"} <= found, "what was done was not done again"
    (folder,) = root.iterdir()
    assert files_of(folder) == expected


def test_processes_end_with_the_one_that_started_them(text: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    root = tmp_path / "data"
    killed = run(text, root, processes=2, last=4)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    children = [int(pid) for pid in killed.stdout.splitlines()[-1].split()[1:]]
    assert children
    wait_for(lambda: not any(pid_is_alive(pid) for pid in children))
    assert run(text, root, processes=2).returncode == 0
    assert files_of(next(root.iterdir())) == expected


def test_a_piece_that_was_cut_short_or_changed_is_made_again(
    text: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    root = tmp_path / "data"
    assert run(text, root, processes=1, last=9).returncode == -signal.SIGKILL
    (left,) = unfinished(root)
    pieces = sorted(file for file in left.iterdir() if file.name.startswith(("scan", "train", "heldout-", "dup")))
    assert len(pieces) > 20
    for number, file in enumerate(pieces):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2] if number % 2 else bytes(len(content)))
    assert run(text, root, processes=1).returncode == 0
    assert files_of(next(root.iterdir())) == expected


@pytest.mark.parametrize("noticed", ["during a phase", "between two phases"])
def test_a_killed_process_is_told_and_what_is_done_stays(text: Path, tmp_path: Path, small: None, noticed: str) -> None:
    killed: list[psutil.Process] = []

    def kill_one(report: Report) -> None:
        if report.phase == "tokenizing" and not killed:
            ours = psutil.Process().children(recursive=True)
            killed.extend(each for each in ours if "spawn_main" in " ".join(command_line(each)))
            killed[0].kill()
            if noticed == "between two phases":
                psutil.wait_procs(killed, timeout=60)  # the executor ends the other processes when it finds one dead

    with pytest.raises(DataError, match="was killed, possibly because memory ran out"):
        prepare(spec_of(text), tmp_path, kill_one, workers=2)
    reports: list[Report] = []
    prepare(spec_of(text), tmp_path, reports.append, workers=1)
    assert max(report.found for report in reports if report.phase == "reading documents") > 0


def test_a_large_corpus_learns_its_tokenizer_from_a_sample(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare(spec_of(text), tmp_path / "whole").manifest
    monkeypatch.setattr(preparing, "TOKENIZER_SAMPLE_BYTES", whole.train.utf8_bytes // 3)
    some, again = (prepare(spec_of(text, 265), tmp_path / name).manifest for name in ("some", "again"))
    assert some == again
    assert some.content_sha256 == whole.content_sha256
    monkeypatch.setattr(preparing, "TOKENIZER_SAMPLE_BYTES", 10)
    with pytest.raises(DataError, match="corpus is too small"):
        prepare(spec_of(text, 280), tmp_path / "none")


def test_large_files_are_hashed_once_and_again_when_they_change(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGE", 1)
    (tmp_path / "text").mkdir()
    for file in text.iterdir():
        (tmp_path / "text" / file.name).write_bytes(file.read_bytes())
        os.utime(tmp_path / "text" / file.name, (1e9, 1e9))
    spec, root = spec_of(tmp_path / "text"), tmp_path / "data"
    key = fingerprint(spec, root)
    hashed: list[Path] = []
    read = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda file: hashed.append(file) or read(file))
    assert fingerprint(spec, root) == key
    assert not hashed, "known from the first time"
    assert [folder.name for folder in root.iterdir()] == [KNOWN]
    file = tmp_path / "text" / "1.jsonl"
    file.write_bytes(file.read_bytes().replace(b"alpha", b"ALPHA"))
    changed = fingerprint(spec, root)
    assert changed != key
    assert len(hashed) == 3
    assert fingerprint(spec, root) == changed
    assert len(hashed) == 6, "a file that was written just now may change without its time changing"
    os.utime(file, (2e9 - 1e9, 1.2e9))
    fingerprint(spec, root)
    fingerprint(spec, root)
    assert len(hashed) == 9


def test_what_is_remembered_is_no_more_than_a_hint(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGE", 1)
    monkeypatch.setattr(files, "SETTLED_SECONDS", -1e9)
    spec = spec_of(text)
    key = fingerprint(spec, tmp_path)
    (remembered,) = (tmp_path / KNOWN).iterdir()
    remembered.unlink()
    assert fingerprint(spec, tmp_path) == key
    remembered.write_bytes(b"\xff")
    assert fingerprint(spec, tmp_path) == key
    (tmp_path / "file").write_text("in the way")
    assert fingerprint(spec, tmp_path / "file") == key, "a folder that cannot be written is no fault"


def test_a_large_prepared_corpus_is_read_again_only_when_its_files_change(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGE", 1)
    monkeypatch.setattr(files, "SETTLED_SECONDS", -1e9)
    spec = spec_of(text)
    folder = prepare(spec, tmp_path).folder
    hashed: list[Path] = []
    read = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda file: hashed.append(file) or read(file))
    prepare(spec, tmp_path)
    assert not hashed
    shard = folder / "train-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-2] ^= 1
    shard.write_bytes(content)
    os.utime(shard, (1e9, 1e9))
    with pytest.raises(DataError, match="the file has changed since it was written"):
        prepare(spec, tmp_path)


def test_progress_says_how_fast_it_is_and_how_long_it_takes_yet() -> None:
    report = Report("tokenizing", done=6 * 10**9, total=10**10, found=5 * 10**9, documents=1000, tokens=250_000_000)
    words = progress_words(report, 500)
    assert words == "6.0 of 10.0 GB, 1,000 documents, 250M tokens at 500K/s, 33 min left"
    assert progress_words(Report("training the tokenizer"), 500) == ""
    assert "left" not in progress_words(replace(report, done=report.found), 500), "what was found says nothing of speed"
