"""Tests of `recurrent_rl.buffers.minibatches`: what goes together, and what is padding."""

import itertools
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import make_flags
from support.pairs import examples
from torch import Tensor

from recurrent_rl.buffers.minibatches import minibatches, rectangles
from recurrent_rl.recurrent.sequences import cut_sequences


@settings(max_examples=examples(60))
@given(
    hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(1, 20)),
    st.integers(1, 100),
    st.integers(0, 1000),
)
def test_minibatches_deal_every_sequence_once(
    active: np.ndarray[Any, Any], batch_size: int, seed: int
) -> None:
    counts = torch.from_numpy(active)

    def deal(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [b.tolist() for b in minibatches(counts, batch_size, generator)]

    batches = deal(seed)
    assert sorted(s for batch in batches for s in batch) == list(range(len(active)))
    assert all(batches), "an empty minibatch"
    assert deal(seed) == batches, "not reproducible"

    total, longest = int(active.sum()), int(active.max())
    # round() to the even neighbour at a tie, as Python's does: 2.5 minibatches are two.
    count = max(1, round(total / batch_size))
    size = total / count
    assert len(batches) <= count
    if longest <= size:  # else some minibatches have nothing: sequences stay whole
        assert len(batches) == count
    for batch in batches:
        # A sequence lies where its middle does, so at most half a sequence hangs over each end.
        assert abs(int(counts[batch].sum()) - size) <= longest or len(batches) < count


def test_minibatches_are_about_batch_size() -> None:
    # 128 steps of 8 rows in sequences of 1 to 32: 1024 steps in 4 minibatches of 256.
    f = make_flags(128, 8, reset=0.05)
    cuts = cut_sequences(f.start, f.exists, f.active, 32)
    dealt = list(minibatches(cuts.active, 256, torch.Generator().manual_seed(0)))
    sizes = [int(cuts.active[batch].sum()) for batch in dealt]
    assert len(sizes) == 4
    assert sum(sizes) == 1024
    assert all(abs(size - 256) <= 32 for size in sizes)


def test_a_long_sequence_goes_where_most_of_it_lies() -> None:
    # 15 steps in round(15 / 7) = 2 minibatches of 7.5. Whoever comes last begins at 6 or at 13; by
    # first steps a long one at 6 would leave the second minibatch empty.
    lengths = torch.tensor([2, 2, 2, 9])
    for seed in range(20):
        dealt = list(minibatches(lengths, 7, torch.Generator().manual_seed(seed)))
        assert len(dealt) == 2


def test_minibatches_are_shuffled() -> None:
    lengths = torch.full((64,), 4)
    generator = torch.Generator().manual_seed(0)
    first, second = ([b.tolist() for b in minibatches(lengths, 64, generator)] for _ in range(2))
    assert first != second, "each epoch draws anew"
    assert sorted(map(sorted, first)) != sorted(map(sorted, second)), "other sequences together"


def test_composition_is_random_whatever_the_lengths() -> None:
    """Means of what goes with length lie no further apart than chance makes them."""
    start = make_flags(512, 8, reset=0.1).start
    cuts = cut_sequences(start, torch.ones_like(start), torch.ones_like(start), 32)
    lengths = cuts.length.double()
    advantage = (lengths - lengths.mean()) / lengths.std()  # long episodes are good ones
    generator = torch.Generator().manual_seed(0)
    spreads = []
    for _ in range(30):
        dealt = list(minibatches(cuts.active, 256, generator))
        weight = [cuts.active[part].double() for part in dealt]
        means = [(advantage[p] * w).sum() / w.sum() for p, w in zip(dealt, weight, strict=True)]
        spreads.append(torch.stack(means).std())
    # By hand for a blind deal of the same sequences; sorted by length it is 1.2.
    weight = cuts.active.double()
    mean = (advantage * weight).sum() / weight.sum()
    count = round(int(cuts.active.sum()) / 256)
    by_chance = ((weight * (advantage - mean)).square().sum() * count).sqrt() / weight.sum()
    assert float(torch.stack(spreads).mean()) == pytest.approx(float(by_chance), rel=0.1)


# --- rectangles -------------------------------------------------------------------------------


@settings(max_examples=examples(60))
@given(hnp.arrays(np.int64, st.integers(1, 80), elements=st.integers(1, 64)), st.integers(0, 99))
def test_rectangles_hold_every_sequence_once_the_longest_first(
    lengths: np.ndarray[Any, Any], seed: int
) -> None:
    length = torch.from_numpy(lengths)
    which = torch.randperm(len(length), generator=torch.Generator().manual_seed(seed))
    which = which[: len(length) // 2 + 1]
    parts = rectangles(which, length)
    assert sorted(torch.cat(parts).tolist()) == sorted(which.tolist())
    bounds = [(int(length[part].max()), int(length[part].min())) for part in parts]
    assert all(least >= most for (_, least), (most, _) in itertools.pairwise(bounds))


def test_rectangles_are_split_where_that_saves_time() -> None:
    alike, few = torch.full((30,), 7), torch.tensor([32, 5, 4])
    assert [part.tolist() for part in rectangles(torch.arange(30), alike)] == [list(range(30))]
    assert len(rectangles(torch.arange(3), few)) == 1, "two more steps are cheaper than a call"
    # 4 sequences of 64 steps, and 96 of 4: padded together 6400 steps of a row, of which 640 count.
    mixed = torch.tensor([4] * 48 + [64] * 4 + [4] * 48)
    parts = rectangles(torch.arange(100), mixed)
    assert [mixed[part].unique().tolist() for part in parts] == [[64], [4]]


def test_little_is_padding_when_lengths_are_mixed() -> None:
    # A reset with probability 0.1 at each step: lengths from 1 to 32, most of them short. In one
    # rectangle for each minibatch two thirds are padding; in split ones a third is.
    start = make_flags(512, 8, reset=0.1).start
    cuts = cut_sequences(start, torch.ones_like(start), torch.ones_like(start), 32)
    dealt = list(minibatches(cuts.active, 1024, torch.Generator().manual_seed(0)))

    def share(parts: list[Tensor]) -> float:
        computed = sum(int(cuts.length[part].max()) * len(part) for part in parts)
        return 1 - int(cuts.length.sum()) / computed

    assert share(dealt) > 0.6
    assert share([part for which in dealt for part in rectangles(which, cuts.length)]) < 0.4


def test_no_sequences_make_no_minibatches() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert list(minibatches(none, 16, torch.Generator())) == []


@pytest.mark.parametrize(
    ("total", "batch_size", "count"),
    [(1024, 256, 4), (1000, 256, 4), (1150, 256, 4), (1153, 256, 5), (10, 256, 1), (256, 1, 256)],
)
def test_the_number_of_minibatches_is_the_rounded_quotient(
    total: int, batch_size: int, count: int
) -> None:
    lengths = torch.ones(total, dtype=torch.int64)
    dealt = list(minibatches(lengths, batch_size, torch.Generator()))
    assert len(dealt) == count
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
