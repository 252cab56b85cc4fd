"""Tokenizers: a byte-level BPE trained on the corpus, or any Hugging Face `tokenizer.json` from a file or the Hub.

The `tokenizers` library is imported only when a tokenizer is created, because training a model needs only the tokens.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from tfscale.data.errors import DataError
from tfscale.faults import Fault

END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|eot_id|>")
"""Possible names of the end-of-text token, which follows each document. The first name that is in the vocabulary is
used."""

BYTES_ONLY = 257
"""Size of the smallest byte-level vocabulary: 256 bytes and the end-of-text token."""

PIECE_CHARACTERS = 1 << 16
"""Length in characters above which documents are split into pieces, because the tokenizers library needs about 200
bytes of memory per character. A piece ends at the first single space between words after this length, and has at most
twice this length."""
LONGEST_WORD = 1000
"""Maximum length of a word in characters when a tokenizer is trained. Longer words are split into pieces of this
length, because the training time grows with the square of the length of a word."""
FIX_UNKNOWN = "Use a tokenizer that covers the text (data.tokenizer=bpe covers any text), or increase data.max_unknown."
_SPARE_ID = 2**31
"""Token id that no vocabulary uses."""
_WORD_END = re.compile(r"(?<=\S)(?= \S)")
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD}}}(?=\S)")


@dataclass(frozen=True)
class TokenizerSpec:
    """The user's settings for a tokenizer. `kind` is one of the following:

    `bpe`: a byte-level BPE with the word splitting of GPT-2, trained on the training documents. It has `vocab_size`
    tokens, including the end-of-text token and the 256 bytes. With 257 tokens, each byte of the text is a token.
    `file`: a Hugging Face `tokenizer.json` at `path`.
    `hub`: the `tokenizer.json` in the repository `name` on the Hub, or the file at `path` if it exists.

    Raises:
        DataError: `vocab_size` is too small, or another field that the kind requires is not set.
    """

    kind: Literal["bpe", "file", "hub"]
    vocab_size: int = 0
    path: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        reads = ("data.tokenizer",)
        if self.kind == "bpe" and self.vocab_size < BYTES_ONLY:
            rule = f"must be at least {BYTES_ONLY}, for 256 bytes and the end-of-text token"
            raise DataError(Fault("data.vocab_size", self.vocab_size, rule, "4096", reads))
        if self.kind == "file" and not self.path:
            rule = "must be set, because data.tokenizer=file requires a Hugging Face tokenizer.json"
            raise DataError(Fault("data.tokenizer_path", None, rule, "data.tokenizer_path=...", reads))
        if self.kind == "hub" and not self.name:
            rule = "must be set, because data.tokenizer=hub requires a repository"
            raise DataError(Fault("data.tokenizer_name", None, rule, "gpt2 or gpt_neox_20b", reads))

    def identity(self) -> dict[str, str]:
        """Return values that identify the tokenizer, without training it. The kind must be `bpe` or `file`.

        Raises:
            DataError: the file is missing.
        """
        if self.path is None:
            return {"kind": "bpe", "vocab_size": str(self.vocab_size)}
        return {"kind": "file", "sha256": hashlib.sha256(_read(Path(self.path))).hexdigest()}

    def size(self) -> int:
        """Return the size of the vocabulary, without training the tokenizer. The kind must be `bpe` or `file`.

        Raises:
            DataError: the file is missing or not a tokenizer.
        """
        if self.path is None:
            return self.vocab_size
        return load_tokenizer(Path(self.path)).vocab_size


class Tokenizer:
    """A tokenizer that converts text to tokens and back, and has an end-of-text token."""

    def __init__(self, content: bytes, source: str) -> None:
        """Create a tokenizer from the content of a tokenizer.json. Error messages begin with `source`.

        Raises:
            DataError: the content is not a tokenizer or has no end-of-text token.
        """
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._source = source
        import tokenizers

        with _faults_of_the_library(f"{source}: the file is not a Hugging Face tokenizer.json"):
            self._tokenizer = _for_whole_texts(tokenizers.Tokenizer.from_str(content.decode()))
            document = json.loads(content)
            model: dict[str, Any] = document["model"]
            token = model.get("unk_token")
            self._unknown_id: int | None = model.get("unk_id") if token is None else self._tokenizer.token_to_id(token)
            self._counting_copy = _counting_copy(document) if _drops_characters(document) else None
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        named = [name for name in END_OF_TEXT if name in vocabulary]
        if not named:
            names = ", ".join(END_OF_TEXT)
            raise DataError(f"{source}: the tokenizer has no end-of-text token. Add one of {names} to the vocabulary.")
        self.end_of_text = named[0]
        self.end_of_text_id = vocabulary[named[0]]
        self.vocab_size = max(vocabulary.values()) + 1
        """Size of the vocabulary: the largest token id plus one. Smaller ids may be unused."""

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int) -> Self:
        """Train a byte-level BPE of exactly `vocab_size` tokens. The same documents give the same tokenizer.

        Raises:
            DataError: the corpus is too small for this many tokens.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[END_OF_TEXT[0]],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        words = (_LONG_WORD.sub(r"\g<0> ", piece) for document in documents for piece in pieces(document))
        tokenizer.train_from_iterator(words, trainer)
        learned = tokenizer.get_vocab_size()
        if learned != vocab_size:
            raise DataError(
                f"data.vocab_size={vocab_size}: must be at most {learned}, because the corpus is too small for more "
                f"tokens; try more text, or {learned}"
            )
        return cls(tokenizer.to_str(pretty=True).encode(), "trained tokenizer")

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without adding special tokens.

        Raises:
            DataError: the tokenizer cannot encode a text.
        """
        with _faults_of_the_library(f"{self._source}: the tokenizer cannot encode the text"):
            return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def count_unknown(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> int:
        """Return the number of unknown tokens in `rows`, which are the tokens of `texts`. For a tokenizer that drops
        unknown characters, return the number of dropped characters.

        Raises:
            DataError: the tokenizer cannot encode a text.
        """
        with _faults_of_the_library(f"{self._source}: the tokenizer cannot encode the text"):
            if self._counting_copy is not None:
                encodings = self._counting_copy.encode_batch_fast(texts, add_special_tokens=False)
                return sum(list(encoding.ids).count(_SPARE_ID) for encoding in encodings)
            return 0 if self._unknown_id is None else sum(list(ids).count(self._unknown_id) for ids in rows)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that the tokens encode. Special tokens are omitted, and incomplete characters become U+FFFD.

        Raises:
            DataError: the tokenizer cannot decode the tokens.
        """
        with _faults_of_the_library(f"{self._source}: the tokenizer cannot decode the tokens"):
            text: str = self._tokenizer.decode(tokens)
        return text


def unknown_words(unknown: int, tokens: int) -> str:
    """Return a message that states the number and the fraction of unknown tokens."""
    share = f"{unknown:,} of {tokens:,} tokens ({unknown / max(tokens, 1):.2%})"
    return f"the tokenizer has no entry for {share}, so the model does not see this text"


def _for_whole_texts(tokenizer: Any) -> Any:
    """Configure a tokenizer of the `tokenizers` library in place, and return the tokenizer. Truncation and padding are
    disabled, and the names of special tokens in a document are encoded as ordinary text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _drops_characters(document: dict[str, Any]) -> bool:
    """Return True for a BPE tokenizer that drops characters that are not in its vocabulary. Such a tokenizer has no
    unknown token and cannot encode every character as bytes."""
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
    """Return a copy of a tokenizer that encodes each character that the original drops as the token _SPARE_ID."""
    import tokenizers

    model = document["model"]
    name = "unknown"
    while name in model["vocab"]:
        name += "_"
    changed = {**model, "vocab": {**model["vocab"], name: _SPARE_ID}, "unk_token": name, "fuse_unk": False}
    return _for_whole_texts(tokenizers.Tokenizer.from_str(json.dumps({**document, "model": changed})))


@contextmanager
def _faults_of_the_library(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exceptions, and its panics are BaseExceptions
        raise DataError(f"{what}: {error}") from error


def pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces small enough to be tokenized in memory. The text is cut before a single space between
    words, where tokenizers also separate words. If there is no such space between PIECE_CHARACTERS and twice this
    length, the text is cut at twice this length, possibly within a word."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        longest = start + 2 * PIECE_CHARACTERS
        word_end = _WORD_END.search(text, start + PIECE_CHARACTERS, longest)
        stop = word_end.start() if word_end else longest
        yield text[start:stop]
        start = stop
    yield text[start:]


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer from a tokenizer.json file.

    Raises:
        DataError: the file is missing or not a tokenizer.
    """
    return Tokenizer(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. Set the path of a Hugging Face tokenizer.json.") from error
