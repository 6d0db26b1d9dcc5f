"""Training that ends as soon as a task is learned, for tests of whether it ever is."""

from collections import deque
from typing import Any

import numpy as np

from recurrent_rl import collect_rollouts_recurrent

EPISODES = 100


def train_until(agent: Any, env: Any, enough: float, most: int) -> None:
    """Collect and learn until each agent's last 100 episodes returned ``enough`` on average.

    Or for ``most`` environment steps. The returns are those of collecting, hence with exploration:
    who is judged by deterministic episodes afterwards does a little better.
    """
    recent: dict[str, deque[float]] = {}
    while agent.env_steps < most:
        collected = collect_rollouts_recurrent(agent, env)
        for name, ended in (collected.agent_returns or {"": collected.returns}).items():
            recent.setdefault(name, deque(maxlen=EPISODES)).extend(ended)
        # Before the next update, which may upset for a while what has just been learned.
        if all(len(each) == EPISODES and np.mean(each) > enough for each in recent.values()):
            return
        agent.learn()
