"""Which rows an environment is seen as."""

from typing import Any

from pettingzoo import ParallelEnv

from recurrent_rl.envs.agent_table import AgentTable
from recurrent_rl.envs.env_rows import EnvRows
from recurrent_rl.envs.parallel_rows import ParallelRows
from recurrent_rl.envs.turn_rows import TurnRows


def environment_rows(env: Any, table: AgentTable, index: int) -> EnvRows:
    """Return an environment, parallel or turn-based, as its rows of a table."""
    kind = ParallelRows if isinstance(env, ParallelEnv) else TurnRows
    return kind(env, table, index)
