"""Updates from replayed windows: what all algorithms that take them have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.algorithms.fingerprint import Fingerprint
from recurrent_rl.algorithms.network import Network
from recurrent_rl.algorithms.target import Target
from recurrent_rl.buffers.replay import Windows
from recurrent_rl.distributed import ALONE, World
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.configs import HeadConfig


class Learner(ABC):
    """What learns from replayed windows: networks, their targets, and one update.

    Attributes:
        updates: how many there were.
        share: what a schedule multiplies step sizes with.
        world: whose ranks each learn from samples of their own, together.

    """

    updates: int = 0
    share: float = 1.0
    world: World = ALONE
    _joined: tuple[Fingerprint, bool] | None = None

    @abstractmethod
    def acting(self) -> Iterator[Policy]:
        """All groups' policies."""

    @abstractmethod
    def update(self, windows: Windows) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        """Take an update; return what there is to know of each group, and windows' priorities."""

    def shares(self, *counts: int) -> list[float]:
        """Return this rank's share of all decisions that are known, in (0, 1].

        Args:
            counts: of those of each group, here.

        Returns:
            by group; 0 where a rank has none: nobody learns of that group then.

        """
        each = self.world.numbers(*counts)
        totals = [sum(of_group) if all(of_group) else 0 for of_group in zip(*each, strict=True)]
        return [mine / total if total else 0.0 for mine, total in zip(counts, totals, strict=True)]

    @abstractmethod
    def networks(self) -> Iterator[tuple[str, Network]]:
        """Names and networks."""

    @abstractmethod
    def targets(self) -> Iterator[tuple[str, Target]]:
        """Names and targets."""

    def schedule(self, share: float) -> None:
        """Go on with a share of all step sizes, from 0."""
        if share != self.share:
            self.share = share
            self.configure()

    @abstractmethod
    def configure(self) -> None:
        """Take over step sizes and what else may have changed in configurations."""

    @abstractmethod
    def reconfigure(self, group: str, config: Any) -> None:
        """Go on with other hyper-parameters of a group."""

    @abstractmethod
    def successor(
        self, group: str, policy: Policy, heads: HeadConfig, generator: torch.Generator
    ) -> "Learner":
        """Return an untrained learner like this one, with another network of one group's.

        Args:
            group: its name.
            policy: the network, for the same spaces and hyper-parameters.
            heads: shapes of what reads it.
            generator: draws new weights.

        """

    def become(self, other: "Learner") -> None:
        """Take over another learner's whole state; the other is not to be used any more."""
        self.__dict__.update(other.__dict__)

    def join(self) -> bool:
        """Prepare for updates, whatever was done to weights since; whether any is trained.

        Raises:
            RuntimeError: a part of a policy was replaced by one that no optimiser has.

        """
        seen = self._fingerprint()
        if self._joined is None or not self._joined[0].same(seen):
            joined = self._prepare()
            self._joined = self._fingerprint(), joined  # joining moves weights
        return self._joined[1]

    def _fingerprint(self) -> Fingerprint:
        networks = [network for _, network in self.networks()]
        roots: list[nn.Module] = [part for network in networks for part in network.parts.values()]
        roots += self.acting()
        for _, target in self.targets():
            roots += target.source, target.module
        stepped = [x.adam for network in networks for x in network.optimizers.values()]
        groups = [group for adam in stepped for group in adam.param_groups]
        return Fingerprint(roots, [p for group in groups for p in group["params"]])

    def _prepare(self) -> bool:
        networks = [network for _, network in self.networks()]
        parts = [part for network in networks for part in network.parts.values()]
        trained = {id(p) for part in parts for p in part.parameters()}
        for policy in self.acting():
            policy.check_parts()
            if any(id(p) not in trained for p in policy.trained_parameters()):
                raise RuntimeError(
                    "policy: expected the trunks and heads that it was built with, got another "
                    "module in the place of one, which would not be trained; copy weights into the "
                    "old one, or build the agent with actor_network=... instead"
                )
        joined = [network.join() for network in networks]
        for _, target in self.targets():  # last: optimisers move weights
            target.join()
        return any(joined)

    def to_data(self) -> dict[str, Any]:
        """Return all that updates go on from, but for the policies' own weights."""
        return {
            "updates": self.updates,
            "optimizers": {name: network.to_data() for name, network in self.networks()},
            "targets": {name: target.to_data() for name, target in self.targets()},
        }

    def load(self, data: Mapping[str, Any]) -> None:
        """Take over what ``to_data`` gave."""
        self.updates = data["updates"]
        for name, network in self.networks():
            network.load(data["optimizers"][name])
        for name, target in self.targets():
            target.load(data["targets"][name])
