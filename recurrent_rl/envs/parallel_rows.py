"""Rows of a parallel PettingZoo environment."""

from collections.abc import Mapping, Sequence
from typing import Any

from recurrent_rl.envs.env_rows import ByAgent, EnvRows

ALL = "__all__"  # a name under which some environments end the episode for everybody
RESULTS = ("observations", "rewards", "terminations", "truncations", "infos")


class ParallelRows(EnvRows):
    """A parallel environment: all agents act in every step."""

    def _reset(self, seed: int | None, options: Any) -> tuple[ByAgent, ByAgent]:
        result = self.env.reset(seed=seed, options=options)
        self._check("reset", result, (RESULTS[0], RESULTS[-1]))
        return result[0], result[1]

    def _step(self) -> tuple[ByAgent, ...]:
        # PettingZoo expects an action for each agent that is listed, even for one without an
        # observation, whose action means nothing.
        result = self.env.step({agent: self._action(agent) for agent in self.env.agents})
        self._check("step", result, RESULTS)
        observations, rewards, terminations, truncations, infos = result
        if (ALL in terminations or ALL in truncations) and ALL not in self.table.place:
            terminations, truncations = self._for_all(terminations, truncations)
        return observations, rewards, terminations, truncations, infos, observations, infos

    def _check(self, call: str, result: Any, names: Sequence[str]) -> None:
        """Check what reset or step returned."""
        if type(result) is tuple and len(result) == len(names) and {*map(type, result)} == {dict}:
            return
        count = len(result) if isinstance(result, tuple | list) else None
        if count != len(names):
            got = type(result).__name__ if count is None else f"{count} values"
            raise ValueError(
                f"environment {self.index}: expected {call}() to return {', '.join(names)}, got "
                f"{got}; PettingZoo has returned {len(names)} since version 1.23: bring the "
                f"environment up to date, or wrap it"
            )
        for name, part in zip(names, result, strict=True):
            if type(part) is not dict and not isinstance(part, Mapping):
                raise TypeError(
                    f"environment {self.index}: expected the {name} that {call}() returns to be a "
                    f"dictionary by agent, got {part!r}"
                )

    def _for_all(self, terminations: ByAgent, truncations: ByAgent) -> tuple[ByAgent, ByAgent]:
        """Give the flag under ``ALL`` to everybody who is there without a flag."""
        flags = dict(terminations), dict(truncations)
        for mine, other in (flags, flags[::-1]):
            if mine.pop(ALL, False):
                mine |= {agent: True for agent in self._there() if not other.get(agent)}
        return flags

    def _has_ended(self, flagged: set[str]) -> bool:
        # Many environments list agents that have ended until all have.
        return flagged.issuperset(self.env.agents)

    def _there(self) -> set[str]:
        return self.alive.union(self.env.agents) - self._left

    def _back_at_once(self, flagged: set[str], observations: ByAgent) -> set[str]:
        if not flagged:
            return flagged
        back = flagged & self.alive & set(self.env.agents)
        return {agent for agent in back if observations.get(agent) is not None}

    def _doubted(self, back: set[str], infos: ByAgent, finals: ByAgent) -> tuple[set[str], ByAgent]:
        # What they are shown now belongs to their next life.
        return back, {**finals, **{a: _final_in(infos.get(a)) for a in back}} if back else finals


def _final_in(info: ByAgent | None) -> Any:
    """Return the last observation that an info has, or None."""
    info = info or {}
    return info.get("final_observation", info.get("final_obs"))
