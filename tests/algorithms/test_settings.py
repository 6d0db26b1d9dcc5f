"""Tests of `recurrent_rl.algorithms.settings`: attributes that would do nothing are refused."""

from dataclasses import dataclass

import gymnasium as gym
import pytest
import torch

from recurrent_rl import PPO, PPOConfig
from recurrent_rl.algorithms.configs import AlgorithmConfig
from recurrent_rl.algorithms.settings import HasSettings


@dataclass(frozen=True)
class OtherConfig(AlgorithmConfig):
    """Of an algorithm with two step sizes."""

    lr_actor: float = 1e-3
    lr_critic: float = 1e-3

    @property
    def update_ratio(self) -> float:
        return 1.0


class OfPPO(HasSettings):
    """Has PPO's hyper-parameters."""

    config_type = PPOConfig


class OfOther(HasSettings):
    """Has the other algorithm's."""

    config_type = OtherConfig


@pytest.mark.parametrize(
    ("kind", "own", "other"), [(OfPPO, "lr", "lr_actor"), (OfOther, "lr_actor", "lr")]
)
def test_the_algorithms_own_hyperparameters(kind: type[HasSettings], own: str, other: str) -> None:
    thing = kind()
    for name in (own, "learn_step", "recurrent"):
        with pytest.raises(AttributeError, match=rf"^{kind.__name__}\.{name}: .*reconfigure"):
            setattr(thing, name, 1)
    setattr(thing, other, 2)
    assert vars(thing) == {other: 2}


def test_what_agents_are_built_with_stays() -> None:
    """A device that is set moves no network; loading in place, which changes all, still works."""
    agent = PPO(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), seed=3)
    for name, value in (("device", "cuda"), ("seed", 4)):
        with pytest.raises(AttributeError, match=rf"^PPO\.{name}: .*as the agent was built.*load"):
            setattr(agent, name, value)
    assert (agent.device.type, agent.seed) == ("cpu", 3)
    agent.become(PPO(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), seed=4))
    assert agent.seed == 4


# --- what agents say of themselves -----------------------------------------------------------


def test_what_is_not_as_by_default_is_shown() -> None:
    spaces = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2)
    assert "settings" not in repr(PPO(*spaces, device="auto"))
    shown = repr(PPO(*spaces, lr=3e-3, gamma=0.9, device="auto")).splitlines()
    assert shown[-1] == "  settings  lr=0.003, gamma=0.9"
    many = repr(PPO(*spaces, **dict.fromkeys(BOOLS, True))).splitlines()
    assert all(len(line) <= 100 for line in many)
    assert all(any(f"{name}=True" in line for line in many) for name in BOOLS)


BOOLS = (
    "previous_action",
    "previous_reward",
    "normalize_obs",
    "refresh_hidden_state",
    "value_norm",
)


def test_a_device_is_found() -> None:
    agent = PPO(gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), device="auto")
    assert agent.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
