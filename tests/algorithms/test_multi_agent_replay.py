"""Tests of `MultiAgentReplayBuffer`: what loops save stands there once, and is learned from."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from support.multi_envs import RecallTeam

from recurrent_rl import (
    IPPO,
    MADDPG,
    MATD3,
    MultiAgentReplayBuffer,
    collect_rollouts_recurrent,
    make_multi_agent_vect_envs,
    train_multi_agent_off_policy,
)
from recurrent_rl.compat import (
    create_population,
    obs_channels_to_first,
    observation_space_channels_to_first,
)

AGENTS = ["a_0", "a_1", "b_0"]
FIELDS = ["state", "action", "reward", "next_state", "done"]


def by_agent(number: float, envs: int = 2) -> dict[str, Any]:
    """Observations by which agents, environments and times are told apart."""
    return {
        agent: np.array([[100 * i + 10 * e + number] * (2 if agent[0] == "a" else 3)
                         for e in range(envs)], dtype=np.float64)
        for i, agent in enumerate(AGENTS)
    }  # fmt: skip


def flags(value: Any = False, envs: int = 2) -> dict[str, Any]:
    return {agent: np.full(envs, value) for agent in AGENTS}


def step(time: float, after: float | None = None, envs: int = 2) -> dict[str, Any]:
    """Arguments of a step from one time to another, of which the reward tells, too."""
    return {
        "state": by_agent(time, envs),
        "action": {agent: np.full((envs, 1), time) for agent in AGENTS},
        "reward": flags(time, envs),
        "next_state": by_agent(time + 1 if after is None else after, envs),
        "done": flags(envs=envs),
        "is_vectorised": True,
    }


def make_memory(**options: Any) -> MultiAgentReplayBuffer:
    return MultiAgentReplayBuffer(**{"memory_size": 100, "agent_ids": AGENTS, "seed": 0, **options})


def transitions(memory: MultiAgentReplayBuffer, agent: str = "b_0") -> set[tuple[float, ...]]:
    """What is known of an agent: from where it came to what, with what reward, and how it ended."""
    sample = memory.sample(len(memory))
    found = set()
    for _ in range(30):
        sample = memory.sample(len(memory))
        windows = sample.groups[agent[:-2]]
        rows = slice(int(agent[-1]), None, windows.agents)
        for r in range(*rows.indices(windows.obs.shape[1])):
            if windows.active[0, r]:
                found.add(
                    (
                        windows.obs[0, r, 0].item(),
                        windows.obs[1, r, 0].item(),
                        windows.reward[0, r].item(),
                        windows.terminated[0, r].item(),
                        windows.truncated[0, r].item(),
                    )
                )
    return found


# --- what stands there -------------------------------------------------------------------------


def test_steps_in_a_row_are_kept_once() -> None:
    memory = make_memory()
    for time in range(5):
        memory.save_to_memory(**step(time))
    assert (len(memory), memory.counter) == (10, 10)
    assert (memory.memory.written == 5).all()
    expected = {
        (200 + 10 * e + t, 200 + 10 * e + t + 1, t, False, False) for t in range(5) for e in (0, 1)
    }
    assert transitions(memory) == expected
    first = transitions(memory, "a_1")
    assert (100, 101, 0, False, False) in first
    assert len(first) == 10


def test_a_next_state_that_is_not_the_next_calls_state_stands_by_itself() -> None:
    memory = make_memory()
    memory.save_to_memory(**step(0))
    memory.save_to_memory(**step(1, after=50))  # a limit: what follows is another episode
    memory.save_to_memory(**step(7))
    found = transitions(memory)
    assert (201, 250, 1, False, True) in found
    assert (207, 208, 7, False, False) in found
    assert len(found) == 6
    assert memory.counter == len(memory) == 6


def test_only_environments_whose_episode_ended_are_cut() -> None:
    memory = make_memory()
    memory.save_to_memory(**step(0))
    other = step(1)
    for agent in AGENTS:
        other["state"][agent][1] += 5
    memory.save_to_memory(**other)
    assert memory.memory.written.tolist() == [2, 3]
    assert transitions(memory) >= {(200, 201, 0, False, False), (210, 211, 0, False, True)}


def test_lives_that_end_are_not_valued_beyond() -> None:
    memory = make_memory()
    last = step(0, after=30)
    last["done"] = flags(True)
    memory.save_to_memory(**last)
    memory.save_to_memory(**step(30))  # the vector has reset by itself
    assert (memory.memory.written == 2).all()
    part = memory.memory.parts["b"]
    assert part.terminated[0].all()
    assert part.start[1].all()
    found = transitions(memory)
    assert {known[3] for known in found if known[2] == 0} == {True}


def test_limits_that_are_told_with_what_was_seen_last() -> None:
    """As this package's vectors tell: the next state is the next episode's first."""
    memory = make_memory()
    infos = {
        agent: {"exists": [True, True], "start": [True, False], "final_obs": seen}
        for agent, seen in by_agent(9).items()
    }
    memory.save_to_memory(**step(0, after=30), infos=infos)
    memory.save_to_memory(**step(30))
    assert memory.memory.written.tolist() == [3, 2]
    found = transitions(memory)
    assert (200, 209, 0, False, True) in found  # in environment 0, at its limit
    assert (210, 240, 0, False, False) in found
    assert memory.memory.parts["b"].start[2, 0]


def test_limits_that_are_told_without() -> None:
    memory = make_memory()
    memory.save_to_memory(**step(0, after=30), truncated=flags(True))
    memory.save_to_memory(**step(30))
    part = memory.memory.parts["a"]
    assert part.truncated[0].all()
    assert part.start[1].all()


def test_who_is_not_there() -> None:
    memory = make_memory()
    memory.save_to_memory(**step(0))
    alone = step(1)
    for name in ("state", "action", "reward", "done"):
        del alone[name]["a_1"]
    del alone["next_state"]["a_1"]
    memory.save_to_memory(**alone)
    memory.save_to_memory(**step(2))
    part = memory.memory.parts["a"]
    assert part.exists[:3].tolist() == [[True] * 4, [True, False] * 2, [True] * 4]
    assert part.start[:3].tolist() == [[True] * 4, [False] * 4, [False, True] * 2]
    # Vectors show zeros of those who are not there, and say so.
    blank = step(3)
    infos = {"b_0": {"exists": np.array([False, True])}}
    blank["next_state"]["b_0"][0] = 0
    memory.save_to_memory(**blank, infos=infos)
    again = step(4)
    again["state"]["b_0"][0] = 0
    memory.save_to_memory(**again)
    assert memory.memory.parts["b"].exists[4].tolist() == [False, True]
    assert memory.memory.written.tolist() == [5, 5]


def test_without_an_axis_of_environments() -> None:
    memory = make_memory()
    for time in range(3):
        given = step(time, envs=1)
        single = {
            name: {agent: value[0] for agent, value in given[name].items()} for name in FIELDS
        }
        memory.save_to_memory(*single.values())
    assert len(memory) == 3
    assert transitions(memory) == {(200 + t, 201 + t, t, False, False) for t in range(3)}


def test_a_ring_that_is_full() -> None:
    memory = make_memory(memory_size=20)
    for time in range(40):
        memory.save_to_memory(**step(time))
    assert len(memory) == 20
    assert memory.counter == 80
    assert {known[2] for known in transitions(memory)} == set(range(30, 40))


def test_samples_by_agent() -> None:
    memory = make_memory()
    for time in range(4):
        memory.save_to_memory(**step(time))
    sample = memory.sample(6)
    states, actions, rewards, next_states, dones = sample
    assert len(sample) == 6
    for i, agent in enumerate(AGENTS):
        assert states[agent].shape == (6, 2 if agent[0] == "a" else 3)
        assert actions[agent].shape == (6, 1)
        assert torch.equal(next_states[agent], states[agent] + 1)
        assert not dones[agent].any()
        assert (states[agent][:, 0] // 100 == i).all()
        assert torch.equal(states[agent][:, 0] % 10, rewards[agent])
        assert torch.equal(actions[agent][:, 0], rewards[agent])
    first, again = (make_memory() for _ in range(2))
    for each in (first, again):
        each.save_to_memory(**step(0))
        each.save_to_memory(**step(1))
    assert torch.equal(first.sample(4).state["a_0"], again.sample(4).state["a_0"])


# --- agents ------------------------------------------------------------------------------------


def team_env(num_envs: int = 2) -> Any:
    return make_multi_agent_vect_envs(RecallTeam, num_envs, should_async_vector=False)


def make_team(env: Any, kind: type[Any] = MADDPG, **options: Any) -> Any:
    options = {"recurrent": False, "batch_size": 8, "seed": 0, **options}
    return kind(env.observation_spaces, env.action_spaces, env.possible_agents, **options)


def played(memory: MultiAgentReplayBuffer, agent: Any, env: Any, steps: int) -> None:
    seen, infos = env.reset(seed=0)
    for _ in range(steps):
        action, raw = agent.get_action(seen, infos=infos)
        after, reward, done, truncated, infos = env.step(action)
        memory.save_to_memory(
            seen, raw, reward, after, done, is_vectorised=True, truncated=truncated, infos=infos
        )
        seen = after


@pytest.mark.parametrize("kind", [MADDPG, MATD3])
@pytest.mark.parametrize("with_spaces", [False, True])
def test_agents_learn_from_it(kind: type[Any], with_spaces: bool) -> None:
    env = team_env()
    agent = make_team(env, kind, action_pairs=True, n_step=2)
    known = {"observation_spaces": env.observation_spaces, "action_spaces": env.action_spaces}
    memory = MultiAgentReplayBuffer(
        100, FIELDS, env.possible_agents, **(known if with_spaces else {})
    )
    played(memory, agent, env, 12)
    learned = agent.learn(memory.sample(8, n_step=2))
    assert learned.keys() == agent.trainers.keys()
    assert all(np.isfinite(list(each.to_dict().values())).all() for each in learned.values())
    assert agent.learner.updates == 1
    agent.learn(memory.memory)  # nothing is due
    with pytest.raises(ValueError, match=r"at least n_step = 2 places behind .* got 1; sample"):
        agent.learn(memory.sample(8))


def test_what_a_loop_saves_is_what_collection_stores() -> None:
    env = team_env()
    agent = make_team(env, action_pairs=True, learning_starts=0, o_u_noise=False)
    collect_rollouts_recurrent(agent.clone(), env, 1)  # as both begin: the seeds are alike
    collected = agent.clone()
    env.reset(seed=1)
    memory = MultiAgentReplayBuffer(1000, agent_ids=env.possible_agents)
    collect_rollouts_recurrent(collected, env, 20)
    theirs = collected.memory
    # The same steps by hand, with the actions that were taken.
    seed = agent.clone().groups[0].next_seed()
    seen, infos = env.reset(seed=seed)
    for t in range(20):
        raw, actions = {}, {}
        for name, trainer in agent.trainers.items():
            part = theirs.parts[name]
            place = int(np.flatnonzero((~part.final.numpy()).all(1))[t])
            stored = part.action[place]
            for i, who in enumerate(trainer.agents):
                raw[who] = stored[i :: part.size]
                actions[who] = trainer.policy.actions.to_env(raw[who])
        after, reward, done, truncated, infos = env.step(actions)
        memory.save_to_memory(
            seen, raw, reward, after, done, is_vectorised=True, truncated=truncated, infos=infos
        )
        seen = after
    ours = memory.memory
    assert (ours.written == theirs.written).all()
    assert (ours.counter, len(ours), ours.gap) == (theirs.counter, len(theirs), theirs.gap)
    end = int(ours.written[0])
    for name, part in ours.parts.items():
        for field, tensor in part.fields().items():
            if field != "action":  # of final places it means nothing
                other = theirs.parts[name].fields()[field]
                assert torch.equal(tensor[:end], other[:end]), f"{name} {field}"


def test_pairs_of_actions(tmp_path: Any) -> None:
    env = team_env()
    agent = make_team(env, action_pairs=True)
    seen, infos = env.reset(seed=0)
    action, raw = agent.get_action(obs=seen, infos=infos)
    for name, codec in ((a, g.policy.actions) for g in agent.groups for a in g.agents):
        np.testing.assert_array_equal(codec.to_env(torch.from_numpy(raw[name])), action[name])
    agent.save_checkpoint(tmp_path / "agent.pt")
    for other in (agent.clone(), MADDPG.load(tmp_path / "agent.pt")):
        assert other.action_pairs
        assert len(other.get_action(seen)) == 2
    assert len(make_team(env).get_action(seen)) == 5
    single = {name: value[0] for name, value in seen.items()}
    one, _ = agent.get_action(single)
    assert {np.shape(x) for x in one.values()} == {x.shape[1:] for x in action.values()}


def test_training_mode_decides_where_nobody_says() -> None:
    env = team_env()
    agent = make_team(env, expl_noise=1.0)
    seen, _ = env.reset(seed=0)
    best = agent.get_action(seen, deterministic=True).action
    agent.set_training_mode(False)
    for _ in range(5):
        for name, action in agent.get_action(seen).action.items():
            np.testing.assert_array_equal(action, best[name])
    agent.set_training_mode(True)
    others = [agent.get_action(seen).action for _ in range(20)]
    assert any((x[name] != best[name]).any() for x in others for name in best)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"memory_size": 0}, ValueError, "memory_size: expected"),
        ({"field_names": ["state", "action"]}, ValueError, r"field_names: expected \['state'"),
        ({"agent_ids": []}, ValueError, "agent_ids: expected the agents' names, env.agents"),
        ({"groups": {"a": ["a_0"]}}, ValueError, "groups: expected each of .* in no group"),
        ({"device": "abacus"}, ValueError, "device: "),
        ({"observation_spaces": [spaces.Discrete(2)] * 3}, ValueError, "action_spaces: expected"),
    ],
)
def test_what_cannot_be_built(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_memory(**options)


def spoiled(name: str, agent: str, value: Any) -> dict[str, Any]:
    given = step(1)
    given[name] = {**given[name], agent: value}
    return given


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (spoiled("state", "c_0", [[1.0]]), ValueError, "state has no agent 'c_0'; did you mean"),
        ({**step(1), "reward": [1, 2]}, TypeError, r"reward: expected a dictionary by agent"),
        (
            spoiled("next_state", "a_1", np.array([[0, 1], [np.nan, 1]])),
            ValueError,
            r"next_state\['a_1'\]: expected finite numbers, got others in environment 1; leave",
        ),
        (spoiled("state", "b_0", np.zeros((3, 3))), ValueError, "expected 2 environments"),
        (spoiled("state", "b_0", np.zeros((2, 4))), ValueError, r"state\['b_0'\]: expected shape"),
        (
            spoiled("action", "a_0", np.zeros((2, 2))),
            ValueError,
            r"action\['a_0'\]: expected shape",
        ),
        (spoiled("action", "a_0", None), ValueError, "action: expected one of agent 'a_0', as"),
        (spoiled("reward", "a_0", [1.0, np.inf]), ValueError, r"reward\['a_0'\]: expected finite"),
        (spoiled("reward", "a_0", [1.0, 1e30]), ValueError, r"reward\['a_0'\]: expected numbers"),
        (spoiled("reward", "a_0", ["x", "y"]), TypeError, r"reward\['a_0'\]: expected numbers"),
        (spoiled("done", "a_0", [0.5, 1]), ValueError, r"done\['a_0'\]: expected True or False"),
        ({**step(1), "is_vectorised": False}, ValueError, "expected 2 environments.*False says"),
        ({**step(1), "state": {}}, ValueError, "state: expected what at least one agent sees"),
        (
            {**step(1), "infos": {"a_0": {"action_mask": np.ones((2, 2))}}},
            ValueError,
            "action_mask: expected none, .* collect by collect_rollouts_recurrent",
        ),
    ],
)
def test_what_cannot_be_saved(given: Any, error: type[Exception], message: str) -> None:
    memory = make_memory()
    memory.save_to_memory(**step(0))
    with pytest.raises(error, match=message):
        memory.save_to_memory(**given)
    memory.save_to_memory(**step(1))  # as if nothing had been
    assert (memory.memory.written == 2).all()


def test_what_cannot_be_sampled() -> None:
    memory = make_memory()
    memory.save_to_memory(**step(0))
    with pytest.raises(RuntimeError, match="at least batch_size = 3 steps in the memory, got 2"):
        memory.sample(3)
    with pytest.raises(ValueError, match="batch_size: expected"):
        memory.sample(0)


def test_agents_that_it_is_not_for() -> None:
    env = team_env()
    memory = MultiAgentReplayBuffer(100, agent_ids=env.possible_agents)
    played(memory, make_team(env, action_pairs=True), env, 12)
    sample = memory.sample(8)
    with pytest.raises(ValueError, match=r"as this agent remembers, .* collect_rollouts_recurrent"):
        make_team(env, recurrent=True).learn(sample)
    with pytest.raises(ValueError, match=r"expected width of previous .* 1, got 0"):
        make_team(env, previous_reward=True).learn(sample)
    with pytest.raises(ValueError, match="action_pairs: expected False for agents with memory"):
        make_team(env, recurrent=True, action_pairs=True)
    alone = {"groups": {"x": env.possible_agents[:1], "y": env.possible_agents[1:]}}
    other = MultiAgentReplayBuffer(100, agent_ids=env.possible_agents, **alone)
    with pytest.raises(ValueError, match=r"memory: expected the agents .* of pop, got .*'x'"):
        train_multi_agent_off_policy(env, "team", "MADDPG", [make_team(env)], other)
    collector = make_team(env, previous_reward=True)
    collector.memory = memory.memory
    with pytest.raises(ValueError, match="memory: expected extra"):
        collect_rollouts_recurrent(collector, env)


def test_observations_of_other_dtypes_need_spaces() -> None:
    """Whole numbers in a Box are stored as floats, which nobody can see by the numbers."""
    box, act = spaces.Box(-5, 5, (2,), np.int64), spaces.Discrete(3)
    agent = MADDPG([box] * 2, [act] * 2, ["x_0", "x_1"], recurrent=False, batch_size=2)
    for known in ({}, {"observation_spaces": [box] * 2, "action_spaces": [act] * 2}):
        memory = MultiAgentReplayBuffer(50, agent_ids=["x_0", "x_1"], **known)
        seen = {name: np.array([[1, 2]]) for name in ("x_0", "x_1")}
        chosen, nothing = ({name: np.array([k]) for name in seen} for k in (2, 0))
        for _ in range(3):
            memory.save_to_memory(seen, chosen, nothing, seen, nothing, is_vectorised=True)
        if known:
            agent.learn(memory.sample(2))
        else:
            with pytest.raises(ValueError, match=r"expected dtype of observations .* its spaces$"):
                agent.learn(memory.sample(2))


def test_nested_observations() -> None:
    space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "y": spaces.Discrete(3)})
    act = spaces.Box(-1, 1, (1,))
    agent = MADDPG([space], [act], ["x_0"], recurrent=False, batch_size=2)
    memory = MultiAgentReplayBuffer(
        50, agent_ids=["x_0"], observation_spaces=[space], action_spaces=[act]
    )
    seen = {"x_0": {"x": np.array([0.5, 0.25], dtype=np.float32), "y": 2}}
    for _ in range(3):
        memory.save_to_memory(seen, {"x_0": [0.1]}, {"x_0": 1.0}, seen, {"x_0": False})
    agent.learn(memory.sample(2))
    wide = {"x_0": {"x": np.zeros((1, 2), np.float32), "y": np.array([1])}}
    memory.save_to_memory(
        wide, {"x_0": [[0.1]]}, {"x_0": [1.0]}, wide, {"x_0": [False]}, is_vectorised=True
    )
    assert len(memory) == 4


# --- other libraries' habits --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net_config", "init_hp", "recurrent"),
    [
        (None, {}, False),
        ({"speaker_0": {"encoder_config": {"hidden_size": [8]}}}, {}, False),
        ({"speaker_0": {"encoder_config": {"hidden_state_size": 8}}}, {}, True),
        (None, {"RECURRENT": True}, True),
    ],
)
def test_populations_without_memory_unless_one_asks(
    net_config: Any, init_hp: dict[str, Any], recurrent: bool
) -> None:
    ids = ["speaker_0", "listener_0"]
    box = [spaces.Box(-1, 1, (3,))] * 2
    pop = create_population(
        "MATD3", box, box, net_config, {"AGENT_IDS": ids, **init_hp}, population_size=1
    )
    assert pop[0].config.recurrent == recurrent
    assert pop[0].action_pairs != recurrent
    assert "ACTION_PAIRS" not in init_hp
    (other,) = create_population("IPPO", box, box, INIT_HP={"AGENT_IDS": ids}, population_size=1)
    assert isinstance(other, IPPO)


def test_channels_to_first() -> None:
    image, vector = np.arange(24).reshape(1, 2, 4, 3), np.zeros((1, 5))
    moved = obs_channels_to_first({"a": image, "b": (vector, image)})
    assert moved["a"].shape == (1, 3, 2, 4)
    assert moved["b"][0] is vector
    assert moved["a"][0, 2, 1, 3] == image[0, 1, 3, 2]
    space = gym.spaces.Dict(
        {"a": spaces.Box(0, 255, (2, 4, 3), np.uint8), "b": spaces.Tuple([spaces.Discrete(2)])}
    )
    swapped = observation_space_channels_to_first(space)
    assert swapped["a"] == spaces.Box(0, 255, (3, 2, 4), np.uint8)
    assert swapped["b"] == space["b"]


def test_swapping_channels_has_no_effect_in_tests() -> None:
    env = team_env()
    agent = make_team(env)
    agent.test(env, loop=1, swap_channels=False)
    with pytest.warns(UserWarning, match="^swap_channels=True has no effect") as caught:
        agent.test(env, loop=1, swap_channels=True)
    assert caught[0].filename == __file__


def test_what_a_loop_has_saved_is_learned_from_by_the_training_function() -> None:
    env = team_env()
    agent = make_team(env, action_pairs=True, learning_starts=0, learn_step=8)
    memory = MultiAgentReplayBuffer(500, agent_ids=env.possible_agents)
    played(memory, agent, env, 12)
    options: dict[str, Any] = {"max_steps": 32, "evo_steps": 32, "verbose": False}
    train_multi_agent_off_policy(env, "team", "MADDPG", [agent], memory, **options)
    assert memory.counter == 24 + 32
    assert agent.memory is memory.memory
    assert agent.learner.updates == 4
    played(memory, agent, env, 3)  # and the loop goes on
    assert len(memory) == 62
    agent.learn(memory.sample(8))
