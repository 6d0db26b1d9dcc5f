"""Acting for the agents of a group that see something, each with a memory of its own.

Letters: n rows of each agent (environments).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.envs.rows import Observed
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array, as_array, as_flags
from recurrent_rl.spaces.masks import check_mask, flat_mask, part_mask


class MultiAgentActionOutput(NamedTuple):
    """What ``IPPO.get_action`` returns, each a dictionary by agent.

    Attributes:
        action: as the environment takes it, [n, *shape].
        log_prob: of the sampled (unclipped) action, [n].
        entropy: of the policy [nats], [n].
        value: V of the observation and what was remembered, [n]; NaN of agents that learn from a
            replay (MADDPG, MATD3), whose critics judge what all agents do.
        hidden_state: after this step, of n rows; of absent agents as it was.

    """

    action: dict[str, Array]
    log_prob: dict[str, Array]
    entropy: dict[str, Array]
    value: dict[str, Array]
    hidden_state: dict[str, HiddenState]


class AgentRequest:
    """One agent that is to act, with all that was said about it.

    Attributes:
        agent: its name.
        index: its place in the group.
        rows: n.
        single: observation and results have no axis for rows.
        seen: what it sees, n rows.
        state: of n rows.
        reward: the last rewards, [n]; None where the policy does not see them.

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
        self.agent = agent
        self.index = self._index(group)
        info: Mapping[str, Any] = (infos or {}).get(agent) or {}
        value, mask = obs[agent], None
        if group.policy.actions.choices:
            value, mask = part_mask(value)
        for given in (info.get("action_mask"), (action_mask or {}).get(agent)):
            mask = mask if given is None else given
        observation = self._observation(group, value)
        self.rows = len(observation)
        exists, start = self._flags(info, "exists", True), self._flags(info, "start", False)
        forced, forced_action = self._forced(group, info.get("env_defined_actions"))
        active = exists & ~forced
        self.seen = Observed(
            observation,
            start,
            exists,
            active,
            None if mask is None else self._mask(group, mask, active),
            forced,
            forced_action,
        )
        self.state = self._state(group, hidden_state)
        self.reward = self._reward(reward) if group.policy.extra.reward else None

    def _index(self, group: AgentGroup) -> int:
        if self.agent in group.agents:
            return group.agents.index(self.agent)
        if group.policy.tells_apart:
            raise ValueError(
                f"obs: expected agents of {list(group.agents)}, as their policy is shown which of "
                f"them it acts for, got {self.agent!r}; build the agent without agent_id_input"
            )
        return 0  # one is like the other

    def _observation(self, group: AgentGroup, value: Any) -> Array:
        layout = group.policy.codec.layout
        value, rows, self.single = layout.batched(value)
        try:
            return layout.check(value, rows)
        except (TypeError, ValueError) as error:
            error.add_note(f"the observation of agent {self.agent!r}")
            raise

    def _flags(self, info: Mapping[str, Any], name: str, usual: bool) -> Array:
        array = as_flags(info.get(name, usual), f"infos[{self.agent!r}][{name!r}]")
        if array.shape not in ((self.rows,), ()):
            raise ValueError(
                f"infos[{self.agent!r}][{name!r}]: expected shape [n] = [{self.rows}], got "
                f"{list(array.shape)}"
            )
        return np.broadcast_to(array, (self.rows,)).copy()

    def _mask(self, group: AgentGroup, mask: Any, active: Array) -> Array:
        name = f"agent {self.agent!r} in row {{}}".format
        try:
            array = flat_mask(mask)
            array = array[None] if self.single else array
            allowed = check_mask(array, group.action_space, self.rows, asked=active, name=name)
        except ValueError as error:
            error.add_note(f"the action mask of agent {self.agent!r}")
            raise
        # Who sees nothing does not act, and whose action is given may do nothing else.
        return allowed | ~active[:, None]

    def _state(self, group: AgentGroup, states: Mapping[str, HiddenState] | None) -> HiddenState:
        state = (states or {}).get(self.agent)
        if state is None and not group.policy.state_shapes:
            return group.policy.initial_state(self.rows)
        if state is None:
            raise ValueError(
                f"hidden_state: expected one for agent {self.agent!r}, as its policy remembers, "
                f"got none; begin with agent.get_initial_hidden_state({self.rows}) and pass on "
                f"what get_action returns"
            )
        try:
            return group.check_state(state, self.rows)
        except (TypeError, ValueError) as error:
            error.add_note(f"the hidden state of agent {self.agent!r}")
            raise

    def _reward(self, rewards: Mapping[str, Any] | None) -> Array:
        given = (rewards or {}).get(self.agent)
        given = None if given is None else as_array(given)
        if given is None or given.shape not in ((self.rows,), ()):
            raise ValueError(
                f"reward: expected the last rewards of agent {self.agent!r}, shape [n] = "
                f"[{self.rows}], zeros at the start of its life, as this agent was built with "
                f"previous_reward=True, got {given!r}"
            )
        with np.errstate(over="ignore"):
            finite = given.dtype.kind in "fiub" and np.isfinite(given.astype(np.float32)).all()
        if not finite:
            raise ValueError(
                f"reward: expected finite numbers (in float32) for agent {self.agent!r}, got "
                f"{given!r}"
            )
        return np.broadcast_to(given, (self.rows,))

    def _forced(self, group: AgentGroup, given: Any) -> tuple[Array, Array]:
        """Return which rows' action is given, bool [n], and those actions, [n, *shape]."""
        codec = group.policy.actions
        if given is None or self.single:
            given = [given] * self.rows
        each = list(given) if np.iterable(given) else []
        if len(each) != self.rows:
            raise ValueError(
                f"infos[{self.agent!r}]['env_defined_actions']: expected {self.rows} entries, None "
                f"or an action each, got {given!r}"
            )
        forced = np.array([action is not None for action in each])
        try:
            actions = np.zeros((self.rows, *codec.env_shape), codec.env_dtype) + codec.blank
            for i in np.flatnonzero(forced):
                actions[i] = codec.check(each[i])
        except ValueError as error:
            raise ValueError(f"infos[{self.agent!r}]['env_defined_actions']: {error}") from None
        return forced, actions


def act(
    group: AgentGroup,
    requests: Sequence[AgentRequest],
    deterministic: bool,
    out: MultiAgentActionOutput,
) -> dict[str, Array]:
    """Let a group's policy choose for all of its agents at once, and deal the results out.

    Returns:
        the actions as the policy has them, by agent.

    """
    stored: dict[str, Array] = {}
    rows = [one.rows for one in requests]
    states = zip(*(one.state.tensors for one in requests), strict=True)
    rewards = [one.reward for one in requests if one.reward is not None]
    try:
        result, actions = group.choose(
            _joined(group, [one.seen for one in requests]),
            HiddenState([torch.cat(parts, 1) for parts in states], sum(rows)),
            deterministic=deterministic,
            reward=np.concatenate(rewards) if rewards else None,
            agent=np.repeat([one.index for one in requests], rows),
        )
    except (TypeError, ValueError) as error:
        error.add_note(f"while agents {[one.agent for one in requests]} were to act, in this order")
        raise
    begin = 0
    for one in requests:
        part: Any = slice(begin, begin + one.rows)
        out.hidden_state[one.agent] = result.hidden_state[part]
        each = begin if one.single else part
        for name in ("action", "log_prob", "entropy", "value"):
            getattr(out, name)[one.agent] = getattr(result, name)[each]
        stored[one.agent] = actions[each]
        begin += one.rows
    return stored


def _joined(group: AgentGroup, seen: Sequence[Observed]) -> Observed:
    """Put what several agents see below each other; who has no mask may do anything."""
    if any(one.action_mask is not None for one in seen):
        size = group.policy.actions.mask_size
        seen = [
            one._replace(action_mask=np.ones((len(one.observation), size), dtype=bool))
            if one.action_mask is None
            else one
            for one in seen
        ]
    fields = zip(*seen, strict=True)
    joined = (None if parts[0] is None else np.concatenate(parts) for parts in fields)
    return Observed(*joined)  # type: ignore[arg-type]
