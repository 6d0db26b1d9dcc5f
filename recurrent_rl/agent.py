"""What every agent that users hold can do, whatever its algorithm: be saved, loaded and cloned."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch

from recurrent_rl import checkpoint
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.group import AgentGroup
from recurrent_rl.hpo import HyperparameterConfig
from recurrent_rl.vector import RowSource


@dataclass(frozen=True)
class Birth:
    """How an individual of a population came to be.

    Attributes:
        index: its number, never used again in the same population.
        parent: its parent's; None in the first generation.
        steps: environment steps that its ancestors and it had trained for then.
        fitness: its parent's latest.
        mutation: what was changed in it; None: nothing.
        shrunk: a network was made smaller, which may cost fitness.
        lost: how much, as the training functions measure it before they go on; None where that was
            not measured.

    """

    index: int
    parent: int | None = None
    steps: int = 0
    fitness: float | None = None
    mutation: str | None = None
    shrunk: bool = False
    lost: float | None = None


class Agent(ABC):
    """One group of agents or several, behind one front door.

    Attributes:
        steps: environment steps trained for, a list for training loops to append to.
        fitness: results of ``test``, in order.
        scores: returns of training episodes, for training loops to fill.
        lineage: its ancestors' births, from the first generation on, and its own at the end.
        elite: kept from the last generation for its fitness; mutations leave it alone.
        hp_config: which hyper-parameters mutations may change; None for none.

    """

    device: torch.device
    # What a checkpoint and the agent that loads it must agree in.
    _fixed: tuple[str, ...]

    def __init__(self) -> None:
        """Start the histories."""
        self.steps: list[int] = [0]
        self.fitness: list[float] = []
        self.scores: list[float] = []
        self.lineage: list[Birth] = [Birth(0)]
        self.elite = False
        self.hp_config: HyperparameterConfig | None = None

    @property
    def index(self) -> int:
        """Number of this individual in its population."""
        return self.lineage[-1].index

    @property
    def mut(self) -> str:
        """What the last mutation changed."""
        return self.lineage[-1].mutation or "none"

    @property
    @abstractmethod
    def groups(self) -> Sequence[AgentGroup]:
        """The groups of agents that share a policy."""

    @property
    def group_names(self) -> list[str]:
        """Names of the groups; an empty one where there is but one group without a name."""
        return [""]

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
    def _from_data(
        cls,
        data: dict[str, Any],
        device: torch.device | str,
        actor_network: Any = None,
        critic_network: Any = None,
    ) -> Self:
        """Rebuild what ``_to_data`` described, around modules like those it was built with."""

    @abstractmethod
    def own_networks(self) -> dict[str, Any]:
        """Return the user's own modules that this agent was built with, as ``load`` takes them."""

    @property
    def learn_step(self) -> int:
        """T, steps per environment in a rollout."""
        return self.groups[0].config.learn_step

    def _histories(self) -> dict[str, Any]:
        return {
            **{name: _plain(getattr(self, name)) for name in ("steps", "fitness", "scores")},
            "lineage": [asdict(birth) for birth in self.lineage],
            "elite": self.elite,
            "hp_config": None if self.hp_config is None else self.hp_config.to_dict(),
        }

    def _restore_histories(self, data: dict[str, Any]) -> None:
        self.steps, self.fitness = list(data["steps"]), list(data["fitness"])
        self.scores = list(data["scores"])
        self.lineage = [Birth(**birth) for birth in data["lineage"]]
        self.elite, hp = data["elite"], data["hp_config"]
        self.hp_config = None if hp is None else HyperparameterConfig.from_dict(hp)

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Save everything that training goes on from: atomically, readable in weights-only mode.

        Weights, optimiser, normalisation, hyper-parameters, counters, random state, and where
        collection stopped. A rollout that has not been learned from is not saved.

        Raises:
            FileNotFoundError: the directory does not exist.
            PermissionError: it cannot be written.

        """
        checkpoint.save(self.to_checkpoint(), path)

    def to_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint holds, in tensors (not copied) and plain values."""
        return {"algorithm": type(self).__name__, **self._to_data()}

    @classmethod
    def from_checkpoint(
        cls, data: dict[str, Any], device: torch.device | str = "cpu", **networks: Any
    ) -> Self:
        """Build the agent that ``to_checkpoint`` described; it shares no tensors with that.

        Args:
            data: from ``to_checkpoint``.
            device: of the policy.
            networks: from ``own_networks``.

        """
        return cls._from_data(data, device, **networks)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Become the agent that was saved, hyper-parameters included.

        To go on training exactly where it stopped, put the environment back into its state and
        call ``collect_rollouts_recurrent(agent, env, reset=False)``.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: truncated, foreign, or of an agent with other spaces or networks;
                this agent is as before.

        """
        other = type(self).load(path, self.device, **self.own_networks())
        for name in self._fixed:
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise CheckpointError(
                    f"{path}: expected this agent's {name} {ours}, got {theirs}; use "
                    f"{type(self).__name__}.load(path) to build the saved agent anew"
                )
        self.become(other)

    def become(self, other: Self) -> None:
        """Take over another agent's whole state; the other is not to be used any more."""
        self.__dict__.update(other.__dict__)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        actor_network: Any = None,
        critic_network: Any = None,
    ) -> Self:
        """Build the agent that was saved.

        Args:
            path: written by ``save_checkpoint``.
            device: of the policy.
            actor_network: a module like the one that the agent was built with, if it was: a
                checkpoint has weights, but no code.
            critic_network: likewise.

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
            return cls._from_data(data, device, actor_network, critic_network)
        except Exception as error:  # whatever the wrong part does to the code that reads it
            raise CheckpointError(f"{path}: the parts do not fit together: {error}") from error

    def offspring(self, index: int) -> Self:
        """Return a child: a clone with a number and a random stream of its own.

        Args:
            index: not used in the population before.

        """
        child = self.clone()
        for group in child.groups:
            group.branch(index)
        latest = self.fitness[-1] if self.fitness else None
        (steps,), (fitness,) = _plain(self.steps[-1:]), _plain([latest])
        child.lineage.append(Birth(index, self.index, steps, fitness))
        child.elite = False
        return child

    def clone(self) -> Self:
        """Return an independent copy that has not collected anything yet."""
        data = copy.deepcopy(self._to_data())
        other = type(self)._from_data(data, self.device, **self.own_networks())
        for group in other.groups:
            group.carry = None
        return other


def _plain(values: Sequence[Any]) -> list[Any]:
    """Return Python's own numbers for NumPy's, which loops may have appended."""
    return [x.item() if hasattr(x, "item") else x for x in values]
