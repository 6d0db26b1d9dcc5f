"""The replay that the individuals of a training run share."""

import warnings
from collections.abc import Sequence
from typing import Any, cast

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.multi_agent_replay import MultiAgentReplayBuffer
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.sharing import copied, seal
from recurrent_rl.validation import shown


class SharedMemory:
    """A population's replay, as users hold it before and after a run.

    Attributes:
        memory: theirs; runs work on copies, and change it at their end.

    """

    def __init__(self, given: Any, population: Sequence[Agent], num_envs: int) -> None:
        """Find the replay that is meant, and check that it fits all individuals.

        Args:
            given: to the training function; None goes on with what all individuals share, or makes
                one of the first one's ``memory_size``.
            population: of agents that learn from a replay.
            num_envs: E.

        Raises:
            TypeError: something else than a replay.
            ValueError: one of other spaces, agents or environments, or individuals that cannot
                share one.

        """
        agents = cast("Sequence[OffPolicyAgent]", population)
        if isinstance(given, MultiAgentReplayBuffer):
            given = _storage(given, population[0])
        shared = agents[0].memory
        self._is_theirs = all(agent.memory is shared for agent in agents)
        if given is None:
            self.memory = shared
            if not self._is_theirs or not shared.counter:
                self.memory = SequenceReplayBuffer(agents[0].config.memory_size)
                _warn_of_unused(agents)
        elif isinstance(given, SequenceReplayBuffer):
            self.memory = given
            self._is_theirs = self._is_theirs and given is shared
        else:
            raise TypeError(
                f"memory: expected a SequenceReplayBuffer or None, got {shown(given)}; build one "
                f"with SequenceReplayBuffer(memory_size), or leave it out"
            )
        self._num_envs = num_envs
        self.check(self.memory, agents)

    def check(self, memory: SequenceReplayBuffer, population: Sequence[Agent]) -> None:
        """Raise ValueError unless a replay fits all individuals and the environments."""
        for agent in cast("Sequence[OffPolicyAgent]", population):
            try:
                agent.fit_memory(memory, self._num_envs)
            except ValueError as error:
                error.add_note("all individuals of pop share one memory")
                raise

    def begin(self) -> SequenceReplayBuffer:
        """Return a sealed copy, for a run to begin with."""
        memory = copied(self.memory)
        seal(memory)
        if not self._is_theirs:
            memory.owner[:] = -1  # other agents may have had the same numbers
        return memory

    def end(self, memory: SequenceReplayBuffer, agents: Sequence[Agent]) -> None:
        """Take over a run's replay, and give it to the agents."""
        self.memory.become(memory)
        for agent in cast("Sequence[OffPolicyAgent]", agents):
            agent.memory = self.memory


def _storage(given: MultiAgentReplayBuffer, agent: Agent) -> SequenceReplayBuffer:
    """Return where a replay keeps its steps.

    Raises:
        ValueError: other agents', or grouped in another way.

    """
    expected = agent.grouped_agents if isinstance(agent, MultiAgent) else {}
    if given.grouped_agents != expected:
        raise ValueError(
            f"memory: expected the agents {expected} of pop, got {given.grouped_agents}; build "
            f"MultiAgentReplayBuffer with the agent_ids and groups of the agents, or leave it out"
        )
    return given.memory


def _warn_of_unused(agents: Sequence[OffPolicyAgent]) -> None:
    held = sum(len(agent.memory) for agent in agents)
    if held:
        warnings.warn(
            f"memory: None begins with an empty one, as the individuals have memories of their "
            f"own, with {held} steps, which are not used; pass memory=agent.memory to use one",
            stacklevel=5,
        )
