"""Tests of several processes that train one stage, with the same data and, up to rounding, the same results as one
process."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stages import ADAMW, MUON, elsewhere, outcome, planned, train, wait_for

from tfscale import checkpoint
from tfscale.children import RANK_VARIABLES
from tfscale.faults import PREEMPTED, USER_FAULT, UserFault
from tfscale.growth.grow_stage import grow_stage
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.stage.events import Event, read_events
from tfscale.stage.folder import Stage
from tfscale.stage.result import read_result
from tfscale.training import __main__ as training
from tfscale.training.process_rank import ProcessRank, read_process_rank
from tfscale.training.world import World, split_rows

RENDEZVOUS = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
RANKS = str(Path(__file__).parent / "faults" / "ranks.py")


def train_on(ranks: int, *stages: tuple[Stage, int], a_host: int | None = None, fault: str = "none") -> str:
    """Train stages with torchrun, each up to a number of steps (-1: all), and return the standard error output.

    Args:
        a_host: ranks per host, as reported to the stages.
    """
    arguments = [str(a_host or ranks), fault]
    for stage, stop_at in stages:
        prepare_folder(stage)
        arguments += [str(stage.path), str(stop_at)]
    command = [*TORCHRUN, f"--nproc-per-node={ranks}", RANKS, *arguments]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stderr
    print(said)  # shown when a test fails
    return said


def with_sharding(stage: Stage, sharding: str, recompute: str = "none") -> Stage:
    run = replace(stage.spec.run, sharding=sharding, activation_checkpointing=recompute)  # type: ignore[arg-type]
    return elsewhere(replace(stage, spec=replace(stage.spec, run=run)), sharding)


def close(one: Stage, several: Stage) -> None:
    a, b = outcome(one), outcome(several)
    assert a[2] == b[2]
    assert [(event["event"], event["step"]) for event in a[1]] == [(event["event"], event["step"]) for event in b[1]]
    for ours, theirs in zip(a[1], b[1], strict=True):
        for name in {"loss", "grad_norm"} & ours.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)
    assert a[0].keys() == b[0].keys()
    for name, tensor in a[0].items():
        torch.testing.assert_close(tensor, b[0][name], rtol=1e-3, atol=1e-5)


def starts(stage: Stage) -> list[Event]:
    return [event for event in read_events(stage.path) if event["event"] == "start"]


def test_two_ranks_equal_one_within_rounding_whole_and_sharded(small: list[str]) -> None:
    pairs = []
    for arm, optimizer in (("progressive", ADAMW), ("progressive", MUON), ("transformer_scratch", MUON)):
        stage = planned([*small, *optimizer, "launcher.micro_batch=1"], arm)[0]
        assert train(stage)
        ways = (("none", "none"), ("full", "blocks"))
        pairs += [(stage, with_sharding(stage, sharding, recompute)) for sharding, recompute in ways]
    train_on(2, *((several, -1) for _, several in pairs), fault="late")
    for one, several in pairs:
        close(one, several)
        assert starts(several)[0]["sharding"] == several.spec.run.sharding
        totals = read_result(several.path).totals
        assert totals.device_seconds == pytest.approx(2 * totals.seconds)


def test_shards_are_saved_on_four_ranks_and_taken_up_by_two_and_by_one_and_grown(small: list[str]) -> None:
    settings = [*small, "launcher.micro_batch=1", "growth=grouped"]
    chains = [planned([*settings, *optimizer])[:2] for optimizer in (ADAMW, MUON)]
    transformer = planned([*settings, *MUON], "transformer_scratch")[0]
    assert train(transformer)
    hybrid = with_sharding(transformer, "hybrid")
    wholes = [replace(stage, spec=with_sharding(stage, "hybrid").spec) for stage, _ in chains]
    changed = [with_sharding(stage, "full") for stage, _ in chains]
    train_on(4, (hybrid, -1), *((whole, -1) for whole in wholes), *((stage, 6) for stage in changed), a_host=2)
    close(transformer, hybrid)

    grown = []
    for _, child in chains:
        prepare_folder(child)
        grow_stage(child.path)
        grown.append(replace(with_sharding(child, "full"), path=child.path))
    train_on(2, *((stage, 11) for stage in changed), *((child, -1) for child in grown))
    for (stage, child), changing in zip(chains, changed, strict=True):
        half = changing.path / "checkpoints" / checkpoint.folder_name(6)
        sizes = [file.stat().st_size for file in half.glob("*.safetensors")]
        assert len(sizes) == 4, "each rank writes its own part"
        assert max(sizes) < 0.4 * sum(sizes)
        assert train(changing)
        assert [(e["step"], e["processes"], e["sharding"]) for e in starts(changing)] == [
            (0, 4, "full"),
            (6, 2, "full"),
            (11, 1, "none"),
        ]
        close(stage, changing)
        alone = elsewhere(child, "alone")
        assert train(alone)
        close(alone, child)
        first = next(event for event in read_events(alone.path) if event["event"] == "eval")
        assert first["step"] == 0
        assert first["loss"] == pytest.approx(read_result(stage.path).evaluation.loss, abs=1e-5)


@pytest.mark.parametrize(
    ("fault", "reason", "message"),
    [
        ("out_of_memory", "out_of_memory", "rank 1: no memory is left"),
        ("non_finite", "failed", "step 2: .*gradients of blocks.0.ffn.values. The weights of step 1 were kept"),
    ],
)
def test_the_leading_rank_writes_why_another_one_has_failed(
    small: list[str], fault: str, reason: str, message: str
) -> None:
    stage = with_sharding(planned(small)[0], "full")
    train_on(2, (stage, -1), fault=fault)
    end = read_events(stage.path)[-1]
    assert (end["event"], end["reason"]) == ("end", reason)
    assert re.search(message, end["message"])


def test_ranks_stop_when_the_input_of_torchrun_ends(small: list[str]) -> None:
    stage = planned([*small, "schedule.stages.stage1.tokens=1M"])[0]
    prepare_folder(stage)
    command = [*TORCHRUN, "--nproc-per-node=2", "-m", "tfscale.training", str(stage.path), "--supervised"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as torchrun:
        wait_for(lambda: any(event["event"] == "train" for event in read_events(stage.path)))
        assert torchrun.stdin is not None
        torchrun.stdin.close()
    end = read_events(stage.path)[-1]
    assert end["reason"] == "preempted"
    newest = checkpoint.latest(stage.path / "checkpoints", lambda message: None)
    assert newest is not None
    assert newest.name == checkpoint.folder_name(end["step"])


ASKED_TWICE = """
import os, signal, time
from tfscale.training.preemption import Preemption
preempted = Preemption()
preempted.watch_signals()
for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
assert preempted()
print("saved")
"""


def test_one_of_several_ranks_goes_on_saving_when_it_is_asked_twice() -> None:
    command, ranks = [sys.executable, "-c", ASKED_TWICE], {**RENDEZVOUS, "MASTER_PORT": "1"}
    several = subprocess.run(command, env={**os.environ, **ranks}, capture_output=True, text=True)
    assert several.stdout == "saved\n"
    alone = subprocess.run(command, capture_output=True, text=True)
    assert (alone.returncode, alone.stdout) == (PREEMPTED, "")


@pytest.mark.parametrize(
    ("variables", "faults"),
    [
        ({"RANK": "1", "WORLD_SIZE": "1"}, ["RANK=1: must be a whole number from 0 to 0"]),
        ({"RANK": "", "WORLD_SIZE": ""}, ["WORLD_SIZE=: must be a whole number from 1", "RANK=: must be"]),
        (
            {"WORLD_SIZE": "4"},
            ["RANK is not set: must be a whole number from 0 to 3", "MASTER_PORT is", "MASTER_ADDR is"],
        ),
        ({"RANK": "0"}, ["WORLD_SIZE is not set: must be"]),
        ({"RANK": "-1", "WORLD_SIZE": "two"}, ["WORLD_SIZE=two: must be", "RANK=-1: must be"]),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "x"}, ["LOCAL_RANK=x: must be a whole number from 0"]),
        ({**RENDEZVOUS, "MASTER_PORT": "65536"}, ["MASTER_PORT=65536: must be a whole number from 1 to 65535"]),
    ],
)
def test_variables_that_name_no_rank_are_told_all_together(
    variables: dict[str, str],
    faults: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["training", str(tmp_path)])
    assert training.main() == USER_FAULT
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(faults)
    assert all(line.startswith(fault) for line, fault in zip(told, faults, strict=True)), told


@given(st.dictionaries(st.sampled_from(RANK_VARIABLES), st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_any_variables_name_a_rank_or_are_told(variables: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        with suppress(UserFault):
            process = read_process_rank()
            assert 0 <= process.rank < process.size


def test_the_rank_on_a_host_alone_names_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert read_process_rank() == ProcessRank(), "and no device is selected"


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    three = World()
    three.size = 3
    with pytest.raises(ValueError, match=r"4 sequences .* cannot be divided evenly among 3 processes"):
        split_rows(4, three)
