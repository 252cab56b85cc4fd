"""Evaluation of a model on a fixed set of validation tokens."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tfscale.checkpoint import Ranks
from tfscale.data.batches import heldout_batches
from tfscale.data.prepared import PreparedData
from tfscale.stage.result import FinalEvaluation
from tfscale.training.device import Device
from tfscale.training.parallel import evaluating

BLOCKS = 64
"""Maximum number of blocks into which the validation text is divided. The loss of each block is recorded separately."""


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation on the validation tokens. Every token has the same weight in the loss."""

    figures: FinalEvaluation
    block_tokens: tuple[int, ...]
    """Number of tokens in each block of consecutive sequences (`tfscale.stage.heldout`), [blocks]."""
    block_losses: tuple[float, ...]
    """Sum of the token losses in each block in nats, [blocks]."""


def evaluate(
    objective: nn.Module,
    data: PreparedData,
    tokens: int,
    shape: tuple[int, int],
    device: Device,
    world: Ranks,
    stop: Callable[[], bool],
    start: int = 0,
    lanes: int = 1,
) -> Evaluation | None:
    """Evaluate the loss on `tokens` tokens of the validation split, rounded down to whole sequences, starting at token
    `start`. The batches are distributed over the ranks. This is a collective call.

    Args:
        objective: module that `parallelize` returns. All ranks must call a sharded objective equally often. In the last
            round, ranks without a batch therefore evaluate the last batch again and discard its losses.
        shape: number of sequences in a batch, and number of tokens in a sequence.
        stop: function that is called before each round of batches, and returns True to stop the evaluation.
        lanes: number of batches that each rank evaluates at the same time.

    Returns:
        The evaluation, or None if `stop` returned True on any rank.
    """
    context = shape[1]
    sequences = tokens // context
    rows = min(shape[0], sequences)
    batches = heldout_batches(data.heldout, context, tokens, rows, start)
    block_of = [sequence * min(BLOCKS, sequences) // sequences for sequence in range(sequences)]
    losses = [0.0] * min(BLOCKS, sequences)
    first, at_once = 0, world.size * lanes
    losses_of = partial(_losses, objective, device, rows)
    with evaluating(objective), ThreadPoolExecutor(lanes) as pool:
        each_of = pool.map if lanes > 1 else map
        while group := list(islice(batches, at_once)):
            if world.any(stop())[0]:
                return None
            mine = range(world.rank, len(group), world.size)
            found = list(each_of(losses_of, [group[index] for index in mine] or group[-1:]))
            for index, batch_losses in zip(mine, found, strict=False):
                row = first + index * rows
                for block, loss in zip(block_of[row : row + rows], batch_losses, strict=True):
                    losses[block] += loss
            first += at_once * rows
    losses = world.sum(*losses)
    count = sequences * context
    counts = tuple(block_of.count(block) * context for block in range(len(losses)))
    loss, size = sum(losses) / count, count * data.manifest.heldout.bytes_per_token
    figures = FinalEvaluation(loss, math.exp(loss), loss * count / size / math.log(2), count, size)
    return Evaluation(figures, counts, tuple(losses))


def _losses(objective: nn.Module, device: Device, rows: int, batch: tuple[Tensor, Tensor]) -> list[float]:
    # no_grad and autocast only apply to the current thread.
    with torch.no_grad(), device.autocast():
        count = len(batch[0])
        missing = rows - count if device.compiled else 0  # another shape would need another compilation
        inputs, targets = (F.pad(part, (0, 0, 0, missing)).to(device.kind) for part in batch)
        losses: list[float] = objective(inputs, targets, each=True)[:count].tolist()
        return losses
