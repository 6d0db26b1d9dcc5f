"""Recurrent reinforcement learning: agents that remember, exact and fast."""

from recurrent_rl.acting.collect import RolloutStats, collect_rollouts, collect_rollouts_recurrent
from recurrent_rl.acting.group import ActionOutput, AgentGroup
from recurrent_rl.acting.multi_agent_acting import MultiAgentActionOutput
from recurrent_rl.acting.opponents import OpponentPool
from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.algorithms.ddpg import DDPG
from recurrent_rl.algorithms.dqn import DQN
from recurrent_rl.algorithms.individual import Birth
from recurrent_rl.algorithms.ippo import IPPO
from recurrent_rl.algorithms.maddpg import MADDPG, MATD3
from recurrent_rl.algorithms.mappo import MAPPO
from recurrent_rl.algorithms.multi_agent_replay import MultiAgentReplayBuffer
from recurrent_rl.algorithms.off_policy import OffPolicyDiagnostics
from recurrent_rl.algorithms.off_policy_configs import DDPGConfig, DQNConfig, SACConfig, TD3Config
from recurrent_rl.algorithms.ppo import PPO
from recurrent_rl.algorithms.ppo_update import Diagnostics
from recurrent_rl.algorithms.sac import SAC
from recurrent_rl.algorithms.search_space import HyperparameterConfig, RLParameter
from recurrent_rl.algorithms.td3 import TD3
from recurrent_rl.buffers.replay import SequenceReplayBuffer, Windows
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.envs.make_multi_agent import make_multi_agent_vect_envs
from recurrent_rl.envs.make_vector import make_vect_envs
from recurrent_rl.envs.multi_agent_async import AsyncMultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_sync import SyncMultiAgentVectorEnv
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv
from recurrent_rl.evolution.mutation import Mutations
from recurrent_rl.evolution.population import create_population, load_population
from recurrent_rl.evolution.tournament import TournamentSelection
from recurrent_rl.evolution.training import (
    train_multi_agent_off_policy,
    train_multi_agent_on_policy,
    train_off_policy,
    train_on_policy,
)
from recurrent_rl.export.step import ExportError
from recurrent_rl.imitation.cloning import clone_behaviour
from recurrent_rl.imitation.demonstrations import Demonstrations, Episode
from recurrent_rl.imitation.recording import record_demonstrations, record_team_demonstrations
from recurrent_rl.imitation.report import CloningEpoch, CloningResult
from recurrent_rl.metrics import MetricsLogger
from recurrent_rl.networks.configs import (
    CnnConfig,
    EncoderConfig,
    HeadConfig,
    MlpConfig,
    NetConfig,
)
from recurrent_rl.networks.custom import SequenceNetwork
from recurrent_rl.plots.curves import plot_runs
from recurrent_rl.plots.film import film
from recurrent_rl.plots.groups import final_scores, group_runs
from recurrent_rl.plots.memory import MemoryProbe, probe_memory
from recurrent_rl.plots.memory_picture import plot_memory
from recurrent_rl.plots.runs import LoggedRun, read_run, read_runs
from recurrent_rl.plots.scores import plot_profiles, plot_scores
from recurrent_rl.plots.statistics import (
    Interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from recurrent_rl.recurrent.core import RecurrentCore
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.training.report import Evaluation, Rollout, TrainingResult
from recurrent_rl.training.train import train
from recurrent_rl.tuned import TunedSettings, load_tuned
from recurrent_rl.wrappers.early_message import EarlyMessageWrapper
from recurrent_rl.wrappers.mask_velocity import MaskVelocityWrapper
from recurrent_rl.wrappers.mask_velocity_vector import MaskVelocityVectorWrapper
from recurrent_rl.wrappers.tuple_to_parallel import TupleToParallelWrapper

__version__ = "0.1.0"

__all__ = [
    "DDPG",
    "DQN",
    "IPPO",
    "MADDPG",
    "MAPPO",
    "MATD3",
    "PPO",
    "SAC",
    "TD3",
    "ActionOutput",
    "AgentGroup",
    "AsyncMultiAgentVectorEnv",
    "Birth",
    "CheckpointError",
    "CloningEpoch",
    "CloningResult",
    "CnnConfig",
    "DDPGConfig",
    "DQNConfig",
    "Demonstrations",
    "Diagnostics",
    "EarlyMessageWrapper",
    "EncoderConfig",
    "Episode",
    "Evaluation",
    "ExportError",
    "HeadConfig",
    "HiddenState",
    "HyperparameterConfig",
    "Interval",
    "LoggedRun",
    "MaskVelocityVectorWrapper",
    "MaskVelocityWrapper",
    "MemoryProbe",
    "MetricsLogger",
    "MlpConfig",
    "MultiAgentActionOutput",
    "MultiAgentReplayBuffer",
    "MultiAgentVectorEnv",
    "Mutations",
    "NetConfig",
    "OffPolicyDiagnostics",
    "OpponentPool",
    "PPOConfig",
    "RLParameter",
    "RecurrentCore",
    "Rollout",
    "RolloutStats",
    "SACConfig",
    "SequenceNetwork",
    "SequenceReplayBuffer",
    "SequenceRolloutBuffer",
    "Spectator",
    "SyncMultiAgentVectorEnv",
    "TD3Config",
    "TournamentSelection",
    "TrainingResult",
    "TunedSettings",
    "TupleToParallelWrapper",
    "Windows",
    "clone_behaviour",
    "collect_rollouts",
    "collect_rollouts_recurrent",
    "create_population",
    "film",
    "final_scores",
    "group_runs",
    "interquartile_mean",
    "load_population",
    "load_tuned",
    "make_multi_agent_vect_envs",
    "make_vect_envs",
    "performance_profile",
    "plot_memory",
    "plot_profiles",
    "plot_runs",
    "plot_scores",
    "probability_of_improvement",
    "probe_memory",
    "read_run",
    "read_runs",
    "record_demonstrations",
    "record_team_demonstrations",
    "stratified_bootstrap",
    "train",
    "train_multi_agent_off_policy",
    "train_multi_agent_on_policy",
    "train_off_policy",
    "train_on_policy",
]
