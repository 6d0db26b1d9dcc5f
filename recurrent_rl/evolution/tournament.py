"""Tournament selection: which individuals of a population are the parents of the next one."""

import math
import warnings
from collections.abc import Sequence
from typing import Annotated, TypeVar

import numpy as np
import torch

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.randomness import RandomStream
from recurrent_rl.validation import COUNT, SEED, checked

AnyAgent = TypeVar("AnyAgent", bound=Agent)


class TournamentSelection(RandomStream):
    """Choose parents by tournaments between individuals drawn at random.

    Source: Goldberg and Deb 1991, "A Comparative Analysis of Selection Schemes Used in Genetic
    Algorithms".

    Attributes:
        generator: of its random draws.
        tournament_size: individuals that compete for each place.
        elitism: whether the best individual goes on as it is.
        population_size: size of the next generation.
        eval_loop: number of latest evaluations whose mean is the fitness; an individual's own only.

    """

    def __init__(
        self,
        tournament_size: int,
        elitism: bool,
        population_size: int,
        eval_loop: int = 1,
        *,
        rand_seed: int | None = None,
    ) -> None:
        """Set how to select.

        Args:
            tournament_size: individuals that compete for each place, in [1, size of population];
                the more there are, the rarer are weak individuals among the parents.
            elitism: the best individual goes on as it is.
            population_size: size of the next generation, at least 1.
            eval_loop: fitness is the mean of this many latest evaluations, at least 1. Those of
                its ancestors do not count: of an individual that was tested once since its birth
                it is that one result.
            rand_seed: None takes fresh entropy.

        Raises:
            TypeError: a value of the wrong type.
            ValueError: a number out of range.

        """
        count = Annotated[int, COUNT]
        self.tournament_size: int = checked("tournament_size", tournament_size, count)
        self.elitism: bool = checked("elitism", elitism, bool)
        self.population_size: int = checked("population_size", population_size, count)
        self.eval_loop: int = checked("eval_loop", eval_loop, count)
        super().__init__(checked("rand_seed", rand_seed, Annotated[int | None, SEED]))

    def fitness(self, agent: Agent) -> float:
        """Return the mean of an individual's latest evaluations; see ``fitness_of``."""
        return fitness_of(agent, self.eval_loop)

    def select(self, population: Sequence[AnyAgent]) -> tuple[AnyAgent, list[AnyAgent]]:
        """Return the fittest individual and the next generation.

        The next generation consists of copies, so what happens to it does not change the present
        one. Each copy has an index, a random stream and a birth of its own, except the elite's.

        Args:
            population: evaluated; left as it is.

        Returns:
            elite: the fittest individual itself, not a copy.
            population: the next generation; the elite's copy comes first, if there is elitism.

        Raises:
            ValueError: fewer individuals than a tournament needs, one that was not evaluated, or
                none whose fitness is a number.

        """
        if len(population) < self.tournament_size:
            raise ValueError(
                f"select: expected at least {self.tournament_size} individuals for a tournament, "
                f"got {len(population)}"
            )
        fitness = [self.fitness(agent) for agent in population]
        if max(fitness) == -math.inf:
            raise ValueError(
                f"select: expected an individual whose fitness is a number, got "
                f"{[agent.own_fitness for agent in population]}; look for what gives NaN in the "
                f"environment's rewards, or lower the learning rates"
            )
        elite = population[int(np.argmax(fitness))]
        chosen: list[AnyAgent] = []
        if self.elitism:
            chosen.append(elite.clone())
            chosen[0].individual.elite = True
        number = max(birth.index for agent in population for birth in agent.lineage)
        while len(chosen) < self.population_size:
            drawn = torch.randperm(len(population), generator=self.generator)
            best = max(drawn[: self.tournament_size].tolist(), key=lambda i: fitness[i])
            number += 1
            chosen.append(population[best].offspring(number))
        return elite, chosen


def fitness_of(agent: Agent, latest: int = 1) -> float:
    """Return the mean of the latest of an individual's own evaluations.

    What is not a number ranks last, as minus infinity: NaN and infinity with a warning, minus
    infinity without, as that stands for a training that failed.

    Args:
        agent: the individual.
        latest: how many evaluations, at most: those of its ancestors do not count.

    Raises:
        ValueError: it has not been evaluated since its birth.

    """
    own = agent.own_fitness[-latest:]
    if not own:
        raise ValueError(
            f"select: expected evaluated agents, got individual {agent.index} without any fitness "
            f"of its own; call agent.test(env) first"
        )
    mean = float(np.mean(own))
    if math.isfinite(mean):
        return mean
    if not all(math.isfinite(value) or value == -math.inf for value in own):
        warnings.warn(
            f"fitness: expected a number, got {own} of individual {agent.index}; it ranks last, "
            f"and is not saved as the best",
            stacklevel=2,
        )
    return -math.inf
