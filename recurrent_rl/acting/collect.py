"""Collection: step environments with an agent's policies, and have recorders keep what happens.

Letters: T steps, E environments, A agents in a group, N = E * A rows.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recurrent_rl.acting.agent import ActingAgent, Recorder
from recurrent_rl.acting.carry import Carry
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import Player, SampledNoise
from recurrent_rl.envs.final_infos import SUCCESS, Numbers, by_name, mean_of_known
from recurrent_rl.envs.rows import Observed, Outcome, RowSource
from recurrent_rl.envs.usage import mark, note_seeded, was_seeded
from recurrent_rl.spaces.array import Array


@dataclass
class RolloutStats:
    """What happened while collecting.

    Attributes:
        steps: transitions collected, summed over environments.
        returns: undiscounted returns of the episodes that ended, in order of ending; with several
            agents the sum of all agents' returns.
        lengths: of the same episodes [environment steps].
        agent_returns: the same episodes' returns by agent; empty for PPO.
        infos: the finite numbers that the same episodes' last infos had, by name; NaN for an
            episode whose info had none of that name. With several agents the mean over those who
            gave it, and each one's own under "agent/name".

    """

    steps: int
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    agent_returns: dict[str, list[float]] = field(default_factory=dict)
    infos: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def together(cls, parts: Sequence["RolloutStats"]) -> "RolloutStats":
        """Return what happened in several places, such as on several ranks, in their order."""
        found = cls(0)
        for part in parts:
            for name in {**found.infos, **part.infos}:
                before = found.infos.get(name, [math.nan] * len(found.returns))
                new = part.infos.get(name, [math.nan] * len(part.returns))
                found.infos[name] = before + new
            for agent, returns in part.agent_returns.items():
                found.agent_returns[agent] = found.agent_returns.get(agent, []) + returns
            found.steps += part.steps
            found.returns += part.returns
            found.lengths += part.lengths
        return found

    @property
    def success_rate(self) -> float:
        """Mean of ``is_success`` over the episodes whose last info had it; NaN if none had."""
        return mean_of_known(self.infos.get(SUCCESS, ()))

    @property
    def mean_return(self) -> float:
        """Mean over the episodes that ended; NaN if none did."""
        return float(np.mean(self.returns)) if self.returns else float("nan")


class Episodes:
    """Returns and lengths of one group's episodes.

    Attributes:
        returns: of the episodes that ended, [A] each, in order of ending.
        lengths: of the same episodes [environment steps].
        infos: the numbers they ended with, where there are any: the episode's place in
            ``returns``, the agent's in the group, and the numbers.
        running_return: of those that have not ended yet, [N].
        running_length: of the same episodes, [N] [environment steps].

    """

    def __init__(self, size: int, running_return: Array, running_length: Array) -> None:
        """Go on with running episodes of groups of ``size`` agents; the arrays are copied."""
        self.size = size
        self.returns: list[Array] = []
        self.lengths: list[int] = []
        self.infos: list[tuple[int, int, Numbers]] = []
        self.running_return, self.running_length = running_return.copy(), running_length.copy()

    def count(self, outcome: Outcome) -> None:
        """Take in what a step led to."""
        self.running_return += outcome.reward if outcome.score is None else outcome.score
        self.running_length += 1 if outcome.counted is None else outcome.counted
        ended = outcome.over
        if ended.any():
            rows = np.flatnonzero(ended)
            if outcome.final_info:
                place = {row: i // self.size for i, row in enumerate(rows.tolist())}
                self.infos += [
                    (len(self.lengths) + place[row], row % self.size, numbers)
                    for row, numbers in outcome.final_info.items()
                ]
            self.returns += list(self.running_return[rows].reshape(-1, self.size))
            self.lengths += self.running_length[rows[:: self.size]].tolist()
            self.running_return[rows], self.running_length[rows] = 0, 0


def collect_rollouts_recurrent(
    agent: ActingAgent,
    env: Any,
    n_steps: int | None = None,
    *,
    reset: bool | None = None,
) -> RolloutStats:
    """Give the agent T steps from each environment, ready for ``agent.learn()``.

    They fill the rollout of ``PPO`` and ``IPPO``, and are added to the replay (``agent.memory``) of
    agents that learn from one.

    Collection continues where the agent's last call on the same environment stopped: observation
    and hidden state carry over. On another environment, or one that something else has stepped
    through this package since, it starts afresh.

    Args:
        agent: of any algorithm, recurrent or feed-forward.
        env: for one agent a Gymnasium vector environment that declares its autoreset mode; for
            several what ``make_multi_agent_vect_envs`` builds.
        n_steps: T; None takes the agent's ``learn_step``, which off-policy is counted over all
            environments: then T = learn_step / E, rounded, at least 1.
        reset: True starts afresh in any case. False continues in any case: after loading a
            checkpoint, on an environment that you have put back into the state it was saved in.

    Returns:
        the episodes that ended on the way. A rollout itself is in ``buffer``, of the agent (PPO)
        or of each of its groups (IPPO); a replay is ``agent.memory``.

    Raises:
        TypeError: env is no vector environment of the agent's kind.
        ValueError: no declared autoreset mode, spaces or agents that are not the agent's, data that
            are not finite (named with environment, agent and step), or nothing to continue from.

    """
    agent.join_world()
    rows = agent.rows_to_learn_in(env)
    steps = agent.rollout_steps(rows.num_envs) if n_steps is None else n_steps
    if steps < 1:
        raise ValueError(f"n_steps: expected at least 1, got {steps}")
    continued = _to_continue(agent, rows, reset)
    if continued is None and reset is None:
        agent.collection.start_afresh(rows.env)
    carries = _reset(agent, rows) if continued is None else continued
    players = [
        group.player(carry.state.rows, carry.state, carry.reward)
        for group, carry in zip(agent.groups, carries, strict=True)
    ]
    for group, player in zip(agent.groups, players, strict=True):
        distribution, rows_acting = group.policy.distribution, player.state.rows
        player.explorer = SampledNoise(distribution, rows_acting, group.generator, group.device)
    seen = [carry.observed for carry in carries]
    recorders = agent.start_rollout(steps, players, seen, rows, continued is not None)
    # Until the rollout is whole there is nothing to continue from.
    agent.collection.forget()
    mark(rows.env, None)
    parts = [_Part(*part) for part in zip(agent.groups, players, recorders, carries, strict=True)]
    try:
        with torch.inference_mode():
            _step(rows, parts, steps)
            # All are checked before anything is kept.
            carries = [part.finish() for part in parts]
    except BaseException:
        for part in parts:
            part.recorder.abandon()
        raise
    agent.collection.stop(rows.env, carries, bool(parts[0].episodes.lengths))
    agent.end_rollout(steps * rows.num_envs)
    return _stats(parts, steps * rows.num_envs)


# One function serves policies with and without memory; the second name is for those without.
collect_rollouts = collect_rollouts_recurrent


def _to_continue(agent: ActingAgent, rows: RowSource, reset: bool | None) -> list[Carry] | None:
    """Return where to continue; None: start afresh."""
    groups, carries = agent.groups, agent.collection.of(agent.groups)
    if reset is None:
        return carries if agent.collection.is_latest(rows.env) else None
    if reset:
        return None
    sizes = [rows.num_envs * group.size for group in groups]
    if carries is None or [carry.state.rows for carry in carries] != sizes:
        had = "nothing"
        if carries is not None:
            had = f"{carries[0].state.rows // groups[0].size} environments"
        raise ValueError(
            f"reset=False: expected a collection on {rows.num_envs} environments to continue, "
            f"the agent has {had}; leave reset out"
        )
    return carries


def _reset(agent: ActingAgent, rows: RowSource) -> list[Carry]:
    # Whatever comes of it, the reset ends what anyone could have continued.
    agent.collection.forget()
    mark(rows.env, None)
    seed = agent.groups[0].next_seed()
    if seed is None and was_seeded(rows.env):
        # Otherwise each collection after a seeded test would begin with the same episodes.
        seed = int(np.random.SeedSequence().generate_state(1)[0]) >> 1
    note_seeded(rows.env, seeded=False)
    observed = rows.reset(seed)
    for i, (group, seen) in enumerate(zip(agent.groups, observed, strict=True)):
        _check_first(group, seen, functools.partial(rows.name, i))
    return [Carry.fresh(*pair) for pair in zip(agent.groups, observed, strict=True)]


class _Part:
    """One group's part in collecting: who acts, who records, and how its episodes go."""

    def __init__(self, group: AgentGroup, player: Player, recorder: Recorder, carry: Carry) -> None:
        self.group, self.player, self.recorder = group, player, recorder
        self.seen = carry.observed
        self.episodes = Episodes(group.size, carry.episode_return, carry.episode_length)

    def act(self, t: int, steps: int) -> Array | Tensor:
        """Choose the rows' actions at step t of T, in the environment's form."""
        sight = self.recorder.see(t, self.seen)
        noise = self.player.explore(self.seen, steps - t)
        turn = self.player.act(self.seen, sight.observation, noise, sight.mask, view=sight.view)
        self.recorder.acted(t, self.seen, turn)
        codec, action = self.player.policy.actions, turn.acted.action
        return codec.to_env(action) if self.seen.tensor is None else codec.for_env(action)

    def take(self, t: int, outcome: Outcome, observed: Observed) -> None:
        """Take in what step t led to, and what is seen next."""
        self.player.hear(outcome.reward, self.seen.exists)
        self.episodes.count(outcome)
        self.recorder.outcome(t, outcome)
        self.seen = observed

    def finish(self) -> Carry:
        """Return where to continue."""
        seen = self.seen.copy()
        self.recorder.finish(seen)
        player, episodes = self.player, self.episodes
        return Carry(
            seen,
            player.state,
            player.reward,
            episodes.running_return,
            episodes.running_length,
            player.policy,
        )


def _step(rows: RowSource, parts: Sequence[_Part], steps: int) -> None:
    for t in range(steps):
        actions = [part.act(t, steps) for part in parts]
        try:
            stepped = rows.step(actions, [part.seen for part in parts])
        except Exception as error:
            # It may have failed on the action that its own bad numbers led to.
            for part in parts:
                part.recorder.check(t + 1)
            error.add_note(f"at step {t} of this rollout")
            raise
        for part, (outcome, observed) in zip(parts, stepped, strict=True):
            part.take(t, outcome, observed)


def _stats(parts: Sequence[_Part], steps: int) -> RolloutStats:
    """Put the groups' episodes together: they end together, in the same order."""
    stats = RolloutStats(steps, lengths=parts[0].episodes.lengths)
    by_group = [np.reshape(part.episodes.returns, (-1, part.group.size)) for part in parts]
    stats.returns = np.concatenate(by_group, axis=1).sum(1).tolist()
    for part, returns in zip(parts, by_group, strict=True):
        if part.group.agents:
            agents = part.group.agents
            stats.agent_returns |= dict(zip(agents, returns.T.tolist(), strict=True))
    entries = [
        (episode, part.group.agents[a] if part.group.agents else "", numbers)
        for part in parts
        for episode, a, numbers in part.episodes.infos
    ]
    stats.infos = by_name(entries, len(stats.lengths)) if entries else {}
    return stats


def _check_first(group: AgentGroup, observed: Observed, name: Callable[[int], str]) -> None:
    """Check what is seen first; an error names the row."""
    layout = group.policy.codec.layout
    try:
        layout.check_stored(observed.observation, len(observed.observation))
    except ValueError as error:
        for row, observation in enumerate(observed.observation):
            try:
                layout.check_stored(observation[None], 1)
            except ValueError:
                error.add_note(f"the first observation of {name(row)}")
                break
        raise
