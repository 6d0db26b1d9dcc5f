"""Recurrent reinforcement learning: agents that remember, exact and fast."""

from recurrent_rl.agent import Birth
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.collect import RolloutStats, collect_rollouts, collect_rollouts_recurrent
from recurrent_rl.config import (
    CnnConfig,
    EncoderConfig,
    HeadConfig,
    MlpConfig,
    NetConfig,
    PPOConfig,
)
from recurrent_rl.encoders import SequenceNetwork
from recurrent_rl.group import ActionOutput, AgentGroup
from recurrent_rl.hpo import HyperparameterConfig, RLParameter
from recurrent_rl.ippo import IPPO
from recurrent_rl.learner import Diagnostics
from recurrent_rl.metrics import MetricsLogger
from recurrent_rl.multi_agent import (
    AsyncMultiAgentVectorEnv,
    MultiAgentVectorEnv,
    SyncMultiAgentVectorEnv,
    make_multi_agent_vect_envs,
)
from recurrent_rl.multi_agent_acting import MultiAgentActionOutput
from recurrent_rl.mutation import Mutations
from recurrent_rl.population import create_population, load_population
from recurrent_rl.ppo import PPO
from recurrent_rl.recurrent import HiddenState, RecurrentCore
from recurrent_rl.rollout import SequenceRolloutBuffer
from recurrent_rl.tournament import TournamentSelection
from recurrent_rl.training import train_multi_agent_on_policy, train_on_policy
from recurrent_rl.tuned import TunedSettings, load_tuned
from recurrent_rl.vector import make_vect_envs
from wrappers import MaskVelocityWrapper

__version__ = "0.1.0"

__all__ = [
    "IPPO",
    "PPO",
    "ActionOutput",
    "AgentGroup",
    "AsyncMultiAgentVectorEnv",
    "Birth",
    "CheckpointError",
    "CnnConfig",
    "Diagnostics",
    "EncoderConfig",
    "HeadConfig",
    "HiddenState",
    "HyperparameterConfig",
    "MaskVelocityWrapper",
    "MetricsLogger",
    "MlpConfig",
    "MultiAgentActionOutput",
    "MultiAgentVectorEnv",
    "Mutations",
    "NetConfig",
    "PPOConfig",
    "RLParameter",
    "RecurrentCore",
    "RolloutStats",
    "SequenceNetwork",
    "SequenceRolloutBuffer",
    "SyncMultiAgentVectorEnv",
    "TournamentSelection",
    "TunedSettings",
    "collect_rollouts",
    "collect_rollouts_recurrent",
    "create_population",
    "load_population",
    "load_tuned",
    "make_multi_agent_vect_envs",
    "make_vect_envs",
    "train_multi_agent_on_policy",
    "train_on_policy",
]
