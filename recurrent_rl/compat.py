"""Names and habits of scripts that were written for other libraries' multi-agent training.

Such a script runs with its imports changed to these. What is special here: ``create_population``
builds MADDPG and MATD3 agents without memory unless they are asked for one, whose ``get_action``
returns ``action, raw_action``. Everything else is what ``recurrent_rl`` has under its own name.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from recurrent_rl.algorithms.multi_agent_replay import MultiAgentReplayBuffer
from recurrent_rl.algorithms.search_space import HyperparameterConfig, RLParameter
from recurrent_rl.algorithms.team import Spaces
from recurrent_rl.envs.make_multi_agent import make_multi_agent_vect_envs
from recurrent_rl.envs.make_vector import make_vect_envs
from recurrent_rl.envs.multi_agent_async import AsyncMultiAgentVectorEnv
from recurrent_rl.evolution import population
from recurrent_rl.evolution.mutation import Mutations
from recurrent_rl.evolution.tournament import TournamentSelection
from recurrent_rl.evolution.training import (
    train_multi_agent_off_policy,
    train_multi_agent_on_policy,
    train_off_policy,
    train_on_policy,
)
from recurrent_rl.networks.configs import NetConfig

__all__ = [
    "AsyncPettingZooVecEnv",
    "HyperparameterConfig",
    "MultiAgentReplayBuffer",
    "Mutations",
    "RLParameter",
    "TournamentSelection",
    "create_population",
    "make_multi_agent_vect_envs",
    "make_vect_envs",
    "obs_channels_to_first",
    "observation_space_channels_to_first",
    "train_multi_agent_off_policy",
    "train_multi_agent_on_policy",
    "train_off_policy",
    "train_on_policy",
]

AsyncPettingZooVecEnv = AsyncMultiAgentVectorEnv

_WITH_RAW_ACTIONS = ("MADDPG", "MATD3")
_OF_MEMORY = ("cell", "hidden_state_size", "num_layers", "max_seq_len")


def create_population(
    algo: str,
    observation_space: gym.Space[Any] | Spaces,
    action_space: gym.Space[Any] | Spaces,
    net_config: NetConfig | Mapping[str, Any] | None = None,
    INIT_HP: Mapping[str, Any] | None = None,  # noqa: N803 - what users know it as
    hp_config: HyperparameterConfig | None = None,
    population_size: int = 4,
    num_envs: int = 1,
    device: torch.device | str = "cpu",
    **options: Any,
) -> list[Any]:
    """Build agents; see ``recurrent_rl.create_population``.

    MADDPG and MATD3 agents have no memory here, unless ``INIT_HP["RECURRENT"]`` says so, or
    ``net_config`` describes one ("hidden_state_size", "cell", "num_layers" or "max_seq_len" of an
    encoder); those without have ``action_pairs=True``.
    """
    if algo in _WITH_RAW_ACTIONS and isinstance(INIT_HP, Mapping | None):
        asked = dict(INIT_HP or {})
        recurrent = asked.setdefault("RECURRENT", _describes_memory(net_config))
        asked.setdefault("ACTION_PAIRS", not recurrent)
        INIT_HP = asked  # noqa: N806
    return population.create_population(
        algo,
        observation_space,
        action_space,
        net_config,
        INIT_HP,
        hp_config,
        population_size,
        num_envs,
        device,
        **options,
    )


def _describes_memory(net_config: Any) -> bool:
    """Whether there is an option of memory in an encoder's configuration, of anybody's."""
    if isinstance(net_config, NetConfig):
        return True
    if not isinstance(net_config, Mapping):
        return False
    return any(key in _OF_MEMORY or _describes_memory(net_config[key]) for key in net_config)


def obs_channels_to_first(obs: Any) -> Any:
    """Return observations with images' last axis moved before their height and width.

    >>> obs_channels_to_first({"pilot_0": np.zeros((8, 84, 84, 3))})["pilot_0"].shape
    (8, 3, 84, 84)

    Agents need no such thing: they recognise images as they are. With it, their spaces are to be
    ``observation_space_channels_to_first`` too.

    Args:
        obs: [..., H, W, C], or a dictionary or tuple of such arrays; others are left alone.

    """
    if isinstance(obs, Mapping):
        return {key: obs_channels_to_first(value) for key, value in obs.items()}
    if isinstance(obs, tuple):
        return tuple(obs_channels_to_first(value) for value in obs)
    array = np.asarray(obs)
    return np.moveaxis(array, -1, -3) if array.ndim >= 3 else obs


def observation_space_channels_to_first(space: gym.Space[Any]) -> gym.Space[Any]:
    """Return the space of what ``obs_channels_to_first`` returns.

    >>> observation_space_channels_to_first(spaces.Box(0, 255, (84, 84, 3), np.uint8)).shape
    (3, 84, 84)
    """
    if isinstance(space, spaces.Dict):
        parts = space.spaces.items()
        return spaces.Dict({key: observation_space_channels_to_first(part) for key, part in parts})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([observation_space_channels_to_first(part) for part in space.spaces])
    if not isinstance(space, spaces.Box) or len(space.shape) < 3:
        return space
    low, high = (np.moveaxis(bound, -1, -3) for bound in (space.low, space.high))
    return spaces.Box(low, high, dtype=space.dtype.type)
