"""Tests of reading documents from files of every kind, whole and in parts."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfscale.data import readers
from tfscale.data.errors import DataError
from tfscale.data.prepare import prepare
from tfscale.data.sources import CorpusSpec
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import TokenizerSpec

DOCUMENTS = [f"Document {n} — Zoë\n" * (1 + n % 7) for n in range(60)]
LINES = "".join(json.dumps({"n": 1, "text": text}) + "\n" for text in DOCUMENTS).encode()


def parquet(file: Path, rows: int = 7, kind: pa.DataType | None = None, texts: list[str | None] | None = None) -> None:
    column = pa.array(texts if texts is not None else DOCUMENTS, kind or pa.string())
    table = pa.table({"id": pa.array(range(len(column))), "text": column})
    pq.write_table(table, file, row_group_size=rows)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda file: file.write_bytes(LINES),
    "a.jsonl.gz": lambda file: file.write_bytes(gzip.compress(LINES)),
    "a.jsonl.zst": lambda file: file.write_bytes(pa.compress(LINES, codec="zstd", asbytes=True)),
    "a.json.gz": lambda file: file.write_bytes(gzip.compress(LINES)),
    "a.parquet": parquet,
    "large.parquet": lambda file: parquet(file, kind=pa.large_string()),
    "dictionary.parquet": lambda file: parquet(file, kind=pa.dictionary(pa.int32(), pa.string())),
}


def texts(source: TextSource) -> list[str]:
    return [text for part in source.parts() for text in part.documents()]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_documents(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert texts(TextSource(tmp_path)) == DOCUMENTS
    assert texts(TextSource(tmp_path / name)) == DOCUMENTS


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("unit", [1, 50, LINES.index(b"\n") + 1, 333, 4096, 10**9])
def test_a_file_cut_anywhere_gives_each_document_once(
    name: str, unit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PART_BYTES", unit)
    WRITERS[name](tmp_path / name)
    parts = TextSource(tmp_path).parts()
    assert (len(parts) > 1) == (unit < 10**9)
    assert [text for part in parts for text in part.documents()] == DOCUMENTS


def test_small_files_are_read_together_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PART_BYTES", 1000)
    for number, text in enumerate(DOCUMENTS):
        (tmp_path / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    parts = TextSource(tmp_path).parts()
    assert 1 < len(parts) < 20
    assert max(part.size for part in parts) <= 1000
    assert [text for part in parts for text in part.documents()] == DOCUMENTS


def test_formats_differ_in_nothing_but_their_fingerprint(tmp_path: Path) -> None:
    tokens = []
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        (tmp_path / name).mkdir()
        WRITERS[name](tmp_path / name / name)
        spec = CorpusSpec("text", TokenizerSpec("bpe", 257), path=str(tmp_path / name), heldout_fraction=0.2)
        data = prepare(spec, tmp_path / "data")
        tokens.append((data.train[:].tolist(), data.heldout[:].tolist(), data.manifest.content_sha256))
    assert tokens[0] == tokens[1] == tokens[2]
    assert len(list((tmp_path / "data").iterdir())) == 3


@pytest.mark.parametrize("unit", [40, 10**9])
def test_a_faulty_line_is_numbered_from_the_beginning_of_its_file(
    unit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PART_BYTES", unit)
    (tmp_path / "a.jsonl").write_bytes(LINES + b"\n{}\n" + LINES)
    with pytest.raises(DataError, match=r"a\.jsonl, line 62: there is no text under text_key='text'"):
        texts(TextSource(tmp_path))


def test_rows_without_text_are_empty_documents(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", texts=["one", None, "two"])
    assert texts(TextSource(tmp_path)) == ["one", "", "two"]


def test_a_column_that_is_none_or_no_text_is_named(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: text_key='body' is not a column of strings.*id \(int64\), text"):
        texts(TextSource(tmp_path, text_key="body"))
    with pytest.raises(DataError, match="text_key='id' is not a column of strings"):
        texts(TextSource(tmp_path, text_key="id"))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
@pytest.mark.parametrize("damage", [lambda content: content[:-20], lambda content: b"not what it says" + content])
def test_a_damaged_file_is_named(name: str, damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    (tmp_path / name).write_bytes(damage((tmp_path / name).read_bytes()))
    with pytest.raises(DataError, match=rf"{name}: the file is damaged"):
        texts(TextSource(tmp_path))
