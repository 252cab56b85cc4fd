"""A short form of `make torture`: a chain that is killed in every way equals one that is not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "faults"))

from torture import torture, write_corpus


def test_a_chain_that_is_killed_equals_one_that_is_not(tmp_path: Path, two_stages: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    # This seed draws a checkpoint, a growth and a step, and each victim once; the last one leaves the chain to finish.
    count = torture(3, seed=46, corpus=corpus, folder=tmp_path, say=lambda text: None, stages_a_chain=2)
    assert count.total >= 3
