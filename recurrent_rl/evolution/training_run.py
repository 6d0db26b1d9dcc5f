"""A training run: a population collects, learns, is tested, selected and mutated.

A run is a sequence of generations. Its state changes at two points only: when an individual has
finished its part of a generation, and when the next generation is ready. Only states between these
points are saved, and individuals start each generation from a reset. So a run that goes on from a
checkpoint gives the results that it would have given without the interruption.
"""

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.scoring import warn_of_constant_sum
from recurrent_rl.evolution.member import Plan
from recurrent_rl.evolution.mutation import Mutations
from recurrent_rl.evolution.pool import Job, Pool
from recurrent_rl.evolution.run_log import RunLog
from recurrent_rl.evolution.run_settings import Schedule
from recurrent_rl.evolution.run_state import RunSaver, RunState, load_state
from recurrent_rl.evolution.shared_memory import SharedMemory
from recurrent_rl.evolution.tournament import TournamentSelection, fitness_of
from recurrent_rl.randomness import derived_seed, peek


class AllFailedError(RuntimeError):
    """No individual of a generation could be trained."""


class TrainingRun:
    """A training run between its beginning and its end.

    Attributes:
        state: what the run would go on from; replaced as a whole when something is finished.
        schedule: how long individuals are trained and tested.
        saver: saves the state and the best individual.
        tournament: selects the next generation; None keeps every individual.
        mutation: changes the individuals that were selected; None changes none.

    """

    def __init__(
        self,
        schedule: Schedule,
        saver: RunSaver,
        population: list[Any],
        tournament: TournamentSelection | None,
        mutation: Mutations | None,
        scoring: Mapping[str, Any],
        memory: SharedMemory | None = None,
    ) -> None:
        """Begin with a population, and with the replay that it shares, if it has one."""
        self._scoring = dict(scoring)
        self._constant = False  # the sum of all agents' returns is, and that was said
        self.schedule, self.saver = schedule, saver
        self.tournament, self.mutation = tournament, mutation
        self._given, self._memory = list(population), memory
        self.state = RunState(
            population=population,
            generation=0,
            reports=[None] * len(population),
            fitnesses=[],
            # The agent's own random stream is to stay as it is.
            eval_seed=peek(population[0].groups[0].generator, 2**31),
            base=int(min(agent.env_steps for agent in population)),
            total_steps=0,
            before=0,
            saved_at=int(max(agent.env_steps for agent in population)),
            finished=False,
            memory=None if memory is None else memory.begin(),
            news=[None] * len(population),
            **self._random_states(),
        )

    def _random_states(self) -> dict[str, Any]:
        return {
            name: None if part is None else part.state_dict()
            for name, part in (("tournament", self.tournament), ("mutation", self.mutation))
        }

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: of something else, or of another kind of run.

        """
        state = load_state(path, self.state)
        if self.tournament is not None and state.tournament is not None:
            self.tournament.load_state_dict(state.tournament)
        if self.mutation is not None and state.mutation is not None:
            self.mutation.load_state_dict(state.mutation)
        if self._memory is not None and state.memory is not None:
            self._memory.check(state.memory, state.population)
        self.state = state
        if state.finished and not self._is_over():  # the new max_steps or target demands more
            self.state = self._next_generation(state)

    # --- training ---------------------------------------------------------------------------

    def train_all(self, open_pool: Callable[[], Pool], log: RunLog) -> list[Any]:
        """Train to the end, or until Ctrl-C.

        Args:
            open_pool: opens the pool that trains individuals.
            log: shows and writes the results; left open.

        Returns:
            the population: without a tournament the agents that were given, trained.

        """
        try:
            self._train_and_save(open_pool, log)
        finally:
            if self.tournament is None:
                for agent, trained in zip(self._given, self.state.population, strict=True):
                    agent.become(trained)
            self._give_memory()
        return self._given if self.tournament is None else self.state.population

    def _give_memory(self) -> None:
        """Let the user's replay, and that of all agents, be the run's."""
        memory = self.state.shared_memory()
        if self._memory is not None and memory is not None:
            self._memory.end(memory, [*self._given, *self.state.population])

    def _train_and_save(self, open_pool: Callable[[], Pool], log: RunLog) -> None:
        """Train; if Ctrl-C or an error ends it early, save what there is."""
        try:
            with contextlib.closing(open_pool()) as pool:
                self._train(pool, log)
        except KeyboardInterrupt:
            saved = self.saver.save_interrupted(self.state, self._best())
            log.write(f"Interrupted in generation {self.state.generation}. {saved}")
        except AllFailedError:
            raise  # an earlier checkpoint is worth more than this state
        except Exception as error:
            error.add_note(self.saver.save_interrupted(self.state, self._best()))
            raise

    def _train(self, pool: Pool, log: RunLog) -> None:
        log.begin(sum(agent.env_steps for agent in self.state.population))
        while not self.state.finished:
            self._train_generation(pool, log)
            log.generation(self.state, self._fitness)
            self._check_fitness()
            self._finish_generation()
            if self.saver.is_due(self.state):
                before = self.state
                self.state = replace(before, saved_at=before.steps)
                if not self.saver.save(self.state):
                    self.state = before  # so that it is due again after the next generation

    def _train_generation(self, pool: Pool, log: RunLog) -> None:
        """Train and test the individuals that have not yet finished their part of it."""
        for place, agent, report, news in pool.run(self._jobs(), log.progress, self.state.memory):
            state = self.state
            self.state = replace(
                state,
                population=_replaced_at(state.population, place, agent),
                reports=_replaced_at(state.reports, place, report),
                news=_replaced_at(state.news, place, news),
                total_steps=state.total_steps + report.steps,
            )

    def _check_fitness(self) -> None:
        """Warn if selection goes by a sum that is always the same, as training's returns show."""
        if self._constant or any(self._scoring.values()):
            return
        self._constant = any(r is not None and r.constant_sum for r in self.state.reports)
        if self._constant:
            warn_of_constant_sum()

    def _plan(self) -> Plan:
        state, schedule = self.state, self.schedule
        goal = state.base + (state.generation + 1) * schedule.evo_steps
        last_seed, eval_seed = (
            derived_seed(state.eval_seed, generation, bits=31)
            for generation in (max(state.generation - 1, 0), state.generation)
        )
        return Plan(
            goal=min(goal, schedule.max_steps),
            max_steps=schedule.max_steps,
            eval_steps=schedule.eval_steps,
            eval_loop=schedule.eval_loop,
            eval_seed=eval_seed,
            last_seed=last_seed,
            scoring=self._scoring,
            learning_delay=schedule.learning_delay,
        )

    def _jobs(self) -> list[Job]:
        state, plan = self.state, self._plan()
        jobs = [
            Job(
                i,
                type(agent),
                agent.to_checkpoint(),
                str(agent.device),
                plan,
                agent.custom_parts(),
            )
            for i, agent in enumerate(state.population)
            if state.reports[i] is None
        ]
        # The longest first, so that workers finish together.
        jobs.sort(key=lambda job: -_updates_per_step(state.population[job.place]))
        return jobs

    # --- from one generation to the next ----------------------------------------------------

    def _fitness(self, agent: Agent) -> float:
        if self.tournament is not None:
            return self.tournament.fitness(agent)
        return fitness_of(agent)

    def _best(self) -> Agent | None:
        """Return the best individual whose fitness is known and a number; None if there is none."""
        tested: list[Agent] = [agent for agent in self.state.population if agent.own_fitness]
        best = max(tested, key=self._fitness, default=None)
        return None if best is None or self._fitness(best) == -math.inf else best

    def _is_over(self) -> bool:
        """Whether the generation, in which all are tested, is the last one."""
        agents, reports = self.state.population, [r for r in self.state.reports if r is not None]
        if all(report.failed for report in reports):
            raise AllFailedError(
                f"pop: expected at least one individual that can be trained, all failed: "
                f"{reports[0].failed}"
            )
        target = self.schedule.target
        if target is not None and max(self._fitness(agent) for agent in agents) >= target:
            return True
        # Without selection an individual that failed will never reach max_steps.
        return all(
            agent.env_steps >= self.schedule.max_steps or report.failed
            for agent, report in zip(agents, reports, strict=True)
        )

    def _finish_generation(self) -> None:
        """Save the elite, and go on to the next generation unless this is the last."""
        over, best = self._is_over(), self._best()
        best_fitness = self.state.best
        if best is not None and best.fitness[-1] > best_fitness and self.saver.save_elite(best):
            best_fitness = float(best.fitness[-1])
        latest = [agent.fitness[-1] for agent in self.state.population]
        state = replace(
            self.state,
            fitnesses=[*self.state.fitnesses, latest],
            finished=over,
            best=best_fitness,
            memory=self.state.shared_memory(),
            news=[None] * len(latest),
        )
        self.state = state if over else self._next_generation(state)

    def _next_generation(self, state: RunState) -> RunState:
        """Return the state at the beginning of the generation that follows ``state``'s."""
        if self.tournament is None:
            # Copies, as the present state is not to change before it is replaced.
            population = [agent.clone() for agent in state.population]
        else:
            _, population = self.tournament.select(state.population)
            if self.mutation is not None:
                population = self.mutation.mutation(population)
        for agent in population:
            agent.steps.append(agent.env_steps)
        return replace(
            state,
            population=population,
            generation=state.generation + 1,
            before=state.total_steps,
            reports=[None] * len(population),
            finished=False,
            **self._random_states(),
        )


def _updates_per_step(agent: Agent) -> float:
    """Return the gradient steps for each environment step; they take most of the time."""
    return sum(trainer.config.update_ratio for trainer in agent.trainers.values())


def _replaced_at(items: list[Any], place: int, item: Any) -> list[Any]:
    """Return a copy of a list with another item in one place."""
    return [*items[:place], item, *items[place + 1 :]]
