"""Tests of our models against stored values of the official code (tests/golden/official_tiny)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tfscale.interop.official import official_name
from tfscale.models.init import build_model
from tfscale.models.language_model import LanguageModel
from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig

GOLDEN = Path(__file__).parent / "golden" / "official_tiny"
LIMIT = 1e-5


def official_model(prefix: str, tokens: tuple[int, int, int]) -> LanguageModel:
    qkv, out, ffn = ((TokenGroup(n, default_tau("l2_norm_gelu", n)),) for n in tokens)
    config = TokenFormerConfig(n_layer=2, d_model=64, n_head=4, vocab_size=512, context=64, qkv=qkv, out=out, ffn=ffn)
    model = build_model(config).double()
    official = torch.load(GOLDEN / f"{prefix}pytorch_model.bin", weights_only=True)
    names = official_names(model)
    model.load_state_dict({names[name]: tensor.double() for name, tensor in official.items()})
    return model


def official_names(model: LanguageModel) -> dict[str, str]:
    """Return the names of the model's weights, by their names in the official code."""
    return {official_name(name, model.config): name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(("prefix", "tokens"), [("", (48, 40, 160)), ("grown_", (112, 104, 448))])
def test_logits_are_the_official_ones(prefix: str, tokens: tuple[int, int, int]) -> None:
    inputs = load_file(GOLDEN / "expected.safetensors")["input_ids"].long()
    expected = load_file(GOLDEN / f"{prefix}expected.safetensors")["logits"]
    assert (official_model(prefix, tokens)(inputs) - expected).abs().max() < LIMIT


def test_loss_and_every_gradient_are_the_official_ones() -> None:
    expected = load_file(GOLDEN / "expected.safetensors")
    model = official_model("", (48, 40, 160))
    loss = model.loss(expected["input_ids"].long(), expected["targets"].long())
    assert abs(loss.item() - expected["loss"].item()) < LIMIT
    loss.backward()
    names = official_names(model)
    gradients = {names[name[5:]]: tensor for name, tensor in expected.items() if name.startswith("grad.")}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - gradients[name]).abs().max() < LIMIT, name
