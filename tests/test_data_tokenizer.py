"""Tests of tokenizers that are trained on the corpus or read from a file."""

import json
from pathlib import Path

import pytest

from tfscale.data.errors import DataError
from tfscale.data.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer

TEXTS = [f"The number {n} follows the number {n - 1}, and the number {n + 1} comes next." for n in range(300)]
AWKWARD = ["", " ", "\x00\r\n\t", "naïve 日本語 🙂", "ends here<|endoftext|>or not"]


@pytest.mark.parametrize("size", [257, 300])
def test_a_trained_bpe_has_the_asked_size_and_gives_every_text_back(size: int) -> None:
    tokenizer = Tokenizer.train(TEXTS, size)
    assert tokenizer.vocab_size == size
    for text, tokens in zip(AWKWARD, tokenizer.encode_batch(AWKWARD), strict=True):
        assert tokenizer.decode(tokens) == text
        assert max(tokens, default=0) < size


def test_257_tokens_are_plain_bytes() -> None:
    tokenizer = Tokenizer.train(TEXTS, 257)
    for text, tokens in zip(AWKWARD, tokenizer.encode_batch(AWKWARD), strict=True):
        assert len(tokens) == len(text.encode())


def test_training_is_deterministic() -> None:
    first, second = Tokenizer.train(TEXTS, 300), Tokenizer.train(iter(TEXTS), 300)
    assert first.content == second.content
    assert first.sha256 == second.sha256


def test_a_text_that_spells_the_end_of_text_does_not_end() -> None:
    tokenizer = Tokenizer.train(TEXTS, 300)
    (tokens,) = tokenizer.encode_batch(["a<|endoftext|>b"])
    assert tokenizer.end_of_text_id not in tokens


def test_a_corpus_too_small_for_its_vocabulary_is_refused() -> None:
    with pytest.raises(DataError, match=r"vocab_size=5000: must be at most \d+, because the corpus is too small"):
        Tokenizer.train(TEXTS, 5000)


def test_a_saved_tokenizer_reads_back_the_same(tmp_path: Path) -> None:
    trained = Tokenizer.train(TEXTS, 300)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(trained.content)
    loaded = load_tokenizer(path)
    assert loaded.sha256 == trained.sha256
    assert loaded.encode_batch(AWKWARD) == trained.encode_batch(AWKWARD)
    spec = TokenizerSpec("file", path=str(path))
    assert spec.size() == 300
    assert spec.identity() == {"kind": "file", "sha256": trained.sha256}


def edited(tmp_path: Path, **changes: object) -> Path:
    """Write a tokenizer.json with some fields replaced, and with `</s>` as its end of text."""
    content = Tokenizer.train(TEXTS, 300).content.decode().replace("<|endoftext|>", "</s>")
    path = tmp_path / "edited.json"
    path.write_text(json.dumps({**json.loads(content), **changes}))
    return path


def test_the_end_of_text_token_is_found_under_its_other_names(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(edited(tmp_path))
    assert (tokenizer.end_of_text, tokenizer.end_of_text_id) == ("</s>", 0)


def test_truncation_that_a_file_asks_for_is_not_applied(tmp_path: Path) -> None:
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    tokenizer = load_tokenizer(edited(tmp_path, truncation=truncation))
    assert len(tokenizer.encode_batch(["x" * 50])[0]) > 4


def test_a_vocabulary_with_gaps_counts_to_its_largest_id(tmp_path: Path) -> None:
    content = json.loads(Tokenizer.train(TEXTS, 257).content)
    content["model"]["vocab"]["far"] = 400
    path = tmp_path / "gaps.json"
    path.write_text(json.dumps(content))
    assert load_tokenizer(path).vocab_size == 401


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: No such file"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match=r"a\.json: the file is not a Hugging Face tokenizer"):
        load_tokenizer(tmp_path / "a.json")
    path = edited(tmp_path)
    path.write_text(path.read_text().replace("</s>", "<stop>"))
    with pytest.raises(DataError, match=r"edited\.json: the tokenizer has no end-of-text token"):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"kind": "bpe"}, "vocab_size=0"),
        ({"kind": "bpe", "vocab_size": 256}, "vocab_size=256"),
        ({"kind": "file"}, "path: must be set"),
        ({"kind": "hub"}, "name: must be set"),
    ],
)
def test_a_spec_that_makes_no_tokenizer_is_refused(fields: dict[str, object], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        TokenizerSpec(**fields)  # type: ignore[arg-type]
