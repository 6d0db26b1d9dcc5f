"""What every agent that users hold can do, whatever its algorithm: be saved, loaded and cloned."""

import copy
import inspect
import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch

from recurrent_rl import checkpoint
from recurrent_rl.acting.agent import ActingAgent
from recurrent_rl.acting.carry import Collection
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.configs import AlgorithmConfig
from recurrent_rl.algorithms.individual import Birth, Individual, InPopulation
from recurrent_rl.algorithms.migration import upgraded
from recurrent_rl.algorithms.own_attributes import HasOwnAttributes
from recurrent_rl.algorithms.ranks import InWorld
from recurrent_rl.algorithms.schedule_functions import check_given, with_functions
from recurrent_rl.algorithms.schedules import Function
from recurrent_rl.algorithms.settings import HasSettings
from recurrent_rl.algorithms.trainer import Trainer
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.descriptions import as_text
from recurrent_rl.distributed import ALONE
from recurrent_rl.networks.configs import EncoderConfig, HeadConfig
from recurrent_rl.plain import plain
from recurrent_rl.validation import checked_device


class Agent(HasSettings, HasOwnAttributes, InPopulation, InWorld, ActingAgent):
    """One group of agents or several, each with a trainer, behind one front door.

    Attributes:
        trainer_type: the class of its trainers.
        device: of the policies.
        seed: what the agent was given.
        trainers: what trains each group, by its name; "" where there is one without a name.
        collection: where it stopped.
        steps: environment steps trained for, a list for training loops of one's own to append to;
            the package's own clock is ``env_steps``.
        fitness: results of ``test``, in order, ancestors' included; see ``own_fitness``.
        scores: returns of training episodes, for training loops to fill.
        training: ``get_action`` samples unless it is told otherwise.

    """

    trainer_type: ClassVar[type[Trainer]]
    device: torch.device
    seed: int | None
    trainers: Mapping[str, Trainer]  # a dictionary, of an algorithm's own trainers
    collection: Collection
    steps: list[int]
    fitness: list[float]
    scores: list[float]
    # Agents that can be told to play their best set it.
    training: bool = True
    # What a checkpoint and the agent that loads it must agree in.
    _fixed: ClassVar[tuple[str, ...]]
    _settled = ("device", "seed", "team", "agent_id_input")

    def __init_subclass__(cls, **options: Any) -> None:
        """Let ``help`` list hyper-parameters behind what a class says of itself."""
        super().__init_subclass__(**options)
        if cls.__doc__ and hasattr(cls, "config_type"):
            cls.__doc__ = f"{inspect.cleandoc(cls.__doc__)}\n\n{_options_of(cls.config_type)}"

    def _set_up(
        self,
        trainers: Mapping[str, Trainer],
        device: torch.device | str,
        seed: int | None,
    ) -> None:
        """Take over the trainers, and start the histories."""
        self.trainers, self.device, self.seed = dict(trainers), checked_device(device), seed
        self.collection, self.individual = Collection(), Individual()
        self.steps, self.fitness, self.scores = [0], [], []
        if self.device.type != "cpu" and any(t.config.compiled for t in self.trainers.values()):
            warnings.warn(
                f"compiled=True: expected device='cpu', which kernels are for, got "
                f"{str(self.device)!r}, where PyTorch's operations go on; leave one of them out",
                RuntimeWarning,
                stacklevel=2,
            )

    # --- groups -----------------------------------------------------------------------------

    @property
    def groups(self) -> Sequence[AgentGroup]:
        """The groups of agents that share a policy."""
        return [trainer.group for trainer in self.trainers.values()]

    @property
    def group_names(self) -> list[str]:
        """Names of the groups; an empty one where there is but one group without a name."""
        return list(self.trainers)

    @property
    def env_steps(self) -> int:
        """Environment steps collected so far, ancestors' included: the clock of all schedules."""
        return next(iter(self.trainers.values())).env_steps

    def own_metrics(self) -> dict[str, float]:
        """Return what logs are to have beside returns, losses and hyper-parameters, by name."""
        return {}

    # --- hyper-parameters ---------------------------------------------------------------------

    @classmethod
    def option_names(cls) -> list[str]:
        """Names of the keyword arguments that describe an agent beside spaces and networks."""
        return cls.config_type.names()

    @property
    def config(self) -> AlgorithmConfig:
        """Hyper-parameters, of the first group; mutations may give each group its own."""
        return next(iter(self.trainers.values())).config

    @property
    def learn_step(self) -> int:
        """The hyper-parameter of that name."""
        return self.config.learn_step

    def rollout_steps(self, num_envs: int) -> int:
        return self.learn_step

    def reconfigure(self, **changes: Any) -> None:
        """Change hyper-parameters of all groups, from the next collection on.

        See ``Trainer``; ``trainers[name].reconfigure`` changes those of one group.
        """
        for trainer in self.trainers.values():
            trainer.config.replace(**changes)  # refused before any is changed
        for trainer in self.trainers.values():
            trainer.reconfigure(**changes)

    # --- copies -----------------------------------------------------------------------------

    def offspring(self, index: int) -> Self:
        """Return a child: a clone with a number and a random stream of its own.

        Args:
            index: not used in the population before.

        """
        child = self.clone()
        for group in child.groups:
            group.reseed(index)
        latest = _history(self.fitness[-1]) if self.fitness else None
        child.lineage.append(Birth(index, self.index, self.env_steps, latest))
        child.individual.elite = False
        child.individual.inherited = len(child.fitness)
        return child

    def clone(self) -> Self:
        """Return an independent copy that has not collected anything yet."""
        data = copy.deepcopy(self.to_checkpoint())
        other = type(self).from_checkpoint(data, self.device, **self.custom_parts())
        other.collection.forget()
        return other

    # --- saving -----------------------------------------------------------------------------

    def _about(self) -> dict[str, Any]:
        """Return what an exported policy says of the agent that it is of."""
        return {"algorithm": type(self).__name__, "env_steps": self.env_steps}

    @abstractmethod
    def custom_networks(self) -> dict[str, Any]:
        """Return the user's own modules that this agent was built with, as ``load`` takes them."""

    def custom_parts(self) -> dict[str, Any]:
        """Return what checkpoints have no code of: custom networks, and schedules' functions."""
        schedules = {name: t.config.functions() for name, t in self.trainers.items()}
        return {**self.custom_networks(), "schedules": schedules}

    def to_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint holds, in tensors (not copied) and plain values."""
        return {
            "algorithm": type(self).__name__,
            "seed": self.seed,
            "groups": {name: trainer.to_data() for name, trainer in self.trainers.items()},
            "collection": self.collection.to_data(self.groups),
            **{
                name: [_history(value) for value in getattr(self, name)]
                for name in ("steps", "fitness", "scores")
            },
            "individual": self.individual.to_data(),
            "own": self.own_data(),
        }

    @classmethod
    def from_checkpoint(
        cls, data: dict[str, Any], device: torch.device | str = "cpu", **parts: Any
    ) -> Self:
        """Build the agent that ``to_checkpoint`` described; it shares no tensors with that.

        Args:
            data: from ``to_checkpoint``, or of the format before.
            device: of the policy.
            parts: from ``custom_parts``.

        """
        data, schedules = upgraded(data), parts.pop("schedules", None)
        data["groups"] = {
            name: {**group, "config": with_functions(group["config"], schedules, name)}
            for name, group in data["groups"].items()
        }
        agent = cls.__new__(cls)
        agent._rebuild(data, device, parts)
        agent.collection.restore(data["collection"], agent.groups)
        agent.steps, agent.fitness = list(data["steps"]), list(data["fitness"])
        agent.scores = list(data["scores"])
        agent.individual = Individual.from_data(data["individual"])
        agent.restore_own(data.get("own", {}))  # checkpoints of earlier versions have none
        return agent

    @abstractmethod
    def _rebuild(
        self, data: dict[str, Any], device: torch.device | str, networks: dict[str, Any]
    ) -> None:
        """Call ``_set_up`` with trainers rebuilt from data."""

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Save everything that training goes on from: atomically, readable in weights-only mode.

        Weights, optimiser, normalisation, hyper-parameters, counters, random state, and where
        collection stopped. A rollout that has not been learned from is not saved. Of several ranks,
        all of which must call it, rank 0 writes what it has.

        Raises:
            FileNotFoundError: the directory does not exist.
            PermissionError: it cannot be written.

        """
        data = self.to_checkpoint()
        if self.world.is_first:
            checkpoint.save(data, path)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Become the agent that was saved, hyper-parameters included.

        To go on training exactly where it stopped, put the environment back into its state and
        call ``collect_rollouts_recurrent(agent, env, reset=False)``.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: truncated, foreign, or of an agent with other spaces or networks;
                this agent is as before.

        """
        data = checkpoint.load(path)
        other = type(self)._loaded(path, data, self.device, self.custom_parts())
        for name in self._fixed:
            expected, got = getattr(self, name), getattr(other, name)
            if expected != got:
                raise CheckpointError(
                    f"{path}: expected this agent's {name} {expected}, got {got}; use "
                    f"{type(self).__name__}.load(path) to build the saved agent anew"
                )
        self.become(other)
        self._enter(ALONE)  # to join other ranks anew, or all of them would draw the same

    def become(self, other: Self) -> None:
        """Take over another agent's whole state; the other is not to be used any more."""
        world = self.world
        self.__dict__.update(other.__dict__)
        self._enter(world)

    def follow_first(self, data: dict[str, Any]) -> None:
        other = type(self).from_checkpoint(data, self.device, **self.custom_parts())
        other.collection.forget()
        self.become(other)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        actor_network: Any = None,
        critic_network: Any = None,
        schedules: Mapping[str, Function] | None = None,
    ) -> Self:
        """Build the agent that was saved.

        Args:
            path: written by ``save_checkpoint``.
            device: of the policy.
            actor_network: a module like the one that the agent was built with, if it was: a
                checkpoint has weights, but no code.
            critic_network: likewise.
            schedules: functions like those that the agent had, by name: ``{"lr_schedule": f}``. A
                module's own function is found by itself if the module is imported; others, such as
                lambdas, must be given again. One that gives something else is warned of.

        Raises:
            FileNotFoundError: no such file.
            TypeError, ValueError: schedules that the saved agent had no functions for.
            CheckpointError: truncated or foreign, or a function is missing.

        """
        data = checkpoint.load(path)
        if schedules is not None and data.get("algorithm") == cls.__name__:
            groups = upgraded(data)["groups"].values()
            check_given(schedules, cls.config_type.SCHEDULES, [group["config"] for group in groups])
        networks = {"actor_network": actor_network, "critic_network": critic_network}
        return cls._loaded(path, data, device, {**networks, "schedules": schedules})

    @classmethod
    def _loaded(
        cls,
        path: str | os.PathLike[str],
        data: dict[str, Any],
        device: torch.device | str,
        parts: Mapping[str, Any],
    ) -> Self:
        """Build an agent from what a file has."""
        if (kind := data.get("algorithm")) != cls.__name__:
            hint = f"; load it by {kind}.load" if kind else ""
            if "population" in data:
                hint = ", but a population; load it by load_population"
            raise CheckpointError(f"{path}: expected a saved {cls.__name__}, got {kind!r}{hint}")
        try:
            return cls.from_checkpoint(data, device, **parts)
        except Exception as error:  # whatever the wrong part does to the code that reads it
            raise CheckpointError(f"{path}: the parts do not fit together: {error}") from error


def _options_of(config_type: type[AlgorithmConfig]) -> str:
    """Return all that may be given to an agent beside spaces, in words."""
    parts = (
        ("Hyper-parameters, with their defaults", config_type),
        ('Network shapes, in net_config["encoder_config"]', EncoderConfig),
        ('and in net_config["head_config"]', HeadConfig),
    )
    return "\n\n".join(f"{title}:\n\n{as_text(kind)}" for title, kind in parts)


def _history(value: Any) -> Any:
    """Return what loops may have appended, numbers of NumPy or torch, in Python's own types."""
    return plain(value.tolist() if isinstance(value, torch.Tensor) else value, "a history")
