"""heldout.json: the final validation loss of each block of the validation text, for confidence intervals over
documents.

    {"step": ..., "tokens": [...], "losses": [...]}

The sequences of the evaluation are divided into blocks of consecutive sequences, because the tokens of one document
depend on each other. With B blocks and S sequences, sequence s is in block s * B // S. `losses` contains the sum of the
token losses of each block in nats, and `tokens` the number of tokens of each block.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfscale.files import read_object, write_json

HELDOUT_FILE = "heldout.json"
TOLERANCE = 1e-4
"""Maximum relative difference, due to rounding, between the mean loss over all blocks and the loss of the
evaluation."""


@dataclass(frozen=True, eq=False)
class BlockLosses:
    """Losses of the final evaluation of a stage, separately for each block of the validation text."""

    tokens: NDArray[np.float64]
    """Number of tokens of each block, [blocks]."""
    losses: NDArray[np.float64]
    """Sum of the losses of each block in nats, [blocks]."""


def write_blocks(stage_dir: Path, step: int, tokens: Sequence[int], losses: Sequence[float]) -> None:
    """Write the number of tokens and the summed loss of each block to heldout.json, atomically."""
    write_json(stage_dir / HELDOUT_FILE, {"step": step, "tokens": tokens, "losses": losses})


def read_blocks(stage_dir: Path, step: int, loss: float) -> BlockLosses | None:
    """Return the block losses of a stage, or None if heldout.json does not exist. Raise ValueError if the file cannot
    be read, or if it does not agree with the step and the loss (in nats per token) of the final evaluation."""
    path = stage_dir / HELDOUT_FILE
    if not path.exists():
        return None
    try:
        values = read_object(path)
        blocks = BlockLosses(np.array(values["tokens"], dtype=float), np.array(values["losses"], dtype=float))
        _check(blocks, int(values["step"]), step, loss)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: the file does not match the final evaluation: {error}. Delete the file. Confidence intervals "
            "then do not include the variation between documents."
        ) from error
    return blocks


def _check(blocks: BlockLosses, step: int, expected_step: int, expected_loss: float) -> None:
    if blocks.tokens.ndim != 1 or blocks.tokens.shape != blocks.losses.shape or len(blocks.tokens) < 2:
        raise ValueError("tokens and losses must be lists of the same length, at least 2")
    if not (np.isfinite(blocks.losses).all() and (blocks.tokens > 0).all()):
        raise ValueError("every block must have tokens and a finite loss")
    if step != expected_step:
        raise ValueError(f"the file is from step {step}, but the final evaluation is from step {expected_step}")
    loss = float(blocks.losses.sum() / blocks.tokens.sum())
    if not math.isclose(loss, expected_loss, rel_tol=TOLERANCE):
        raise ValueError(f"the mean loss is {loss}, but the final evaluation has {expected_loss}")
