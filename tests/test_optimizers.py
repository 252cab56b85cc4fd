"""Tests of Muon, of learning rates and initial values by fan-in, and of both under growth."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from extensions.toy_family import GatedConfig
from stages import MUON as MUON_SETTINGS
from stages import outcome, planned, train, trainer_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from studies.parametrization import ARMS, Arm, change_of_outputs, first_update
from tfscale.config.compose import compose
from tfscale.models.config import ModelConfig
from tfscale.models.init import build_model
from tfscale.models.matrices import Matrix
from tfscale.models.parameter_tokens import TokenGroup
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig
from tfscale.optimizers import base, orthogonal_momentum
from tfscale.optimizers.adamw import AdamW
from tfscale.optimizers.base import from_dict, to_dict
from tfscale.optimizers.muon import Muon, newton_schulz_flops, update_scale
from tfscale.optimizers.orthogonal_momentum import OrthogonalMomentum, Update, orthogonalize
from tfscale.plan.checks import check_experiment
from tfscale.stage.spec import RateSpec
from tfscale.training.optimizer import ModelOptimizer
from tfscale.training.rates import RowRates
from tfscale.verify import verify_stage

COMMON = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}
ADAMW = AdamW(lr=2e-3, **COMMON)  # type: ignore[arg-type]
MUON = Muon(lr=0.02, embedding_ratio=0.1, **COMMON)  # type: ignore[arg-type]
NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315), 5, 1e-7)


def tokenformer(n: int, base_fan_in: int | None = None) -> TokenFormerConfig:
    qkv, out, ffn = ((TokenGroup(tokens, math.sqrt(tokens)),) for tokens in (n, n, 4 * n))
    return TokenFormerConfig(2, 32, 4, 257, 64, qkv, out, ffn, init="scaled", base_fan_in=base_fan_in)


def singular_values(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix)


@pytest.mark.parametrize(
    "config", [tokenformer(5), TransformerConfig(2, 16, 2, 50, 8, 32), GatedConfig(2, 16, 2, 50, 8, d_ff=24)]
)
def test_the_matrices_of_a_config_are_those_of_its_blocks(config: ModelConfig) -> None:
    for number, block in enumerate(build_model(config).blocks):
        built = {name: tuple(weight.shape) for name, weight in block.named_parameters() if weight.dim() == 2}
        assert built.keys() == config.block_weights.keys()
        for name, (rows, columns) in built.items():
            matrix = config.matrix(f"blocks.{number}.{name}")
            assert rows == matrix.maps * matrix.rows_of_a_map
            assert rows * columns == matrix.size


def test_singular_values_are_set_near_one_and_singular_vectors_kept() -> None:
    torch.manual_seed(0)
    for shape in ((1, 6, 20), (3, 20, 6)):
        given = torch.randn(shape)
        found = orthogonalize(given, *NEWTON_SCHULZ)
        assert found.shape == given.shape
        assert ((singular_values(found) - 0.95).abs() < 0.35).all()
        u, _, vh = torch.linalg.svd(given, full_matrices=False)
        between = u.mT @ found @ vh.mT
        assert (between - torch.diag_embed(between.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


def test_a_whole_matrix_is_updated_as_torch_does() -> None:
    torch.manual_seed(0)
    first = torch.randn(24, 8)
    ours, theirs = torch.nn.Parameter(first.clone()), torch.nn.Parameter(first.clone())
    optimizer = OrthogonalMomentum([Update(ours, math.sqrt(3), (24,))], 0.02, 0.1, 0.95, 5)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, ns_steps=5)
    for _ in range(4):
        ours.grad = torch.randn(24, 8)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    moved, expected = ours.detach() - first, theirs.detach() - first
    assert (moved - expected).norm() < 0.02 * expected.norm()  # the iteration of torch uses bf16


@pytest.mark.parametrize(("limit", "value"), [("HELD", 1), ("STACKED", {"cpu": 1})])
def test_updating_matrices_one_by_one_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: object
) -> None:
    def trained() -> list[Tensor]:
        model = build_model(tokenformer(16, 32), seed=0)
        updates = ModelOptimizer(model, MUON, model.config)
        for number, weight in enumerate(model.parameters()):
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        updates.step()
        return list(model.parameters())

    together = trained()
    monkeypatch.setattr(base if limit == "HELD" else orthogonal_momentum, limit, value)
    for weight, alone in zip(together, trained(), strict=True):
        torch.testing.assert_close(weight, alone)


def test_fused_projections_are_orthogonalised_one_by_one() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(1, 16, 2, 50, 8, 32)
    name = "blocks.0.attention.qkv.weight"
    assert MUON.parts(config.matrix(name)) == (16, 16, 16)
    weight = torch.nn.Parameter(torch.zeros(48, 16))
    [optimizer] = MUON.build({name: weight}, config)
    weight.grad = torch.randn(48, 16) * torch.tensor([1.0, 100.0, 1e-3]).repeat_interleave(16)[:, None]
    optimizer.step()
    norms = torch.stack([singular_values(part)[0] for part in weight.detach().split(16)])
    assert norms == pytest.approx(torch.full((3,), MUON.lr), rel=0.35)


@pytest.mark.parametrize(("unit", "parts"), [("whole", (12,)), ("groups", (8, 4))])
def test_groups_of_parameter_tokens_are_orthogonalised_as_asked(unit: str, parts: tuple[int, ...]) -> None:
    groups = (TokenGroup(8, 2.8), TokenGroup(4, 2.0))
    config = TokenFormerConfig(1, 16, 2, 50, 8, groups, groups, groups)
    muon = replace(MUON, orthogonalize=unit)  # type: ignore[arg-type]
    assert muon.parts(config.matrix("blocks.0.ffn.values")) == parts


@pytest.mark.parametrize("parametrization", [None, 32])
def test_the_scale_of_an_update_follows_fan_in_and_fan_out(parametrization: int | None) -> None:
    config = tokenformer(128, parametrization)
    keys, values = config.matrix("blocks.0.ffn.keys"), config.matrix("blocks.1.ffn.values")
    assert keys == Matrix(32, 512, groups=(512,))
    assert values == Matrix(512, 32, inputs_are_rows=True, groups=(512,))
    assert update_scale(keys, config) == 4.0
    assert update_scale(values, config) == (0.25 if parametrization else 1.0)


def test_rates_and_initial_values_by_fan_in() -> None:
    standard, by_fan_in = tokenformer(64), tokenformer(64, 32)
    optimizer = replace(ADAMW, embedding_ratio=0.5)
    rates: dict[str, tuple[float, float]] = {}
    for name, weight in build_model(by_fan_in).named_parameters():
        [built] = optimizer.build({name: weight}, by_fan_in)
        [group] = built.param_groups
        rates[name] = group["lr"] / ADAMW.lr, group["lr"] * group["weight_decay"]
    decay = ADAMW.lr * ADAMW.weight_decay
    assert rates["blocks.0.ffn.keys"] == pytest.approx((1.0, decay))
    assert rates["blocks.0.ffn.values"] == pytest.approx((32 / 256, decay))
    assert rates["blocks.1.attention.output.values"] == pytest.approx((32 / 64, decay))
    assert rates["embedding"] == pytest.approx((0.5, decay / 2))
    assert rates["final_norm.weight"] == (0.5, 0.0)
    for name, ratio in (("ffn.values", 1 / 8), ("ffn.keys", 1.0)):
        name = f"blocks.0.{name}"
        assert by_fan_in.initial_std(name) == pytest.approx(standard.initial_std(name) * math.sqrt(ratio))


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.title)
def test_outputs_change_alike_at_every_number_of_tokens_by_fan_in_alone(arm: Arm) -> None:
    """The coordinate check: from 16 to 960 tokens, changes stay within a factor of 4; otherwise they grow 8-fold."""
    changes = [change_of_outputs(arm, n, seed=0) for n in (16, 240, 960)]
    if arm.base_fan_in is None:
        assert changes[-1] > 8 * changes[0]
    else:
        assert max(changes) < 4 * min(changes)


@pytest.mark.parametrize("growth", [["growth=grouped"], ["growth=exact", "growth.rates.new=3"]])
def test_the_first_update_after_a_growth_is_about_as_large_as_the_last_one_before_it(growth: list[str]) -> None:
    update = first_update(ARMS[3], growth, seed=0)
    assert 0.3 < update.all_rows < 3
    assert 0.3 < update.old_rows < 3
    assert 0.3 < update.new_rows < 3


def test_frozen_rows_take_no_part_in_the_update_of_the_others() -> None:
    qkv, out, ffn = ((TokenGroup(n, 1.0),) for n in (6, 6, 24))
    config = TokenFormerConfig(1, 16, 2, 40, 8, qkv, out, ffn)
    rates = RateSpec((4, 4, 16), 1.0, 0, frozen_tokens=100, new=1.0, per_row_bias=False, new_second_moment=False)
    name = "blocks.0.ffn.values"

    def step(old_gradient: float, tokens: int) -> Tensor:
        model = build_model(config, seed=0)
        before = dict(model.named_parameters())[name].detach().clone()
        optimizer = ModelOptimizer(model, MUON, config)
        row_rates = RowRates(model, rates, MUON, optimizer)
        for number, weight in enumerate(model.parameters()):
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
        gradient = dict(model.named_parameters())[name].grad
        assert gradient is not None
        gradient[:16] *= old_gradient
        row_rates.begin(tokens, 1, 1)
        with row_rates(model.parameters()):
            optimizer.step()
        return dict(model.named_parameters())[name].detach() - before

    frozen = step(1.0, tokens=0)
    assert not frozen[:16].any()
    assert torch.equal(frozen, step(100.0, tokens=0))
    assert not torch.equal(step(1.0, tokens=100)[16:], step(100.0, tokens=100)[16:])
    assert singular_values(frozen[16:])[0] == pytest.approx(
        MUON.lr * update_scale(config.matrix(name), config), rel=0.4
    )


def test_the_flops_of_an_update_are_those_that_are_done() -> None:
    for rows, columns in ((6, 20), (20, 6), (8, 8)):
        with FlopCounterMode(display=False) as counter:
            orthogonalize(torch.randn(1, rows, columns), *NEWTON_SCHULZ)
        assert counter.get_total_flops() == newton_schulz_flops(rows, columns, 5)
    config = tokenformer(16)
    matrices = 2 * (2 * 4 * newton_schulz_flops(16, 32, 5) + 2 * newton_schulz_flops(64, 32, 5))
    assert MUON.update_flops(config) == matrices + ADAMW.update_flops(config)


def test_settings_survive_a_file() -> None:
    for optimizer in (ADAMW, MUON, replace(MUON, embedding_ratio=1.0, orthogonalize="groups")):
        assert from_dict(to_dict(optimizer)) == optimizer
    assert to_dict(ADAMW).keys() == {"lr", "clip", "beta1", "beta2", "eps", "weight_decay"}


@pytest.mark.parametrize("growth", ["exact", "grouped", "split"])
def test_growth_preserves_the_logits_and_begins_new_rows_with_empty_momentum(small: list[str], growth: str) -> None:
    parent, child = planned([*small, *MUON_SETTINGS, f"growth={growth}"])[:2]
    assert train(parent)
    trained = trainer_of(child)  # creating the trainer compares the logits
    trained.state.load(child.path / "checkpoints" / "step-000000000000")
    name = "momentum_buffer/blocks.0.ffn.keys"
    before, after = outcome(parent)[0][name], trained.state.tensors()[name]
    assert isinstance(after, Tensor)
    assert after[: len(before)].any()
    if growth != "split":  # copies of a split keep their moments
        assert torch.equal(after[: len(before)], before)
        assert not after[len(before) :].any()
    assert trained.run()
    assert list(verify_stage(child)) == []


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (("launcher.update=in_backward", "optim.clip=0"), "launcher.update=in_backward: must be whole with optim.name"),
        (("growth.rates.per_row_bias=true",), "growth.rates.per_row_bias=true: must be false with optim.name=muon"),
        (("optim.options={orthogonalize: rows}",), "optim.options: orthogonalize='rows'"),
    ],
)
def test_what_muon_cannot_do_is_refused(small: list[str], overrides: tuple[str, ...], fault: str) -> None:
    [found] = check_experiment(compose([*small, "optim.name=muon", *overrides]))
    assert str(found).startswith(fault)


def test_updates_do_not_import_torchs_compiler() -> None:
    """torch.optim imports it to keep it out, which takes a second in each process that trains."""
    code = (
        "import sys, torch; from tfscale.optimizers.eager import EagerAdamW;"
        "from tfscale.optimizers.orthogonal_momentum import OrthogonalMomentum, Update;"
        "weight = torch.ones(2, 2, requires_grad=True); weight.sum().backward();"
        "EagerAdamW([weight], fused=True).step();"
        "OrthogonalMomentum([Update(weight, 1.0, (2,))], 0.1, 0.0, 0.9, 5).step();"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
