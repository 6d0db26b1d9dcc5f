"""Small off-policy agents, and ways to look into what their memories hold."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from support.agents import network, randomise
from torch import Tensor

from recurrent_rl import DDPG, DQN, MADDPG, MATD3, SAC, TD3
from recurrent_rl.buffers.replay import GroupWindows, SequenceReplayBuffer, Windows
from recurrent_rl.buffers.ring import ReplayLayout
from recurrent_rl.buffers.steps import StepShapes

ALGORITHMS = {"dqn": DQN, "ddpg": DDPG, "td3": TD3, "sac": SAC, "maddpg": MADDPG, "matd3": MATD3}
SMALL: dict[str, Any] = {"learning_starts": 0, "batch_size": 8, "learn_step": 1, "memory_size": 500}


def make_off_policy(kind: str, env: Any, *, seed: int = 0, **options: Any) -> Any:
    """An agent of a kind for an environment's spaces, with weights that hide no mistake."""
    if kind.startswith("ma"):
        spaces = env.observation_spaces, env.action_spaces, env.possible_agents
    else:
        spaces = env.single_observation_space, env.single_action_space  # type: ignore[assignment]
    options = {**SMALL, **options}
    shapes = options.pop("net_config", None) or network(options)
    agent = ALGORITHMS[kind](*spaces, shapes, seed=seed, **options)
    for i, group in enumerate(agent.groups):
        randomise(group.policy, seed + i)
    return agent


def held(memory: SequenceReplayBuffer, name: str, env: int) -> dict[str, Tensor]:
    """All places of an environment that hold anything, from its first window on, [P, A, ...]."""
    part = memory.parts[name]
    first = int(memory._range()[0][env]) * memory._stride
    place = np.arange(first, memory.written[env] + memory.shows_next) % memory.places
    rows = slice(env * part.size, (env + 1) * part.size)
    fields = {k: x for k, x in part.fields().items() if not k.startswith("hidden")}
    return {key: field[place, rows] for key, field in fields.items()}


def window_at(
    memory: SequenceReplayBuffer, env: int, chunk: int, owner: int | None = None, ahead: int = 1
) -> Windows:
    """One window of one environment, by its number."""
    assert memory.layout is not None
    span = memory.layout.burn_in, memory.layout.length, ahead * memory.gap
    which = np.array([env]), np.array([chunk * memory._stride])
    return memory._gather(*which, span, owner, np.array([chunk * memory.envs + env]))


def empty_memory(
    memory_size: int,
    envs: int = 1,
    layout: ReplayLayout = ReplayLayout(),  # noqa: B008 - immutable
    *,
    sizes: Mapping[str, int] | None = None,
    prioritised: bool = False,
    **shapes: Any,
) -> SequenceReplayBuffer:
    """A memory of a single number as observation and action, and a state of one number."""
    sizes = sizes or {"": 1}
    shape = StepShapes(**{"obs_shape": (), "action_shape": (), "state_shapes": [(1, 1)], **shapes})
    memory = SequenceReplayBuffer(memory_size)
    memory.fit(dict.fromkeys(sizes, shape), sizes, envs, layout, prioritised=prioritised)
    memory.begin(None, continued=False)
    return memory


def tell(memory: SequenceReplayBuffer, number: Any = None, which: Any = None, **flags: Any) -> None:
    """Write a step whose observation is its absolute place (plus 1000 times its environment).

    It is final with ``which`` environments given.
    """
    envs = np.arange(memory.envs) if which is None else np.asarray(which)
    for name, part in memory.parts.items():
        place = (memory.written + 1000 * np.arange(memory.envs))[envs].repeat(part.size)
        values = {"obs": place if number is None else number, "reward": place, "final": False}
        values |= {"exists": True, "active": True, "start": False}
        values |= {"terminated": False, "truncated": False}
        if which is not None:
            values |= {"final": True, "active": False}
        memory.write(name, {**values, **flags}, envs)
    memory.advance(envs, time=which is None)


def copied(windows: GroupWindows) -> dict[str, Tensor]:
    """Copies of all fields that are there."""
    return {k: x.clone() for k, x in vars(windows).items() if isinstance(x, Tensor)}


def assert_same_memory(ours: SequenceReplayBuffer, theirs: SequenceReplayBuffer) -> None:
    """Bit for bit, whatever can be seen of them."""
    pairs = [(len(ours), len(theirs)), (ours.counter, theirs.counter), (ours.gap, theirs.gap)]
    pairs += [(ours.written.tolist(), theirs.written.tolist())]
    pairs += [(ours.shows_next, theirs.shows_next), (ours.layout, theirs.layout)]
    for mine, other in pairs:
        assert mine == other
    assert ours.parts.keys() == theirs.parts.keys()
    assert np.array_equal(ours.begins, theirs.begins)
    for name, part in ours.parts.items():
        others = theirs.parts[name].fields()
        for field, tensor in part.fields().items():
            assert torch.equal(tensor, others[field]), (name, field)
