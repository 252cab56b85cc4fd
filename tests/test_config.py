"""Tests of valid settings, and of the messages for invalid ones."""

from pathlib import Path

import pytest

from tfscale.cli.common import Common
from tfscale.config.compose import compose
from tfscale.config.folders import conf_dir, group_options
from tfscale.faults import UserFault
from tfscale.plan.plan import make_plan

SCHEDULES = group_options()["schedule"]


def faults(*overrides: str) -> list[str]:
    with pytest.raises(UserFault) as caught:
        Common(overrides).plan()
    return caught.value.messages


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("growth", group_options()["growth"])
def test_every_schedule_composes_with_every_growth_and_all_baselines(schedule: str, growth: str) -> None:
    plan = make_plan(compose([f"schedule={schedule}", f"growth={growth}", "baseline=scratch"]))
    assert len(plan.chain.stages) == len(plan.experiment.schedule.stages)
    assert {arm.name for arm in plan.baselines} == {
        "transformer_scratch", "tokenformer_scratch", "compute_optimal", "trained_on",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("group", "name"),
    [(g, n) for g, names in group_options().items() for n in names if g not in ("schedule", "model", "reference")],
)
def test_every_group_file_composes(group: str, name: str) -> None:
    compose([f"{group}={name}"])


def test_every_shipped_file_says_where_it_comes_from() -> None:
    for file in conf_dir().rglob("*.yaml"):
        assert file.read_text(encoding="utf-8").startswith("#"), file


def test_amounts_are_written_as_people_write_them() -> None:
    stage = "schedule.stages.stage1.tokens"
    amounts = {
        "15B": 15 * 10**9,
        "1.5M": 1_500_000,
        "300K": 300_000,
        "65536": 65_536,
        "1_000_000": 10**6,
        "2e6": 2 * 10**6,
    }
    for text, expected in amounts.items():
        assert compose([f"{stage}={text}"]).schedule.stages["stage1"].tokens == expected


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("schedule=progresive_tiny", ["unknown schedule", "did you mean progressive_tiny"]),
        ("trian.lr=1", ["trian.lr=1: unknown key", "optim.lr"]),
        ("optim.lrr=1", ["optim.lrr=1: unknown key", "did you mean optim.lr"]),
        ("+optim.momentum=1", ["optim.momentum=1: unknown key"]),
        ("growth=papr", ["did you mean paper", "Allowed: exact, grouped, paper, rewarmed, split"]),
        ("optim.lr=fast", ["optim.lr=fast: must be a number"]),
        ("optim.lr_schedule=linear", ["optim.lr_schedule=linear", "'cosine', 'wsd' or 'constant'"]),
        ("schedule.growth_tokens=many", ["schedule.growth_tokens=many", "15B"]),
        ("schedule.growth_tokens=1e400T", ["schedule.growth_tokens=1e400T", "at most 10^18"]),
        ("launcher.device=tpu", ["launcher.device=tpu", "'auto', 'cpu' or 'cuda'"]),
        ("nonsense", ["'nonsense' is not an override", "key=value"]),
        ("optim.lr=1e-3,1e-4", ["must be a single value"]),
        ("~growth", ["deletions"]),
        ("model.n_head=3", ["model.n_head=3: must divide model.d_model"]),
        ("model.vocab_size=0", ["model.vocab_size=0: must be at least 1"]),
        ("schedule.stages.stage1.scratch_lr=1", ["stage1.scratch_lr", "try schedule.stages.stage1.lr"]),
        ("+launcher.foo=1", ["launcher.foo=1: unknown key"]),
        ("optim.batch_tokens=100", ["optim.batch_tokens=100", "must be a multiple of model.context"]),
        ("optim.lr=-1", ["optim.lr=-1: must be above 0; try 3e-4"]),
        ("data=text", ["data.path: must be set, because data.source=text requires"]),
        ("schedule.stages.stage3.qkv=2", ["stage3.qkv=2", "no count may decrease"]),
        ("schedule.stages.stage2.tokens=1", ["stage2.tokens=1", "must be at least one batch"]),
        ("growth.new_values=random", []),
    ],
)
def test_a_fault_names_key_value_and_mend(override: str, words: list[str]) -> None:
    if not words:
        compose([override])
        return
    told = "\n".join(faults(override))
    for word in words:
        assert word in told


def test_a_growth_to_dead_tokens_is_refused_before_anything_runs() -> None:
    assert "would never get a gradient" in faults("growth=exact", "growth.new_values=zero")[0]


def test_all_faults_are_told_at_once() -> None:
    assert len(faults("optim.lrr=1", "model.depth=3", "trian=2")) == 3
    assert len(faults("optim.lr=-1", "model.rotary=2", "schedule.stages.stage3.qkv=2")) >= 3
    assert len(faults("optim.lr=x", "launcher.device=tpu")) == 2


def test_a_folder_of_ones_own_adds_and_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    own = (conf_dir() / "schedule" / "progressive_tiny.yaml").read_text().replace("progressive_tiny", "mine")
    (tmp_path / "conf" / "schedule" / "mine.yaml").write_text(own)
    other = tmp_path / "other"
    (other / "growth").mkdir(parents=True)
    (other / "growth" / "exact.yaml").write_text((conf_dir() / "growth" / "paper.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert compose(["schedule=mine"]).schedule.name == "mine"
    assert compose(["growth=exact"]).growth.name == "exact"
    assert compose(["growth=exact"], config_dir=other).growth.name == "paper"


def test_an_unknown_key_in_a_file_of_ones_own_is_told(tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("lr: 1e-3\nbatch_tokens: 4096\nmomentum: 0.9\n")
    with pytest.raises(UserFault, match=r"optim\.momentum: unknown key"):
        compose(["optim=mine"], config_dir=tmp_path)


def test_a_file_that_is_no_yaml_is_told(tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("lr: [1e-3\n")
    with pytest.raises(UserFault, match="cannot be composed"):
        compose(["optim=mine"], config_dir=tmp_path)


def test_stages_can_be_added_from_the_command_line() -> None:
    experiment = compose(["+schedule.stages.stage5={size: big, qkv: 999}"])
    assert list(experiment.schedule.stages)[-1] == "stage5"
