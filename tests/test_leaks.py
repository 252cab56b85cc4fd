"""Tests that files meant for sharing do not name folders, users or hosts of the machine on which they were made."""

import base64
import gzip
import io
import json
import re
import shutil
import socket
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from test_interop_init_from import GOLDEN, SCHEDULE
from typer.testing import CliRunner

from tfscale.analysis.formats import to_json
from tfscale.cli.common import Common
from tfscale.cli.compare import compare_plan, plan_with
from tfscale.cli.main import app
from tfscale.config.sharing import shareable_overrides, shareable_path, shareable_settings
from tfscale.interop.adopt import adopt
from tfscale.interop.exported import read_exported
from tfscale.interop.official import read_official
from tfscale.submission.write import write_submission

NAME = "Zq7private"
"""Part of the names of the working folder, its contents, the user and the host."""


def contents(raw: bytes) -> Iterator[bytes]:
    """Yield the bytes of a file, and the contents that are compressed or encoded in it."""
    yield raw
    with suppress(OSError, EOFError, zlib.error):
        yield gzip.decompress(raw)
    if raw.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                yield from contents(archive.read(name))
    for stream in re.finditer(rb"x[\x01\x5e\x9c\xda]", raw) if raw.startswith((b"%PDF", b"\x89PNG")) else ():
        with suppress(zlib.error):
            yield zlib.decompressobj().decompress(raw[stream.start() :])
    for text in re.findall(rb"base64,([A-Za-z0-9+/=]+)", raw):
        yield from contents(base64.b64decode(text))
    for width in ("utf-16-le", "utf-16-be"):
        if NAME.encode(width) in raw:
            yield NAME.encode()


def leaks(folder: Path) -> list[str]:
    """Return the files below a folder that contain the name, each with the surrounding text."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for content in contents(path.read_bytes()):
            start = content.lower().find(NAME.lower().encode())
            if start >= 0:
                found.append(f"{path.relative_to(folder)}: {content[max(0, start - 60) : start + 60]!r}")
    return found


@pytest.mark.parametrize(
    "packed",
    [
        b"at /home/Zq7private/x",
        gzip.compress(b"at /home/Zq7private/x"),
        b"%PDF-1.4 stream\n" + zlib.compress(b"/home/zq7private/x") + b"\nendstream",
        b"\x89PNG zTXt" + zlib.compress(b"/home/Zq7private/x"),
        b'<img src="data:image/svg+xml;base64,' + base64.b64encode(b"<svg>/home/Zq7private</svg>") + b'">',
        "Zq7private".encode("utf-16-le"),
    ],
    ids=["plain", "gzip", "pdf", "png", "data-uri", "utf-16"],
)
def test_the_search_finds_the_name_in_whatever_it_is_packed(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(packed)
    assert leaks(tmp_path)


def test_the_search_finds_the_name_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "at /home/Zq7private/x" * 100)
    assert leaks(tmp_path)


def call(*arguments: object) -> str:
    answer = CliRunner().invoke(app, [str(each) for each in arguments])
    assert answer.exit_code == 0, (arguments, answer.output, answer.exception)
    return answer.output


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Iterator[Path]:
    """Working folder of a user with a recognisable name, with a finished chain from imported weights."""
    folder = tmp_path_factory.mktemp("home") / f"{NAME}-place"
    (folder / "conf" / "schedule").mkdir(parents=True)
    (folder / "conf" / "schedule" / "released.yaml").write_text(SCHEDULE.strip())
    shutil.copytree(corpus, folder / "corpus")
    (folder / NAME).mkdir()
    (imported := released(folder)).parent.mkdir()
    adopt(imported, read_official(GOLDEN / "pytorch_model.bin", GOLDEN / "config.yml"), corpus=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for variable in ("USER", "LOGNAME"):
            patch.setenv(variable, f"{NAME}-user")
        call("run", *overrides(folder))
        host = json.dumps(socket.gethostname()).encode()
        for path in (folder / "runs" / "stages").rglob("*.json*"):  # replaces the host name, which cannot be changed
            path.write_bytes(path.read_bytes().replace(host, f'"{NAME}-host"'.encode()))
        yield folder


def released(folder: Path) -> Path:
    """Return the folder of the imported weights, which is outside the working folder."""
    return folder.with_name(f"{NAME}-imports") / "released"


def overrides(folder: Path) -> list[str]:
    return [
        "schedule=released", f"runs={folder / 'runs'}", f"data.path={folder / 'corpus'}", "data.vocab_size=300",
        "data.validation_tokens=1024", "optim.batch_tokens=256", "launcher.threads=1", "tracking=none",
        f"init_from={released(folder)}", "--config-dir", str(folder / "conf"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def chain(private: Path) -> list[str]:
    return overrides(private)


@pytest.fixture(scope="module")
def compared(private: Path, chain: list[str]) -> Path:
    """Folder of the chain's comparison, with its report."""
    call("compare", "--baseline", "tokenformer", *chain)
    call("report", "--baseline", "tokenformer", *chain)
    (report,) = (private / "runs" / "comparisons").rglob("report.html")
    return report.parent


def stage_folders(private: Path) -> list[Path]:
    return sorted((private / "runs" / "stages").iterdir())


def test_the_stages_themselves_say_where_they_were_run(private: Path) -> None:
    """Otherwise, the tests below could not find any leak."""
    said = "\n".join(leaks(private / "runs" / "stages"))
    assert "stage.yaml" in said
    assert "environment.json" in said
    assert f"{NAME}-host" in said


def test_an_export_says_nothing_of_the_machine(private: Path, chain: list[str], tmp_path: Path) -> None:
    (private / "book.txt").write_text("the model grows from small to large " * 20)
    call("eval", "chain", "--text", private / "book.txt", *chain)
    call("export", "chain", "--out", tmp_path / "exported", *chain)
    call("export", "chain", "--out", private / NAME / "exported", *chain)
    assert leaks(tmp_path / "exported") == []
    assert leaks(private / NAME / "exported") == []
    stages = json.loads((tmp_path / "exported" / "lineage.json").read_text())["stages"]
    assert [stage["spec"]["init_from"] is not None for stage in stages] == [True, False]
    assert not any({"init_dir", "parent_dir", "run"} & stage["spec"].keys() for stage in stages)


def test_a_stage_that_was_imported_says_nothing_of_where_it_was_read(
    private: Path, chain: list[str], tmp_path: Path
) -> None:
    call("export", "chain", "--out", private / NAME / "to-import", *chain)
    adopt(tmp_path / "again", read_exported(private / NAME / "to-import"), corpus=None)
    call("import", private / NAME / "to-import", "--to", tmp_path / "once-more")
    assert leaks(tmp_path) == []


def test_a_comparison_and_its_report_say_nothing_of_the_machine(compared: Path) -> None:
    kinds = {".html", ".png", ".svg", ".pdf", ".csv", ".json", ".md", ".tex", ".txt"}
    assert {path.suffix for path in compared.iterdir()} == kinds
    assert leaks(compared) == []
    page = (compared / "report.html").read_text()
    assert "data.path=corpus" in page, "what is in the working folder is named from there"
    assert "init_from=released" in page, "anything else by its last name"


def test_a_submission_says_nothing_of_the_machine_and_is_verified_elsewhere(
    private: Path, chain: list[str], tmp_path: Path
) -> None:
    plan = plan_with(Common(chain[:-2], private / "conf"), "none")
    (table := private / NAME / "table.json").write_text(to_json(compare_plan(plan)))
    write_submission(plan, [table], "tfscale compare", tmp_path / "submission", checkpoints=True)
    assert list(tmp_path.rglob("step-*/manifest.json"))
    assert leaks(tmp_path) == []
    assert "no problems found" in call("verify", tmp_path / "submission")


@pytest.mark.usefixtures("compared")
def test_the_mlflow_store_that_a_runs_folder_is_sent_to_hears_nothing_of_the_machine(
    private: Path, empty_database: Path, tmp_path: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    call("sync", f"sqlite:///{tmp_path / 'mlflow.db'}", f"runs={private / 'runs'}")
    sent = {path.name for path in (tmp_path / "mlartifacts").rglob("*")}
    assert {"stage.yaml", "environment.json", "done.json", "growth.json", "table.csv", "report.html"} <= sent
    assert leaks(tmp_path) == []
    stage = next((tmp_path / "mlartifacts").rglob("stage.yaml"))
    assert json.loads(stage.read_text())["optimizer"]["lr"] > 0, "what it computes is there"


def test_prepared_tokens_and_checkpoints_say_nothing_of_the_machine(private: Path) -> None:
    (prepared,) = (path.parent for path in (private / "runs" / "data").glob("*/manifest.json"))
    assert leaks(prepared) == []
    for stage in stage_folders(private):
        assert leaks(stage / "checkpoints") == []
        for name in ("done.json", "growth.json", "heldout.json"):
            assert not (stage / name).exists() or NAME not in (stage / name).read_text()


@pytest.mark.parametrize(
    ("typed", "shared"),
    [
        (["runs=/home/Zq7private/r", "tracking.uri=postgresql://Zq7private:pw@h/db", "tracking=none"], []),
        (
            ["launcher.slurm.account=Zq7private", "++runs=/home/Zq7private", "launcher.threads=2"],
            ["launcher.threads=2"],
        ),
        (["data.path=/home/Zq7private/the corpus"], ["data.path=the corpus"]),
        (["data.path='/home/Zq7private/it'"], ["data.path='it'"]),
        (["data.path=~/Zq7private/it", "init_from=../Zq7private/w"], ["data.path=it", "init_from=w"]),
        (["data.path=x/../../Zq7private/it"], ["data.path=it"]),
        (["data={source: text, path: /home/Zq7private/it}"], ["data={source: text, path: it}"]),
        (["reference.arms=[{file: '/home/Zq7private/it', n: 1}]"], ["reference.arms=[{file: 'it', n: 1}]"]),
        (
            ["data.path=text/it", "schedule=two", "optim.lr=1e-3"],
            ["data.path=text/it", "schedule=two", "optim.lr=1e-3"],
        ),
        (["data.dataset=org/name"], ["data.dataset=org/name"]),
    ],
)
def test_overrides_are_shared_without_where(
    typed: list[str], shared: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shareable_overrides(typed) == shared


def test_settings_and_paths_are_shared_without_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shareable_path(tmp_path / "in" / "it") == "in/it"
    assert shareable_path("in/it") == "in/it"
    assert shareable_path("/home/Zq7private/it") == "it"
    settings = {
        "runs": "/r",
        "tracking": {"uri": "x"},
        "launcher": {"slurm": {"qos": "q"}, "threads": 2},
        "data": {"path": "/home/Zq7private/it", "dataset": "org/name"},
        "list": (1, {"a": "~/Zq7private"}),
    }
    assert shareable_settings(settings) == {
        "launcher": {"threads": 2}, "data": {"path": "it", "dataset": "org/name"}, "list": [1, {"a": "Zq7private"}]
    }  # fmt: skip
