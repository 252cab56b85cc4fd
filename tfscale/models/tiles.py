"""How many tokens are worked on at once where each has thousands of values that are soon dropped: a tile.

Memory is then bounded, and on a CPU the values stay in the caches between one pass over them and the next.
"""

TILE_VALUES = {"cpu": 2**21, "cuda": 2**28}
"""Values of a tile: about what a CPU's caches hold; on a GPU half a GiB in bf16."""

LOGIT_TOKENS, SCORE_TOKENS, REMADE_SCORE_TOKENS = 512, 1024, 192
"""Tokens of a tile at least: with fewer, reading the weights takes longer than multiplying with them. Scores are made
again where memory is short, so their tiles are smaller."""


def logit_rows(tokens: int, vocab_size: int, device: str) -> int:
    """Tokens whose logits are made at once, on a torch device type."""
    return _rows(tokens, vocab_size, device, LOGIT_TOKENS)


def score_rows(tokens: int, n: int, device: str, remade: bool) -> int:
    """Tokens whose scores with a layer's n parameter tokens are worked on at once, on a torch device type."""
    return _rows(tokens, n, device, REMADE_SCORE_TOKENS if remade else SCORE_TOKENS)


def _rows(tokens: int, values: int, device: str, least: int) -> int:
    most = max(least, TILE_VALUES.get(device, TILE_VALUES["cuda"]) // values)
    return -(-tokens // -(-tokens // most))  # all tiles nearly equal
