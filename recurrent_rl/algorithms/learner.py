"""Updates from replayed windows: what all algorithms that take them have in common.

Letters: L places that are trained on, R rows, M decisions among them whose outcome is known.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recurrent_rl.algorithms.gradient import gradient_step, take_step
from recurrent_rl.algorithms.policy_optimizer import PolicyOptimizer
from recurrent_rl.algorithms.replayed import Replayed
from recurrent_rl.buffers.replay import GroupWindows, Windows
from recurrent_rl.distributed import ALONE, World
from recurrent_rl.functional.targets import NStep
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.configs import HeadConfig
from recurrent_rl.networks.flat_parameters import in_runs, one_vector
from recurrent_rl.networks.off_policy import copied, move_towards

LEAST_PRIORITY = 1e-6  # so that no window is out of reach for good


class Parts(nn.ModuleList):
    """Modules, or single parameters of some, that one optimiser steps."""

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return them, each once."""
        return list(self.parameters())

    def check_parts(self) -> None:
        """Find nothing amiss: modules are looked up when they are used."""


class Fingerprint:
    """Which modules, weights and statistics there are, and where in memory these and gradients lie.

    To look whether anything was replaced, frozen or moved takes a third to a half of the time that
    it takes to prepare for it: 0.1 to 0.3 ms for small networks rather than 0.3 to 1.
    """

    def __init__(self, modules: Iterable[nn.Module], parameters: Sequence[Tensor]) -> None:
        """Look at modules with all in them, and at parameters that are in none."""
        rest, self._held = list(modules), list[object](parameters)
        self._places = [_place(p) for p in parameters]
        while rest:
            module = rest.pop()
            self._held.append(module)
            # torch's own lists: what it walks them by makes a name for each.
            own = (*module._parameters.values(), *module._buffers.values())
            for x in own:
                if x is not None:
                    self._held.append(x)
                    self._places.append(_place(x))
            rest += [child for child in module._modules.values() if child is not None]

    def same(self, other: "Fingerprint") -> bool:
        """Whether another look has found the same."""
        mine, theirs = self._held, other._held
        if len(mine) != len(theirs) or self._places != other._places:
            return False
        return all(a is b for a, b in zip(mine, theirs, strict=True))


def _place(x: Tensor) -> tuple[object, ...]:
    grad = x.grad
    at = None if grad is None else grad.data_ptr()
    return x.data_ptr(), x.shape, x.stride(), x.requires_grad, at


class Network:
    """Parts that one loss trains, with an optimiser for each step size.

    Attributes:
        parts: by the name of their step size.
        optimizers: likewise, of parts that have parameters.
        max_norm: gradients of all of them together are scaled down to this norm.

    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[nn.Module]],
        step_sizes: Mapping[str, float],
        device: torch.device,
        eps: float,
    ) -> None:
        """Args: modules by the name of their step size, the step sizes, device, Adam's epsilon."""
        self.parts = {name: Parts(modules) for name, modules in parts.items() if modules}
        self.optimizers = {
            name: PolicyOptimizer(part, device, step_sizes[name], eps)
            for name, part in self.parts.items()
            if any(True for _ in part.parameters())
        }
        self.max_norm = math.inf
        self._moving = list(self.optimizers.values())

    def set_step_sizes(self, step_sizes: Mapping[str, float], share: float) -> None:
        """Change step sizes, by name, to a ``share`` of what is given."""
        for name, optimizer in self.optimizers.items():
            optimizer.set_lr(share * step_sizes[name])

    def join(self) -> bool:
        """Step exactly what requires gradients; whether there is anything."""
        self._moving = [opt for name, opt in self.optimizers.items() if opt.join(self.parts[name])]
        return bool(self._moving)

    def step(self, loss: Tensor, world: World) -> Tensor:
        """Take a gradient step; return the norm before clipping: 0 where everything is frozen.

        Args:
            loss: of which each rank has its share.
            world: of the ranks.

        """
        if not self._moving:
            return loss.new_zeros(())
        adams = [optimizer.adam for optimizer in self._moving]
        return gradient_step(loss, *adams, max_norm=self.max_norm, world=world)

    def descend(self, slope: Tensor, world: World) -> None:
        """Take the step of a network of one number, whose loss has a slope that is known.

        Args:
            slope: of which each rank has its share.
            world: of the ranks.

        Raises:
            FloatingPointError: it is not finite; the number is as before the step.

        """
        for optimizer in self._moving:
            (vector,) = optimizer.adam.param_groups[0]["params"]
            if vector.grad is None:
                vector.grad = torch.zeros_like(vector)
            vector.grad.view(-1)[:1] = slope  # behind it there may be zeros that fill up
            take_step([vector.grad], slope, optimizer.adam, max_norm=self.max_norm, world=world)

    def to_data(self) -> dict[str, Any]:
        """Return the optimisers' states."""
        return {name: opt.state_dict(self.parts[name]) for name, opt in self.optimizers.items()}

    def load(self, data: Mapping[str, Any]) -> None:
        """Take over what ``to_data`` gave."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(self.parts[name], data[name])


class Target:
    """A network's slowly moving copy.

    Attributes:
        source: the network.
        module: the copy.
        pairs: its parameters that move, each with the one that it follows.

    """

    def __init__(self, source: nn.Module, shared: Sequence[nn.Module] = ()) -> None:
        """Copy ``source``; its parts in ``shared`` stay one with it."""
        self.source, self._shared = source, list(shared)
        self.module: Any = copied(source, shared)
        self._at: list[int] = []
        self._look_up()
        one_vector([target for target, _ in self.pairs])
        self.join()

    def _look_up(self) -> None:
        shared = [x for part in self._shared for x in (*part.parameters(), *part.buffers())]
        held = set(map(id, shared))
        self.pairs, self._buffers = (
            [(new, old) for new, old in zip(copy, source, strict=True) if id(old) not in held]
            for copy, source in (
                (self.module.parameters(), self.source.parameters()),
                (self.module.buffers(), self.source.buffers()),
            )
        )

    def join(self) -> None:
        """Look up the source's weights, in whose place there may be others by now."""
        self._look_up()
        at = [x.data_ptr() for pair in self.pairs for x in pair]
        if at != self._at:
            self._at, self._joined = at, in_runs(self.pairs)

    def move(self, tau: float) -> None:
        """Go a share ``tau`` of the way to the source; buffers, as statistics are, all of it."""
        if self._joined:
            target, source = zip(*self._joined, strict=True)
            move_towards(target, source, tau)
        for new, old in self._buffers:
            new.copy_(old)

    def to_data(self) -> list[Tensor]:
        """Return its parameters and buffers."""
        return [target.detach() for target, _ in (*self.pairs, *self._buffers)]

    def load(self, data: Sequence[Tensor]) -> None:
        """Take over what ``to_data`` gave."""
        with torch.no_grad():
            for (target, _), saved in zip((*self.pairs, *self._buffers), data, strict=True):
                target.copy_(saved)


class Known(NamedTuple):
    """The decisions of a sample whose outcome is known, M of them, on the networks' device.

    Attributes:
        at: flat places (t * R + r); None where all L * R are.
        reward: up to the place whose value follows, [M].
        discount: of that value, [M].
        place: flat, [M].
        weight: in the loss, [M].
        row: window-wise rows, [M], on the CPU.

    """

    at: Tensor | None
    reward: Tensor
    discount: Tensor
    place: Tensor
    weight: Tensor
    row: Tensor

    def span(self, rows: int) -> tuple[int, int]:
        """Return the first time whose value is asked for, and the one behind the last; of R rows.

        There must be decisions.
        """
        return int(self.place.min()) // rows, int(self.place.max()) // rows + 1

    def pick(self, field: Tensor) -> Tensor:
        """Return a field [L, R, ...] at the decisions, [M, ...]."""
        flat = field.flatten(0, 1)
        # Not by brackets: the gradient of these takes several times as long.
        return flat if self.at is None else flat.index_select(0, self.at)


def known_decisions(
    nstep: NStep, weight: Tensor, agents: int, scale: float, device: torch.device
) -> Known:
    """Return what is known of a sample's decisions.

    Args:
        nstep: of it.
        weight: of each window, [B].
        agents: A.
        scale: multiplies rewards.
        device: of the networks.

    """
    rows = nstep.known.shape[1]
    row = torch.arange(rows).expand_as(nstep.known)
    wide = weight if agents == 1 else weight.repeat_interleave(agents)
    reward = nstep.reward if scale == 1 else nstep.reward * scale
    place = torch.add(row, nstep.place, alpha=rows)
    fields = [reward, nstep.discount, place, wide.expand_as(reward), row]
    picked, index = [field.flatten() for field in fields], None
    if not bool(nstep.known.all()):
        index = nstep.known.flatten().nonzero().squeeze(1)
        picked = [field.index_select(0, index) for field in picked]
    reward, discount, place, wide = (x.to(device) for x in picked[:4])
    return Known(
        None if index is None else index.to(device), reward, discount, place, wide, picked[4]
    )


def priorities(error: Tensor, row: Tensor, agents: int, windows: int, mix: float) -> Tensor:
    """Return each window's priority: a mix of its greatest and its mean absolute error, [B].

    Source: Kapturowski et al. 2019, "Recurrent Experience Replay in Distributed Reinforcement
    Learning", sec. 2.3.

    Args:
        error: of M decisions.
        row: theirs, int [M].
        agents: A.
        windows: B.
        mix: eta.

    """
    # In NumPy, whose calls take a quarter of the time of torch's for a few hundred numbers.
    size, window = error.detach().abs().cpu().numpy(), row.numpy() // agents
    count = np.maximum(np.bincount(window, minlength=windows), 1)
    mean = np.bincount(window, size, windows) / count
    greatest = np.zeros(windows, dtype=size.dtype)
    with np.errstate(invalid="ignore"):  # what is not finite is found when the step is taken
        np.maximum.at(greatest, window, size)
    mixed = np.maximum(mix * greatest + (1 - mix) * mean, LEAST_PRIORITY)
    return torch.from_numpy(mixed.astype(size.dtype))


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
    _joined: "tuple[Fingerprint, bool] | None" = None

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

    def _fingerprint(self) -> "Fingerprint":
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


def replayed(
    windows: Windows, policies: Mapping[str, Policy], device: torch.device
) -> dict[str, Replayed]:
    """Return a sample's groups for networks to be run over.

    Args:
        windows: sampled; states that are another network's, of other widths, count as zeros.
        policies: by group.
        device: of the networks.

    """
    return {
        name: Replayed(
            _with_own_state(group, policies[name]), windows.burn_in, windows.length, device
        )
        for name, group in windows.groups.items()
    }


def _with_own_state(group: GroupWindows, policy: Policy) -> GroupWindows:
    """Return a group's windows with states of the policy's shapes, zeros if they have others."""
    wanted = policy.state_shapes[: policy.memory]
    if [(x.shape[0], x.shape[2]) for x in group.state] == wanted:
        return group
    rows = group.start.shape[1]
    return replace(group, state=[torch.zeros(k, rows, h) for k, h in wanted])
