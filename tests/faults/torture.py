"""Kill a running chain repeatedly and check that nothing is lost, then inject every fault of docs/reliability.md.

`make torture N=200` runs this script.

A small chain is first run without interruption. It is then run in new folders, where its trainer, its orchestrator or
both are killed with SIGKILL at chosen and at random moments, until N kills are done. After each kill, the same command
is started again. Every finished chain must equal the uninterrupted one bit for bit in weights, moments, measurements,
totals and the contents of MLflow, and leave no process and no lock. Afterwards, the tests in the table of the page are
run, with N new inputs per property.
"""

import argparse
import collections
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import load_file
from table import faults, inject_all

from tfscale.config.compose import compose
from tfscale.plan.plan import make_plan
from tfscale.stage.events import read_events
from tfscale.stage.folder import Stage
from tfscale.stage.lock import held
from tfscale.tracking.mlflow.tracker import MlflowTracker

PATIENCE_SECONDS = 300.0
VICTIMS = ("trainer", "orchestrator", "both")
NOT_COMPARED = ("time", "seconds", "total_seconds", "total_device_seconds", "tokens_per_second", "peak_memory", "pid")

Moment = Callable[[Path], bool]
"""Function that returns True at the chosen moment, given the runs folder."""


def _writing(runs: Path, pattern: str) -> bool:
    return any(runs.glob(f"stages/*/checkpoints/{pattern}"))


def _lines(runs: Path) -> int:
    return sum(path.stat().st_size for path in runs.glob("stages/*/metrics.jsonl"))


def moments() -> dict[str, Callable[[Path], Moment]]:
    """Return functions by name that create a `Moment` from the runs folder at the start of a process."""

    def after(change: Callable[[Path], int]) -> Callable[[Path], Moment]:
        def make(runs: Path) -> Moment:
            before = change(runs)
            return lambda runs: change(runs) != before

        return make

    return {
        "in a step": after(_lines),
        "in a checkpoint": lambda runs: lambda runs: _writing(runs, ".step-*[1-9]*.writing"),
        "in a growth": lambda runs: lambda runs: _writing(runs, ".step-000000000000.writing"),
        "before a growth is checked": lambda runs: (
            lambda runs: any(
                not (folder.parents[1] / "growth.json").exists()
                for folder in runs.glob("stages/*/checkpoints/step-000000000000")
            )
        ),
        "between two stages": after(lambda runs: len(list(runs.glob("stages/*/done.json")))),
        "in an evaluation": after(lambda runs: sum(1 for _ in runs.glob("stages/*/growth.json"))),
        "in an MLflow write": lambda runs: lambda runs: (runs / "mlflow.db-journal").exists(),
        "in preparing data": lambda runs: lambda runs: any(runs.glob("data/.*")),
    }


@dataclass
class Count:
    """Counts of kills and finished chains."""

    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    victims: collections.Counter[str] = field(default_factory=collections.Counter)
    chains: int = 0
    bits: int = 0
    """Number of bits of weights and moments that were compared and found equal."""

    @property
    def total(self) -> int:
        return sum(self.kills.values())


def settings(corpus: Path, runs: Path, stages: int) -> list[str]:
    """Return the settings of a chain that takes about ten seconds without interruption."""
    return [
        f"runs={runs}", "data=text", f"data.path={corpus}", "data.vocab_size=257", "data.validation_tokens=4096",
        "model.n_layer=1", "model.d_model=16", "model.n_head=2", "model.context=32",
        "optim.batch_tokens=128", "launcher.threads=1", "launcher.checkpoint_tokens=2048", "launcher.eval_tokens=4096",
        "schedule.growth_tokens=8K", "schedule.stages.stage1.tokens=16K",
        *(f"schedule.stages.stage{i}.qkv={n}" for i, n in enumerate((4, 8, 18, 32)[:stages], start=1)),
    ]  # fmt: skip


def start(overrides: Sequence[str], log: Path) -> psutil.Popen:
    """Start the command that a user would type."""
    with log.open("ab") as output:
        return psutil.Popen([sys.executable, "-m", "tfscale.cli", "run", *overrides], stdout=output, stderr=output)


def disturb(overrides: Sequence[str], runs: Path, log: Path, draw: random.Random, count: Count) -> bool:
    """Run the command until a random moment and kill a random victim. Return True if the chain finished before."""
    makers = moments()
    name = draw.choice([*makers, "at any time", "at any time"])
    victim = draw.choice(VICTIMS)
    moment = makers[name](runs) if name in makers else None
    process, delay, began = start(overrides, log), draw.uniform(0, 8), time.monotonic()
    extra = draw.uniform(0, 0.05)
    while process.poll() is None:
        now = time.monotonic() - began
        if now > PATIENCE_SECONDS:
            raise AssertionError(f"the chain hangs; see {log}")
        if moment(runs) if moment else now > delay:
            time.sleep(extra)
            if kill(process, victim):
                count.kills[name] += 1
                count.victims[victim] += 1
            break
        time.sleep(0.001)
    code = process.wait()
    wait_for_children(runs)
    return code == 0


def kill(process: psutil.Popen, victim: str) -> bool:
    """Send SIGKILL. Return False if the victim did not exist."""
    try:
        children = process.children()
        victims = ([process] if victim != "trainer" else []) + (children if victim != "orchestrator" else [])
        for each in victims:
            each.kill()
    except psutil.NoSuchProcess:
        return False
    return bool(victims)


def wait_for_children(runs: Path) -> None:
    """Wait for the children of a killed orchestrator: a stage that saves and ends, and a restarted trainer."""
    began = time.monotonic()
    while left := [process.pid for process in of_folder(runs)]:
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise AssertionError(f"processes {left} of {runs} do not end")
        time.sleep(0.05)


def of_folder(runs: Path) -> Iterator[psutil.Process]:
    """Yield the processes whose command line names the runs folder."""
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(runs) in line and "-m tfscale" in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process


def outcome(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return all results that must not depend on the number of kills, by stage."""
    found = {}
    for stage in stages:
        done = json.loads((stage.path / "done.json").read_text())
        tensors: dict[str, torch.Tensor] = {}
        for file in (stage.path / "checkpoints" / done["checkpoint"]).glob("*.safetensors"):
            tensors |= load_file(file)
        events = [
            {name: value for name, value in event.items() if name not in NOT_COMPARED}
            for event in read_events(stage.path)
            if event["event"] in ("train", "eval")
        ]
        totals = {name: done["totals"][name] for name in ("tokens", "flops")}
        found[stage.key] = {"tensors": tensors, "events": events, "totals": totals}
    return found


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return the differences between two outcomes in words."""
    faults = []
    for key, want in expected.items():
        got = found[key]
        faults += [
            f"{key}: {name} differs"
            for name, tensor in want["tensors"].items()
            if not torch.equal(tensor, got["tensors"].get(name, torch.empty(0)))
        ]
        faults += [f"{key}: {part} differ" for part in ("events", "totals") if want[part] != got[part]]
    return faults


def left_behind(stages: Sequence[Stage], runs: Path) -> list[str]:
    """Return processes, locks and partial files that should not exist."""
    faults = [f"process {process.pid} is still there" for process in of_folder(runs)]
    faults += [f"{stage.path.name} is locked: {holder}" for stage in stages if (holder := held(stage.path))]
    return faults + [f"{path} was left" for path in runs.glob("stages/*/checkpoints/broken-*")]


def mlflow_differences(stages: Sequence[Stage], runs: Path) -> list[str]:
    """Return losses that are missing from MLflow or recorded twice."""
    client = MlflowTracker(runs).client()
    experiment = client.get_experiment_by_name("progressive_tiny")
    found = {
        run.data.tags.get("tfscale.key"): run.info.run_id for run in client.search_runs([experiment.experiment_id])
    }
    faults = []
    for stage in stages:
        for kind, metric in (("train", "train/loss"), ("eval", "heldout/loss")):
            expected = sorted((e["total_tokens"], e["loss"]) for e in read_events(stage.path) if e["event"] == kind)
            history = client.get_metric_history(found[stage.key], metric)
            if sorted((point.step, point.value) for point in history) != expected:
                faults.append(f"{stage.key}: MLflow has {len(history)} of {metric}, the events are {len(expected)}")
    return faults


def torture(
    kills: int, seed: int, corpus: Path, folder: Path, say: Callable[[str], None], stages_a_chain: int = 4
) -> Count:
    """Run chains until at least `kills` kills are done and the last chain is finished.

    Raises:
        AssertionError: something was lost, duplicated or left behind.
    """
    draw, count = random.Random(seed), Count()  # noqa: S311
    straight = [*settings(corpus, folder / "straight", stages_a_chain), "tracking=none"]
    assert start(straight, folder / "straight.log").wait() == 0, (folder / "straight.log").read_text()
    expected = outcome(planned_stages(straight))
    while count.total < kills:
        runs, log = folder / f"chain{count.chains}", folder / f"chain{count.chains}.log"
        overrides = settings(corpus, runs, stages_a_chain)
        began = count.total
        # After 25 kills, a chain is left to finish, so that the beginnings of further chains are tested too.
        limit = min(kills, began + 25)
        while not disturb(overrides, runs, log, draw, count):
            if count.total >= limit:
                assert start(overrides, log).wait() == 0, log.read_text()
                break
        stages = planned_stages(overrides)
        found = differences(expected, outcome(stages)) + left_behind(stages, runs) + mlflow_differences(stages, runs)
        assert not found, f"chain {count.chains}, seed {seed}, kept in {runs}:\n" + "\n".join(found)
        count.chains += 1
        count.bits += sum(8 * tensor.nbytes for stage in expected.values() for tensor in stage["tensors"].values())
        say(
            f"chain {count.chains}: finished after {count.total - began} kills, equal bit for bit; {count.total} in all"
        )
        shutil.rmtree(runs)
    return count


def planned_stages(overrides: Sequence[str]) -> tuple[Stage, ...]:
    """Return the stages of the chain."""
    return make_plan(compose(overrides)).chain.stages


def write_corpus(folder: Path) -> Path:
    """Write a corpus of artificial sentences, which is always the same."""
    draw = random.Random(0)  # noqa: S311
    words = ("the", "chain", "is", "killed", "and", "goes", "on", "as", "if", "nothing", "had", "happened")
    lines = [json.dumps({"text": " ".join(draw.choices(words, k=draw.randint(20, 60)))}) for _ in range(800)]
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    count = torture(
        arguments.kills, arguments.seed, write_corpus(folder / "corpus"), folder, lambda text: print(text, flush=True)
    )
    shutil.rmtree(folder)
    print("\ntests of every fault in docs/reliability.md:", flush=True)
    tally = inject_all(examples=arguments.kills)
    print(f"\nkills survived    {count.total} in {count.chains} chains (seed {arguments.seed})")
    print(f"bits equal        {count.bits:,} of weights and moments, and every measurement and total")
    print(f"faults injected   {len(faults())}, by {tally.tests} tests; {len(tally.failed)} failed")
    print(f"inputs tried      {tally.inputs:,}")
    for title, counter in (("moment", count.kills), ("victim", count.victims)):
        for name, number in sorted(counter.items()):
            print(f"  {title}: {name:26} {number}")
    if tally.failed:
        sys.exit("failed: " + ", ".join(tally.failed))


if __name__ == "__main__":
    main()
