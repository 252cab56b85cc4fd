"""Fuzz tests of tokenizer.json and corpus files: the tokens spell the text, or DataError is raised."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fuzzing import assert_readable, corrupted, edited, files_below, fuzz
from hypothesis import event, example, given
from hypothesis import strategies as st

from tfscale.data.errors import DataError
from tfscale.data.prepare import prepare
from tfscale.data.sources import CorpusSpec
from tfscale.data.tokenizer import PIECE_CHARACTERS, Tokenizer, TokenizerSpec, load_tokenizer, pieces

MEGABYTES = float(os.environ.get("TFSCALE_FUZZ_MEGABYTES", "2"))
"""Length of the longest line in megabytes. The full test uses 100."""

TEXTS = ["the model grows from small to large ☃ 12", "Zoë\r\n\x00\tend", "</s> <|endoftext|>", "", "a" * 300]
GOOD = json.loads(Tokenizer.train(["low lower lowest newer wider " * 9], 262).content)
PARTS: list[Any] = [
    *({"type": kind} for kind in ("BPE", "ByteLevel", "Sequence", "WordPiece", "Lowercase", "Digits", "Whitespace")),
    {"type": "WordLevel", "vocab": {"</s>": 0}, "unk_token": "x"},
    {"type": "WordPiece", "vocab": {"</s>": 0}, "unk_token": "y", "continuing_subword_prefix": "##",
     "max_input_chars_per_word": 100},
    {"type": "Unigram", "unk_id": None, "vocab": [["</s>", 0.0]]},
    {"type": "Unigram", "unk_id": 7, "vocab": []},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Precompiled", "precompiled_charsmap": "?"},
    {"type": "Replace", "pattern": {"Regex": "(a|a)*$"}, "content": "b"},
    {"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": "b"},
    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Sequence", "normalizers": []}, {"type": "Sequence", "pretokenizers": []},
    {"type": "Sequence", "decoders": []},
    [{"id": 2**32 - 1, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
      "special": True}],
    2**32 - 1, 2**32, {"</s>": 70_000}, {"</s>": -1}, {}, [], None, "", 0, True, "</s>",
]  # fmt: skip


def encode_or_told(path: Path) -> None:
    try:
        tokenizer = load_tokenizer(path)
        encoded = tokenizer.encode_batch(TEXTS)
        tokenizer.decode([token for tokens in encoded for token in tokens])
    except DataError as error:
        event("rejected")
        assert_readable(error, path.name)
        return
    event("used")
    assert all(0 <= token < tokenizer.vocab_size for tokens in encoded for token in tokens)
    assert 0 <= tokenizer.end_of_text_id < tokenizer.vocab_size


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer") / "t.json"


SMALL = {
    **GOOD,
    "model": {**GOOD["model"], "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]},
}


@fuzz(150)
@given(st.one_of(edited(SMALL, st.sampled_from(PARTS)), edited(SMALL), edited(GOOD)))
@example({**GOOD, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "?"}})
@example({**GOOD, "normalizer": {"type": "Replace", "pattern": {"Regex": "(a|a)*$"}, "content": "b"}})
@example({**GOOD, "model": {"type": "WordLevel", "vocab": {"</s>": 0}, "unk_token": "x"}})
def test_any_json_is_a_tokenizer_or_told(file: Path, document: Any) -> None:
    file.write_bytes(json.dumps(document).encode("utf-8", "surrogatepass"))
    encode_or_told(file)


@fuzz(60)
@given(st.one_of(st.binary(max_size=60), corrupted(json.dumps(GOOD).encode())))
@example(b"")
@example(b"[" * 100_000)
def test_any_bytes_are_a_tokenizer_or_told(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    encode_or_told(file)


LINE = st.one_of(
    st.text(max_size=30).map(lambda text: json.dumps({"text": text}).encode()),
    st.sampled_from([b"", b" ", b"{}", b"[]", b"3", b"null", b'"text"', b'{"text": null}', b'{"text": 3}',
                     b'{"text": [1]}', b'{"text": ""}', b'{"text": "\\u0000"}', b'{"text": "\\ud800"}',
                     b'{"text": "\xff"}',
                     b'{"text":', b'{"text": "a", "text": null}', b"\xef\xbb\xbf{}", b'{"body": "b"}', b'{"text": NaN}',
                     b'{"text": ' + b"[" * 9999, b'{"n": ' + b"9" * 5000 + b"}", b"\x00", b'{"text": "a\x00b"}']),
)  # fmt: skip
JSONL = st.builds(
    lambda mark, lines, end: mark + end.join(lines),
    st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
    st.lists(LINE, max_size=6),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
TEXT = st.one_of(
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "ignore")),
    st.binary(max_size=30),
    st.sampled_from([b"", b"\x00" * 99, b"\xef\xbb\xbftext", "text".encode("utf-16"), b"x", b"\r\n\r\n", b"ab\xc3"]),
)
DOCUMENTS = b"".join(json.dumps({"text": f"document {n}"}).encode() + b"\n" for n in range(20))


def prepare_documents(folder: Path, files: dict[str, bytes], vocab_size: int = 257) -> list[str] | None:
    """Prepare a corpus of these files and return its documents as decoded tokens, or None after a readable error."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "text").mkdir(parents=True)
    for name, content in files.items():
        (folder / "text" / name).write_bytes(content)
    spec = CorpusSpec("text", TokenizerSpec("bpe", vocab_size), path=str(folder / "text"), heldout_fraction=0.3)
    try:
        data = prepare(spec, folder / "data")
    except DataError as error:
        assert_readable(error)
        assert not files_below(folder / "data")
        return None
    tokenizer, end = load_tokenizer(data.folder / "tokenizer.json"), data.manifest.tokenizer.end_of_text_id
    documents: list[list[int]] = [[]]
    for token in [*data.train[:].tolist(), *data.heldout[:].tolist()]:
        documents.append([]) if token == end else documents[-1].append(token)
    assert not documents.pop()
    return [tokenizer.decode(document) for document in documents]


@fuzz(70)
@given(st.dictionaries(st.sampled_from(["a.txt", "b.txt", "ü.txt"]), TEXT, max_size=3), JSONL, st.booleans())
@example({"a.txt": b""}, b"", False)
@example({"a.txt": b"x"}, b"", False)
def test_any_corpus_is_prepared_or_told(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], lines: bytes, padded: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    files = {**files, "lines.jsonl": lines, **({"more.jsonl": DOCUMENTS} if padded else {})}
    documents = prepare_documents(folder, files)
    event("rejected" if documents is None else "prepared")
    if documents is not None:
        whole = {files[name].decode("utf-8-sig") for name in files if name.endswith(".txt")}
        for line in files["lines.jsonl"].split(b"\n") + files.get("more.jsonl", b"").split(b"\n"):
            whole |= {json.loads(line)["text"]} if line.removeprefix(b"\xef\xbb\xbf").strip() else set()
        assert sorted(documents) == sorted(text for text in whole if text.strip())


@pytest.mark.parametrize("vocab_size", [257, 262])
@pytest.mark.parametrize("unit", ["word ", "x", "\x00", "é☃"])
def test_one_long_line_is_prepared(tmp_path: Path, unit: str, vocab_size: int) -> None:
    size = round(MEGABYTES * 1e6) if vocab_size == 257 else min(round(MEGABYTES * 1e6), 200_000)
    line = unit * (size // len(unit.encode()))
    words = b"".join(
        json.dumps({"text": f"{n} lower lowest newer widest number {n}"}).encode() + b"\n" for n in range(60)
    )
    files = {"long.jsonl": json.dumps({"text": line}).encode() + b"\n", "more.jsonl": words}
    documents = prepare_documents(tmp_path, files, vocab_size)
    assert documents is not None
    assert line in documents


@fuzz(30)
@given(st.lists(st.text("ab \n☃", max_size=200_000 // 50), max_size=50).map("".join), st.sampled_from([1, 50, 400]))
def test_pieces_are_the_text(text: str, times: int) -> None:
    found = list(pieces(text * times))
    assert "".join(found) == text * times
    assert all(len(piece) <= 2 * PIECE_CHARACTERS for piece in found)


def test_pieces_change_no_token_where_words_end() -> None:
    tokenizer = Tokenizer.train(["low lower lowest newer wider \n\n 12, 13; it's " * 9], 280)
    text = "low lower  lowest\n newer wider; it's 12,\n\n  13 " * 9000
    assert len(list(pieces(text))) > 3
    whole = tokenizer.encode_batch([text])[0]
    assert [token for piece in tokenizer.encode_batch(list(pieces(text))) for token in piece] == whole
