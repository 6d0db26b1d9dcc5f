"""Tests of the fakes in `support.multi_envs`: a wrong fake would let wrong code pass."""

import doctest
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from support import multi_envs
from support.envs import NAN_REWARD, Recall
from support.multi_envs import (
    Crowd,
    OneAgent,
    RecallTeam,
    ScriptedParallel,
    TurnTaking,
    scripted_makers,
)

COME_AND_GO = {
    "bob_0": [(0, 6, "l")],
    "fred_0": [(2, 3, "t")],
    "bob_1": [(0, 1, "t"), (3, 5, "b"), (6, 8, "t")],
    "bob_2": [(4, 8, "l")],
}
TOGETHER = {"bob_0": [(0, 4, "l")], "bob_1": [(0, 4, "l")]}


def legal(env: Any, infos: dict[str, Any]) -> dict[str, Any]:
    """An action for each agent, the first that its mask in ``infos`` allows."""
    return {
        agent: env.action_space(agent).start + int(np.argmax(infos[agent]["action_mask"]))
        for agent in env.agents
    }


def play(env: ScriptedParallel, steps: int, action: int = 1) -> list[Any]:
    """What reset, with None for what it does not return, and each step return."""
    observations, infos = env.reset(seed=0)
    results = [(observations, None, None, None, infos)]
    for _ in range(steps):
        results.append(env.step(dict.fromkeys(env.agents, action)))
    return results


def test_docstring_examples_run() -> None:
    failed, attempted = doctest.testmod(multi_envs)
    assert failed == 0
    assert attempted >= 10


@pytest.mark.filterwarnings("ignore")  # the module of the tests warns when it is imported
class TestProgrammingInterface:
    """PettingZoo's own checks, where the scripts allow it: nobody enters again."""

    @pytest.mark.parametrize(
        "env",
        [
            ScriptedParallel([TOGETHER]),
            ScriptedParallel([TOGETHER], masks="observation", reuse=True),
            ScriptedParallel([TOGETHER], observation="discrete", action="box"),
            ScriptedParallel([{"bob_0": [(0, 5, "b")], "fred_0": [(2, 3, "t")]}, TOGETHER]),
            ScriptedParallel([TOGETHER], observation={"bob_0": "matrix", "bob": "wide"}),
        ],
    )
    def test_scripted(self, env: ScriptedParallel) -> None:
        from pettingzoo.test import parallel_api_test

        parallel_api_test(env, 100)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: OneAgent(gym.make("CartPole-v1", max_episode_steps=9)),
            lambda: RecallTeam(k=3, stagger=2),
            lambda: Crowd(3),
        ],
        ids=["OneAgent", "RecallTeam", "Crowd"],
    )
    def test_seeded(self, make: Any) -> None:
        from pettingzoo.test import parallel_api_test, parallel_seed_test

        parallel_api_test(make(), 100)
        parallel_seed_test(make, 20)

    @pytest.mark.parametrize("masks", ["info", "observation"])
    @pytest.mark.parametrize("script", ["9t", "7l 3t", "2b", "1t"])
    def test_turns(self, script: str, masks: str) -> None:
        from pettingzoo.test import api_test

        api_test(TurnTaking(script, masks=masks, dies={"player_1": 2}), 100)
        api_test(TurnTaking(script, players=2, masks=masks), 100)


class TestScriptedParallel:
    def test_agents_come_and_go(self) -> None:
        env = ScriptedParallel([COME_AND_GO, TOGETHER])
        assert env.possible_agents == ["bob_0", "fred_0", "bob_1", "bob_2"]
        env.reset(seed=0)
        listed = env.agents
        alive, flags = [env.agents[:]], []
        for _ in range(8):
            *_, terminations, truncations, _ = env.step(dict.fromkeys(env.agents, 1))
            alive.append(env.agents[:])
            ended = [(n, terminations[n], truncations[n]) for n in terminations]
            flags.append({n: "tl"[truncated] for n, died, truncated in ended if died != truncated})
            flags[-1] |= {n: "b" for n, died, truncated in ended if died and truncated}
        assert alive == [
            ["bob_0", "bob_1"],
            ["bob_0"],
            ["bob_0", "fred_0"],
            ["bob_0", "bob_1"],
            ["bob_0", "bob_1", "bob_2"],
            ["bob_0", "bob_2"],
            ["bob_2", "bob_1"],
            ["bob_2", "bob_1"],
            [],
        ]
        expected = [{"bob_1": "t"}, {}, {"fred_0": "t"}, {}, {"bob_1": "b"}, {"bob_0": "l"}, {}]
        assert flags == [*expected, {"bob_1": "t", "bob_2": "l"}]
        with pytest.raises(AssertionError, match="behind the end"):
            env.step({})
        env.reset()
        assert env.agents == ["bob_0", "bob_1"]
        assert env.agents is listed
        assert env.episode == 1

    def test_numbers_are_those_announced(self) -> None:
        env = ScriptedParallel([COME_AND_GO], index=2)
        env.reset(seed=1)
        for step in range(1, 9):
            actions = {agent: 1 + (step + i) % 3 for i, agent in enumerate(env.agents)}
            observations, rewards, *flags, infos = env.step(actions)
            assert set(observations) == set(rewards) == set(infos)
            assert set(observations) == set(env.agents) | set(actions)
            assert all(list(each) == list(rewards) for each in [observations, infos, *flags])
            for agent, observation in observations.items():
                assert env.observation_space(agent).contains(observation)
                np.testing.assert_array_equal(observation, env.observation_of(agent, 0, step))
                entered = agent not in actions
                expected = 0 if entered else env.reward_of(agent, 0, step, actions[agent])
                assert rewards[agent] == expected
        assert env.received["bob_1"] == [3, 3, 1, 3, 1]
        # The numbers themselves, once: whose they are, and when.
        env.reset()
        np.testing.assert_allclose(
            env.observation_of("fred_0", 1, 3)[1],
            np.sin(1 + 0.7071 * 2 + 0.3717 * 1 + 1.3147 * 1 + 0.5309 * 3 + 2.0),
            rtol=1e-5,
        )
        assert env.reward_of("fred_0", 1, 3, 2) == np.cos(2 + 0.61 * 1 + 1 + 0.9 * 3) + 0.3 * 2

    def test_no_two_observations_are_alike(self) -> None:
        envs = [ScriptedParallel([COME_AND_GO], index) for index in range(4)]
        every = [
            envs[index].observation_of(agent, episode, step)
            for index in range(4)
            for agent in COME_AND_GO
            for episode in range(4)
            for step in range(12)
        ]
        assert len(np.unique(np.round(every, 5), axis=0)) == len(every)

    def test_order_of_dictionaries_changes(self) -> None:
        results = play(ScriptedParallel([TOGETHER]), 3)
        orders = [list(observations) for observations, *_ in results]
        assert orders == [["bob_0", "bob_1"], ["bob_1", "bob_0"]] * 2

    def test_seed_begins_the_script_anew(self) -> None:
        env = ScriptedParallel([COME_AND_GO, TOGETHER])
        for seed, episode in [(None, 0), (None, 1), (None, 2), (3, 0), (None, 1), (4, 0)]:
            observations, _ = env.reset(seed=seed)
            assert env.episode == episode
            first = env.observation_of("bob_0", episode, 0)
            np.testing.assert_array_equal(observations["bob_0"], first)
        assert env.seeds == [None, None, None, 3, None, 4]

    @pytest.mark.parametrize("asks", ["agents", "shown"])
    def test_absent_agents_live(self, asks: str) -> None:
        env = ScriptedParallel([TOGETHER] * 2, asks=asks, absent={("bob_0", 2), ("bob_1", 1, 4)})
        for episode in range(2):
            env.reset(seed=0 if episode == 0 else None)
            for step in range(1, 5):
                present = ["bob_1"] if step == 3 and asks == "shown" else env.agents
                observations, rewards, _, truncations, infos = env.step(dict.fromkeys(present, 1))
                gone = {2: "bob_0", 4: "bob_1" if episode else None}.get(step)
                assert set(observations) == {"bob_0", "bob_1"} - {gone}
                assert set(rewards) == set(truncations) == set(infos) == {"bob_0", "bob_1"}
        assert len(env.received["bob_0"]) == (8 if asks == "agents" else 6)

    @pytest.mark.parametrize("actions", [{}, {"bob_0": 1}, {"bob_0": 1, "bob_1": 1, "fred_0": 1}])
    def test_actions_of_exactly_its_agents(self, actions: dict[str, int]) -> None:
        env = ScriptedParallel([COME_AND_GO])
        env.reset()
        with pytest.raises(AssertionError, match="expected actions of"):
            env.step(actions)

    @pytest.mark.parametrize("masks", ["info", "observation"])
    def test_masks(self, masks: str) -> None:
        env = ScriptedParallel(
            [COME_AND_GO], 1, masks=masks, action={"bob": "many", "fred_0": "discrete"}
        )
        observations, infos = env.reset(seed=0)
        for step in range(8):
            given = infos if masks == "info" else observations
            for agent in env.agents:
                number = env.possible_agents.index(agent)
                count = env.action_space(agent).n
                expected = [(1 + number + step + i) % 3 != 0 for i in range(count)]
                assert given[agent]["action_mask"].tolist() == expected
                assert env.observation_space(agent).contains(observations[agent])
            actions = legal(env, given)
            agent = env.agents[0]
            forbidden = env.action_space(agent).start + int(np.argmin(given[agent]["action_mask"]))
            with pytest.raises(AssertionError, match="forbidden"):
                env.step({**actions, agent: forbidden})
            env.received[agent].clear()
            observations, _, terminations, _, infos = env.step(actions)
        given = infos if masks == "info" else observations
        assert terminations["bob_1"]
        assert not given["bob_1"]["action_mask"].any()

    def test_env_defined_actions(self) -> None:
        defined = {("bob_0", 1): 3, ("bob_1", 1, 2): 2, ("fred_0", 0): np.float32([0.5, 2])}
        team = {**TOGETHER, "fred_0": [(0, 4, "l")]}
        env = ScriptedParallel(
            [team] * 2, defined=defined, action={"bob": "discrete", "fred": "box"}
        )
        for episode in range(2):
            _, infos = env.reset(seed=0 if episode == 0 else None)
            for step in range(4):
                told: dict[str, Any] = {
                    agent: info.get("env_defined_actions", "missing")
                    for agent, info in infos.items()
                }
                silent = None if step % 2 == 0 else "missing"
                if step == 0:
                    assert told.pop("fred_0").tolist() == [0.5, 2]
                elif step == 1:
                    assert told.pop("bob_0").tolist() == [3]
                elif (episode, step) == (1, 2):
                    assert told.pop("bob_1").tolist() == [2]
                assert list(told.values()) == [silent] * len(told)
                actions = {"bob_0": 3, "bob_1": 2, "fred_0": np.float32([0.5, 2])}
                if step == 1:
                    with pytest.raises(AssertionError, match="bob_0: told 3, got 1"):
                        env.step({**actions, "bob_0": 1})
                infos = env.step(actions)[-1]

    def test_poison_is_where_it_was_put(self) -> None:
        poison = {("bob_0", 2): np.nan, ("bob_1", 0, 3): NAN_REWARD, ("bob_1", 1, 0): np.inf}
        env = ScriptedParallel([TOGETHER], poison=poison)
        found = []
        for episode in range(2):
            observations, _ = env.reset(seed=0 if episode == 0 else None)
            rewards: dict[str, float] = {}
            for step in range(5):
                for agent, values in observations.items():
                    assert np.all(np.isfinite(values[1:]))
                    if not np.isfinite(values[0]):
                        found.append((agent, episode, step, "observation"))
                bad = [agent for agent, reward in rewards.items() if np.isnan(reward)]
                found += [(agent, episode, step, "reward") for agent in bad]
                if step < 4:
                    observations, rewards, *_ = env.step({"bob_0": 1, "bob_1": 1})
        assert found == [
            ("bob_0", 0, 2, "observation"),
            ("bob_1", 0, 3, "reward"),
            ("bob_1", 1, 0, "observation"),
            ("bob_0", 1, 2, "observation"),
        ]

    @pytest.mark.parametrize("reuse", [False, True])
    def test_arrays_are_reused_when_asked_for(self, reuse: bool) -> None:
        results = play(ScriptedParallel([TOGETHER], reuse=reuse), 2)
        first, second = (observations["bob_0"] for observations, *_ in results[1:])
        assert (first is second) == reuse
        assert np.array_equal(first, second) == reuse

    @pytest.mark.parametrize(
        "lives",
        [
            [(0, 3, "t"), (3, 4, "t")],
            [(0, 0, "t")],
            [(1, 3, "t")],
            [(0, 2, "t"), (4, 5, "t")],
            [(0, 2, "x")],
        ],
        ids=["touching", "no step", "nobody at reset", "nobody for a while", "unknown end"],
    )
    def test_impossible_scripts(self, lives: Any) -> None:
        with pytest.raises(AssertionError):
            ScriptedParallel([{"bob_0": lives}])

    def test_makers_number_environments(self) -> None:
        makers = scripted_makers(
            [[TOGETHER], [COME_AND_GO]], only={1: {"masks": "info"}}, action="many"
        )
        envs = [pickle.loads(pickle.dumps(maker))() for maker in makers]
        assert [(env.index, env.masks) for env in envs] == [(0, None), (1, "info")]
        assert [env.episodes for env in envs] == [[TOGETHER], [COME_AND_GO]]
        assert all(env.action_space("bob_0").n == 5 for env in envs)


def test_one_agent_is_the_environment() -> None:
    """Seeds, observations, rewards, ends: as in a vector environment, but for batching."""
    vector = SyncVectorEnv([lambda: Recall(3)] * 1, autoreset_mode=AutoresetMode.SAME_STEP)
    env = OneAgent(Recall(3))
    assert env.observation_space("agent_0") == vector.single_observation_space
    expected, _ = vector.reset(seed=4)
    observations, infos = env.reset(seed=4)
    assert infos == {"agent_0": {}}
    ended = 0
    for step in range(30):
        np.testing.assert_array_equal(observations["agent_0"], expected[0])
        expected, reward, terminated, truncated, info = vector.step(np.array([step % 2]))
        observations, *results, _ = env.step({"agent_0": step % 2})
        assert results == [{"agent_0": each[0]} for each in (reward, terminated, truncated)]
        assert env.agents == ([] if terminated[0] else ["agent_0"])
        if terminated[0]:
            ended += 1
            np.testing.assert_array_equal(observations["agent_0"], info["final_obs"][0])
            observations, _ = env.reset()
    assert ended == 7


class TestTurnTaking:
    def turns(self, env: TurnTaking, seed: int | None = None) -> list[Any]:
        """(agent, its observation, reward since its last turn, ended by) for a whole episode."""
        env.reset(seed=seed)
        turns = []
        for agent in env.agent_iter():
            observation, reward, terminated, truncated, _ = env.last()
            turns.append((agent, observation, reward, "t" * terminated + "l" * truncated))
            env.step(None if terminated or truncated else 1 + env.time % 3)
        return turns

    def test_episodes(self) -> None:
        env = TurnTaking("6t 4l 1b", dies={"player_1": 3})
        p, q, r = env.possible_agents
        assert [(turn[0][-1], turn[3]) for turn in self.turns(env, 0)] == [
            *[("0", ""), ("1", ""), ("2", ""), ("1", "t"), ("0", ""), ("2", ""), ("0", "")],
            *[("0", "t"), ("2", "t")],
        ]
        assert env.received == {p: [1, 1, 3], q: [2], r: [3, 2]}
        assert [turn[3] for turn in self.turns(env)] == ["", "", "", "t", "", "l", "l"]
        assert [turn[3] for turn in self.turns(env)] == ["", "tl", "tl", "tl"]
        assert env.episode == 2
        self.turns(env, 5)
        assert env.episode == 0
        assert env.seeds == [0, None, None, 5]

    def test_numbers_are_those_announced(self) -> None:
        env = TurnTaking("5l", players=2, index=3)
        owed = dict.fromkeys(env.possible_agents, 0.0)
        actor = 0
        for turn, (agent, observation, reward, _) in enumerate(self.turns(env, 0)):
            time = min(turn, 5)
            np.testing.assert_array_equal(observation, env.observation_of(agent, 0, time))
            assert reward == pytest.approx(owed[agent])
            if turn < 5:
                assert agent == f"player_{actor}"
                actor = 1 - actor
                owed[agent] = 0
                for other in owed:
                    owed[other] += env.reward_of(other, 0, turn + 1, 1 + turn % 3)

    @pytest.mark.parametrize("masks", ["info", "observation"])
    def test_only_the_actor_may_act(self, masks: str) -> None:
        env = TurnTaking("6t", masks=masks, dies={"player_1": 2})
        env.reset(seed=0)
        acted = 0
        for agent in env.agent_iter():
            given = {name: env.infos[name] for name in env.agents}
            if masks == "observation":
                given = {name: env.observe(name) for name in env.agents}
            dead = env.terminations[agent]
            may = {name: mask["action_mask"].tolist() for name, mask in given.items()}
            expected = env.mask_of(agent, 0, env.time).tolist()
            assert may.pop(agent) == ([0, 0, 0] if dead else expected)
            assert all(mask == [0, 0, 0] for mask in may.values())
            if not dead:
                with pytest.raises(AssertionError, match="forbidden"):
                    env.step(1 + expected.index(0))
            acted += not dead
            env.step(None if dead else 1 + expected.index(1))
        assert acted == 6


class TestRecallTeam:
    @pytest.mark.parametrize("stagger", [0, 2])
    def test_own_bit_is_the_answer(self, stagger: int) -> None:
        env = RecallTeam(agents=3, k=4, stagger=stagger)
        own = others = games = 0
        for game in range(50):
            observations, _ = env.reset(seed=1 if game == 0 else None)
            shown = {agent: int(values[0] > 0) for agent, values in observations.items()}
            assert all(values[1] == 0 for values in observations.values())
            asked = {}
            for step in range(5 + 2 * stagger):
                asked |= {n: step for n, values in observations.items() if values[1] and step}
                neighbour = {"a_0": "a_1", "a_1": "a_2", "a_2": "a_0"}
                memory = shown if game % 2 else {n: shown[neighbour[n]] for n in shown}
                observations, rewards, terminations, _, _ = env.step(
                    {agent: memory[agent] for agent in env.agents}
                )
                assert all(values[0] == 0 for values in observations.values())
                assert {n for n, ended in terminations.items() if ended} == {
                    n for n, when in asked.items() if when == step
                }
                own += sum(rewards.values()) if game % 2 else 0
                others += 0 if game % 2 else sum(rewards.values())
            assert env.agents == []
            assert asked == {f"a_{i}": 4 + stagger * i for i in range(3)}
            games += 3
        assert own == games / 2
        assert 0.3 < others / (games / 2) < 0.7


def test_crowd_costs_nothing_and_repeats() -> None:
    env = Crowd(5, length=3)
    assert env.possible_agents == [f"walker_{i}" for i in range(5)]
    episodes = []
    for _ in range(2):
        results = [env.reset()[0]]
        for step in range(1, 4):
            observations, rewards, terminations, truncations, infos = env.step({})
            results.append(observations)
            assert list(rewards) == list(infos) == env.possible_agents
            assert not any(terminations.values())
            assert set(truncations.values()) == {step == 3}
            assert all(env.observation_space(n).contains(o) for n, o in observations.items())
        assert env.agents == []
        episodes.append(results)
    assert all(one is two for one, two in zip(*episodes, strict=True))
    assert len({values.tobytes() for each in results for values in each.values()}) == 20
