"""Initialisation. Each tensor has a random stream of its own, named by (seed, tensor name), so that a tensor's
values depend on nothing else: not on the order of layers, the device, or how many ranks build the model."""

import hashlib

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig
from tfscale.models.language_model import LanguageModel


def stream(seed: int, name: str) -> torch.Generator:
    """A CPU generator that is a pure function of (seed, name)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def init_tensor(name: str, shape: tuple[int, ...], config: ModelConfig, seed: int, part: str = "") -> Tensor:
    """First values of the tensor called `name`, float32 on the CPU; `part` names a stream of its own for rows that
    come later."""
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith("norm.bias"):
        return torch.zeros(shape)
    return torch.randn(shape, generator=stream(seed, name + part)).mul_(config.init_std(name))


@torch.no_grad()
def init_weights(model: LanguageModel, seed: int) -> None:
    """Fills every parameter of a model built by `build_model`."""
    for name, parameter in model.named_parameters():
        parameter.copy_(init_tensor(name, parameter.shape, model.config, seed))


def build_model(config: ModelConfig, seed: int | None = None, device: torch.device | str = "cpu") -> LanguageModel:
    """The model of a config; with a seed its weights are initialised, without one they are whatever memory held
    (to be loaded), and on the meta device they hold nothing."""
    with torch.device(device):
        model = LanguageModel(config)
    if seed is not None:
        init_weights(model, seed)
    return model
