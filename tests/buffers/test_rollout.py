"""Tests of `recurrent_rl.buffers.rollout`: storage, returns, and what minibatches hold."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import (
    SEEDS,
    Flags,
    collect,
    cut_by_hand,
    cuttings,
    double,
    empty_buffer,
    flags,
    jitter,
    make_flags,
    make_policy,
    some_of,
    spoil,
    walk,
)
from support.pairs import examples
from torch import Tensor

from recurrent_rl.buffers.rollout import SequenceRolloutBuffer, discounted_returns
from recurrent_rl.buffers.steps import Steps, StepShapes
from recurrent_rl.functional.returns import gae

# --- storage ----------------------------------------------------------------------------------


def all_tensors(buffer: SequenceRolloutBuffer) -> list[Tensor]:
    """Whatever tensor the buffer holds, found without its help."""
    found: list[Tensor] = []
    for value in vars(buffer).values():
        found += [value] if isinstance(value, Tensor) else []
        found += [x for x in value if isinstance(x, Tensor)] if isinstance(value, list) else []
    return found


@given(
    steps=st.integers(1, 40),
    rows=st.integers(1, 5),
    max_seq_len=st.integers(1, 50),
    layers=st.integers(1, 3),
    extra=st.integers(0, 2),
    mask_size=st.integers(0, 3),
    with_returns=st.booleans(),
)
def test_memory_is_the_sum_of_the_declared_fields(
    steps: int,
    rows: int,
    max_seq_len: int,
    layers: int,
    extra: int,
    mask_size: int,
    with_returns: bool,
) -> None:
    buffer = SequenceRolloutBuffer(
        steps,
        rows,
        obs_shape=(3,),
        action_shape=(),
        action_dtype=torch.int64,
        state_shapes=[(layers, 8), (layers, 8)],
        max_seq_len=max_seq_len,
        extra=extra,
        mask_size=mask_size,
    )
    if with_returns:
        buffer.compute_returns(torch.zeros(rows), 0.9, 0.9)
    states = -(-steps // max_seq_len) * rows * 2 * layers * 8 * 4
    each_step = (
        3 * 4  # obs
        + 8  # action
        + 6 * 4  # log_prob, value, reward, bootstrap, advantage, returns
        + 5  # start, terminated, truncated, exists, active
        + 4 * extra
        + mask_size
    )
    declared = steps * rows * each_step + rows * 4 + states  # last_value is for each row
    assert buffer.nbytes() == declared
    # What is really allocated, each storage once: no field is a view of something larger.
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in all_tensors(buffer)}
    assert sum(s.nbytes() for s in storages.values()) == declared


def test_fields_have_the_shapes_of_the_design() -> None:
    policy = make_policy("vector", "box", num_layers=2, previous_action=True, previous_reward=True)
    buffer = empty_buffer(policy, 10, 3, max_seq_len=4)
    assert buffer.obs.shape == (10, 3, 3)
    assert buffer.extra is not None
    assert buffer.extra.shape == (10, 3, 2 + 1)
    assert buffer.action.shape == (10, 3, 2)
    assert buffer.action_mask is None
    for name in ("log_prob", "value", "reward", "bootstrap", "advantage", "returns"):
        assert getattr(buffer, name).shape == (10, 3)
        assert getattr(buffer, name).dtype == torch.float32
    for name in ("start", "exists", "active", "terminated", "truncated"):
        assert getattr(buffer, name).shape == (10, 3)
        assert getattr(buffer, name).dtype == torch.bool
    # ceil(10 / 4) states of h and c; the previous action is in `extra` already.
    assert [h.shape for h in buffer.hidden] == [(3, 3, 2, 5)] * 2


def test_clear_restores_the_bootstraps_of_a_new_buffer() -> None:
    buffer, _ = collect(make_policy(), make_flags(6, 3, absent=0.3), max_seq_len=2)
    assert buffer.bootstrap.any()
    buffer.clear()
    assert (buffer.bootstrap == 0).all()
    assert not buffer.start.any()


# --- returns ----------------------------------------------------------------------------------


def test_compute_returns_scales_rewards_and_leaves_them_as_they_were() -> None:
    buffer, _ = collect(make_policy(), make_flags(8, 3, absent=0.2, idle=0.2), max_seq_len=4)
    reward, last = buffer.reward.clone(), torch.randn(3)
    buffer.compute_returns(last, 0.9, 0.8, reward_scale=0.1)
    advantage, returns = gae(
        reward * 0.1,
        buffer.value,
        last,
        buffer.bootstrap,
        buffer.terminated,
        buffer.truncated,
        buffer.active,
        0.9,
        0.8,
    )
    assert torch.equal(buffer.advantage, advantage)
    assert torch.equal(buffer.returns, returns)
    assert torch.equal(buffer.reward, reward)


def test_a_step_that_does_not_exist_is_no_decision_whatever_its_active_flag_says() -> None:
    # The two flags are written separately; where only `exists` was cleared, the value there is as
    # meaningless as where both were.
    f = make_flags(8, 3, absent=0.3)
    buffer, _ = collect(make_policy(), f, max_seq_len=4)
    last = torch.randn(3)
    buffer.compute_returns(last, 0.9, 0.8)
    advantage, count = buffer.advantage.clone(), len(buffer.sequences())
    buffer.active |= ~buffer.exists
    buffer.value[~buffer.exists] = 1e6
    buffer.compute_returns(last, 0.9, 0.8)
    assert torch.equal(buffer.advantage, advantage)
    assert len(buffer.sequences()) == count


@settings(max_examples=examples(20))
@given(flags(), st.booleans())
def test_targets_are_those_of_each_step(f: Flags, normalize: bool) -> None:
    """Advantages standardised over the active steps of the whole rollout, if asked for."""
    policy = make_policy()
    buffer, _ = collect(policy, f, max_seq_len=3)
    spoil(policy, buffer)
    targets = buffer.targets(normalize)
    assert targets.shape == (4, f.active.numel())
    active = f.active.flatten()
    expected = buffer.advantage[f.active]
    if normalize and len(expected):
        wide = expected.double()
        expected = ((wide - wide.mean()) / (wide.std(unbiased=False) + 1e-8)).float()
    torch.testing.assert_close(targets[2, active], expected, rtol=1e-3, atol=1e-4)
    for row, field in ((0, buffer.log_prob), (1, buffer.value), (3, buffer.returns)):
        assert torch.equal(targets[row, active], field[f.active])


@settings(max_examples=examples(40))
@given(SEEDS, st.booleans())
def test_discounted_returns_run_from_an_episodes_beginning(seed: int, continued: bool) -> None:
    """Step by step, over two rollouts, the second of which goes on or begins anew."""
    generator = torch.Generator().manual_seed(seed)
    shapes, gamma, before = StepShapes((), ()), 0.9, None
    so_far = torch.zeros(3)
    for number in range(2):
        steps = Steps(5, 3, shapes)
        steps.continued = continued and number > 0
        steps.reward.copy_(torch.randn(5, 3, generator=generator))
        steps.terminated[:] = torch.rand(5, 3, generator=generator) < 0.2
        steps.truncated[:] = torch.rand(5, 3, generator=generator) < 0.2
        if not steps.continued:
            so_far = torch.zeros(3)
        total, before = discounted_returns(steps, gamma, before)
        for t in range(5):
            so_far = steps.reward[t] + gamma * so_far
            torch.testing.assert_close(total[t], so_far)
            so_far = so_far.masked_fill(steps.terminated[t] | steps.truncated[t], 0)


# --- batches ----------------------------------------------------------------------------------


def numbered(f: Flags, max_seq_len: int, burn_in: int) -> SequenceRolloutBuffer:
    """A buffer in which every number says where it comes from; states are 1000 + chunk * N + n."""
    steps, rows = f.shape
    buffer = SequenceRolloutBuffer(
        steps,
        rows,
        obs_shape=(2,),
        action_shape=(1,),
        state_shapes=[(2, 3), (2, 3)],
        max_seq_len=max_seq_len,
        burn_in=burn_in,
        extra=1,
        mask_size=2,
    )
    buffer.start[:], buffer.exists[:], buffer.active[:] = f.start, f.exists, f.active
    place = torch.arange(float(steps * rows)).view(steps, rows)
    assert buffer.extra is not None
    assert buffer.action_mask is not None
    buffer.obs[:] = torch.stack((place, -place), -1)
    buffer.extra[:] = place[..., None] + 0.5
    buffer.action[:] = place[..., None] + 0.25
    buffer.action_mask[:] = torch.stack((place % 2 == 0, place % 3 == 0), -1)
    buffer.log_prob[:], buffer.value[:] = -place, place * 2
    buffer.advantage[:], buffer.returns[:] = place * 3, place * 4
    for i, stored in enumerate(buffer.hidden):
        chunk_row = torch.arange(float(stored.shape[0] * rows)).view(-1, rows)
        sign = 1 - 2 * i
        stored[:] = sign * (1000 + chunk_row)[..., None, None]
    return buffer


@settings(max_examples=examples(100))
@given(cuttings(), st.data())
def test_a_batch_holds_what_its_sequences_need(
    case: tuple[Flags, int, int], data: st.DataObject
) -> None:
    """Observations, states, targets, masks and burn-in, against sequences cut by hand."""
    f, max_seq_len, burn_in = case
    buffer, rows = numbered(f, max_seq_len, burn_in), f.shape[1]
    cuts, pieces = buffer.sequences(), cut_by_hand(f, max_seq_len, burn_in)
    if not pieces:
        return
    which = data.draw(some_of(len(pieces)))
    batch = buffer.batch(cuts, torch.tensor(which), buffer.targets(normalize_advantage=False))
    longest = max(len(pieces[s].steps) for s in which)
    assert batch.observation.shape == (longest, len(which), 2)
    assert batch.extra is not None
    assert batch.extra.shape == (longest, len(which), 1)

    for column, s in enumerate(which):
        piece = pieces[s]
        place = [t * rows + piece.row for t in piece.steps]
        place += [place[-1]] * (longest - len(place))
        assert batch.observation[:, column, 0].tolist() == place
        assert batch.observation[:, column, 1].tolist() == [-i for i in place]
        assert batch.extra[:, column, 0].tolist() == [i + 0.5 for i in place]

        chunk = piece.begin // max_seq_len
        carried = 1000 + chunk * rows + piece.row
        zero = piece.fresh or piece.burn_in_fresh
        for state, sign in zip(batch.state, (1, -1), strict=True):
            assert state.shape == (2, len(which), 3)
            assert (state[:, column] == (0 if zero else sign * carried)).all()
        if piece.burn_in:
            assert batch.burn_in is not None
        if batch.burn_in is not None:
            observation, extra, length, view = batch.burn_in
            assert view is None
            assert extra is not None
            count = int(length[column])
            at = [t * rows + piece.row for t in piece.burn_in]
            assert count == len(at)
            assert observation[:count, column, 0].tolist() == at
            assert extra[:count, column, 0].tolist() == [i + 0.5 for i in at]

    # The active steps in the order of the rectangle, time first.
    active = [
        (position, column, t * rows + pieces[s].row)
        for position in range(longest)
        for column, s in enumerate(which)
        if position < len(pieces[s].steps) and (t := pieces[s].steps[position]) in pieces[s].active
    ]
    place = [i for _, _, i in active]
    flat = [position * len(which) + column for position, column, _ in active]
    if batch.active_index is None:
        assert flat == list(range(longest * len(which)))
    else:
        assert batch.active_index.tolist() == flat
    assert len(batch) == len(place)
    assert batch.step.tolist() == place
    assert batch.action[:, 0].tolist() == [i + 0.25 for i in place]
    assert batch.mask is not None
    assert batch.mask.tolist() == [[i % 2 == 0, i % 3 == 0] for i in place]
    assert batch.log_prob.tolist() == [-i for i in place]
    assert batch.value.tolist() == [i * 2 for i in place]
    assert batch.advantage.tolist() == [i * 3 for i in place]
    assert batch.returns.tolist() == [i * 4 for i in place]
    own = sum(len(pieces[s].steps) for s in which)
    assert batch.padding == longest * len(which) - own


def test_burn_in_forgets_an_episode_whose_end_lies_before_it() -> None:
    # Regression. L = 4 with burn-in 2 keeps the state before step 2; the episode starts anew at
    # step 3, where nothing is seen yet. So there is nothing to burn in before step 4, but the state
    # kept is the old episode's.
    start, exists = (torch.zeros(6, 1, dtype=torch.bool) for _ in range(2))
    start[3], exists[[0, 1, 2, 4, 5]] = True, True
    buffer = numbered(Flags(start, exists, exists), 4, 2)
    cuts = buffer.sequences()
    batch = buffer.batch(cuts, torch.arange(len(cuts)), buffer.targets(False))
    assert [s[0, :, 0].tolist() for s in batch.state] == [[1000, 0], [-1000, 0]]


def test_batches_do_not_change_the_buffer() -> None:
    buffer = numbered(make_flags(9, 3, absent=0.2, idle=0.2), 4, 2)
    before = [x.clone() for x in all_tensors(buffer)]
    cuts, targets = buffer.sequences(), buffer.targets(True)
    batch = buffer.batch(cuts, torch.arange(len(cuts)), targets)
    for tensor in (batch.observation, batch.log_prob, *batch.state):
        tensor.fill_(math.nan)
    for now, then in zip(all_tensors(buffer), before, strict=True):
        assert torch.equal(now, then)


@double()
def test_the_helper_that_collects_is_itself_right_about_resets_and_absences() -> None:
    """The reference of the learner's tests, checked on a case small enough to follow."""
    policy = make_policy(previous_action=True, previous_reward=True)
    start = torch.tensor([[False], [False], [True], [False]])
    exists = torch.tensor([[True], [False], [True], [True]])
    buffer, initial = collect(policy, Flags(start, exists, exists), max_seq_len=2)
    assert buffer.extra is not None
    memory = walk(policy, buffer, initial).memory
    assert torch.equal(memory[0][0], initial.tensors[0])  # carried over
    assert not torch.equal(memory[1][0], memory[0][0])  # advanced
    assert (memory[2][0] == 0).all()  # reset
    assert not (memory[3][0] == 0).all()
    onehot = torch.nn.functional.one_hot(buffer.action[:, 0], 3).double()
    assert torch.equal(buffer.extra[1, 0], torch.cat((onehot[0], buffer.reward[0])))
    assert (buffer.extra[2] == 0).all()
    assert torch.equal(buffer.extra[3, 0], torch.cat((onehot[2], buffer.reward[2])))
    before = walk(policy, buffer, initial).memory[3][0]
    assert not torch.equal(walk(jitter(policy), buffer, initial).memory[3][0], before)
