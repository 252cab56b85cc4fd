"""Initialisation. Each tensor has a random stream of its own, named by (seed, tensor name), so that a tensor's
values depend on nothing else: not on the order of layers, the device, or how many ranks build the model."""

import hashlib
import math

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig, TokenFormerConfig
from tfscale.models.language_model import LanguageModel


def stream(seed: int, name: str) -> torch.Generator:
    """A CPU generator that is a pure function of (seed, name)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def std_of(name: str, config: ModelConfig) -> float:
    """Standard deviation of a weight's first values.

    `official`, TokenFormer: 0.02 for embeddings and keys (`init_method: normal`), 2 / n_layer / sqrt(d) for values
    (`output_layer_init_method: wang_init`), as in the official GPU configs. Transformer: sqrt(2 / 5d) for embeddings
    and inputs (`small_init`, which is 0.02 at d = 1000 and follows the width), and `wang_init` for what writes into
    the residual stream, as in the Pythia configs.

    `scaled`, for shapes far from those: keys follow the width (0.02 at d = 768, more in narrower models, where 0.02 is
    little against the learning rates that they take), and what `wang_init` draws is 1 / sqrt(2 n_layer d) (GPT-2's
    scale for the residual stream), which is less in models of few layers.
    """
    scaled = config.init == "scaled"
    wang = (1 / math.sqrt(2 * config.n_layer) if scaled else 2 / config.n_layer) / math.sqrt(config.d_model)
    if isinstance(config, TokenFormerConfig):
        if name.endswith(".keys") and scaled:
            return 0.02 * math.sqrt(768 / config.d_model)
        return wang if name.endswith(".values") else 0.02
    return wang if name.endswith(("output.weight", "down.weight")) else math.sqrt(2 / (5 * config.d_model))


def init_tensor(name: str, shape: tuple[int, ...], config: ModelConfig, seed: int, part: str = "") -> Tensor:
    """First values of the tensor called `name`, float32 on the CPU; `part` names a stream of its own for rows that
    come later."""
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith("norm.bias"):
        return torch.zeros(shape)
    return torch.randn(shape, generator=stream(seed, name + part)).mul_(std_of(name, config))


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
