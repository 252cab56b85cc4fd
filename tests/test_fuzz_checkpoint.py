"""Fuzz tests of checkpoint files: they are read as written, or BrokenCheckpoint names the fault."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import PATHS, assert_readable, corrupted, edited, files_below, fuzz
from hypothesis import event, example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tfscale import checkpoint
from tfscale.checkpoint import BrokenCheckpoint, Counters
from tfscale.models.init import build_model
from tfscale.models.parameter_tokens import TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.totals import Totals
from tfscale.training.state import rng_tensors, set_rng

GROUP = (TokenGroup(6, 2.0),)
CONFIG = TokenFormerConfig(1, 8, 2, vocab_size=11, context=4, qkv=GROUP, out=GROUP, ffn=GROUP)
MODEL = build_model(CONFIG, seed=0)
WEIGHTS = {f"model/{name}": tensor.detach() for name, tensor in MODEL.named_parameters()}
TOKENS = torch.tensor([[1, 2, 3]])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / checkpoint.folder_name(3)
    tensors = {**WEIGHTS, **rng_tensors()}
    checkpoint.write(folder, CONFIG, Counters(3, 3, Totals(), Totals(3, 3, 1.5, 1.5), (2.0, 1.0)), tensors)
    return folder


Change = Callable[[Path], None]


@pytest.fixture
def changed(whole: Path, tmp_path: Path) -> Callable[[Change], Path]:
    """Function that copies the checkpoint and applies a change to the copy."""

    def copy(change: Change) -> Path:
        shutil.rmtree(tmp_path, ignore_errors=True)
        folder = tmp_path / "checkpoints" / whole.name
        shutil.copytree(whole, folder)
        change(folder)
        return folder

    return copy


def sign(folder: Path) -> None:
    """Update the manifest to match the files, as an attacker could."""
    files = [file for file in sorted(folder.iterdir()) if file.name != "manifest.json"]
    manifest = {
        file.name: {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in files
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def is_whole(folder: Path) -> bool:
    try:
        checkpoint.verify(folder)
    except BrokenCheckpoint as fault:
        assert_readable(fault)
        return False
    return True


def is_usable(folder: Path) -> bool:
    """Return True if the checkpoint could be loaded and used, and False after a readable error. Assert that no file
    changed."""
    before = files_below(folder.parent)
    random = torch.get_rng_state()
    used = True
    try:
        model = checkpoint.load_model(folder)
        checkpoint.read_state(folder)
        rng = {"rng/cpu": torch.empty_like(random)}
        checkpoint.read(folder, rng)
        set_rng(rng)
        model(TOKENS % model.config.vocab_size)
    except BrokenCheckpoint as fault:
        assert_readable(fault)
        used = False
    finally:
        torch.set_rng_state(random)
    assert files_below(folder.parent) == before
    return used


@fuzz(40)
@given(st.data())
def test_any_damage_to_any_file_is_found_and_the_checkpoint_set_aside(
    whole: Path, changed: Callable[[Change], Path], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(file.name for file in whole.iterdir())))
    original = (whole / name).read_bytes()
    content = data.draw(st.one_of(st.none(), corrupted(original)))

    def change(folder: Path) -> None:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)

    folder = changed(change)
    is_usable(folder)
    if not is_whole(folder):
        reports: list[str] = []
        assert checkpoint.latest(folder.parent, reports.append) is None
        assert len(reports) == 1
        assert (folder.parent / f"broken-{folder.name}").is_dir()
    else:  # a change without effect on the JSON value, such as a space
        assert name == "manifest.json" or content == original
        assert json.loads((folder / name).read_bytes()) == json.loads(original)


@fuzz(60)
@given(st.data())
def test_any_state_is_read_or_told(whole: Path, changed: Callable[[Change], Path], data: st.DataObject) -> None:
    state = data.draw(edited(json.loads((whole / "state.json").read_bytes())))

    def change(folder: Path) -> None:
        (folder / "state.json").write_bytes(json.dumps(state).encode("utf-8", "surrogatepass"))
        sign(folder)

    folder = changed(change)
    assert is_whole(folder)
    event("used" if is_usable(folder) else "rejected")


@fuzz(60)
@given(st.data())
def test_any_manifest_is_told_and_names_stay_in_the_folder(
    whole: Path, changed: Callable[[Change], Path], data: st.DataObject
) -> None:
    manifest = json.loads((whole / "manifest.json").read_bytes())
    manifest = data.draw(edited({**manifest, data.draw(PATHS): manifest["state.json"]}))

    def change(folder: Path) -> None:
        (folder / "manifest.json").write_bytes(json.dumps(manifest).encode("utf-8", "surrogatepass"))

    is_whole(changed(change))


@fuzz(10)
@given(PATHS)
@example("../state.json")
@example("..")
def test_a_name_in_a_manifest_never_leaves_the_folder(
    whole: Path, changed: Callable[[Change], Path], name: str
) -> None:
    def change(folder: Path) -> None:
        shutil.copy(folder / "state.json", folder.parent / "state.json")
        manifest = json.loads((folder / "manifest.json").read_bytes())
        (folder / "manifest.json").write_text(json.dumps({**manifest, name: manifest["state.json"]}))

    assert not is_whole(changed(change))


def test_a_tensor_file_that_the_manifest_does_not_name_is_found(whole: Path, changed: Callable[[Change], Path]) -> None:
    folder = changed(lambda folder: save_file(WEIGHTS, folder / "more.safetensors"))
    with pytest.raises(BrokenCheckpoint, match=r"more\.safetensors: the file is not in the manifest"):
        checkpoint.verify(folder)


DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64]


@st.composite
def other_tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Draw the tensors of the checkpoint, with some reshaped, converted, renamed, removed or added."""
    tensors = {**WEIGHTS, **rng_tensors()}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(tensors)))
        match draw(st.sampled_from(["shape", "rows", "scalar", "type", "missing", "renamed", "new", "nan"])):
            case "shape":
                tensors[name] = tensors[name].reshape(-1)
            case "rows":
                tensors[name] = tensors[name].reshape(-1)[: draw(st.integers(0, 3))]
            case "scalar":
                tensors[name] = torch.zeros(())
            case "type":
                tensors[name] = tensors[name].to(draw(st.sampled_from(DTYPES)))
            case "missing" if len(tensors) > 1:
                del tensors[name]
            case "renamed":
                tensors[draw(st.sampled_from(["model/x", "../x", "", "model/", "rng/cpu", "a" * 99]))] = tensors.pop(
                    name
                )
            case "new":
                tensors[draw(st.text(max_size=4))] = torch.zeros(draw(st.integers(0, 9)))
            case "nan":
                tensors[name] = torch.full_like(tensors[name].float(), torch.nan)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def offsets(names: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """Draw the metadata with which torch records the position of a part of a tensor, and invalid versions of it."""
    parts = st.fixed_dictionaries({name: st.fixed_dictionaries({"saved_offsets": values}) for name in names})
    return st.one_of(parts.map(json.dumps), st.text(max_size=9), st.sampled_from(["[]", "3", "{}", "null", "[" * 9999]))


@fuzz(60)
@given(st.data())
def test_any_tensors_are_loaded_or_told(whole: Path, changed: Callable[[Change], Path], data: st.DataObject) -> None:
    tensors = data.draw(other_tensors())
    offset = st.lists(st.sampled_from([0, 0, 0, 1, -1, 8, 2**40, 2**63]), min_size=0, max_size=2)
    metadata = data.draw(st.one_of(st.none(), offsets(sorted(tensors), st.one_of(offset, st.none()))))

    def change(folder: Path) -> None:
        for file in folder.glob("*.safetensors"):
            file.unlink()
        save_file(tensors, folder / "x.safetensors", {"DCP_SHARDING_INFO": metadata} if metadata else None)
        sign(folder)

    folder = changed(change)
    event("used" if is_usable(folder) else "rejected")
    try:
        assert all(shape.numel() < 2**20 for shape in checkpoint.shapes(folder).values())
    except BrokenCheckpoint as fault:
        assert_readable(fault)


def test_the_copy_that_the_changes_start_from_is_whole(whole: Path) -> None:
    assert is_whole(whole)
    assert is_usable(whole)
    file = next(whole.glob("*.safetensors"))
    assert set(load_file(file)) == {*WEIGHTS, *rng_tensors()}
