"""Tournament selection: which individuals of a population are the parents of the next one."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.randomness import RandomStream

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
        eval_loop: number of latest evaluations whose mean is the fitness.

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
            eval_loop: fitness is the mean of this many latest evaluations, at least 1.
            rand_seed: None takes fresh entropy.

        Raises:
            ValueError: a number out of range.

        """
        for name, value in (
            ("tournament_size", tournament_size),
            ("population_size", population_size),
            ("eval_loop", eval_loop),
        ):
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        self.tournament_size, self.elitism = tournament_size, elitism
        self.population_size, self.eval_loop = population_size, eval_loop
        super().__init__(rand_seed)

    def fitness(self, agent: Agent) -> float:
        """Return the mean of the latest evaluations; minus infinity if that is not a number.

        Raises:
            ValueError: it has not been evaluated.

        """
        if not agent.fitness:
            raise ValueError(
                f"select: expected evaluated agents, got individual {agent.index} without any "
                f"fitness; call agent.test(env) first"
            )
        mean = float(np.mean(agent.fitness[-self.eval_loop :]))
        return -np.inf if np.isnan(mean) else mean

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
            ValueError: fewer individuals than a tournament needs, or one that was not evaluated.

        """
        if len(population) < self.tournament_size:
            raise ValueError(
                f"select: expected at least {self.tournament_size} individuals for a tournament, "
                f"got {len(population)}"
            )
        fitness = [self.fitness(agent) for agent in population]
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
