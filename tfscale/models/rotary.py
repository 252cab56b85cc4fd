"""Rotary positions: dimensions of queries and keys that turn with the position."""

from typing import NamedTuple

import torch
from torch import Tensor

from tfscale.models.config import ModelConfig, rotary_dims

ROTARY_BASE = 10_000.0


class Rotation(NamedTuple):
    """What `rotate` multiplies the first r dimensions of a head with, and their swapped halves, at some positions."""

    cos: Tensor
    """[time, 1, r]."""
    sin: Tensor
    """[time, 1, r], negative in the first half."""


def rotary_table(
    config: ModelConfig, time: int, device: torch.device, dtype: torch.dtype, start: int = 0
) -> Rotation | None:
    """The rotation of `time` positions from `start` on; None where nothing rotates.

    Inverse frequencies are 10000^(-2j/r) over the r rotating dimensions (the official GPU configs' `rotary_pct`).
    """
    r = rotary_dims(config)
    if r == 0:
        return None
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    frequency = ROTARY_BASE ** (-torch.arange(0, r, 2, device=device, dtype=wide) / r)
    angles = torch.outer(torch.arange(start, start + time, device=device, dtype=wide), frequency)[:, None]
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    return Rotation(torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turns the two halves of the first r dimensions of x [..., time, n_head, head_dim] against each other."""
    cos, sin = rotation
    r = cos.shape[-1]
    turning, still = x.split([r, x.shape[-1] - r], dim=-1)
    a, b = turning.chunk(2, dim=-1)
    return torch.cat([torch.addcmul(turning * cos, torch.cat([b, a], -1), sin), still], dim=-1)
