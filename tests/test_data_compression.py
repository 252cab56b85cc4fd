"""Tests of compressed files, which are recognised by their content and rejected if they are incomplete."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import assert_readable, fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from texts import MARK, PACK, array, lines, read_texts

from tfscale.data import readers
from tfscale.data.errors import DataError
from tfscale.data.sources import CorpusSpec, fingerprint
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import TokenizerSpec

DOCUMENTS = [f"Document {n} — Zoë {random.Random(n).getrandbits(64):x}" for n in range(200)]  # noqa: S311
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
CASES = st.sampled_from([str.lower, str.upper, str.title])


@fuzz(80)
@given(TEXTS, st.sampled_from(list(PACK)), st.sampled_from(list(PACK)), CASES, st.booleans())
@example("﻿ text that begins with a mark of its own", "", "", str.lower, False)
@example("", ".gz", ".zst", str.upper, True)
def test_a_text_is_the_same_in_any_packing_under_any_name_with_a_mark_or_without(
    tmp_path_factory: pytest.TempPathFactory, text: str, packing: str, named: str, case: object, marked: bool
) -> None:
    assert callable(case)
    content = (MARK if marked else b"") + text.encode()
    file = tmp_path_factory.mktemp("text") / case(f"a.txt{named if packing else ''}")
    file.write_bytes(PACK[packing](content))
    expected = content.removeprefix(MARK).decode()  # only the first of two marks belongs to the file
    assert read_texts(file) == read_texts(file.parent) == [expected]


@fuzz(60)
@given(
    st.lists(TEXTS, max_size=6),
    st.sampled_from([(".jsonl", lines), (".ndjson", lines), (".json", lines), (".json", array)]),
    st.sampled_from(list(PACK)),
    CASES,
    st.booleans(),
)
@example(["a"], (".json", lines), "", str.lower, True)
def test_documents_are_the_same_in_any_json_in_any_packing_with_a_mark_or_without(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    form: tuple[str, object],
    packing: str,
    case: object,
    marked: bool,
) -> None:
    extension, write = form
    assert callable(write)
    assert callable(case)
    file = tmp_path_factory.mktemp("text") / case(f"a{extension}{packing}")
    file.write_bytes(PACK[packing]((MARK if marked else b"") + write(texts)))
    assert read_texts(file) == texts


@pytest.mark.parametrize("packing", PACK)
def test_packed_lines_are_never_cut_and_plain_ones_are(
    packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds for a compressed file with the name of an uncompressed one."""
    monkeypatch.setattr(readers, "PART_BYTES", 500)
    (tmp_path / "a.jsonl").write_bytes(PACK[packing](lines(DOCUMENTS)))
    parts = TextSource(tmp_path).parts()
    assert (len(parts) == 1) == bool(packing)
    assert [text for part in parts for text in part.documents()] == DOCUMENTS


@pytest.mark.parametrize("unit", [5, 100, 10**9])
def test_a_mark_before_any_line_is_left_out(unit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Concatenated files can contain byte-order marks in the middle."""
    monkeypatch.setattr(readers, "PART_BYTES", unit)
    (tmp_path / "a.jsonl").write_bytes((MARK + lines(["one", "two"])) * 3 + MARK)
    assert read_texts(tmp_path) == ["one", "two"] * 3


@pytest.mark.parametrize("packing", [packing for packing in PACK if packing])
def test_a_packed_file_cut_short_anywhere_is_refused(packing: str, tmp_path: Path) -> None:
    content = PACK[packing](lines(DOCUMENTS))
    file = tmp_path / f"a.jsonl{packing}"
    for length in {0, 1, 2, 3, 5, 9, 12, len(content) // 2, len(content) - 9, len(content) - 1}:
        file.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"a\.jsonl{packing}: the file is (empty|damaged)"):
            read_texts(file)


@pytest.mark.parametrize("packing", [packing for packing in PACK if packing])
def test_streams_that_follow_each_other_are_all_read_and_a_damaged_one_is_not_the_end(
    packing: str, tmp_path: Path
) -> None:
    one, two = (PACK[packing](lines(texts)) for texts in (DOCUMENTS[:100], DOCUMENTS[100:]))
    file = tmp_path / f"a.jsonl{packing}"
    file.write_bytes(one + two)
    assert read_texts(file) == DOCUMENTS
    for damaged in (one + two[:-3], one + b"X" + two[1:], one + b"neither", one + two[:2]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            read_texts(file)


def test_zeros_between_streams_are_padding(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.xz"
    file.write_bytes(PACK[".xz"](lines(["one"])) + bytes(8) + PACK[".xz"](lines(["two"])) + bytes(4))
    assert read_texts(file) == ["one", "two"]


@pytest.mark.parametrize("content", [lines(["plain"]), b"<html>not found</html>", "text".encode("utf-16")])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.ZST", "a.json.xz", "a.txt.bz2"])
def test_a_name_that_promises_a_packing_is_held_to_it(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    (fault,) = TextSource(tmp_path).missing()
    assert f"{name}: the file is damaged, or it is not compressed" in fault
    assert f"remove {Path(name).suffix} from its name" in fault
    with pytest.raises(DataError, match="not compressed"):
        read_texts(tmp_path)


@pytest.mark.parametrize(
    ("content", "name"),
    [("text ☃".encode("utf-16"), "UTF-16"), (b"\xfe\xff" + "text".encode("utf-16-be"), "UTF-16"),
     ("text".encode("utf-32"), "UTF-32"), (b"\x00\x00\xfe\xff" + "text".encode("utf-32-be"), "UTF-32")],
)  # fmt: skip
@pytest.mark.parametrize("file", ["a.txt", "a.jsonl", "a.json", "a.txt.gz", "a.jsonl.xz"])
def test_a_mark_of_another_encoding_is_told_with_the_command_that_converts(
    file: str, content: bytes, name: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_bytes(PACK[Path(file).suffix](content) if Path(file).suffix in PACK else content)
    with pytest.raises(DataError, match=rf"{file}: the text is in {name}\. Convert it to UTF-8: iconv -f {name}"):
        read_texts(tmp_path)


@fuzz(60)
@given(st.sampled_from([".gz", ".xz", ".bz2"]), st.data())
def test_a_checksummed_file_of_which_bytes_were_changed_is_refused_or_the_same(
    tmp_path_factory: pytest.TempPathFactory, packing: str, data: st.DataObject
) -> None:
    content = bytearray(PACK[packing](lines(DOCUMENTS[:9])))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.mktemp("text") / f"a.jsonl{packing}"
    file.write_bytes(content)
    try:
        assert read_texts(file) == DOCUMENTS[:9]
    except DataError as error:
        assert_readable(error, file.name)


def test_the_fingerprint_of_an_ordinary_folder_is_the_one_that_earlier_versions_gave_it(tmp_path: Path) -> None:
    """The fingerprint was recorded before this reader was added, when a .txt file was read with its byte-order mark."""
    (tmp_path / "below").mkdir()
    (tmp_path / "a.txt").write_bytes("Zoë\r\nends".encode())
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "below" / "b.jsonl").write_bytes(b'{"text": "one"}\n\n{"text": "two"}\n')
    packed = (
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xabV*I\xad(Q\xb2RP*\xc9(JMU\xaa\xe5\x02\x00\xcex5g\x12\x00\x00\x00"
    )
    (tmp_path / "c.json.gz").write_bytes(packed)
    (tmp_path / "notes.md").write_text("left out")
    spec = CorpusSpec("text", TokenizerSpec("bpe", 257), path=str(tmp_path))
    assert fingerprint(spec) == "5cb01b80a663804a"
    (tmp_path / "a.txt").write_bytes(MARK + "Zoë\r\nends".encode())
    assert fingerprint(spec) != "034b85d90e5a2f85", "its tokens differ"


@pytest.mark.parametrize("packing", PACK)
def test_a_mark_changes_the_fingerprint_of_a_text_file_in_any_packing(packing: str, tmp_path: Path) -> None:
    spec = CorpusSpec("text", TokenizerSpec("bpe", 257), path=str(tmp_path))
    file = tmp_path / f"a.txt{packing}"
    file.write_bytes(PACK[packing](MARK + b"text"))
    marked = TextSource(tmp_path).identity()["sha256"]
    assert fingerprint(spec)
    file.write_bytes(PACK[packing](b"text"))
    assert TextSource(tmp_path).identity()["sha256"] != marked


def test_parquet_is_read_under_a_name_in_any_case(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": DOCUMENTS}), tmp_path / "A.PARQUET")
    assert read_texts(tmp_path) == DOCUMENTS


def test_one_object_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"id": 1, "text": "one"}, indent=2))
    (tmp_path / "b.json").write_text(json.dumps({"id": 1, "text": "two"}))
    (tmp_path / "c.json").write_text(" \n\n")
    assert read_texts(tmp_path) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[\n{}]", r"a\.json, entry 1: there is no text under text_key='text'"),
        ('[{"text": "a"}, 3]', r"a\.json, entry 2: .* the entry is a number, not an object"),
        ('{"data": [\n]}', r"a\.json: there is no text under text_key='text'. The entry has the keys: data."),
        ("null", r"a\.json: .* the entry is null, not an object"),
        ('{"text": "a"}\n{"text": 3}', r"a\.json, line 2: .* the value is a number"),
        ('{"text": "a"', r"a\.json: the text is not valid JSON .* JSON lines, an array of objects, or one object"),
    ],
)
def test_json_without_documents_is_told_with_the_place(content: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=fault):
        read_texts(tmp_path)


@pytest.mark.parametrize(
    ("value", "word"),
    [("null", "null"), ("3", "a number"), ("2.5", "a number"), ("true", "a boolean"), ("[1]", "a list"),
     ("{}", "an object")],
)  # fmt: skip
def test_a_value_that_is_no_text_is_told_from_a_key_that_is_missing(value: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": ' + value + "}\n")
    with pytest.raises(
        DataError, match=rf"line 2: there is no text under text_key='text': the value is {word}, not a string\."
    ):
        read_texts(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"body": ' + value + "}\n")
    with pytest.raises(
        DataError, match=r"line 2: there is no text under text_key='text'\. The entry has the keys: body\."
    ):
        read_texts(tmp_path)
