"""Tests of the settings of a process for its CUDA device, with stand-ins for torch's CUDA functions."""

import os
from collections.abc import Iterator

import pytest
import torch

from tfscale.stage.spec import RunSpec
from tfscale.training.allocator import allocator
from tfscale.training.device import environment, resolve

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Indices of the devices that were selected. Torch reports one device."""
    numbers: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", numbers.append)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a device")
    monkeypatch.setenv(CUBLAS, "")
    del os.environ[CUBLAS]
    products, filled = torch.get_float32_matmul_precision(), torch.utils.deterministic.fill_uninitialized_memory
    yield numbers
    torch.set_float32_matmul_precision(products)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch._inductor.config.deterministic = False


@pytest.mark.parametrize(
    ("precision", "told", "products"),
    [("auto", "bf16", "high"), ("bf16", "bf16", "high"), ("tf32", "tf32", "high"), ("fp32", "fp32", "highest")],
)
def test_a_precision_is_what_it_is_called(precision: str, told: str, products: str, chosen: list[int]) -> None:
    device = resolve(RunSpec(data_dir="", device="cuda", precision=precision))  # type: ignore[arg-type]
    assert environment(device).precision == device.precision == told
    assert device.bf16 == (told == "bf16")
    assert torch.get_float32_matmul_precision() == products


def test_a_cpu_has_no_tf32() -> None:
    with pytest.raises(ValueError, match=r"launcher\.precision=tf32: must be fp32 or bf16 on a CPU"):
        resolve(RunSpec(data_dir="", device="cpu", precision="tf32"))
    assert resolve(RunSpec(data_dir="", device="cpu")).precision == "fp32"


def test_a_process_that_sees_its_own_device_alone_takes_it(chosen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "1234")
    resolve(RunSpec(data_dir="", device="cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    resolve(RunSpec(data_dir="", device="cuda"))
    assert chosen == [0, 3]


def test_determinism_is_asked_of_everything_that_can_lack_it_and_recorded(chosen: list[int]) -> None:
    plain = environment(resolve(RunSpec(data_dir="", device="cuda")))
    assert (plain.deterministic, CUBLAS in os.environ) == (False, False)
    exact = environment(resolve(RunSpec(data_dir="", device="cuda", deterministic=True)))
    assert (exact.deterministic, exact.compiled) == (True, True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch._inductor.config.deterministic
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ[CUBLAS] == ":4096:8"


def test_cuda_memory_has_segments_that_grow_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    assert allocator()["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    assert "PYTORCH_ALLOC_CONF" not in allocator(), "it would take the place of the user's"
