"""Where collection stopped, so that it can continue there.

Letters: N rows (environment, agent).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.envs.rows import Observed
from recurrent_rl.envs.usage import is_marked, mark
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array

# Starts in a row without an episode's end in between that are no chance any more.
AGAIN_AND_AGAIN = 4


@dataclass
class Carry:
    """Where one group's collection stopped, so that the next call continues there.

    Attributes:
        observed: what the policy sees next.
        state: the hidden state before it; zeroing by ``observed.start`` may still be to come.
        reward: the last reward, [N], for policies that see it.
        episode_return: so far, [N].
        episode_length: so far, [N] [environment steps].
        policy: whose memory this is.

    """

    observed: Observed
    state: HiddenState
    reward: torch.Tensor
    episode_return: Array
    episode_length: Array
    policy: Policy

    @classmethod
    def fresh(cls, group: AgentGroup, observed: Observed) -> "Carry":
        """Return the start of a collection, at what is seen first."""
        rows = len(observed.observation)
        return cls(
            observed,
            group.policy.initial_state(rows),
            torch.zeros(rows, device=group.device),
            np.zeros(rows),
            np.zeros(rows, dtype=np.int64),
            group.policy,
        )

    def to_data(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "observed": [None if x is None else torch.as_tensor(x) for x in self.observed],
            "state": list(self.state.tensors),
            "rows": self.state.rows,
            "reward": self.reward,
            "episode_return": torch.from_numpy(self.episode_return),
            "episode_length": torch.from_numpy(self.episode_length),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any], policy: Policy) -> "Carry":
        """Rebuild what ``to_data`` described, sharing no memory with it."""
        given: dict[str, Any] = dict(zip(Observed._fields, data["observed"], strict=False))
        for name, part in given.items():
            if part is not None:
                given[name] = part.clone() if name == "tensor" else part.cpu().numpy().copy()
        return cls(
            Observed(**given),
            HiddenState(data["state"], data["rows"]).to(policy.device).clone(),
            data["reward"].to(policy.device, copy=True),
            data["episode_return"].cpu().numpy().copy(),
            data["episode_length"].cpu().numpy().copy(),
            policy,
        )


class Collection:
    """Where one agent's collection stopped, and in which environments.

    It goes on there if the same innermost vector comes again and nothing else has used it, or its
    environments, since (see ``envs.usage``); otherwise it starts afresh.

    Attributes:
        carries: by group; None where there is nothing to continue from: before the first rollout,
            and after one that failed.

    """

    def __init__(self) -> None:
        """Begin with nothing to continue from."""
        self.carries: list[Carry] | None = None
        self._mark = object()
        self._ended = True  # an episode has, since collection started afresh
        self._last = 0  # identity of the vector that it stopped on
        self._thrown_away = 0  # starts in a row that no episode's end lay between

    def forget(self) -> None:
        """Start afresh next time."""
        self.carries = None

    def stop(self, env: Any, carries: Sequence[Carry], ended: bool) -> None:
        """Note where collection has stopped, and whether an episode has ended on the way."""
        self.carries, self._mark = list(carries), object()
        self._ended = self._ended or ended
        mark(env, self._mark)
        self._last = id(getattr(env, "unwrapped", env))

    def start_afresh(self, env: Any) -> None:
        """Note that running episodes are given up; warn, once, if it is so again and again."""
        if self.carries is not None and self._last == id(getattr(env, "unwrapped", env)):
            self._thrown_away = 0 if self._ended else self._thrown_away + 1
            if self._thrown_away == AGAIN_AND_AGAIN:
                longest = max(int(carry.episode_length.max()) for carry in self.carries)
                warnings.warn(
                    f"collection starts afresh, as its environment has been used by something else "
                    f"(agent.test, for example) since, again and again; no "
                    f"episode has ended in between, so that nothing behind an episode's first "
                    f"{longest} steps is ever trained on. Test in an environment of its own",
                    UserWarning,
                    stacklevel=3,
                )
        self.carries, self._ended = None, False

    def of(self, groups: Sequence[AgentGroup]) -> list[Carry] | None:
        """Return the carries, if they are of the policies that these groups have now."""
        known = self.carries or []
        fits = [carry.policy for carry in known] == [group.policy for group in groups]
        return known if fits else None

    def is_latest(self, env: Any) -> bool:
        """Whether nothing else has used the environment since."""
        return is_marked(env, self._mark)

    def to_data(self, groups: Sequence[AgentGroup]) -> list[dict[str, Any]] | None:
        """Tensors and plain values, for a checkpoint; None: nothing to continue from."""
        carries = self.of(groups)
        return None if carries is None else [carry.to_data() for carry in carries]

    def restore(
        self, data: Sequence[Mapping[str, Any]] | None, groups: Sequence[AgentGroup]
    ) -> None:
        """Take over what ``to_data`` described; continue there with ``reset=False`` only."""
        self.carries, self._mark = None, object()
        if data is not None:
            pairs = zip(data, groups, strict=True)
            self.carries = [Carry.from_data(each, group.policy) for each, group in pairs]
