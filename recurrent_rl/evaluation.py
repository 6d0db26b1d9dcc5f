"""Running episodes without learning.

Letters: E environments, N rows.
"""

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from recurrent_rl.collect import check_spaces, disturb
from recurrent_rl.config import PPOConfig
from recurrent_rl.recurrent import HiddenState
from recurrent_rl.vector import Array, GymRows, Observed


class Acting(Protocol):
    """What evaluation needs of an agent; ``PPO`` documents the parts."""

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    config: PPOConfig

    def get_initial_hidden_state(self, n: int = 1) -> HiddenState:
        """Return the memory of N rows at the start of an episode."""

    def get_action(
        self,
        obs: Any,
        hidden_state: HiddenState | None = None,
        action_mask: Any = None,
        *,
        deterministic: bool = False,
        reward: Any = None,
    ) -> tuple[Array, Array, Array, Array, HiddenState]:
        """Choose actions; return them and, last, the hidden state after the step."""


def evaluate(
    agent: Acting,
    env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
    episodes: int,
    *,
    max_steps: int | None,
    deterministic: bool,
    seed: int | None,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the undiscounted returns of at least ``episodes`` episodes; see ``PPO.evaluate``."""
    for name, count in (("episodes", episodes), ("max_steps", max_steps)):
        if count is not None and count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    if not hasattr(env, "num_envs"):
        single = env
        env = SyncVectorEnv([lambda: single], autoreset_mode=AutoresetMode.SAME_STEP)
    rows = GymRows(env)  # type: ignore[arg-type]
    check_spaces(agent, rows.env)
    disturb(rows.env)
    returns: list[Array] = []
    for i in range(-(-episodes // rows.rows)):
        observed = rows.reset(seed if i == 0 else None)
        returns.append(_play(agent, rows, observed, max_steps, deterministic))
    return np.concatenate(returns)


def _play(
    agent: Acting, rows: GymRows, observed: Observed, max_steps: int | None, deterministic: bool
) -> Array:
    """One episode on every row; the returns [N]."""
    state = agent.get_initial_hidden_state(rows.rows)
    total, reward = np.zeros(rows.rows), np.zeros(rows.rows)
    playing = np.ones(rows.rows, dtype=bool)
    steps = 0
    while playing.any() and (max_steps is None or steps < max_steps):
        mask = observed.action_mask
        action, _, _, _, state = agent.get_action(
            observed.observation,
            state,
            # In a final state nothing may be allowed, but whose episode ended is not asked.
            None if mask is None else mask | ~playing[:, None],
            deterministic=deterministic,
            reward=reward if agent.config.previous_reward else None,
        )
        outcome, observed = rows.step(action, observed)
        reward = np.asarray(outcome.reward, dtype=np.float64)
        total += np.where(playing, reward, 0)
        playing &= ~(outcome.terminated | outcome.truncated)
        steps += 1
    return total
