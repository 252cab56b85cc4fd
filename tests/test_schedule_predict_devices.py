"""Tests of device facts: datasheets, the speed of finished stages, and this machine."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tfscale.config.compose import compose
from tfscale.config.folders import conf_dir
from tfscale.config.machines import DevicePart
from tfscale.faults import UserFault
from tfscale.orchestrate.speed import finished_speeds
from tfscale.plan.devices import facts, mfu, peak
from tfscale.plan.plan import make_plan
from tfscale.predict import planned_machine
from tfscale.stage.environment import Environment, write_environment
from tfscale.stage.result import Result, StageSpeed, write_result
from tfscale.totals import Totals


@pytest.mark.parametrize("fact", ["device.memory=0", "device.price=-1", "device.peak.bf16=0", "device.mfu=1.5"])
def test_a_fact_that_cannot_be_is_told_with_its_key(fact: str) -> None:
    with pytest.raises(UserFault, match=fact):
        make_plan(compose(["device=h100_sxm", fact]))


FILES = sorted(file for file in (conf_dir() / "device").glob("*.yaml") if file.stem != "auto")
NAMES = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8"))["names"] for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_device_has_its_facts_and_says_where_they_are_from(file: Path) -> None:
    for name in NAMES[file.stem]:
        part = facts(name)
        assert part is not None
        for fact in (part.memory, part.bandwidth, part.link, part.network, part.watts, part.price, part.peak.fp32):
            assert fact is not None
            assert fact > 0
        assert 0.2 <= part.mfu <= 0.6
        peaks = [rate for rate in (part.peak.fp32, part.peak.tf32, part.peak.bf16) if rate is not None]
        assert peaks == sorted(peaks)
    text = file.read_text(encoding="utf-8")
    assert "datasheet" in text or "whitepaper" in text
    assert "Price: an assumption" in text.replace("\n# ", " ")


def test_no_two_devices_share_a_name() -> None:
    names = [name for group in NAMES.values() for name in group]
    assert len(set(names)) == len(names)


def test_peaks_are_by_exact_name_and_dtype_and_dense() -> None:
    assert peak("NVIDIA H100 80GB HBM3", "bf16") == 989.4e12  # 1,978.9 with sparsity
    assert peak("NVIDIA A100-SXM4-80GB", "bf16") == 312e12
    assert peak("NVIDIA A100-SXM4-80GB", "tf32") == 156e12
    assert peak("NVIDIA A100-SXM4-80GB", "fp32") == 19.5e12
    assert peak("Tesla V100-SXM2-32GB", "fp32") == 15.7e12
    assert peak("Tesla V100-SXM2-32GB", "bf16") is None
    assert peak("NVIDIA H100", "bf16") is None
    assert facts("nvidia h100 80gb hbm3") is None


def test_mfu_is_model_flops_over_the_peak_of_all_devices_and_unknown_for_an_unknown_one() -> None:
    assert mfu("NVIDIA H100 80GB HBM3", "bf16", 8 * 400e12, 8) == pytest.approx(400 / 989.4)
    assert mfu("x86_64", "fp32", 1e10, 1) is None


def finished(runs: Path, device: str) -> Path:
    folder = runs / "stages" / "tokenformer-1.3B-0123456789ab"
    folder.mkdir(parents=True)
    write_environment(folder, Environment("node7", device, "bf16"))
    ended = Result(
        key="0123456789ab",
        step=1,
        tokens=1,
        before=Totals(seconds=100.0, device_seconds=800.0),
        totals=Totals(seconds=300.0, device_seconds=2400.0),
        eval=None,
        checkpoint="step-000000000001",
        speed=StageSpeed(parameters=1_309_705_728, flops_per_second=8 * 400e12),
    )
    write_result(folder, ended)
    return folder


def test_the_speed_of_a_finished_stage_is_read_from_its_folder(tmp_path: Path) -> None:
    folder = finished(tmp_path, "NVIDIA H100 80GB HBM3")
    [speed] = finished_speeds(tmp_path)
    assert (speed.family, speed.devices, speed.host) == ("tokenformer", 8, "node7")
    assert speed.mfu == pytest.approx(400 / 989.4)
    (folder / "done.json").write_text("{}")
    assert finished_speeds(tmp_path) == []


def test_status_shows_the_mfu_of_a_known_device_and_none_of_another(small: list[str]) -> None:
    stage = make_plan(compose(small)).chain.stages[0]
    stage.path.parent.mkdir(parents=True)
    for device, shown in (("NVIDIA H100 80GB HBM3", True), ("NVIDIA H100", False)):
        finished(stage.path.parents[1], device).rename(stage.path)
        command = [sys.executable, "-m", "tfscale.cli", "status", *small]
        table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert ("MFU" in table and "40%" in table) == shown
        shutil.rmtree(stage.path)


def test_this_machine_is_measured_and_its_processes_share_it() -> None:
    one, two = (
        planned_machine(compose(["launcher.device=cpu", "launcher.kind=torchrun", f"launcher.processes={count}"]))
        for count in (1, 2)
    )
    assert one.measured
    assert one.precision == "fp32"
    assert one.memory is not None
    assert two.memory == one.memory // 2
    assert two.facts == DevicePart()
