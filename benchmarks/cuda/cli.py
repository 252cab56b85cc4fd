"""Command `cli`, which runs `tfscale run` with a short chain on a terminal and kills a training process once."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from benchmarks.checkout import ROOT
from benchmarks.cuda.check import Check
from benchmarks.cuda.findings import NotMeasured
from benchmarks.cuda.prepared import CONFIG, PACKAGES, read_order
from tfscale import children
from tfscale.doctor.stages import events_of
from tfscale.import_path import python_path
from tfscale.stage.environment import read_environment
from tfscale.stage.lock import LOCK_FILE

EVENTS_BEFORE_KILL = 2
CODES = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")
"""Pattern of the control sequences of a terminal."""
LOG_CHARACTERS = 400
POLL_SECONDS = 0.02
TINY = (
    "model.n_layer=1", "model.d_model=16", "model.n_head=2", "model.context=16", "optim.batch_tokens=64",
    "schedule.stages.stage1.tokens=16K", "schedule.growth_tokens=256", "schedule.stages.stage1.qkv=4",
    "schedule.stages.stage2.qkv=8", "data.validation_tokens=128", "launcher.threads=1",
)  # fmt: skip
SIZE = {"COLUMNS": "100", "LINES": "30", "TERM": "xterm"}


def cli(check: Check) -> None:
    """Run `tfscale run` with a chain of two stages of a few steps each."""
    check.record.attempt("tfscale run", partial(_run, check))


def _run(check: Check) -> Mapping[str, Any]:
    with TemporaryDirectory() as name:
        runs = Path(name)
        command = children.python("tfscale.cli", "run", "--config-dir", str(CONFIG), *_overrides(check, runs))
        path = [str(ROOT), str((check.files / PACKAGES).resolve()), python_path()]
        variables = {"PYTHONPATH": os.pathsep.join(each for each in path if each), **SIZE}
        ours, theirs = os.openpty()
        started = time.monotonic()
        process = children.start(command, children.environment(variables), stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = bytearray()
        reader = Thread(target=_read, args=(ours, shown))
        reader.start()
        killed = _kill_first(runs / "stages", lambda: process.poll() is None)
        code = process.wait()
        reader.join()
        text = shown.decode(errors="replace")
        if code:
            end = CODES.sub("", text)[-LOG_CHARACTERS:]
            raise NotMeasured(f"exit code {code}: {end}")
        stages = sorted((runs / "stages").iterdir())
        found = {
            "seconds": time.monotonic() - started,
            "stages": len(stages),
            "devices": sorted({read_environment(stage).device for stage in stages}),
            "compiled": all(read_environment(stage).compiled for stage in stages),
            "killed": killed,
            "resumed": max(len(events_of(stage, "start")) for stage in stages) > 1,
            "redrawn": CODES.search(text) is not None,
        }
        if not (killed and found["resumed"] and found["redrawn"]):
            raise NotMeasured(f"expected a killed process, a resumed stage and a live view: {found}")
        return found


def _overrides(check: Check, runs: Path) -> list[str]:
    _, corpus = read_order(check.files)
    return [
        f"runs={runs}", "schedule=gpu_short", "tracking=none", "data=shards", f"data.path={corpus.resolve()}",
        f"launcher.device={check.device}", *(TINY if check.tiny else ()),
    ]  # fmt: skip


def _kill_first(stages: Path, alive: Callable[[], bool]) -> bool:
    """Kill the first training process after a few steps. Return False if the run ended before that."""
    while alive():
        for folder in stages.glob("*/"):
            if len(events_of(folder, "train")) >= EVENTS_BEFORE_KILL and (pid := _holder(folder)):
                os.kill(pid, signal.SIGKILL)
                return True
        time.sleep(POLL_SECONDS)
    return False


def _holder(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / LOCK_FILE).read_text("utf-8"))["pid"])
    except (OSError, ValueError, KeyError):
        return None


def _read(terminal: int, shown: bytearray) -> None:
    """Copy the output of a terminal to standard output and to `shown` until the other side is closed, which Linux
    reports as an error."""
    with open(terminal, "rb", buffering=0) as file:
        while True:
            try:
                piece = file.read(65536)
            except OSError:
                return
            if not piece:
                return
            shown += piece
            sys.stdout.buffer.write(piece)
