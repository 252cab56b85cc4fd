"""Functions that describe the corpus of an experiment for planning, download the corpus, and prepare it."""

from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from tfscale.config.compose import runs_dir
from tfscale.config.schema import Experiment
from tfscale.data.errors import DataError
from tfscale.data.listing import Listing, left_out_words
from tfscale.data.manifest import Manifest, read_manifest
from tfscale.data.prepare import prepare
from tfscale.data.prepared import PreparedData
from tfscale.data.progress import Progress
from tfscale.data.sources import (
    SOURCES,
    CorpusSpec,
    fetch,
    find_missing,
    fingerprint,
    local_path,
    source_of,
    vocab_size,
)
from tfscale.data.tokenizer import FIX_UNKNOWN, TokenizerSpec, unknown_words
from tfscale.faults import Fault, InvalidInput, UserFault, user_faults

UNKNOWN = "unknown"
"""Value that replaces the fingerprint of a corpus whose text or tokenizer is missing, so that a plan can be made."""


@dataclass(frozen=True)
class Corpus:
    """Description of a corpus for planning."""

    spec: CorpusSpec
    fingerprint: str
    vocab_size: int
    """Number of rows in the model's embedding."""
    folder: str
    """Folder of the prepared tokens, absolute or relative to the folder of a stage."""
    missing: tuple[str, ...]
    """Faults that prevent the corpus from being prepared, each with its fix."""
    prepared: bool


def corpus_of(experiment: Experiment) -> Corpus:
    """Return the corpus of an experiment. A missing text or tokenizer is listed in `missing`.

    Raises:
        UserFault: the settings describe no corpus, `model.vocab_size` is less than the vocabulary size of the
            tokenizer, or `model.vocab_size` is null and the text or the tokenizer is missing.
    """
    spec, root = spec_of(experiment), data_dir(experiment)
    key, manifest, missing = _look(spec, root)
    rows = experiment.model.vocab_size
    if missing and rows is None:
        raise UserFault(Fault("data", None, fault) for fault in missing)
    known = manifest.tokenizer.vocab_size if manifest else rows if missing else vocab_size(spec, root)
    assert known is not None
    if rows is not None and rows < known:
        rule = f"must be at least {known}, the vocabulary size of the tokenizer"
        raise UserFault([Fault("model.vocab_size", rows, rule)])
    folder = f"../../data/{key}" if spec.tokenizer else str(spec.path)
    return Corpus(spec, key, rows or known, folder, missing, prepared=manifest is not None)


def _look(spec: CorpusSpec, root: Path) -> tuple[str, Manifest | None, tuple[str, ...]]:
    """Return the fingerprint of the corpus, the manifest of the corpus if it is prepared and otherwise None, and the
    faults that prevent the preparation. If there are faults, the fingerprint is `UNKNOWN`."""
    try:
        key = fingerprint(spec, root)
        manifest = _manifest(spec, root / key)
        faults = [] if manifest else find_missing(spec, root)
    except DataError as error:
        key, manifest, faults = UNKNOWN, None, find_missing(spec, root) or [str(error)]
    return (UNKNOWN if faults else key), manifest, tuple(faults)


def _manifest(spec: CorpusSpec, folder: Path) -> Manifest | None:
    if spec.tokenizer is None:
        return read_manifest(local_path(spec))
    return read_manifest(folder) if folder.exists() else None


def spec_of(experiment: Experiment) -> CorpusSpec:
    """Return the spec of the corpus that the settings describe. Raise UserFault if the settings describe no valid
    corpus."""
    with user_faults(DataError):
        return _spec(experiment, _tokenizer(experiment))


def check_corpus(experiment: Experiment) -> list[Fault]:
    """Return the faults in the settings of the corpus source and of the tokenizer."""
    faults: list[Fault] = []
    tokenizer: TokenizerSpec | None = None
    try:
        tokenizer = _tokenizer(experiment)
    except DataError as error:
        faults += error.faults
    try:
        _spec(experiment, tokenizer)
    except DataError as error:
        faults += error.faults
    return list(dict.fromkeys(faults))


def _spec(experiment: Experiment, tokenizer: TokenizerSpec | None) -> CorpusSpec:
    data = experiment.data
    names = ("source", "text_key", "dataset", "subset", "split", "revision", "options", "split_seed")
    return CorpusSpec(
        tokenizer=tokenizer,
        path=_absolute(data.path) if data.path else None,
        heldout_fraction=data.validation,
        **{name: getattr(data, name) for name in names},
    )


def data_dir(experiment: Experiment) -> Path:
    return runs_dir(experiment) / "data"


def fetch_corpus(experiment: Experiment, progress: Progress) -> None:
    """Download the text and the tokenizer of the corpus if they are missing and the corpus is not prepared yet. Raise
    UserFault if the download from the Hugging Face Hub fails. No other function of this module connects to the Hub."""
    spec, root = spec_of(experiment), data_dir(experiment)
    if _look(spec, root)[1] is not None:
        return
    with user_faults(DataError, about="data"):
        fetch(spec, root, progress)


def prepare_corpus(experiment: Experiment, corpus: Corpus, progress: Progress) -> PreparedData:
    """Prepare the corpus, unless it is already prepared, and return the opened corpus.

    Raises:
        UserFault: the text is faulty or too short for the experiment, or the tokenizer has no entry for more of the
            text than `data.max_unknown` allows.
    """
    with user_faults(DataError, about="data"):
        data = prepare(corpus.spec, data_dir(experiment), progress, experiment.data.workers)
    unknown, most = data.manifest.unknown or 0, experiment.data.max_unknown
    if unknown > most * data.manifest.tokens:
        rule = f"{unknown_words(unknown, data.manifest.tokens)}. {FIX_UNKNOWN}"
        raise UserFault([Fault("data.max_unknown", most, rule)])
    asked, start = experiment.data.validation_tokens, experiment.data.validation_start
    if len(data.heldout) <= start + asked:
        after = f", and data.validation_start={start} skips the first {start:,} of them" if start else ""
        rule = f"must be smaller, because the validation documents have only {len(data.heldout):,} tokens{after}"
        raise UserFault([Fault("data.validation_tokens", asked, rule, "a smaller value, or a larger data.validation")])
    if len(data.train) <= experiment.model.context:
        rule = f"must be smaller, because the training documents have only {len(data.train):,} tokens"
        raise UserFault([Fault("model.context", experiment.model.context, rule)])
    return data


def listing_of(experiment: Experiment, corpus: Corpus) -> Listing:
    """Return the listing of the user's files from which a corpus is read. The listing is empty for sources that read no
    files of the user."""
    return source_of(corpus.spec, data_dir(experiment)).listing()


def left_out_notes(listing: Listing) -> list[str]:
    """Return a list with a note if the listing contains files that are not read, otherwise an empty list."""
    words = left_out_words(listing)
    return [f"data.path: {words}. `tfscale data prepare` lists each file with the reason."] if words else []


def unknown_notes(manifest: Manifest) -> list[str]:
    """Return a list with a note if the tokenizer has no entry for some of the text, otherwise an empty list."""
    return [f"data: {unknown_words(manifest.unknown, manifest.tokens)}"] if manifest.unknown else []


def _tokenizer(experiment: Experiment) -> TokenizerSpec | None:
    data = experiment.data
    try:
        if SOURCES.get(data.source).tokenized:
            return None
    except InvalidInput as error:
        raise DataError(*error.faults) from error
    path = _absolute(data.tokenizer_path) if data.tokenizer_path else None
    if data.tokenizer == "file":
        return TokenizerSpec("file", path=path)
    if data.tokenizer == "hub":
        return TokenizerSpec("hub", path=path, name=data.tokenizer_name)
    if data.tokenizer == "bpe":
        return TokenizerSpec("bpe", vocab_size=data.vocab_size)
    assert_never(data.tokenizer)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
