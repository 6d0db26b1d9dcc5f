"""Tests of `recurrent_rl.recurrent.sequences`: where rollouts are cut, and what is stored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.helpers import Flags, cut_by_hand, cuttings, make_flags, some_of

from recurrent_rl.recurrent.sequences import Sequences, cut_sequences, state_times


def steps_of(cuts: Sequences, s: int) -> list[int]:
    """The flat steps (t * N + n) that sequence s runs through."""
    first = int(cuts.first[s])
    steps: list[int] = cuts.order[first : first + int(cuts.length[s])].tolist()
    return steps


@given(cuttings())
def test_sequences_by_the_rules(case: tuple[Flags, int, int]) -> None:
    """The rules of design.md, semantics 3, one by one, without a reference implementation."""
    f, max_seq_len, _ = case
    rows = f.shape[1]
    cuts = cut_sequences(f.start, f.exists, f.active, max_seq_len)
    seen: list[int] = []
    for s in range(len(cuts)):
        place = steps_of(cuts, s)
        time, row = [i // rows for i in place], [i % rows for i in place]
        assert set(row) == {int(cuts.row[s])}, "a sequence mixes rows"
        assert time == sorted(set(time)), "a sequence interleaves time"
        assert 1 <= len(time) <= max_seq_len
        assert len({t // max_seq_len for t in time}) == 1, "a sequence crosses a multiple of L"
        assert time[0] // max_seq_len == int(cuts.chunk[s])
        n = row[0]
        assert not f.start[time[0] + 1 : time[-1] + 1, n].any(), "a sequence spans two episodes"
        assert all(f.exists[t, n] for t in time)
        trained = [i for i, t in zip(place, time, strict=True) if f.active[t, n]]
        assert len(trained) == int(cuts.active[s]) >= 1
        assert place[-1] == trained[-1], "a sequence runs on behind its last active step"
        seen += trained
    everything = f.active.flatten().nonzero().squeeze(1).tolist()
    assert sorted(seen) == everything, "an active step is lost, or trained on twice"


@given(cuttings())
def test_sequences_equal_those_cut_by_hand(case: tuple[Flags, int, int]) -> None:
    """Steps, state to begin from, and burn-in, for any L and any burn-in below it."""
    f, max_seq_len, burn_in = case
    rows = f.shape[1]
    cuts = cut_sequences(f.start, f.exists, f.active, max_seq_len, burn_in)
    pieces = cut_by_hand(f, max_seq_len, burn_in)
    assert len(cuts) == len(pieces)
    for s, piece in enumerate(pieces):
        assert steps_of(cuts, s) == [t * rows + piece.row for t in piece.steps]
        assert int(cuts.active[s]) == len(piece.active)
        assert int(cuts.row[s]) == piece.row
        assert int(cuts.chunk[s]) == piece.begin // max_seq_len
        assert bool(cuts.fresh[s]) == piece.fresh
        first, length = int(cuts.first[s]), int(cuts.burn_in[s])
        before = cuts.order[first - length : first].tolist()
        assert before == [t * rows + piece.row for t in piece.burn_in]
        if not piece.fresh:
            assert bool(cuts.burn_in_fresh[s]) == piece.burn_in_fresh
    if cuts.active_mask is None:
        assert torch.equal(f.active, f.exists)
    else:
        assert torch.equal(cuts.active_mask, f.active.flatten()[cuts.order])


@given(cuttings(), st.data())
def test_index_pads_with_a_sequences_own_last_step(
    case: tuple[Flags, int, int], data: st.DataObject
) -> None:
    f, max_seq_len, _ = case
    rows = f.shape[1]
    cuts = cut_sequences(f.start, f.exists, f.active, max_seq_len)
    if len(cuts) == 0:
        return
    which = data.draw(some_of(len(cuts)))
    index, active_index = cuts.index(torch.tensor(which))
    longest = max(int(cuts.length[s]) for s in which)
    assert index.shape == (longest, len(which))
    expected = []
    for column, s in enumerate(which):
        own = steps_of(cuts, s)
        assert index[:, column].tolist() == own + [own[-1]] * (longest - len(own))
        expected += [
            position * len(which) + column
            for position, i in enumerate(own)
            if f.active[i // rows, i % rows]
        ]
    if active_index is None:
        assert sorted(expected) == list(range(index.numel()))
    else:
        assert active_index.tolist() == sorted(expected)


def test_sequences_of_a_small_rollout_by_hand() -> None:
    # T = 5, L = 3. Row 0: an episode starts at 2, so it is cut at 0, 2, 3. Row 1 never starts and
    # is absent at 1; its step 4 is seen but not acted on, which leaves step 3 alone.
    start = torch.tensor([[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]]).bool()
    exists = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [1, 1]]).bool()
    active = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0]]).bool()
    cuts = cut_sequences(start, exists, active, 3)
    flat = [steps_of(cuts, s) for s in range(len(cuts))]
    assert flat == [[0, 2], [4], [6, 8], [1, 5], [7]]  # t * 2 + n
    assert cuts.fresh.tolist() == [False, True, False, False, False]
    assert cuts.chunk.tolist() == [0, 0, 1, 0, 1]
    assert cuts.row.tolist() == [0, 0, 0, 1, 1]


def test_no_step_is_lost_from_episodes_of_31_steps_cut_at_16() -> None:
    # A known failure elsewhere: dropping the tail of each episode loses 15 of 31 steps here.
    start = (torch.arange(310) % 31 == 0)[:, None]
    always = torch.ones(310, 1, dtype=torch.bool)
    cuts = cut_sequences(start, always, always, 16)
    assert int(cuts.length.sum()) == 310


@pytest.mark.parametrize("max_seq_len", [1, 3, 100])
def test_a_rollout_without_active_steps_has_no_sequences(max_seq_len: int) -> None:
    f = make_flags(7, 3)
    never = torch.zeros(7, 3, dtype=torch.bool)
    assert len(cut_sequences(f.start, f.exists, never, max_seq_len)) == 0
    assert len(cut_sequences(f.start, never, never, max_seq_len)) == 0


def test_sequences_of_length_one_are_the_steps_themselves() -> None:
    f = make_flags(7, 3, absent=0.2, idle=0.2)
    cuts = cut_sequences(f.start, f.exists, f.active, 1)
    assert (cuts.length == 1).all()
    assert cuts.chunk.tolist() == [steps_of(cuts, s)[0] // 3 for s in range(len(cuts))]


def test_sequences_longer_than_the_rollout_are_cut_at_starts_only() -> None:
    f = make_flags(7, 3, reset=0.0)
    cuts = cut_sequences(f.start, f.exists, f.active, 100)
    assert cuts.length.tolist() == [7, 7, 7]
    assert cuts.chunk.tolist() == [0, 0, 0]


@given(st.integers(1, 50), st.integers(1, 60), st.data())
def test_state_times_are_the_multiples_of_l_less_the_burn_in(
    steps: int, max_seq_len: int, data: st.DataObject
) -> None:
    burn_in = data.draw(st.integers(0, max_seq_len - 1))
    times = state_times(steps, max_seq_len, burn_in)
    assert len(times) == -(-steps // max_seq_len)  # ceil(T / L)
    assert times[0] == 0
    for chunk, t in enumerate(times[1:], start=1):
        assert t == chunk * max_seq_len - burn_in
    assert times == sorted(set(times))
    assert all(0 <= t < steps for t in times)


def test_state_times_by_hand() -> None:
    assert state_times(10, 4) == [0, 4, 8]
    assert state_times(10, 4, burn_in=3) == [0, 1, 5]
    assert state_times(8, 4) == [0, 4]
    assert state_times(3, 100) == [0]
