"""Rows of a turn-based (AEC) PettingZoo environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo.utils import wrappers

from recurrent_rl.envs.agent_table import AgentTable
from recurrent_rl.envs.env_rows import ByAgent, EnvRows
from recurrent_rl.envs.final_infos import numbers_of

# They hand through whatever an environment says of its agents, and have none of it themselves.
HANDING_THROUGH = (
    wrappers.OrderEnforcingWrapper,
    wrappers.TerminateIllegalWrapper,
    wrappers.AssertOutOfBoundsWrapper,
    wrappers.ClipOutOfBoundsWrapper,
    wrappers.CaptureStdoutWrapper,
)


def source_of(env: Any) -> Any:
    """Return the environment, within wrappers, whose attributes and ``last()`` are those of env.

    Each of PettingZoo's wrappers looks an attribute up in the next, three times as many steps of
    Python as the attribute is worth, and a step of the environment reads some twenty.
    """
    while type(env) in HANDING_THROUGH:  # exactly these: others may say something else
        env = env.env
    return env


class TurnRows(EnvRows):
    """A turn-based (AEC) environment: one agent acts in each step, the others see nothing.

    What an agent earns is what ``last()`` says at its turns. ``env.rewards`` says the same step by
    step in most environments; where it does not, the difference goes to the latest step.
    """

    def __init__(self, env: Any, table: AgentTable, index: int) -> None:
        """See ``EnvRows``."""
        super().__init__(env, table, index)
        self._source = source_of(env)

    def _turn(self, rewards: dict[str, Any]) -> tuple[ByAgent, ByAgent]:
        """Return the observation and the info of the agent whose turn it is.

        Args:
            rewards: of the step before; set right in place.

        """
        source = self._source
        if not len(source.agents):
            return {}, {}
        agent = source.agent_selection
        observation = self.env.observe(agent)
        if agent not in source.infos:
            return {agent: observation}, {}
        _, reward, _, _, info = source.last(observe=False)
        self._settle(agent, reward, rewards)
        return {agent: observation}, {agent: info}

    def _settle(self, agent: str, reward: Any, rewards: dict[str, Any]) -> None:
        """Add what ``last()`` says beyond ``env.rewards``, summed since the agent's last turn."""
        missing = reward - self._heard.get(agent, 0)
        if np.all(np.abs(missing) <= 1e-5 * np.maximum(np.abs(reward), 1)):
            return
        if agent in self._left:
            raise ValueError(
                f"environment {self.index}: expected the rewards of agent {agent!r} to be those of "
                f"last(), got {missing} more from last() after it had ended; let the environment "
                f"call self._accumulate_rewards() at the end of every step()"
            )
        rewards[agent] = rewards.get(agent, 0) + missing

    def _reset(self, seed: int | None, options: Any) -> tuple[ByAgent, ByAgent]:
        self.env.reset(seed=seed, options=options)
        for name in ("terminations", "truncations"):
            if not isinstance(getattr(self._source, name, None), Mapping):
                raise ValueError(
                    f"environment {self.index}: expected reset() to fill self.{name}, a dictionary "
                    f"by agent, as PettingZoo asks for since version 1.23"
                )
        self._heard: dict[str, Any] = {}
        observations, infos = self._turn({})
        return observations, {**{a: _mask_only(i) for a, i in self._source.infos.items()}, **infos}

    def _step(self) -> tuple[ByAgent, ...]:
        env, source = self.env, self._source
        acting = source.agent_selection
        self._heard[acting] = 0
        env.step(self._action(acting))
        # Copies, as all of these change when agents that have ended are removed.
        rewards, terminations, truncations = (
            dict(x) for x in (source.rewards, source.terminations, source.truncations)
        )
        for agent, reward in rewards.items():
            self._heard[agent] = self._heard.get(agent, 0) + reward
        finals = {a: env.observe(a) for a in self.alive if truncations.get(a)}
        last: ByAgent = {}
        if any(terminations.values()) or any(truncations.values()) or not len(source.agents):
            last = {a: numbers_of(info) for a, info in source.infos.items()}
        for _ in range(len(source.agents)):
            if not len(source.agents):
                break
            agent = source.agent_selection
            if not (source.terminations[agent] or source.truncations[agent]):
                break
            if agent in source.infos:
                self._settle(agent, source.last(observe=False)[1], rewards)
            env.step(None)  # PettingZoo's way of removing an agent that has ended
            self._heard.pop(agent, None)
        observations, infos = self._turn(rewards)
        return observations, rewards, terminations, truncations, infos, finals, last

    def _has_ended(self, flagged: set[str]) -> bool:
        return not len(self._source.agents)

    def _there(self) -> set[str]:
        return self.alive | self._listed()

    def _listed(self) -> set[str]:
        """Return who is listed and has not ended."""
        ends, limits = self._source.terminations, self._source.truncations
        return {a for a in self._source.agents if not (ends.get(a) or limits.get(a))}

    def _back_at_once(self, flagged: set[str], observations: ByAgent) -> set[str]:
        # Who had ended has been removed: whoever is listed without a flag has come back.
        return flagged & self._listed() if flagged else flagged


def _mask_only(info: ByAgent | None) -> ByAgent:
    return {k: v for k, v in (info or {}).items() if k == "action_mask"}
