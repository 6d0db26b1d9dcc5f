"""Rows of a turn-based (AEC) PettingZoo environment."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recurrent_rl.envs.env_rows import ByAgent, EnvRows
from recurrent_rl.envs.final_infos import numbers_of


class TurnRows(EnvRows):
    """A turn-based (AEC) environment: one agent acts in each step, the others see nothing.

    What an agent earns is what ``last()`` says at its turns. ``env.rewards`` says the same step by
    step in most environments; where it does not, the difference goes to the latest step.
    """

    def _turn(self, rewards: dict[str, Any]) -> tuple[ByAgent, ByAgent]:
        """Return the observation and the info of the agent whose turn it is.

        Args:
            rewards: of the step before; set right in place.

        """
        if not len(self.env.agents):
            return {}, {}
        agent = self.env.agent_selection
        if agent not in self.env.infos:
            return {agent: self.env.observe(agent)}, {}
        observation, reward, _, _, info = self.env.last()
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
            if not isinstance(getattr(self.env, name, None), Mapping):
                raise ValueError(
                    f"environment {self.index}: expected reset() to fill self.{name}, a dictionary "
                    f"by agent, as PettingZoo asks for since version 1.23"
                )
        self._heard: dict[str, Any] = {}
        observations, infos = self._turn({})
        return observations, {**{a: _mask_only(i) for a, i in self.env.infos.items()}, **infos}

    def _step(self) -> tuple[ByAgent, ...]:
        env = self.env
        self._heard[env.agent_selection] = 0
        env.step(self._action(env.agent_selection))
        # Copies, as all of these change when agents that have ended are removed.
        rewards, terminations, truncations = (
            dict(x) for x in (env.rewards, env.terminations, env.truncations)
        )
        for agent, reward in rewards.items():
            self._heard[agent] = self._heard.get(agent, 0) + reward
        finals = {a: env.observe(a) for a in self.alive if truncations.get(a)}
        last: ByAgent = {}
        if any(terminations.values()) or any(truncations.values()) or not len(env.agents):
            last = {a: numbers_of(info) for a, info in env.infos.items()}
        for _ in range(len(env.agents)):
            if not len(env.agents):
                break
            agent = env.agent_selection
            if not (env.terminations[agent] or env.truncations[agent]):
                break
            if agent in env.infos:
                self._settle(agent, env.last(observe=False)[1], rewards)
            env.step(None)  # PettingZoo's way of removing an agent that has ended
            self._heard.pop(agent, None)
        observations, infos = self._turn(rewards)
        return observations, rewards, terminations, truncations, infos, finals, last

    def _has_ended(self, flagged: set[str]) -> bool:
        return not len(self.env.agents)

    def _there(self) -> set[str]:
        return self.alive | self._listed()

    def _listed(self) -> set[str]:
        """Return who is listed and has not ended."""
        ends, limits = self.env.terminations, self.env.truncations
        return {a for a in self.env.agents if not (ends.get(a) or limits.get(a))}

    def _back_at_once(self, flagged: set[str], observations: ByAgent) -> set[str]:
        # Who had ended has been removed: whoever is listed without a flag has come back.
        return flagged & self._listed() if flagged else flagged


def _mask_only(info: ByAgent | None) -> ByAgent:
    return {k: v for k, v in (info or {}).items() if k == "action_mask"}
