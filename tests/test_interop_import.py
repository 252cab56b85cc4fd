"""Tests of the import of released TokenFormer weights from the official format, without running code."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from tfscale import checkpoint
from tfscale.cli.main import app
from tfscale.config.compose import compose
from tfscale.data.prepare import prepare
from tfscale.faults import UserFault
from tfscale.growth.imported_weights import cost_of
from tfscale.interop.adopt import adopt
from tfscale.interop.official import read_official
from tfscale.models.counts import parameters
from tfscale.models.language_model import LanguageModel
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.plan.plan import make_plan
from tfscale.stage.result import read_result
from tfscale.stage.spec import read_spec

GOLDEN = Path(__file__).parent / "golden" / "official_tiny"
EXPECTED = load_file(GOLDEN / "expected.safetensors")
INPUTS = EXPECTED["input_ids"].long()


def tfscale(*arguments: object) -> str:
    """Run a command and return its output. Raise its exception if it failed."""
    answer = CliRunner().invoke(app, list(map(str, arguments)))
    if answer.exception is not None:
        raise answer.exception
    assert answer.exit_code == 0
    return answer.output


def adopted(weights: Path, config: Path, to: Path) -> LanguageModel:
    adopt(to, read_official(weights, config), corpus=None)
    return checkpoint.load_model(to / "checkpoints" / read_result(to).checkpoint)


def golden() -> dict[str, Tensor]:
    return dict(torch.load(GOLDEN / "pytorch_model.bin", weights_only=True))


def faults_of(weights: object, config: Path, folder: Path) -> str:
    torch.save(weights, folder / "weights.bin")
    with pytest.raises(UserFault) as told:
        read_official(folder / "weights.bin", config)
    return str(told.value)


@pytest.mark.parametrize("prefix", ["", "grown_"])
def test_an_imported_model_gives_the_official_logits(prefix: str, tmp_path: Path) -> None:
    model = adopted(GOLDEN / f"{prefix}pytorch_model.bin", GOLDEN / f"{prefix}config.yml", tmp_path / "stage")
    expected = load_file(GOLDEN / f"{prefix}expected.safetensors")["logits"]
    with torch.inference_mode():
        assert (model.double()(INPUTS) - expected).abs().max() < 1e-5


def test_deepspeeds_files_of_a_layer_each_are_the_same_model(tmp_path: Path) -> None:
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in golden().items():
        _, number, rest = name.split(".", 2)
        layers.setdefault(int(number), {})[rest] = tensor.half()
    layers[2]["attention.rotary_emb.inv_freq"] = torch.tensor([1.0, 0.01]).half()  # a buffer of an older version
    for number, tensors in layers.items():
        torch.save(tensors, tmp_path / f"layer_{number:02d}-model_00-model_states.pt")
    found = read_official(tmp_path, GOLDEN / "config.yml")
    single = read_official(GOLDEN / "pytorch_model.bin", GOLDEN / "config.yml")
    assert found.tensors.keys() == single.tensors.keys()
    assert all(torch.equal(found.tensors[name], single.tensors[name].half()) for name in found.tensors)
    torch.save({}, tmp_path / "layer_02-model_01-model_states.pt")
    with pytest.raises(UserFault, match="split over model-parallel ranks"):
        read_official(tmp_path, GOLDEN / "config.yml")


def test_missing_extra_and_misshaped_tensors_are_all_listed(tmp_path: Path) -> None:
    weights = golden()
    del weights["sequential.3.mlp.value_param_tokens"], weights["sequential.5.norm.bias"]
    weights["sequential.9.attention.query.key_param_tokens"] = torch.zeros(48, 64)
    weights["sequential.6.final_linear.weight"] = torch.zeros(512, 64)
    weights["sequential.2.mlp.key_param_tokens"] = torch.zeros(161, 64)
    weights["sequential.2.attention.proj.value_param_tokens"] = torch.zeros(40, 64, dtype=torch.int64)
    weights["sequential.3.attention.rotary_emb.inv_freq"] = torch.tensor([1.0, 0.5])
    told = faults_of(weights, GOLDEN / "config.yml", tmp_path)
    for fault in (
        "sequential.3.mlp.value_param_tokens is missing",
        "sequential.5.norm.bias is missing",
        "sequential.9.attention.query.key_param_tokens is not a tensor of the model",
        "sequential.6.final_linear.weight is not a tensor of the model",
        "sequential.2.mlp.key_param_tokens has shape (161, 64), but the config requires (160, 64)",
        "sequential.2.attention.proj.value_param_tokens has type torch.int64",
        "inv_freq: the rotary frequencies differ",
    ):
        assert fault in told, told
    assert len(told.splitlines()) == 7


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    told = faults_of({**golden(), "more": Trap()}, GOLDEN / "config.yml", tmp_path)
    assert "cannot be loaded with torch.load(weights_only=True)" in told
    assert not (tmp_path / "sprung").exists()
    assert "must be a state dict that contains only tensors, not iteration" in faults_of(
        {**golden(), "iteration": 3}, GOLDEN / "config.yml", tmp_path
    )
    (tmp_path / "damaged.bin").write_bytes((GOLDEN / "pytorch_model.bin").read_bytes()[:-1000])
    with pytest.raises(UserFault, match=r"damaged\.bin: cannot be loaded"):
        read_official(tmp_path / "damaged.bin", GOLDEN / "config.yml")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("num_layers: 0", "num_layers=0: must be a whole number above 0"),
        ("num_layers: 2000000000", "layers of the config have more"),
        ("qkv_slot_num: many", "qkv_slot_num='many'"),
        ("num_attention_heads: 5", "n_head=5: must divide d_model=64"),
        ("norm: layernorm", "norm='layernorm': must be 'layernorm_nonparam'"),
        ("pos_emb: learned", "pos_emb='learned': must be 'rotary' or 'none'"),
        ("no_weight_tying: true", "no_weight_tying=True: must be False"),
        ("norm_activation_type: silu", "norm_activation_type='silu'"),
        ("attention_config: [[[global, tokenformer], 1]]", "must be 'tokenformer' for every layer"),
        ("rotary-emb-base: 500000", "rotary_emb_base=500000"),
        ("padded_vocab_size: 500", "word_embeddings.weight has shape (512, 64), but the config requires (500, 64)"),
        ("{", "must be a YAML file of the official repository"),
        ("a: !!python/object/apply:os.system [exit]", "must be a YAML file of the official repository"),
    ],
)
def test_an_option_that_the_model_does_not_have_is_named(line: str, fault: str, tmp_path: Path) -> None:
    options = [
        kept for kept in (GOLDEN / "config.yml").read_text().splitlines() if kept.split(":")[0] != line.split(":")[0]
    ]
    (tmp_path / "config.yml").write_text("\n".join([*options, line]))
    with pytest.raises(UserFault) as told:
        read_official(GOLDEN / "pytorch_model.bin", tmp_path / "config.yml")
    assert fault in str(told.value)


def test_the_released_150m_shape_is_taken_over_tensor_by_tensor(tmp_path: Path) -> None:
    """The shape has 12 layers of width 768, 768/768/3072 tokens and 50,304 entries, in half precision and in the
    official file format."""
    values = torch.randn(3072 * 768).half()
    shapes = {"sequential.0.word_embeddings.weight": (50_304, 768), "sequential.15.norm.weight": (768,),
              "sequential.15.norm.bias": (768,)}  # fmt: skip
    for layer in range(2, 14):
        for part, n in (("attention.query", 768), ("attention.key", 768), ("attention.value", 768),
                        ("attention.proj", 768), ("mlp", 3072)):  # fmt: skip
            for kind in ("key", "value"):
                shapes[f"sequential.{layer}.{part}.{kind}_param_tokens"] = (n, 768)
    weights = {
        name: values.roll(number)
        .repeat(-(-torch.Size(shape).numel() // len(values)))[: torch.Size(shape).numel()]
        .view(shape)
        for number, (name, shape) in enumerate(shapes.items())
    }
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "150M.yml").write_text(OFFICIAL_150M)
    found = read_official(tmp_path / "pytorch_model.bin", tmp_path / "150M.yml")
    found = replace(found, totals=cost_of(found.model, 300_000_000_000))
    spec = adopt(tmp_path / "150M", found, corpus=None)
    assert isinstance(spec.model, TokenFormerConfig)
    assert (spec.model.tokens, spec.model.context, spec.model.rotary) == ((768, 768, 3072), 2048, 0.25)
    assert parameters(spec.model) == 151_881_216
    done = read_result(tmp_path / "150M")
    assert done.totals.flops == pytest.approx(300e9 * 3 * 2 * 151.9e6, rel=0.4)
    folder = tmp_path / "150M" / "checkpoints" / done.checkpoint
    checkpoint.verify(folder)
    for ours, theirs in (
        ("embedding", "sequential.0.word_embeddings.weight"),
        ("blocks.11.ffn.values", "sequential.13.mlp.value_param_tokens"),
        ("blocks.3.attention.qkv.key.keys", "sequential.5.attention.key.key_param_tokens"),
    ):
        tensor = torch.empty(shapes[theirs])
        checkpoint.read(folder, {f"model/{ours}": tensor})
        assert torch.equal(tensor, weights[theirs].float()), ours


OFFICIAL_150M = """{
  # written as the official files are: JSON with comments
  "num_layers": 12, "hidden_size": 768, "num_attention_heads": 12,
  "qkv_slot_num": 768, "proj_slot_num": 768, "ffn_slot_num": 3072,
  "seq_length": 2048, "max_position_embeddings": 2048, "pos_emb": "rotary", "rotary_pct": 0.25,
  "no_weight_tying": false, "norm": "layernorm_nonparam", "final_norm": "layernorm", "gpt_j_residual": false,
  "attention_config": [[["tokenformer"], 12]],
  "norm_activation_type": "l2_norm_gelu", # "l2_norm_gelu", "gelu_l2_norm", "softmax"
  "train_iters": 143000, "adlr_autoresume": True,
  "tokenizer-type": "HFTokenizer", "model_parallel_size": 1,
}
"""


def test_an_imported_stage_grows_and_writes_and_says_what_it_cost(small: list[str], tmp_path: Path) -> None:
    plan = make_plan(compose(small))
    data = prepare(plan.corpus.spec, plan.runs / "data")
    stage = tmp_path / "imported"
    official = ("import", GOLDEN / "pytorch_model.bin", "--config", GOLDEN / "config.yml", "--to", stage)
    assert "2.00M tokens" in tfscale(*official, "--data", data.folder, "--tokens", "2M")
    spec = read_spec(stage)
    assert spec.init_from == json.loads((stage / "import.json").read_text())["weights_sha256"]
    with pytest.raises(UserFault, match="must not exist"):
        tfscale(*official)
    grown = tfscale("grow", stage, "--qkv", "96", "--to", tmp_path / "grown", *small, "growth=exact")
    assert "parameters with growth=exact" in grown
    config, counters = checkpoint.read_state(tmp_path / "grown")
    assert isinstance(config, TokenFormerConfig)
    assert config.tokens == (96, 96, 384)
    assert counters.totals == cost_of(spec.model, 2_000_000)
    assert tfscale("generate", stage, "the model", "--tokens", "3").startswith("the model")


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nowhere.bin"], "does not exist"),
        ([GOLDEN / "pytorch_model.bin"], "add --config CONFIG.yml"),
        ([GOLDEN / "pytorch_model.bin", "--config", GOLDEN / "config.yml", "--tokens", "lots"], "--tokens lots"),
        ([GOLDEN / "pytorch_model.bin", "--config", GOLDEN / "config.yml", "--data", GOLDEN], "--data"),
        (
            [GOLDEN / "pytorch_model.bin", "--config", GOLDEN / "config.yml", "--tokenizer", GOLDEN / "config.yml"],
            "--tok",
        ),
        ([GOLDEN, "--config", GOLDEN / "config.yml"], "must be pytorch_model.bin or a folder"),
    ],
)
def test_a_users_fault_leaves_nothing_behind(arguments: list[object], fault: str, tmp_path: Path) -> None:
    with pytest.raises(UserFault) as told:
        tfscale("import", *arguments, "--to", tmp_path / "stage")
    assert fault in str(told.value)
    assert not list(tmp_path.iterdir())
