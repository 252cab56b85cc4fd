"""Tests of the growth of Transformers: shapes, preserved functions, moments and checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stages import train
from torch import Tensor

from tfscale import checkpoint
from tfscale.analysis.figure import comparison_figure
from tfscale.cli.compare import compare_plan
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.growth.grow_checkpoint import grow_checkpoint
from tfscale.growth.grow_stage import compare_logits
from tfscale.growth.transformer_recipe import TransformerGrowth
from tfscale.models.counts import parameters
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.transformer import TransformerConfig
from tfscale.plan.plan import Plan, make_plan
from tfscale.stage.growth_record import read_growth
from tfscale.stage.result import read_result
from tfscale.verify import verify_plan

NET2NET = TransformerGrowth("net2net", "net2net")
CLONING = TransformerGrowth("hypercloning", "hypercloning")
NOISY_CLONING = replace(CLONING, noise=0.3)
STACK = TransformerGrowth("g_stack", "g_stack")
MIDDLE = TransformerGrowth("middle", "middle")
SMALL = TransformerConfig(2, 24, 3, 40, 8, 60, rotary=0.5)
TOKENS = torch.arange(16).view(2, 8)


def model_of(config: TransformerConfig = SMALL, seed: int = 0) -> LanguageModel:
    """Return a model in which all parameters, including norms, differ from their initial values."""
    model = build_model(config, seed=seed).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def widened(config: TransformerConfig, heads: int) -> TransformerConfig:
    d_model, d_ff = (width * heads // config.n_head for width in (config.d_model, config.d_ff))
    return replace(config, n_head=heads, d_model=d_model, d_ff=d_ff)


def grow(
    tensors: dict[str, Tensor], degree: int, child: TransformerConfig, growth: TransformerGrowth
) -> dict[str, Tensor]:
    names = [name for name, _ in build_model(child, device="meta").named_parameters()]
    return {
        name: growth.grow_tensor(name, degree, tensors[growth.source_of(name, SMALL, child)], SMALL, child, 1)
        for name in names
    }


def grown(model: LanguageModel, child: TransformerConfig, growth: TransformerGrowth) -> LanguageModel:
    made = build_model(child).double()
    made.load_state_dict(grow(model.state_dict(), 0, child, growth))
    return made


def change(before: LanguageModel, after: LanguageModel) -> float:
    difference: Tensor = before(TOKENS) - after(TOKENS)
    return difference.abs().max().item()


@pytest.mark.parametrize(
    ("growth", "heads"),
    [(NET2NET, 6), (NET2NET, 9), (NET2NET, 15), (CLONING, 6), (CLONING, 12), (NOISY_CLONING, 6), (NOISY_CLONING, 12)],
    ids=lambda value: getattr(value, "method", value),
)
@pytest.mark.parametrize("rotary", [0.0, 0.5, 1.0])
def test_growth_to_a_multiple_of_the_width_preserves_every_logit(
    growth: TransformerGrowth, heads: int, rotary: float
) -> None:
    model = model_of(replace(SMALL, rotary=rotary))
    child = widened(model.config, heads)  # type: ignore[arg-type]
    assert growth.preserves(model.config, child)  # type: ignore[arg-type]
    # The noise is drawn in float32 and cancels to that precision.
    assert change(model, grown(model, child, growth)) < (1e-5 if growth.noise else 1e-11)


@pytest.mark.parametrize(
    ("growth", "child"),
    [
        (NET2NET, widened(SMALL, 4)),
        (replace(NET2NET, noise=0.1), widened(SMALL, 6)),
        (STACK, replace(SMALL, n_layer=4)),
    ],
    ids=["uneven", "noise", "stack"],
)
def test_what_changes_the_function_says_so(growth: TransformerGrowth, child: TransformerConfig) -> None:
    model = model_of()
    assert not growth.preserves(SMALL, child)
    assert change(model, grown(model, child, growth)) > 1e-3


def test_inner_widths_need_not_be_multiples() -> None:
    model = model_of()
    child = replace(widened(SMALL, 6), d_ff=137)
    assert change(model, grown(model, child, NET2NET)) < 1e-11


@pytest.mark.parametrize("growth", [replace(NET2NET, noise=0.1), NOISY_CLONING], ids=lambda growth: growth.name)
def test_noise_tells_copies_apart(growth: TransformerGrowth) -> None:
    weights = grown(model_of(), widened(SMALL, 6), growth).state_dict()
    for name in ("attention.qkv.weight", "attention.output.weight", "ffn.up.weight", "ffn.down.weight"):
        rows = weights[f"blocks.0.{name}"].unflatten(0, (3 if "qkv" in name else 1, 2, -1))
        assert not torch.allclose(rows[:, 0], rows[:, 1]), name
    without = grown(model_of(), widened(SMALL, 6), replace(growth, noise=0.0)).state_dict()["blocks.0.ffn.up.weight"]
    assert torch.equal(without[:60], without[60:])


@pytest.mark.parametrize("heads", [6, 9])
def test_carried_moments_are_those_of_the_copies_own_gradients(heads: int) -> None:
    model, child = model_of(), widened(SMALL, heads)
    larger = grown(model, child, NET2NET)
    for each in (model, larger):
        each.loss(TOKENS, TOKENS.flip(1)).backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    expected = {name: weight.grad for name, weight in larger.named_parameters()}
    first = grow(gradients, 1, child, NET2NET)
    second = grow({name: gradient**2 for name, gradient in gradients.items()}, 2, child, NET2NET)
    for name, gradient in expected.items():
        assert gradient is not None
        torch.testing.assert_close(first[name], gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(second[name], gradient**2, rtol=1e-9, atol=1e-14)


def test_stacked_layers_come_again_in_their_order() -> None:
    model = model_of()
    weights = grown(model, replace(SMALL, n_layer=6), STACK).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor)
    for layer in range(6):
        assert torch.equal(weights[f"blocks.{layer}.ffn.up.weight"], weights[f"blocks.{layer % 2}.ffn.up.weight"])


def test_the_middle_layers_come_again_between_the_first_and_the_last() -> None:
    parent = replace(SMALL, n_layer=4)
    child = MIDDLE.nearest_shape(parent, parameters(replace(SMALL, n_layer=8)))
    assert child == replace(SMALL, n_layer=8)
    names = [MIDDLE.source_of(f"blocks.{layer}.ffn.up.weight", parent, child) for layer in range(8)]
    assert names == [f"blocks.{layer}.ffn.up.weight" for layer in (0, 1, 2, 1, 2, 1, 2, 3)]
    assert MIDDLE.source_of("final_norm.weight", parent, child) == "final_norm.weight"
    assert MIDDLE.nearest_shape(parent, 1) == parent
    assert MIDDLE.nearest_shape(SMALL, parameters(replace(SMALL, n_layer=6))).n_layer == 6, "two layers have no middle"


@pytest.mark.parametrize("growth", [NET2NET, NOISY_CLONING, STACK, MIDDLE], ids=lambda growth: growth.name)
def test_a_growth_to_the_same_shape_changes_nothing(growth: TransformerGrowth) -> None:
    model = model_of()
    assert growth.preserves(SMALL, SMALL)
    assert change(model, grown(model, SMALL, growth)) == 0


def test_shapes_come_nearest_to_the_wanted_size_by_the_means_of_each_method() -> None:
    base = TransformerConfig(12, 768, 12, 50304, 1024, 3072)
    wanted = [354_200_000, 753_800_000, 1_309_700_000]
    found: list[list[TransformerConfig]] = []
    for growth in (NET2NET, CLONING, STACK):
        shape, shapes = base, []
        for size in wanted:
            larger = growth.nearest_shape(shape, size)
            assert growth.grown_config(shape, larger) == larger
            assert larger.d_model // larger.n_head == 64
            assert larger.d_ff == 4 * larger.d_model
            shape = larger
            shapes.append(shape)
        found.append(shapes)
    widths, doubled, layers = found
    assert [shape.d_model for shape in widths] == [1408, 2112, 2816]
    assert [abs(parameters(shape) / size - 1) < 0.03 for shape, size in zip(widths, wanted, strict=True)] == [True] * 3
    assert [shape.d_model for shape in doubled] == [1536, 1536, 3072]
    assert [shape.n_layer for shape in layers] == [48, 96, 192]


@pytest.mark.parametrize(
    ("growth", "child"),
    [
        (NET2NET, replace(SMALL, d_model=48, d_ff=120)),
        (NET2NET, widened(SMALL, 2)),
        (NET2NET, replace(SMALL, n_layer=4)),
        (CLONING, widened(SMALL, 4)),
        (STACK, replace(SMALL, n_layer=3)),
        (MIDDLE, replace(SMALL, n_layer=3)),
        (STACK, widened(SMALL, 6)),
    ],
    ids=["wider heads", "fewer heads", "deeper", "no multiple", "half a stack", "half the middle", "wider"],
)
def test_a_shape_that_a_method_cannot_make_is_none_of_its(growth: TransformerGrowth, child: TransformerConfig) -> None:
    assert growth.grown_config(SMALL, child) != child


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="copies are in different layers"):
        replace(STACK, noise=0.1)
    with pytest.raises(ValueError, match="noise=-1"):
        replace(NET2NET, noise=-1)


ARMS = ["net2net", "hypercloning", "g_stack"]


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Chain of two sizes, a base Transformer, and its grown versions by each method, all trained."""
    torch.set_num_threads(1)
    shape = "{n_layer: 1, d_model: 16, n_head: 2, d_ff: 32}"
    overrides = [
        f"runs={tmp_path_factory.mktemp('transformers')}", "data=text", f"data.path={corpus}", "data.vocab_size=257",
        "data.validation_tokens=1024", "model.n_layer=1", "model.d_model=16", "model.n_head=2", "model.context=32",
        "optim.batch_tokens=128", "launcher.threads=1", "tracking=none", f"baseline=[{','.join(ARMS)}]",
        "schedule.growth_tokens=1024", "schedule.stages.stage1.tokens=2048", "schedule.stages.stage1.qkv=4",
        "schedule.stages.stage2.qkv=48", f"schedule.stages.stage1.transformer={shape}",
        "baseline.arms.net2net.transformer_growth.noise=0", "baseline.arms.g_stack.transformer_growth.moments=carry",
    ]  # fmt: skip
    experiment = compose(overrides)
    stages = dict(list(experiment.schedule.stages.items())[:2])
    plan = make_plan(replace(experiment, schedule=replace(experiment.schedule, stages=stages)))
    prepare(plan.corpus.spec, plan.runs / "data")
    assert all(train(stage) for stage in plan.stages)
    return plan


def test_real_checkpoints_keep_their_logits_where_the_method_says_so(trained: Plan) -> None:
    said = []
    for arm in trained.baselines:
        base, stage = arm.stages
        assert base == trained.baselines[0].stages[0], "all methods share the base"
        assert parameters(stage.spec.model) > 2 * parameters(base.spec.model)
        growth = read_growth(stage.path)
        assert growth is not None
        said.append(growth["preserving"])
        assert growth["comparison"]["precision"] == "float64"
        assert (growth["comparison"]["max_logit_difference"] < 1e-5) == growth["preserving"]
        counters = checkpoint.read_state(stage.path / "checkpoints" / read_result(stage.path).checkpoint)[1]
        assert counters.totals.tokens == base.spec.tokens + stage.spec.tokens
    assert said == [True, True, False]


def test_what_was_grown_is_verified_with_the_rest_of_the_ledger(trained: Plan) -> None:
    assert verify_plan(trained) == []
    file = trained.baselines[1].stages[1].path / "growth.json"
    text = file.read_text()
    growth = json.loads(text)
    growth["shape"]["d_model"]["before"] += 1
    file.write_text(json.dumps(growth))
    try:
        assert any("shape is" in finding for finding in verify_plan(trained))
    finally:
        file.write_text(text)


def test_grown_transformers_are_compared_and_drawn(trained: Plan) -> None:
    comparison = compare_plan(trained)
    for size in ("25K", "70K"):
        assert [row.arm for row in comparison.table.of_size(size)] == ["progressive", *ARMS]
    assert all(row.status == "finished" for row in comparison.table.rows)
    assert comparison_figure(comparison.arms, "title").get_axes()


def test_a_checkpoint_of_the_other_family_or_of_no_such_shape_is_refused(trained: Plan, tmp_path: Path) -> None:
    def last(number: int) -> Path:
        stage = trained.arms[number].stages[0]
        return Path(stage.path / "checkpoints" / read_result(stage.path).checkpoint)

    child, optimizer = trained.baselines[0].stages[1].spec.model, trained.chain.stages[0].spec.optimizer
    assert isinstance(child, TransformerConfig)
    with pytest.raises(ValueError, match="is of the family tokenformer, but growth="):
        grow_checkpoint(last(0), tmp_path / "new", child, NET2NET, optimizer, 0)
    with pytest.raises(ValueError, match="must turn"):
        grow_checkpoint(last(1), tmp_path / "new", child, STACK, optimizer, 0)
    assert not (tmp_path / "new").exists()


def test_thirds_of_weights_are_rounded_and_no_more(trained: Plan, tmp_path: Path) -> None:
    stage = trained.baselines[0].stages[0]
    parent = stage.path / "checkpoints" / read_result(stage.path).checkpoint
    assert isinstance(stage.spec.model, TransformerConfig)
    grow_checkpoint(parent, tmp_path / "new", widened(stage.spec.model, 6), NET2NET, stage.spec.optimizer, 0)
    tokens = torch.arange(32)[None]
    result = compare_logits(parent, tmp_path / "new", tokens, tokens, rounded=True)
    assert 0 < result.max_logit_difference < 1e-5
    assert result.max_logit_difference < result.tolerance
