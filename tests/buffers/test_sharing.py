"""Tests of `recurrent_rl.buffers.sharing`: what was added to copies stands in the shared replay."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pairs import examples
from support.training_runs import recall_env, team_env

from recurrent_rl import DQN, MADDPG, SequenceReplayBuffer, collect_rollouts_recurrent
from recurrent_rl.buffers.sharing import News, copied, extended, fit_states, news_since, seal
from recurrent_rl.evolution.pool import packed, unpacked

NETWORK = {
    "encoder_config": {"hidden_state_size": 3, "hidden_size": [4]},
    "head_config": {"hidden_size": [4]},
}


def make_agent(env: Any, seed: int, **options: Any) -> Any:
    options = {"learning_starts": 0, "batch_size": 4, "learn_step": 10**6, **options}
    if hasattr(env, "possible_agents"):
        return MADDPG(
            env.observation_spaces, env.action_spaces, net_config=NETWORK, seed=seed, **options
        )
    spaces = env.single_observation_space, env.single_action_space
    return DQN(*spaces, NETWORK, seed=seed, **options)


def collected(agent: Any, env: Any, memory: SequenceReplayBuffer, steps: int) -> Any:
    """The agent's own copy of a memory, after some steps, sealed."""
    agent.memory = copied(memory)
    collect_rollouts_recurrent(agent, env, steps, reset=True)
    seal(agent.memory)
    return agent.memory


def stretch(memory: SequenceReplayBuffer, env: int, begin: int, end: int) -> dict[str, Any]:
    """All that stands in an environment's places from ``begin`` to ``end``."""
    at = np.arange(begin, end) % memory.places
    found: dict[str, Any] = {"begins": torch.from_numpy(memory.begins[at, env])}
    for name, part in memory.parts.items():
        rows = slice(env * part.size, (env + 1) * part.size)
        for field, tensor in part.fields().items():
            if not field.startswith("hidden"):
                found[f"{name}/{field}"] = tensor[at, rows]
    return found


def states(memory: SequenceReplayBuffer, env: int, chunks: Any) -> list[torch.Tensor]:
    at = chunks % memory.chunks
    found = [torch.from_numpy(memory.owner[at, env])]
    for part in memory.parts.values():
        rows = slice(env * part.size, (env + 1) * part.size)
        found += [hidden[at, rows] for hidden in part.hidden]
    return found


@settings(max_examples=examples(12))
@given(
    size=st.integers(8, 80),
    steps=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    layout=st.sampled_from([(1, 0, 0), (4, 0, 0), (4, 2, 3), (5, 4, 0), (3, 1, 2)]),
    is_team=st.booleans(),
    priority=st.booleans(),
)
def test_what_was_added_stands_behind_in_order(
    size: int, steps: list[int], layout: tuple[int, int, int], is_team: bool, priority: bool
) -> None:
    env = team_env() if is_team else recall_env(2)
    length, overlap, burn_in = layout
    options: dict[str, Any] = {"recurrent": length > 1}
    if length > 1:
        options |= {"max_seq_len": length, "overlap": overlap, "burn_in": burn_in}
    if priority:
        options |= {"sampling": "priority"}
    agents = [make_agent(env, i, **options) for i in range(len(steps))]
    memory = SequenceReplayBuffer(size)
    agents[0].fit_memory(memory, 2)
    seal(memory)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        copies = [collected(a, env, memory, n) for a, n in zip(agents, steps, strict=True)]
        for copy in copies:
            if priority:
                windows = copy.sample(6, generator, exponent=0.6)
                copy.set_priority(windows.slot, np.arange(1.0, 7.0))
        news = [news_since(memory, copy) for copy in copies]
        sent = [News.from_data(unpacked(packed(each.to_data()))) for each in news]
        after, again = extended(memory, news), extended(memory, sent)
        assert after.counter == memory.counter + 2 * sum(steps)
        assert (after.written == again.written).all()
        place = memory.written.copy()
        for copy in copies:
            added = copy.written - memory.written
            for e in range(2):
                # What is still there of it.
                begin = max(place[e], after.written[e] - after.places)
                back = place[e] - memory.written[e]
                end = place[e] + added[e]
                if begin < end:
                    begin = max(begin, end - copy.places)
                    ours = stretch(after, e, begin, end)
                    theirs = stretch(copy, e, begin - back, end - back)
                    same = stretch(again, e, begin, end)
                    for name in ours:
                        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)
                        torch.testing.assert_close(ours[name], same[name], rtol=0, atol=0)
                stride = after.layout.stride  # type: ignore[union-attr]
                late = -(-(begin + burn_in) // stride)
                chunks = np.arange(late, end // stride)
                chunks = chunks[chunks >= after.written[e] // stride - after._kept]
                pairs = states(after, e, chunks), states(copy, e, chunks - back // stride)
                for x, y in zip(*pairs, strict=True):
                    torch.testing.assert_close(x, y, rtol=0, atol=0)
                if priority and len(chunks):
                    env_of = np.full(len(chunks), e)
                    assert after.priorities is not None
                    assert copy.priorities is not None
                    np.testing.assert_array_equal(
                        after.priorities[after._slot(env_of, chunks)],
                        copy.priorities[copy._slot(env_of, chunks - back // stride)],
                    )
            place += added
        assert (place == after.written).all()
        held = after._range()[0] * after.layout.stride  # type: ignore[union-attr]
        final = next(iter(after.parts.values())).final.numpy()
        count = sum(
            int((~final[np.arange(held[e], place[e]) % after.places, e * len(final[0]) // 2]).sum())
            for e in range(2)
        )
        assert len(after) == count
        memory = after
        agents[0].memory = copied(memory)
        agents[0].learn(agents[0].memory.sample(3, generator, owner=0))


def test_priorities_of_what_was_there_are_their_mean() -> None:
    env = recall_env(1)
    agent = make_agent(env, 0, recurrent=False, sampling="priority")
    memory = SequenceReplayBuffer(9)
    agent.fit_memory(memory, 1)
    memory = extended(memory, [news_since(memory, collected(agent, env, memory, 2))])
    first, last = memory._range()
    windows = np.arange(first[0], last[0])
    news = []
    for values, exponent in ((1.0, 0.5), (4.0, 0.5), (16.0, 0.25)):
        copy = copied(memory)
        copy.take_exponent(exponent)
        copy.set_priority(windows, np.full(len(windows), values))
        news.append(news_since(memory, copy))
    memory = extended(memory, news)
    assert (memory.exponent, memory.greatest) == (0.5, 16)
    assert memory.priorities is not None
    values = memory.priorities.values()
    np.testing.assert_allclose(values[windows], (1 + 2 + 4) / 3)
    assert np.count_nonzero(values) == len(windows)


def test_states_of_another_networks_size() -> None:
    env = recall_env(2)
    memory = SequenceReplayBuffer(100)
    first, other = (make_agent(env, i, max_seq_len=4) for i in range(2))
    first.fit_memory(memory, 2)
    memory = extended(memory, [news_since(memory, collected(first, env, memory, 9))])
    copy = copied(memory)
    fit_states(copy, {"": other.trainer.shapes(False)})
    assert (copy.owner == memory.owner).all()  # they fit as they are
    other = DQN(
        env.single_observation_space,
        env.single_action_space,
        {**NETWORK, "encoder_config": {"hidden_state_size": 7}},
        max_seq_len=4,
    )
    fit_states(copy, {"": other.trainer.shapes(False)})
    assert copy.parts[""].hidden[0].shape[3] == 7
    assert (copy.owner == -1).all()
    other.memory = copy
    collect_rollouts_recurrent(other, env, 9, reset=True)
    assert copy.parts[""].hidden[0].any()
    seal(copy)
    both = extended(memory, [news_since(memory, copy)])
    assert both.parts[""].hidden[0].shape[3] == 3
    chunks = np.arange(memory.written[0] // 4 + 1, copy.written[0] // 4)
    assert not both.parts[""].hidden[0][chunks].any()


def test_copies_share_nothing() -> None:
    env = recall_env(2)
    agent = make_agent(env, 0)
    collect_rollouts_recurrent(agent, env, 9)
    copy = copied(agent.memory)
    before = copy.parts[""].obs.clone()
    assert before.any()
    agent.memory.parts[""].obs.zero_()
    assert torch.equal(copy.parts[""].obs, before)


def test_a_replay_without_a_shape() -> None:
    memory = SequenceReplayBuffer(10)
    seal(memory)
    with pytest.raises(ValueError, match="memory: expected the shape of what was added, got none"):
        extended(memory, [])
