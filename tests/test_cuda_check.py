"""Tests of the CUDA check, on the CPU. It needs only a checkout, torch, numpy and safetensors; every part records
findings, and every failure is reported."""

import ast
import json
import os
import re
import signal
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_children import starts

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))


from benchmarks.cuda.check import Check  # noqa: E402
from benchmarks.cuda.cli import TINY  # noqa: E402
from benchmarks.cuda.compute import RECORDS, compute  # noqa: E402
from benchmarks.cuda.findings import (  # noqa: E402
    KERNELS,
    MACHINE,
    RESULTS,
    Bounded,
    Ended,
    Failed,
    Measured,
    Recorder,
    read,
    write,
)
from benchmarks.cuda.page import write_page  # noqa: E402
from benchmarks.cuda.parts import COMMANDS, GROUPS, Group, Part  # noqa: E402
from benchmarks.cuda.prepared import NEEDED, _pinned, read_order  # noqa: E402
from benchmarks.cuda.room import GROWTH_NATS  # noqa: E402
from benchmarks.cuda.runner import run_groups  # noqa: E402
from benchmarks.cuda.summary import SUMMARY, summarize  # noqa: E402
from tfscale import children  # noqa: E402
from tfscale.doctor.agreement import GRADIENTS, LOSS_BOUND_NATS, OUTPUTS, PEAK_SHARE  # noqa: E402
from tfscale.stage.result import has_result  # noqa: E402
from tfscale.stage.spec import CHECKPOINTS  # noqa: E402

SCRIPT = ROOT / "benchmarks" / "cuda_check.py"
ABSENT = ("hydra", "omegaconf", "mlflow", "pydantic", "typer", "rich", "yaml", "matplotlib", "scipy", "tokenizers",
          "psutil", "transformers")  # fmt: skip
"""Libraries that are not installed on a bare GPU machine."""
SMALL = ("--tiny", "--cpu", "--deadline", "600")
HIDE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"no module named {{name}}: a bare machine")

sys.meta_path.insert(0, Absent())
"""


def check(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command with these environment variables, and return its exit code and output."""
    command = [sys.executable, str(SCRIPT), *arguments]
    with (log := Path(arguments[1]).with_suffix(".log")).open("wb") as output:
        process = children.start(command, children.environment(variables), stdout=output, stderr=output)
    return process.wait(), log.read_text("utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Path]:
    """Exit code, output and folder of a run of the command `check`."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "sitecustomize.py").write_text(HIDE, "utf-8")
    code, output = check("check", str(folder / "out"), "--tiny", "--cpu", PYTHONPATH=str(folder))
    return code, output, folder / "out"


def test_every_part_runs_without_the_libraries_of_the_orchestrator(finished: tuple[int, str, Path]) -> None:
    code, output, out = finished
    assert code == 0, output
    findings = read(out)
    parts = set(COMMANDS["check"].parts)
    assert {finding.part for finding in findings if isinstance(finding, Ended) and finding.ok} == parts
    assert {finding.part for finding in findings if not isinstance(finding, Ended)} == parts
    assert not [finding for finding in findings if isinstance(finding, Failed)]


def test_the_summary_names_every_bound_and_is_printed(finished: tuple[int, str, Path]) -> None:
    _, output, out = finished
    text = (out / SUMMARY).read_text("utf-8")
    assert text in output
    bounds = [finding for finding in read(out) if isinstance(finding, Bounded)]
    assert {bound.part for bound in bounds} == {"golden", "tokenformer", "other_models", "room"}
    for bound in bounds:
        assert f" {bound.name} " in text


def test_lines_of_the_results_have_value_bound_and_result(finished: tuple[int, str, Path]) -> None:
    lines = [json.loads(line) for line in (finished[2] / RESULTS).read_text("utf-8").splitlines()]
    bounds = [line for line in lines if line["kind"] == "bound"]
    assert bounds
    assert all(line["ok"] and line["value"] <= line["bound"] for line in bounds)


@pytest.mark.parametrize("value", [1.0, "nan", "inf"])
def test_a_broken_bound_is_reported_by_name(
    finished: tuple[int, str, Path], tmp_path: Path, value: float | str
) -> None:
    lines = [json.loads(line) for line in (finished[2] / RESULTS).read_text("utf-8").splitlines()]
    planted = next(line for line in lines if line["kind"] == "bound")
    planted["value"] = value
    (tmp_path / RESULTS).write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    text, good = summarize(tmp_path, COMMANDS["check"].parts)
    assert not good
    assert "1 of" in text.splitlines()[2]
    [row] = [line for line in text.splitlines() if "**BROKEN**" in line]
    assert planted["name"] in row


def test_summarizing_broken_results_exits_with_1(finished: tuple[int, str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / RESULTS).write_bytes((finished[2] / RESULTS).read_bytes())
    assert check("summary", str(out))[0] == 0
    write(out, Bounded("golden", "planted", value=2.0, bound=1.0))
    code, output = check("summary", str(out))
    assert code == 1
    assert "planted" in output


def test_results_of_another_check_are_not_mixed_in(finished: tuple[int, str, Path]) -> None:
    before = (finished[2] / RESULTS).read_bytes()
    code, output = check("golden", str(finished[2]), "--tiny", "--cpu")
    assert code == 2
    assert "choose an empty folder" in output
    assert (finished[2] / RESULTS).read_bytes() == before


def test_a_machine_without_a_gpu_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    code, output = check("check", str(tmp_path / "out"), CUDA_VISIBLE_DEVICES="")
    assert code == 2
    assert "torch finds no CUDA device" in output
    assert not (tmp_path / "out").exists()


def test_commands_that_need_prepared_files_report_when_none_are_given(tmp_path: Path) -> None:
    code, output = check("compute", str(tmp_path / "out"), "--tiny", "--cpu")
    assert code == 2
    assert "--files: must be a folder written by `prepare`" in output


def test_a_measurement_that_raises_is_recorded_and_the_next_one_is_made(tmp_path: Path) -> None:
    record = Recorder(tmp_path, "facts")
    assert record.attempt("first", lambda: {"quotient": 1 / 0}) == {}
    assert record.attempt("second", lambda: {"quotient": float("inf")}) == {"quotient": float("inf")}
    write(tmp_path, Ended("facts", "finished", 1.0))
    text, good = summarize(tmp_path, ["facts"])
    assert not good
    assert "ZeroDivisionError" in text
    assert "quotient inf" in text


def test_parts_that_hang_crash_or_have_no_time_left_are_reported_by_name(tmp_path: Path) -> None:
    programs = {
        "fine": "pass",
        "hangs": "import time; print('waiting for the device', flush=True); time.sleep(600)",
        "crashes": "raise SystemExit('no kernel image')",
        "late": "pass",
    }

    def command(part: Part) -> Sequence[str]:
        return [sys.executable, "-c", programs[part.name]]

    parts = {name: Part(name, "", "") for name in programs}
    together = Group(4.0, (parts["fine"], parts["hangs"], parts["crashes"]))
    run_groups([together, Group(30.0, (parts["late"],))], command, tmp_path, deadline=10.0)
    ends = {finding.part: finding for finding in read(tmp_path) if isinstance(finding, Ended)}
    assert {name: end.how for name, end in ends.items()} == {
        "fine": "finished", "hangs": "cut off", "crashes": "crashed", "late": "left out"
    }  # fmt: skip
    text, good = summarize(tmp_path, [*programs, "forgotten"])
    assert not good
    for expected in ("waiting for the device", "no kernel image", "forgotten"):
        assert expected in text


def test_no_module_of_the_check_starts_processes_by_itself() -> None:
    files = [SCRIPT, *(ROOT / "benchmarks" / "cuda").glob("*.py")]
    assert not [file.name for file in files if any(starts(ast.parse(file.read_text("utf-8"))))]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """Folder written by `prepare`, without packages, for a chain of two tiny stages."""
    folder = tmp_path_factory.mktemp("prepared") / "files"
    overrides = [*TINY, "schedule=gpu_short", "baseline=tokenformer", "data=text", f"data.path={corpus}"]
    code, output = check("prepare", str(folder), "--without-packages", "data.vocab_size=257", *overrides)
    assert code == 0, output
    return folder


def test_the_baselines_of_the_last_size_are_trained_first_and_records_are_packed(
    prepared: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE, "utf-8")
    variables = {"PYTHONPATH": str(tmp_path)}
    code, output = check("compute", str(tmp_path / "out"), "--files", str(prepared), *SMALL, **variables)
    assert code == 0, output
    order, _ = read_order(prepared)
    assert [*order.values()] == ["TokenFormer from scratch, 21M", "progressive (tuned), 9M", "progressive (tuned), 21M"]
    measured = {each.name for each in read(tmp_path / "out") if isinstance(each, Measured)}
    assert measured == {*order.values()}
    with tarfile.open(tmp_path / "out" / RECORDS) as archive:
        archive.extractall(tmp_path, filter="data")
    assert all(has_result(tmp_path / "stages" / name) for name in order)
    assert not [*tmp_path.glob(f"stages/*/{CHECKPOINTS}")]


def test_stages_for_which_no_time_is_left_are_reported(prepared: Path, tmp_path: Path) -> None:
    compute(Check(tmp_path, Recorder(tmp_path, "compute"), "cpu", tiny=True, files=prepared, limit=0.0))
    failed = [each.name for each in read(tmp_path) if isinstance(each, Failed)]
    assert failed == [*read_order(prepared)[0].values()]


def test_the_command_line_trains_a_chain_on_a_terminal_though_a_process_is_killed(
    prepared: Path, tmp_path: Path
) -> None:
    code, output = check("cli", str(tmp_path / "out"), "--files", str(prepared), *SMALL)
    assert code == 0, output
    [run] = [each for each in read(tmp_path / "out") if isinstance(each, Measured)]
    assert run.figures["stages"] == 2


def test_a_page_has_the_mfu_for_the_plan_and_the_longest_kernels(tmp_path: Path) -> None:
    record = Recorder(tmp_path, "facts")
    versions = {"commit": "abc", "torch": "2.11", "cuda": "13.0", "cudnn": 9, "python": "3.12"}
    record.measured(MACHINE, {"device": "NVIDIA H200", "sizes": "full", **versions})
    peak = 989.4
    for size, share in (("124M", 0.2), ("1.4B", 0.4)):
        figures = {"peak_bytes": 2**34, "planned_bytes": 2**34, KERNELS: [("gemm|kernel", 3, 1.25)]}
        step = Recorder(tmp_path, f"step_{size}")
        step.measured("ours", {"tokens_per_second": 90.0, "tflops": share * peak, **figures})
        step.measured("Transformer", {"tokens_per_second": 100.0, "tflops": share * peak, **figures})
        step.measured("official", {"fits": False})
    record.bounded("logits", value=2.0, bound=1.0)
    path = write_page(tmp_path, tmp_path)
    page = path.read_text("utf-8")
    assert path.name == "cuda_nvidia_h200.md"
    assert "Set `mfu: 0.27` in conf/device/h200.yaml" in page  # the harmonic mean of 0.2 and 0.4
    assert re.search(r"\| 1.4B +\| TokenFormer +\| 90 +\| 0.90 +\| 40.0% +\|", page)
    assert "does not fit" in page
    assert "| `gemm/kernel` |" in page
    assert "0 of 1 bounds are met" in page


def test_tiny_sizes_make_no_page(finished: tuple[int, str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in full sizes"):
        write_page(finished[2], tmp_path)


def test_every_needed_package_has_one_locked_version() -> None:
    pinned = [*_pinned((ROOT / "requirements" / "locked.txt").read_text("utf-8"))]
    assert [entry.partition("==")[0] for entry in pinned] == [*NEEDED]
    assert all("--hash=sha256:" in entry for entry in pinned)


def test_a_part_that_was_cut_off_leaves_no_process(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    run_groups([Group(2.0, (Part("hangs", "", ""),))], lambda _: [sys.executable, "-c", program], tmp_path, 10.0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text("utf-8")), 0)


def test_a_part_ends_with_the_check_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "room", str(tmp_path / "out"), "--tiny", "--cpu", "--supervised"]
    process = children.start(command)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait() == -signal.SIGKILL


def test_the_page_names_every_part_with_its_seconds_and_every_bound() -> None:
    page = (ROOT / "docs" / "cuda.md").read_text("utf-8")
    for group in GROUPS:
        for part in group.parts:
            assert any(f"`{part.name}`" in row and f"| {group.seconds:.0f} |" in row for row in page.splitlines()), (
                part.name
            )
    for bound in (*OUTPUTS.values(), *GRADIENTS.values(), GROWTH_NATS, LOSS_BOUND_NATS):
        assert f"| {bound:g} |" in page.replace("1e-5", "1e-05")
    assert f"| {PEAK_SHARE:.0%} |" in page


def test_half_a_line_of_the_results_is_reported_and_loses_nothing_else(tmp_path: Path) -> None:
    record = Recorder(tmp_path, "golden")
    record.measured("kernels", {KERNELS: [("gemm_kernel", 3, 1.25)]})
    with (tmp_path / RESULTS).open("a", encoding="utf-8") as file:
        file.write('{"kind": "bound", "part": "gol\n')
    record.bounded("logits", 0.0, 1.0)
    write(tmp_path, Ended("golden", "finished", 1.0))
    text, good = summarize(tmp_path, ["golden"])
    assert not good
    assert "line 2" in text
    assert "gemm_kernel" in text
    assert " logits " in text
