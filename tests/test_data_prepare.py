"""Tests of the preparation of a corpus, its reuse, and its use in training."""

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tfscale.data import readers
from tfscale.data.errors import DataError
from tfscale.data.prepare import prepare
from tfscale.data.prepared import PreparedData, open_data
from tfscale.data.progress import Report
from tfscale.data.shards import Tokens
from tfscale.data.sources import CorpusSpec, fingerprint, vocab_size
from tfscale.data.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer

DOCUMENTS = [f"Document {n} is about the number {n} — and {n * n}.\n" for n in range(400)]


def corpus(folder: Path, documents: list[str] = DOCUMENTS, vocab: int = 257, fraction: float = 0.1) -> CorpusSpec:
    folder.mkdir()
    lines = (json.dumps({"text": text}) + "\n" for text in documents)
    (folder / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    return CorpusSpec("text", TokenizerSpec("bpe", vocab), path=str(folder), heldout_fraction=fraction)


def documents_of(data: PreparedData, tokens: Tokens) -> list[str]:
    tokenizer = load_tokenizer(data.folder / "tokenizer.json")
    end = data.manifest.tokenizer.end_of_text_id
    documents: list[list[int]] = [[]]
    for token in tokens[:].tolist():
        if token == end:
            documents.append([])
        else:
            documents[-1].append(token)
    assert documents.pop() == [], "each document is followed by the end of text"
    return [tokenizer.decode(document) for document in documents]


@pytest.mark.parametrize("vocab", [257, 280])
def test_every_document_lands_whole_in_one_split(tmp_path: Path, vocab: int) -> None:
    data = prepare(corpus(tmp_path / "text", vocab=vocab), tmp_path / "data")
    train, heldout = documents_of(data, data.train), documents_of(data, data.heldout)
    assert sorted(train + heldout) == sorted(DOCUMENTS)
    assert 20 <= len(heldout) <= 60, "about a tenth"
    assert train == [text for text in DOCUMENTS if text in set(train)], "in the source's order"


def test_the_split_does_not_depend_on_the_order_of_documents(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(DOCUMENTS, len(DOCUMENTS))  # noqa: S311
    one = prepare(corpus(tmp_path / "one"), tmp_path / "data")
    other = prepare(corpus(tmp_path / "other", shuffled), tmp_path / "data")
    assert one.folder != other.folder
    assert documents_of(one, one.heldout) == documents_of(other, other.heldout)


def test_a_larger_held_out_split_begins_with_the_smaller_and_another_seed_draws_another(tmp_path: Path) -> None:
    spec = corpus(tmp_path / "text")
    data = [
        prepare(chosen, tmp_path / "data")
        for chosen in (spec, replace(spec, heldout_fraction=0.3), replace(spec, split_seed=1))
    ]
    small, large, other = (documents_of(each, each.heldout) for each in data)
    assert large[: len(small)] == small
    assert set(other) != set(small)


def test_duplicates_and_empty_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    spec = corpus(tmp_path / "text", [*DOCUMENTS, *DOCUMENTS[:7], "", " \n"])
    data = prepare(spec, tmp_path / "data")
    assert (data.manifest.duplicates, data.manifest.empty) == (7, 2)
    assert data.manifest.train.documents + data.manifest.heldout.documents == len(DOCUMENTS)


@pytest.mark.parametrize("unit", [100, 1 << 26])
def test_the_first_of_equal_documents_is_kept(tmp_path: Path, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "PART_BYTES", unit)
    doubled = random.Random(1).sample(DOCUMENTS * 2, 2 * len(DOCUMENTS))  # noqa: S311
    data = prepare(corpus(tmp_path / "text", doubled), tmp_path / "data", workers=1)
    train = documents_of(data, data.train)
    assert train == [text for text in dict.fromkeys(doubled) if text in set(train)]
    digests = b"".join(hashlib.sha256(text.encode()).digest() for text in dict.fromkeys(doubled))
    assert data.manifest.content_sha256 == hashlib.sha256(digests).hexdigest()


def test_the_manifest_states_what_was_made(tmp_path: Path) -> None:
    spec = corpus(tmp_path / "text", vocab=280)
    data = prepare(spec, tmp_path / "data")
    manifest = data.manifest
    assert data.folder == tmp_path / "data" / fingerprint(spec)
    assert manifest.fingerprint == fingerprint(spec)
    assert manifest.source["source"] == "text"
    for split, tokens in ((manifest.train, data.train), (manifest.heldout, data.heldout)):
        assert split.tokens == len(tokens)
        assert split.utf8_bytes == sum(len(text.encode()) for text in documents_of(data, tokens))
        for shard in split.shards:
            content = (data.folder / shard.file).read_bytes()
            assert (shard.bytes, shard.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    tokenizer = (data.folder / "tokenizer.json").read_bytes()
    assert manifest.tokenizer.sha256 == hashlib.sha256(tokenizer).hexdigest()
    assert manifest.tokenizer.vocab_size == vocab_size(spec) == 280
    assert manifest.content_sha256 == (
        hashlib.sha256(b"".join(hashlib.sha256(text.encode()).digest() for text in DOCUMENTS)).hexdigest()
    )


def test_a_byte_tokenizer_gives_one_byte_a_token(tmp_path: Path) -> None:
    data = prepare(corpus(tmp_path / "text"), tmp_path / "data")
    assert data.manifest.heldout.bytes_per_token == 1.0


def test_the_tokenizer_learns_from_training_documents_alone(tmp_path: Path) -> None:
    data = prepare(corpus(tmp_path / "text", vocab=340), tmp_path / "data")
    learnt = data.manifest.tokenizer.sha256
    assert learnt == Tokenizer.train(documents_of(data, data.train), 340).sha256
    assert learnt != Tokenizer.train(DOCUMENTS, 340).sha256


def test_preparing_again_writes_nothing(tmp_path: Path) -> None:
    spec = corpus(tmp_path / "text")
    first = prepare(spec, tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    reports: list[Report] = []
    again = prepare(spec, tmp_path / "data", reports.append)
    assert again.manifest == first.manifest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before
    assert reports == []


def test_preparing_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    spec = corpus(tmp_path / "text", vocab=280)
    one, other = prepare(spec, tmp_path / "one"), prepare(spec, tmp_path / "other")
    files = sorted(path.name for path in one.folder.iterdir())
    assert files == ["heldout-00000.safetensors", "manifest.json", "tokenizer.json", "train-00000.safetensors"]
    assert all((one.folder / file).read_bytes() == (other.folder / file).read_bytes() for file in files)


def test_two_processes_may_prepare_the_same_corpus_at_once(tmp_path: Path) -> None:
    spec = corpus(tmp_path / "text", vocab=280)
    (tmp_path / "begun").mkdir()
    command = [sys.executable, "-c", PREPARE_TOGETHER, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].split() for process in both] == [[fingerprint(spec)]] * 2
    assert [path.name for path in (tmp_path / "data").iterdir()] == [fingerprint(spec)]


PREPARE_TOGETHER = """
import os, sys, time
from pathlib import Path
from tfscale.data.prepare import prepare
from tfscale.data.sources import CorpusSpec
from tfscale.data.tokenizer import TokenizerSpec

folder = Path(sys.argv[1])

def wait_for_the_other(report):
    (folder / "begun" / str(os.getpid())).touch()
    while len(list((folder / "begun").iterdir())) < 2:
        time.sleep(0.01)

spec = CorpusSpec("text", TokenizerSpec("bpe", 280), path=str(folder / "text"), heldout_fraction=0.1)
print(prepare(spec, folder / "data", wait_for_the_other).manifest.fingerprint)
"""


def test_a_failed_preparation_leaves_nothing(tmp_path: Path) -> None:
    spec = corpus(tmp_path / "text")
    (tmp_path / "text" / "z.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"z\.txt: byte 0"):
        prepare(spec, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_nothing_is_written_for_a_corpus_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        prepare(CorpusSpec("text", TokenizerSpec("bpe", 257), path=str(tmp_path / "nowhere")), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_text_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    spec = corpus(tmp_path / "text")

    def meddle(report: Report) -> None:
        (tmp_path / "text" / "late.txt").write_text("one more")

    with pytest.raises(DataError, match="changed while it was being read"):
        prepare(spec, tmp_path / "data", meddle)


@pytest.mark.parametrize("documents", [[], [" ", ""], ["same"] * 9, ["one", "two"]])
def test_a_corpus_too_small_to_split_is_refused_with_its_counts(tmp_path: Path, documents: list[str]) -> None:
    spec = corpus(tmp_path / "text", documents, fraction=0.01)
    distinct = len({text for text in documents if text.strip()})
    with pytest.raises(DataError, match=f"of {distinct} distinct documents, .* 0 for validation"):
        prepare(spec, tmp_path / "data")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a folder")
    with pytest.raises(DataError, match=str(tmp_path / "data")):
        prepare(corpus(tmp_path / "text"), tmp_path / "data")


def test_a_tokenizer_file_is_used_as_it_is(tmp_path: Path) -> None:
    trained = prepare(corpus(tmp_path / "text", vocab=280), tmp_path / "data")
    file = tmp_path / "mine.json"
    file.write_bytes((trained.folder / "tokenizer.json").read_bytes())
    spec = CorpusSpec("text", TokenizerSpec("file", path=str(file)), path=str(tmp_path / "text"), heldout_fraction=0.1)
    data = prepare(spec, tmp_path / "data")
    assert data.folder != trained.folder
    assert (data.folder / "tokenizer.json").read_bytes() == file.read_bytes()
    assert data.train[:].tolist() == trained.train[:].tolist()


def test_a_prepared_folder_is_a_source_of_its_own(tmp_path: Path) -> None:
    made = prepare(corpus(tmp_path / "text", vocab=280), tmp_path / "data")
    moved = made.folder.rename(tmp_path / "moved")
    spec = CorpusSpec("shards", path=str(moved))
    data = prepare(spec, tmp_path / "elsewhere")
    assert data.manifest == made.manifest
    assert fingerprint(spec) == made.manifest.fingerprint
    assert vocab_size(spec) == 280
    assert not (tmp_path / "elsewhere").exists()


def test_opening_checks_that_it_is_the_corpus_asked_for(tmp_path: Path) -> None:
    data = prepare(corpus(tmp_path / "text"), tmp_path / "data")
    assert open_data(data.folder, data.manifest.fingerprint).manifest == data.manifest
    with pytest.raises(DataError, match=f"contains the corpus {data.manifest.fingerprint}, but 0123 is required"):
        open_data(data.folder, "0123")


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    data = prepare(corpus(tmp_path / "text"), tmp_path / "data")
    manifest = data.folder / "manifest.json"
    whole = manifest.read_text()
    (data.folder / "heldout-00000.safetensors").rename(data.folder / "train-00000.safetensors")
    with pytest.raises(DataError, match=r"train-00000\.safetensors: split is heldout"):
        open_data(data.folder)
    for content, fault in (
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        (whole.replace('"format": 1', '"format": 2'), "the corpus has format 2"),
        (whole.replace('"split_seed"', '"seed"'), "the file is damaged"),
    ):
        manifest.write_text(content)
        with pytest.raises(DataError, match=rf"manifest\.json: {fault}"):
            open_data(data.folder)
    manifest.unlink()
    with pytest.raises(DataError, match=r"manifest\.json: No such file.*prepare"):
        open_data(data.folder)


def test_training_opens_data_without_the_tokenizers_library(tmp_path: Path) -> None:
    data = prepare(corpus(tmp_path / "text"), tmp_path / "data")
    code = (
        "import sys; from pathlib import Path; import tfscale.data.batches;"
        "from tfscale.data.prepared import open_data;"
        "open_data(Path(sys.argv[1])).train[:5]; sys.exit('tokenizers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(data.folder)], check=True)
