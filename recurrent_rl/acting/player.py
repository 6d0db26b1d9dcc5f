"""The player: carries memory through environments by one rule.

Collection, testing and ``get_action`` all act through it, so what is remembered, and when it is
forgotten, is written here and nowhere else.

Letters: N rows (environment, agent), A agents in a group, F width of the extra inputs.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from recurrent_rl.envs.rows import Observed
from recurrent_rl.networks.acting_policy import Acted, Policy
from recurrent_rl.networks.distributions import ActionDistribution
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array

NOISE_BLOCK = 64  # steps whose noise is drawn at once; bounds the memory that it needs


class Turn(NamedTuple):
    """What one step of acting was made of, for recorders to keep what they want.

    Attributes:
        acted: actions, distributions' parameters, features, and the state that the step led to.
        before: the state that the step began with.
        extra: extra inputs, [N, F] or None.

    """

    acted: Acted
    before: HiddenState
    extra: Tensor | None


class Explorer(ABC):
    """Where a player's randomness comes from, of N rows that act step by step."""

    @abstractmethod
    def noise(self, steps_left: int) -> Tensor:
        """Return the noise of the next step, [N, ...], as the policy's distribution takes it.

        ``steps_left`` are still to come, this one included.
        """

    @abstractmethod
    def begin(self, start: Array) -> None:
        """Note rows whose life begins, bool [N]."""

    def instead(self, mask: Tensor | None) -> Tensor | None:
        """Return stored actions [N, ...] to be taken instead of the policy's; None: its own.

        ``mask`` has the allowed ones, bool [N, mask_size], or is None.
        """
        return None


class SampledNoise(Explorer):
    """The noise by which a distribution is sampled, drawn for many steps at once."""

    def __init__(
        self,
        distribution: ActionDistribution,
        rows: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """Args: what is sampled, N, where from (on the CPU), and where the policy is."""
        self.distribution, self.rows = distribution, rows
        self.generator, self.device = generator, device
        self._noise: list[Tensor] = []

    def begin(self, start: Array) -> None:
        pass  # the noise of one step says nothing of the next

    def noise(self, steps_left: int) -> Tensor:
        if not self._noise:
            steps = min(max(NOISE_BLOCK, self.distribution.hold), steps_left)
            drawn = self.distribution.noise((steps, self.rows), self.generator).to(self.device)
            self._noise = list(drawn.unbind())[::-1]
        return self._noise.pop()


class Player:
    """One group's rows in environments, and what they remember.

    The rule: memory is zero where a life begins (``Observed.start``), and stays as it is where
    nothing is seen (``Observed.exists``). The last action is a part of the hidden state. The last
    reward stands beside it: zero where a life begins; while nothing is seen rewards add up.

    Attributes:
        policy: what acts.
        state: hidden state of N rows.
        reward: the last rewards, scaled, [N].
        explorer: where its randomness comes from; None: it plays the most likely actions.

    """

    def __init__(
        self,
        policy: Policy,
        state: HiddenState,
        reward: Tensor | None = None,
        *,
        identity: Tensor | None = None,
        reward_scale: float = 1.0,
    ) -> None:
        """Begin with some memory.

        Args:
            policy: what acts.
            state: of N rows.
            reward: the last rewards, scaled, [N]; None: zeros.
            identity: which of the agents each row is, one-hot [N, A], if the policy is to see it.
            reward_scale: multiplies rewards before the policy sees them.

        """
        self.policy, self.state = policy, state
        self.device = policy.device
        self.reward = torch.zeros(state.rows, device=self.device) if reward is None else reward
        self.identity, self._scale = identity, reward_scale
        self.explorer: Explorer | None = None

    def explore(self, seen: Observed, steps_left: int) -> Tensor | None:
        """Return the noise of the next step, [N, ...]; None without an explorer."""
        if self.explorer is None:
            return None
        if seen.start is not None:
            self.explorer.begin(seen.start)
        return self.explorer.noise(steps_left)

    def extra(self) -> Tensor | None:
        """Return what the policy sees beside the next observation, [N, F] or None."""
        return self.policy.extra.joined(self.state, self.reward, self.identity)

    def begin(self, start: Array | None) -> None:
        """Zero the memory of rows whose life begins, bool [N]; None: of no row."""
        if start is not None:
            rows = torch.from_numpy(start).to(self.device)
            self.state = self.state.reset(rows)
            self.reward = self.reward.masked_fill(rows, 0)

    def act(
        self,
        seen: Observed,
        observation: Tensor,
        noise: Tensor | None,
        mask: Tensor | None = None,
        *,
        view: Tensor | None = None,
        judge: bool = False,
    ) -> Turn:
        """Choose the rows' actions and remember the step.

        Args:
            seen: what they see.
            observation: the same in stored form, [N, *shape], on the policy's device.
            noise: [N, ...]; None takes the most likely actions.
            mask: allowed actions, bool [N, mask_size], on the policy's device, or None.
            view: what a central critic reads, stored form, [N, *shape], on the policy's device;
                None: it reads nothing, and its memory stays as it is.
            judge: somebody wants the value of what is chosen.

        """
        self.begin(seen.start)
        before, extra = self.state, self.extra()
        forced = None
        if self.explorer is not None and (own := self.explorer.instead(mask)) is not None:
            forced = (torch.ones(self.state.rows, dtype=torch.bool, device=self.device), own)
        if seen.forced is not None and seen.forced_action is not None:
            given = self.policy.actions.from_env(seen.forced_action).to(self.device)
            rows = torch.from_numpy(seen.forced).to(self.device)
            if forced is not None:  # the environment's word goes before the explorer's
                wide = rows.view(-1, *[1] * (given.ndim - 1))
                given, rows = torch.where(wide, given, forced[1]), forced[0]
            forced = (rows, given)
        acted = self.policy.act(
            observation, extra, before, noise, mask, forced, view=view, judge=judge
        )
        self.state = acted.state
        if seen.exists is not None:
            self.state = acted.state.where(torch.from_numpy(seen.exists).to(self.device), before)
        return Turn(acted, before, extra)

    def hear(self, reward: Array | Tensor, exists: Array | None) -> None:
        """Take in what the last step brought.

        Args:
            reward: [N].
            exists: rows that saw something before that step, bool [N]; None: all.

        """
        if not self.policy.extra.reward:
            return
        new = torch.as_tensor(reward * self._scale, dtype=torch.float32).to(self.device)
        self.reward = heard(self.reward, new, exists)

    def value(self, seen: Tensor, rows: Array | None = None) -> Tensor:
        """V of what the critic reads, given the present memory, which stays as it is; on the CPU.

        Args:
            seen: observations, or a central critic's views, stored form, [n, *shape].
            rows: which rows these are of, [n]; None: all.

        """
        assert isinstance(self.policy, ActorCritic)
        state, reward, identity = self.state, self.reward, self.identity
        if rows is not None:
            place = torch.from_numpy(rows).to(self.device)
            state, reward = state[place], reward[place]
            identity = None if identity is None else identity[place]
        extra = self.policy.extra.joined(state, reward, identity)
        return self.policy.value(seen.to(self.device), extra, state).cpu()


def heard(before: Tensor, earned: Tensor, exists: Array | None) -> Tensor:
    """Return the rewards that rows have heard of by now, [N].

    Args:
        before: those before the last step.
        earned: in it.
        exists: rows that saw something before it, bool [N]; None: all.

    """
    if exists is None:
        return earned
    # Who saw nothing has seen no reward either: they add up until it looks again.
    return torch.where(torch.from_numpy(~exists).to(earned.device), before + earned, earned)


def as_tensor(policy: Policy, observation: Array) -> Tensor:
    """Return observations in stored form, [N, *shape], as a tensor beside the policy."""
    return policy.codec.layout.tensor(observation).to(policy.device)


def sight(policy: Policy, seen: Observed) -> Tensor:
    """Return what is seen as a tensor beside the policy, [N, *shape]."""
    if seen.tensor is not None:
        return seen.tensor.to(policy.device)
    return as_tensor(policy, seen.observation)
