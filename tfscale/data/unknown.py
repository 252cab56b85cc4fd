"""Counter of the text for which a tokenizer has no token. Tokenizers replace this text by the unknown token or drop
it."""

import json
from collections.abc import Sequence
from typing import Any

FIX = "Use a tokenizer that covers the text (data.tokenizer=bpe covers any text), or increase data.max_unknown."
_SPARE_ID = 2**31
"""Token id that no vocabulary uses."""


class Unknown:
    """Counter of the unknown tokens, or of the dropped characters, of a tokenizer of the `tokenizers` library."""

    def __init__(self, content: bytes, tokenizer: Any) -> None:
        """Create a counter for a tokenizer, given the content of its tokenizer.json."""
        document = json.loads(content)
        model: dict[str, Any] = document["model"]
        token = model.get("unk_token")
        self._id: int | None = model.get("unk_id") if token is None else tokenizer.token_to_id(token)
        self._counting_copy = _counting_copy(document) if _drops_characters(document) else None

    def count(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> int:
        """Return the number of unknown tokens or dropped characters (`Tokenizer.count_unknown`)."""
        if self._counting_copy is not None:
            encodings = self._counting_copy.encode_batch_fast(texts, add_special_tokens=False)
            return sum(list(encoding.ids).count(_SPARE_ID) for encoding in encodings)
        return 0 if self._id is None else sum(list(ids).count(self._id) for ids in rows)


def unknown_words(unknown: int, tokens: int) -> str:
    """Return a message that states the number and the fraction of unknown tokens."""
    share = f"{unknown:,} of {tokens:,} tokens ({unknown / max(tokens, 1):.2%})"
    return f"the tokenizer has no entry for {share}, so the model does not see this text"


def _drops_characters(document: dict[str, Any]) -> bool:
    """Return True for a BPE that drops unknown characters. It has no unknown token and does not fall back to bytes."""
    from tokenizers import pre_tokenizers

    model = document["model"]
    if "merges" not in model or model.get("unk_token") is not None:
        return False
    vocabulary = model["vocab"]
    if model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return False
    steps = json.dumps([document.get("normalizer"), document.get("pre_tokenizer")])
    return '"ByteLevel"' not in steps or not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet())


def _counting_copy(document: dict[str, Any]) -> Any:
    """Return a copy of a tokenizer with an additional unknown token, which replaces each character that the original
    drops."""
    from tokenizers import Tokenizer

    model = document["model"]
    name = "unknown"
    while name in model["vocab"]:
        name += "_"
    changed = {**model, "vocab": {**model["vocab"], name: _SPARE_ID}, "unk_token": name, "fuse_unk": False}
    twin = Tokenizer.from_str(json.dumps({**document, "model": changed}))
    twin.no_truncation()
    twin.no_padding()
    twin.encode_special_tokens = True
    return twin
