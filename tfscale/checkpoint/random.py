"""Functions that read and restore the states of torch's random generators."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tfscale.checkpoint.contents import BrokenCheckpoint


def rng_tensors() -> dict[str, Tensor]:
    """Return the states of torch's random generators as tensors named `rng/cpu` and, on CUDA, `rng/cuda`."""
    states = {"rng/cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["rng/cuda"] = torch.cuda.get_rng_state()
    return states


def set_rng(states: Mapping[str, Tensor]) -> None:
    """Restore the states of random generators that `rng_tensors` returned.

    Raises:
        BrokenCheckpoint: a tensor is missing or is not the state of a generator.
    """
    try:
        torch.set_rng_state(states["rng/cpu"])
        if "rng/cuda" in states:
            torch.cuda.set_rng_state(states["rng/cuda"])
    except (RuntimeError, LookupError) as error:
        raise BrokenCheckpoint(f"rng: {error}") from error
