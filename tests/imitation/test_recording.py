"""What is recorded is what was seen and done, by agents and by functions."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from support.any_envs import AnyTeam
from support.contract import Case
from support.demonstrated import ACTORS, recorded
from support.envs import Recall, scripted
from support.multi_envs import RecallTeam

from recurrent_rl import (
    IPPO,
    PPO,
    SyncMultiAgentVectorEnv,
    clone_behaviour,
    record_demonstrations,
    record_team_demonstrations,
)
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.imitation.lessons import Lessons

NO_DENSITY = ("ddpg", "td3", "maddpg", "matd3")  # of their Box actions, or those of one group
OF_DENSITIES = {name: case for name, case in ACTORS.items() if name not in NO_DENSITY}
# Agents that see nothing at times, die, or are told what to do, and see what they earned meanwhile.
BLIND = replace(
    ACTORS["ippo"],
    make_env=lambda: SyncMultiAgentVectorEnv([lambda: AnyTeam(Box(-1, 1, (2,)), Discrete(3))]),
    env={},
    options={"previous_action": True, "previous_reward": True},
)


@pytest.mark.parametrize(
    ("case", "episodes"),
    [(case, 6) for case in OF_DENSITIES.values()] + [(BLIND, 30)],
    ids=[*OF_DENSITIES, "blind at times"],
)
def test_sequences_give_the_probabilities_with_which_was_acted(
    case: Case, episodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The invariant of learning, "ratio one", for what was recorded and then cut up."""
    acted: dict[AgentGroup, list[float]] = {}
    choose = AgentGroup.choose

    def noting(group: AgentGroup, seen: Any, *args: Any, **options: Any) -> Any:
        result = choose(group, seen, *args, **options)
        acted.setdefault(group, []).extend(result[0].log_prob[seen.active].tolist())
        return result

    monkeypatch.setattr(AgentGroup, "choose", noting)
    # Clipped actions are not those that were sampled; squashed ones are.
    agent = case.agent(squash_output=True)
    shown = recorded(agent, case, episodes)
    for name, trainer in agent.trainers.items():
        policy = trainer.policy
        length = 3 if agent.config.recurrent else 1
        lessons = Lessons(shown[name].episodes, trainer.group, length)
        lessons.refresh(policy)
        found: list[float] = []
        for part in (part for parts in lessons.in_order(9) for part in parts):
            params = part.dist_params(policy)
            found += policy.distribution.log_prob(params, part.action).tolist()
        assert sorted(found) == pytest.approx(sorted(acted[trainer.group]), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["ppo", "ppo-gru", "sac", "ippo", "mappo"])
def test_episodes_are_those_of_evaluate(name: str) -> None:
    case = ACTORS[name]
    agent = case.agent()
    shown = recorded(agent, case, 4, deterministic=True)
    returns = agent.evaluate(case.vector(), 4, seed=0)
    if not isinstance(agent, MultiAgent):
        np.testing.assert_allclose(np.sort(shown[""].returns), np.sort(returns), rtol=1e-5)
        return
    if agent.team_reward is not None:  # each life earns the team's, as it is trained on
        return
    for agents, each in zip(agent.grouped_agents.values(), shown.values(), strict=True):
        expected = sum(returns[a].sum() for a in agents)
        assert each.returns.sum() == pytest.approx(expected, rel=1e-4)


class Counting:
    """Does what it is told from the start of each episode on; keeps all that it sees."""

    def __init__(self) -> None:
        self.starts, self.seen = 0, list[Any]()

    def reset(self) -> None:
        self.starts += 1

    def __call__(self, observation: Any) -> int:
        self.seen.append(observation)
        return 1


def test_a_function_sees_what_the_environment_shows_and_is_told_of_starts() -> None:
    expert = Counting()
    shown = record_demonstrations(Recall(3), expert, 3, seed=5)
    assert expert.starts == len(shown) == 3
    assert [len(episode) for episode in shown.episodes] == [4] * 3
    np.testing.assert_array_equal(
        np.stack(expert.seen), np.concatenate([e.observation for e in shown.episodes])
    )
    assert expert.seen[0].dtype == np.float32
    again = record_demonstrations(Recall(3), Counting(), 3, seed=5)
    assert again.returns.tolist() == shown.returns.tolist()
    short = record_demonstrations(Recall(3), Counting(), 1, max_steps=2)
    assert short.steps == 2


class Door(gym.Env[Any, Any]):
    """Two steps with masks, given in some way."""

    action_space = Discrete(3)

    def __init__(self, how: str) -> None:
        self.how = how
        mask = MultiBinary(3)
        self.observation_space: gym.Space[Any] = {
            "beside": Dict({"observation": Box(0, 9, (1,)), "action_mask": mask}),
            "among": Dict({"place": Box(0, 9, (1,)), "key": Discrete(2), "action_mask": mask}),
            "info": Box(0, 9, (1,)),
        }[how]

    def _seen(self) -> Any:
        self.mask = np.roll([0, 1, 1], self.time).astype(np.int8)
        place = np.array([self.time], np.float32)
        if self.how == "beside":
            return {"observation": place, "action_mask": self.mask}, {}
        if self.how == "among":
            return {"place": place, "key": 1, "action_mask": self.mask}, {}
        return place, {"action_mask": self.mask}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self._seen()

    def step(self, action: Any) -> Any:
        assert self.mask[action]
        self.time += 1
        seen, info = self._seen()
        return seen, 1.0, self.time == 2, False, info


@pytest.mark.parametrize(
    ("how", "keys"),
    [
        ("beside", {"observation", "action_mask"}),
        ("among", {"place", "key", "action_mask"}),
        ("info", {"observation", "action_mask"}),
    ],
)
def test_a_function_is_shown_masks(how: str, keys: set[str]) -> None:
    def first_allowed(seen: Any) -> int:
        assert set(seen) == keys
        return int(np.argmax(seen["action_mask"]))

    shown = record_demonstrations(Door(how), first_allowed, 2)
    (first, _) = shown.episodes
    assert first.action.tolist() == [1, 0]
    np.testing.assert_array_equal(first.mask, [[0, 1, 1], [1, 0, 1]])
    agent = PPO(Door(how).observation_space, Door.action_space, recurrent=False, seed=0)
    clone_behaviour(agent, shown, 1)


class Remembers:
    """Says the bit that it was shown at the start of its life."""

    def reset(self) -> None:
        self.bit: int | None = None

    def __call__(self, seen: Any) -> int:
        if self.bit is None:
            self.bit = int(seen[0] > 0)
        return self.bit


def test_a_team_of_functions_is_imitated() -> None:
    """Agents of one group share a policy and leave one after the other."""
    experts = {agent: Remembers() for agent in ("a_0", "a_1", "a_2")}
    shown = record_team_demonstrations(RecallTeam(3, 2, stagger=1), experts, 40, seed=0)
    assert list(shown) == ["a"]
    assert shown["a"].returns.mean() == 1
    assert sorted({len(episode) for episode in shown["a"].episodes}) == [3, 4, 5]
    assert {episode.agent for episode in shown["a"].episodes} == set(experts)
    env = RecallTeam(3, 2, stagger=1)
    spaces = {agent: env.observation_space(agent) for agent in experts}
    actions = {agent: env.action_space(agent) for agent in experts}
    encoder = {"hidden_size": [], "hidden_state_size": 8}
    agent = IPPO(spaces, actions, net_config={"encoder_config": encoder}, seed=0)
    result = clone_behaviour(agent, shown, 15, lr=2e-2)
    assert result["a"].best.accuracy > 0.98
    assert sum(x.mean() for x in agent.evaluate(env, 20, seed=3).values()) > 2.9
    apart = record_team_demonstrations(
        RecallTeam(3, 2), experts, 1, groups={"x": ["a_0"], "y": ["a_1", "a_2"]}
    )
    assert [len(each) for each in apart.values()] == [1, 2]


def test_what_the_environment_chose_is_kept_but_not_imitated() -> None:
    experts = {agent: lambda _: 0 for agent in ("it_0", "it_1")}
    shown = record_team_demonstrations(AnyTeam(Box(-1, 1, (2,)), Discrete(3)), experts, 20)
    chosen = [(e.action[e.weight > 0], e.action[e.weight == 0]) for e in shown["it"].episodes]
    own, forced = (np.concatenate(parts) for parts in zip(*chosen, strict=True))
    assert not own.any()
    assert set(forced) == {0, 1, 2}


def test_what_is_wrong_is_named() -> None:
    expert = Counting()
    with pytest.raises(ValueError, match=r"^env: expected one environment for functions"):
        record_demonstrations(scripted(["3t", "3t"]), expert, 1)
    with pytest.raises(TypeError, match=r"^expert: expected an agent .* or a function"):
        record_demonstrations(Recall(2), 3, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^expert: expected an action in Discrete"):
        record_demonstrations(Recall(2), lambda _: 2, 1)
    with pytest.raises(ValueError, match=r"^experts: expected a team, or a function for each"):
        record_team_demonstrations(RecallTeam(2, 2), {"a_0": expert}, 1)
    with pytest.raises(ValueError, match=r"^episodes: expected"):
        record_demonstrations(Recall(2), expert, 0)
    with pytest.raises(ValueError, match=r"^env: expected the agent's observation space"):
        record_demonstrations(Recall(2), PPO(Box(-1, 1, (5,)), Discrete(2)), 1)
    team = ACTORS["ippo-feed-forward"]
    with pytest.raises(ValueError, match=r"^groups: expected None with a team"):
        record_team_demonstrations(team.vector(), team.agent(), 1, groups={"x": ["bob_0"]})


def test_rewards_that_are_no_numbers_are_refused() -> None:
    """As in tests of agents: the loop is the same."""
    env = gym.wrappers.TransformReward(Recall(), lambda reward: float("nan"))
    with pytest.raises(ValueError, match=r"^reward: expected finite numbers, got nan .* at step 0"):
        record_demonstrations(env, lambda observation: 0, 1, seed=0)
