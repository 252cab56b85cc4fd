"""Sizes of tiles. A tile consists of the tokens whose logits or Pattention scores are computed at once. Each token has
thousands of temporary values, so tiles limit the memory. On a CPU, the values of a tile also stay in the caches between
operations."""

TILE_VALUES = {"cpu": 2**21, "cuda": 2**28}
"""Maximum number of values in a tile, by device type. Tiles with few tokens may exceed this maximum (see
`LOGIT_TOKENS`). On a CPU, this number of values fits in the caches. On a GPU, it takes half a GiB in bf16."""

LOGIT_TOKENS, SCORE_TOKENS, REMADE_SCORE_TOKENS = 512, 1024, 192
"""Numbers of tokens that a tile of logits, of stored scores and of recomputed scores may always have, even if it then
has more than `TILE_VALUES` values. With fewer tokens, reading the weights takes longer than multiplying by the weights.
Tiles of recomputed scores are smaller, because scores are recomputed to save memory."""


def logit_rows(tokens: int, vocab_size: int, device: str) -> int:
    """Return the number of tokens per tile if the logits of `tokens` tokens are computed in tiles. `device` is a torch
    device type."""
    return _rows(tokens, vocab_size, device, LOGIT_TOKENS)


def score_rows(tokens: int, n: int, device: str, remade: bool) -> int:
    """Return the number of tokens per tile if the Pattention scores of `tokens` tokens are computed in tiles.

    Args:
        n: number of scores per token, which is the number of parameter tokens of all projections together.
        device: torch device type.
        remade: True if the backward pass recomputes the scores.
    """
    return _rows(tokens, n, device, REMADE_SCORE_TOKENS if remade else SCORE_TOKENS)


def _rows(tokens: int, values: int, device: str, least: int) -> int:
    most = max(least, TILE_VALUES.get(device, TILE_VALUES["cuda"]) // values)
    return -(-tokens // -(-tokens // most))  # tiles of nearly equal size
