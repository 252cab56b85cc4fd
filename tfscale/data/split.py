"""Which documents are held out: a draw that depends on nothing but the seed and the document's text."""

import hashlib
import math


def draw(seed: int, digest: bytes) -> int:
    """A number below 2^64, by a document's SHA-256. Held out are the documents that draw less than `limit`."""
    return int.from_bytes(hashlib.sha256(f"{seed}:".encode() + digest).digest()[:8], "big")


def limit(heldout_fraction: float) -> int:
    """So that about this fraction of all documents is held out. The documents of a smaller fraction are among those
    of a larger."""
    return math.ceil(heldout_fraction * 2**64)
