"""Tests of the order of training sequences, and of the fixed validation set."""

import numpy as np
import pytest
import torch

from tfscale.data.batches import Batches, heldout_batches, mix, permute
from tfscale.data.errors import DataError
from tfscale.data.shards import Tokens

CONTEXT = 8


def counting(length: int) -> Tokens:
    """Shards with the tokens 0, 1, 2, ..., so that each token is equal to its position."""
    return Tokens(np.array_split(np.arange(length, dtype=np.uint16), 3))


@pytest.mark.parametrize("length", [9, 15, 16, 100, 803])
def test_an_epoch_visits_each_window_once(length: int) -> None:
    batches = Batches(counting(length), CONTEXT, order_seed=5)
    assert batches.windows == length // CONTEXT
    for epoch in range(3):
        inputs, _ = batches.sequences(epoch * batches.windows, batches.windows)
        assert inputs.unique().numel() == batches.windows * CONTEXT, "windows do not overlap"


def test_targets_are_the_tokens_after_their_inputs_and_the_end_meets_the_beginning() -> None:
    inputs, targets = Batches(counting(100), CONTEXT, order_seed=5).sequences(0, 240)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.shape == targets.shape == (240, CONTEXT)
    assert torch.equal(targets, (inputs + 1) % 100)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert (inputs[:, 0] > inputs[:, -1]).any(), "some window of these epochs runs over the end"


def test_a_sequence_depends_on_nothing_but_its_index() -> None:
    tokens = counting(100)
    whole, targets = Batches(tokens, CONTEXT, order_seed=5).sequences(0, 60)
    for world in (1, 2, 3, 5):
        share = 60 // world
        for rank in reversed(range(world)):
            part = Batches(tokens, CONTEXT, order_seed=5).sequences(rank * share, share)
            assert torch.equal(part[0], whole[rank * share : (rank + 1) * share])
            assert torch.equal(part[1], targets[rank * share : (rank + 1) * share])


def test_epochs_and_seeds_differ_in_order_and_in_where_they_cut() -> None:
    tokens = counting(800)

    def starts(seed: int, epoch: int) -> list[int]:
        return Batches(tokens, CONTEXT, seed).sequences(epoch * 100, 100)[0][:, 0].tolist()

    orders = [starts(0, 0), starts(0, 1), starts(1, 0), starts(1, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert len({order[0] % CONTEXT for order in orders}) > 1
    assert all(order != sorted(order) for order in orders)


def test_the_order_is_the_same_for_ever() -> None:
    inputs, _ = Batches(counting(1000), 10, order_seed=1234).sequences(95, 10)
    assert inputs[:, 0].tolist() == [766, 886, 636, 266, 566, 525, 645, 865, 745, 135]


def test_a_split_shorter_than_one_sequence_is_refused() -> None:
    assert Batches(counting(9), 8, 0).windows == 1
    with pytest.raises(DataError, match="context=8: must be less than 8, the number of tokens in the training split"):
        Batches(counting(8), 8, 0)


@pytest.mark.parametrize("n", [*range(1, 30), 1000, 4096, 4097])
def test_a_permutation_holds_each_item_once(n: int) -> None:
    items = permute(np.arange(n, dtype=np.uint64), n, key=mix(n))
    assert sorted(items.tolist()) == list(range(n))


def test_a_permutation_of_billions_is_computed_place_by_place() -> None:
    n = 5_000_000_000
    items = permute(np.arange(n - 1000, n, dtype=np.uint64), n, key=3)
    assert len(set(items.tolist())) == 1000
    assert items.max() < n
    assert abs(items.mean() / n - 0.5) < 0.05


@pytest.mark.parametrize("n", [3, 10])
def test_every_pair_of_neighbours_is_about_equally_likely(n: int) -> None:
    draws = 800 * n
    places = np.arange(2, dtype=np.uint64)
    pairs = [tuple(permute(places, n, key=mix(draw)).tolist()) for draw in range(draws)]
    counts = np.unique(np.array(pairs), axis=0, return_counts=True)[1]
    expected = draws / (n * (n - 1))
    assert len(counts) == n * (n - 1)
    assert ((counts - expected) ** 2 / expected).sum() < 2 * n * (n - 1), "chi-square near its degrees of freedom"


def test_evaluation_reads_the_first_windows_of_the_split() -> None:
    batches = list(heldout_batches(counting(100), CONTEXT, n_tokens=85, batch=4))
    assert [len(inputs) for inputs, _ in batches] == [4, 4, 2]
    inputs = torch.cat([inputs for inputs, _ in batches])
    targets = torch.cat([targets for _, targets in batches])
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.flatten().tolist() == list(range(80)), "85 tokens hold ten windows of eight"
    assert targets.flatten().tolist() == list(range(1, 81))


def test_evaluation_on_more_than_there_is_is_refused_at_once() -> None:
    heldout_batches(counting(81), CONTEXT, n_tokens=80, batch=4)
    with pytest.raises(DataError, match=r"must be smaller, .* validation split has 80 tokens but 81 are needed"):
        heldout_batches(counting(80), CONTEXT, n_tokens=80, batch=4)
    with pytest.raises(DataError, match=r"data\.validation_tokens=7: must be at least model\.context=8"):
        heldout_batches(counting(80), CONTEXT, n_tokens=7, batch=4)
