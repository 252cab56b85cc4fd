"""Tile sizes: the numbers of tokens whose logits or Pattention scores are computed at once. Each token has thousands of
temporary values, so tiles limit the memory. On a CPU, the values of a tile also stay in the caches between
operations."""

TILE_VALUES = {"cpu": 2**21, "cuda": 2**28}
"""Number of values that a tile should not exceed, by device type: as many as fit in the caches of a CPU, or half a GiB
in bf16 on a GPU."""

LOGIT_TOKENS, SCORE_TOKENS, REMADE_SCORE_TOKENS = 512, 1024, 192
"""Numbers of tokens that a tile of logits, of stored scores or of recomputed scores may have even if the tile then has
more than `TILE_VALUES` values. With fewer tokens, reading the weights takes longer than multiplying by the weights.
Tiles of recomputed scores are smaller, because scores are recomputed to save memory."""


def logit_rows(tokens: int, vocab_size: int, device: str) -> int:
    """Return the number of tokens in a tile of logits on a torch device type."""
    return _rows(tokens, vocab_size, device, LOGIT_TOKENS)


def score_rows(tokens: int, n: int, device: str, remade: bool) -> int:
    """Return the number of tokens in a tile of Pattention scores with `n` parameter tokens on a torch device type."""
    return _rows(tokens, n, device, REMADE_SCORE_TOKENS if remade else SCORE_TOKENS)


def _rows(tokens: int, values: int, device: str, least: int) -> int:
    most = max(least, TILE_VALUES.get(device, TILE_VALUES["cuda"]) // values)
    return -(-tokens // -(-tokens // most))  # tiles of nearly equal size
