"""Tests of `recurrent_rl.buffers.steps`: sizes, flags, and which states are kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import Flags, collect, cuttings, empty_buffer, make_flags, make_policy, walk
from support.pairs import examples

from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.buffers.steps import Steps, StepShapes
from recurrent_rl.recurrent.state import HiddenState


def test_steps_hold_what_any_algorithm_needs_and_no_more() -> None:
    shapes = StepShapes((3,), (2,), state_shapes=[(1, 4)], extra=2, mask_size=5)
    steps = Steps(6, 2, shapes, max_seq_len=4)
    each = 3 * 4 + 2 * 4 + 2 * 4 + 5 + 4 + 5  # obs, action, extra, mask, reward, flags
    assert steps.nbytes() == 6 * 2 * each + 2 * 2 * 4 * 4
    assert not hasattr(steps, "value")
    assert not steps.continued


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("rows", 0), ("max_seq_len", 0), ("burn_in", -1), ("burn_in", 4)],
)
def test_sizes_out_of_range_are_named(name: str, value: int) -> None:
    sizes = {"steps": 8, "rows": 2, "max_seq_len": 4, name: value}
    with pytest.raises(ValueError, match=rf"^{name}: expected at least .*, got {value}"):
        SequenceRolloutBuffer(
            sizes.pop("steps"),
            sizes.pop("rows"),
            obs_shape=(1,),
            action_shape=(),
            **sizes,  # type: ignore[arg-type]
        )


def test_clear_restores_the_flags_of_a_new_buffer() -> None:
    policy = make_policy()
    buffer, _ = collect(policy, make_flags(6, 3, absent=0.3, idle=0.3), max_seq_len=2)
    buffer.clear()
    new = empty_buffer(policy, 6, 3, max_seq_len=2)
    for name in ("start", "exists", "active", "terminated", "truncated", "bootstrap"):
        assert torch.equal(getattr(buffer, name), getattr(new, name)), name


@settings(max_examples=examples(30))
@given(cuttings(), st.sampled_from(["lstm", "gru"]))
def test_states_are_kept_at_multiples_of_l_only(case: tuple[Flags, int, int], cell: str) -> None:
    """Those before the step and after its reset; with burn-in, so many steps earlier."""
    f, max_seq_len, burn_in = case
    policy = make_policy(cell=cell, num_layers=2, previous_action=True)
    buffer, initial = collect(policy, f, max_seq_len=max_seq_len, burn_in=burn_in)
    memory = walk(policy, buffer, initial).memory
    times = [max(t - burn_in, 0) for t in range(0, f.shape[0], max_seq_len)]
    for i, stored in enumerate(buffer.hidden):
        assert len(stored) == len(times)
        for chunk, t in enumerate(times):
            assert torch.equal(stored[chunk], memory[t][i].transpose(0, 1))


def test_store_state_ignores_other_times() -> None:
    policy = make_policy(hidden_state_size=2)
    buffer = empty_buffer(policy, 5, 1, max_seq_len=2)
    for t in range(5):
        buffer.store_state(t, HiddenState([torch.full((1, 1, 2), t + 1.0)] * 2, 1))
    assert buffer.hidden[1][:, 0, 0, 0].tolist() == [1, 3, 5]
