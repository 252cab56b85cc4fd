"""Runs with a budget: they stop before they exceed it, say what is left, and can be continued."""

import re

import documented
import pytest
from stages import elsewhere, outcome, planned, same, train
from typer.testing import CliRunner

from tfscale.cli.main import app
from tfscale.cli.streams import FAILURE
from tfscale.config.budget import Budget, read_budget
from tfscale.config.compose import compose
from tfscale.faults import BUDGET_SPENT, PREEMPTED, USER_FAULT, UserFault
from tfscale.orchestrate import allowance as allowances
from tfscale.orchestrate.allowance import ENDING_SECONDS, Allowance, step_flops
from tfscale.plan.plan import make_plan
from tfscale.stage.events import EventLog, read_events
from tfscale.stage.folder import Stage
from tfscale.stage.status import status_of


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("1e15", Budget(flops=1e15)),
        ("250", Budget(flops=250)),
        ("2h", Budget(seconds=7200)),
        ("90m", Budget(seconds=5400)),
        ("30s", Budget(seconds=30)),
        ("1.5d", Budget(seconds=129_600)),
    ],
)
def test_a_number_is_an_amount_of_compute_and_a_number_with_a_unit_a_time(text: str, budget: Budget) -> None:
    assert read_budget(text) == budget


def test_another_text_is_refused_with_examples() -> None:
    for text in ("2x", "0", "h", "1e999", "-1h", "true"):
        with pytest.raises(
            UserFault, match=f"budget={text}: must be a number of FLOPs or a time, above 0; try 1e15, 2h"
        ):
            compose([f"budget={text}"])


@pytest.mark.parametrize(
    ("other", "word"), [("launcher=slurm", "launcher.kind=slurm"), ("schedule.rehearse=true", "schedule.rehearse")]
)
def test_what_cannot_stop_at_a_budget_is_refused_with_one(other: str, word: str) -> None:
    with pytest.raises(UserFault, match=rf"budget=1h: must be null with {word}"):
        make_plan(compose([other, "budget=1h"]))


def reach(stage: Stage, step: int) -> None:
    stage.path.mkdir(parents=True, exist_ok=True)
    log = EventLog(stage.path)
    log.write("checkpoint", step=step, seconds=1.0)
    log.close()


def test_stages_take_the_budget_in_order_and_the_last_a_part(short: list[str]) -> None:
    first, second = make_plan(compose(short)).chain.stages
    whole = first.spec.steps * step_flops(first)
    allowance = Allowance(Budget(flops=whole + 3.5 * step_flops(second)))
    assert allowance.reserve(first)
    assert allowance.stop_at(first) is None
    reach(first, first.spec.steps)
    allowance.release(first)
    assert allowance.reserve(second)
    assert allowance.stop_at(second) == 3
    assert not allowance.allows(second), "the rest is too little for a step"
    reach(second, 1)  # its process died there
    allowance.release(second)
    assert allowance.reserve(second)
    assert allowance.stop_at(second) == 3
    reach(second, 3)
    allowance.release(second)
    assert not allowance.reserve(second)
    assert allowance.trained == whole + 3 * step_flops(second)


def test_time_is_over_so_early_that_a_step_and_a_checkpoint_still_fit(
    short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_plan(compose(short)).chain.stages[0]
    allowance, now = Allowance(read_budget("1m")), [100.0]
    monkeypatch.setattr(allowances.time, "monotonic", lambda: now[0])
    assert not allowance.out_of_time, "the clock does not run yet"
    allowance.start_clock()
    allowance.note(stage, {"event": "train", "tokens_per_second": stage.spec.batch_tokens / 4})
    allowance.note(stage, {"event": "checkpoint", "seconds": 9})
    now[0] = 160 - ENDING_SECONDS - 4 - 9 - 0.1
    assert not allowance.out_of_time
    now[0] += 0.1
    assert allowance.out_of_time


def test_every_exit_code_is_documented() -> None:
    page = (documented.ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    codes = re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE)
    assert codes == [*map(str, (0, FAILURE, USER_FAULT, BUDGET_SPENT, PREEMPTED)), "130, 143"]


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["run", *words], catch_exceptions=False)
    return done.exit_code, done.output


def test_a_run_stops_in_a_stage_before_it_exceeds_its_budget_and_goes_on_bit_for_bit(
    short: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, grown = planned(short)
    straight = elsewhere(stage, "straight")
    assert train(straight)
    key = stage.key

    code, said = run(*short, f"budget={5.5 * step_flops(stage)}")
    assert code == BUDGET_SPENT
    assert read_events(stage.path)[-1].items() >= {"event": "end", "step": 5, "reason": "preempted"}.items()
    left = (stage.spec.steps - 5) * stage.spec.batch_tokens
    assert f"{stage.path.name}: {left / 1000:.2f}K of 2.05K tokens" in said
    assert grown.path.name in said
    assert "Run the same command again to continue." in said

    # Its time is over as soon as the process of the stage has been started.
    monkeypatch.setattr(Allowance, "out_of_time", property(lambda allowance: bool(allowance._grants)))
    code, said = run(*short, "budget=1h")
    assert code == BUDGET_SPENT
    monkeypatch.undo()
    assert status_of(stage).state == "preempted"
    assert train(stage)
    assert same(outcome(stage), outcome(straight))
    assert make_plan(compose([*short, "budget=1e15"])).chain.stages[0].key == key


def test_a_budget_below_one_step_trains_nothing(short: list[str]) -> None:
    stage = make_plan(compose(short)).chain.stages[0]
    for budget in ("10", "1s"):
        code, said = run(*short, f"budget={budget}")
        assert (code, "Continue with a larger budget." in said) == (BUDGET_SPENT, True)
        assert not stage.path.exists()
