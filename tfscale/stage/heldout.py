"""heldout.json: the final validation loss by blocks of the text, for confidence intervals over its documents.

Training writes it together with the final evaluation; stages of older versions have none:

    {"step": ..., "tokens": [...], "losses": [...]}

The evaluation's sequences are divided, in their order, into blocks of neighbours: with B blocks over S sequences,
sequence s is in block s * B // S. `losses` holds each block's sum of losses in nats, and `tokens` its number of tokens;
their totals are those of the final evaluation. Blocks consist of neighbours because the tokens of one document depend
on each other.
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
"""Largest relative difference between the sum over blocks and the evaluation, whose summation orders differ."""


@dataclass(frozen=True, eq=False)
class BlockLosses:
    """Final evaluation of a stage by blocks of the validation text."""

    tokens: NDArray[np.float64]
    """Number of tokens, [blocks]."""
    losses: NDArray[np.float64]
    """Sum of the losses in nats, [blocks]."""


def write_blocks(stage_dir: Path, step: int, tokens: Sequence[int], losses: Sequence[float]) -> None:
    """Write heldout.json, atomically."""
    write_json(stage_dir / HELDOUT_FILE, {"step": step, "tokens": tokens, "losses": losses})


def read_blocks(stage_dir: Path, step: int, loss: float) -> BlockLosses | None:
    """Return the blocks of the evaluation with which a stage finished; None if training wrote none.

    Args:
        step: step of that evaluation.
        loss: loss of that evaluation, in nats per token.

    Raises:
        ValueError: the file cannot be read, or does not belong to that evaluation.
    """
    path = stage_dir / HELDOUT_FILE
    if not path.exists():
        return None
    try:
        values = read_object(path)
        blocks = BlockLosses(np.array(values["tokens"], dtype=float), np.array(values["losses"], dtype=float))
        _check(blocks, int(values["step"]), step, loss)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read as the blocks of the final evaluation: {error}. It is written whole when a stage "
            "ends; delete it, and intervals leave the documents out."
        ) from error
    return blocks


def _check(blocks: BlockLosses, step: int, expected_step: int, expected_loss: float) -> None:
    if blocks.tokens.ndim != 1 or blocks.tokens.shape != blocks.losses.shape or len(blocks.tokens) < 2:
        raise ValueError("tokens and losses must be two lists of one length, two at least")
    if not (np.isfinite(blocks.losses).all() and (blocks.tokens > 0).all()):
        raise ValueError("every block needs tokens and a finite loss")
    if step != expected_step:
        raise ValueError(f"it is of step {step}, but the final evaluation is of step {expected_step}")
    loss = float(blocks.losses.sum() / blocks.tokens.sum())
    if not math.isclose(loss, expected_loss, rel_tol=TOLERANCE):
        raise ValueError(f"its mean loss is {loss}, but that of the final evaluation is {expected_loss}")
