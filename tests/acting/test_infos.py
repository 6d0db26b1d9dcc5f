"""Tests that the numbers an episode ends with stand beside its return, in whatever environment."""

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st
from support.agents import make_agent, make_team
from support.envs import Scripted, scripted
from support.multi_envs import ScriptedParallel, TurnTaking, scripted_makers

from recurrent_rl import (
    AsyncMultiAgentVectorEnv,
    RolloutStats,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.envs.gymnasium_workers import InProcessVectorEnv, WorkerVectorEnv

SCRIPTS = ["2t 1l 3b", "3l", "1t 4t 2l"]
MODES = list(AutoresetMode)
KINDS = [SyncVectorEnv, InProcessVectorEnv, AsyncVectorEnv, WorkerVectorEnv]
# Who comes and goes, ends twice, ends when the episode does, and is never there.
PLAYS = [
    {"bob_0": [(0, 2, "t"), (3, 5, "l")], "fred_0": [(0, 5, "l")], "bob_1": [(1, 4, "b")]},
    {"bob_0": [(0, 3, "t")], "fred_0": [], "bob_1": [(0, 1, "l")]},
]
EVERY_KEY = {"total", "is_success", "lost", "array_total", "rare"}


def check(stats: RolloutStats, totals: dict[str, Any], suffix: str = "") -> None:
    """Compare what infos said of returns with the returns, by agent."""
    count = len(stats.returns)
    assert count >= 2
    assert all(len(values) == count for values in stats.infos.values())
    for prefix, returns in totals.items():
        own = {name: np.array(stats.infos[f"{prefix}{name}"]) for name in EVERY_KEY}
        there = ~np.isnan(own["total"])
        assert there.any()
        np.testing.assert_array_equal(there, np.array(returns) != 0)  # who is never there gets 0
        np.testing.assert_allclose(own["total"][there], np.array(returns)[there], 1e-12)
        np.testing.assert_array_equal(own["array_total"], own["total"])
        np.testing.assert_array_equal(own["lost"][there], 1 - own["is_success"][there])
        rare = ~np.isnan(own["rare"])
        assert rare.any()
        np.testing.assert_allclose(own["rare"][rare], np.array(returns)[rare], 1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_one_agent(kind: Any, mode: AutoresetMode) -> None:
    copies = {} if kind is WorkerVectorEnv else {"copy": True}
    makers = [
        functools.partial(Scripted, script, i, tells=True) for i, script in enumerate(SCRIPTS)
    ]
    env = kind(makers, autoreset_mode=mode, **copies)
    agent = make_agent(env)
    for steps in (7, 12):  # the second goes on in the middle of episodes
        stats = collect_rollouts_recurrent(agent, env, steps)
        assert set(stats.infos) == EVERY_KEY
        check(stats, {"": stats.returns})
        assert stats.success_rate == np.mean(stats.infos["is_success"])
    infos: dict[str, Any] = {"stale": np.zeros(1)}
    returns = agent.evaluate(env, 7, infos=infos)  # three rounds
    assert set(infos) == EVERY_KEY
    np.testing.assert_allclose(infos["total"], returns, 1e-12)
    assert infos["total"].shape == (9,)
    env.close()


@given(
    scripts=st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from("tlb")), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    mode=st.sampled_from(MODES),
    parts=st.lists(st.integers(1, 9), min_size=1, max_size=3),
)
def test_any_script(scripts: Any, mode: AutoresetMode, parts: list[int]) -> None:
    texts = [" ".join(f"{n}{end}" for n, end in script) for script in scripts]
    env = scripted(texts, mode, tells=True)
    agent = make_agent(env)
    for steps in parts:
        stats = collect_rollouts_recurrent(agent, env, steps)
        assert len(stats.infos.get("total", ())) == len(stats.returns)
        np.testing.assert_allclose(stats.infos.get("total", []), stats.returns, 1e-12)


def parallel_makers(**options: Any) -> Any:
    return scripted_makers([PLAYS, PLAYS[::-1], PLAYS[:1]], tells=True, **options)


def turn_makers(**options: Any) -> Any:
    return [
        functools.partial(TurnTaking, "5t 4l 7b", 3, e, tells=True, dies=dies, **options)
        for e, dies in enumerate([{}, {"player_1": 2}, {"player_0": 1, "player_2": 3}])
    ]


def statistics(env: Any, **options: Any) -> list[RolloutStats]:
    team = make_team(env, **options)
    return [collect_rollouts_recurrent(team, env, steps) for steps in (14, 13)]


@pytest.mark.parametrize("makers", [parallel_makers, turn_makers])
@pytest.mark.parametrize("team_reward", [None, "sum"])
def test_several_agents(makers: Any, team_reward: Any) -> None:
    env = SyncMultiAgentVectorEnv(makers())
    for stats in statistics(env, team_reward=team_reward):
        names = env.possible_agents
        check(stats, {f"{agent}/": stats.agent_returns[agent] for agent in names})
        own = np.array([stats.infos[f"{agent}/total"] for agent in names])
        np.testing.assert_allclose(stats.infos["total"], np.nanmean(own, axis=0), 1e-12)
        assert 0 <= stats.success_rate <= 1
        assert set(stats.infos) == {
            f"{who}{name}" for who in ("", *(f"{a}/" for a in names)) for name in EVERY_KEY
        }


@pytest.mark.parametrize("makers", [parallel_makers, turn_makers])
@pytest.mark.parametrize("use_main_process", [False, True])
def test_workers_say_what_one_process_says(makers: Any, use_main_process: bool) -> None:
    alone = SyncMultiAgentVectorEnv(makers())
    options = {"num_workers": 2, "use_main_process": use_main_process}
    with AsyncMultiAgentVectorEnv(makers(), **options) as env:
        assert str(statistics(env)) == str(statistics(alone))
        team, infos = make_team(env), [dict[str, Any](), dict[str, Any]()]
        for vector, filled in zip((alone, env), infos, strict=True):
            team.evaluate(vector, 4, infos=filled, seed=0)
        assert str(infos[0]) == str(infos[1])


@pytest.mark.parametrize("makers", [parallel_makers, turn_makers])
def test_several_agents_tested(makers: Any) -> None:
    env = SyncMultiAgentVectorEnv(makers())
    infos: dict[str, Any] = {}
    returns = make_team(env).evaluate(env, 4, infos=infos)  # two rounds
    for agent, own in returns.items():
        there = ~np.isnan(infos[f"{agent}/total"])
        assert there.shape == (6,)
        np.testing.assert_array_equal(there, own != 0)
        np.testing.assert_allclose(infos[f"{agent}/total"][there], own[there], 1e-12)
        assert there.any()


def test_agents_that_have_ended_before() -> None:
    """The last numbers that an agent was given when it ended, or when the episode did, count."""

    class Late(ScriptedParallel):
        def _infos(self, agents: Any) -> Any:
            infos: Any = {agent: {"x": self.time} for agent in agents}
            if self.time == 5:
                infos = {"bob_0": {"y": 1}, "fred_0": {}, "bob_1": {"x": 9}, "nobody": {"x": 1}}
            return infos

    play = {"bob_0": [(0, 2, "t")], "fred_0": [(0, 3, "t")], "bob_1": [(0, 5, "t")]}
    env = SyncMultiAgentVectorEnv([lambda: Late([play])])
    stats = collect_rollouts_recurrent(make_team(env), env, 5)
    named = {"x": 6.0, "y": 1.0, "bob_0/y": 1.0, "fred_0/x": 3.0, "bob_1/x": 9.0}
    assert stats.infos == {name: [value] for name, value in named.items()}


def test_a_vector_of_several_agents_gives_them_to_loops_of_ones_own() -> None:
    env = SyncMultiAgentVectorEnv(scripted_makers([PLAYS[1:], PLAYS[:1]], tells=True))
    _, infos = env.reset(seed=0)
    actions = {agent: np.full(2, 2) for agent in env.possible_agents}
    found = []
    for _ in range(3):
        assert not any("final_info" in info for info in infos.values())
        *_, infos = env.step(actions)
    found = {agent: info.get("final_info") for agent, info in infos.items()}
    assert found["fred_0"] is None
    for agent in ("bob_0", "bob_1"):
        assert found[agent].keys() == EVERY_KEY - {"rare"}
        assert np.isnan(found[agent]["total"]).tolist() == [False, True]
    assert "final_info" not in env.reset(seed=0)[1]["bob_0"]


@pytest.mark.parametrize("mode", MODES)
def test_episodes_that_tests_cut_short_say_nothing(mode: AutoresetMode) -> None:
    env = scripted(["2t", "5t"], mode, tells=True)
    infos: dict[str, Any] = {}
    make_agent(env).evaluate(env, 2, max_steps=3, infos=infos)
    assert np.isnan(infos["total"]).tolist() == [False, True]
    make_agent(env).evaluate(env, 2, max_steps=1, infos=infos)
    assert infos == {}


def test_one_environment_that_is_no_vector() -> None:
    infos: dict[str, Any] = {}
    env = Scripted("2t 3l", tells=True)
    returns = make_agent(scripted(["9t"])).evaluate(env, 4, infos=infos)
    np.testing.assert_allclose(infos["total"], returns, 1e-12)


def test_environments_that_say_nothing() -> None:
    env = scripted(["2t", "3l"])
    agent, infos = make_agent(env), {"stale": np.zeros(2)}
    stats = collect_rollouts_recurrent(agent, env, 9)
    assert stats.infos == {}
    assert np.isnan(stats.success_rate)
    agent.evaluate(env, 2, infos=infos)
    assert infos == {}
    with pytest.raises(TypeError, match=r"infos: expected a dictionary to fill .* got True"):
        agent.evaluate(env, 2, infos=True)  # type: ignore[arg-type]


def test_statistics_of_wrappers_are_not_mistaken_for_infos() -> None:
    def make() -> Any:
        return gym.wrappers.RecordEpisodeStatistics(Scripted("2t"))

    env = gym.wrappers.vector.RecordEpisodeStatistics(
        SyncVectorEnv([make, make], autoreset_mode=AutoresetMode.SAME_STEP)
    )
    assert collect_rollouts_recurrent(make_agent(env), env, 5).infos == {}


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_looked_for_while_no_episode_ends(mode: AutoresetMode, monkeypatch: Any) -> None:
    looked: list[Any] = []
    monkeypatch.setattr(
        "recurrent_rl.envs.gymnasium_vector.numbers_of_rows",
        lambda _, rows, __: looked.append(rows.tolist()) or {},
    )
    env = scripted(["9t", "4t"], mode, tells=True)
    collect_rollouts_recurrent(make_agent(env), env, 6)
    assert looked == [[1]]
    monkeypatch.setattr("recurrent_rl.envs.env_rows.numbers_of", looked.append)
    vector = SyncMultiAgentVectorEnv(scripted_makers([[{"bob_0": [(0, 9, "t")]}]], tells=True))
    collect_rollouts_recurrent(make_team(vector), vector, 8)
    assert looked == [[1]]
