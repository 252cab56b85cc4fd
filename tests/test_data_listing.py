"""Tests that every file of a folder is read, or named with the reason why not."""

import json
import os
import socket
from pathlib import Path

import pytest
from fuzzing import fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from texts import PACK, lines, read_texts
from typer.testing import CliRunner

from tfscale.cli.execute import prepare as prepare_for
from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.data.dataset_files import choose
from tfscale.data.errors import DataError
from tfscale.data.listing import list_text
from tfscale.data.sources import CorpusSpec, find_missing
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import TokenizerSpec
from tfscale.plan.plan import make_plan

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123450\n"
CONTENT = lines([f"document {n} of a folder of many kinds" for n in range(200)])
NAMES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "below/", ".git/", "x.txt/", "__MACOSX/", "deep/.b/c/"]),
        st.sampled_from(["a", "b", "._a", ".hidden", "Ü", "two words", "new\nline", "[red]"]),
        st.sampled_from([".txt", ".TXT", ".jsonl", ".ndjson", ".Json", ".md", "", ".parquet.gz", ".gz", ".csv"]),
        st.sampled_from(["", "", ".gz", ".XZ", ".zst", ".tar.gz"]),
    ),
)


def reasons(folder: Path) -> dict[str, str]:
    return {each.name: each.reason for each in list_text(folder).left_out}


@fuzz(80)
@given(st.sets(NAMES, max_size=8))
@example({"x.txt/a.txt", "x.txt/.hidden.txt"})
def test_every_file_of_a_folder_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    folder = tmp_path_factory.mktemp("text")
    for name in {"always.txt", *names}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PACK.get(Path(name.lower()).suffix, PACK[""])(lines(["text"])))
    listing = list_text(folder)
    read, left_out = {file.name for file in listing.files}, {each.name for each in listing.left_out}
    assert not read & left_out
    assert all(each.reason for each in listing.left_out)
    for name in {"always.txt", *names}:
        above = {f"{parent}/" for parent in map(str, Path(name).parents)}
        assert name in read | left_out or above & left_out
    assert len(read_texts(folder)) == len(read), "each is read"
    assert [file.name for file in listing.files] == sorted(read)
    hub = choose(["README.md", *names, "always.txt"], {}, "data/set", None, "train")
    beside = {name for name in read if name.lower().endswith(".json")}
    assert set(hub) == read - beside, "a dataset of the hub has the same files"


def test_hidden_files_and_metadata_are_left_out_and_named(tmp_path: Path) -> None:
    for name in (".ipynb_checkpoints/a.jsonl", "__MACOSX/a.jsonl", "._a.jsonl", "a.jsonl", "dataset_infos.json",
                 "README.md", "LICENSE", "old.tar.gz"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(lines([name]))
    assert read_texts(tmp_path) == ["a.jsonl"]
    assert reasons(tmp_path) == {
        "._a.jsonl": "hidden",
        ".ipynb_checkpoints/": "hidden",
        "LICENSE": "no extension",
        "README.md": "unsupported format .md",
        "__MACOSX/": "metadata of macOS",
        "dataset_infos.json": "metadata of a dataset",
        "old.tar.gz": "unsupported format .tar.gz",
    }


def test_a_folder_that_is_hidden_itself_is_read_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.txt").write_text("text")
    assert read_texts(tmp_path / ".cache") == ["text"]
    with pytest.raises(DataError, match=r"none were found \(skipped: \.cache/ \(hidden\)\)"):
        list_text(tmp_path)


def test_settings_beside_the_text_of_a_hub_data_set_are_not_taken_for_text() -> None:
    names = ["README.md", "dataset_infos.json", "data/train.parquet", "vocab.json", ".cache/train.jsonl"]
    assert choose(names, {}, "data/set", None, "train") == ["data/train.parquet"]
    assert choose(["dataset_infos.json", "train.json"], {}, "data/set", None, "train") == ["train.json"]


@pytest.mark.parametrize("target", ["/nonexistent", "a.jsonl", "b.jsonl"])
def test_a_link_that_leads_nowhere_is_refused_where_it_should_be_text(target: str, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("text")
    (tmp_path / "a.jsonl").symlink_to(target)
    if target == "b.jsonl":
        (tmp_path / "b.jsonl").symlink_to("a.jsonl")  # a cycle
    (fault, *more) = find_missing(CorpusSpec("text", TokenizerSpec("bpe", 257), path=str(tmp_path)))
    assert f"a.jsonl: the target {target} of the symbolic link cannot be read" in fault
    assert len(more) == (target == "b.jsonl")
    (tmp_path / "a.jsonl").rename(tmp_path / "a.md")
    if target == "/nonexistent":
        assert reasons(tmp_path) == {"a.md": "unsupported format .md"}


def test_links_to_files_are_read_and_links_to_folders_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("text")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "file.txt").symlink_to(tmp_path / "elsewhere" / "a.txt")
    (tmp_path / "text" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "text" / "above").symlink_to("..")
    assert read_texts(tmp_path / "text") == ["text"]
    assert reasons(tmp_path / "text") == dict.fromkeys(["above/", "folder/"], "a symbolic link to a folder")


def test_pipes_and_sockets_are_named_and_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    os.mkfifo(tmp_path / "b.txt")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("c.jsonl")
        assert reasons(tmp_path) == {"b.txt": "a pipe, not a file", "c.jsonl": "a socket, not a file"}
        assert read_texts(tmp_path) == ["text"]
        for name in ("b.txt", "c.jsonl"):
            with pytest.raises(DataError, match=rf"{name}: must be .* \(a (pipe|socket), not a file\)"):
                list_text(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (POINTER, "git lfs pull"),
        (POINTER.replace("\n", "\r\n"), "git lfs pull"),
        (POINTER.replace("oid", "ext-0-foo sha256:1\noid"), "git lfs pull"),
        ("/annex/objects/SHA256E-s123--0123.txt\n", "git annex get"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.parquet", "a.jsonl.gz"])
def test_a_pointer_to_a_file_is_refused_with_the_command_that_brings_it(
    name: str, content: str, command: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    (fault,) = TextSource(tmp_path).missing()
    assert fault.endswith(f"{name}: this pointer file was not replaced by the actual file. Run {command}")


def test_text_about_pointers_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"A pointer looks like this:\n{POINTER}")
    (tmp_path / "b.txt").write_text(f"{POINTER}\nThat was one.")
    assert TextSource(tmp_path).missing() == []


def test_faults_of_many_files_are_told_together_and_counted(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number:02d}.txt").write_text(POINTER)
    (tmp_path / "13.jsonl.gz").write_bytes(b"")
    (tmp_path / "14.txt").write_bytes("text".encode("utf-16"))
    faults = TextSource(tmp_path).missing()
    assert len(faults) == 11
    assert faults[-1] == "4 more files have similar faults."


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the folder is too long, so that root cannot read it either."""
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        os.mkdir("d" * 250)  # noqa: PTH102
        monkeypatch.chdir("d" * 250)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"ddd: File name too long\. Make the folder readable, or remove it\."):
        list_text(tmp_path)


def test_a_path_too_long_to_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"File name too long|null byte"):
        list_text(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match="null"):
        list_text(Path("a\0b"))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, packing in {"part-0.jsonl": "", "PART-1.JSONL": "", "part-2.jsonl.xz": ".xz"}.items():
        (folder / name).write_bytes(PACK[packing](CONTENT.replace(b"many", name.encode())))
    for name in (".hidden.jsonl", "README.md", "[bold]", *(f"note-{number}.md" for number in range(9))):
        (folder / name).write_text("x" * 10)
    return folder


def prepare(folder: Path, runs: Path, *more: str) -> str:
    overrides = [
        "data=text",
        f"data.path={folder}",
        "data.vocab_size=257",
        "data.validation_tokens=1024",
        f"runs={runs}",
    ]
    answer = CliRunner().invoke(app, ["data", "prepare", *overrides, *more])
    if answer.exception is not None:
        raise answer.exception
    return answer.stdout


def test_preparing_prints_what_it_read_and_what_it_left_out(mixed: Path, tmp_path: Path) -> None:
    shown = prepare(mixed, tmp_path / "runs")
    cells = [line.split() for line in shown.splitlines()]
    size = sum((mixed / name).stat().st_size for name in ("part-0.jsonl", "PART-1.JSONL"))
    assert [".jsonl", "2", f"{size:,}"] in cells
    assert [".jsonl.xz", "1", f"{(mixed / 'part-2.jsonl.xz').stat().st_size:,}"] in cells
    assert ["all", "3", f"{size + (mixed / 'part-2.jsonl.xz').stat().st_size:,}", "600"] in cells
    assert "skipped files: 12" in shown
    assert ["README.md", "unsupported", "format", ".md", "10"] in cells
    assert ["[bold]", "no", "extension", "10"] in cells
    assert [".hidden.jsonl", "hidden", "10"] in cells
    assert "and 5 more (listed by --json)" in shown
    assert prepare(mixed, tmp_path / "runs").splitlines()[1:4] == shown.splitlines()[1:4], "and says so again"


def test_json_names_every_file(mixed: Path, tmp_path: Path) -> None:
    files = json.loads(prepare(mixed, tmp_path / "runs", "--json"))["files"]
    assert [file["name"] for file in files["read"]] == ["PART-1.JSONL", "part-0.jsonl", "part-2.jsonl.xz"]
    assert len(files["left_out"]) == 12
    assert {"name": ".hidden.jsonl", "reason": "hidden", "bytes": 10} in files["left_out"]


def test_a_run_that_prepares_its_corpus_says_what_is_left_out(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["data.vocab_size=257", "data.validation_tokens=1024", f"runs={tmp_path / 'runs'}", "optim=tiny"]
    overrides = ["data=text", f"data.path={mixed}", *settings]
    prepare_for(make_plan(compose(overrides)))
    words = "warning: data.path: 12 skipped (10 unsupported format .md; 1 hidden; 1 no extension)"
    assert words in capsys.readouterr().out
    prepare_for(make_plan(compose(overrides)))
    assert words not in capsys.readouterr().out, "it is prepared"
