"""Tests of a chain that starts from released weights instead of training its first stage."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from edits import edit, final, sign
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tfscale import checkpoint
from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.growth.grow_stage import grow_stage
from tfscale.growth.imported_weights import weights_digest
from tfscale.interop.adopt import adopt
from tfscale.interop.official import read_official
from tfscale.models.counts import flops
from tfscale.orchestrate.orchestrator import prepare_folder
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.events import read_events
from tfscale.stage.folder import is_done
from tfscale.stage.growth_record import is_grown, read_growth
from tfscale.stage.result import read_result
from tfscale.verify import verify_plan

GOLDEN = Path(__file__).parent / "golden" / "official_tiny"
SCHEDULE = """
# @package _global_
defaults: [/model: tokenformer_tiny, /data: text, /optim: tiny_adamw, /growth: paper]
model: {n_layer: 2, d_model: 64, n_head: 4, context: 64, vocab_size: 512}
schedule:
  name: released
  stages:
    base: {size: S, qkv: 48, out: 40, ffn: 160, tokens: 1024K}
    grown: {size: M, qkv: 64, tokens: 512}
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "released"
    adopt(folder, read_official(GOLDEN / "pytorch_model.bin", GOLDEN / "config.yml"), corpus=None)
    return folder


@pytest.fixture
def overrides(corpus: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "conf" / "schedule").mkdir(parents=True)
    (tmp_path / "conf" / "schedule" / "released.yaml").write_text(SCHEDULE.strip())
    return [
        "schedule=released", f"runs={tmp_path / 'runs'}", f"data.path={corpus}", "data.vocab_size=300",
        "data.validation_tokens=1024", "optim.batch_tokens=256", "launcher.threads=1", "tracking=none",
    ]  # fmt: skip


def plan_of(overrides: list[str], tmp_path: Path) -> Plan:
    return make_plan(compose(overrides, tmp_path / "conf"))


def test_the_base_is_taken_over_evaluated_grown_and_paid_for(
    imported: Path, overrides: list[str], tmp_path: Path
) -> None:
    overrides = [*overrides, f"init_from={imported}", "growth.moments=carry"]
    answer = CliRunner().invoke(app, ["run", *overrides, "--config-dir", str(tmp_path / "conf")])
    assert answer.exit_code == 0, (answer.output, answer.exception)
    plan = plan_of(overrides, tmp_path)
    base, grown = plan.chain.stages
    assert is_done(base)
    assert is_done(grown)
    done = read_result(base.path)
    assert done.totals.tokens == 1_024_000
    assert done.totals.flops == 1_024_000 * flops(base.spec.model).training
    assert done.totals.seconds == 0
    assert not [event for event in read_events(base.path) if event["event"] == "train"], "nothing was trained"
    growth, end = read_growth(grown.path), read_result(grown.path)
    assert growth is not None
    assert growth["parent"] == base.key
    note = (
        "the parent's checkpoint contains no optimizer state, so all slots of adamw (exp_avg, exp_avg_sq) start empty"
    )
    assert note in growth["optimizer"]["note"]
    assert note in answer.output
    assert end.before.flops == done.totals.flops, "the base's cost is on the chain's ledger"
    assert verify_plan(plan) == []
    model = checkpoint.load_model(base.path / "checkpoints" / done.checkpoint)
    expected = load_file(GOLDEN / "expected.safetensors")
    with torch.inference_mode():
        assert (model.double()(expected["input_ids"].long()) - expected["logits"]).abs().max() < 1e-5
    assert json.loads((base.path / "import.json").read_text()) == json.loads((imported / "import.json").read_text())
    again = CliRunner().invoke(app, ["run", *overrides, "--config-dir", str(tmp_path / "conf")])
    assert "nothing to train" in again.output


def test_the_weights_are_part_of_the_keys_and_their_folder_is_not(
    imported: Path, overrides: list[str], tmp_path: Path
) -> None:
    scratch, taken = plan_of(overrides, tmp_path), plan_of([*overrides, f"init_from={imported}"], tmp_path)
    assert not {stage.key for stage in scratch.stages} & {stage.key for stage in taken.stages}
    (tmp_path / "elsewhere").symlink_to(imported)
    moved = plan_of([*overrides, f"init_from={tmp_path / 'elsewhere'}"], tmp_path)
    assert [stage.key for stage in moved.stages] == [stage.key for stage in taken.stages]
    other = torch.load(GOLDEN / "pytorch_model.bin", weights_only=True)
    other["sequential.5.norm.bias"] += 1e-3
    torch.save(other, tmp_path / "other.bin")
    adopt(tmp_path / "other", read_official(tmp_path / "other.bin", GOLDEN / "config.yml"), corpus=None)
    changed = plan_of([*overrides, f"init_from={tmp_path / 'other'}"], tmp_path)
    assert not {stage.key for stage in changed.stages} & {stage.key for stage in taken.stages}


def test_a_prediction_counts_the_base_as_cost_and_not_as_time(
    imported: Path, overrides: list[str], tmp_path: Path
) -> None:
    answer = CliRunner().invoke(
        app, ["plan", *overrides, f"init_from={imported}", "--config-dir", str(tmp_path / "conf")]
    )
    assert answer.exit_code == 0, (answer.output, answer.exception)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["init_from=nowhere"], "must be a folder that `tfscale import` created"),
        (["model.n_layer=3"], "the imported model has n_layer=2, not 3; try model.n_layer=2"),
        (["schedule.stages.base.out=48"], "the imported model has 40 out tokens"),
        (["model.vocab_size=640"], "the imported model has vocab_size=512"),
    ],
)
def test_a_base_that_is_not_the_schedules_is_refused(
    imported: Path, overrides: list[str], more: list[str], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(UserFault, match=fault):
        plan_of([*overrides, f"init_from={imported}", *more], tmp_path)


def test_weights_that_changed_since_the_plan_are_not_taken(
    imported: Path, overrides: list[str], tmp_path: Path
) -> None:
    stage = plan_of([*overrides, f"init_from={imported}"], tmp_path).chain.stages[0]
    prepare_folder(stage)
    spec = json.loads((stage.path / "stage.yaml").read_text())
    (stage.path / "stage.yaml").write_text(json.dumps({**spec, "init_from": "0" * 64}))
    with pytest.raises(ValueError, match="its model or weights have changed since this stage was planned"):
        grow_stage(stage.path)
    assert not is_grown(stage.path)


def test_optimizer_state_beside_the_weights_is_not_taken(imported: Path, overrides: list[str], tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(imported, forged)
    save_file({"exp_avg/embedding": torch.zeros(512, 64)}, final(forged) / "slot.safetensors")
    sign(final(forged))
    edit(forged / "stage.yaml", lambda spec: spec.update(init_from=weights_digest(final(forged))))
    stage = plan_of([*overrides, f"init_from={forged}"], tmp_path).chain.stages[0]
    prepare_folder(stage)
    with pytest.raises(ValueError, match="must contain only weights, but it contains the optimizer state exp_avg"):
        grow_stage(stage.path)
    assert not is_grown(stage.path)
