"""A vector of PettingZoo environments in this process."""

from collections.abc import Iterable, Sequence
from typing import Any

from recurrent_rl.envs.agent_table import AgentTable, check_alike
from recurrent_rl.envs.distinct import check_distinct
from recurrent_rl.envs.environment_rows import environment_rows
from recurrent_rl.envs.multi_agent_members import (
    MakeEnv,
    build_member,
    checked_makers,
    execute,
    final_infos_of,
)
from recurrent_rl.envs.multi_agent_vector import MultiAgentVectorEnv


class SyncMultiAgentVectorEnv(MultiAgentVectorEnv):
    """All environments in this process, one after the other."""

    def __init__(self, env_fns: Iterable[MakeEnv]) -> None:
        """Build the environments.

        Args:
            env_fns: E functions, each of which builds a PettingZoo environment, or a Gymnasium
                environment with Tuples of agents.

        Raises:
            TypeError: something else than an environment, or a space that is not supported.
            ValueError: no functions, environments that are not alike, or one object for several.

        """
        self.env_fns = makers = checked_makers(env_fns)
        self.envs: list[Any] = []
        for e, make in enumerate(makers):
            self.envs.append(build_member(make, e))
            if e == 0:
                super().__init__(self.envs[0])
            else:
                check_alike(list(self._spaces.values()), self.envs[e], e)
        check_distinct(self.envs)
        self.num_envs = len(self.envs)
        spaces = list(self._spaces.values())
        self.table = AgentTable(spaces, self.num_envs, state_space=self.state_space)
        self._rows = [environment_rows(env, self.table, e) for e, env in enumerate(self.envs)]

    def reset_rows(self, seeds: Sequence[int | None], options: Any = None) -> None:
        self._check_open()
        self.final_infos = {}
        execute(("reset", seeds, options), self._rows)

    def step_rows(self) -> None:
        self._check_open()
        execute(("step",), self._rows)
        self.final_infos = final_infos_of(self._rows)
        self._warn_of_unearned()

    def wait_after_episodes(self, waits: bool) -> None:
        self._check_open()
        execute(("wait", waits), self._rows)

    def _read_state(self) -> None:
        self._check_open()
        execute(("state",), self._rows)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            for env in self.envs:
                env.close()
