"""What test episodes are worth: the fitness that a population is selected by.

It is the mean return, of several agents the sum, unless somebody says otherwise. Where one wins
what another loses, the sum of all is the same whatever they can, so that selecting by it is
selecting at random.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from recurrent_rl.envs.final_infos import mean_of_known
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import shown, unknown_name

Returns = Mapping[str, Array]  # by agent, [episodes]
Infos = Mapping[str, Array]  # numbers of the last infos, by name, [episodes]
# Of returns, of several agents by agent; and, by the name ``infos``, of infos.
FitnessFunction = Callable[..., float]
Fitness = Sequence[str] | FitnessFunction | None


@dataclass(frozen=True)
class Scoring:
    """How agents are tested, and what comes of it.

    Attributes:
        fitness: names of the agents whose returns are summed; None sums all; or a function of the
            returns by agent, arrays [episodes], which may have a second parameter ``infos``, the
            numbers of the episodes' last infos; or the name of one of these, whose mean it is.
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
        names = self.named(agent_ids)
        if isinstance(self.fitness, str) and self.fitness:
            return  # an agent, or a number in infos
        for name in names:
            if name not in agent_ids:
                known = unknown_name("fitness", name, list(agent_ids))
                raise ValueError(known.replace("option", "agent"))
        if not names or len(set(names)) < len(names):
            raise ValueError(f"fitness: expected different agents, at least one, got {names}")

    def named(self, agent_ids: Collection[str]) -> list[str]:
        """Return the agents whose returns count; none where that is not said by name."""
        if self.fitness is None or callable(self.fitness):
            return []
        if isinstance(self.fitness, str):
            return [self.fitness] if self.fitness in agent_ids else []
        return list(self.fitness)

    def sides(self, agent_ids: Sequence[str]) -> list[list[str]]:
        """Return who plays by its policy, in each of the matches that are to be played."""
        if self.opponents is None:
            return [list(agent_ids)]
        named = self.named(agent_ids)
        return [named] if named else [[agent] for agent in agent_ids]

    def value(self, returns: Returns, infos: Infos, *, whole: bool) -> float:
        """Return the fitness.

        Args:
            returns: by agent, [episodes].
            infos: by name, [episodes].
            whole: all episodes were played to their end.

        Raises:
            TypeError: the function gives no number.
            ValueError: no info has a number of that name.

        """
        if callable(self.fitness):
            return _called(self.fitness, returns, infos)
        named = self.named(returns)
        if isinstance(self.fitness, str) and not named:
            return _mean_info(self.fitness, infos, whole, list(returns))
        if not named and self.opponents is None and _constant(returns):
            warn_of_constant_sum()
        return float(sum(returns[name].mean() for name in named or returns))


def check_alone(fitness: Any) -> None:
    """Raise ValueError if it cannot be the fitness of an agent that plays alone."""
    if fitness is None or callable(fitness) or (isinstance(fitness, str) and fitness):
        return
    raise ValueError(
        f"fitness: expected None, as one agent plays alone, or the name of a number in the "
        f"episodes' last infos, such as 'is_success', or a function of the returns, got "
        f"{shown(fitness)}"
    )


def value_alone(
    fitness: str | FitnessFunction | None, returns: Array, infos: Infos, *, whole: bool
) -> float:
    """Return the fitness of an agent that plays alone.

    Args:
        fitness: None: the mean return; or the name of a number in infos, whose mean it is; or a
            function of the returns, which may have a second parameter ``infos``.
        returns: [episodes].
        infos: by name, [episodes].
        whole: all episodes were played to their end.

    Raises:
        TypeError: the function gives no number.
        ValueError: no info has a number of that name.

    """
    if fitness is None:
        return float(returns.mean())
    if callable(fitness):
        return _called(fitness, returns, infos)
    return _mean_info(fitness, infos, whole)


def _called(function: FitnessFunction, returns: Any, infos: Infos) -> float:
    given: Any = function(returns, infos=infos) if _takes_infos(function) else function(returns)
    try:
        return float(given)
    except (TypeError, ValueError):
        raise TypeError(
            f"fitness: expected the function to return a number, got {shown(given)}"
        ) from None


def _takes_infos(function: FitnessFunction) -> bool:
    try:
        return "infos" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some that are built into Python say nothing of themselves
        return False


def _mean_info(name: str, infos: Infos, whole: bool, agents: Sequence[str] = ()) -> float:
    """Return the mean of a number in infos; NaN if no episode has come as far as to have any."""
    if name not in infos:
        if not infos and not whole:
            return math.nan
        known = f"one of the agents {list(agents)}, or of " if agents else "one of "
        raise ValueError(
            f"fitness: expected {known}the numbers that the last infos of the test episodes have, "
            f"{sorted(infos)}, got {name!r}; what only some episodes say is for a function of "
            f"(returns, infos)"
        )
    return mean_of_known(infos[name])


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
