"""Tests of checkpoints on disk, which are complete or absent."""

import gc
import pickle
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters, Part, Ranks, manifest, writing
from tfscale.checkpoint.stored import Stored
from tfscale.models.init import build_model
from tfscale.models.transformer import TransformerConfig
from tfscale.totals import Totals

CONFIG = TransformerConfig(n_layer=1, d_model=8, n_head=2, vocab_size=11, context=4, d_ff=16)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def write(folder: Path, step: int) -> Path:
    model = build_model(CONFIG, seed=step)
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    found = folder / checkpoint.folder_name(step)
    checkpoint.write(found, CONFIG, Counters(step, step, Totals(), Totals(step, step, 1.5, 1.5)), tensors)
    return found


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    for name, tensor in build_model(CONFIG, seed=3).state_dict().items():
        assert torch.equal(checkpoint.load_model(folder).state_dict()[name], tensor)
    assert checkpoint.read_state(folder) == (CONFIG, Counters(3, 3, Totals(), Totals(3, 3, 1.5, 1.5)))


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    write(tmp_path, 9)
    newest = write(tmp_path, 10)
    assert checkpoint.latest(tmp_path, lambda message: None) == newest


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("spoil", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("which", ["*.safetensors", "state.json"])
def test_a_spoilt_checkpoint_is_named_set_aside_and_the_one_before_used(
    tmp_path: Path, spoil: object, which: str
) -> None:
    good = write(tmp_path, 1)
    file = next(write(tmp_path, 2).glob(which))
    spoil(file)  # type: ignore[operator]
    reports: list[str] = []
    assert checkpoint.latest(tmp_path, reports.append) == good
    assert len(reports) == 1
    assert file.name in reports[0]
    assert (tmp_path / "broken-step-000000000002").is_dir()


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    (write(tmp_path, 1) / "manifest.json").unlink()
    assert checkpoint.latest(tmp_path, lambda message: None) is None


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []

    def sync(path: Path) -> None:
        assert path.exists()
        synced.append(path)

    for module in (manifest, writing):
        monkeypatch.setattr(module, "sync", sync)
    monkeypatch.setattr(writing, "FILE_BYTES", 100)
    folder = write(tmp_path, 1)
    aside = tmp_path / f".{folder.name}.writing"
    written = sorted(file.name for file in folder.iterdir())
    assert len(written) > 4, "several files of tensors, state and manifest"
    assert sorted(path.name for path in synced[:-2]) == written
    assert {path.parent for path in synced[:-2]} == {aside}
    assert synced[-2:] == [aside, tmp_path], "first the folder, then its new name"


def test_a_file_that_the_manifest_would_not_name_is_never_given_out(tmp_path: Path) -> None:
    def forget(aside: Path) -> checkpoint.Entries:
        (aside / "tensor-00000.safetensors").write_bytes(b"")
        return {}

    with pytest.raises(AssertionError, match="without an entry in the manifest"):
        checkpoint.write_aside(tmp_path / checkpoint.folder_name(1), CONFIG, Counters(), forget)
    assert checkpoint.latest(tmp_path, lambda message: None) is None


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    content = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full(aside: Path) -> checkpoint.Entries:
        (aside / "half.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_aside(folder, CONFIG, Counters(), full)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == content
    assert checkpoint.latest(tmp_path, lambda message: None) == folder


def test_tensors_are_written_as_they_come_and_two_at_most_are_held(tmp_path: Path, two_threads: None) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def made() -> Iterator[tuple[str, torch.Tensor]]:
        for number in range(5):
            gc.collect()
            assert torch.get_num_threads() == 1, "other threads write and hash"
            assert sum(each() is not None for each in alive) <= 2
            tensor = torch.full((3,), float(number))
            alive.append(weakref.ref(tensor))
            yield f"model/{number}", tensor

    checkpoint.write_each(tmp_path, made())
    assert torch.get_num_threads() == 2
    found = [load_file(path) for path in sorted(tmp_path.iterdir())]
    assert [{name: tensor.tolist() for name, tensor in each.items()} for each in found] == [
        {f"model/{number}": [number] * 3} for number in range(5)
    ]


def test_a_tensor_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    tensors = [("model/a", torch.zeros(3)), ("model/b", torch.zeros(3))]
    with pytest.raises((OSError, SafetensorError)):
        checkpoint.write_each(tmp_path / "missing", tensors)


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    checkpoint.prune(tmp_path, keep=2)
    assert sorted(folder.name[-1] for folder in tmp_path.iterdir()) == ["2", "3"]


def test_a_pickle_in_a_checkpoint_is_never_loaded(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("harm",))

    folder = write(tmp_path, 1)
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(BrokenCheckpoint):
        checkpoint.load_model(folder)


def test_the_compute_of_a_full_size_chain_can_be_counted(tmp_path: Path) -> None:
    spent = Totals(tokens=390 * 10**9, flops=7 * 10**20, seconds=1e7, device_seconds=1e8)
    folder = tmp_path / checkpoint.folder_name(1)
    tensors = {f"model/{name}": tensor for name, tensor in build_model(CONFIG, seed=1).state_dict().items()}
    checkpoint.write(folder, CONFIG, Counters(1, 1, spent, spent), tensors)
    assert checkpoint.read_state(folder)[1].totals == spent


def test_files_are_ended_when_they_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FILE_BYTES", 600)
    folder = write(tmp_path, 3)
    files = list(folder.glob("*.safetensors"))
    assert len(files) > 2
    checkpoint.verify(folder)
    for name, tensor in build_model(CONFIG, seed=3).state_dict().items():
        assert torch.equal(checkpoint.load_model(folder).state_dict()[name], tensor)


class Together(Ranks):
    """Stand-in for a world whose ranks are threads."""

    def __init__(self, rank: int, met: Barrier, said: dict[int, tuple[float, ...]]) -> None:
        super().__init__(rank, met.parties)
        self._met, self._said = met, said

    def sum(self, *values: float) -> list[float]:
        self._said[self.rank] = values
        self._met.wait()
        total = [sum(each) for each in zip(*self._said.values(), strict=True)]
        self._met.wait()
        return total


WHOLE = torch.arange(35.0).view(7, 5)


def write_together(folder: Path, offsets: list[int]) -> None:
    """Write WHOLE with as many ranks as there are offsets, each starting at its offset."""
    met, said = Barrier(len(offsets)), dict[int, tuple[float, ...]]()

    def rank(number: int) -> None:
        ranks = Together(number, met, said)
        first, end = offsets[number], [*offsets, len(WHOLE)][number + 1]
        tensors: dict[str, torch.Tensor | Part] = {"model/a": Part(WHOLE[first:end], (first, 0))}
        if number == 0:
            tensors["rng/cpu"] = torch.arange(4)
        checkpoint.write(folder, CONFIG, Counters(5), tensors, ranks)

    with ThreadPoolExecutor(len(offsets)) as pool:
        list(pool.map(rank, range(len(offsets))))


@pytest.mark.parametrize("offsets", [[0, 4], [0, 2, 4, 6]])
def test_what_several_ranks_write_is_one_checkpoint(tmp_path: Path, offsets: list[int]) -> None:
    folder = tmp_path / checkpoint.folder_name(5)
    write_together(folder, offsets)
    checkpoint.verify(folder)
    assert len(list(folder.glob("*.safetensors"))) == len(offsets)
    stored = Stored(folder)
    assert stored.shapes() == {"model/a": WHOLE.shape, "rng/cpu": torch.Size([4])}
    into = torch.empty(7, 5)
    stored.read({"model/a": into})
    assert torch.equal(into, WHOLE)


def test_a_write_that_fails_on_one_rank_fails_on_each_and_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / checkpoint.folder_name(5)
    write_together(folder, [0, 4])
    content = {file.name: file.read_bytes() for file in folder.iterdir()}
    met, heard = Barrier(2), dict[int, tuple[float, ...]]()

    def rank(number: int) -> str:
        def fill(aside: Path) -> checkpoint.Entries:
            if number == 1:
                raise OSError(28, "No space left on device")
            (aside / "rank-00000-00000.safetensors").write_bytes(b"")
            return {}

        with pytest.raises(OSError, match="could not be written") as caught:
            checkpoint.write_aside(folder, CONFIG, Counters(5), fill, Together(number, met, heard))
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        zero, one = pool.map(rank, range(2))
    assert "another rank failed" in zero
    assert "No space left" in one
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == content
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
