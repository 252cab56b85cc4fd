"""Count the text that a tokenizer has no entry for, which becomes the unknown token or is dropped."""

import json
from collections.abc import Sequence
from typing import Any

FIX = "Take a tokenizer that knows the text (data.tokenizer=bpe knows every text), or raise data.max_unknown."
_SPARE_ID = 2**31
"""An id that no vocabulary has."""


class Unknown:
    """Counts the text that a tokenizer of the `tokenizers` library loses."""

    def __init__(self, content: bytes, tokenizer: Any) -> None:
        """Prepare for a tokenizer with this content of its tokenizer.json."""
        document = json.loads(content)
        model: dict[str, Any] = document["model"]
        token = model.get("unk_token")
        self._id: int | None = model.get("unk_id") if token is None else tokenizer.token_to_id(token)
        self._twin = _twin(document) if _drops_characters(document) else None

    def count(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> int:
        """Count the unknown tokens in the `rows` of tokens that the `texts` were encoded to; for a tokenizer that has
        no such token, the characters of the texts that it drops."""
        if self._twin is not None:
            encodings = self._twin.encode_batch_fast(texts, add_special_tokens=False)
            return sum(list(encoding.ids).count(_SPARE_ID) for encoding in encodings)
        return 0 if self._id is None else sum(list(ids).count(self._id) for ids in rows)


def unknown_words(unknown: int, tokens: int) -> str:
    """Return a sentence about a share of unknown tokens."""
    share = f"{unknown:,} of {tokens:,} tokens ({unknown / max(tokens, 1):.2%})"
    return f"the tokenizer has no entry for {share}: that text is lost to the model"


def _drops_characters(document: dict[str, Any]) -> bool:
    """Return True for a BPE that drops unknown characters: it has no unknown token, and its alphabet is not bytes."""
    from tokenizers import pre_tokenizers

    model = document["model"]
    if "merges" not in model or model.get("unk_token") is not None:
        return False
    vocabulary = model["vocab"]
    if model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        return False
    steps = json.dumps([document.get("normalizer"), document.get("pre_tokenizer")])
    return '"ByteLevel"' not in steps or not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet())


def _twin(document: dict[str, Any]) -> Any:
    """Make a tokenizer that gives a token of its own to each character that the other one drops."""
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
