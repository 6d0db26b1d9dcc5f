"""How agents explore that learn off-policy.

Letters: N rows (environment, agent), E environments, A agents in a group, F numbers of an action.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import SampledNoise
from recurrent_rl.networks.exploring import EDGE, EpsilonGreedy
from recurrent_rl.spaces.actions import LARGEST_BOUND, BoxCodec, IntegerBoxCodec
from recurrent_rl.spaces.array import Array


class OffPolicyExplorer(SampledNoise):
    """The policy's own randomness, after uniformly random actions at first."""

    def __init__(self, group: AgentGroup, rows: int) -> None:
        """Explore for N rows of a group."""
        super().__init__(group.policy.distribution, rows, group.generator, group.device)
        self._actions = group.policy.actions
        self.at_first = False  # actions are uniformly random
        self._held, self._hold = torch.zeros(0), 0  # noise for some more steps

    def noise(self, steps_left: int) -> Tensor:
        # Collections may be shorter than noise is to be held.
        if self.distribution.hold == 1:
            return super().noise(steps_left)
        if not self._hold:
            drawn = self.distribution.noise((self.rows,), self.generator)
            self._held, self._hold = drawn.to(self.device), self.distribution.hold
        self._hold -= 1
        return self._held

    def restart(self) -> None:
        """Forget noise that was drawn for steps of a collection that broke off."""
        self._noise.clear()

    def instead(self, mask: Tensor | None) -> Tensor | None:
        if not self.at_first:
            return None
        if isinstance(self._actions, BoxCodec):
            return self._uniform_numbers()
        # All alike, and what is forbidden still is.
        blank = torch.zeros(self.rows, self.distribution.outputs, device=self.device)
        params = self.distribution.dist_params(blank, mask)
        noise = self.distribution.noise((self.rows,), self.generator).to(self.device)
        if isinstance(self.distribution, EpsilonGreedy):
            noise[:, 0] = 1
        return self.distribution.sample(params, noise)

    def _uniform_numbers(self) -> Tensor:
        """Return stored Box actions that are uniform within bounds; without, standard normal."""
        codec = self._actions
        assert isinstance(codec, BoxCodec)
        shape = self.rows, codec.features
        if codec.squash:
            share = torch.rand(shape, generator=self.generator).to(self.device)
            return (2 * share - 1).clamp(-EDGE, EDGE).atanh()
        drawn = torch.randn(shape, generator=self.generator).to(self.device)
        if isinstance(codec, IntegerBoxCodec):  # takes it for uniform whole numbers as it is
            return drawn
        within = codec.low + torch.special.ndtr(drawn) * (codec.high - codec.low)
        return torch.where(codec.half_range <= LARGEST_BOUND, within, drawn)

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {"held": self._held, "hold": self._hold} if self._hold else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; with other rows than the saved ones, from the beginning."""
        if len(state["held"]) == self.rows:
            self._held, self._hold = state["held"].to(self.device), state["hold"]


class EpsilonExplorer(OffPolicyExplorer):
    """Random actions with a probability that each row has for itself, or all share.

    Attributes:
        epsilon: gives the probability of each row, [N] or one for all, at present.

    """

    def __init__(self, group: AgentGroup, rows: int, epsilon: Callable[[], Tensor | float]) -> None:
        """Explore for N rows of a group whose policy compares values."""
        super().__init__(group, rows)
        self.epsilon = epsilon

    def noise(self, steps_left: int) -> Tensor:
        noise = super().noise(steps_left)
        draw = torch.rand(self.rows, generator=self.generator)
        noise[:, 0] = (draw < self.epsilon()).to(noise)
        return noise


def epsilon_of_each(base: float, envs: int) -> Tensor:
    """Return environments' shares of random actions, ``base ** (1 + 7 i / (E - 1))``, [E].

    Source: Horgan et al. 2018, "Distributed Prioritized Experience Replay", sec. 4.1.
    """
    power = 1 + 7 * torch.arange(envs) / max(envs - 1, 1)
    return torch.as_tensor(base, dtype=torch.float32) ** power


def rows_of(agent: Array | None, rows: int, size: int) -> Array:
    """Return which of all rows e * A + a some are, int [n]: of each agent one for environment.

    Args:
        agent: index of each row's agent, int [n]; None: row e * A + a is agent a.
        rows: n.
        size: A.

    """
    if agent is None:
        return np.arange(rows)
    env = np.zeros(rows, dtype=np.int64)
    for one in np.unique(agent):
        env[agent == one] = np.arange((agent == one).sum())
    where: Array = env * size + agent
    return where


class OrnsteinUhlenbeck(OffPolicyExplorer):
    """Noise that drifts: ``x += theta (mean - x) dt + sigma sqrt(dt) N(0, 1)``.

    It begins at zero with each life. Source: Uhlenbeck & Ornstein 1930, "On the Theory of the
    Brownian Motion"; in Lillicrap et al. 2016, "Continuous control with deep reinforcement
    learning", sec. 7.

    Attributes:
        state: of each row, [N, F].

    """

    def __init__(
        self,
        group: AgentGroup,
        rows: int,
        parameters: Callable[[], tuple[float, float, float, float]],
    ) -> None:
        """Args: group, N, and what gives sigma, mean, theta and dt at present."""
        super().__init__(group, rows)
        self._parameters, self.size = parameters, group.size
        self.state = torch.zeros(rows, group.policy.actions.features)

    def begin(self, start: Array) -> None:
        self.state[torch.from_numpy(start)] = 0

    def noise(self, steps_left: int) -> Tensor:
        return self.step(slice(None))

    def step(self, rows: Any) -> Tensor:
        """Let some rows' noise drift, and return it."""
        sigma, mean, theta, dt = self._parameters()
        state = self.state[rows]
        drawn = torch.randn(state.shape, generator=self.generator)
        state = state + theta * (mean - state) * dt + sigma * math.sqrt(dt) * drawn
        self.state[rows] = state
        return state.to(self.device)

    def of_rows(self, agent: Array | None, rows: int, start: Array | None) -> Tensor:
        """Let the noise of some rows drift; see ``AgentGroup.drift``, [n, F]."""
        where = rows_of(agent, rows, self.size)
        if start is not None:
            begun = np.zeros(self.rows, dtype=bool)
            begun[where] = start
            self.begin(begun)
        return self.step(torch.from_numpy(where))

    def reset(self, envs: Sequence[int]) -> None:
        """Begin at zero again in some environments."""
        self.state.view(-1, self.size, self.state.shape[1])[list(envs)] = 0

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        saved = state["state"].cpu()
        if saved.shape == self.state.shape:  # others are of other environments
            self.state = saved.clone()
