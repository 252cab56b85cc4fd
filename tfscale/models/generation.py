"""Text generation by sampling one token at a time from a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tfscale.faults import Fault, InvalidInput
from tfscale.models.cache import Cache
from tfscale.models.language_model import LanguageModel


@dataclass(frozen=True)
class Sampling:
    """Sampling settings for the next token."""

    temperature: float = 0.8
    """Sampling temperature. With 0, the most likely token is always chosen."""
    top_k: int = 0
    """Number of most likely tokens to sample from, or 0 to sample from all tokens."""
    top_p: float = 1.0
    """Cumulative probability of the most likely tokens to sample from, or 1 to sample from all tokens."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InvalidInput(Fault("temperature", self.temperature, "must be finite and at least 0"))
        if self.top_k < 0:
            raise InvalidInput(Fault("top_k", self.top_k, "must be at least 0"))
        if not 0 < self.top_p <= 1:
            raise InvalidInput(Fault("top_p", self.top_p, "must be above 0 and at most 1"))


class Reader:
    """Reader that computes the logits of the next token of a text to which tokens are appended. If new tokens do not
    fit in the context window, only the last tokens of the text are kept and are read again with a new cache. Their
    number is half of the context length or, if larger, the number of new tokens, but at most the context length."""

    def __init__(self, model: LanguageModel) -> None:
        self._model, self._cache = model, Cache(model.config)
        self.window: list[int] = []
        """Token ids in the model's current context window."""

    @torch.inference_mode()
    def read(self, tokens: Sequence[int]) -> Tensor:
        """Append `tokens` to the text, and return the logits [vocab_size] of the next token."""
        context = self._model.config.context
        new = list(tokens)
        self.window += new
        if len(self.window) > context:
            self.window = new = self.window[-min(context, max(len(new), context // 2)) :]
            self._cache = Cache(self._model.config)
        inputs = torch.tensor([new], device=self._model.embedding.device)
        hidden = self._model.hidden(inputs, self._cache)[0, -1]
        return hidden @ self._model.embedding.T


def generate(model: LanguageModel, tokens: Sequence[int], count: int, sampling: Sampling) -> Iterator[int]:
    """Yield the ids of `count` tokens, sampled one by one as the continuation of the token ids `tokens`, which must not
    be empty. The result depends only on the arguments, including the seed."""
    random = torch.Generator().manual_seed(sampling.seed)
    reader = Reader(model)
    new: Sequence[int] = tokens
    for _ in range(count):
        token = draw(reader.read(new).float().cpu(), sampling, random)
        new = [token]
        yield token


def draw(logits: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """Return the id of a token that is sampled, with the given settings, from the distribution that the logits
    [vocab_size] define."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    if sampling.top_k:
        threshold = logits.topk(min(sampling.top_k, len(logits))).values[-1]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    # At a very low temperature, logits would overflow; differences to the largest logit may safely become -inf.
    distances = (logits - logits.max()) / max(sampling.temperature, torch.finfo(logits.dtype).tiny)
    probabilities = torch.softmax(distances, dim=-1)
    if sampling.top_p < 1:
        ordered, tokens = probabilities.sort(descending=True)
        reached = ordered.cumsum(-1) - ordered >= sampling.top_p  # excludes the token itself, so at least one remains
        probabilities[tokens[reached]] = 0.0
    return int(torch.multinomial(probabilities, 1, generator=random))
