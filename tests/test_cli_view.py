"""Tests of the live view of a run, from stage folders: on a terminal of any size, in a log, in another shell."""

import io
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from finished import overrides_of
from rich.console import Console
from test_analysis_curves import result, spent

from tfscale.cli.dashboard import Dashboard
from tfscale.cli.view import LiveView, PlainView, make_view, watch
from tfscale.config.compose import compose
from tfscale.config.schema import Experiment
from tfscale.models.counts import flops
from tfscale.orchestrate.progress import Watch, overview, seconds_left
from tfscale.orchestrate.speed import Speed
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.events import EventLog
from tfscale.stage.folder import Stage
from tfscale.stage.lock import stage_lock
from tfscale.stage.result import DONE_FILE, write_result


@pytest.fixture(scope="module")
def experiment(corpus: Path) -> Experiment:
    more = ["growth=grouped", "baseline=transformer", "schedule.growth_tokens=1024"]
    return compose([*overrides_of(corpus, Path("unused")), *more, "schedule.stages.stage1.tokens=4096"])


@pytest.fixture
def plan(experiment: Experiment, tmp_path: Path) -> Plan:
    """Plan of a chain and Transformers without any stage folder."""
    return make_plan(replace(experiment, runs=str(tmp_path)))


def write(stage: Stage, steps: int, before: int = 0, seconds: float = 1.0) -> None:
    """Write the folder of a stage after a number of steps, each of which took `seconds`, with an evaluation after half
    of them."""
    stage.path.mkdir(parents=True, exist_ok=True)
    log, batch = EventLog(stage.path), stage.spec.batch_tokens
    log.write("start", step=0, host="elsewhere", pid=1, device="cuda", processes=2)
    (stage.path / "environment.json").write_text(json.dumps({"device": "NVIDIA H100 80GB HBM3", "precision": "bf16"}))
    each = batch * flops(stage.spec.model).training
    for step in range(1, steps + 1):
        place = {"step": step, "tokens": step * batch, "total_flops": before + step * each}
        times = {"total_seconds": step * seconds, "tokens_per_second": batch / seconds}
        log.write("train", loss=6 - step / 10, peak_memory=2_100_000_000, **place, **times)
        if step == steps // 2:
            log.write("eval", loss=5.5, perplexity=244.7, **place)
    log.close()


def finish(stage: Stage) -> None:
    write(stage, stage.spec.steps)
    write_result(stage.path, replace(result("any", 1, 1, spent(1), 2.0), peak_memory=3_000_000_000))


def shown(plan: Plan, width: int = 80, height: int = 24, encoding: str = "utf-8", color: bool = False) -> str:
    file = io.BytesIO()
    text = io.TextIOWrapper(file, encoding=encoding, newline="\n")
    console = Console(file=text, width=width, height=height, highlight=False, force_terminal=color)
    looks = Watch(plan.stages).look()
    console.print(Dashboard(plan, looks, overview(plan, looks, []), {}))
    text.flush()
    return file.getvalue().decode(encoding)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 50), (45, 20), (24, 24)])
def test_the_screen_fits_any_terminal_and_says_what_runs(plan: Plan, width: int, height: int) -> None:
    base, grown = plan.chain.stages[:2]
    finish(base)
    write(grown, 4, before=10**9)
    with stage_lock(grown.path):
        printed = shown(plan, width, height)
    lines = printed.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < height
    words = " ".join(printed.replace("\N{NO-BREAK SPACE}", " ").split())
    for part in ("✔", "▶", "·", "progressive 70K", "512 of 1.02K tokens", "128 tokens/s", "2.1 GB"):
        assert part in words
    assert "▁" in printed


def test_the_screen_has_characters_for_every_encoding_and_codes_for_no_file(plan: Plan) -> None:
    write(plan.chain.stages[0], 20)
    printed = shown(plan, encoding="ascii")
    assert "= 25K 62%" in printed.replace("?", " ")
    assert "interrupted at 2.56K tokens" in printed
    assert "\x1b" not in printed
    assert "\x1b" in shown(plan, color=True)


def test_a_stage_that_failed_says_why(plan: Plan) -> None:
    stage = plan.chain.stages[0]
    write(stage, 3)
    log = EventLog(stage.path)
    log.write("end", reason="failed", message="NonFinite: step 4")
    log.close()
    assert "✘ progressive 25K  failed at 384 tokens: NonFinite: step 4" in shown(plan)


def test_more_lineages_than_there_is_room_for_are_counted(plan: Plan) -> None:
    finish(plan.chain.stages[0])
    printed = shown(plan, height=5)
    assert "0 lineages done, 1 waiting" in printed
    assert "progressive (grouped)" in printed
    assert "Transformer from scratch" not in printed


def test_each_seed_has_a_line_of_its_own(experiment: Experiment, tmp_path: Path) -> None:
    printed = shown(make_plan(replace(experiment, runs=str(tmp_path), seeds=2)))
    assert [line.partition("  ")[0] for line in printed.splitlines()[:2]] == [
        "progressive (grouped), seed 0",
        "progressive (grouped), seed 1",
    ]


def test_the_losses_fall_in_bars_from_the_first_to_the_last(plan: Plan) -> None:
    write(plan.chain.stages[0], 20)
    (line,) = [line for line in shown(plan).splitlines() if line.startswith("loss ")]
    first, bars, *last = line.removeprefix("loss ").split()
    assert (first, last[0], last[-1]) == ("5.900", "4.000", "FLOPs")
    assert (bars[0], bars[-1]) == ("█", "▁")
    assert list(bars) == sorted(bars, reverse=True)


def test_one_loss_alone_is_shown(plan: Plan) -> None:
    write(plan.chain.stages[0], 1)
    assert "loss 5.900 ▁ 5.900 at" in shown(plan)


def test_speed_and_utilisation_come_from_the_last_events_and_survive_a_resume(plan: Plan) -> None:
    stage = plan.chain.stages[0]
    watched = Watch(plan.stages)
    write(stage, 20)
    look = watched.look()[stage.key]
    assert look.tokens_per_second == pytest.approx(stage.spec.batch_tokens)
    assert look.mfu == pytest.approx(stage.spec.batch_tokens * flops(stage.spec.model).training / (2 * 989.4e12))
    assert len(look.losses) == 20
    log = EventLog(stage.path)
    log.write("start", step=10)
    log.close()
    again = watched.look()[stage.key]
    assert len(again.losses) == 10
    assert again.worked == 10 * stage.spec.batch_tokens * flops(stage.spec.model).training
    assert [event["event"] for event in again.new] == ["start"]


def test_time_left_is_that_of_the_longest_lineage_and_of_the_places(plan: Plan) -> None:
    looks = list(Watch(plan.stages).look().values())
    assert seconds_left(looks, []) is None
    rate = 1e6
    known = [Speed(family, 20_000, "", "", "fp32", 1, rate) for family in ("tokenformer", "transformer")]
    work = sum(look.work for look in looks)
    chain = sum(look.work for look in looks if look.stage in plan.chain.stages)
    assert seconds_left(looks, known) == pytest.approx(work / rate)
    longest = max(chain, *(look.work for look in looks))
    assert seconds_left(looks, known, parallel=100) == pytest.approx(longest / rate)


def test_a_terminal_is_drawn_over_and_a_file_gets_lines(plan: Plan) -> None:
    assert isinstance(make_view(plan, Console(force_terminal=True, file=io.StringIO())), LiveView)
    for console in (Console(file=io.StringIO()), Console(force_terminal=True, _environ={"TERM": "dumb"})):
        assert type(make_view(plan, console)) is PlainView


def test_a_line_has_compute_against_the_plan_and_the_time_left(plan: Plan) -> None:
    stage, file = plan.chain.stages[0], io.StringIO()
    write(stage, 16)
    log = EventLog(stage.path)
    view = PlainView(plan, Console(file=file, width=80))
    event = {"event": "eval", "tokens": 2048, "loss": 5.5, "perplexity": 244.692, "total_flops": 1.5e9}
    view.event(stage, event)
    log.close()
    [line] = file.getvalue().splitlines()
    for part in ("progressive 25K: 2.05K of 4.10K tokens", "loss 5.5000", "128 tokens/s",
                 "16 s left", "MFU 0%", "FLOPs (6%), chain"):  # fmt: skip
        assert part in line


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_ends_when_all_is_done(plan: Plan, terminal: bool) -> None:
    first, *others = plan.stages
    for stage in others:
        finish(stage)
    write(first, 4)
    file = io.StringIO()
    timer = threading.Timer(0.2, lambda: (first.path / DONE_FILE).write_text("{}"))
    timer.start()
    watch(plan, Console(file=file, width=80, height=24, force_terminal=terminal))
    assert ("\x1b" in file.getvalue()) == terminal
    if not terminal:
        lines = file.getvalue().splitlines()
        assert lines[0] == "progressive 25K: interrupted"
        assert lines[-1] == "progressive 25K: done"


def test_ctrl_c_leaves_the_watch_without_a_traceback(plan: Plan) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore SIGINT
    try:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        watch(plan, Console(file=io.StringIO()))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_live_view_says_what_its_screen_does_not(plan: Plan) -> None:
    file, stage = io.StringIO(), plan.chain.stages[0]
    with LiveView(plan, Console(file=file, width=80, height=24, force_terminal=True, highlight=False)) as view:
        view.started(stage, "training")
        view.tick()
        assert "starting" in file.getvalue()
        view.event(stage, {"event": "end", "reason": "preempted", "step": 2})
        finish(stage)
        view.finished(stage)
    assert "progressive 25K: stopped at 256 tokens, with a checkpoint" in file.getvalue()
    assert "progressive 25K: done" in file.getvalue()


def test_an_imported_stage_takes_no_time(plan: Plan, tmp_path: Path) -> None:
    look = Watch(plan.stages).look()[plan.chain.stages[0].key]
    stage = replace(look.stage, spec=replace(look.stage.spec, init_from=str(tmp_path)))
    assert seconds_left([replace(look, stage=stage)], []) == 0
