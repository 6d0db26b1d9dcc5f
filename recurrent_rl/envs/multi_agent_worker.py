"""What a worker process of a vector with several agents does, and where it writes.

Letters: E environments.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from recurrent_rl.envs.agent_table import AgentSpaces, AgentTable, check_alike
from recurrent_rl.envs.distinct import check_distinct, is_marked
from recurrent_rl.envs.env_rows import EnvRows
from recurrent_rl.envs.environment_rows import environment_rows
from recurrent_rl.envs.multi_agent_members import MakeEnv, built, execute, final_infos_of
from recurrent_rl.envs.worker_process import Parent
from recurrent_rl.randomness import seed_this_process
from recurrent_rl.spaces.array import Array


def work(
    parent: Parent,
    makers: Sequence[MakeEnv],
    part: range,
    agents: Sequence[AgentSpaces],
    state_space: gym.Space[Any] | None,
    num_envs: int,
    memory: Any,
    current: tuple[Any, int],
    mark: str,
) -> None:
    """Build some environments in a worker process, and do the parent's commands.

    Args:
        parent: sends commands; is sent None when the worker is built and after each command, or
            after a step the ``final_infos`` of these environments, if there are any.
        makers: build this worker's environments.
        part: the indices of these environments.
        agents: of the first environment; the others must have the same.
        state_space: likewise.
        num_envs: E, the environments of all workers.
        memory: the table's, shared.
        current: where to note the environment that the worker is at: an array and an index.
        mark: what the first environment was marked with.

    """
    seed_this_process(None)
    array, index = current

    def note(environment: int) -> None:
        array[index] = environment

    table = AgentTable(agents, num_envs, Allocator(memory).allocate, state_space)
    rows: list[EnvRows] = []
    for e, make in zip(part, makers, strict=True):
        note(e)
        env = built(make)
        parent.exit_stack.callback(env.close)
        check_alike(agents, env, e)
        rows.append(environment_rows(env, table, e))
        if e and is_marked(env, mark):  # a fork's copy of environment 0
            check_distinct([env, env])
        check_distinct([row.env for row in rows])
    parent.send(None)
    while (command := parent.receive())[0] != "close":
        execute(command, rows, note, own_generators=True)
        parent.send((command[0] == "step" and final_infos_of(rows)) or None)


class Allocator:
    """Allocates arrays one after the other in one piece of memory.

    Attributes:
        memory: the piece of memory; None only counts how much is needed.
        used: bytes so far.

    """

    def __init__(self, memory: Any = None) -> None:
        """Arg ``memory``: see the class."""
        self.memory, self.used = memory, 0

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the next array, zeros in memory that is new."""
        kind = np.dtype(dtype)
        begin, count = self.used, int(np.prod(shape))
        self.used += -(-count * kind.itemsize // 64) * 64  # on cache lines of their own
        if self.memory is None:
            return np.zeros(shape, kind)
        return np.frombuffer(self.memory, kind, count, begin).reshape(shape)
