"""Tests of counts from the config against counts from the module."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tfscale.models.config import ModelConfig
from tfscale.models.counts import flops, memory, parameters
from tfscale.models.execution import Execution
from tfscale.models.init import build_model
from tfscale.models.parameter_tokens import TokenGroup, default_tau
from tfscale.models.tokenformer import TokenFormerConfig
from tfscale.models.transformer import TransformerConfig


def tokenformer(n_layer: int, d: int, heads: int, vocab: int, context: int, n: int) -> TokenFormerConfig:
    def group(count: int) -> tuple[TokenGroup, ...]:
        return (TokenGroup(count, default_tau("l2_norm_gelu", count)),)

    return TokenFormerConfig(n_layer, d, heads, vocab, context, group(n), group(n), group(4 * n))


CONFIGS: list[ModelConfig] = [
    tokenformer(2, 64, 4, 512, 64, 48),
    TokenFormerConfig(
        3, 32, 2, 100, 32, (TokenGroup(9, 3.0), TokenGroup(7, 2.0)), (TokenGroup(5, 2.0),), (TokenGroup(40, 6.0),)
    ),
    TransformerConfig(3, 64, 4, 512, 64, 256),
    tokenformer(12, 768, 12, 50304, 1024, 576),
    TransformerConfig(24, 1024, 16, 50304, 1024, 4096),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_are_the_modules_own(config: ModelConfig) -> None:
    assert sum(p.numel() for p in build_model(config, device="meta").parameters()) == parameters(config)


@pytest.mark.parametrize(("n", "millions"), [(576, 123.6), (2140, 354.2), (4850, 753.8), (8620, 1309.7)])
def test_the_papers_sizes(n: int, millions: float) -> None:
    assert round(parameters(tokenformer(12, 768, 12, 50304, 1024, n)) / 1e6, 1) == millions


@pytest.mark.parametrize("config", CONFIGS)
def test_flops_are_those_of_the_flop_counter(config: ModelConfig) -> None:
    model = build_model(config, device="meta")
    tokens = torch.zeros(2, config.context, dtype=torch.long, device="meta")
    expected, count = flops(config), tokens.numel()
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.loss(tokens, tokens)
    # The counter sees only matrix products; the norm of Pattention is element-wise and counted separately.
    assert forward.get_total_flops() == count * (expected.forward - expected.norm)
    with FlopCounterMode(display=False) as training:
        model.loss(tokens, tokens).backward()
    assert training.get_total_flops() == count * (expected.training - 3 * expected.norm)


def test_the_norm_of_pattention_is_counted() -> None:
    config = tokenformer(2, 64, 4, 512, 64, 48)
    assert flops(config).norm == 2 * 3 * (3 * 48 + 48 + 192)  # layers, operations per score, scores
    assert flops(TransformerConfig(2, 64, 4, 512, 64, 256)).norm == 0


@pytest.mark.parametrize("execution", [Execution(8), Execution(8, 2), Execution(8, recompute="pattention")])
@pytest.mark.parametrize("config", CONFIGS[:3])
def test_activation_memory_is_what_autograd_keeps(config: ModelConfig, execution: Execution) -> None:
    model, kept = build_model(config, seed=0), {}
    model.recompute = execution.recompute
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    tokens = torch.zeros(8, config.context, dtype=torch.long)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # keep the tensor alive, so that no address is reused
        return tensor

    low = torch.autocast("cpu", torch.bfloat16, enabled=execution.activation_bytes == 2)
    with low, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.hidden(tokens)
    measured = sum(size for size, _ in kept.values())
    assert memory(config, execution).activations == pytest.approx(measured, rel=0.1)
