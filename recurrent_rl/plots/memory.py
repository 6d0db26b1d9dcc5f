"""What a memory holds of what an agent cannot see.

Letters: T steps that the agent has seen something in, U units of its memory, D numbers of its
observation, Q hidden quantities, C channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.plots.hidden import Hidden, HiddenQuantities, masking, observation_names
from recurrent_rl.plots.readout import fit_readout, r_squared
from recurrent_rl.plots.recording import (
    Recorder,
    Step,
    features_of,
    numbers_of,
    untrained_memory,
)
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
        untrained_r2: likewise, of a memory with random weights that saw the same episodes, [Q].
        fitted: episodes that the functions were fitted on.
        traces: the other episodes, which they were scored on.
        agent: who it is about, and how its memory is made, in words.
        observation_names: of its numbers, with their units, [D].
        shown_units: how many units other layers read, the first (h, of an LSTM's h and c).

    """

    names: tuple[str, ...]
    memory_r2: Array
    observation_r2: Array
    untrained_r2: Array
    fitted: int
    traces: Sequence[Trace]
    agent: str
    observation_names: tuple[str, ...]
    shown_units: int

    def __str__(self) -> str:
        """A line for each quantity."""
        lines = [
            f"{name}: R^2 {memory:.3f} from the memory, {untrained:.3f} from an untrained one, "
            f"{seen:.3f} from the observation alone"
            for name, memory, untrained, seen in zip(
                self.names, self.memory_r2, self.untrained_r2, self.observation_r2, strict=True
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
    one from the observation alone, as the network reads it, and one from a network like the agent's
    with random weights that sees the same: a memory need not be trained to hold something of what
    is smooth or recent. Episodes are those of ``evaluate`` with the same seed.

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
    group = agent.groups[number]
    _check_memory(agent, agent_id, group.policy)
    quantities = HiddenQuantities(env, hidden)
    recorder = Recorder(group.policy, number, row, quantities)
    agent.evaluate(  # type: ignore[attr-defined]
        env,
        episodes,
        max_steps=max_steps,
        deterministic=deterministic,
        seed=seed,
        watch=recorder,
    )
    return _probe(agent, agent_id, group, env, quantities, recorder.episodes)


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
    if not policy.actor_trunk.shapes:
        who = type(agent).__name__ if agent_id is None else f"{type(agent).__name__}'s {agent_id}"
        raise ValueError(
            f"agent: expected one with memory, got {who}, which acts upon what it sees at the "
            f"moment; build it with recurrent=True"
        )


def _probe(
    agent: Agent,
    agent_id: str | None,
    group: AgentGroup,
    env: Any,
    quantities: HiddenQuantities,
    episodes: Sequence[Sequence[Step]],
) -> MemoryProbe:
    """Fit on every second episode, and score on the others."""
    policy, played = group.policy, [each for each in episodes if each]
    if len(played) < 2:
        raise ValueError(
            f"episodes: expected at least 2 in which {agent_id} sees something, got {len(played)}; "
            f"play more"
        )
    memory = [np.stack([step.memory for step in each]) for each in played]
    hidden = [np.stack([step.hidden for step in each]) for each in played]
    stored = [np.stack([step.observation for step in each]) for each in played]
    _check_changes(quantities.names, hidden)
    features = [features_of(policy, each) for each in stored]
    seen = [np.concatenate([x.reshape(len(x), -1) for x in each], axis=1) for each in features]
    by_memory, by_sight, by_chance = (
        _read(part, hidden) for part in (memory, seen, untrained_memory(group, played))
    )
    traces = [
        Trace(
            np.array([step.step for step in played[i]]),
            numbers_of(policy, stored[i]),
            tuple(features[i][1:]),
            memory[i],
            hidden[i],
            by_memory[i // 2],
            by_sight[i // 2],
        )
        for i in range(1, len(played), 2)
    ]
    truth = hidden[1::2]
    return MemoryProbe(
        quantities.names,
        r_squared(by_memory, truth),
        r_squared(by_sight, truth),
        r_squared(by_chance, truth),
        len(played) - len(traces),
        traces,
        _described(agent, agent_id, policy),
        tuple(_number_names(policy, env)),
        _shown_units(policy),
    )


def _check_changes(names: Sequence[str], hidden: Sequence[Array]) -> None:
    for which, name in (0, "fitted"), (1, "scored"):
        constant = np.ptp(np.concatenate(hidden[which::2]), axis=0) == 0
        if constant.any():
            raise ValueError(
                f"hidden: expected {names[int(constant.argmax())]!r} to change in the episodes "
                f"that are {name}, got one value; play more episodes, or read something else"
            )


def _read(features: Sequence[Array], hidden: Sequence[Array]) -> list[Array]:
    """Return what is read out of the scored episodes, every second one, [T, Q] each."""
    readout = fit_readout(features[::2], hidden[::2])
    return [readout(x) for x in features[1::2]]


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
    """Return how many units are shown: of a built-in cell h, or an LRU's real parts; else all."""
    trunk = policy.actor_trunk
    shapes = trunk.shapes if trunk.is_custom else trunk.shapes[:1]
    return sum(k * h for k, h in shapes)


def _described(agent: Agent, agent_id: str | None, policy: Policy) -> str:
    trunk = policy.actor_trunk
    core = getattr(trunk.encoder, "core", None)  # a network of one's own has none
    kind = "" if core is None else f", {type(core.rnn).__name__}"
    return f"{type(agent).__name__}{'' if agent_id is None else ' ' + agent_id}{kind}"
