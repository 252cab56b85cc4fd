"""Notes on a corpus that a user should read: what of a folder is left out, and what a tokenizer does not know."""

from tfscale.config.schema import Experiment
from tfscale.data.listing import Listing, left_out_words
from tfscale.data.manifest import Manifest
from tfscale.data.sources import source_of
from tfscale.data.unknown import unknown_words
from tfscale.plan.corpus import Corpus, data_dir


def listing_of(experiment: Experiment, corpus: Corpus) -> Listing:
    """List the files of the corpus' text; empty for shards and for text that comes with a package."""
    if corpus.spec.tokenizer is None:
        return Listing()
    return source_of(corpus.spec, data_dir(experiment)).listing()


def left_out_notes(listing: Listing) -> list[str]:
    """Say in a line that files were left out."""
    words = left_out_words(listing)
    return [f"data.path: {words}; `tfscale data prepare` names each with its reason"] if words else []


def unknown_notes(manifest: Manifest) -> list[str]:
    """Say in a line that the tokenizer did not know all of the text."""
    return [f"data: {unknown_words(manifest.unknown, manifest.tokens)}"] if manifest.unknown else []
