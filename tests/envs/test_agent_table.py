"""Tests of `recurrent_rl.envs.agent_table`: who is there, what they see, and what came of it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text
from hypothesis import given
from hypothesis import strategies as st
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.utils import BaseWrapper
from support.multi_envs import Episode, ScriptedParallel, TurnTaking

from recurrent_rl.envs.agent_table import AgentTable, check_alike, describe
from recurrent_rl.envs.environment_rows import environment_rows

NUMBERS = Box(-9, 9, (2,))
MASKED = Dict(observation=NUMBERS, action_mask=Box(0, 1, (3,), np.int8))
CHOICE = Discrete(3, start=1)


class Told(ParallelEnv[str, Any, Any]):
    """Returns exactly what it is told: agents listed, and the results of reset and of each step.

    A moment is a dictionary: ``listed``, ``seen``, ``rewards``, ``died``, ``cut``, ``infos``.
    """

    metadata: ClassVar[dict[str, Any]] = {"name": "told_v0", "render_modes": []}

    def __init__(self, *moments: dict[str, Any], agents: str = "ab", **spaces: Any) -> None:
        self.moments, self.possible_agents = moments, list(agents)
        self.spaces = {"observation": NUMBERS, "action": CHOICE, **spaces}
        self.agents: list[str] = []
        self.resets: list[Any] = []
        self.actions: list[dict[str, Any]] = []
        self.time = 0

    def _space(self, kind: str, agent: str) -> Any:
        space = self.spaces[kind]
        return space[agent] if type(space) is dict else space

    def observation_space(self, agent: str) -> Any:
        return self._space("observation", agent)

    def action_space(self, agent: str) -> Any:
        return self._space("action", agent)

    def _moment(self, time: int) -> dict[str, Any]:
        self.time = time
        moment = self.moments[time]
        self.agents = list(moment.get("listed", self.possible_agents))
        return moment

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.resets.append((seed, options))
        moment = self._moment(0)
        return moment.get("seen", {}), moment.get("infos", {})

    def step(self, actions: dict[str, Any]) -> Any:
        self.actions.append(actions)
        moment = self._moment(self.time + 1)
        flags = [{a: a in moment.get(x, "") for a in self.possible_agents} for x in ("died", "cut")]
        return moment.get("seen", {}), moment.get("rewards", {}), *flags, moment.get("infos", {})


def seen(agents: str = "ab", value: float = 1.0) -> dict[str, Any]:
    """Observations of some agents: ``value`` for the first, one more for each that follows."""
    return {agent: np.full(2, value + i) for i, agent in enumerate(agents)}


class Driver:
    """One environment as the second of two in a table whose other rows nobody may touch."""

    FILL: ClassVar[int] = 99

    def __init__(self, env: Any) -> None:
        self.env, self.table = env, AgentTable(describe(env), 2)
        self.rows = environment_rows(env, self.table, 1)
        for block in self.table.blocks:
            for array in vars(block).values():
                if isinstance(array, np.ndarray):
                    array[0] = self.FILL

    def reset(self, seed: int | None = None, options: Any = None) -> "Driver":
        self.rows.reset(seed, options)
        return self

    def step(self, actions: dict[str, Any] | None = None) -> "Driver":
        for agent, (block, i) in self.table.place.items():
            lowest = getattr(block.action_space, "start", 0)
            block.action[1, i] = (actions or {}).get(agent, lowest)
        self.rows.step()
        for block in self.table.blocks:
            for array in vars(block).values():
                if isinstance(array, np.ndarray):
                    assert (array[0] == np.full_like(array[0], self.FILL)).all()
        return self

    def __getitem__(self, name: str) -> str:
        """Agents whose flag is up."""
        found = [a for a, (b, i) in self.table.place.items() if getattr(b, name)[1, i]]
        return "".join(found)

    def of(self, agent: str, name: str) -> Any:
        """An agent's part of an array."""
        block, i = self.table.place[agent]
        return getattr(block, name)[1, i].tolist()

    @property
    def ended(self) -> bool:
        assert not self.table.ended[0]
        return bool(self.table.ended[1])


# --- description ------------------------------------------------------------------------------


class TestDescribe:
    def test_order_spaces_and_masks(self) -> None:
        spaces = {"a": NUMBERS, "b": MASKED, "c": Discrete(4)}
        found = describe(Told({}, agents="cab", observation=spaces))
        assert [(x.agent, x.observation, x.action, x.mask_in_observation) for x in found] == [
            ("c", Discrete(4), CHOICE, False),
            ("a", NUMBERS, CHOICE, False),
            ("b", NUMBERS, CHOICE, True),
        ]

    def test_turn_based(self) -> None:
        found = describe(TurnTaking("3t", masks="observation"))
        assert [x.agent for x in found] == ["player_0", "player_1", "player_2"]
        assert all(x.mask_in_observation for x in found)

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            (None, r"parallel or AEC environment, got NoneType"),
            (Told, r"parallel or AEC environment, got type"),
            (gym.make("CartPole-v1"), r"got TimeLimit; .*PPO and make_vect_envs"),
        ],
    )
    def test_wrong_kind(self, env: Any, message: str) -> None:
        with pytest.raises(TypeError, match=r"^env: expected .*" + message):
            describe(env)

    @pytest.mark.parametrize(
        ("spaces", "message"),
        [
            (
                {"action": Text(2)},
                r"^action_space: expected Discrete, MultiDiscrete, .*got Text\(.*\(agent 'a'\)$",
            ),
            (
                {"observation": {"a": NUMBERS, "b": Text(2)}},
                r"^observation_space: expected Box, Discrete, .*got Text\(.*\(agent 'b'\)$",
            ),
            (
                {"observation": Dict(observation=NUMBERS, other=Dict(deep=Text(2)))},
                r"^observation_space\['other'\]\['deep'\]: expected .*got Text\(.*\(agent 'a'\)$",
            ),
        ],
    )
    def test_unsupported_spaces(self, spaces: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            describe(Told({}, **spaces))

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            (Told({}, agents=""), r"possible_agents to name the agents .*, got none from"),
            (
                Told({}, action={"a": CHOICE}),
                r"action_space\('b'\) to return a space, got KeyError: 'b'; every agent",
            ),
            (
                Told({}, action={"a": CHOICE, "b": None}),
                r"action_space\('b'\) to return a space, got None; every agent",
            ),
            (
                Told({}, observation={"b": NUMBERS}),
                r"observation_space\('a'\) to return a space, got KeyError",
            ),
        ],
    )
    def test_without_agents_or_spaces(self, env: Any, message: str) -> None:
        with pytest.raises(ValueError, match=r"^env: expected " + message):
            describe(env)

    @pytest.mark.parametrize(
        ("agents", "message"),
        [
            ([0, 1], r"expected possible_agents to hold names, .* got 0 of type int"),
            ("ab", r"expected possible_agents to be a list of different names, .* got 'ab'"),
            ({"a"}, r"expected possible_agents to be a list of different names, .* got \{'a'\}"),
            (["a", "a"], r"expected possible_agents to be a list of different names"),
        ],
    )
    def test_agents_that_are_no_names(self, agents: Any, message: str) -> None:
        env = Told({})
        env.possible_agents = agents
        with pytest.raises(TypeError, match="^env: " + message):
            describe(env)

    def test_no_possible_agents_at_all(self) -> None:
        env = Told({})
        del env.possible_agents
        with pytest.raises(ValueError, match="possible_agents"):
            describe(env)

    def test_alike(self) -> None:
        spaces = describe(Told({}))
        check_alike(spaces, Told({}), 3)
        for other in (Told({}, agents="ba"), Told({}, agents="a"), Told({}, action=Discrete(3))):
            with pytest.raises(ValueError, match=r"^environment 3: .* like environment 0's"):
                check_alike(spaces, other, 3)


class TestBlocks:
    def test_agents_with_the_same_spaces_lie_together(self) -> None:
        observation = {"a": NUMBERS, "b": Discrete(5, start=2), "c": NUMBERS, "d": MASKED}
        action = {**dict.fromkeys("abcd", CHOICE), "e": Box(-1, 1, (2, 2))}
        env = Told({}, agents="abcde", observation=observation | {"e": NUMBERS}, action=action)
        table = AgentTable(describe(env), 3)
        assert [block.agents for block in table.blocks] == [["a", "c"], ["b"], ["d"], ["e"]]
        assert {a: (block.agents[i], i) for a, (block, i) in table.place.items()} == {
            "a": ("a", 0),
            "b": ("b", 0),
            "c": ("c", 1),
            "d": ("d", 0),
            "e": ("e", 0),
        }
        first, second, third, last = table.blocks
        assert (first.observation.shape, first.observation.dtype) == ((3, 2, 2), np.float32)
        assert first.final.shape == (3, 2, 2)
        assert (first.mask.shape, last.mask.shape) == ((3, 2, 3), (3, 1, 0))
        assert (second.observation.shape, second.observation.dtype) == ((3, 1), np.int64)
        assert third.mask_in_observation
        assert not first.mask_in_observation
        assert (last.action.shape, last.action.dtype) == ((3, 1, 2, 2), np.float32)
        assert first.reward.dtype == np.float64
        assert table.ended.shape == (3,)

    def test_bounds_of_actions_keep_agents_apart(self) -> None:
        action = {"a": Box(-1, 1, (2,)), "b": Box(-1, 2, (2,))}
        table = AgentTable(describe(Told({}, action=action)), 1)
        assert [block.agents for block in table.blocks] == [["a"], ["b"]]

    def test_memory_comes_from_the_allocator(self) -> None:
        given = []

        def allocate(shape: Any, dtype: Any) -> np.ndarray:
            given.append(np.zeros(shape, dtype))
            return given[-1]

        table = AgentTable(describe(Told({})), 2, allocate)
        arrays = [x for x in vars(table.blocks[0]).values() if isinstance(x, np.ndarray)]
        assert len(arrays) == 16
        assert {id(x) for x in [*arrays, table.ended, table.unearned]} == {id(x) for x in given}


# --- lives ------------------------------------------------------------------------------------


class TestLives:
    def test_begins_with_the_first_observation(self) -> None:
        env = Told(
            {"listed": "a", "seen": seen("a")},
            {"seen": seen("ab", 2)},
            {"seen": seen("ab", 4)},
            {"listed": "a", "seen": seen("ab", 6), "died": "b", "rewards": {"a": 1, "b": 2}},
            {"listed": "ab", "seen": seen("ba", 8)},
        )
        driver = Driver(env).reset()
        assert (driver["exists"], driver["start"]) == ("a", "a")
        assert driver.of("b", "observation") == [0, 0]
        driver.step()
        assert (driver["exists"], driver["start"], driver["lived"]) == ("ab", "b", "a")
        assert driver.of("b", "observation") == [3, 3]
        driver.step()
        assert (driver["exists"], driver["start"], driver["lived"]) == ("ab", "", "ab")
        driver.step()
        assert (driver["exists"], driver["lived"], driver["terminated"]) == ("a", "ab", "b")
        assert driver.of("b", "observation") == [0, 0]
        assert (driver.of("a", "reward"), driver.of("b", "reward")) == (1, 2)
        assert not driver.ended
        driver.step()
        assert (driver["exists"], driver["start"], driver["lived"]) == ("ab", "b", "a")
        assert (driver["terminated"], driver.of("b", "reward")) == ("", 0)
        assert (driver.of("a", "observation"), driver.of("b", "observation")) == ([9, 9], [8, 8])

    def test_goes_on_while_nothing_is_shown(self) -> None:
        """Listed or not, with None or nothing for an observation."""
        env = Told(
            {"seen": seen()},
            {"seen": seen("a") | {"b": None}},
            {"seen": seen("a"), "listed": "a"},
            {"seen": seen("ab"), "listed": "a"},
            {"seen": seen()},
        )
        driver = Driver(env).reset()
        for _ in range(3):
            driver.step()
            assert (driver["exists"], driver["start"], driver["lived"]) == ("a", "", "ab")
            assert driver.of("b", "observation") == [0, 0]
        driver.step()
        assert (driver["exists"], driver["start"]) == ("ab", "")
        assert [list(actions) for actions in env.actions] == [["a", "b"], ["a", "b"], ["a"], ["a"]]

    @pytest.mark.parametrize("listed", ["", "a", "ab"])
    def test_of_one_step(self, listed: str) -> None:
        """Whether the environment lists those who are done or not, all being done ends it."""
        env = Told(
            {"seen": seen()}, {"seen": seen("ab", 5), "died": "a", "cut": "b", "listed": listed}
        )
        driver = Driver(env).reset(3).step()
        assert (driver["lived"], driver["terminated"], driver["truncated"]) == ("ab", "a", "b")
        assert (driver["shown"], driver.of("b", "final")) == ("b", [6, 6])
        assert driver.ended
        # The next episode has begun, without a seed.
        assert env.resets == [(3, None), (None, None)]
        assert (driver["exists"], driver["start"]) == ("ab", "ab")
        assert driver.of("b", "observation") == [2, 2]

    def test_the_dead_may_stay_listed_and_flagged(self) -> None:
        env = Told(
            {"seen": seen()},
            {"seen": seen(), "died": "a"},
            {"seen": seen(), "died": "a"},
            {"seen": seen(), "died": "a", "cut": "b"},
        )
        driver = Driver(env).reset()
        for step in range(2):
            driver.step()
            # It may have come back at once; the second flag tells that it had not.
            assert (driver["exists"], driver["start"]) == (("ab", "a"), ("b", ""))[step]
            assert not driver.ended
            assert driver["lived"] == ("ab" if step == 0 else "b")
            assert (driver["terminated"], driver["void"]) == (("a", ""), ("", "a"))[step]
        driver.step()
        assert driver["void"] == ""
        assert (driver["lived"], driver["terminated"], driver["truncated"]) == ("b", "", "b")
        assert driver.ended
        assert list(env.actions[-1]) == ["a", "b"]

    @pytest.mark.parametrize("flag", ["died", "cut"])
    def test_back_at_once(self, flag: str) -> None:
        env = Told(
            {"seen": seen()},
            {"seen": seen("ab", 5), flag: "a", "rewards": {"a": 3, "b": 1}},
            {"seen": seen("ab", 7), "rewards": {"a": 4, "b": 1}},
            {"seen": seen("ab", 9), flag: "a", "rewards": {"a": 5, "b": 1}},
        )
        driver = Driver(env).reset().step()
        assert driver["terminated" if flag == "died" else "truncated"] == "a"
        assert (driver["exists"], driver["start"], driver["shown"]) == ("ab", "a", "")
        assert (driver.of("a", "observation"), driver.of("a", "reward")) == ([5, 5], 3)
        driver.step()
        assert (driver["exists"], driver["start"], driver["lived"]) == ("ab", "", "ab")
        assert (driver["terminated"] + driver["truncated"], driver.of("a", "reward")) == ("", 4)
        driver.step()
        assert (driver["start"], driver["void"], driver.of("a", "reward")) == ("a", "", 5)

    def test_back_at_once_with_a_last_observation_in_the_info(self) -> None:
        infos = {"a": {"final_observation": np.full(2, 8.0)}}
        env = Told({"seen": seen()}, {"seen": seen("ab", 5), "cut": "a", "infos": infos})
        driver = Driver(env).reset().step()
        assert (driver["shown"], driver.of("a", "final")) == ("a", [8, 8])
        assert driver.of("a", "observation") == [5, 5]

    def test_rewards_for_who_is_not_there_are_dropped(self) -> None:
        pay = {"a": 1, "b": 1, "c": 1}
        env = Told(
            {"seen": seen("ab"), "listed": "ab"},
            {"seen": seen("abc"), "died": "b", "listed": "ac", "rewards": pay},
            {"seen": seen("ac"), "listed": "ac", "rewards": pay},
            {"seen": seen("ac"), "died": "ac", "listed": "", "rewards": pay},
            agents="abc",
        )
        driver = Driver(env).reset()
        for there, paid_for_nothing in (("ab", "c"), ("ac", "b"), ("ac", "b")):
            driver.step()
            rewards = "".join(agent for agent in "abc" if driver.of(agent, "reward"))
            assert driver["lived"] == rewards == there
            assert "abc"[driver.table.unearned[1] - 1] == paid_for_nothing

    def test_all_at_once_by_the_name_all(self) -> None:
        class Everybody(Told):
            def step(self, actions: dict[str, Any]) -> Any:
                observations, rewards, died, cut, infos = super().step(actions)
                over = self.moments[self.time].get("all", False)
                cut["__all__"] = over and not any(died.values())
                return observations, rewards, {**died, "__all__": over}, cut, infos

        env = Everybody({"seen": seen()}, {"seen": seen()}, {"seen": seen(), "all": True})
        driver = Driver(env).reset().step()
        assert (driver["terminated"], driver.ended) == ("", False)
        driver.step()
        assert (driver["terminated"], driver.ended) == ("ab", True)

    def test_both_flags_are_kept(self) -> None:
        env = Told({"seen": seen()}, {"seen": seen(), "died": "a", "cut": "ab", "listed": ""})
        driver = Driver(env).reset().step()
        assert (driver["terminated"], driver["truncated"]) == ("a", "ab")

    @pytest.mark.parametrize(
        ("flags", "terminated", "truncated"),
        [
            ({}, "abc", ""),
            ({"died": "b"}, "abc", ""),
            ({"cut": "b"}, "", "abc"),
            ({"died": "b", "cut": "c"}, "b", "ac"),
        ],
    )
    def test_forgotten_at_the_end_share_the_others_fate(
        self, flags: dict[str, str], terminated: str, truncated: str
    ) -> None:
        env = Told({"seen": seen("abc")}, {"listed": "", "seen": seen("b"), **flags}, agents="abc")
        driver = Driver(env).reset().step()
        assert driver.ended
        assert (driver["terminated"], driver["truncated"]) == (terminated, truncated)
        assert driver["shown"] == ("b" if "b" in truncated else "")
        assert driver["start"] == "abc"

    def test_flags_are_of_one_step(self) -> None:
        env = Told(
            {"seen": seen("abc")},
            {"seen": seen("abc"), "died": "a", "cut": "b", "listed": "c", "rewards": {"c": 1}},
            {"seen": seen("c"), "listed": "c"},
            agents="abc",
        )
        driver = Driver(env).reset().step().step()
        for name in ("terminated", "truncated", "shown", "start"):
            assert driver[name] == "", name
        assert driver.of("c", "reward") == 0
        assert not driver.ended

    def test_whoever_was_dead_or_absent_before_is_alive_after_the_end(self) -> None:
        env = Told(
            {"seen": seen("a"), "listed": "a"},
            {"seen": seen("ab"), "died": "a", "listed": "b"},
            {"seen": seen("b"), "listed": "", "cut": "b"},
        )
        driver = Driver(env).reset()
        assert driver.step()["lived"] == "a"
        driver.step()
        assert (driver["lived"], driver["exists"], driver["start"]) == ("b", "a", "a")
        driver.env.time = 0
        assert driver.step()["lived"] == "a"

    def test_reset_in_the_middle(self) -> None:
        env = Told({"seen": seen()}, {"seen": seen("b"), "died": "a", "listed": "b"})
        driver = Driver(env).reset().step().reset(7, {"x": 1})
        assert (driver["exists"], driver["start"]) == ("ab", "ab")
        assert env.resets[-1] == (7, {"x": 1})

    def test_order_is_that_of_possible_agents(self) -> None:
        env = Told(
            {"listed": "cab", "seen": seen("cab")},
            {"listed": "bca", "seen": seen("bca"), "rewards": {"c": 3, "b": 2, "a": 1}},
            agents="abc",
        )
        driver = Driver(env).reset()
        block = driver.table.blocks[0]
        assert block.observation[1, :, 0].tolist() == [2, 3, 1]
        driver.step({"a": 1, "b": 2, "c": 3})
        assert block.observation[1, :, 0].tolist() == [3, 1, 2]
        assert block.reward[1].tolist() == [1, 2, 3]
        assert env.actions == [{"a": 1, "b": 2, "c": 3}]

    def test_blanks_are_the_lowest_choice(self) -> None:
        env = Told(
            {"seen": {"a": 4}, "listed": "a"},
            {"seen": {"a": 5, "b": 6}},
            {"seen": {"a": 3}},
            observation=Discrete(5, start=2),
        )
        driver = Driver(env)
        assert driver.of("a", "observation") == 2
        driver.reset()
        assert (driver.of("a", "observation"), driver.of("b", "observation")) == (4, 2)
        driver.step()
        assert driver.of("b", "observation") == 6
        driver.step()
        assert driver.of("b", "observation") == 2

    def test_actions_are_copies_in_the_environments_form(self) -> None:
        env = Told({"seen": seen()}, {"seen": seen()}, action=Box(-1, 1, (2,)))
        driver = Driver(env).reset().step({"a": [0.5, 1], "b": 0})
        (block,) = driver.table.blocks
        assert env.actions[0]["a"].dtype == np.float32
        block.action[:] = 7
        assert env.actions[0]["a"].tolist() == [0.5, 1]


def episodes(seed: int) -> list[dict[str, Any]]:
    """Two random episodes of three agents."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    while len(found) < 2:
        lives: dict[str, Any] = {}
        for name in ("c", "a", "b"):
            ends = np.sort(rng.choice(8, 2 * rng.integers(0, 3), replace=False)).tolist()
            pairs = zip(ends[::2], ends[1::2], strict=True)
            lives[name] = [(enter, leave, "tlb"[rng.integers(3)]) for enter, leave in pairs]
        try:
            if any(lives.values()):
                ScriptedParallel([lives])
                found.append(lives)
        except AssertionError:
            pass
    return found


@given(script=st.integers(0, 2**32).map(episodes), kind=st.sampled_from(["box", "discrete"]))
def test_any_script(script: Sequence[Episode], kind: str) -> None:
    """What is seen and flagged is what the lives say; rows are never mixed up."""
    env = ScriptedParallel(script, observation=kind, reuse=True)
    driver = Driver(env).reset(0)
    step = episode = 0
    for _ in range(25):
        living = {
            agent: life
            for agent in env.possible_agents
            for life in env.lives_of(agent, episode)
            if life[0] <= step < life[1]
        }
        there = [a for a in env.possible_agents if a in living]
        begun = [a for a in there if living[a][0] == step]
        assert (sorted(driver["exists"]), sorted(driver["start"])) == (sorted(there), sorted(begun))
        blank = 2 if kind == "discrete" else [0, 0, 0]
        for agent in env.possible_agents:
            shown = np.asarray(env.observation_of(agent, episode, step)).tolist()
            assert driver.of(agent, "observation") == (shown if agent in living else blank)
        driver.step({a: 1 + i for i, a in enumerate(env.possible_agents)})
        leaving = {a: life[2] for a, life in living.items() if life[1] == step + 1}
        assert set(driver["lived"]) == set(living)
        assert set(driver["terminated"]) == {a for a, how in leaving.items() if how in "tb"}
        assert set(driver["truncated"]) == {a for a, how in leaving.items() if how in "lb"}
        for agent, how in leaving.items():
            if how == "l":
                final = np.asarray(env.observation_of(agent, episode, step + 1)).tolist()
                assert driver.of(agent, "final") == final
        for i, agent in enumerate(env.possible_agents):
            earned = env.reward_of(agent, episode, step + 1, 1 + i) if agent in living else 0
            assert driver.of(agent, "reward") == earned
        step += 1
        over = step == max(x[1] for a in env.possible_agents for x in env.lives_of(a, episode))
        assert driver.ended == over
        if over:
            step, episode = 0, episode + 1


# --- masks and actions that the environment has chosen ----------------------------------------


class TestMasks:
    def test_from_infos(self) -> None:
        mask = np.array([0, 1, 1], np.int8)
        env = Told(
            {"seen": seen(), "infos": {"a": {"action_mask": mask}}},
            {"seen": seen(), "infos": {"b": {"action_mask": [1, 0, 0]}}},
            {"seen": seen()},
        )
        driver = Driver(env).reset()
        block = driver.table.blocks[0]
        assert block.masked[1]
        assert block.mask[1].tolist() == [[False, True, True], [True] * 3]
        driver.step()
        assert block.mask[1].tolist() == [[True] * 3, [True, False, False]]
        driver.step()
        assert block.mask[1].all()
        assert block.masked[1]

    def test_from_observations(self) -> None:
        def shown(*mask: int) -> Any:
            return {"observation": np.ones(2), "action_mask": np.array(mask, np.int8)}

        env = Told(
            {"seen": {"a": shown(1, 1, 0)}, "listed": "a"},
            {"seen": {"a": shown(0, 0, 1), "b": shown(0, 1, 0)}},
            {"seen": {"a": shown(0, 0, 0), "b": shown(1, 1, 0)}, "cut": "a", "listed": "b"},
            observation=MASKED,
        )
        driver = Driver(env).reset()
        assert driver.of("a", "mask") == [True, True, False]
        assert driver.of("b", "mask") == [True] * 3
        driver.step()
        assert driver.of("a", "mask") == [False, False, True]
        assert driver.of("b", "mask") == [False, True, False]
        driver.step()
        assert driver.of("b", "mask") == [True, True, False]
        assert (driver["shown"], driver.of("a", "final")) == ("a", [1, 1])
        assert driver["exists"] == "b"

    def test_infos_win_over_observations(self) -> None:
        shown = {"observation": np.ones(2), "action_mask": np.ones(3, np.int8)}
        env = Told(
            {"seen": {"a": shown}, "infos": {"a": {"action_mask": [0, 1, 0]}}},
            agents="a",
            observation=MASKED,
        )
        assert Driver(env).reset().of("a", "mask") == [False, True, False]

    @pytest.mark.parametrize(
        ("moment", "masked"),
        [
            ({"seen": seen()}, False),
            ({"seen": seen(), "infos": {"a": {"action_mask": [1, 1, 1]}}}, True),
            ({"seen": seen("a"), "listed": "a"}, True),  # room for the masks of who may come
            ({"seen": seen("a")}, False),
        ],
    )
    def test_room_for_masks(self, moment: dict[str, Any], masked: bool) -> None:
        driver = Driver(Told(moment, {"seen": seen()})).reset()
        assert bool(driver.table.blocks[0].masked[1]) == masked
        assert driver.table.blocks[0].mask[1, 1].all()

    def test_masks_that_come_later_forbid_nothing_to_others(self) -> None:
        told = {"a": {"action_mask": [1, 0, 0]}}
        env = Told({"seen": seen()}, {"seen": seen(), "infos": told}, {"seen": seen()})
        driver = Driver(env).reset().step()
        assert driver.table.blocks[0].masked[1]
        assert driver.of("a", "mask") == [True, False, False]
        assert driver.of("b", "mask") == [True] * 3
        driver.step()
        assert driver.of("a", "mask") == [True] * 3

    def test_no_room_for_masks_of_boxes(self) -> None:
        env = Told({"seen": seen("a"), "listed": "a"}, action=Box(-1, 1, (2,)))
        assert not Driver(env).reset().table.blocks[0].masked[1]

    @pytest.mark.parametrize(
        ("mask", "options", "expected"),
        [
            ([1, 0], {}, r"3 values for Discrete\(3, start=1\), got shape \[2\]"),
            ([[1, 0, 1]], {}, r"3 values .* got shape \[1, 3\]"),
            (1, {}, r"3 values .* got shape \[\]"),
            ([], {"action": Box(-1, 1, (2,))}, r"none for Box.*, got shape \[0\]"),
        ],
    )
    def test_wrong_mask(self, mask: Any, options: dict[str, Any], expected: str) -> None:
        env = Told({"seen": seen(), "infos": {"b": {"action_mask": mask}}}, **options)
        message = rf"^action_mask: expected {expected} from environment 1, agent 'b'"
        with pytest.raises(ValueError, match=message):
            Driver(env).reset()


class TestDefinedActions:
    @pytest.mark.parametrize("form", [3, np.int64(3), np.array([3]), [3], np.array(3, np.int8)])
    def test_are_taken_once(self, form: Any) -> None:
        told = {"a": {"env_defined_actions": None}, "b": {"env_defined_actions": form}}
        env = Told(
            {"seen": seen(), "infos": told}, {"seen": seen(), "infos": {"a": {}}}, {"seen": seen()}
        )
        driver = Driver(env).reset()
        assert (driver["forced"], driver.of("b", "forced_action")) == ("b", 3)
        assert driver["exists"] == "ab"
        driver.step({"a": 2, "b": 1})
        assert driver["forced"] == ""
        driver.step({"a": 2, "b": 1})
        assert env.actions == [{"a": 2, "b": 3}, {"a": 2, "b": 1}]

    def test_of_a_box_are_exact(self) -> None:
        given = np.array([0.1, -0.7], np.float32)
        told = {"b": {"env_defined_actions": given}}
        env = Told({"seen": seen(), "infos": told}, {"seen": seen()}, action=Box(-1, 1, (2,)))
        Driver(env).reset().step()
        assert env.actions[0]["b"].tobytes() == given.tobytes()

    def test_at_an_end_and_of_the_absent(self) -> None:
        told = {"a": {"env_defined_actions": 2}, "b": {"env_defined_actions": 3}}
        env = Told(
            {"seen": seen()},
            {"seen": seen("a"), "infos": told},
            {"seen": seen(), "died": "a", "listed": "b", "infos": told},
            {"seen": seen(), "cut": "b", "listed": "", "infos": told},
        )
        driver = Driver(env).reset().step()
        assert driver["exists"] == "a"
        driver.step()
        assert env.actions[-1] == {"a": 2, "b": 3}
        driver.step()
        assert env.actions[-1] == {"b": 3}
        assert driver["forced"] == ""  # the next episode's infos say nothing

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            (0, r"an action in Discrete\(3, start=1\), got 0"),
            (4, r"an action in Discrete\(3, start=1\), got 4"),
            ([1, 2], r"one value of Discrete\(3, start=1\), got \[1, 2\]"),
            ([[1]], r"one value of Discrete"),
        ],
    )
    def test_wrong(self, form: Any, expected: str) -> None:
        env = Told({"seen": seen(), "infos": {"b": {"env_defined_actions": form}}})
        message = rf"^env_defined_actions: expected {expected}.* from environment 1, agent 'b'$"
        with pytest.raises(ValueError, match=message):
            Driver(env).reset()

    @pytest.mark.parametrize("form", [[0, 2], [0.5], 0.5])
    def test_wrong_for_a_box(self, form: Any) -> None:
        told = {"a": {"env_defined_actions": form}}
        env = Told({"seen": seen(), "infos": told}, action=Box(-1, 1, (2,)))
        with pytest.raises(ValueError, match=r"^env_defined_actions: .* environment 1, agent 'a'$"):
            Driver(env).reset()


# --- turns ------------------------------------------------------------------------------------


class TestTurns:
    def test_rewards_of_every_turn_for_everybody(self) -> None:
        env = TurnTaking("6t 4l", dies={"player_1": 2})
        driver = Driver(env).reset(4)
        agents = env.possible_agents
        # (actor, lived, died, cut); player_1 dies in its own first turn.
        turns = [
            (0, "012", "", ""),
            (1, "012", "1", ""),
            (2, "02", "", ""),
            (0, "02", "", ""),
            (2, "02", "", ""),
            (0, "02", "02", ""),
            (0, "012", "", ""),
            (1, "012", "1", ""),
            (2, "02", "", ""),
            (0, "02", "", "02"),
        ]
        episode, time = 0, 0
        for actor, lived, died, cut in turns:
            assert driver["exists"] == agents[actor]
            assert driver["start"] == (agents[actor] if time < 3 else "")  # its first turn
            shown = env.observation_of(agents[actor], episode, time).tolist()
            assert driver.of(agents[actor], "observation") == shown
            others = [a for a in agents if a != agents[actor]]
            assert all(driver.of(a, "observation") == [0, 0, 0] for a in others)
            listed = list(env.agents)
            driver.step({agent: 1 + i for i, agent in enumerate(agents)})
            time += 1
            for agent in agents:
                earned = env.reward_of(agent, episode, time, 1 + actor) if agent in listed else 0
                assert driver.of(agent, "reward") == earned
            for name, who in (("lived", lived), ("terminated", died), ("truncated", cut)):
                assert driver[name] == "".join(agents[int(i)] for i in who), name
            if cut:
                for i in map(int, cut):
                    final = env.observation_of(agents[i], episode, time).tolist()
                    assert driver.of(agents[i], "final") == final
            assert driver.ended == (time == (6, 4)[episode % 2])
            if driver.ended:
                episode, time = episode + 1, 0
        assert env.seeds == [4, None, None]

    def test_who_never_had_a_turn_counts_but_has_no_end(self) -> None:
        driver = Driver(TurnTaking("1l")).reset().step()
        assert driver["lived"] == "player_0player_1player_2"
        assert driver["truncated"] == driver["shown"] == "player_0"
        assert driver.ended
        assert driver["start"] == "player_0"

    @pytest.mark.parametrize("masks", ["info", "observation"])
    def test_masks_are_of_the_one_whose_turn_it_is(self, masks: str) -> None:
        env = TurnTaking("5t", masks=masks)
        driver = Driver(env).reset(0)
        assert driver.table.blocks[0].masked[1]
        for turn in range(12):
            agent, time = env.possible_agents[turn % 5 % 3], turn % 5
            mask = env.mask_of(agent, turn // 5, time).astype(bool).tolist()
            assert driver.of(agent, "mask") == mask
            driver.step(dict.fromkeys(env.possible_agents, 1 + mask.index(True)))

    def test_room_for_the_masks_of_those_whose_turn_comes_later(self) -> None:
        """In blocks of their own, too: at first only the actor's infos are acted on."""

        class Unlike(TurnTaking):
            def observation_space(self, agent: str) -> Any:
                return Box(-1, 1 + self.possible_agents.index(agent), (3,))

        driver = Driver(Unlike("5t", masks="info")).reset(0)
        assert [bool(block.masked[1]) for block in driver.table.blocks] == [True] * 3

    def test_all_may_be_taken_away_at_once(self) -> None:
        class AtOnce(TurnTaking):
            def _was_dead_step(self, action: Any) -> None:
                assert action is None
                self.agents, self.terminations, self.truncations = [], {}, {}

        driver = Driver(AtOnce("2t")).reset(0).step().step()
        assert driver.ended
        assert driver["terminated"] == "player_0player_1"

    def test_defined_actions_of_a_turn(self) -> None:
        class Defining(TurnTaking):
            def _inform(self) -> None:
                super()._inform()
                for agent in self.agents:
                    self.infos[agent]["env_defined_actions"] = np.array([3])

        env = Defining("4t")
        driver = Driver(env).reset(0)
        for turn in range(4):
            assert driver["forced"] == env.possible_agents[turn % 3]
            driver.step()
        assert env.received == {"player_0": [3, 3], "player_1": [3], "player_2": [3]}

    def test_an_agent_without_infos(self) -> None:
        class Silent(TurnTaking):
            def _inform(self) -> None:
                self.infos = {}

        driver = Driver(Silent("3t")).reset(0).step()
        assert driver["exists"] == "player_1"

    def test_no_agents_after_reset(self) -> None:
        class Empty(TurnTaking):
            def reset(self, seed: int | None = None, options: Any = None) -> None:
                super().reset(seed, options)
                self.agents = []

        with pytest.raises(ValueError, match=r"^environment 1: expected agents after reset"):
            Driver(Empty("3t")).reset()

    def test_kind_is_that_of_the_environment(self) -> None:
        assert isinstance(TurnTaking("3t"), AECEnv)
        assert type(Driver(TurnTaking("3t")).rows) is not type(Driver(Told({})).rows)


# --- what environments may do wrong -----------------------------------------------------------


class Paying(TurnTaking):
    """Keeps its rewards out of ``rewards``, in part or wholly; ``last()`` has them all."""

    share = 0.0

    def _accumulate_rewards(self) -> None:
        super()._accumulate_rewards()
        self.rewards = {agent: self.share * reward for agent, reward in self.rewards.items()}


class TestLast:
    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_sums_are_those_of_last(self, share: float) -> None:
        env = Paying("7t 4l", dies={"player_1": 2})
        env.share = share
        driver, totals = Driver(env).reset(1), dict.fromkeys(env.possible_agents, 0.0)
        for _ in range(7):
            driver.step(dict.fromkeys(env.possible_agents, 1))
            for agent in totals:
                totals[agent] += driver.of(agent, "reward")
        by_hand, game = dict.fromkeys(totals, 0.0), TurnTaking("7t 4l", dies={"player_1": 2})
        game.reset(seed=1)
        for agent in game.agent_iter():
            by_hand[agent] += game.last()[1]
            game.step(None if game.last()[2] or game.last()[3] else 1)
        assert totals == pytest.approx(by_hand)

    def test_a_wrapper_that_changes_them(self) -> None:
        class Tenfold(BaseWrapper):
            def last(self, observe: bool = True) -> Any:
                observation, reward, *rest = self.env.last(observe)
                return observation, 10 * reward, *rest

        sums = []
        for env in (TurnTaking("6t"), Tenfold(TurnTaking("6t"))):
            driver, total = Driver(env).reset(0), 0.0
            for _ in range(6):
                driver.step(dict.fromkeys(env.possible_agents, 1))
                total += driver.of("player_1", "reward")
            sums.append(total)
        assert sums[1] == pytest.approx(10 * sums[0])

    def test_too_late(self) -> None:
        class Late(Paying):
            def _deads_step_first(self) -> Any:
                return self.agent_selection  # the dead wait for their turns

        env = Late("5t", dies={"player_2": 4})
        driver = Driver(env).reset(0)
        for _ in range(4):
            driver.step(dict.fromkeys(env.possible_agents, 1))
        with pytest.raises(ValueError, match=r"^environment 1: .*'player_2' .* those of last\(\)"):
            driver.step()


class TestErrors:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda r: r[:4], r"expected step\(\) to return observations, .*, got 4 values"),
            (lambda r: (r[0], None, *r[2:]), r"expected the rewards that step.*, got None"),
            (lambda r: r[0], r"expected step\(\) to return .*, got dict"),
        ],
    )
    def test_results_of_another_kind(self, change: Any, message: str) -> None:
        class Old(Told):
            def step(self, actions: dict[str, Any]) -> Any:
                return change(super().step(actions))

        driver = Driver(Old({"seen": seen()}, {"seen": seen()})).reset()
        with pytest.raises((TypeError, ValueError), match="^environment 1: " + message):
            driver.step()

    def test_reset_of_another_kind(self) -> None:
        class Old(Told):
            def reset(self, seed: int | None = None, options: Any = None) -> Any:
                return super().reset(seed, options)[0]

        with pytest.raises(ValueError, match=r"^environment 1: expected reset\(\) to return obs"):
            Driver(Old({"seen": seen()})).reset()

    @pytest.mark.parametrize("reward", ["x", [1, 2], {}])
    def test_reward_that_is_no_number(self, reward: Any) -> None:
        env = Told({"seen": seen()}, {"seen": seen(), "rewards": {"a": 1, "b": reward}})
        with pytest.raises(ValueError, match=r"^reward: expected a number for agent 'b', got"):
            Driver(env).reset().step()

    def test_rewards_of_one_number_in_an_array(self) -> None:
        env = Told(
            {"seen": seen()}, {"seen": seen(), "rewards": {"a": np.ones(1), "b": np.float32(2)}}
        )
        driver = Driver(env).reset().step()
        assert (driver.of("a", "reward"), driver.of("b", "reward")) == (1, 2)

    @pytest.mark.parametrize("agents", ["ab", None, 3])
    def test_agents_that_are_no_list(self, agents: Any) -> None:
        class Wrong(Told):
            def _moment(self, time: int) -> Any:
                moment = super()._moment(time)
                self.agents = agents
                return moment

        with pytest.raises(TypeError, match=r"^environment 1: expected env.agents to be a list"):
            Driver(Wrong({"seen": seen()})).reset()

    def test_unknown_agent(self) -> None:
        env = Told({"seen": seen()}, {"seen": seen("abz"), "listed": "zab"})
        driver = Driver(env).reset()
        message = r"^environment 1: expected agents of possible_agents = \['a', 'b'\], got \['z'\]"
        with pytest.raises(ValueError, match=message):
            driver.step()
        env.moments = ({"seen": seen("abz"), "listed": "zab"},)
        with pytest.raises(ValueError, match=message):
            driver.reset()

    def test_observations_and_infos_of_strangers_are_not_read(self) -> None:
        """Who is in none of the lists may be in the dictionaries."""
        env = Told({"seen": seen("abz"), "infos": {"z": {"env_defined_actions": 7}}})
        assert Driver(env).reset()["exists"] == "ab"

    @pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 2), (2, 1)])
    def test_observation_of_wrong_shape(self, shape: tuple[int, ...]) -> None:
        env = Told({"seen": {"a": np.zeros(2), "b": np.zeros(shape)}})
        message = r"^environment 1: expected an observation of shape \[2\] for agent 'b', got \["
        with pytest.raises(ValueError, match=message):
            Driver(env).reset()

    def test_final_observation_of_wrong_shape(self) -> None:
        moment = {"seen": {"a": np.zeros(2), "b": np.zeros(1)}, "cut": "ab", "listed": ""}
        with pytest.raises(ValueError, match=r"^environment 1: .* agent 'b', got \[1\]"):
            Driver(Told({"seen": seen()}, moment)).reset().step()

    def test_no_agents_after_reset(self) -> None:
        message = r"^environment 1: expected agents after reset, got none; fill self.agents"
        with pytest.raises(ValueError, match=message):
            Driver(Told({"listed": ""})).reset()

    def test_after_an_error_a_reset_goes_on(self) -> None:
        env = Told({"seen": seen()}, {"seen": {"a": np.zeros(9)}})
        driver = Driver(env).reset()
        with pytest.raises(ValueError, match="expected an observation"):
            driver.step()
        assert driver.reset()["start"] == "ab"


@pytest.mark.parametrize(
    ("space", "kind"), [(Box(-1, 1, ()), np.ndarray), (Box(-1, 1, (2,)), np.ndarray), (CHOICE, int)]
)
def test_actions_come_in_the_form_of_their_space(space: Any, kind: Any) -> None:
    class Noting(ParallelEnv[str, Any, Any]):
        possible_agents = ["a_0"]  # noqa: RUF012 - PettingZoo's own form

        def observation_space(self, agent: str) -> Any:
            return Box(-1, 1, (1,))

        def action_space(self, agent: str) -> Any:
            return space

        def reset(self, seed: Any = None, options: Any = None) -> Any:
            self.agents = ["a_0"]
            return {"a_0": np.zeros(1, np.float32)}, {}

        def step(self, actions: Any) -> Any:
            self.received = actions["a_0"]
            return {"a_0": np.zeros(1, np.float32)}, {"a_0": 0.0}, {}, {}, {}

    env = Noting()
    table = AgentTable(describe(env), 1)
    rows = environment_rows(env, table, 0)
    rows.reset()
    table.blocks[0].action[:] = 1
    rows.step()
    assert space.contains(env.received)
    assert isinstance(env.received, kind | np.integer)
    table.blocks[0].action[:] = 0  # what the environment keeps must not change under it
    assert np.all(env.received == 1)
