"""Tests of teams that act for other agents than they were trained with."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.agents import make_team, team_weights
from support.multi_envs import Crowd

from recurrent_rl import (
    IPPO,
    MADDPG,
    MAPPO,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)

KINDS = pytest.mark.parametrize("kind", [IPPO, MAPPO])


def crowd(agents: int) -> SyncMultiAgentVectorEnv:
    return SyncMultiAgentVectorEnv([functools.partial(Crowd, agents, 6)] * 2)


def trained(kind: Any, agents: int = 3, **options: Any) -> Any:
    env = crowd(agents)
    agent = make_team(env, kind=kind, **options)
    collect_rollouts_recurrent(agent, env)
    agent.learn()
    return agent


@KINDS
@pytest.mark.parametrize("count", [1, 2, 5])
def test_more_or_fewer_agents_act(kind: Any, count: int) -> None:
    """Each as any agent of the group would that sees and remembers the same."""
    agent, env = trained(kind), crowd(count)
    obs, _ = env.reset(seed=0)
    state = agent.get_initial_hidden_state(2, agents=env.possible_agents)
    assert list(state) == env.possible_agents
    for _ in range(3):
        out = agent.get_action(obs, state, deterministic=True)
        assert out.action.keys() == obs.keys()
        for name, seen in obs.items():
            known = agent.get_action(
                {"walker_0": seen}, {"walker_0": state[name]}, deterministic=True
            )
            np.testing.assert_array_equal(out.action[name], known.action["walker_0"])
            after = zip(
                out.hidden_state[name].tensors, known.hidden_state["walker_0"].tensors, strict=True
            )
            assert all(torch.allclose(x, y, atol=1e-6) for x, y in after)
        state = out.hidden_state
        obs, *_ = env.step(out.action)


@KINDS
def test_they_are_tested_where_there_are_others(kind: Any) -> None:
    agent = trained(kind)
    returns = agent.evaluate(crowd(5), 4, seed=0)
    assert list(returns) == [f"walker_{i}" for i in range(5)]
    assert all(len(each) == 4 for each in returns.values())
    assert agent.agent_ids == ["walker_0", "walker_1", "walker_2"]
    assert np.isfinite(agent.test(crowd(2)))


def test_a_team_goes_on_learning_with_others(tmp_path: Path) -> None:
    agent = trained(IPPO)
    other, env = agent.for_agents([f"walker_{i}" for i in range(5)]), crowd(5)
    before = team_weights(agent)
    assert all(torch.equal(x, before[name]) for name, x in team_weights(other).items())
    collect_rollouts_recurrent(other, env)
    assert other.trainers["walker"].buffer.rows == 10
    assert other.learn()["walker"].updates > 0
    assert all(torch.equal(x, before[name]) for name, x in team_weights(agent).items())
    other.save_checkpoint(tmp_path / "agent.pt")
    loaded = IPPO.load(tmp_path / "agent.pt")
    assert loaded.agent_ids == other.agent_ids
    with pytest.raises(ValueError, match=r"env: expected the agents .*walker_4"):
        collect_rollouts_recurrent(other, crowd(3))


def test_critics_that_see_all_stay_with_the_agents_that_there_were(tmp_path: Path) -> None:
    agent = trained(MAPPO, agent_id_input="critic")
    other = agent.for_agents([f"walker_{i}" for i in range(5)])
    with pytest.raises(ValueError, match=r"env: expected the agents that critics were built for"):
        collect_rollouts_recurrent(other, crowd(5))
    other.save_checkpoint(tmp_path / "agent.pt")
    loaded = MAPPO.load(tmp_path / "agent.pt")
    ours, theirs = (each.evaluate(crowd(5), 2, seed=1) for each in (other, loaded))
    assert ours.keys() == theirs.keys()
    same = agent.for_agents(agent.agent_ids)
    collect_rollouts_recurrent(same, crowd(3))
    assert same.learn()["walker"].updates > 0


def test_groups_without_agents_are_left_out() -> None:
    env = crowd(2)
    agent = make_team(env, groups={"a": ["walker_0"], "b": ["walker_1"]})
    with pytest.raises(ValueError, match="walker_2"):  # these groups have no rule
        agent.for_agents(["walker_0", "walker_2"])
    other = agent.for_agents(["walker_1"])
    assert other.grouped_agents == {"b": ["walker_1"]}
    assert list(other.trainers) == ["b"]


@pytest.mark.parametrize("agents", [["walker_1"], ["walker_0", "walker_1", "walker_2", "walker_3"]])
def test_policies_that_tell_agents_apart_know_no_others(agents: list[str]) -> None:
    agent = trained(IPPO, agent_id_input=True)
    assert agent.for_agents(["walker_0", "walker_1"]).agent_ids == ["walker_0", "walker_1"]
    with pytest.raises(ValueError, match=r"agent_ids: expected some of .* the first ones"):
        agent.for_agents(agents)
    seen = np.zeros(8, np.float32)
    state = agent.get_initial_hidden_state(1, agents=["walker_7"])
    with pytest.raises(ValueError, match=r"obs: expected agents of .*'walker_7'; build the agent"):
        agent.get_action({"walker_7": seen}, state)


@pytest.mark.parametrize("name", ["runner_0", "x"])
def test_names_of_no_group_are_refused(name: str) -> None:
    agent = trained(IPPO)
    with pytest.raises(ValueError, match=f"obs: expected agents of .*got '{name}'"):
        agent.get_action({name: np.zeros(8, np.float32)})
    with pytest.raises(ValueError, match=name):
        agent.get_initial_hidden_state(agents=[name])
    with pytest.raises(ValueError, match=name):
        agent.for_agents([name])


def test_actors_of_a_central_replay_act_for_others_too() -> None:
    env = crowd(3)
    agent = MADDPG(
        env.observation_spaces, env.action_spaces, env.possible_agents, recurrent=False, seed=0
    )
    obs, _ = crowd(5).reset(seed=0)
    assert agent.get_action(obs).action.keys() == obs.keys()
    with pytest.raises(ValueError, match="env: expected the agents"):
        agent.evaluate(crowd(5), 2)
