"""The corpus of an experiment: what its settings mean for the data room."""

from dataclasses import dataclass
from pathlib import Path

from tfscale.config.compose import runs_dir
from tfscale.config.schema import Experiment
from tfscale.data.errors import DataError
from tfscale.data.prepare import prepare
from tfscale.data.sources import CorpusSpec, find_missing, fingerprint, vocab_size
from tfscale.data.split import Progress
from tfscale.data.tokenizer import TokenizerSpec
from tfscale.faults import UserFault

UNKNOWN = "unknown"
"""Fingerprint of a corpus that is not there; a plan can still be made, and says so."""


@dataclass(frozen=True)
class Corpus:
    """A corpus as a plan needs it."""

    spec: CorpusSpec
    fingerprint: str
    vocab_size: int
    """Rows of the model's embedding."""
    folder: str
    """Where its tokens will be, absolute or relative to a stage's folder."""
    missing: tuple[str, ...]
    """What keeps it from being prepared, each fault with its mend."""


def corpus_of(experiment: Experiment) -> Corpus:
    """The corpus of an experiment; what is missing is listed, not raised.

    Raises:
        UserFault: the settings make no corpus, or the model's vocabulary is smaller than the tokenizer's.
    """
    data = experiment.data
    try:
        spec = CorpusSpec(
            source=data.source,
            tokenizer=_tokenizer(experiment),
            path=_absolute(data.path) if data.path else None,
            text_key=data.text_key,
            heldout_fraction=data.heldout,
            split_seed=data.split_seed,
        )
    except DataError as error:
        raise UserFault([f"data: {fault}" for fault in str(error).splitlines()]) from error
    missing = tuple(find_missing(spec))
    rows = experiment.model.vocab_size
    if missing and rows is None:
        raise UserFault([f"data: {fault}" for fault in missing])
    known = rows if missing else vocab_size(spec)
    assert known is not None
    if rows is not None and rows < known:
        raise UserFault([f"model.vocab_size={rows}: the tokenizer has {known} entries; at least that many"])
    key = UNKNOWN if missing else fingerprint(spec)
    folder = spec.path if data.source == "shards" and spec.path else f"../../data/{key}"
    return Corpus(spec, key, rows or known, folder, missing)


def _tokenizer(experiment: Experiment) -> TokenizerSpec | None:
    data = experiment.data
    if data.source == "shards":
        return None
    if data.tokenizer == "file":
        assert data.tokenizer_path is not None  # checked with all other settings
        return TokenizerSpec("file", path=_absolute(data.tokenizer_path))
    return TokenizerSpec("bpe", vocab_size=data.vocab_size)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def prepare_corpus(experiment: Experiment, corpus: Corpus, progress: Progress) -> None:
    """Makes the corpus' tokens, or finds them made before.

    Raises:
        UserFault: the text is faulty, or holds too little for what the experiment asks of it.
    """
    try:
        data = prepare(corpus.spec, runs_dir(experiment) / "data", progress)
    except DataError as error:
        raise UserFault([f"data: {fault}" for fault in str(error).splitlines()]) from error
    context, asked = experiment.model.context, experiment.data.heldout_tokens
    if len(data.heldout) <= asked:
        there = f"the held-out documents have {len(data.heldout):,} tokens"
        raise UserFault([f"data.heldout_tokens={asked}: {there}; ask for fewer, or raise data.heldout"])
    if len(data.train) <= context:
        raise UserFault([f"model.context={context}: the training documents have only {len(data.train):,} tokens"])
