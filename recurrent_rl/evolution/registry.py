"""The algorithms that populations are built of, by name."""

from typing import Final

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.ddpg import DDPG
from recurrent_rl.algorithms.dqn import DQN
from recurrent_rl.algorithms.ippo import IPPO
from recurrent_rl.algorithms.maddpg import MADDPG, MATD3
from recurrent_rl.algorithms.mappo import MAPPO
from recurrent_rl.algorithms.ppo import PPO
from recurrent_rl.algorithms.sac import SAC
from recurrent_rl.algorithms.td3 import TD3

ALGORITHMS: Final[dict[str, type[Agent]]] = {
    "PPO": PPO,
    "IPPO": IPPO,
    "MAPPO": MAPPO,
    "DQN": DQN,
    "DDPG": DDPG,
    "TD3": TD3,
    "SAC": SAC,
    "MADDPG": MADDPG,
    "MATD3": MATD3,
}
