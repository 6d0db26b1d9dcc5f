"""Random replayed windows, with everything in them that may happen, for agents of any kind."""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.buffers.replay import GroupWindows, Windows
from recurrent_rl.networks.acting_policy import Policy

FLAGS = ("start", "exists", "active", "terminated", "truncated", "final")


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Replace all weights: small initial ones, and biases of zero, would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator))


def scramble(agent: Any, seed: int = 0) -> None:
    """Give an off-policy agent's networks, and each target network, weights of their own."""
    for i, group in enumerate(agent.groups):
        randomise(group.policy, seed + i)
    if hasattr(agent, "critic"):
        randomise(agent.critic.heads, seed + 50)
    for i, (_, target) in enumerate(agent.learner.targets()):
        randomise(target.module, seed + 100 + i)


def lives(
    places: int, agents: int, random: np.random.Generator, *, wild: bool = True
) -> dict[str, np.ndarray[Any, Any]]:
    """Flags of one environment's places, [W, A] each, as a recorder would write them.

    Agents may be late, die, come back, see nothing for a while, see something without a choice; end
    for good, by a limit with or without a last observation; or begin anew without an end, where a
    collection broke off. ``wild`` does all of that often; otherwise lives end, and begin again.
    """
    found = {name: np.zeros((places, agents), dtype=bool) for name in FLAGS}
    alive = random.random(agents) < (0.8 if wild else 2)
    fresh = np.zeros(agents, dtype=bool)
    shown = np.zeros(agents, dtype=bool)  # who is to be seen in a place of its own
    absent, idle, end, lost = (0.15, 0.15, 0.12, 0.05) if wild else (0.0, 0.0, 0.12, 0.0)
    end_of_writing = places - (random.integers(0, 3) if wild else 0)
    for t in range(end_of_writing):
        if shown.any():
            found["exists"][t], found["final"][t] = shown, True
            shown = np.zeros(agents, dtype=bool)
            continue
        coming = ~alive & (random.random(agents) < (0.5 if wild else 2))
        coming |= random.random(agents) < lost
        alive |= coming
        fresh |= coming
        exists = alive & (random.random(agents) >= absent)
        found["start"][t], found["exists"][t] = fresh & exists, exists
        found["active"][t] = exists & (random.random(agents) >= idle)
        fresh &= ~exists
        terminated, truncated = (alive & ~fresh & (random.random(agents) < end) for _ in range(2))
        found["terminated"][t], found["truncated"][t] = terminated, truncated
        alive &= ~(terminated | truncated)
        shown = truncated & ~terminated & (random.random(agents) < 0.8)
    return found


def random_windows(
    agent: OffPolicyAgent,
    seed: int,
    *,
    windows: int = 3,
    burn_in: int = 2,
    length: int = 4,
    ahead: int = 3,
    masked: bool = False,
    wild: bool = True,
) -> Windows:
    """A sample for an agent, in the default dtype; nonsense stands where there is nothing."""
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    places = burn_in + length + ahead
    sizes = {name: trainer.group.size for name, trainer in agent.trainers.items()}
    flags: dict[str, list[dict[str, np.ndarray[Any, Any]]]] = {name: [] for name in sizes}
    for _ in range(windows):
        all_lives = lives(places, sum(sizes.values()), random, wild=wild)
        begin = 0
        for name, size in sizes.items():
            part = {key: x[:, begin : begin + size] for key, x in all_lives.items()}
            flags[name].append(part)
            begin += size
    groups = {}
    for name, trainer in agent.trainers.items():
        joined = {
            key: torch.from_numpy(np.concatenate([each[key] for each in flags[name]], axis=1))
            for key in FLAGS
        }
        groups[name] = _group(trainer.policy, joined, sizes[name], generator, masked)
    weight = 1 - 0.9 * torch.rand(windows, generator=generator)
    return Windows(groups, burn_in, length, np.arange(windows), weight)


def _group(
    policy: Policy, flags: dict[str, Tensor], agents: int, generator: torch.Generator, masked: bool
) -> GroupWindows:
    places, rows = flags["start"].shape

    def noise(*shape: int) -> Tensor:
        return torch.randn(places, rows, *shape, generator=generator)

    mask = None
    if masked and policy.actions.mask_size:
        mask = torch.rand(places, rows, policy.actions.mask_size, generator=generator) < 0.6
        mask[..., 0] |= ~flags["final"] & ~mask.any(-1)  # where all is over nothing may be allowed
    return GroupWindows(
        obs=noise(*policy.codec.shape),
        extra=noise(policy.extra.width) if policy.extra.width else None,
        action=random_actions(policy, (places, rows), generator),
        action_mask=mask,
        reward=noise(),
        **flags,
        state=[
            torch.randn(k, rows, h, generator=generator).tanh()
            for k, h in policy.state_shapes[: policy.memory]
        ],
        agents=agents,
    )


def random_actions(policy: Policy, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Stored actions [*shape, ...]."""
    space = policy.actions.space
    if isinstance(space, gym.spaces.Discrete):
        return torch.randint(int(space.n), shape, generator=generator)
    if isinstance(space, gym.spaces.MultiDiscrete):
        counts = [int(n) for n in space.nvec.flat]
        each = [torch.randint(n, shape, generator=generator) for n in counts]
        return torch.stack(each, -1)
    if isinstance(space, gym.spaces.MultiBinary):
        bits = torch.rand(*shape, policy.actions.features, generator=generator) < 0.5
        return bits.to(torch.int8)
    return torch.randn(*shape, policy.actions.features, generator=generator)


def spoiled(windows: Windows, seed: int = 0) -> Windows:
    """The same with other nonsense where nothing was seen, chosen or earned."""
    generator = torch.Generator().manual_seed(seed)
    groups = {}
    for name, group in windows.groups.items():
        changes: dict[str, Tensor] = {}
        for field in ("obs", "extra", "action", "action_mask"):
            value = getattr(group, field)
            if value is None:
                continue
            gone = ~group.exists
            other = value[torch.randperm(len(value), generator=generator)]
            if value.is_floating_point() and field != "action":
                other = other * 1e3
            changes[field] = torch.where(
                gone.view(*gone.shape, *[1] * (value.ndim - 2)), other, value
            )
        groups[name] = dataclasses.replace(group, **changes)
    return dataclasses.replace(windows, groups=groups)
