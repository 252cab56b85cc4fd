"""Sizes of tiles, which are numbers of tokens computed at once where each has thousands of temporary values.

Tiles bound the memory, and on a CPU their values stay in the caches from one pass to the next.
"""

TILE_VALUES = {"cpu": 2**21, "cuda": 2**28}
"""Maximum number of values in a tile by device type: about as many as a CPU's caches hold, or half a GiB in bf16 on a
GPU."""

LOGIT_TOKENS, SCORE_TOKENS, REMADE_SCORE_TOKENS = 512, 1024, 192
"""Minimum numbers of tokens in a tile; with fewer, reading the weights takes longer than multiplying with them. Scores
are recomputed where memory is short, so their tiles are smaller."""


def logit_rows(tokens: int, vocab_size: int, device: str) -> int:
    """Return the number of tokens whose logits are computed at once on a torch device type."""
    return _rows(tokens, vocab_size, device, LOGIT_TOKENS)


def score_rows(tokens: int, n: int, device: str, remade: bool) -> int:
    """Return the number of tokens whose scores with n parameter tokens are computed at once on a torch device type."""
    return _rows(tokens, n, device, REMADE_SCORE_TOKENS if remade else SCORE_TOKENS)


def _rows(tokens: int, values: int, device: str, least: int) -> int:
    most = max(least, TILE_VALUES.get(device, TILE_VALUES["cuda"]) // values)
    return -(-tokens // -(-tokens // most))  # tiles of nearly equal size
