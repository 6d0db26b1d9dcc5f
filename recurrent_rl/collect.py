"""Collection: step environments with the policies of some groups and fill their buffers.

Letters: T steps, N rows (environment, agent), A agents in a group.
"""

import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.row_collector import Carry, Group, RowCollector
from recurrent_rl.vector import Observed, RowSource


class Collecting(Protocol):
    """What collection needs of an agent: PPO has one group, IPPO one or several."""

    @property
    def groups(self) -> Sequence[Group]:
        """The groups, in the order of the rows' source."""

    @property
    def learn_step(self) -> int:
        """T, steps per environment in a rollout."""

    def rows_of(self, env: Any) -> RowSource:
        """See an environment as rows of this agent's groups, or say why that cannot be."""


# Which collection stepped an environment last: only that one may continue on it.
_latest: "weakref.WeakKeyDictionary[Any, list[Carry]]" = weakref.WeakKeyDictionary()


def disturb(env: object) -> None:
    """Note that something else stepped the environment: the next collection on it starts afresh."""
    _latest.pop(env, None)


@dataclass
class RolloutStats:
    """What happened while collecting.

    Attributes:
        steps: transitions collected, summed over environments.
        returns: undiscounted returns of the episodes that ended, in order of ending; with several
            agents the team's, which is the sum of theirs.
        lengths: their lengths [environment steps].
        agent_returns: the same episodes' returns by agent; empty for PPO.

    """

    steps: int
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    agent_returns: dict[str, list[float]] = field(default_factory=dict)

    @property
    def mean_return(self) -> float:
        """Mean over the episodes that ended; NaN if none did."""
        return float(np.mean(self.returns)) if self.returns else float("nan")


def collect_rollouts_recurrent(
    agent: Collecting,
    env: Any,
    n_steps: int | None = None,
    *,
    reset: bool | None = None,
) -> RolloutStats:
    """Fill the agent's buffers with T steps from each environment, ready for ``agent.learn()``.

    Collection continues where the agent's last call on the same environment stopped: observation
    and hidden state carry over. On another environment, or one that something else has stepped
    through this package since, it starts afresh.

    Args:
        agent: ``PPO`` or ``IPPO``, recurrent or feed-forward.
        env: for PPO a Gymnasium vector environment that declares its autoreset mode; for IPPO what
            ``make_multi_agent_vect_envs`` builds.
        n_steps: T; None takes the agent's ``learn_step``.
        reset: True starts afresh in any case. False continues in any case: after loading a
            checkpoint, on an environment that you have put back into the state it was saved in.

    Returns:
        the episodes that ended on the way. The rollout itself is in ``buffer``, of the agent (PPO)
        or of each of its groups (IPPO).

    Raises:
        TypeError: env is no vector environment of the agent's kind.
        ValueError: no declared autoreset mode, spaces or agents that are not the agent's, data that
            are not finite (named with environment, agent and step), or nothing to continue from.

    """
    rows = agent.rows_of(env)
    steps = agent.learn_step if n_steps is None else n_steps
    if steps < 1:
        raise ValueError(f"n_steps: expected at least 1, got {steps}")
    carries = _where_to_start(agent, rows, reset)
    collectors = []
    for i, (group, carry) in enumerate(zip(agent.groups, carries, strict=True)):
        masked = carry.observed.action_mask is not None
        buffer = group.prepare_buffer(steps, carry.state.rows, masked)
        # Until the rollout is whole there is nothing to continue from, nor to learn from.
        group.carry, group.collected = None, False
        name = functools.partial(rows.name, i)
        collectors.append(RowCollector(group, buffer, carry, rows.final_is_next, name))
    disturb(rows.env)
    with torch.inference_mode():
        _collect(rows, collectors, steps)
        last_values = _finish(agent.groups, collectors)
    for group, last_value in zip(agent.groups, last_values, strict=True):
        group.finish_rollout(last_value)
    _latest[rows.env] = [group.carry for group in agent.groups if group.carry is not None]
    return _stats(agent, steps * rows.num_envs, collectors)


def _collect(rows: RowSource, collectors: Sequence[RowCollector], steps: int) -> None:
    for t in range(steps):
        actions = [c.act(t) for c in collectors]
        try:
            stepped = rows.step(actions, [c.observed for c in collectors])
        except Exception:
            # It may have failed on the action that its own bad numbers led to.
            for c in collectors:
                c.check_finite(t, c.buffer.obs[t])
            raise
        for c, (outcome, observed) in zip(collectors, stepped, strict=True):
            c.record(t, outcome, observed)


def _finish(groups: Sequence[Group], collectors: Sequence[RowCollector]) -> list[Tensor]:
    """Set where to continue and move the reward statistics; V [N] of what follows, by group."""
    discounted = [
        None if g.reward_norm is None else c.discounted_returns(g.config.gamma)
        for g, c in zip(groups, collectors, strict=True)
    ]
    # All are checked before the first group changes.
    finished = [c.finish() for c in collectors]
    for group, c, (_, carry), total in zip(groups, collectors, finished, discounted, strict=True):
        group.carry = carry
        if group.reward_norm is not None and total is not None:
            buffer = c.buffer
            group.reward_norm.update(total[buffer.active & buffer.exists][:, None])
    return [last_value for last_value, _ in finished]


def _stats(agent: Collecting, steps: int, collectors: Sequence[RowCollector]) -> RolloutStats:
    """Put the groups' episodes together: they end together, in the same order."""
    first = collectors[0]
    stats = RolloutStats(steps, lengths=first.lengths)
    by_group = [np.reshape(c.returns, (-1, c.size)) for c in collectors]
    stats.returns = np.concatenate(by_group, axis=1).sum(1).tolist()
    for group, returns in zip(agent.groups, by_group, strict=True):
        if group.agents:
            stats.agent_returns |= dict(zip(group.agents, returns.T.tolist(), strict=True))
    return stats


def _where_to_start(agent: Collecting, rows: RowSource, reset: bool | None) -> list[Carry]:
    groups = agent.groups
    carries = [group.carry for group in groups if group.carry is not None]
    latest = _latest.get(rows.env, [])
    if reset is None:
        reset = (
            len(carries) < len(groups)
            or len(latest) != len(carries)
            or any(a is not b for a, b in zip(carries, latest, strict=True))
        )
    sizes = [rows.num_envs * group.size for group in groups]
    if not reset:
        if [carry.state.rows for carry in carries] != sizes:
            had = (
                f"{carries[0].state.rows // groups[0].size} environments" if carries else "nothing"
            )
            raise ValueError(
                f"reset=False: expected a collection on {rows.num_envs} environments to continue, "
                f"the agent has {had}; leave reset out"
            )
        return carries
    # Whatever comes of it, the reset ends what anyone could have continued.
    for group in groups:
        group.carry = None
    disturb(rows.env)
    observed = rows.reset(groups[0].next_seed())
    return [
        _first_carry(group, seen, size, functools.partial(rows.name, i))
        for i, (group, seen, size) in enumerate(zip(groups, observed, sizes, strict=True))
    ]


def _first_carry(group: Group, observed: Observed, rows: int, name: Callable[[int], str]) -> Carry:
    layout = group.policy.codec.layout
    try:
        layout.check_stored(observed.observation, rows)
    except ValueError as error:
        for row, observation in enumerate(observed.observation):
            try:
                layout.check_stored(observation[None], 1)
            except ValueError:
                error.add_note(f"the first observation of {name(row)}")
                break
        raise
    return Carry(
        observed,
        group.policy.initial_state(rows),
        torch.zeros(rows, device=group.device),
        np.zeros(rows),
        np.zeros(rows, dtype=np.int64),
        torch.zeros(rows),
    )


# One function serves policies with and without memory; the second name is for those without.
collect_rollouts = collect_rollouts_recurrent
