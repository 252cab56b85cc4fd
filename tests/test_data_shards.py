"""Tests of token shards on disk."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tfscale.data import assemble
from tfscale.data.assemble import divide_shards, write_shard
from tfscale.data.errors import DataError
from tfscale.data.shards import ShardLabel, Tokens, read_shard, token_dtype
from tfscale.data.work import Pieces

LABEL = ShardLabel(format="1", fingerprint="ab12", tokenizer_sha256="cd34", split="train")
U16 = np.dtype(np.uint16)


@pytest.fixture(autouse=True)
def _seven_tokens_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "SHARD_TOKENS", 7)


def write(folder: Path, values: np.ndarray) -> list[Path]:
    files = []
    for number, part in enumerate((values[:5], values[5:5], values[5:])):
        part.tofile(folder / f"part{number}")
        files.append((folder / f"part{number}", len(part)))
    written = [write_shard(task) for task in divide_shards(Pieces(folder), LABEL, values.dtype, files)]
    return [path.rename(folder / record.file) for path, record in written]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_tokens_come_back_across_shards(tmp_path: Path, dtype: type) -> None:
    values = np.arange(20, dtype=dtype) * 3000
    paths = write(tmp_path, values)
    assert [path.name for path in paths] == [f"train-0000{n}.safetensors" for n in range(3)]
    tokens = Tokens([read_shard(path, LABEL, values.dtype) for path in paths])
    assert len(tokens) == 20
    for start in range(21):
        for stop in range(start, 25):
            np.testing.assert_array_equal(tokens[start:stop], values[start:stop])
    np.testing.assert_array_equal(tokens[:], values)
    np.testing.assert_array_equal(tokens[-3:], values[-3:])
    assert tokens[8:13].base is not None, "tokens of one shard are not copied"


def test_a_shard_is_a_safetensors_file_that_says_what_it_holds(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.uint16)
    (path,) = write(tmp_path, values)
    with safe_open(path, "np") as file:
        assert file.metadata() == {"format": "1", "fingerprint": "ab12", "tokenizer_sha256": "cd34", "split": "train"}
        np.testing.assert_array_equal(file.get_tensor("tokens"), values)


def test_a_full_last_shard_leaves_no_empty_one(tmp_path: Path) -> None:
    assert len(write(tmp_path, np.arange(14, dtype=np.uint16))) == 2


def test_the_smallest_type_that_holds_the_vocabulary_is_taken() -> None:
    assert token_dtype(65_535) == np.uint16
    assert token_dtype(65_536) == np.uint32


def test_tokens_are_mapped_and_read_only(tmp_path: Path) -> None:
    (path,) = write(tmp_path, np.arange(6, dtype=np.uint16))
    tokens = read_shard(path, LABEL, U16)
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not a safetensors"),
        (b"text that is not a shard", "not a safetensors"),
        (b"\x04" + b"\0" * 7 + b"[1]}", "without tokens"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes, fault: str) -> None:
    path = tmp_path / "train-00000.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"train-00000\.safetensors: .*{fault}"):
        read_shard(path, LABEL, U16)


def test_safetensors_without_tokens_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(DataError, match=r"weights\.safetensors: .*without tokens"):
        read_shard(path, LABEL, U16)
    save_file({"tokens": np.zeros(3, np.float32)}, path, metadata=dict(vars(LABEL)))
    with pytest.raises(DataError, match="tokens are F32"):
        read_shard(path, LABEL, U16)


@pytest.mark.parametrize("change", [-1, -9, 1])
def test_a_truncated_or_longer_file_is_named(tmp_path: Path, change: int) -> None:
    (path,) = write(tmp_path, np.arange(6, dtype=np.uint16))
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"\0")
    with pytest.raises(DataError, match="but its header states"):
        read_shard(path, LABEL, U16)


@pytest.mark.parametrize("field", ["format", "fingerprint", "tokenizer_sha256", "split"])
def test_a_shard_of_another_corpus_is_refused(tmp_path: Path, field: str) -> None:
    (path,) = write(tmp_path, np.arange(6, dtype=np.uint16))
    other = ShardLabel(**{**vars(LABEL), field: "other"})
    with pytest.raises(DataError, match=f"{field} is {getattr(LABEL, field)}, but the manifest states other"):
        read_shard(path, other, U16)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-00000\.safetensors: No such file"):
        read_shard(tmp_path / "train-00000.safetensors", LABEL, U16)
