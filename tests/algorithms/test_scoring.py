"""Tests of `recurrent_rl.algorithms.scoring`: what several agents' returns are worth."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from pettingzoo import ParallelEnv
from support.agents import make_agent
from support.envs import scripted
from support.training_runs import population, recall_env, train

from recurrent_rl import IPPO, Mutations, TournamentSelection, make_multi_agent_vect_envs
from recurrent_rl.algorithms.scoring import Scoring, is_constant_sum
from recurrent_rl.spaces.sampling import random_action


class Duel(ParallelEnv):  # type: ignore[misc]
    """Four rounds; the higher number takes a point from the lower. Blue may not play 2."""

    metadata = {"name": "duel"}  # noqa: RUF012
    possible_agents = ["red_0", "blue_0"]  # noqa: RUF012

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return gym.spaces.Box(0, 1, (1,))

    def action_space(self, agent: str) -> gym.Space[Any]:
        return gym.spaces.Discrete(3)

    def _seen(self) -> tuple[Any, Any]:
        masks = {"red_0": np.array([1, 1, 1], np.int8), "blue_0": np.array([1, 1, 0], np.int8)}
        observations = {agent: np.zeros(1, np.float32) for agent in self.agents}
        return observations, {agent: {"action_mask": masks[agent]} for agent in self.agents}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.time = list(self.possible_agents), 0
        return self._seen()

    def step(self, actions: Any) -> Any:
        assert actions["blue_0"] < 2
        self.time += 1
        point = float(np.sign(int(actions["red_0"]) - int(actions["blue_0"])))
        seen, infos = self._seen()
        over = dict.fromkeys(self.agents, self.time == 4)
        rewards = {"red_0": point, "blue_0": -point}
        return seen, rewards, over, dict.fromkeys(self.agents, False), infos


def duel(num_envs: int = 4) -> Any:
    return make_multi_agent_vect_envs(Duel, num_envs, should_async_vector=False)


def fighter(red: int, blue: int) -> IPPO:
    """Plays the same numbers for ever."""
    env = duel()
    agent = IPPO(env.observation_spaces, env.action_spaces, env.possible_agents, seed=0)
    for name, action in (("red", red), ("blue", blue)):
        layer = agent.trainers[name].policy.action_head.layers[-1]
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.copy_(3 * torch.eye(3)[action])
    return agent


def test_against_random_opponents_the_better_are_the_fitter() -> None:
    env = duel()
    best, worst = fighter(2, 1), fighter(0, 0)
    assert best.test(env, seed=0) == 0
    with pytest.warns(UserWarning, match="add up to the same in every episode"):
        assert best.test(env, loop=8, deterministic=False, seed=0) == 0
    scores = [agent.test(env, loop=8, seed=0, opponents="random") for agent in (best, worst)]
    # Red's 2 always beats 0 or 1: 4. Blue's 1 beats 0, and loses against 2: 0 in the mean.
    assert scores[0] == pytest.approx(4, abs=1.2)
    # Red's 0 loses half of the time: -2. Blue's 0 loses two times of three: -8/3.
    assert scores[1] == pytest.approx(-14 / 3, abs=1.5)
    assert [best.fitness[-1], worst.fitness[-1]] == scores
    assert best.test(env, loop=8, seed=0, opponents="random") == scores[0]  # reproducible
    assert best.test(env, fitness="red_0", opponents="random") == 4
    assert best.test(env, fitness=["blue_0"], seed=1) == -4  # against its own red


def test_fitness_by_a_function_of_the_returns() -> None:
    agent, env = fighter(2, 0), duel()
    assert agent.test(env, fitness=lambda returns: returns["red_0"].min() * 10) == 40
    with pytest.raises(TypeError, match="fitness: expected the function to return a number"):
        agent.test(env, fitness=lambda returns: None)  # type: ignore[arg-type,return-value]
    assert agent.test(env, fitness=lambda returns: math.nan) != 0


class Score(Duel):
    """Says who has won, and how the duel went for both."""

    def step(self, actions: Any) -> Any:
        seen, rewards, over, truncated, infos = super().step(actions)
        self.lead = rewards["red_0"] + (self.lead if self.time > 1 else 0)
        signs = {"red_0": 1, "blue_0": -1}
        for agent, info in infos.items() if self.time == 4 else ():
            info |= {"won": self.lead * signs[agent] > 0, "is_success": 1, "lead": self.lead}
        return seen, rewards, over, truncated, infos


def test_fitness_by_what_infos_say() -> None:
    agent = fighter(2, 1)
    env = make_multi_agent_vect_envs(Score, 2, should_async_vector=False)
    infos: dict[str, Any] = {}
    names = ("won", "is_success", "lead")
    assert agent.test(env, fitness="won", infos=infos) == 0.5
    assert infos["lead"].tolist() == [4.0] * 6
    assert agent.test(env, fitness="red_0/won") == 1
    assert agent.test(env, fitness="lead") == 4
    assert agent.test(env, fitness="red_0") == 4  # an agent's name is one
    assert agent.test(env, fitness=lambda returns, infos: 3 * infos["blue_0/won"].mean()) == 0
    assert agent.test(env, fitness=lambda returns, *, infos: len(infos) + len(returns)) == 11
    assert agent.fitness == [0.5, 1, 4, 4, 0, 11]
    # Each plays its seat: red's 2 always wins; blue's 1 wins, loses or draws.
    value = agent.test(env, fitness="won", opponents="random", infos=infos, loop=4, seed=0)
    assert infos["red_0/won"].tolist() == [1.0] * 8
    assert value == np.mean([infos["red_0/won"].mean(), infos["blue_0/won"].mean()])
    assert 0.5 <= value < 1
    agent.test(env, fitness=["blue_0"], opponents="random", infos=infos)
    assert infos.keys() == {f"{who}{n}" for who in ("", "blue_0/") for n in names}
    with pytest.raises(ValueError, match=r"one of the agents \['red_0', 'blue_0'\], or .*'win'"):
        agent.test(env, fitness="win")
    # Nobody has come as far as to say anything.
    assert math.isnan(agent.test(env, fitness="won", max_steps=2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"last infos .* have, \[\], got 'won'"):
        agent.test(duel(), fitness="won")


class TestOneAgent:
    def test_fitness(self) -> None:
        env = scripted(["2t", "3t"], tells=True)
        agent = make_agent(env)
        infos: dict[str, Any] = {}
        plain = agent.test(env, loop=2, seed=0, infos=infos)
        assert agent.test(env, loop=2, seed=0, fitness="total") == pytest.approx(plain)
        share = agent.test(env, loop=3, fitness="is_success", infos=infos)
        assert share == infos["is_success"].mean() > 0
        assert agent.test(env, loop=3, fitness="rare", infos=infos) == np.nanmean(infos["rare"])
        assert agent.test(env, fitness=lambda returns: len(returns)) == 6
        assert agent.test(env, fitness=lambda returns, infos: infos["lost"].sum()) == 2
        assert agent.test(env, fitness=max) == agent.fitness[-1]
        assert math.isnan(agent.test(env, fitness="total", max_steps=1))
        assert len(agent.fitness) == 8

    def test_wrong_ones(self) -> None:
        env = scripted(["2t", "3t"], tells=True)
        agent = make_agent(env)
        for wrong in ("", 14, ["total"]):
            with pytest.raises(ValueError, match="fitness: expected None, as one agent plays"):
                agent.test(env, fitness=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"one of the numbers .*'total'\], got 'totl'"):
            agent.test(env, fitness="totl")
        with pytest.raises(TypeError, match="fitness: expected the function to return a number"):
            agent.test(env, fitness=lambda returns, infos: infos)
        assert agent.fitness == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fitness": ["green_0"]}, ValueError, "fitness has no agent 'green_0'"),
        ({"fitness": []}, ValueError, "fitness: expected different agents"),
        ({"fitness": ["red_0", "red_0"]}, ValueError, "fitness: expected different agents"),
        ({"fitness": 14}, TypeError, "fitness: expected names of agents"),
        ({"opponents": "elite"}, ValueError, "opponents: expected 'random' or None, got 'elite'"),
    ],
)
def test_wrong_options(options: Any, error: type[Exception], message: str) -> None:
    env = duel()
    agent = fighter(0, 0)
    with pytest.raises(error, match=message):
        agent.test(env, **options)
    with pytest.raises(error, match=message):
        train(env, [agent], **options)
    assert (agent.fitness, agent.steps) == ([], [0])
    with pytest.raises(ValueError, match=f"{next(iter(options))}: expected None, as one agent"):
        train(recall_env(), population(recall_env(), 1), **options)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("quick_workers")
def test_a_population_is_selected_by_what_was_asked_for(workers: int) -> None:
    env = duel(2)
    options: dict[str, Any] = {
        "tournament": TournamentSelection(2, True, 2, rand_seed=0),
        "mutation": Mutations(0, 0, 0, 1, 0, 0, rand_seed=0),
        "max_steps": 64,
        "evo_steps": 32,
        "workers": workers,
    }
    pop = population(env, 2)
    _, fitnesses = train(env, pop, opponents="random", **options)
    assert len({fitness for each in fitnesses for fitness in each}) > 1


def test_training_says_that_the_sum_is_no_fitness() -> None:
    env = duel(2)
    with pytest.warns(UserWarning, match="name the agents whose returns count"):
        train(env, population(env, 1), max_steps=96)


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ({"a": [1.0, -1.0] * 8, "b": [-1.0, 1.0] * 8}, True),
        ({"a": [1.0, 0.0] * 8, "b": [0.0, 1.0] * 8}, True),  # one point to share
        ({"a": [1.0, -1.0] * 7, "b": [-1.0, 1.0] * 7}, False),  # it may be chance
        ({"a": [1.0] * 16, "b": [-1.0] * 16}, False),  # nothing is known of other plays
        ({"a": [0.0] * 16, "b": [0.0] * 16}, False),
        ({"a": [1.0, 2.0] * 8, "b": [-1.0, 1.0] * 8}, False),
        ({"a": [1.0, 2.0] * 8}, False),
    ],
)
def test_constant_sums(returns: dict[str, list[float]], expected: bool) -> None:
    arrays = {name: np.array(each) for name, each in returns.items()}
    assert is_constant_sum(np.sum(list(arrays.values()), axis=0), arrays) == expected


def test_sides() -> None:
    agents = ["a", "b", "c"]
    assert Scoring().sides(agents) == [agents]
    assert Scoring(["a"]).sides(agents) == [agents]
    assert Scoring(["a", "b"], "random").sides(agents) == [["a", "b"]]
    assert Scoring(None, "random").sides(agents) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize(
    ("space", "mask", "expected"),
    [
        (gym.spaces.Discrete(4, start=-1), [0, 1, 0, 1], {0, 2}),
        (gym.spaces.Discrete(3), [0, 0, 0], {0}),
        (gym.spaces.Discrete(2), None, {0, 1}),
        (gym.spaces.MultiDiscrete([2, 3]), [0, 1, 1, 0, 1], {(1, 0), (1, 2)}),
    ],
)
def test_random_actions_are_allowed_ones(space: Any, mask: Any, expected: Any) -> None:
    generator = np.random.default_rng(0)
    allowed = None if mask is None else np.array(mask, dtype=bool)
    drawn = [random_action(space, allowed, generator) for _ in range(60)]
    assert {tuple(d.tolist()) if np.ndim(d) else int(d) for d in drawn} == expected
    assert all(d in space for d in drawn)
