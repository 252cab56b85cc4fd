"""The command `tfscale doctor`, which checks this machine and suggests fixes for problems."""

import os
import platform
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Literal

from rich.table import Table
from rich.text import Text

from tfscale.cli.common import Common
from tfscale.cli.console import answer, console, prose_width, say
from tfscale.cli.execute import tracker_of
from tfscale.config.compose import runs_dir
from tfscale.config.folders import group_options
from tfscale.config.schema import Experiment
from tfscale.faults import UserFault
from tfscale.plan.corpus import corpus_of
from tfscale.plan.plan import make_plan
from tfscale.plan.specs import threads
from tfscale.predict import planned_machine, predict
from tfscale.text import gigabytes

LITTLE_DISK = 10e9
"""Free disk space in bytes below which a note is shown, because larger chains need more space."""
_STYLES = {"good": "green", "note": "yellow", "broken": "bold red"}
_PEOPLES_EXTRAS = ("corpus", "gpu", "data", "slurm", "s3", "hf", "eval")


@dataclass(frozen=True)
class Finding:
    """Result of one check of `tfscale doctor`."""

    name: str
    state: Literal["good", "note", "broken"]
    """`good`: no problem was found. `note`: a possible problem, or an optional feature that is missing. `broken`:
    something that tfscale needs does not work."""
    what: str
    """Description of the result."""
    mend: str = ""
    """Suggested fix, or an empty string if no fix is needed."""


def doctor(common: Common, device: Literal["cpu", "cuda"] | None) -> int:
    """Print the results of all checks, including test computations on `device` if it is given. Return 1 if a finding is
    `broken`, otherwise 0."""
    experiment = common.compose()
    findings = [
        *_software(),
        *_extras(),
        *_hardware(experiment),
        _disk(experiment),
        _tracking(experiment),
        _corpus(experiment),
        *_schedules(common),
        *(_computations(device) if device else ()),
    ]
    broken = any(finding.state == "broken" for finding in findings)
    if common.as_json:
        answer({"usable": not broken, "findings": findings})
        return int(broken)
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True)
    rows.add_column()
    for finding in findings:
        mend = f"\nfix: {finding.mend}" if finding.mend else ""
        rows.add_row(Text(finding.state, _STYLES[finding.state]), Text(finding.name), Text(finding.what + mend))
    console.print(rows, width=prose_width())
    return int(broken)


def _software() -> Iterator[Finding]:
    yield Finding("tfscale", "good", f"{_version('tfscale') or 'a source tree'}, Python {platform.python_version()}")
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "broken", f"torch cannot be imported: {error}", "pip install --force-reinstall torch")
        return
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    seen = f"number of CUDA devices: {torch.cuda.device_count()}"
    if torch.version.cuda and not torch.cuda.is_available():
        mend = "check nvidia-smi, the driver version and CUDA_VISIBLE_DEVICES, because no CUDA device is found"
        yield Finding("torch", "note", f"{torch.__version__}, {built}", mend)
    else:
        yield Finding("torch", "good", f"{torch.__version__}, {built}" + (f", {seen}" if torch.version.cuda else ""))
    if torch.cuda.is_available() and not (shutil.which("cc") or shutil.which("gcc")):
        mend = "install a C compiler, or switch off compilation: launcher.compile=off"
        yield Finding("compiler", "broken", "torch.compile needs a C compiler on CUDA, and none is installed", mend)


def _extras() -> Iterator[Finding]:
    """Yield a finding for each extra in `_PEOPLES_EXTRAS`, such as tfscale[gpu]. The finding lists the missing packages
    of the extra or, if none is missing, the installed versions."""
    wanted: dict[str, list[str]] = defaultdict(list)
    try:
        requirements = metadata.requires("tfscale") or []
    except metadata.PackageNotFoundError:
        return
    for requirement in requirements:
        match = re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", requirement)
        if match and match[2] in _PEOPLES_EXTRAS:
            wanted[match[2]].append(match[1])
    for extra, packages in wanted.items():
        found = {package: _version(package) for package in packages}
        lacking = [package for package, version in found.items() if version is None]
        there = ", ".join(f"{package} {version}" for package, version in found.items() if version)
        if lacking:
            what = f"not installed: {', '.join(lacking)}"
            yield Finding(f"[{extra}]", "note", what, f"pip install 'tfscale[{extra}]'")
        else:
            yield Finding(f"[{extra}]", "good", there)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _hardware(experiment: Experiment) -> Iterator[Finding]:
    try:
        machine = planned_machine(experiment)
    except UserFault as fault:
        yield Finding("device", "broken", "; ".join(fault.messages), "tfscale doctor launcher.device=auto")
        return
    memory = f", {gigabytes(machine.memory)} of memory" if machine.memory else ""
    peak = f", matrix peak {machine.peak / 1e12:,.3g} TFLOP/s ({machine.precision})" if machine.peak else ""
    yield Finding("device", "good", f"{machine.devices} x {machine.name}{memory}{peak}")
    if machine.device == "cuda" and machine.measured and machine.datasheet_peak is None:
        mend = f"to predict MFU and cost, add a file with names: [{machine.name}] and its peak FLOP/s to conf/device"
        yield Finding("datasheet", "note", f"conf/device has no entry for {machine.name}", mend)
    cores, used = os.cpu_count() or 1, threads(experiment)
    busy = os.getloadavg()[0]
    what = f"{used} per process, {cores} cores, load {busy:.1f}"
    asked = used * experiment.launcher.parallel
    if asked > cores:
        mend = f"launcher.threads={max(1, cores // experiment.launcher.parallel)}"
        yield Finding("threads", "note", f"{what}: more threads than cores", mend)
    else:
        mend = "end other busy processes, which slow down training" if busy > cores + asked else ""
        yield Finding("threads", "note" if mend else "good", what, mend)


def _computations(device: Literal["cpu", "cuda"]) -> Iterator[Finding]:
    import torch

    from tfscale.doctor.device_check import check_device

    if device == "cuda" and not torch.cuda.is_available():
        mend = "check nvidia-smi, the driver version and CUDA_VISIBLE_DEVICES"
        yield Finding("device", "broken", "torch finds no CUDA device", mend)
        return
    say(f"computing and training on {device}, which may take two minutes")
    for outcome in check_device(device):
        mend = "" if outcome.ok else "report this as a bug, with the output of this command"
        yield Finding(outcome.name, "good" if outcome.ok else "broken", outcome.words, mend)


def _disk(experiment: Experiment) -> Finding:
    runs = runs_dir(experiment)
    there = next(folder for folder in (runs, *runs.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    what = f"{gigabytes(free)} free for {runs}"
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir() or not free:
        return Finding("disk", "broken", f"{runs} cannot be written to", "name another folder: runs=...")
    if free < LITTLE_DISK:
        return Finding("disk", "note", what, "free some space, or name a folder on a larger disk: runs=...")
    return Finding("disk", "good", what)


def _tracking(experiment: Experiment) -> Finding:
    try:
        tracker = tracker_of(experiment)
    except UserFault as fault:
        return Finding("tracking", "broken", str(fault), "tfscale doctor tracking.uri=...")
    if tracker is None:
        return Finding("tracking", "good", "switched off; the stages' folders contain all measurements")
    reason = tracker.unreachable()
    if reason is not None:
        mend = "start the tracker, which then receives missing measurements, or switch it off: tracking=none"
        return Finding("tracking", "note", f"{tracker}: {reason}", mend)
    return Finding("tracking", "good", f"{tracker}{'' if tracker.exists() else ', created by the first run'}")


def _corpus(experiment: Experiment) -> Finding:
    name = experiment.data.dataset or experiment.data.source
    try:
        corpus = corpus_of(experiment)
    except UserFault as fault:
        return Finding("corpus", "broken", f"{name}: {'; '.join(fault.messages)}", "tfscale list data")
    if corpus.missing:
        return Finding("corpus", "note", f"{name}: {'; '.join(corpus.missing)}")
    if not corpus.prepared:
        mend = "run tfscale data prepare, or let the first run prepare it"
        return Finding("corpus", "note", f"{name}: not prepared yet", mend)
    return Finding("corpus", "good", f"{name}: prepared, {corpus.fingerprint}")


def _schedules(common: Common) -> Iterator[Finding]:
    """Yield for each schedule a finding that says whether all stages fit into the memory of the planned devices.
    Schedules for which the overrides are invalid are skipped."""
    others = [text for text in common.overrides if not text.startswith("schedule")]
    for name in group_options()["schedule"]:
        try:
            experiment = replace(common, overrides=[f"schedule={name}", *others]).compose()
            machine = planned_machine(experiment)
            predictions = [(stage.size, predict(stage.spec, machine, [])) for stage in make_plan(experiment).stages]
        except UserFault:
            continue  # the overrides are invalid for this schedule
        lacking = [f"{size} ({gigabytes(each.memory.total)})" for size, each in predictions if not each.fits]
        if lacking:
            mend = f"use a larger device, or several: tfscale plan schedule={name} device=h100_sxm"
            yield Finding(name, "note", f"does not fit into memory: {', '.join(lacking)}", mend)
        else:
            yield Finding(name, "good", "all stages fit into memory")
