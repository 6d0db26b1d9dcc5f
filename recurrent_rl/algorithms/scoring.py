"""What several agents' returns are worth: the fitness that a population is selected by.

Where one wins what another loses, the sum of all is the same whatever they can, so that selecting
by it is selecting at random.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import shown, unknown_name

Returns = Mapping[str, Array]  # by agent, [episodes]
Fitness = Sequence[str] | Callable[[Returns], float] | None


@dataclass(frozen=True)
class Scoring:
    """How agents are tested, and what comes of it.

    Attributes:
        fitness: names of the agents whose returns are summed; None sums all; or a function of the
            returns by agent, arrays [episodes].
        opponents: None lets all agents play by their policies. "random" lets others act uniformly
            at random: all but those named in fitness; or else each agent plays its seat in turn,
            alone among random ones.

    """

    fitness: Fitness = None
    opponents: Literal["random"] | None = None

    def check(self, agent_ids: Sequence[str]) -> None:
        """Check that it makes sense for some agents.

        Raises:
            TypeError: a value of the wrong type.
            ValueError: an unknown agent or opponent.

        """
        if self.opponents is not None and self.opponents != "random":
            raise ValueError(f"opponents: expected 'random' or None, got {shown(self.opponents)}")
        if self.fitness is None or callable(self.fitness):
            return
        if not isinstance(self.fitness, Sequence) or isinstance(self.fitness, bytes):
            raise TypeError(
                f"fitness: expected names of agents, a function of their returns, or None, got "
                f"{shown(self.fitness)}"
            )
        names = self.named
        for name in names:
            if name not in agent_ids:
                known = unknown_name("fitness", name, list(agent_ids))
                raise ValueError(known.replace("option", "agent"))
        if not names or len(set(names)) < len(names):
            raise ValueError(f"fitness: expected different agents, at least one, got {names}")

    @property
    def named(self) -> list[str]:
        """The agents whose returns count; none where that is not said by name."""
        if self.fitness is None or callable(self.fitness):
            return []
        return [self.fitness] if isinstance(self.fitness, str) else list(self.fitness)

    def sides(self, agent_ids: Sequence[str]) -> list[list[str]]:
        """Return who plays by its policy, in each of the matches that are to be played."""
        if self.opponents is None:
            return [list(agent_ids)]
        return [self.named] if self.named else [[agent] for agent in agent_ids]

    def value(self, returns: Returns) -> float:
        """Return the fitness.

        Args:
            returns: by agent, [episodes].

        Raises:
            TypeError: the function gives no number.

        """
        if callable(self.fitness):
            given: Any = self.fitness(returns)
            try:
                return float(given)
            except (TypeError, ValueError):
                raise TypeError(
                    f"fitness: expected the function to return a number, got {shown(given)}"
                ) from None
        names = self.named or list(returns)
        if not self.named and self.opponents is None and _constant(returns):
            warn_of_constant_sum()
        return float(sum(returns[name].mean() for name in names))


def warn_of_constant_sum() -> None:
    """Warn that the sum of all agents' returns is no fitness."""
    warnings.warn(
        "fitness: the returns of all agents add up to the same in every episode, as in games that "
        "one wins and another loses, so that their sum says nothing of how well they play; name "
        "the agents whose returns count with fitness=[...], or let them play against random "
        "opponents with opponents='random'",
        stacklevel=4,
    )


def _constant(returns: Returns) -> bool:
    return is_constant_sum(np.sum(list(returns.values()), axis=0), returns)


def is_constant_sum(totals: Array, returns: Returns, least: int = 16) -> bool:
    """Whether agents win what others lose.

    Args:
        totals: of all agents, [episodes].
        returns: by agent, [episodes], in any order.
        least: episodes that it takes to tell, as a few may add up to the same by chance.

    """
    if len(returns) < 2 or len(totals) < least or any(len(own) < 2 for own in returns.values()):
        return False
    allowed = 1e-6 * max(np.abs(own).max() for own in returns.values())
    varies = max(np.ptp(own) for own in returns.values()) > allowed
    return bool(varies and np.ptp(totals) <= allowed)
