"""Tests of `recurrent_rl.buffers.replay` and `ring`: what is held, and what is drawn of it."""

import copy
import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from support.envs import scripted
from support.helpers import SEEDS
from support.multi_envs import Episode, TurnTaking, scripted_makers
from support.pairs import examples
from support.replays import (
    assert_same_memory,
    copied,
    empty_memory,
    held,
    make_off_policy,
    tell,
    window_at,
)

from recurrent_rl import DQN, SyncMultiAgentVectorEnv, collect_rollouts_recurrent
from recurrent_rl.algorithms.replayed import Replayed
from recurrent_rl.buffers.replay import GroupWindows, SequenceReplayBuffer, Windows
from recurrent_rl.buffers.ring import REST, ReplayLayout
from recurrent_rl.buffers.ring_part import FLAGS
from recurrent_rl.recurrent.state import HiddenState


def generator(seed: int = 0) -> torch.Generator:
    """Seeded."""
    return torch.Generator().manual_seed(seed)


def numbers(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Environment and first trained place of each window of a memory of one environment or two."""
    (group,) = windows.groups.values()
    real = group.exists[windows.burn_in].numpy()
    assert real.all()
    number = group.obs[windows.burn_in].long().numpy()
    return number // 1000, number % 1000


def fill(memory: SequenceReplayBuffer, steps: int) -> None:
    """Write so many steps in all environments."""
    for _ in range(steps):
        tell(memory)


def keep_state(memory: SequenceReplayBuffer, owner: int = 0) -> None:
    """Store the present places' own numbers as the state before them, where it is to be stored."""
    number = torch.from_numpy(memory.written + 1000 * np.arange(memory.envs)).float()
    for name, part in memory.parts.items():
        wide = number.repeat_interleave(part.size)[None, :, None]
        memory.store_state(name, HiddenState([wide], part.rows), owner)


# --- which windows there are, and what they hold ----------------------------------------------


@settings(max_examples=examples(30))
@given(
    seed=SEEDS,
    memory_size=st.integers(1, 40),
    envs=st.integers(1, 3),
    length=st.integers(1, 5),
    overlap=st.integers(0, 4),
    burn_in=st.integers(0, 7),
    ahead=st.integers(1, 3),
)
def test_windows_hold_what_was_written(
    seed: int, memory_size: int, envs: int, length: int, overlap: int, burn_in: int, ahead: int
) -> None:
    """Whatever the paces: places in order, of one row, none overwritten, the state before them."""
    random = np.random.default_rng(seed)
    stride = max(length - overlap, 1)
    memory = empty_memory(
        memory_size, envs, ReplayLayout(length, stride, burn_in), sizes={"": 2}, prioritised=True
    )
    memory.gap = int(random.integers(1, 3))
    final: list[list[bool]] = [[] for _ in range(envs)]
    steps = 0
    for _ in range(int(random.integers(1, 80))):
        keep_state(memory)
        tell(memory)
        steps += envs
        for each in final:
            each.append(False)
        which = np.flatnonzero(random.random(envs) < 0.2)
        if len(which):
            keep_state(memory)
            tell(memory, which=which)
            for env in which:
                final[env].append(True)
    assert memory.counter == steps
    assert memory.written.tolist() == [len(each) for each in final]
    first, end = memory._range()
    assert ((end - first) * stride * envs <= memory_size + envs * stride + envs).all()
    # All there is in reach, and nothing else, is counted.
    reach = [each[int(first[e]) * stride :] for e, each in enumerate(final)]
    assert len(memory) == sum(not x for each in reach for x in each)

    drawn = memory.sample(64, generator(seed), ahead=ahead, exponent=0.5 * random.integers(2))
    group = drawn.groups[""]
    assert group.obs.shape == (burn_in + length + ahead * memory.gap, 2 * 64)
    assert {(int(s) % envs, int(s) // envs) for s in drawn.slot} <= {
        (e, c) for e in range(envs) for c in range(first[e], end[e])
    }
    for b, slot in enumerate(drawn.slot.tolist()):
        env, begin = slot % envs, slot // envs * stride
        for row in (2 * b, 2 * b + 1):
            for w in range(group.obs.shape[0]):
                place = begin - burn_in + w
                if 0 <= place < len(final[env]):
                    assert group.obs[w, row] == place + 1000 * env
                    assert bool(group.final[w, row]) == final[env][place]
                    assert group.exists[w, row]
                else:
                    assert not any(getattr(group, flag)[w, row] for flag in FLAGS)
            state = begin - burn_in
            assert group.state[0][0, row, 0] == (state + 1000 * env if state >= 0 else 0)


def test_what_is_shown_next_is_part_of_windows_until_it_is_not() -> None:
    memory = empty_memory(10, 2, ReplayLayout(3, 3))
    fill(memory, 4)
    for number, shown in ((4, False), (4, True)):
        memory.write("", {"obs": number, "exists": True, "start": False})
        memory.shows_next = shown
        group = window_at(memory, 1, 1).groups[""]
        assert group.exists[:, 0].tolist() == [True, shown, False, False]
    tell(memory)
    assert not memory.shows_next  # the next place is not written yet


def test_garbage_of_an_earlier_round_is_never_within_reach() -> None:
    """A place behind the last is the oldest one's, which is about to be written over."""
    memory = empty_memory(6, 1, ReplayLayout(3, 3, burn_in=2))
    fill(memory, 30)
    for chunk in range(*(int(x[0]) for x in memory._range())):
        group = window_at(memory, 0, chunk).groups[""]
        real = group.exists[:, 0]
        expected = chunk * 3 - 2 + torch.arange(len(real))
        assert torch.equal(real, expected < 30)
        assert torch.equal(group.obs[real, 0], expected[real].float())


# --- how often what is drawn ------------------------------------------------------------------


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Deviations from zero in standard deviations, about; of a chi-square of so many classes."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    degrees = len(counts) - 1
    return (statistic - degrees) / (2 * degrees) ** 0.5


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize("steps", [7, 41, 95])
@pytest.mark.parametrize("layout", [ReplayLayout(), ReplayLayout(4, 4, 2), ReplayLayout(4, 2)])
def test_every_place_is_drawn_as_often_as_it_should_be(
    layout: ReplayLayout, steps: int, prioritised: bool
) -> None:
    """In full rings and others, with environments of different paces, overlapping or not."""
    memory = empty_memory(60, 2, layout, prioritised=prioritised)
    for step in range(steps):
        tell(memory)
        if step % 3 == 0:
            tell(memory, which=[1])
    draws = [memory.sample(250, generator(i), exponent=0.5 * prioritised) for i in range(40)]
    counts = np.zeros((2, int(memory.written.max())))
    for windows in draws:
        (group,) = windows.groups.values()
        trained = slice(layout.burn_in, layout.burn_in + layout.length)
        number = group.obs[trained][group.exists[trained]].long().numpy()
        np.add.at(counts, (number // 1000, number % 1000), 1)
    first, end = memory._range()
    expected = np.zeros_like(counts)
    for env in range(2):
        for chunk in range(int(first[env]), int(end[env])):
            begin = chunk * layout.stride
            expected[env, begin : min(begin + layout.length, memory.written[env])] += 1
    total = int((end - first).sum())
    # Each place is in as many windows as it should be: one, or two where they overlap.
    inner = expected[0, first[0] * layout.stride + layout.length - 1 : memory.written[0]]
    assert (inner == layout.length / layout.stride).all()
    assert (counts[expected == 0] == 0).all()
    # Windows are independent draws; their first places are one class each.
    per_window = np.concatenate(
        [counts[e, first[e] * layout.stride : memory.written[e] : layout.stride] for e in range(2)]
    )
    shares = np.concatenate(
        [
            expected[e, first[e] * layout.stride : memory.written[e] : layout.stride]
            for e in range(2)
        ]
    )
    assert per_window.sum() == pytest.approx(10_000 * shares.sum() / total, rel=0.05)
    if layout.length == layout.stride:
        assert chi_square(per_window, 10_000 * shares / total) < 4
    np.testing.assert_allclose(
        per_window, 10_000 * shares / total, atol=5 * (10_000 / total) ** 0.5 * shares.max()
    )


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_windows_are_drawn_by_priority(exponent: float) -> None:
    memory = empty_memory(12, 1, prioritised=True)
    fill(memory, 40)
    first, end = (int(x[0]) for x in memory._range())
    slot = np.arange(first, end)
    priority = 1.0 + np.arange(len(slot)) ** 2
    memory.set_priority(slot, priority)
    draws = [memory.sample(25, generator(i), exponent=exponent, correction=0.7) for i in range(400)]
    counts = np.bincount(np.concatenate([d.slot for d in draws]), minlength=end)[first:]
    share = priority**exponent / (priority**exponent).sum()
    assert chi_square(counts, 10_000 * share) < 4
    # Weights make up for it, up to a factor that makes the greatest of a batch 1.
    for drawn in draws[:5]:
        raw = share[drawn.slot - first] ** -0.7
        np.testing.assert_allclose(drawn.weight, raw / raw.max(), rtol=1e-5)


def test_exponents_may_change() -> None:
    """Priorities stay what they are, and so does what new windows get."""
    memory = empty_memory(8, 1, prioritised=True)
    fill(memory, 8)
    memory.set_priority(np.arange(8), np.full(8, 4.0))
    memory.sample(1, generator(), exponent=0.5)
    assert memory.priorities is not None
    assert memory.priorities[np.arange(8)].tolist() == [2.0] * 8
    memory.set_priority(np.array([3]), np.array([9.0]))
    tell(memory)
    memory.sample(1, generator(), exponent=1.0)
    np.testing.assert_allclose(sorted(memory.priorities.values()), [0] + [4] * 6 + [9] * 2)


def test_without_priorities_an_exponent_changes_nothing() -> None:
    one, other = empty_memory(10, 2), empty_memory(10, 2, prioritised=True)
    for memory in (one, other):
        fill(memory, 9)
    ours, theirs = one.sample(9, generator(), exponent=0.6), other.sample(9, generator())
    assert ours.slot.tolist() == theirs.slot.tolist()
    assert (ours.weight == 1).all()


def test_priorities_of_windows_that_are_lost_stay_lost() -> None:
    """Others have taken their places, whose priorities these are not."""
    memory = empty_memory(8, 1, ReplayLayout(2, 2), prioritised=True)
    fill(memory, 8)
    drawn = memory.sample(50, generator(), exponent=1.0)
    fill(memory, 9)
    assert memory.priorities is not None
    before = memory.priorities.values()
    memory.set_priority(drawn.slot, np.full(50, 7.0))
    np.testing.assert_array_equal(memory.priorities.values(), before)
    episodes = np.full(3, -1)  # of samples of whole episodes
    memory.set_priority(episodes, np.full(3, 7.0))
    np.testing.assert_array_equal(memory.priorities.values(), before)
    # Those which begin anew get the greatest so far, though.
    fill(memory, 2)
    assert memory.priorities.values().max() == 7


def test_a_memory_may_be_given_priorities_later() -> None:
    memory = empty_memory(8, 2, ReplayLayout(2, 2))
    fill(memory, 11)
    shapes = {"": memory.parts[""].shapes}
    memory.fit(shapes, {"": 1}, 2, ReplayLayout(2, 2), prioritised=True)
    assert memory.priorities is not None
    first, end = memory._range()
    assert memory.priorities.total == (end - first).sum()


# --- while it is written into -----------------------------------------------------------------


def test_windows_stay_what_they_were_when_their_places_are_written_over() -> None:
    memory = empty_memory(12, 2, ReplayLayout(3, 3, 2), prioritised=True, extra=1, mask_size=2)
    fill(memory, 9)
    drawn = memory.sample(10, generator())
    before = copied(drawn.groups[""]), [x.clone() for x in drawn.groups[""].state]
    for _ in range(50):
        keep_state(memory)
        tell(memory, terminated=True, action_mask=False, extra=7.0)
        memory.sample(3, generator())
    for name, field in before[0].items():
        assert torch.equal(getattr(drawn.groups[""], name), field)
    assert torch.equal(drawn.groups[""].state[0], before[1][0])


def test_states_of_others_are_zeros() -> None:
    memory = empty_memory(30, 1, ReplayLayout(2, 2))
    for step in range(20):
        keep_state(memory, owner=step // 10)
        tell(memory)
    for chunk in range(10):
        for owner in (0, 1, None):
            state = window_at(memory, 0, chunk, owner).groups[""].state[0].item()
            assert state == (2 * chunk if owner in (None, chunk // 5) else 0)
        # Nobody's: that of a memory that has just been reset.
        assert window_at(memory, 0, chunk, -1).groups[""].state[0].item() == 0


def test_states_of_another_shape_are_kept_as_zeros() -> None:
    memory = empty_memory(30, 1, ReplayLayout(2, 2))
    fill(memory, 4)
    keep_state(memory)
    memory.store_state("", HiddenState([torch.ones(1, 1, 3)], 1), 0)
    tell(memory)
    assert window_at(memory, 0, 2, 0).groups[""].state[0].item() == 0
    memory.store_state("", HiddenState([], 1), 0)  # of a policy without memory


# --- whole episodes ---------------------------------------------------------------------------


def episodes_by_hand(memory: SequenceReplayBuffer, script: str, env: int) -> set[tuple[int, int]]:
    """First places and lengths, from flags of a memory of a single agent."""
    places = held(memory, "", env)
    starts = [t for t, x in enumerate(places["start"][:, 0].tolist()) if x]
    offset = int(memory._range()[0][env]) * memory._stride
    return {(a + offset, b - a) for a, b in itertools.pairwise(starts)}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_whole_episodes_are_exactly_those_that_are_held(mode: AutoresetMode) -> None:
    scripts = ["3t 2l 4b 1l", "2l 1t 6l"]
    env = scripted(scripts, mode)
    agent = make_off_policy("dqn", env, memory_size=40, max_seq_len=3)
    for _ in range(8):
        collect_rollouts_recurrent(agent, env, 5)
    memory = agent.memory
    expected = {
        (i, *each)
        for i, script in enumerate(scripts)
        for each in episodes_by_hand(memory, script, i)
    }
    found = set(zip(*(x.tolist() for x in memory._episodes()), strict=True))
    assert found == expected
    drawn = memory.sample_episodes(300, generator())
    assert drawn.length == max(length for *_, length in expected)
    assert drawn.burn_in == 0
    assert (drawn.slot == -1).all()
    group = drawn.groups[""]
    assert group.start[0].all()
    assert group.start.sum() == 300  # one each
    lengths = group.exists.sum(0)
    for b in range(300):
        assert group.exists[: lengths[b], b].all()
        last = lengths[b] - 1
        ends = (group.terminated | group.truncated)[:, b].nonzero()[:, 0].tolist()
        assert len(ends) == 1
        assert ends[0] in (last, last - 1)  # or the final observation is the last
    assert all((x == 0).all() for x in group.state)
    counts = np.unique(group.obs[0].sum(-1).numpy(), return_counts=True)[1]
    assert len(counts) == len(expected)
    assert chi_square(counts, np.full(len(counts), 300 / len(counts))) < 4


def test_whole_episodes_of_teams_are_those_of_the_environment() -> None:
    """Agents that come late, or have their first turn after others, begin no episode."""
    plays: list[Episode] = [{"bob_0": [(0, 1, "t"), (3, 6, "t")], "eve_0": [(1, 4, "l")]}]
    for env, length in (
        (SyncMultiAgentVectorEnv(scripted_makers([plays])), 6 + 1),
        (SyncMultiAgentVectorEnv([lambda: TurnTaking("5t", 3)]), 5),
    ):
        agent = make_off_policy("maddpg", env, sampling="episodes")
        for _ in range(4):
            collect_rollouts_recurrent(agent, env, 6)
        begins, lengths = agent.memory._episodes()[1:]
        assert set(lengths.tolist()) == {length}
        assert begins.tolist() == [length * i for i in range(len(begins))]


def test_episodes_that_were_given_up_end_where_they_were() -> None:
    env = scripted(["9t"])
    agent = make_off_policy("dqn", env)
    collect_rollouts_recurrent(agent, env, 4)
    with pytest.raises(RuntimeError, match="expected a whole episode to sample, got none"):
        agent.memory.sample_episodes(1, generator())
    collect_rollouts_recurrent(agent, env, 2, reset=True)
    assert [x.tolist() for x in agent.memory._episodes()] == [[0], [0], [5]]
    agent.memory.close()
    assert [x.tolist() for x in agent.memory._episodes()] == [[0, 0], [0, 5], [5, 3]]
    # What nobody has acted upon is no episode.
    env = scripted(["3t"])
    agent = make_off_policy("dqn", env)
    collect_rollouts_recurrent(agent, env, 3)
    agent.memory.close()
    assert [x.tolist() for x in agent.memory._episodes()] == [[0], [0], [3]]


# --- several writers --------------------------------------------------------------------------


def test_writers_that_share_a_memory_do_not_go_on_with_each_others_lives() -> None:
    envs = [scripted(["9t"]), scripted(["7t"])]
    agents = [make_off_policy("dqn", env, seed=i) for i, env in enumerate(envs)]
    memory = agents[1].memory = agents[0].memory
    for agent, env in (pair for _ in range(2) for pair in zip(agents, envs, strict=True)):
        collect_rollouts_recurrent(agent, env, 3)
    places = {k: x[:, 0].tolist() for k, x in held(memory, "", 0).items()}
    # Each collection begins with a start, and what it has shown last is final.
    assert [t for t, x in enumerate(places["start"]) if x] == [0, 4, 8, 12]
    assert [t for t, x in enumerate(places["truncated"]) if x] == [2, 6, 10]
    assert [t for t, x in enumerate(places["final"]) if x] == [3, 7, 11]
    # The second collections go on in the middle of lives, which are no whole episodes.
    assert [x.tolist() for x in memory._episodes()] == [[0, 0], [0, 4], [4, 4]]
    known = Replayed(
        memory._gather(np.array([0]), np.array([0]), (0, 15, 1), None, np.array([0])).groups[""],
        0,
        15,
        torch.device("cpu"),
    ).targets(0.9, 1)
    assert known.place[known.known].tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15]


# --- its shape --------------------------------------------------------------------------------


def boxed(width: int = 3, actions: int = 3, envs: int = 2) -> Any:
    """A vector of environments of some spaces."""

    class Still(gym.Env[Any, Any]):
        observation_space = Box(-1, 1, (width,))
        action_space = Discrete(actions)

        def reset(self, **_: Any) -> Any:
            return np.zeros(width, np.float32), {}

        def step(self, action: Any) -> Any:
            return np.zeros(width, np.float32), 0.0, False, False, {}

    return SyncVectorEnv([Still] * envs)


def test_another_shape_is_refused_with_what_to_do() -> None:
    env = boxed()
    agent = make_off_policy("dqn", env)
    collect_rollouts_recurrent(agent, env, 4)
    memory = agent.memory
    before = SequenceReplayBuffer.from_data(memory.to_data())
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (boxed(width=4), {}, r"expected spaces \('Box.*\(3,\).*of what it holds, got .*\(4,\)"),
        (boxed(actions=5), {}, r"Discrete\(3\).* got .*Discrete\(5\).*build another memory"),
        (boxed(envs=3), {}, "expected the number of environments that it holds steps of, 2, got 3"),
        (boxed(), {"max_seq_len": 5}, "expected the layout of sequences .*length=4.*length=5"),
        (boxed(), {"burn_in": 2}, "layout of sequences .*burn_in=0.*burn_in=2.*of its own"),
        (boxed(), {"previous_reward": True}, "expected extra 0, of what it holds, got 1"),
    ]
    for other_env, options, message in cases:
        other = make_off_policy("dqn", other_env, **options)
        other.memory = memory
        with pytest.raises(ValueError, match=message):
            collect_rollouts_recurrent(other, other_env, 4)
        if "environments" not in message:  # to learn from it is fine
            with pytest.raises(ValueError, match=message):
                other.learn(memory)
        assert_same_memory(memory, before)
    team_env = SyncMultiAgentVectorEnv(scripted_makers([[{"bob_0": [(0, 3, "t")]}]] * 2))
    team = make_off_policy("maddpg", team_env)
    team.memory = memory
    with pytest.raises(ValueError, match=r"groups of agents .*\{'': 1\}, got \{'bob': 1\}"):
        collect_rollouts_recurrent(team, team_env, 4)
    with pytest.raises(ValueError, match=r"sample of the groups \['bob'\], got one of \[''\]"):
        team.learn(memory.sample(1, generator()))
    collect_rollouts_recurrent(agent, env, 4)  # none of this has hurt it
    assert memory.counter == 16


def test_batches_larger_than_what_is_held_are_refused() -> None:
    env = boxed()
    for options, message in (
        ({"batch_size": 50}, "at least batch_size = 50 steps in the memory, got 8; collect more"),
        ({"batch_size": 50, "memory_size": 30}, "holds memory_size = 30: make it larger"),
        ({"sampling": "episodes"}, "expected a whole episode to sample, got none; collect more"),
    ):
        agent = make_off_policy("dqn", env, **options)
        collect_rollouts_recurrent(agent, env, 4)
        before = [x.clone() for x in agent.policy.state_dict().values()]
        for _ in range(2):  # what is due stays due
            with pytest.raises(RuntimeError, match=message):
                agent.learn()
        after = agent.policy.state_dict().values()
        assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_empty_memories_and_sizes_are_refused() -> None:
    for size in (0, -3):
        with pytest.raises(ValueError, match=rf"^memory_size: expected .*\[1, .*, got {size}"):
            SequenceReplayBuffer(size)
    memory = SequenceReplayBuffer(10)
    assert len(memory) == memory.counter == memory.nbytes() == 0
    for empty in (memory, empty_memory(10)):
        with pytest.raises(RuntimeError, match="expected steps to sample from, got none"):
            empty.sample(1, generator())
        with pytest.raises(RuntimeError, match="expected a whole episode to sample, got none"):
            empty.sample_episodes(1, generator())


def test_memory_is_the_sum_of_the_fields() -> None:
    """Images stay bytes, and are kept once."""
    steps, shape = 10_000, (1, 12, 12)
    for layout in (ReplayLayout(), ReplayLayout(20, 20, 10), ReplayLayout(20, 10)):
        memory = empty_memory(
            steps,
            4,
            layout,
            prioritised=True,
            obs_shape=shape,
            obs_dtype=torch.uint8,
            action_dtype=torch.int64,
            state_shapes=[(1, 64), (1, 64)],
            extra=2,
            mask_size=4,
        )
        windows = steps / layout.stride
        fields = steps * (144 + 8 + 4 + 2 * 4 + 4 + len(FLAGS)) + windows * 2 * 64 * 4
        assert fields < memory.nbytes() < 1.05 * fields
        assert memory.parts[""].obs.dtype == torch.uint8


def test_images_of_agents_are_kept_as_bytes() -> None:
    space = Box(0, 255, (8, 8, 3), np.uint8)
    assert DQN(space, Discrete(2)).trainer.shapes(False).obs_dtype == torch.uint8


# --- saving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dqn", "maddpg"])
def test_what_is_saved_comes_back_and_goes_on_alike(kind: str) -> None:
    if kind == "dqn":
        env: Any = scripted(["3t 2l 4b 1l", "2l 1t 6l"], masked=True)
    else:
        plays: list[Episode] = [{"bob_0": [(0, 4, "t")], "eve_0": [(1, 3, "l")]}]
        env = SyncMultiAgentVectorEnv(scripted_makers([plays, plays], masks="info"))
    options: dict[str, Any] = {"memory_size": 40, "max_seq_len": 3, "overlap": 1, "burn_in": 2}
    agent = make_off_policy(kind, env, sampling="priority", previous_action=True, **options)
    for _ in range(5):
        collect_rollouts_recurrent(agent, env, 8)
        agent.learn()
    memory = agent.memory
    again = SequenceReplayBuffer.from_data(memory.to_data())
    assert_same_memory(memory, again)
    assert again.nbytes() == memory.nbytes()
    draws = {"exponent": 0.6, "correction": 0.4, "owner": 0}
    for one, other in (
        (memory.sample(30, generator(), **draws), again.sample(30, generator(), **draws)),
        (memory.sample_episodes(9, generator()), again.sample_episodes(9, generator())),
    ):
        assert one.slot.tolist() == other.slot.tolist()
        assert torch.equal(one.weight, other.weight)
        for name, group in one.groups.items():
            assert_same_windows(group, other.groups[name])
    # Written into alike they stay alike, and share no memory.
    again.begin(None, continued=False)
    memory.begin(None, continued=False)
    for _ in range(30):
        for each in (memory, again):
            tell(each, number=0)
            tell(each, number=0, which=[1])
    assert_same_memory(memory, again)
    tell(memory, number=1)
    name = next(iter(memory.parts))
    assert not torch.equal(memory.parts[name].obs, again.parts[name].obs)


def assert_same_windows(ours: GroupWindows, theirs: GroupWindows) -> None:
    """Bit for bit."""
    for name, field in copied(ours).items():
        assert torch.equal(field, getattr(theirs, name)), name
    for mine, other in zip(ours.state, theirs.state, strict=True):
        assert torch.equal(mine, other)


def test_an_empty_memory_is_saved_too() -> None:
    again = SequenceReplayBuffer.from_data(SequenceReplayBuffer(7).to_data())
    assert (again.memory_size, again.layout, len(again)) == (7, None, 0)


@pytest.mark.parametrize("sampling", ["uniform", "priority", "episodes"])
def test_agents_go_on_from_a_saved_replay_as_if_they_had_never_stopped(
    sampling: str, tmp_path: Path
) -> None:
    """Bit for bit: memory, what is drawn of it, and weights."""
    env = scripted(["3t 2l 4b 1l", "2l 1t 6l"])
    options: dict[str, Any] = {"memory_size": 40, "burn_in": 1, "n_step": 2, "learn_step": 4}
    agent = make_off_policy("dqn", env, sampling=sampling, **options)
    for _ in range(4):
        collect_rollouts_recurrent(agent, env, 7)
        agent.learn()
    agent.save_checkpoint(tmp_path / "agent.pt", save_replay=True)
    other, other_env = DQN.load(tmp_path / "agent.pt"), copy.deepcopy(env)
    for each, its_env in ((agent, env), (other, other_env)):
        for _ in range(3):
            collect_rollouts_recurrent(each, its_env, 7, reset=False)
            each.learn()
    assert_same_memory(agent.memory, other.memory)
    pairs = zip(agent.policy.state_dict().values(), other.policy.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    # What goes on in the middle of a life is no start.
    assert int((agent.memory.begins == REST).sum()) == 0
