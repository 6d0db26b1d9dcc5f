"""Environments as rows: what every kind of vector looks like to a policy.

Letters: E environments, A agents in a group, N = E * A rows, row e * A + a. A Gymnasium vector
environment is one group of one agent: N = E.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from recurrent_rl.envs.final_infos import Numbers
from recurrent_rl.spaces.array import Array


class Observed(NamedTuple):
    """What the policy is about to see, for N rows. None stands for the usual: no row, or all.

    Attributes:
        observation: as ``ObservationLayout`` keeps them, [N, *shape].
        start: rows whose memory must be zeroed first, bool [N]; None for no row.
        exists: rows whose observation is real, bool [N]; None for all.
        active: rows whose action the policy chooses, bool [N]; None for all.
        action_mask: allowed actions, bool [N, n], or None.
        forced: rows whose action the environment has chosen, bool [N]; None for no row.
        forced_action: theirs, as the environment takes them, [N, *shape]; other rows' mean nothing.
        view: what a central critic sees of each environment, stored form, [E, *shape], or None.
        tensor: the observation as a tensor, [N, *shape], on the device of environments that show
            tensors, and are to get their actions as such; None: they show arrays.

    """

    observation: Array
    start: Array | None = None
    exists: Array | None = None
    active: Array | None = None
    action_mask: Array | None = None
    forced: Array | None = None
    forced_action: Array | None = None
    view: Array | None = None
    tensor: Tensor | None = None

    def copy(self) -> "Observed":
        """Return copies of all, as environments may write over what they have shown."""
        arrays = (None if x is None else np.array(x) for x in self[:-1])
        tensor = None if self.tensor is None else self.tensor.clone()
        return Observed(*arrays, tensor)  # type: ignore[call-arg, arg-type]


class Outcome(NamedTuple):
    """What a step led to, for N rows.

    Attributes:
        reward: to be trained on, [N].
        terminated: bool [N].
        truncated: bool [N].
        final_rows: rows cut by a limit whose last observation is here rather than in the next
            ``Observed``, [n]; without those who were not shown any.
        final_observation: theirs, [n, *shape], or None if there are none.
        final_mask: what would be allowed there, bool [n, mask_size]; None: nobody said.
        score: what an episode's return is summed from, [N]; None: the reward.
        ended: rows whose environment's episode ended, bool [N]; None: the terminated or truncated.
        counted: rows for which the step counts into the episode's length, bool [N]; None: all.
        void: rows whose step never was, as they had ended before, bool [N]; None: no row.
        final_view: what a central critic would see with the final observations, [n, *shape], or
            None.
        final_info: the numbers of the infos with which episodes ended, by row; only rows whose
            environment's episode ended, and that have any. None: there are none.

    """

    reward: Array
    terminated: Array
    truncated: Array
    final_rows: Array
    final_observation: Array | None
    final_mask: Array | None = None
    score: Array | None = None
    ended: Array | None = None
    counted: Array | None = None
    void: Array | None = None
    final_view: Array | None = None
    final_info: Mapping[int, Numbers] | None = None

    @property
    def over(self) -> Array:
        """Rows whose environment's episode ended, bool [N]."""
        return self.terminated | self.truncated if self.ended is None else self.ended


class RowSource(ABC):
    """Environments that are stepped together, as the rows of one group of agents or several.

    Attributes:
        env: the vector environment itself.
        num_envs: E.
        final_is_next: an episode's final observation comes as the next one, under a row that is
            not active (next-step autoreset).

    """

    env: Any
    num_envs: int
    final_is_next: bool

    @abstractmethod
    def reset(self, seed: int | None = None) -> list[Observed]:
        """Start all episodes afresh; what each group sees."""

    @abstractmethod
    def step(
        self, actions: Sequence[Any], before: Sequence[Observed]
    ) -> list[tuple[Outcome, Observed]]:
        """Take a step from ``before``; for each group what it led to, and what is seen next.

        Actions are arrays, [N, ...]; or tensors, if ``before`` has the observations as such.
        """

    def waiting(self) -> AbstractContextManager[Any]:
        """Let environments wait for a reset after their episodes, where they can, while it is open.

        Otherwise a vector resets them at once, to begin an episode that nobody may want.
        """
        return nullcontext()

    @abstractmethod
    def name(self, group: int, row: int) -> str:
        """Say in words which environment, and which agent, a group's row is."""


NO_ROWS = np.zeros(0, dtype=np.int64)
