"""Games of connect four against players that need no training.

A player sees what PettingZoo shows: planes [6, 7, 2] of its own and of the other's pieces, the top
row first, and which columns are not full.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pettingzoo

ROWS, COLUMNS = 6, 7
Player = Callable[[np.ndarray, np.ndarray, np.random.Generator], int]


def connect_four() -> Any:
    """Build PettingZoo's game; an illegal move would lose it."""
    return pettingzoo.make("aec", "classic/connect_four-v3")


def chance(planes: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> int:
    """Move anywhere that is allowed."""
    return int(random.choice(np.flatnonzero(mask)))


def lookahead(planes: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> int:
    """Win if a move does, or else block one by which the other would; otherwise anywhere."""
    allowed = np.flatnonzero(mask)
    for side in (0, 1):
        for column in allowed:
            if completes(planes, side, int(column)):
                return int(column)
    return int(random.choice(allowed))


def completes(planes: np.ndarray, side: int, column: int) -> bool:
    """Whether a piece of a side in a column makes four in a row."""
    free = np.flatnonzero(~planes[:, column].any(-1))
    if not len(free):
        return False
    row, own = int(free[-1]), planes[..., side]
    for down, right in ((1, 0), (0, 1), (1, 1), (1, -1)):
        count = 1
        for sign in (1, -1):
            r, c = row + sign * down, column + sign * right
            while 0 <= r < ROWS and 0 <= c < COLUMNS and own[r, c]:
                count, r, c = count + 1, r + sign * down, c + sign * right
        if count >= 4:
            return True
    return False


def play(agent: Any, other: Player, games: int, seed: int) -> np.ndarray:
    """Outcomes of an agent's games, [games]: 1 for a win, 0.5 for a draw, 0 for a loss.

    In every second game the other one begins.
    """
    env = connect_four()
    random, outcomes = np.random.default_rng(seed), []
    for game in range(games):
        env.reset(seed=seed + game)
        me = env.agents[game % 2]
        state = {me: agent.get_initial_hidden_state()[me]}
        reward = 0.0
        for player in env.agent_iter():
            seen, earned, terminated, truncated, _ = env.last()
            if terminated or truncated:
                reward = earned if player == me else reward
                env.step(None)
            elif player == me:
                out = agent.get_action({me: seen}, state, deterministic=True)
                state = out.hidden_state
                env.step(int(out.action[me]))
            else:
                env.step(other(seen["observation"], seen["action_mask"], random))
        outcomes.append((1 + reward) / 2)
    return np.array(outcomes)
