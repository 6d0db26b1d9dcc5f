"""The algorithms that populations are built of, by name."""

from typing import Final

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.ippo import IPPO
from recurrent_rl.algorithms.ppo import PPO

ALGORITHMS: Final[dict[str, type[Agent]]] = {"PPO": PPO, "IPPO": IPPO}
