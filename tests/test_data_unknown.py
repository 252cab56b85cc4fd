"""Tests of text that a tokenizer cannot represent: it is counted and reported, and rejected if there is too much of
it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from texts import lines
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.data.errors import DataError
from tfscale.data.manifest import read_manifest
from tfscale.data.prepare import prepare
from tfscale.data.sources import CorpusSpec
from tfscale.data.tokenizer import Tokenizer, TokenizerSpec
from tfscale.faults import UserFault

UNKNOWN = "[UNK]"
WORDS = {"[UNK]": 0, "known": 1, "words": 2, "<|endoftext|>": 3}
LETTERS = {letter: number for number, letter in enumerate("knowrds ")}


def made(model: Any, pre_tokenizer: Any = None, end: str = "<|endoftext|>") -> Tokenizer:
    library = Library(model)
    if pre_tokenizer is not None:
        library.pre_tokenizer = pre_tokenizer
    library.add_special_tokens([end])
    return Tokenizer(library.to_str().encode(), "made")


def count(tokenizer: Tokenizer, *texts: str) -> int:
    return tokenizer.count_unknown(texts, tokenizer.encode_batch(texts))


@pytest.mark.parametrize(
    ("model", "unknown"),
    [
        (models.WordLevel(WORDS, "[UNK]"), 2),
        (models.WordPiece(WORDS, unk_token=UNKNOWN), 2),
        (models.BPE({**LETTERS, "[UNK]": 90}, [], unk_token=UNKNOWN), 5),
        (models.BPE({**LETTERS, "[UNK]": 90}, [], unk_token=UNKNOWN, fuse_unk=True), 2),
        (models.BPE(LETTERS, []), 5),
        (models.BPE({**LETTERS, **{f"<0x{n:02X}>": 100 + n for n in range(256)}}, [], byte_fallback=True), 0),
        (models.Unigram([("[UNK]", 0.0), *((letter, -1.0) for letter in LETTERS)], 0, False), 2),
    ],
)
def test_unknown_tokens_and_dropped_characters_are_counted(model: Any, unknown: int) -> None:
    tokenizer = made(model, pre_tokenizers.WhitespaceSplit())
    assert count(tokenizer, "known words", "words") == 0
    assert count(tokenizer, "known é☃ words", "wétéds") == unknown


def test_bytes_know_every_text() -> None:
    assert count(Tokenizer.train(["low lower lowest " * 9], 262), "é☃ \x00 李") == 0


def test_an_end_of_text_token_that_stands_for_the_unknown_too_is_counted_only_where_it_does() -> None:
    tokenizer = made(models.WordLevel({"<|endoftext|>": 0, "known": 1}, "<|endoftext|>"), pre_tokenizers.Whitespace())
    assert count(tokenizer, "known known", "known other") == 1


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusSpec:
    (tmp_path / "text").mkdir()
    texts = [f"known words{' unheard' * (number < 3)} {'known ' * number}" for number in range(60)]
    (tmp_path / "text" / "a.jsonl").write_bytes(lines(texts))
    (tmp_path / "words.json").write_bytes(
        made(models.WordLevel(WORDS, "[UNK]"), pre_tokenizers.WhitespaceSplit()).content
    )
    tokenizer = TokenizerSpec("file", path=str(tmp_path / "words.json"))
    return CorpusSpec("text", tokenizer, path=str(tmp_path / "text"), heldout_fraction=0.3)


def test_the_manifest_counts_the_unknown_tokens_of_both_splits(corpus: CorpusSpec, tmp_path: Path) -> None:
    data = prepare(corpus, tmp_path / "data")
    found = [*data.train[:].tolist(), *data.heldout[:].tolist()].count(0)
    assert data.manifest.unknown == found == 3
    learnt = replace(corpus, tokenizer=TokenizerSpec("bpe", 257))
    assert prepare(learnt, tmp_path / "data").manifest.unknown == 0


def test_a_manifest_of_a_version_that_did_not_count_is_read(corpus: CorpusSpec, tmp_path: Path) -> None:
    folder = prepare(corpus, tmp_path / "data").folder
    values = json.loads((folder / "manifest.json").read_text())
    del values["unknown"]
    (folder / "manifest.json").write_text(json.dumps(values))
    assert read_manifest(folder).unknown is None
    (folder / "manifest.json").write_text(json.dumps({**values, "unknown": -1}))
    with pytest.raises(DataError, match="unknown=-1"):
        read_manifest(folder)


def command(corpus: CorpusSpec, runs: Path, *more: str) -> Any:
    assert corpus.tokenizer
    overrides = [
        "data=text", f"data.path={corpus.path}", "data.tokenizer=file", f"data.tokenizer_path={corpus.tokenizer.path}",
        "data.validation=0.3", "data.validation_tokens=64", "model.context=32", f"runs={runs}",
    ]  # fmt: skip
    return CliRunner().invoke(app, ["data", "prepare", *overrides, *more])


def test_preparing_warns_of_unknown_tokens_and_refuses_more_than_the_bound(corpus: CorpusSpec, tmp_path: Path) -> None:
    warned = command(corpus, tmp_path / "runs")
    assert warned.exception is None
    manifest = read_manifest(next((tmp_path / "runs" / "data").glob("[!.]*")))
    words = f"the tokenizer has no entry for 3 of {manifest.tokens:,} tokens ({3 / manifest.tokens:.2%})"
    assert f"warning: data: {words}" in warned.stdout
    refused = command(corpus, tmp_path / "runs", "data.max_unknown=0.001")
    assert isinstance(refused.exception, UserFault)
    (fault,) = refused.exception.messages
    assert fault.startswith(f"data.max_unknown=0.001: {words}")
    assert fault.endswith("or increase data.max_unknown.")


def test_the_bound_is_a_share_and_a_hundredth_by_default() -> None:
    assert compose(["data=text", "data.path=."]).data.max_unknown == 0.01
    with pytest.raises(UserFault, match=r"data\.max_unknown"):
        compose(["data=text", "data.path=.", "data.max_unknown=2"])
