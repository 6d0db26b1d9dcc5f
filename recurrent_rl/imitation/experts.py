"""Who plays while demonstrations are recorded: an agent of this package, or functions.

Letters: N rows (environment, agent).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import heard
from recurrent_rl.envs.rows import Observed, Outcome
from recurrent_rl.spaces.actions import ActionCodec, action_codec
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.layout import ObservationLayout

Expert = Callable[[Any], Any]


class Experts(ABC):
    """Who plays a group's rows."""

    @abstractmethod
    def begin(self, rows: int) -> None:
        """Start a round of episodes."""

    @abstractmethod
    def act(self, seen: Observed, asked: Array) -> Array:
        """Return the actions of rows, [N, ...]; ``asked`` says who is to choose, bool [N]."""

    @abstractmethod
    def hear(self, outcome: Outcome, seen: Observed) -> None:
        """Take in what a step from ``seen`` brought."""


class PolicyExperts(Experts):
    """An agent of this package."""

    def __init__(self, group: AgentGroup, deterministic: bool) -> None:
        """Args: who acts, and whether it takes its most likely actions."""
        self.group, self.deterministic = group, deterministic

    def begin(self, rows: int) -> None:
        self._state = self.group.policy.initial_state(rows)
        self._reward = torch.zeros(rows, dtype=torch.float64)

    def act(self, seen: Observed, asked: Array) -> Array:
        # Who is not asked may have a mask that allows nothing.
        out, _ = self.group.choose(
            seen._replace(active=asked),
            self._state,
            deterministic=self.deterministic,
            reward=self._reward.numpy() if self.group.policy.extra.reward else None,
        )
        self._state = out.hidden_state
        return out.action

    def hear(self, outcome: Outcome, seen: Observed) -> None:
        earned = torch.as_tensor(outcome.reward, dtype=torch.float64)
        self._reward = heard(self._reward, earned, seen.exists)


class ShownObservation:
    """Observations as environments give them, made of what rows have."""

    def __init__(
        self, given: gym.Space[Any], proper: gym.Space[Any], actions: gym.Space[Any]
    ) -> None:
        """Args: spaces of what environments show, of that without masks, and of actions."""
        self._layout = ObservationLayout(proper)
        # Whether the mask stands among the observation's own parts, rather than beside it.
        parts = set(given.spaces) if isinstance(given, gym.spaces.Dict) else set()
        self._among = "action_mask" in parts and parts != {"observation", "action_mask"}
        self.codec: ActionCodec = action_codec(actions, squash_output=False)

    def of_row(self, seen: Observed, row: int) -> Any:
        """Return what one row sees, its mask included; a copy, as who remembers may keep it."""
        own = self._layout.unpack(seen.observation[row].copy())
        if seen.action_mask is None:
            return own
        mask = seen.action_mask[row].astype(np.int8)
        if self._among:
            return {**own, "action_mask": mask}
        return {"observation": own, "action_mask": mask}


class FunctionExperts(Experts):
    """Functions of the user's, one for each agent of the group; one environment."""

    def __init__(self, experts: Sequence[Expert], shown_to: ShownObservation) -> None:
        """Args: the functions, [A], and what they are shown."""
        self.experts, self._shown, self._codec = experts, shown_to, shown_to.codec

    def begin(self, rows: int) -> None:
        pass

    def act(self, seen: Observed, asked: Array) -> Array:
        codec = self._codec
        actions: Array = np.zeros((len(asked), *codec.env_shape), codec.env_dtype)
        actions[:] = codec.blank
        for row in range(len(asked)):
            expert = self.experts[row]
            reset = getattr(expert, "reset", None)
            if seen.start is not None and seen.start[row] and callable(reset):
                reset()
            if not asked[row]:
                continue
            chosen = expert(self._shown.of_row(seen, row))
            try:
                actions[row] = codec.check(chosen)
            except ValueError as error:
                raise ValueError(f"expert: {error}") from None
        if seen.forced is not None and seen.forced_action is not None:
            actions[seen.forced] = seen.forced_action[seen.forced]
        return actions

    def hear(self, outcome: Outcome, seen: Observed) -> None:
        pass  # functions see observations only
