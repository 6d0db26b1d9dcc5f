"""What a memory holds of what an agent cannot see.

Letters: T steps that the agent has seen something in, U units of its memory, D numbers of its
observation, Q hidden quantities, C channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

import numpy as np
import torch

from recurrent_rl.acting.player import Turn, as_tensor
from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.envs.rows import Observed
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.trunk import Trunk
from recurrent_rl.plots.hidden import Hidden, HiddenQuantities, masking, observation_names
from recurrent_rl.plots.readout import fit_readout, r_squared
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import SEED, Range, checked, shown

EPISODES = Range(2, 10**6)  # some to fit, others to score


@dataclass(frozen=True)
class Trace:
    """One episode as an agent lived it, at the steps in which it saw something.

    Attributes:
        steps: of the environment, int [T].
        observation: its numbers, without images, [T, D].
        images: in it, as the network reads them, [T, C, H, W] each.
        memory: all of the actor's hidden state after each step, [T, U].
        hidden: what the agent could not see, [T, Q].
        from_memory: the same, read out of the memory, [T, Q].
        from_observation: the same, read out of the observation alone, [T, Q].

    """

    steps: Array
    observation: Array
    images: tuple[Array, ...]
    memory: Array
    hidden: Array
    from_memory: Array
    from_observation: Array


@dataclass(frozen=True)
class MemoryProbe:
    """How well hidden quantities can be read out of an agent's memory linearly.

    Attributes:
        names: of the quantities, with their units, [Q].
        memory_r2: share of each one's variance that a linear function of the memory explains on
            episodes that it was not fitted on, at most 1, [Q]; below 0 it is worse than a constant.
        observation_r2: likewise, of the last observation alone, [Q].
        fitted: episodes that the functions were fitted on.
        traces: the other episodes, which they were scored on.
        agent: who it is about, and how its memory is made, in words.
        observation_names: of its numbers, with their units, [D].
        shown_units: how many units other layers read, the first (h, of an LSTM's h and c).

    """

    names: tuple[str, ...]
    memory_r2: Array
    observation_r2: Array
    fitted: int
    traces: Sequence[Trace]
    agent: str
    observation_names: tuple[str, ...]
    shown_units: int

    def __str__(self) -> str:
        """A line for each quantity."""
        lines = [
            f"{name}: R^2 {memory:.3f} from the memory, {seen:.3f} from the observation alone"
            for name, memory, seen in zip(
                self.names, self.memory_r2, self.observation_r2, strict=True
            )
        ]
        scored = f"fitted on {self.fitted} episodes, scored on {len(self.traces)} others"
        return "\n".join([f"{self.agent}, {scored}", *lines])


def probe_memory(
    agent: Any,
    env: Any,
    hidden: Hidden | None = None,
    *,
    agent_id: str | None = None,
    episodes: int = 20,
    max_steps: int | None = None,
    deterministic: bool = True,
    seed: int | None = 0,
) -> MemoryProbe:
    """Play episodes, and see how well what the agent cannot see can be read out of its memory.

    A ridge regression from the hidden state (of an LSTM both h and c) after each observation to the
    hidden quantity at that time is fitted on every second episode and scored on the others, beside
    one from the observation alone, as the network reads it. Episodes are those of ``evaluate`` with
    the same seed.

    Args:
        agent: with memory, of any algorithm; if it is of several agents, choose one.
        env: one environment of the kind that it was trained in, Gymnasium's or PettingZoo's; left
            open.
        hidden: what the agent cannot see: functions of ``env`` by the name and unit of what they
            return, such as ``{"speed [m/s]": lambda env: env.unwrapped.speed}``; or a function
            that returns a number or an array [Q]. None: the velocities that a
            ``MaskVelocityWrapper`` masks.
        agent_id: whose memory, of several agents.
        episodes: to play, at least 2.
        max_steps: stop each episode here; None plays to its end.
        deterministic: take the most likely actions.
        seed: of the first reset; None leaves the environment's randomness as it is.

    Raises:
        TypeError: no agent of this package, or no single environment.
        ValueError: an agent without memory, an agent to be chosen, nothing known to be hidden, or
            a quantity that does not change.

    """
    if not isinstance(agent, Agent):
        raise TypeError(f"agent: expected an agent of this package, got {shown(agent)}")
    if isinstance(env, str) or hasattr(env, "num_envs"):
        raise TypeError(
            f"env: expected one environment, got {shown(env)}; build it as in training, for "
            f"example MaskVelocityWrapper(gym.make('Pendulum-v1'))"
        )
    episodes = checked("episodes", episodes, Annotated[int, EPISODES])
    seed = checked("seed", seed, Annotated[int | None, SEED])
    number, row = _place(agent, agent_id)
    policy = agent.groups[number].policy
    _check_memory(agent, agent_id, policy)
    quantities = HiddenQuantities(env, hidden)
    recorder = _Recorder(policy, number, row, quantities)
    agent.evaluate(  # type: ignore[attr-defined]
        env,
        episodes,
        max_steps=max_steps,
        deterministic=deterministic,
        seed=seed,
        watch=recorder,
    )
    return _probe(agent, agent_id, policy, env, quantities, recorder.episodes)


def _place(agent: Agent, agent_id: str | None) -> tuple[int, int]:
    """Return the number of an agent's group, and its row in one environment."""
    if not isinstance(agent, MultiAgent):
        if agent_id is not None:
            raise ValueError(
                f"agent_id: expected None, as there is only one agent, got {agent_id!r}"
            )
        return 0, 0
    known = [name for group in agent.groups for name in group.agents]
    for number, group in enumerate(agent.groups):
        if agent_id in group.agents:
            return number, group.agents.index(agent_id)
    raise ValueError(
        f"agent_id: expected one of {', '.join(known)}, whose memory is to be looked into, got "
        f"{agent_id!r}"
    )


def _check_memory(agent: Agent, agent_id: str | None, policy: Policy) -> None:
    if not _trunk(policy).shapes:
        who = type(agent).__name__ if agent_id is None else f"{type(agent).__name__}'s {agent_id}"
        raise ValueError(
            f"agent: expected one with memory, got {who}, which acts upon what it sees at the "
            f"moment; build it with recurrent=True"
        )


class _Recorder(Spectator):
    """Keeps what one agent sees and remembers, and what is hidden from it."""

    def __init__(self, policy: Policy, group: int, row: int, quantities: HiddenQuantities) -> None:
        self.group, self.row, self.quantities = group, row, quantities
        self.place = _trunk(policy).place
        self.episodes: list[list[tuple[int, Array, Array, Array]]] = []
        self.step = 0

    def begin(self) -> None:
        self.episodes.append([])
        self.step = 0

    def act(self, group: int, seen: Observed, turn: Turn) -> None:
        row = self.row
        if group != self.group or not (seen.exists is None or seen.exists[row]):
            return
        after = turn.acted.state.tensors[self.place]  # [K, N, H] each
        memory = torch.cat([x[:, row].flatten() for x in after]).numpy(force=True)
        observation = np.array(seen.observation[row])
        self.episodes[-1].append((self.step, observation, memory, self.quantities.read()))

    def stepped(self) -> None:
        self.step += 1


def _probe(
    agent: Agent,
    agent_id: str | None,
    policy: Policy,
    env: Any,
    quantities: HiddenQuantities,
    episodes: Sequence[Sequence[tuple[int, Array, Array, Array]]],
) -> MemoryProbe:
    """Fit on every second episode, and score on the others."""
    played = [[np.stack(part) for part in zip(*each, strict=True)] for each in episodes if each]
    if len(played) < 2:
        raise ValueError(
            f"episodes: expected at least 2 in which {agent_id} sees something, got {len(played)}; "
            f"play more"
        )
    memory, hidden = [part[2] for part in played], [part[3] for part in played]
    features = [_features(policy, part[1]) for part in played]
    seen = [np.concatenate([x.reshape(len(x), -1) for x in each], axis=1) for each in features]
    for which, name in (0, "fitted"), (1, "scored"):
        constant = np.ptp(np.concatenate(hidden[which::2]), axis=0) == 0
        if constant.any():
            what = quantities.names[int(constant.argmax())]
            raise ValueError(
                f"hidden: expected {what!r} to change in the episodes that are {name}, got one "
                f"value; play more episodes, or read something else"
            )
    by_memory, by_sight = (fit_readout(part[::2], hidden[::2]) for part in (memory, seen))
    traces = [
        Trace(
            steps,
            _numbers(policy, stored),
            tuple(images),
            state,
            truth,
            by_memory(state),
            by_sight(x),
        )
        for (steps, stored, state, truth), (_, *images), x in zip(
            played[1::2], features[1::2], seen[1::2], strict=True
        )
    ]
    truth = [trace.hidden for trace in traces]
    return MemoryProbe(
        quantities.names,
        r_squared([trace.from_memory for trace in traces], truth),
        r_squared([trace.from_observation for trace in traces], truth),
        len(played) - len(traces),
        traces,
        _described(agent, agent_id, policy),
        tuple(_number_names(policy, env)),
        _shown_units(policy),
    )


def _trunk(policy: Policy) -> Trunk:
    """Return what acts; a critic's may stand beside it."""
    return cast(Trunk, policy.trunks[0])


@torch.no_grad()
def _features(policy: Policy, observation: Array) -> list[Array]:
    """Return stored observations [T, *shape] as the network reads them, images apart."""
    x = policy.codec(as_tensor(policy, observation))
    return [part.numpy(force=True) for part in (x.vector, *x.images)]


def _numbers(policy: Policy, observation: Array) -> Array:
    """Return the numbers of stored observations [T, *shape] as they came, [T, D]."""
    layout = policy.codec.layout
    parts = zip(layout.leaves, layout.parts(observation), strict=True)
    numbers = [x.reshape(len(x), -1) for leaf, x in parts if not leaf.kind.is_image]
    return np.concatenate([np.zeros((len(observation), 0)), *numbers], axis=1)


def _number_names(policy: Policy, env: Any) -> list[str]:
    layout = policy.codec.layout
    mask = masking(env)
    if not layout.nested and (known := observation_names(env)):
        hidden = () if mask is None else mask.indices
        return [f"{name} (masked)" if i in hidden else name for i, name in enumerate(known)]
    return [
        leaf.name if leaf.size == 1 else f"{leaf.name}[{i}]"
        for leaf in layout.leaves
        if not leaf.kind.is_image
        for i in range(leaf.size)
    ]


def _shown_units(policy: Policy) -> int:
    """Return how many units others read: h of a built-in cell, all of a network of one's own."""
    trunk = _trunk(policy)
    shapes = trunk.shapes if trunk.is_custom else trunk.shapes[:1]
    return sum(k * h for k, h in shapes)


def _described(agent: Agent, agent_id: str | None, policy: Policy) -> str:
    trunk = _trunk(policy)
    core = getattr(trunk.encoder, "core", None)  # a network of one's own has none
    kind = "" if core is None else f", {type(core.rnn).__name__}"
    return f"{type(agent).__name__}{'' if agent_id is None else ' ' + agent_id}{kind}"
