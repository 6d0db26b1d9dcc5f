"""What every agent that users hold can do, whatever its algorithm: be saved, loaded and cloned."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch

from recurrent_rl import checkpoint
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.group import AgentGroup
from recurrent_rl.vector import RowSource


class Agent(ABC):
    """One group of agents or several, behind one front door.

    Attributes:
        steps: environment steps trained for, a list for training loops to append to.
        fitness: results of ``test``, in order.
        scores: returns of training episodes, for training loops to fill.

    """

    device: torch.device
    # What a checkpoint and the agent that loads it must agree in.
    _fixed: tuple[str, ...]

    def __init__(self) -> None:
        """Start the histories."""
        self.steps: list[int] = [0]
        self.fitness: list[float] = []
        self.scores: list[float] = []

    @property
    @abstractmethod
    def groups(self) -> Sequence[AgentGroup]:
        """The groups of agents that share a policy."""

    @abstractmethod
    def rows_of(self, env: Any) -> RowSource:
        """See an environment as rows of this agent's groups (for ``collect`` and ``evaluation``).

        Raises:
            TypeError: it is of another kind.
            ValueError: its spaces or agents are not this agent's.

        """

    @abstractmethod
    def _to_data(self) -> dict[str, Any]:
        """Return all that ``_from_data`` needs, in tensors and plain values."""

    @classmethod
    @abstractmethod
    def _from_data(cls, data: dict[str, Any], device: torch.device | str) -> Self:
        """Rebuild what ``_to_data`` described."""

    @property
    def learn_step(self) -> int:
        """T, steps per environment in a rollout."""
        return self.groups[0].config.learn_step

    def _histories(self) -> dict[str, list[Any]]:
        return {name: list(getattr(self, name)) for name in ("steps", "fitness", "scores")}

    def _restore_histories(self, data: dict[str, Any]) -> None:
        self.steps, self.fitness = list(data["steps"]), list(data["fitness"])
        self.scores = list(data["scores"])

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Save everything that training goes on from: atomically, readable in weights-only mode.

        Weights, optimiser, normalisation, hyper-parameters, counters, random state, and where
        collection stopped. A rollout that has not been learned from is not saved.

        Raises:
            FileNotFoundError: the directory does not exist.
            PermissionError: it cannot be written.

        """
        checkpoint.save({"algorithm": type(self).__name__, **self._to_data()}, path)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Become the agent that was saved, hyper-parameters included.

        To go on training exactly where it stopped, put the environment back into its state and
        call ``collect_rollouts_recurrent(agent, env, reset=False)``.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: truncated, foreign, or of an agent with other spaces or networks;
                this agent is as before.

        """
        other = type(self).load(path, self.device)
        for name in self._fixed:
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise CheckpointError(
                    f"{path}: expected this agent's {name} {ours}, got {theirs}; use "
                    f"{type(self).__name__}.load(path) to build the saved agent anew"
                )
        self.__dict__.update(other.__dict__)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Self:
        """Build the agent that was saved.

        Args:
            path: written by ``save_checkpoint``.
            device: of the policy.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: truncated or foreign.

        """
        data = checkpoint.load(path)
        if data.get("algorithm") != cls.__name__:
            raise CheckpointError(
                f"{path}: expected a saved {cls.__name__}, got {data.get('algorithm')!r}"
            )
        try:
            return cls._from_data(data, device)
        except Exception as error:  # whatever the wrong part does to the code that reads it
            raise CheckpointError(f"{path}: the parts do not fit together: {error}") from error

    def clone(self) -> Self:
        """Return an independent copy that has not collected anything yet."""
        other = type(self)._from_data(copy.deepcopy(self._to_data()), self.device)
        for group in other.groups:
            group.carry = None
        return other
