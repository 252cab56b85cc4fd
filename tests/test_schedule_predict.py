"""Tests of predictions against calculations by hand, from the paper's sizes and the devices' datasheets."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tfscale.config.compose import compose
from tfscale.faults import UserFault
from tfscale.models.counts import parameters
from tfscale.orchestrate.speed import Speed
from tfscale.plan.plan import Plan, make_plan
from tfscale.predict import (
    Machine,
    Prediction,
    cheapest_fix,
    families,
    planned_machine,
    predict,
    preflight,
    remarks,
)
from tfscale.stage.spec import StageSpec

PAPER = ["schedule=progressive_1b4"]
CLUSTER = [*PAPER, "launcher.kind=slurm", "device=h100_sxm"]

# The paper's largest stage (Table 9), by the formula of its Table 3, with the tied embedding and the final norm.
PARAMETERS = 2 * 12 * 768 * (3 * 8620 + 8620 + 34480) + 50304 * 768 + 2 * 768
STEPS = 57_220  # 30e9 tokens in batches of 512 x 1024, to the nearest
# Forward pass per token: projections, attention, logits, and the norm of Pattention with three operations per score,
# which is our addition.
FORWARD = 2 * 1_271_070_720 + 4 * 12 * 768 * 1024 + 2 * 768 * 50304 + 3 * 12 * 68_960
BATCH_FLOPS = 3 * FORWARD * 524_288


def plan_of(*overrides: str) -> Plan:
    return make_plan(compose(overrides))


def largest(*overrides: str) -> tuple[StageSpec, Machine]:
    plan = plan_of(*overrides)
    return plan.chain.stages[-1].spec, planned_machine(plan.experiment)


def predicted(*overrides: str, speeds: list[Speed] | None = None) -> Prediction:
    spec, machine = largest(*overrides)
    return predict(spec, machine, speeds or [])


def test_parameters_steps_and_flops_are_the_papers() -> None:
    found = predicted(*CLUSTER, "launcher.nodes=8")
    assert PARAMETERS == 1_309_705_728
    assert (parameters(found.spec.model), found.spec.steps, found.spec.tokens) == (PARAMETERS, STEPS, STEPS * 524_288)
    assert found.flops == STEPS * BATCH_FLOPS == pytest.approx(2.394e20, rel=1e-3)
    # 6N per token, and a small part for attention and logits, which 6N of the non-embedding parameters omits.
    assert found.flops / found.spec.tokens == pytest.approx(6 * 1_271_070_720, rel=0.05)


def test_a_device_of_64_holds_all_weights_with_ddp_and_a_64th_with_fsdp() -> None:
    weights = 4 * PARAMETERS  # float32
    for sharding, shards in (("none", 1), ("full", 64), ("hybrid", 8)):
        held = predicted(*CLUSTER, "launcher.nodes=8", f"launcher.sharding={sharding}").memory
        assert held.weights == pytest.approx(weights / shards, rel=1e-6)
        assert held.gradients == pytest.approx(weights / shards, rel=1e-6)
        assert held.moments == pytest.approx(2 * weights / shards, rel=1e-6)


def test_time_energy_and_cost_of_64_devices_are_those_worked_out_by_hand() -> None:
    found = predicted(*CLUSTER, "launcher.nodes=8", "launcher.sharding=none", "launcher.activation_checkpointing=none")
    compute = BATCH_FLOPS / (0.35 * 989.4e12 * 64)  # assumed MFU, dense bf16 peak
    reduce = 2 * (63 / 64) * 4 * PARAMETERS / 400e9  # a ring over eight 50 GB/s adapters per host
    update = 7 * 4 * PARAMETERS / 3.35e12  # AdamW: four values read, three written
    update += 14 * PARAMETERS / (0.35 * 989.4e12)
    seconds = STEPS * (max(compute, reduce) + update)
    assert found.step is not None
    assert (found.step.compute, found.step.communication, found.step.update) == pytest.approx(
        (compute, reduce, update), rel=1e-9
    )
    assert (compute, reduce, update) == pytest.approx((0.18876, 0.02578, 0.01100), rel=1e-3)
    assert found.seconds == pytest.approx(seconds)
    assert found.device_hours == pytest.approx(64 * seconds / 3600) == pytest.approx(203.1, rel=1e-3)
    assert found.kilowatt_hours == pytest.approx(203.1 * 0.7, rel=1e-3)
    assert found.dollars == pytest.approx(203.1 * 2.95, rel=1e-3)
    assert found.tokens_per_second == pytest.approx(524_288 / (compute + update))
    assert found.mfu == pytest.approx(0.35 * compute / (compute + update))


def test_one_device_needs_its_flops_over_its_share_of_the_peak() -> None:
    found = predicted(*PAPER, "device=h200", "device.bandwidth=null", "launcher.activation_checkpointing=none")
    assert found.optimizer_flops == STEPS * 14 * PARAMETERS
    assert found.seconds == pytest.approx((found.flops + found.optimizer_flops) / (0.35 * 989.4e12))


def test_at_512_devices_the_gradients_wait_for_the_network() -> None:
    step = predicted(*CLUSTER, "launcher.nodes=64", "launcher.sharding=none").step
    assert step is not None
    assert step.compute == pytest.approx(BATCH_FLOPS / (0.35 * 989.4e12 * 512))
    assert step.communication > step.compute
    assert step.seconds == pytest.approx(step.communication + step.update)


def test_fsdp_moves_weights_twice_and_gradients_once_in_every_micro_batch() -> None:
    embedding = 50304 * 768  # gathered once, in float32, as are all gradients; blocks in bf16, forward and backward
    moved = 4 * embedding + 2 * 2 * (PARAMETERS - embedding) + 4 * PARAMETERS
    settings = [*CLUSTER, "launcher.nodes=8", "launcher.micro_batch=4", "launcher.activation_checkpointing=none"]
    full, hybrid = (predicted(*settings, f"launcher.sharding={name}").step for name in ("full", "hybrid"))
    assert full is not None
    assert hybrid is not None
    assert full.communication == pytest.approx(2 * moved * (63 / 64) / 400e9)  # 8 sequences, 4 at once
    inside, between = 2 * moved * (7 / 8) / 450e9, 2 * 4 * PARAMETERS * (7 / 8) / 400e9
    assert hybrid.communication == pytest.approx(inside + between)
    assert full.update == pytest.approx((7 * 4 / 3.35e12 + 14 / (0.35 * 989.4e12)) * PARAMETERS / 64)


def test_the_price_and_power_of_ones_own_device_count() -> None:
    usual = predicted(*CLUSTER, "launcher.nodes=8")
    mine = predicted(*CLUSTER, "launcher.nodes=8", "device.price=5.9", "device.watts=350", "device.mfu=0.35")
    assert (usual.dollars, usual.kilowatt_hours) != (None, None)
    assert mine.dollars == pytest.approx(2 * (usual.dollars or 0))
    assert mine.kilowatt_hours == pytest.approx((usual.kilowatt_hours or 0) / 2)


def test_recomputed_blocks_cost_another_forward_pass_without_the_logits() -> None:
    steps = [
        predicted(*CLUSTER, f"launcher.activation_checkpointing={name}").step
        for name in ("none", "pattention", "blocks")
    ]
    none, pattention, blocks = (step.compute for step in steps if step is not None)
    assert blocks / none == pytest.approx(1 + (FORWARD - 2 * 768 * 50304) / (3 * FORWARD))
    assert none < pattention < blocks


def test_finished_stages_on_such_a_device_say_how_fast_the_next_will_be() -> None:
    speed = Speed("tokenformer", 10**9, "elsewhere", "NVIDIA H100 80GB HBM3", "bf16", 8, 8 * 2e14)
    others = [
        replace(speed, device="NVIDIA H100 PCIe"),
        replace(speed, family="transformer"),
        replace(speed, precision="fp32"),
        replace(speed, parameters=10**8),
    ]
    assert not predicted(*CLUSTER, "launcher.nodes=8", speeds=others).measured
    found = predicted(*CLUSTER, "launcher.nodes=8", speeds=[*others, speed])
    assert found.measured
    assert found.step is not None
    assert found.step.compute == pytest.approx(BATCH_FLOPS / (2e14 * 64))


def test_the_family_of_sizes_costs_what_its_runs_cost_together() -> None:
    plan = plan_of(*CLUSTER, "launcher.nodes=8")
    machine = planned_machine(plan.experiment)
    found = {(each.title, each.budget): each for each in families(plan, lambda spec: predict(spec, machine, []))}
    chain, paper = found["the chain", "chain"], found["Transformer", "base_tokens"]
    # The main result of the paper by the same formula: 300B tokens of the 1.4B Transformer against the whole chain.
    assert paper.runs[-1].flops / chain.flops == pytest.approx(3.6, rel=0.02)
    assert {run.spec.tokens for run in paper.runs} == {chain.runs[0].spec.tokens}
    equal = found["TokenFormer", "cumulative_compute"]
    assert equal.flops == pytest.approx(sum(sum(run.flops for run in chain.runs[: n + 1]) for n in range(4)), rel=1e-3)
    assert chain.dollars == pytest.approx(sum(run.dollars or 0 for run in chain.runs))


def test_the_papers_baselines_have_its_300b_and_30b_tokens() -> None:
    plan = plan_of(*CLUSTER, "baseline=paper")
    assert [[round(stage.spec.tokens / 1e9) for stage in arm.stages] for arm in plan.baselines] == [
        [300, 300, 300, 300],
        [300, 30, 30, 30],
    ]
    assert plan.baselines[0].stages[0] == plan.baselines[1].stages[0]
    full = sum(predict(stage.spec, planned_machine(plan.experiment), []).flops for stage in plan.baselines[0].stages)
    reckoned = families(plan, lambda spec: predict(spec, planned_machine(plan.experiment), []))
    assert full == next(each.flops for each in reckoned if each.budget == "base_tokens")


def test_weights_are_sharded_and_blocks_recomputed_only_where_nothing_else_fits() -> None:
    chosen = [
        predicted(*PAPER, f"device={name}", "launcher.kind=torchrun", "launcher.processes=8").layout
        for name in ("h100_sxm", "rtx4090")
    ]
    assert [each.sharding for each in chosen] == ["none", "full"]
    assert [each.recompute for each in chosen] == ["none", "none"]
    assert predicted(*PAPER, "device=rtx4090", "device.memory=28").layout.recompute != "none"


def test_the_micro_batch_fills_the_device_and_covers_the_batch() -> None:
    found, rows = predicted(*CLUSTER, "launcher.nodes=2"), 512 // 16
    assert found.layout.micro_batch * found.accumulation >= rows
    assert found.memory.total <= 0.8 * 80e9
    wider = predicted(*CLUSTER, "launcher.nodes=2", f"launcher.micro_batch={2 * found.layout.micro_batch}")
    assert wider.layout.micro_batch == rows or not wider.fits


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["device=rtx4090", "launcher.kind=torchrun", "launcher.processes=8", "launcher.sharding=none"],
         ["launcher.sharding=full"]),
        (["device=rtx4090", "device.memory=28", "launcher.activation_checkpointing=none"],
         ["launcher.activation_checkpointing=blocks"]),
        (["device=rtx4090"], ["launcher.kind=torchrun", "launcher.processes=2"]),
        (["device=rtx4090", "launcher.kind=slurm", "launcher.slurm.gpus=1"], ["launcher.nodes=2"]),
        (["device=h100_sxm", "launcher.micro_batch=64"], ["launcher.micro_batch=auto"]),
        (["device=rtx4090", "launcher.kind=torchrun", "launcher.processes=2", "launcher.sharding=none",
          "launcher.activation_checkpointing=none", "device.memory=17"],
         ["launcher.sharding=full", "launcher.activation_checkpointing=blocks"]),
    ],
)  # fmt: skip
def test_a_stage_that_does_not_fit_is_told_the_first_setting_that_helps(
    overrides: list[str], remedy: list[str]
) -> None:
    spec, machine = largest(*PAPER, *overrides)
    assert not predict(spec, machine, []).fits
    assert cheapest_fix(spec, machine) == remedy


def test_a_lone_small_device_is_told_to_update_in_the_backward_pass() -> None:
    small = ["device=rtx4090", "model.context=128", "optim.batch_tokens=128", "launcher.kind=slurm",
             "launcher.slurm.gpus=1"]  # fmt: skip
    spec, machine = largest(*PAPER, *small)
    assert cheapest_fix(spec, machine) == ["launcher.update=in_backward", "optim.clip=0"]


def test_nothing_but_a_larger_device_helps_where_nothing_does() -> None:
    spec, machine = largest(*PAPER, "device=rtx4090", "device.memory=1")
    assert cheapest_fix(spec, machine) is None


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        (["launcher.kind=slurm", "launcher.nodes=3"], ["24 processes", "launcher.nodes=2 or launcher.nodes=4"]),
        (["launcher.kind=torchrun", "launcher.processes=6"], ["launcher.processes=4 or launcher.processes=8"]),
        (["launcher.kind=slurm", "launcher.nodes=128"], ["1024 processes", "512 sequences", "launcher.nodes=64,"]),
    ],
)  # fmt: skip
def test_devices_that_do_not_divide_a_batch_are_told_the_next_numbers_that_do(
    launcher: list[str], words: list[str]
) -> None:
    with pytest.raises(UserFault) as caught:
        plan_of(*PAPER, *launcher)
    for word in words:
        assert word in str(caught.value)


def test_preflight_tells_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = preflight(plan_of(*CLUSTER, "device.memory=1", f"runs={tmp_path / 'file'}"))
    for begin in ("data: ", "memory: ", "runs="):
        assert any(str(fault).startswith(begin) for fault in told), told
    told = preflight(plan_of(*PAPER, "launcher.kind=torchrun", "launcher.processes=512", "launcher.device=cpu"))
    assert {str(fault).partition(":")[0] for fault in told} == {"data", "memory"}


def test_a_cluster_whose_devices_are_not_named_is_planned_without_memory_and_time() -> None:
    plan = plan_of(*PAPER, "launcher.kind=slurm", "launcher.nodes=2")
    machine = planned_machine(plan.experiment)
    found = predict(plan.chain.stages[-1].spec, machine, [])
    assert (found.fits, found.seconds, found.dollars, found.flops) == (True, None, None, STEPS * BATCH_FLOPS)
    assert any("device=h100_sxm" in note for note in remarks(machine))
    assert not any(str(fault).startswith("memory") for fault in preflight(plan))


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["device=v100_32gb"], "launcher.precision=fp32"),
        (["device=h100_sxm", "launcher.device=cpu"], "device=auto"),
        (["launcher.device=cpu", "launcher.precision=tf32"], "launcher.precision=tf32: must be fp32 or bf16 on a CPU"),
        (["device=h100_sxm", "launcher.kind=torchrun"], "launcher.processes=auto: must be a number"),
    ],
)
def test_a_device_that_cannot_be_reckoned_with_is_told(overrides: list[str], word: str) -> None:
    with pytest.raises(UserFault, match=word):
        planned_machine(compose([*PAPER, *overrides]))


def test_the_precision_of_the_run_is_the_precision_of_its_memory_and_its_peak() -> None:
    names = ("fp32", "tf32", "bf16")
    given = [largest(*PAPER, "device=h100_sxm", f"launcher.precision={name}") for name in names]
    assert [machine.peak for _, machine in given] == pytest.approx([66.9e12, 494.7e12, 989.4e12])
    one = [(replace(spec, run=replace(spec.run, micro_batch=1)), machine) for spec, machine in given]
    whole, products, half = (predict(spec, machine, []).memory.activations for spec, machine in one)
    assert whole == products > 1.5 * half


def test_compiled_code_keeps_two_values_per_score_and_tiles_and_triton_one() -> None:
    settings = [*CLUSTER, "launcher.nodes=8", "launcher.activation_checkpointing=none", "launcher.micro_batch=8"]
    ways = ("launcher.compile=on", "launcher.compile=off", "launcher.kernels=triton")
    compiled, tiles, triton = (predicted(*settings, way).memory.activations for way in ways)
    scores = 8 * 1024 * 12 * (3 * 8640 + 8640 + 34_496)  # parameter tokens are padded to a multiple of 64
    assert compiled - triton == 2 * scores
    assert compiled - tiles == pytest.approx(2 * scores, rel=0.05)


def test_ddp_has_buckets_beside_the_gradients_that_several_micro_batches_add_up() -> None:
    one, several = (predicted(*CLUSTER, "launcher.nodes=8", f"launcher.micro_batch={size}").memory for size in (8, 4))
    assert (one.gradients, several.gradients) == (4 * PARAMETERS, 8 * PARAMETERS)


def plan_command(*overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tfscale.cli", "plan", *overrides]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd)


@pytest.mark.parametrize(("devices", "launcher"), [(1, []), (8, ["launcher.kind=torchrun", "launcher.processes=8"]),
                                                   (512, ["launcher.kind=slurm", "launcher.nodes=64"])])  # fmt: skip
def test_plan_prints_within_100_columns_and_as_json_the_same(devices: int, launcher: list[str], tmp_path: Path) -> None:
    overrides = [*PAPER, "device=h100_sxm", *launcher]
    shown = plan_command(*overrides, cwd=tmp_path).stdout
    tables = shown[: shown.index("estimated for")].splitlines()
    assert max(map(len, tables)) <= 100
    values = json.loads(plan_command(*overrides, "--json", cwd=tmp_path).stdout)
    assert values["machine"]["devices"] == devices
    [chain] = values["arms"]
    assert [stage["size"] for stage in chain["stages"]] == ["124M", "354M", "757M", "1.4B"]
    last = chain["stages"][-1]
    assert last["flops"] == STEPS * BATCH_FLOPS
    assert f"{last['device_hours']:,.0f}" in shown
    assert "optimizer share" in shown
    assert last["optimizer_flops"] == STEPS * 14 * PARAMETERS
    assert last["optimizer_share"] == pytest.approx(14 * PARAMETERS / (BATCH_FLOPS + 14 * PARAMETERS))
    assert "tokenizer.json" in shown
    assert not list(tmp_path.iterdir())
