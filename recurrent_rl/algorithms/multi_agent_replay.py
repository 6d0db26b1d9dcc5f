"""A replay that training loops of one's own fill step by step, with dictionaries by agent.

Letters: E environments, A agents of a group, N = E * A rows, B transitions of a sample.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
from torch import Tensor

from recurrent_rl.algorithms.saved_step import SavedStep, Stored
from recurrent_rl.algorithms.step_writing import shape_memory, write_step
from recurrent_rl.algorithms.team import (
    Spaces,
    Team,
    checked_groups,
    checked_ids,
    group_agents,
)
from recurrent_rl.buffers.replay import SequenceReplayBuffer, Windows
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, SEED, checked, checked_device, shown, unknown_name

FIELD_NAMES = ["state", "action", "reward", "next_state", "done"]
ByAgent = Mapping[str, Any]


@dataclass(frozen=True)
class Experiences(Windows):
    """A sample of transitions, as ``learn`` takes it.

    Who wants to look into it finds the fields by agent, [B, ...] each, or unpacks them:
    ``states, actions, rewards, next_states, dones = memory.sample(32)``.

    Attributes, beside those of ``Windows``:
        agents: of each group.

    """

    agents: dict[str, list[str]]

    def _by_agent(self, field: str, place: int = 0) -> dict[str, Tensor]:
        found = {}
        for name, agents in self.agents.items():
            values = getattr(self.groups[name], field)[self.burn_in + place]
            for i, agent in enumerate(agents):
                found[agent] = values[i :: len(agents)]
        return found

    @property
    def state(self) -> dict[str, Tensor]:
        """Observations, as they are stored."""
        return self._by_agent("obs")

    @property
    def action(self) -> dict[str, Tensor]:
        """Actions, as they are stored."""
        return self._by_agent("action")

    @property
    def reward(self) -> dict[str, Tensor]:
        """Of the transitions."""
        return self._by_agent("reward")

    @property
    def next_state(self) -> dict[str, Tensor]:
        """Observations one place later; they mean nothing where an agent was done."""
        return self._by_agent("obs", 1)

    @property
    def done(self) -> dict[str, Tensor]:
        """Whether agents' lives ended for good, bool."""
        return self._by_agent("terminated")

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """State, action, reward, next state, done."""
        return (getattr(self, name) for name in FIELD_NAMES)


class MultiAgentReplayBuffer:
    """Transitions of several agents without memory, for training loops of one's own.

    ``collect_rollouts_recurrent`` fills a ``SequenceReplayBuffer`` by itself, which knows more:
    hidden states, action masks, who is there, how episodes ended. Here one says so step by step.

    >>> memory = MultiAgentReplayBuffer(1000, agent_ids=["bob_0", "bob_1"])
    >>> see, act = ({agent: [[x]] for agent in memory.agent_ids} for x in (0.5, 0.1))
    >>> reward, done = ({agent: [x] for agent in memory.agent_ids} for x in (1.0, False))
    >>> memory.save_to_memory(see, act, reward, see, done, is_vectorised=True)
    >>> len(memory)
    1

    What is seen next is kept once: it is the next state, or where the next call's state is another,
    stands by itself. So calls are to come in the order of the steps, of all environments each time.

    Attributes:
        agent_ids: all agents.
        grouped_agents: names of groups and their members, as the agent has them.
        agents: how each one's observations and actions are kept.
        memory: the storage; ``train_multi_agent_off_policy`` fills it, too.
        device: of the agents, to which samples are moved when learned from; they lie on the CPU.

    """

    def __init__(
        self,
        memory_size: int,
        field_names: Sequence[str] = tuple(FIELD_NAMES),
        agent_ids: Sequence[str] = (),
        device: torch.device | str = "cpu",
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        observation_spaces: Spaces | None = None,
        action_spaces: Spaces | None = None,
        seed: int | None = None,
    ) -> None:
        """Begin empty.

        Args:
            memory_size: environment steps that it holds, over all environments, about.
            field_names: "state", "action", "reward", "next_state" and "done".
            agent_ids: all agents.
            device: of the agents.
            groups: as ``MADDPG`` was given them.
            observation_spaces: by agent, or a list in the order of ``agent_ids``; None takes the
                shapes of what is first saved, arrays of numbers. Needed for Dict and Tuple spaces.
            action_spaces: likewise.
            seed: of sampling; None takes fresh entropy.

        Raises:
            TypeError: a value of the wrong kind.
            ValueError: other fields, no agents, or groups that are none.

        """
        size = checked("memory_size", memory_size, Annotated[int, COUNT])
        self.memory = SequenceReplayBuffer(size)
        if sorted(checked("field_names", field_names, tuple[str, ...])) != sorted(FIELD_NAMES):
            raise ValueError(
                f"field_names: expected {FIELD_NAMES}, got {shown(field_names)}; what else there "
                f"is to store, collect_rollouts_recurrent(agent, env) stores by itself"
            )
        self.device = checked_device(device)
        if (observation_spaces is None) != (action_spaces is None):
            raise ValueError("action_spaces: expected them with observation_spaces, or neither")
        nobody = isinstance(agent_ids, Sequence) and not agent_ids
        if observation_spaces is None or action_spaces is None:
            if nobody:
                raise ValueError("agent_ids: expected the agents' names, env.agents, got none")
            self.agent_ids = checked_ids(agent_ids)
            self.grouped_agents = group_agents(self.agent_ids, checked_groups(groups))
            self.agents = {agent: Stored() for agent in self.agent_ids}
        else:
            ids = None if nobody else agent_ids
            team = Team.resolve(observation_spaces, action_spaces, ids, groups, None)
            self.agent_ids, self.grouped_agents = team.agent_ids, team.grouped_agents
            self.agents = {
                agent: Stored(team.observation_spaces[agent], team.action_spaces[agent])
                for agent in team.agent_ids
            }
        self._left_out: dict[str, Array] = {}
        seed = checked("seed", seed, Annotated[int | None, SEED])
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def __len__(self) -> int:
        """Environment steps that are held now."""
        return len(self.memory)

    @property
    def counter(self) -> int:
        """Environment steps that it was ever given."""
        return self.memory.counter

    # --- saving -----------------------------------------------------------------------------

    def save_to_memory(
        self,
        state: ByAgent,
        action: ByAgent,
        reward: ByAgent,
        next_state: ByAgent,
        done: ByAgent,
        is_vectorised: bool = False,
        *,
        truncated: ByAgent | None = None,
        infos: ByAgent | None = None,
    ) -> None:
        """Store one step of all environments.

        Args:
            state: what agents saw, by agent; whoever was not there is left out.
            action: what they chose, in the form that policies have it (before it is squashed into
                a Box's bounds; choices counted from 0): the ``raw_action`` of
                ``get_action`` with ``action_pairs=True``.
            reward: what it brought.
            next_state: what they saw next.
            done: whether their lives ended for good: terminations.
            is_vectorised: everything has a leading axis of environments; False: there is one
                environment, without that axis.
            truncated: whether lives were cut by a time limit. Without it what follows in the next
                episode counts as theirs, if the environment resets by itself.
            infos: those that came with ``next_state`` from this package's vectors, which know who
                is there (``exists``), and what was seen last (``final_obs``).

        Raises:
            TypeError: no dictionaries, or no numbers.
            ValueError: unknown agents, other shapes, numbers that are not finite; nothing is stored
                then.

        """
        given = {"state": state, "action": action, "reward": reward, "next_state": next_state}
        given |= {"done": done, "truncated": truncated or {}, "infos": infos or {}}
        for name, by_agent in given.items():
            self._check_agents(name, by_agent)
        is_vectorised = checked("is_vectorised", is_vectorised, bool)
        step = SavedStep.read(self.agents, given, is_vectorised, self.memory.envs)
        shape_memory(self.memory, self.agents, self.grouped_agents, step)
        self._left_out = write_step(self.memory, self.grouped_agents, step, self._left_out)

    def _check_agents(self, name: str, by_agent: Any) -> None:
        if not isinstance(by_agent, Mapping):
            raise TypeError(f"{name}: expected a dictionary by agent, got {shown(by_agent)}")
        for agent in by_agent:
            if agent not in self.agent_ids:
                known = unknown_name(name, agent, self.agent_ids).replace("option", "agent")
                raise ValueError(known)

    # --- sampling ---------------------------------------------------------------------------

    def sample(self, batch_size: int, n_step: int = 1) -> Experiences:
        """Sample transitions, uniformly and with replacement.

        Args:
            batch_size: B.
            n_step: the agent's, whose targets need as many steps behind each.

        Returns:
            what ``agent.learn`` takes.

        Raises:
            RuntimeError: there are fewer than B.

        """
        batch_size = checked("batch_size", batch_size, Annotated[int, COUNT])
        n_step = checked("n_step", n_step, Annotated[int, COUNT])
        if batch_size > len(self):
            raise RuntimeError(
                f"sample: expected at least batch_size = {batch_size} steps in the memory, got "
                f"{len(self)}; save more first"
            )
        windows = self.memory.sample(batch_size, self._generator, ahead=n_step, owner=-1)
        plain = {field.name: getattr(windows, field.name) for field in fields(windows)}
        return Experiences(**plain, agents=self.grouped_agents)
