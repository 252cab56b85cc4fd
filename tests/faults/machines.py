"""Kill two machines that share a stage store repeatedly, and check that nothing is lost and nothing is doubled.

`make torture-store N=3` runs this script.

A small chain is first run without interruption. Then two folders, which stand for two machines, run the same chain at
the same time with one store, a real S3 server on this machine. One of them tracks with MLflow and the other with W&B.
Each machine is killed N times as a whole (SIGKILL to `tfscale run` and all of its children), at chosen and at random
moments, and half of the time it loses its disk too. The same command is started after each kill. At the end, both
folders must equal the uninterrupted one bit for bit in weights, moments, measurements and totals. Each tracker must
have every loss once, the store and both folders must pass their verification, and no process and no lock may remain.
"""

import argparse
import collections
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import run

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from s3 import s3_server
from torture import (
    differences,
    left_behind,
    mlflow_differences,
    moments,
    outcome,
    planned_stages,
    settings,
    start,
    wait_for_children,
    write_corpus,
)

from tfscale.plan.experiments import recorded
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage
from tfscale.tracking.sync import Session
from tfscale.tracking.wandb.log import logs, rows
from tfscale.tracking.wandb.sink import WandbSink
from tfscale.tracking.wandb.tracker import WandbTracker

MOMENTS = ("in a step", "in a checkpoint", "in a growth", "between two stages", "in an upload", "in a download")
TRACKERS = ("mlflow", "wandb")
PATIENCE_SECONDS = 1800.0
"""Longest time of one command, which may wait for the leases of a machine that was lost."""


@dataclass
class Machine:
    """Folder that stands for a machine with a disk of its own."""

    runs: Path
    overrides: list[str]
    draw: random.Random
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    disks: int = 0
    """Number of times that the disk was lost."""

    @property
    def log(self) -> Path:
        """Output of the command."""
        return self.runs.with_suffix(".log")

    def survive(self, kills: int) -> None:
        """Run the command, with this number of kills in between, until it has finished."""
        while self.kills.total() < kills:
            finished = self._disturb()
            wait_for_children(self.runs)
            if finished or self.draw.random() < 0.5:
                shutil.rmtree(self.runs, ignore_errors=True)
                self.disks += 1
        assert start(self.overrides, self.log).wait() == 0, self.log.read_text()

    def _disturb(self) -> bool:
        """Run the command until a random moment and kill it. Return True if it finished before."""
        name = self.draw.choice([*MOMENTS, *["at any time"] * 3])
        delay, extra = self.draw.uniform(0, 12), self.draw.uniform(0, 0.05)
        is_due = self._moment(name)
        process, began = start(self.overrides, self.log), time.monotonic()
        while process.poll() is None:
            now = time.monotonic() - began
            assert now < PATIENCE_SECONDS, f"the chain hangs; see {self.log}"
            if is_due(self.runs) if is_due else now > delay:
                time.sleep(extra)
                self.kills[name] += _kill(process)
                break
            time.sleep(0.001)
        return process.wait() == 0

    def _moment(self, name: str) -> Callable[[Path], bool] | None:
        if name in ("in an upload", "in a download"):
            work = "push" if name == "in an upload" else "pull"
            return lambda runs: any(runs.glob(f".store/{work}/*/files/*"))
        return moments()[name](self.runs) if name in moments() else None


def _kill(process: psutil.Popen) -> bool:
    """Send SIGKILL to a process and all of its children. Return False if it had ended."""
    try:
        everything = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    for each in everything:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    return True


def wandb_losses(stages: Sequence[Stage], runs: Path) -> list[str]:
    """Return losses that are missing from the offline logs of W&B or recorded twice."""
    found = [row for log in logs(runs) for row in rows(log)]
    faults = []
    for kind, metric in (("train", "train/loss"), ("eval", "heldout/loss")):
        events = [event for stage in stages for event in read_events(stage.path) if event["event"] == kind]
        expected = sorted((event["total_tokens"], event["loss"]) for event in events)
        held = sorted((row["tokens"], row[metric]) for row in found if metric in row)
        if held != expected:
            faults.append(f"W&B has {len(held)} of {metric}, the events are {len(expected)}")
    return faults


def wandb_differences(stages: Sequence[Stage], runs: Path) -> list[str]:
    """Return losses that are missing from the offline logs of W&B or recorded twice, and runs with other values than a
    new folder of W&B receives."""
    (experiment,) = recorded(runs)
    fresh = runs / "fresh"
    Session(WandbTracker(runs, str(fresh)), experiment.name).sync(experiment.arms, experiment.comparison)
    sinks = WandbSink(runs, experiment.name), WandbSink(fresh, experiment.name)
    ids = {run_id for sink in sinks for run_id in sink.run_ids()}
    other = [run_id for run_id in ids if sinks[0].stored_counts(run_id) != sinks[1].stored_counts(run_id)]
    return wandb_losses(stages, runs) + [f"W&B's run {run_id} has other values than a new one" for run_id in other]


def torture_machines(kills: int, seed: int, corpus: Path, folder: Path, stages_a_chain: int = 4) -> list[Machine]:
    """Run a chain on two machines at the same time, each of which is killed `kills` times, and return the machines.

    Raises:
        AssertionError: something was lost, duplicated or left behind.
    """
    straight = [*settings(corpus, folder / "straight", stages_a_chain), "tracking=none"]
    assert start(straight, folder / "straight.log").wait() == 0, (folder / "straight.log").read_text()
    expected = outcome(planned_stages(straight))
    with s3_server() as uri:
        machines = [
            Machine(
                folder / f"machine{number}",
                [*settings(corpus, folder / f"machine{number}", stages_a_chain), f"store={uri}", f"tracking={tracker}"],
                random.Random(seed * 2 + number),  # noqa: S311
            )
            for number, tracker in enumerate(TRACKERS)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: machine.survive(kills), machines))
        found = [fault for machine in machines for fault in _faults(machine, expected, uri)]
    assert not found, f"seed {seed}, kept in {folder}:\n" + "\n".join(found)
    return machines


def _faults(machine: Machine, expected: dict, uri: str) -> list[str]:
    stages, runs = planned_stages(machine.overrides), machine.runs
    faults = differences(expected, outcome(stages)) + left_behind(stages, runs)
    faults += (
        mlflow_differences(stages, runs) if "tracking=mlflow" in machine.overrides else wandb_differences(stages, runs)
    )
    # The corpus is not downloaded by `tfscale run` if all stages are taken from the store.
    pull = ["store", "pull", f"runs={runs}", f"store={uri}"]
    for words in (pull, ["status", "--verify", *machine.overrides], ["store", "verify", f"store={uri}"]):
        done = run([sys.executable, "-m", "tfscale.cli", *words], capture_output=True, text=True, check=False)
        faults += [f"{' '.join(words[:2])}: {done.stdout}{done.stderr}"] if done.returncode else []
    return [f"{runs.name}: {fault}" for fault in faults]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1, help="repeat with this many seeds")
    arguments = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the S3 server logs every request
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        folder = Path(tempfile.mkdtemp(prefix="machines-"))
        machines = torture_machines(arguments.kills, seed, write_corpus(folder / "corpus"), folder)
        shutil.rmtree(folder)
        for machine, tracker in zip(machines, TRACKERS, strict=True):
            moments = ", ".join(f"{number} {name}" for name, number in sorted(machine.kills.items()))
            print(
                f"seed {seed}, {machine.runs.name}: {machine.kills.total()} kills ({moments}), disk lost "
                f"{machine.disks} times, equal bit for bit, every loss once in {tracker}",
                flush=True,
            )


if __name__ == "__main__":
    main()
