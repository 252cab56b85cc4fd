"""Tests of nested dropout, in which some training steps use only the first groups of parameter tokens."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from finished import overrides_of
from stages import assert_resumes_bit_for_bit, outcome, planned, train, trainer_of

from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.plan.checks import check_experiment
from tfscale.plan.plan import make_plan
from tfscale.stage.spec import key_of, read_spec, spec_to_dict, write_spec
from tfscale.training.calendar import groups_at

DROPOUT = ("growth=grouped", "launcher.compile=off", "growth.nested_dropout=0.5")


@pytest.fixture(scope="module")
def chain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a chain with nested dropout, whose first stage is finished."""
    plain = [text for text in overrides_of(corpus, tmp_path_factory.mktemp("runs")) if text != "growth=exact"]
    overrides = [*plain, *DROPOUT, "schedule.growth_tokens=1024"]
    assert train(planned(overrides)[0])
    return overrides


def test_the_smaller_numbers_of_groups_are_drawn_evenly_and_from_seed_and_step_alone(small: list[str]) -> None:
    *_, spec = (stage.spec for stage in make_plan(compose([*small, *DROPOUT])).chain.stages)
    drawn = [groups_at(spec, step) for step in range(3000)]
    counts = Counter(drawn)
    assert counts.keys() == {None, 1, 2, 3}
    assert counts[None] == pytest.approx(1500, abs=120)
    assert all(counts[number] == pytest.approx(500, abs=100) for number in (1, 2, 3))
    again = replace(spec, label="elsewhere", run=replace(spec.run, threads=7, micro_batch=1))
    assert [groups_at(again, step) for step in range(100)] == drawn[:100]
    assert [groups_at(replace(spec, seed=1), step) for step in range(100)] != drawn[:100]
    assert {groups_at(replace(spec, nested_dropout=0.0), step) for step in range(100)} == {None}


def test_a_stopped_stage_goes_on_bit_for_bit(chain: list[str]) -> None:
    child = planned(chain)[1]
    before, after = ({groups_at(child.spec, step) for step in steps} for steps in (range(3), range(3, 8)))
    assert before == after == {None, 1}
    assert_resumes_bit_for_bit(child)


def test_a_step_trains_only_the_groups_that_it_uses(chain: list[str]) -> None:
    parent, child = planned([*chain, "growth.nested_dropout=0.999999"])[:2]
    trainer = trainer_of(child)
    trainer._restore()
    before = {name: weight.clone() for name, weight in trainer.state.model.state_dict().items()}
    assert trainer.run()
    after, _, _ = outcome(child)
    values = "blocks.0.ffn.values"
    rows = parent.spec.model.ffn[0].n  # type: ignore[attr-defined]
    assert not torch.equal(after[f"model/{values}"][:rows], before[values][:rows])
    assert not after[f"model/{values}"][rows:].any(), "new values begin at zero, and have had gradients of zero"
    assert after[f"momentum_buffer/{values}"][:rows].any()
    assert not after[f"momentum_buffer/{values}"][rows:].any()


def test_it_is_in_the_keys_of_grown_stages_and_only_if_it_is_set(small: list[str], tmp_path: Path) -> None:
    plain, same, dropping = (
        make_plan(compose([*small, "growth=grouped", *more])).chain.stages
        for more in ((), ("growth.nested_dropout=0",), DROPOUT)
    )
    assert [stage.key for stage in plain] == [stage.key for stage in same]
    assert [a.key == b.key for a, b in zip(plain, dropping, strict=True)] == [True, False, False, False]
    assert "nested_dropout" not in str(spec_to_dict(plain[1].spec))
    write_spec(tmp_path, dropping[1].spec)
    assert read_spec(tmp_path) == dropping[1].spec
    assert key_of(read_spec(tmp_path)) == dropping[1].key
    from_scratch = dropping[1].spec.from_scratch(plain[0].spec.model, plain[0].spec.tokens)
    assert from_scratch.nested_dropout == 0, "a model from scratch has one group"
    write_spec(tmp_path, replace(plain[0].spec, nested_dropout=0.5))
    with pytest.raises(ValueError, match=r"nested_dropout=0\.5: must be 0 with one group of parameter tokens"):
        read_spec(tmp_path)


def test_branches_of_a_trunk_drop_groups_like_the_trunk(small: list[str]) -> None:
    rates = ["schedule.trained_on_lr=null", *(f"schedule.stages.stage{number}.lr=null" for number in (2, 3, 4))]
    trunk = ["optim.lr_schedule=constant", "growth.lr=continue", "schedule.branches.fraction=0.2", *rates]
    arm = make_plan(compose([*small, *DROPOUT, *trunk])).chain
    assert [stage.spec.nested_dropout for stage in (*arm.trunk, *arm.stages)] == [0.0, 0.5, 0.5, 0.5] * 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("launcher.compile=auto",), "launcher.compile=auto: must be off with growth.nested_dropout"),
        (("launcher.compile=on",), "launcher.compile=on: must be off with growth.nested_dropout"),
        (("growth=exact",), "growth.nested_dropout=0.5: must be 0 unless growth.tau=group"),
        (("growth.nested_dropout=1",), "growth.nested_dropout=1: must be a probability, at least 0 and below 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(small: list[str], settings: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserFault) as fault:
        raise UserFault(check_experiment(compose([*small, *DROPOUT, *settings])))
    assert told in str(fault.value)


def test_a_process_that_would_compile_refuses_before_it_trains(chain: list[str]) -> None:
    child = planned(chain)[1]
    compiled = replace(child, spec=replace(child.spec, run=replace(child.spec.run, compile="on")))
    with pytest.raises(ValueError, match=r"launcher\.compile=on: must be off with growth\.nested_dropout"):
        trainer_of(compiled)
