"""Acting for the agents of a group that see something, each with a memory of its own.

Letters: n rows of each agent (environments).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from recurrent_rl.group import AgentGroup
from recurrent_rl.recurrent import HiddenState
from recurrent_rl.spaces import (
    Array,
    action_form,
    allows_something,
    check_action,
    choices,
    flat_mask,
    part_mask,
)


class MultiAgentActionOutput(NamedTuple):
    """What ``IPPO.get_action`` returns, each a dictionary by agent.

    Attributes:
        action: as the environment takes it, [n, *shape].
        log_prob: of the sampled (unclipped) action, [n].
        entropy: of the policy [nats], [n].
        value: V of the observation and what was remembered, [n].
        hidden_state: after this step, of n rows; of absent agents as it was.

    """

    action: dict[str, Array]
    log_prob: dict[str, Array]
    entropy: dict[str, Array]
    value: dict[str, Array]
    hidden_state: dict[str, HiddenState]


class Asked:
    """One agent that is to act, with all that was said about it.

    Attributes:
        observation: as ``ObservationLayout`` keeps them, [n, *shape].
        mask: bool [n, choices] or None.
        state: of n rows; None for a policy without memory.
        exists: bool [n].
        start: bool [n].
        forced: bool [n].
        forced_action: [n, *shape].

    """

    def __init__(
        self,
        group: AgentGroup,
        agent: str,
        obs: Mapping[str, Any],
        hidden_state: Mapping[str, HiddenState] | None,
        action_mask: Mapping[str, Any] | None,
        infos: Mapping[str, Any] | None,
        reward: Mapping[str, Any] | None,
    ) -> None:
        """Pick the agent's part out of the arguments of ``IPPO.get_action``, and check it."""
        self.agent, self.index = agent, group.agents.index(agent)
        info: Mapping[str, Any] = (infos or {}).get(agent) or {}
        value, mask = obs[agent], None
        if choices(group.action_space):
            value, mask = part_mask(value)
        for given in (info.get("action_mask"), (action_mask or {}).get(agent)):
            mask = mask if given is None else given
        self.observation = self._observation(group, value)
        self.rows = len(self.observation)
        self.exists = self._flags(info, "exists", True)
        self.start = self._flags(info, "start", False)
        self._read_forced(group, info.get("env_defined_actions"))
        self.mask = None
        if mask is not None:
            self.mask = self._mask(group, mask)
        self.state = self._state(group, hidden_state)
        self.reward = None
        if group.config.previous_reward:
            self.reward = self._reward(reward)

    def _observation(self, group: AgentGroup, value: Any) -> Array:
        layout = group.policy.codec.layout
        value, rows, self.single = layout.batched(value)
        try:
            return layout.check(value, rows)
        except (TypeError, ValueError) as error:
            error.add_note(f"the observation of agent {self.agent!r}")
            raise

    def _flags(self, info: Mapping[str, Any], name: str, usual: bool) -> Array:
        array = np.asarray(info.get(name, usual), dtype=bool)
        if array.shape not in ((self.rows,), ()):
            raise ValueError(
                f"infos[{self.agent!r}][{name!r}]: expected shape [n] = [{self.rows}], got "
                f"{list(array.shape)}"
            )
        return np.broadcast_to(array, (self.rows,))

    def _mask(self, group: AgentGroup, mask: Any) -> Array:
        sizes = choices(group.action_space)
        size = sum(sizes)
        array = flat_mask(mask)
        array = array[None] if self.single else array
        if not size or array.shape != (self.rows, size):
            expected = f"shape [n, choices] = [{self.rows}, {size}]" if size else "none"
            raise ValueError(
                f"action_mask: expected {expected} for {group.action_space} of agent "
                f"{self.agent!r}, got shape {list(array.shape)}"
            )
        # Who sees nothing does not act, and whose action is given may do nothing else.
        allowed: Array = array | (~self.exists | self.forced)[:, None]
        possible = allows_something(allowed, sizes)
        if not possible.all():
            raise ValueError(
                f"action_mask: expected an allowed action in each row, got none for agent "
                f"{self.agent!r} in row {int(np.flatnonzero(~possible)[0])}"
            )
        return allowed

    def _state(
        self, group: AgentGroup, states: Mapping[str, HiddenState] | None
    ) -> HiddenState | None:
        if not group.policy.state_shapes:
            return group.policy.initial_state(self.rows)
        state = (states or {}).get(self.agent)
        if state is None:
            raise ValueError(
                f"hidden_state: expected one for agent {self.agent!r}, as its policy remembers, "
                f"got none; begin with agent.get_initial_hidden_state({self.rows}) and pass on "
                f"what get_action returns"
            )
        try:
            group.check_state(state, self.rows)
        except (TypeError, ValueError) as error:
            error.add_note(f"the hidden state of agent {self.agent!r}")
            raise
        return state.reset(group.on_device(self.start.copy())) if self.start.any() else state

    def _reward(self, rewards: Mapping[str, Any] | None) -> Array:
        given = (rewards or {}).get(self.agent)
        if given is None or np.shape(given) not in ((self.rows,), ()):
            raise ValueError(
                f"reward: expected the last rewards of agent {self.agent!r}, shape [n] = "
                f"[{self.rows}], zeros at the start of its life, as this agent was built with "
                f"previous_reward=True, got {given!r}"
            )
        reward: Array = np.where(self.start, 0, np.broadcast_to(given, (self.rows,)))
        return reward

    def _read_forced(self, group: AgentGroup, given: Any) -> None:
        shape, dtype, blank = action_form(group.action_space)
        if given is None or self.single:
            given = [given] * self.rows
        each = list(given) if np.iterable(given) else []
        if len(each) != self.rows:
            raise ValueError(
                f"infos[{self.agent!r}]['env_defined_actions']: expected {self.rows} entries, None "
                f"or an action each, got {given!r}"
            )
        self.forced = np.array([action is not None for action in each])
        try:
            self.forced_action = np.zeros((self.rows, *shape), dtype) + blank
            for i in np.flatnonzero(self.forced):
                self.forced_action[i] = check_action(group.action_space, each[i])
        except ValueError as error:
            raise ValueError(f"infos[{self.agent!r}]['env_defined_actions']: {error}") from None


def act(
    group: AgentGroup, asked: Sequence[Asked], deterministic: bool, out: MultiAgentActionOutput
) -> None:
    """Let a group's policy choose for all of its agents at once, and deal the results out."""
    rows = [one.rows for one in asked]
    masks = None
    if any(one.mask is not None for one in asked):
        size = group.policy.head.mask_size
        masks = np.concatenate(
            [np.ones((one.rows, size), bool) if one.mask is None else one.mask for one in asked]
        )
    forced = np.concatenate([one.forced for one in asked])
    states = [one.state for one in asked if one.state is not None]
    before = HiddenState(
        [torch.cat(parts, 1) for parts in zip(*(s.tensors for s in states), strict=True)],
        sum(rows),
    )
    try:
        result = group.choose(
            np.concatenate([one.observation for one in asked]),
            before,
            masks,
            deterministic=deterministic,
            reward=None
            if asked[0].reward is None
            else np.concatenate([one.reward for one in asked if one.reward is not None]),
            agent=np.repeat([one.index for one in asked], rows),
            forced=(forced, np.concatenate([one.forced_action for one in asked]))
            if forced.any()
            else None,
        )
    except (TypeError, ValueError) as error:
        error.add_note(f"while agents {[one.agent for one in asked]} were to act, in this order")
        raise
    exists = np.concatenate([one.exists for one in asked])
    after = result.hidden_state
    if not exists.all():
        after = after.where(group.on_device(exists), before)
    begin = 0
    for one in asked:
        part: Any = slice(begin, begin + one.rows)
        out.hidden_state[one.agent] = after[part]
        each = begin if one.single else part
        for name in ("action", "log_prob", "entropy", "value"):
            getattr(out, name)[one.agent] = getattr(result, name)[each]
        begin += one.rows
