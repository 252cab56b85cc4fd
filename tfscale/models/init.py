"""Initialisation of model weights. Each tensor has its own random stream, which depends only on the seed and the name
of the tensor. Therefore initial values do not depend on the order of layers, the device or the number of ranks."""

import hashlib

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.language_model import LanguageModel
from tfscale.models.tokenformer import with_first_groups


def stream(seed: int, name: str) -> torch.Generator:
    """Return a new CPU generator whose initial state depends only on `seed` and `name`."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def init_tensor(name: str, shape: tuple[int, ...], config: ModelConfig, seed: int, suffix: str = "") -> Tensor:
    """Return the initial values of a tensor, in float32 on the CPU. `suffix` is appended to the name to select a
    different random stream."""
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith("norm.bias"):
        return torch.zeros(shape)
    return torch.randn(shape, generator=stream(seed, name + suffix)).mul_(config.initial_std(name))


@torch.no_grad()
def init_weights(model: LanguageModel, seed: int) -> None:
    """Initialise all parameters of a model in place."""
    for name, parameter in model.named_parameters():
        parameter.copy_(init_tensor(name, parameter.shape, model.config, seed))


def build_model(config: ModelConfig, seed: int | None = None, device: torch.device | str = "cpu") -> LanguageModel:
    """Return the model described by `config`. If `seed` is None, the weights of the model are uninitialised."""
    with torch.device(device):
        model = LanguageModel(config)
    if seed is not None:
        init_weights(model, seed)
    return model


def first_groups_model(model: LanguageModel, count: int) -> LanguageModel:
    """Return a model with only the first `count` groups of parameter tokens of each layer. The weights of the returned
    model share memory with the weights of `model`. Immediately after a growth by groups without noise, the groups that
    existed before the growth form the parent model."""
    smaller = build_model(with_first_groups(model.config, count), device="meta")
    rows = {name: model.get_parameter(name)[: len(weight)] for name, weight in smaller.named_parameters()}
    smaller.load_state_dict(rows, assign=True)
    return smaller
