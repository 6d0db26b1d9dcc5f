"""Short trainings from a replay that only a correct implementation passes, with their reasons.

One thread and fixed seeds: the numbers are the same in every run on one machine.
"""

from typing import Any

import gymnasium as gym
import pytest
from pettingzoo.utils import parallel_to_aec
from support.envs import Recall
from support.multi_envs import RecallTeam
from support.until_learned import train_until

from recurrent_rl import (
    DDPG,
    DQN,
    MADDPG,
    MATD3,
    SAC,
    TD3,
    make_multi_agent_vect_envs,
    make_vect_envs,
)

ENOUGH = 0.9  # where training ends; with exploration, without which episodes return more
NUMBER = gym.spaces.Box(-1.0, 1.0, (1,))


class RecallNumber(Recall):
    """The same for actions that are numbers: what is asked for is the bit's sign.

    The reward is the answer times the sign, in [-1, 1]. Who does not know it earns 0 on average,
    whatever the answer.
    """

    def __init__(self, k: int = 4) -> None:
        super().__init__(k)
        self.action_space: gym.Space[Any] = NUMBER

    def step(self, action: Any) -> Any:
        observation, _, asked, _, info = super().step(0)
        reward = float(asked) * float(action[0]) * (2 * self.bit - 1)
        return observation, reward, asked, False, info


class RecallNumberTeam(RecallTeam):
    """The same for a team, each of whose agents has a bit of its own."""

    def action_space(self, agent: str) -> gym.Space[Any]:
        return NUMBER

    def step(self, actions: dict[str, Any]) -> Any:
        sign = {agent: 2 * self.bits[agent] - 1 for agent in actions}
        shown, _, answered, *rest = super().step(dict.fromkeys(actions, 0))
        reward = {a: answered[a] * float(actions[a][0]) * sign[a] for a in actions}
        return shown, reward, answered, *rest


def in_turn() -> Any:
    """The team for choices, one agent after the other."""
    return parallel_to_aec(RecallTeam(2, 4))


OPTIONS: dict[str, Any] = {
    "learn_step": 8,
    "batch_size": 160,
    "learning_starts": 400,
    "gamma": 0.9,
    "tau": 0.02,
}
ACTOR_CRITIC: dict[str, Any] = {**OPTIONS, "lr_actor": 3e-3, "lr_critic": 3e-3}
NOISE: dict[str, Any] = {**ACTOR_CRITIC, "o_u_noise": False, "expl_noise": 0.3}
# Algorithm, environment, settings, what chance gives.
PROBES: dict[str, tuple[Any, Any, dict[str, Any], float]] = {
    "DQN": (DQN, lambda: Recall(4), {**OPTIONS, "lr": 3e-3, "epsilon_steps": 2000}, 0.5),
    "DDPG": (DDPG, RecallNumber, NOISE, 0.0),
    "TD3": (TD3, RecallNumber, NOISE, 0.0),
    "SAC": (SAC, RecallNumber, {**ACTOR_CRITIC, "ent_coef": 0.01}, 0.0),
    "SAC-choices": (SAC, lambda: Recall(4), {**ACTOR_CRITIC, "ent_coef": 0.01}, 0.5),
    "MADDPG": (MADDPG, lambda: RecallNumberTeam(2, 4), NOISE, 0.0),
    "MATD3": (MATD3, lambda: RecallTeam(2, 4), ACTOR_CRITIC, 0.5),
}


def trained_return(
    name: str, *, recurrent: bool = True, make_env: Any = None, steps: int = 3200, length: int = 5
) -> float:
    """The least agent's mean return in 200 deterministic episodes, after at most 3,200 steps."""
    kind, usual, options, _ = PROBES[name]
    make_env = make_env or usual
    encoder: dict[str, Any] = {"hidden_size": [16]}
    if recurrent:
        encoder = {"hidden_size": [], "hidden_state_size": 16, "cell": "gru", "max_seq_len": length}
    net = {"encoder_config": encoder, "head_config": {"hidden_size": [32]}}
    options = {**options, "recurrent": recurrent, "seed": 0}
    if kind in (MADDPG, MATD3):
        env, unseen = (
            make_multi_agent_vect_envs(make_env, 8, should_async_vector=False) for _ in range(2)
        )
        agent: Any = kind(env.observation_spaces, env.action_spaces, env.agents, net, **options)
    else:
        env, unseen = (
            make_vect_envs(make_env=make_env, num_envs=8, should_async_vector=False)
            for _ in range(2)
        )
        spaces = env.single_observation_space, env.single_action_space
        agent = kind(*spaces, net, **options)
    train_until(agent, env, ENOUGH, steps)
    returns = agent.evaluate(unseen, 200, seed=1)
    each = returns.values() if isinstance(returns, dict) else [returns]
    return float(min(x.mean() for x in each))


class TestRecallTheFirstBit:
    """The bit is seen 4 steps before it is asked for, and gone in between."""

    @pytest.mark.parametrize("name", PROBES)
    def test_recurrent_solves_it(self, name: str) -> None:
        # Four seeds of four, and of SAC with choices the only one tried, answer all 200 right (with
        # numbers: earn 0.98 of what there is) by then, most of them after half the steps. A memory
        # that is lost or mixed up leaves chance.
        assert trained_return(name) > 0.9

    # One algorithm for each environment, of which this says that it takes a memory.
    @pytest.mark.parametrize("name", ["DQN", "TD3", "MADDPG", "MATD3"])
    def test_feed_forward_stays_at_chance(self, name: str) -> None:
        # The mean of 200 tosses of a coin deviates by 0.035, of 200 signs by 0.07, and the least of
        # two agents' lies a little lower. Four deviations. Those with memory mostly know by then.
        chance = PROBES[name][3]
        error = 0.14 if chance else 0.28
        assert trained_return(name, recurrent=False, steps=1600) == pytest.approx(chance, abs=error)

    def test_recurrent_solves_it_taking_turns(self) -> None:
        # Between two decisions of an agent lie places in which it sees nothing. Two seeds of
        # two answered all 200 right after 3,200 steps.
        assert trained_return("MATD3", make_env=in_turn, steps=4800, length=10) > 0.9
