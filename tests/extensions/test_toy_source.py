"""Tests that a corpus source from outside the package is configured, checked and prepared like a built-in one."""

from pathlib import Path

import pytest
from extensions.toy_source import Sentences

from tfscale.config.compose import compose
from tfscale.data import workers
from tfscale.data.progress import silent
from tfscale.data.sources import fingerprint
from tfscale.plan.checks import check_experiment
from tfscale.plan.corpus import corpus_of, prepare_corpus, spec_of

SETTINGS = ("data.source=sentences", "data.vocab_size=257", "data.validation_tokens=1024")


def test_a_source_is_checked_and_prepared_by_name_and_options(tmp_path: Path) -> None:
    experiment = compose([*SETTINGS, "data.options={count: 500}", f"runs={tmp_path}"])
    assert check_experiment(experiment) == []
    corpus = corpus_of(experiment)
    assert (corpus.missing, corpus.prepared) == ((), False)
    data = prepare_corpus(experiment, corpus, silent)
    manifest = data.manifest
    assert manifest.source == Sentences(2, 500).identity()
    distinct = {text for part in Sentences(2, 500).parts() for text in part.documents()}
    assert manifest.train.documents + manifest.heldout.documents == len(distinct)
    assert corpus_of(experiment).prepared


def test_other_processes_read_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "POOL_BYTES", 1)
    more = ("data.options={count: 50, parts: 3}", "data.workers=2", "data.validation_tokens=128")
    experiment = compose([*SETTINGS, *more, f"runs={tmp_path}"])
    assert prepare_corpus(experiment, corpus_of(experiment), silent).manifest.documents == 150


def test_its_options_are_its_own_and_part_of_the_fingerprint(tmp_path: Path) -> None:
    faulty = compose([*SETTINGS, f"runs={tmp_path}"])
    (fault,) = check_experiment(faulty)
    assert str(fault) == "data.options.count: must be a number of sentences; try 1000"
    some, more = (spec_of(compose([*SETTINGS, f"data.options={{count: {n}}}"])) for n in (500, 501))
    assert fingerprint(some) != fingerprint(more)
