"""The models that ours are measured against: the same function, written out for autograd."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfscale.models.config import Groups, ModelConfig, TokenFormerConfig
from tfscale.models.cross_entropy import Reduction
from tfscale.models.init import init_weights
from tfscale.models.language_model import LanguageModel
from tfscale.models.pattention import Pattention, QKVPattention, plain_pattention

Projection = Callable[[Tensor, Tensor, Tensor, Groups], Tensor]
"""From x [..., d_in], keys [n, d_in], values [n, d_out] and the groups to [..., d_out]."""


def official(x: Tensor, keys: Tensor, values: Tensor, groups: Groups) -> Tensor:
    """The official GPU code's order of operations (Haiyang-W/TokenFormer, `megatron/model/transformer.py`), written
    anew: scores times a scale of 1 and a matrix of ones, over their norm, times sqrt(n), GELU, dropout of nothing."""
    [group] = groups
    scale = 1
    ones = torch.ones(*x.shape[:-1], len(keys), dtype=x.dtype, device=x.device)
    scores = x @ keys.T * scale
    scores = scores * ones
    normed = scores / torch.norm(scores, p=2, dim=-1, keepdim=True) * math.sqrt(group.n)
    weights = torch.dropout(F.gelu(normed), 0.0, train=True)
    return weights @ values


def plain(x: Tensor, keys: Tensor, values: Tensor, groups: Groups) -> Tensor:
    """The definition, with autograd's backward pass."""
    return plain_pattention(x, keys, values, groups, "l2_norm_gelu")


class WrittenOut(LanguageModel):
    """A TokenFormer whose projections are the given function, and whose logits are whole."""

    def __init__(self, config: TokenFormerConfig, projection: Projection) -> None:
        super().__init__(config)
        for parent in list(self.modules()):
            for name, child in parent.named_children():
                if isinstance(child, QKVPattention):
                    setattr(parent, name, _Projections(child, projection))
                elif isinstance(child, Pattention):
                    setattr(parent, name, _Projection(child, projection))

    def loss(self, tokens: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """As `LanguageModel.loss`."""
        return F.cross_entropy(self(tokens).flatten(0, 1).float(), targets.flatten(), reduction=reduction)


class _Projection(nn.Module):
    def __init__(self, pattention: Pattention, projection: Projection) -> None:
        super().__init__()
        self.keys, self.values = pattention.keys, pattention.values
        self._groups, self._projection = pattention.groups, projection

    def forward(self, x: Tensor) -> Tensor:
        return self._projection(x, self.keys, self.values, self._groups)


class _Projections(nn.Module):
    def __init__(self, qkv: QKVPattention, projection: Projection) -> None:
        super().__init__()
        self.query, self.key, self.value = (_Projection(part, projection) for part in (qkv.query, qkv.key, qkv.value))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.query(x), self.key(x), self.value(x)], dim=-2)


def written_out(config: ModelConfig, projection: Projection, device: str) -> WrittenOut:
    """Such a model with its first weights, which are those of ours.

    Raises:
        AssertionError: the config is no TokenFormer's.
    """
    assert isinstance(config, TokenFormerConfig)
    with torch.device(device):
        model = WrittenOut(config, projection)
    init_weights(model, seed=0)
    return model
