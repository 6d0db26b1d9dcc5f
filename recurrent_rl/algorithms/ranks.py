"""Agents that several processes train together; see ``recurrent_rl.distributed``."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from recurrent_rl import distributed
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.trainer import Trainer
from recurrent_rl.distributed import ALONE, World


class InWorld:
    """What an agent is to the agents on other ranks, which learn as it does.

    Attributes:
        world: of the ranks that it is trained on; itself alone before its first collection.

    """

    trainers: Mapping[str, Trainer]
    world: World = ALONE

    @property
    @abstractmethod
    def groups(self) -> Sequence[AgentGroup]:
        """The groups of agents that share a policy."""

    @abstractmethod
    def to_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""

    @abstractmethod
    def follow_first(self, data: dict[str, Any]) -> None:
        """Become the agent of rank 0, of which there is ``to_checkpoint``."""

    def join_world(self, *, again: bool = False) -> None:
        """Begin to learn with other ranks: as rank 0's agent, with random streams of one's own.

        Args:
            again: also where it has joined before: what is not the same on all ranks, where
                collection stopped and random streams, then follows from rank 0's, as it does after
                loading a checkpoint.

        Raises:
            ValueError: agents were built differently.

        """
        world = distributed.current()
        if world is self.world and not again:
            return
        if world.size > 1:
            distributed.check_same(world, self._built(), type(self).__name__)
            data = world.from_first(self.to_checkpoint() if world.is_first else {})
            if not world.is_first:
                self.follow_first(data)
                self._draw_apart(world.rank)
        self._enter(world)

    def _enter(self, world: World) -> None:
        self.world = world
        for trainer in self.trainers.values():
            trainer.world = world

    def _built(self) -> dict[str, Any]:
        """Return what must be the same on all ranks."""
        found: dict[str, Any] = {"class": type(self).__name__, "groups": list(self.trainers)}
        for name, trainer in self.trainers.items():
            where = f" of group {name}" if name else ""
            policy = trainer.policy.state_dict()
            found[f"agents{where}"] = trainer.agents
            shapes = {"network": trainer.net_config.to_dict()}
            found |= {f"{key}{where}": x for key, x in _flat(trainer.config.to_dict())}
            found |= {f"{key}{where}": x for key, x in _flat(shapes)}
            found[f"parameters{where}"] = {name: tuple(x.shape) for name, x in policy.items()}
        return found

    def _draw_apart(self, rank: int) -> None:
        for group in self.groups:
            group.reseed(rank)

    def on_all_ranks(self, count: int) -> int:
        """Return the sum of a number over all ranks."""
        return sum(each for (each,) in self.world.numbers(count))

    def check_ranks(self) -> None:
        """Check that all ranks have the same weights.

        Raises:
            RuntimeError: something was done to those of one rank only.

        """
        if self.world.size == 1:
            return
        found = self.world.numbers(distributed.fingerprint([*self._shared()]))
        others = [rank for rank, each in enumerate(found) if each != found[0]]
        if others:
            raise RuntimeError(
                f"learn: expected the same weights and statistics on all ranks, got others than "
                f"rank 0's on rank {', '.join(map(str, others))}; whatever is done to a policy "
                f"must be done on all ranks"
            )

    def _shared(self) -> Iterator[Tensor]:
        for trainer in self.trainers.values():
            yield from trainer.policy.state_dict().values()


def _flat(data: Mapping[str, Any], front: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what nested mappings hold, by names with dots."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{front}{name}.")
        else:
            yield f"{front}{name}", value
