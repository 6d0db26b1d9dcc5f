"""What collection and testing ask of an agent, and what they ask of those who record."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from recurrent_rl.acting.carry import Collection
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import Player, Turn
from recurrent_rl.envs.rows import Observed, Outcome, RowSource


class Sight(NamedTuple):
    """What a group's rows see at a step, on the policy's device.

    Attributes:
        observation: in stored form, [N, *shape].
        mask: allowed actions, bool [N, mask_size], or None.
        view: what a central critic reads, [N, *shape], or None.

    """

    observation: Tensor
    mask: Tensor | None = None
    view: Tensor | None = None


class Recorder(ABC):
    """Keeps what an algorithm wants of one group's steps."""

    @abstractmethod
    def see(self, t: int, seen: Observed) -> Sight:
        """Keep what is seen at step t, and return it as policies read it."""

    @abstractmethod
    def acted(self, t: int, seen: Observed, turn: Turn) -> None:
        """Keep how the player acted upon it."""

    @abstractmethod
    def outcome(self, t: int, outcome: Outcome) -> None:
        """Keep what it led to."""

    @abstractmethod
    def finish(self, seen: Observed) -> None:
        """Check what was kept, and complete it by what is seen next.

        Raises:
            ValueError: numbers that make no sense; names environment and step.

        """

    @abstractmethod
    def check(self, steps: int) -> None:
        """Raise as ``finish`` does if what was seen in the first ``steps`` steps makes no sense."""

    @abstractmethod
    def abandon(self) -> None:
        """Forget what was kept: it is not whole, or makes no sense."""


class ActingAgent(ABC):
    """One group of agents or several, which act together in environments.

    Attributes:
        collection: where it stopped.

    """

    collection: Collection

    @property
    @abstractmethod
    def groups(self) -> Sequence[AgentGroup]:
        """The groups of agents that share a policy."""

    @abstractmethod
    def rollout_steps(self, num_envs: int) -> int:
        """Return T, steps of each of E environments that are collected at a time."""

    @abstractmethod
    def rows_of(self, env: Any) -> RowSource:
        """See an environment as rows of this agent's groups.

        Raises:
            TypeError: it is of another kind.
            ValueError: its spaces or agents are not this agent's.

        """

    def rows_to_learn_in(self, env: Any) -> RowSource:
        """See an environment as collection does, with whoever plays against this agent in it."""
        return self.rows_of(env)

    @abstractmethod
    def join_world(self) -> None:
        """Begin to act and learn with the agents of other processes, if there are any."""

    @abstractmethod
    def start_rollout(
        self,
        steps: int,
        players: Sequence[Player],
        seen: Sequence[Observed],
        rows: RowSource,
        continued: bool,
    ) -> Sequence[Recorder]:
        """Return a recorder for each group, for T steps; until they end there is nothing to learn.

        Args:
            steps: T.
            players: who will act, by group.
            seen: what they see first, by group.
            rows: the environments.
            continued: they go on where the last rollout ended.

        """

    @abstractmethod
    def end_rollout(self, steps: int) -> None:
        """Note that the recorders are done, after so many environment steps."""
