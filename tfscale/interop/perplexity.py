"""Functions that read texts for evaluation, and functions that measure the loss of a model on a text in sliding
windows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tfscale.data.errors import DataError
from tfscale.data.listing import left_out_words
from tfscale.data.prepared import open_data
from tfscale.data.text import TextSource
from tfscale.data.tokenizer import FIX_UNKNOWN, Tokenizer, pieces, unknown_words
from tfscale.faults import UserFault
from tfscale.interop.finished import FinishedStage
from tfscale.models.language_model import LanguageModel

_LOGITS = 2**26
"""Maximum number of logits in memory at the same time."""


@dataclass(frozen=True)
class EncodedText:
    """Tokens of a text file or of a folder of text files. The path is read in the same way as `data.path`."""

    path: Path
    sha256: str
    """SHA-256 hash of the names and contents of all files together."""
    tokens: NDArray[np.uint32]
    """Tokens of the documents in sequence, with an end-of-text token after each document and one before the first."""
    bytes: int
    """Number of UTF-8 bytes of the text. The end of a document counts as one byte."""
    unknown: int
    """Number of unknown tokens (`Tokenizer.count_unknown`)."""
    left_out: str
    """Summary of the skipped files of the folder, or an empty string."""

    @property
    def notes(self) -> Iterator[str]:
        """Notes for the user on skipped files and on unknown tokens."""
        if self.left_out:
            yield f"--text {self.path}: {self.left_out}"
        if self.unknown:
            yield f"--text {self.path}: {unknown_words(self.unknown, len(self.tokens) - 1)}"


def encode_text(path: Path, tokenizer: Tokenizer, max_unknown: float) -> EncodedText:
    """Read a text file or a folder of text files, and return its text as tokens.

    Args:
        max_unknown: maximum fraction of unknown tokens (`Tokenizer.count_unknown`).

    Raises:
        UserFault: there is no text, a file cannot be read as text, or the fraction of unknown tokens exceeds
            `max_unknown`.
    """
    source = TextSource(path)
    try:
        if faults := source.missing():
            raise UserFault([f"--text {fault}" for fault in faults])
        text = _encode(source, tokenizer)
    except DataError as error:
        raise UserFault(f"--text {fault}" for fault in error.faults) from error
    tokens = len(text.tokens) - 1
    if text.unknown > max_unknown * tokens:
        words = unknown_words(text.unknown, tokens)
        raise UserFault([f"--text {path}: data.max_unknown={max_unknown}: {words}. {FIX_UNKNOWN}"])
    return text


def _encode(source: TextSource, tokenizer: Tokenizer) -> EncodedText:
    rows, size, unknown, empty = [[tokenizer.end_of_text_id]], 0, 0, True
    for document in chain.from_iterable(part.documents() for part in source.parts()):
        texts = list(pieces(document))
        encoded = tokenizer.encode_batch(texts)
        unknown += tokenizer.count_unknown(texts, encoded)
        rows += [*encoded, [tokenizer.end_of_text_id]]
        size += len(document.encode()) + 1
        empty = empty and not document.strip()
    if empty:
        raise DataError(f"{source.path}: contains no text. Choose a text that is not empty.")
    tokens = np.fromiter(chain.from_iterable(rows), np.uint32)
    words = left_out_words(source.listing())
    return EncodedText(source.path, source.identity()["sha256"], tokens, size, unknown, words)


@dataclass(frozen=True)
class Score:
    """Loss of a model on a text, averaged over all predicted tokens."""

    loss: float
    """Mean loss in nats per token."""
    tokens: int
    """Number of predicted tokens. The end of a document counts as one token."""
    bytes: float
    """Number of UTF-8 bytes that the predicted tokens encode. The end of a document counts as one byte. For validation
    tokens, the number is estimated from the average number of bytes per token of the validation split."""
    context: int
    """Number of tokens per window."""
    stride: int
    """Number of tokens by which each window is shifted from the previous window. In each window after the first, only
    the losses of the last `stride` tokens count (fewer in the last window), so that the model sees at least context -
    stride tokens before each of these tokens."""

    @property
    def perplexity(self) -> float:
        """Perplexity per token."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Loss in bits per UTF-8 byte of the text. This loss is comparable between models with different tokenizers."""
        return self.loss * self.tokens / self.bytes / math.log(2)


def score_heldout(stage: FinishedStage, model: LanguageModel, stride: int) -> Score:
    """Measure the loss of `model` on the validation tokens that are used for evaluations during the training of the
    stage.

    Raises:
        UserFault: the corpus of the stage is missing.
    """
    try:
        data = open_data(stage.data, stage.spec.data.fingerprint)
    except ValueError as error:
        raise UserFault([f"{error} Alternatively, use --text FILE."]) from error
    context, start = model.config.context, stage.spec.data.heldout_start
    count = stage.spec.data.heldout_tokens // context * context
    loss = total_loss(model, data.heldout[start : start + count + 1], stride)
    return Score(loss / count, count, count * data.manifest.heldout.bytes_per_token, context, stride)


def score_text(text: EncodedText, model: LanguageModel, stride: int) -> Score:
    """Measure the loss of a model on a text."""
    count = len(text.tokens) - 1
    return Score(total_loss(model, text.tokens, stride) / count, count, text.bytes, model.config.context, stride)


@torch.inference_mode()
def total_loss(model: LanguageModel, tokens: NDArray[np.integer], stride: int) -> float:
    """Return the total loss in nats of all tokens after the first. Each token is predicted in the first window that
    contains it."""
    context, device = model.config.context, model.embedding.device
    together = max(1, _LOGITS // (context * model.config.vocab_size))
    total = 0.0
    for (length, counted), alike in groupby(_windows(len(tokens) - 1, context, stride), key=itemgetter(1, 2)):
        begins = [begin for begin, _, _ in alike]
        for first in range(0, len(begins), together):
            rows = np.stack([tokens[begin : begin + length + 1] for begin in begins[first : first + together]])
            inputs = torch.from_numpy(rows.astype(np.int64)).to(device)
            hidden = model.hidden(inputs[:, :-1])[:, -counted:]
            logits = (hidden @ model.embedding.T).float()
            losses = F.cross_entropy(logits.flatten(0, 1), inputs[:, -counted:].flatten(), reduction="sum")
            total += losses.double().item()
    return total


def _windows(count: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield three numbers for each window: the position of its first input, the number of its inputs, and the number of
    targets at its end whose losses count."""
    done = 0
    while done < count:
        end = min(count, context if done == 0 else done + stride)
        begin = max(0, end - context)
        yield begin, end - begin, end - done
        done = end
