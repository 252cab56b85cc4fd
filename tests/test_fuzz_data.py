"""Fuzz tests of the files of a prepared corpus: every token read is in the vocabulary, or an error names the fault."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzzing import PATHS, assert_readable, corrupted, edited, files_below, fuzz
from hypothesis import event, example, given
from hypothesis import strategies as st

from tfscale.data.batches import Batches, heldout_batches
from tfscale.data.errors import DataError
from tfscale.data.manifest import MANIFEST_FILE
from tfscale.data.prepare import prepare
from tfscale.data.prepared import PreparedData, open_data, verify_data
from tfscale.data.sources import CorpusSpec
from tfscale.data.tokenizer import TokenizerSpec

CONTEXT = 16


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared corpus, which must not be changed."""
    spec = CorpusSpec("text", TokenizerSpec("bpe", 300), path=str(corpus))
    return prepare(spec, tmp_path_factory.mktemp("data")).folder


@pytest.fixture
def damaged(whole: Path, tmp_path: Path) -> Callable[[str, bytes | None], Path]:
    """Function that copies the corpus with one file replaced or deleted."""

    def copy(name: str, content: bytes | None) -> Path:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
        return folder

    return copy


FILES = ["manifest.json", "tokenizer.json", "train-00000.safetensors", "heldout-00000.safetensors"]


def read_all(data: PreparedData) -> None:
    vocabulary = data.manifest.tokenizer.vocab_size
    inputs, targets = Batches(data.train, CONTEXT, 0).sequences(0, len(data.train) // CONTEXT)
    held = [batch for pair in heldout_batches(data.heldout, CONTEXT, len(data.heldout) - 1, 8) for batch in pair]
    for tokens in (inputs, targets, *held):
        assert int(tokens.min()) >= 0
        assert int(tokens.max()) < vocabulary
    assert data.manifest.heldout.bytes_per_token > 0


def is_usable(folder: Path) -> bool:
    """Return True if the corpus could be read, and False after a readable error. Assert that no file changed."""
    before = files_below(folder)
    try:
        read_all(open_data(folder))
        used = True
    except DataError as error:
        assert_readable(error)
        used = False
    assert files_below(folder) == before
    return used


def is_whole(folder: Path) -> bool:
    try:
        verify_data(open_data(folder))
    except DataError as error:
        assert_readable(error)
        return False
    return True


@fuzz(40)
@given(st.data())
def test_any_bytes_of_any_file_are_used_or_told_and_never_pass_for_whole(
    whole: Path, damaged: Callable[[str, bytes | None], Path], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(FILES))
    content = data.draw(st.one_of(st.none(), corrupted((whole / name).read_bytes())))
    folder = damaged(name, content)
    event("used" if is_usable(folder) else "rejected")
    if name != MANIFEST_FILE and content != (whole / name).read_bytes():
        assert not is_whole(folder)


@fuzz(80)
@given(st.data())
def test_any_manifest_is_used_or_told(
    whole: Path, damaged: Callable[[str, bytes | None], Path], data: st.DataObject
) -> None:
    document = data.draw(edited(json.loads((whole / MANIFEST_FILE).read_bytes())))
    content = json.dumps(document).encode("utf-8", "surrogatepass")
    folder = damaged(MANIFEST_FILE, content)
    event("used" if is_usable(folder) else "rejected")
    is_whole(folder)


@fuzz(40)
@given(st.data())
def test_any_header_of_a_shard_is_used_or_told(
    whole: Path, damaged: Callable[[str, bytes | None], Path], data: st.DataObject
) -> None:
    name = "train-00000.safetensors"
    raw = (whole / name).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps(data.draw(edited(json.loads(raw[8 : 8 + length])))).encode()
    told_length = data.draw(st.sampled_from([len(header), len(header), len(header), 0, 1, 2**20, 2**63, 2**64 - 1]))
    folder = damaged(name, told_length.to_bytes(8, "little") + header + raw[8 + length :])
    event("used" if is_usable(folder) else "rejected")


@fuzz(10)
@given(PATHS)
@example("../whole/train-00000.safetensors")
@example("..")
def test_a_shards_name_never_leaves_the_folder(
    whole: Path, damaged: Callable[[str, bytes | None], Path], name: str
) -> None:
    manifest = json.loads((whole / MANIFEST_FILE).read_bytes())
    manifest["train"]["shards"][0]["file"] = name
    folder = damaged(MANIFEST_FILE, json.dumps(manifest).encode())
    with pytest.raises(DataError):
        open_data(folder)


def test_a_shard_outside_the_folder_is_not_read_though_it_fits(
    whole: Path, damaged: Callable[[str, bytes | None], Path]
) -> None:
    manifest = json.loads((whole / MANIFEST_FILE).read_bytes())
    manifest["train"]["shards"][0]["file"] = str(whole / "train-00000.safetensors")
    with pytest.raises(DataError, match="not the name of a file in this folder"):
        open_data(damaged(MANIFEST_FILE, json.dumps(manifest).encode()))


def test_a_token_outside_the_vocabulary_is_told_when_it_is_read(
    whole: Path, damaged: Callable[[str, bytes | None], Path]
) -> None:
    name = "train-00000.safetensors"
    content = (whole / name).read_bytes()
    folder = damaged(name, content[:-2] + np.uint16(300).tobytes())
    data = open_data(folder)
    with pytest.raises(DataError, match=r"token 300 near position .* must be less than the vocabulary size 300"):
        data.train[len(data.train) - 5 : len(data.train)]


def test_a_corpus_damaged_since_it_was_prepared_is_not_used_again(corpus: Path, tmp_path: Path) -> None:
    spec = CorpusSpec("text", TokenizerSpec("bpe", 257), path=str(corpus))
    shard = prepare(spec, tmp_path).folder / "heldout-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 0
    content[-2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"heldout-00000\.safetensors: the file has changed"):
        prepare(spec, tmp_path)
