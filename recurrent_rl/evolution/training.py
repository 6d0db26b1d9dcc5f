"""Training functions: a population collects, learns, is tested, selected and mutated.

A run is a sequence of generations. Its state changes at two points only: when an individual has
finished its part of a generation, and when the next generation is ready. Only states between these
points are saved, and individuals start each generation from a reset. So a run that goes on from a
checkpoint gives the results that it would have given without the interruption.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.scoring import Fitness, warn_of_constant_sum
from recurrent_rl.evolution.member import Plan
from recurrent_rl.evolution.mutation import Mutations
from recurrent_rl.evolution.process_pool import Job, Pool, pool_opener
from recurrent_rl.evolution.run_keys import check_agreement, check_run_keys
from recurrent_rl.evolution.run_log import RunLog
from recurrent_rl.evolution.run_settings import (
    SavingSettings,
    Schedule,
    check_environment,
    check_population,
    check_scoring,
    check_steps,
)
from recurrent_rl.evolution.run_state import RunSaver, RunState, load_state
from recurrent_rl.evolution.tournament import TournamentSelection, fitness_of
from recurrent_rl.randomness import derived_seed, peek
from recurrent_rl.validation import checked, checked_path

FilePath = str | os.PathLike[str]


def train_on_policy(
    env: Any,
    env_name: str,
    algo: str,
    pop: Sequence[Any],
    INIT_HP: Mapping[str, Any] | None = None,  # noqa: N803 - what users know it as
    MUT_P: Mapping[str, Any] | None = None,  # noqa: N803
    max_steps: int = 1_000_000,
    evo_steps: int = 10_000,
    eval_steps: int | None = None,
    eval_loop: int = 1,
    target: float | None = None,
    tournament: TournamentSelection | None = None,
    mutation: Mutations | None = None,
    checkpoint: int | None = None,
    checkpoint_path: FilePath | None = None,
    save_elite: bool = False,
    elite_path: FilePath | None = None,
    wb: bool = False,
    verbose: bool = True,
    *,
    log_dir: FilePath | None = None,
    resume: FilePath | None = None,
    workers: int = 1,
    make_env: Callable[[], Any] | None = None,
    threads: int = 1,
    wandb_kwargs: Mapping[str, Any] | None = None,
    fitness: Fitness = None,
    opponents: Literal["random"] | None = None,
) -> tuple[list[Any], list[list[float]]]:
    """Train a population: collect, learn, test, select, mutate, until ``max_steps`` or ``target``.

    ``train_multi_agent_on_policy`` is the same function, for IPPO. Each individual starts each
    generation from a reset of the environment, and all are tested on the same episodes.

    Source: Jaderberg et al. 2017, "Population Based Training of Neural Networks", with tournaments
    and architecture mutations as in Franke et al. 2021, "Sample-Efficient Automated Deep
    Reinforcement Learning".

    Args:
        env: the vector environment to train and test on; left open.
        env_name: the environment's name in logs.
        algo: "PPO" or "IPPO", the agents' algorithm.
        pop: from ``create_population``. Without a tournament these agents themselves are trained;
            with one, their descendants.
        INIT_HP: kept with the logs; where it has "MAX_STEPS", "EVO_STEPS", "EVAL_STEPS",
            "EVAL_LOOP", "TARGET_SCORE", "POP_SIZE", "NUM_ENVS", "TOURN_SIZE", "ELITISM", "ENV_NAME"
            or "WANDB", these must be those given here.
        MUT_P: kept with the logs.
        max_steps: environment steps that each individual, ancestors included, is trained for.
        evo_steps: environment steps of an individual between two evaluations: there is one after
            the rollout in which another ``evo_steps`` are reached.
        eval_steps: most steps of a test episode; None plays it to its end.
        eval_loop: test episodes in each environment of the vector.
        target: stop once the best individual's fitness has reached this.
        tournament: selects the next generation; None keeps every individual.
        mutation: changes the individuals that were selected; needs a tournament.
        checkpoint: save the run every so many steps of an individual; None saves it after each
            generation, if there is a ``checkpoint_path``.
        checkpoint_path: file of the saved run; each checkpoint replaces the last, atomically.
        save_elite: save the best individual of each generation, as it was evaluated; it replaces
            the last generation's.
        elite_path: file of the best individual; None is "{env_name}-elite_{algo}.pt", with
            "-" for "/".
        wb: log to Weights & Biases as well (extra: wandb).
        verbose: show progress and a table of each generation.
        log_dir: directory for metrics.csv, population.csv, config.json and TensorBoard events; None
            writes none.
        resume: a checkpoint of the same run to go on from; its population takes the place of
            ``pop``, and the logs are continued.
        workers: processes that train individuals at the same time; the results are those of one.
            Scripts need the guard ``if __name__ == "__main__":`` then.
        make_env: builds each worker's vector environment; None builds it like ``env``, which must
            then be from ``make_vect_envs`` or ``make_multi_agent_vect_envs``.
        threads: torch's threads, for each individual.
        wandb_kwargs: options of ``wandb.init``.
        fitness: for IPPO, names of the agents whose returns are summed; None sums all, which says
            nothing where one wins what another loses; or a function of the returns, a dictionary of
            arrays [episodes] by agent.
        opponents: for IPPO, "random" tests against agents that act uniformly at random: all but
            those named in fitness; or else each agent plays its seat in turn.

    Returns:
        population: as last evaluated; after Ctrl-C, as far as each individual had come. A vector
            of environments in processes does not survive Ctrl-C; build it anew.
        fitnesses: the individuals' fitness in each generation, in the population's order.

    Raises:
        ImportError: ``wb`` without wandb.
        TypeError, ValueError: arguments that do not fit together.
        FileNotFoundError: nothing to resume from, or a directory that does not exist.
        CheckpointError: a checkpoint of something else.
        RuntimeError: a worker failed; with its traceback.

    """
    schedule = Schedule(max_steps, evo_steps, eval_steps, eval_loop, target)
    population = check_population(algo, pop, tournament, mutation)
    check_environment(env, population)
    schedule.check_step_sizes(population)
    flags = {"save_elite": save_elite, "wb": wb, "verbose": verbose}
    save_elite, wb, verbose = (checked(name, flag, bool) for name, flag in flags.items())
    env_name = checked("env_name", env_name, str)
    saving = _saving(
        checkpoint, checkpoint_path, save_elite, elite_path, f"{env_name}-elite_{algo}"
    )
    log_dir = None if log_dir is None else checked_path("log_dir", log_dir)
    if resume is None:
        check_steps(schedule, population)
    else:
        resume = checked_path("resume", resume)
    _check_init_hp(
        {} if INIT_HP is None else INIT_HP,
        tournament,
        {
            "ALGO": ("algo", algo),
            "ENV_NAME": ("env_name", env_name),
            "NUM_ENVS": ("env.num_envs", env.num_envs),
            "POP_SIZE": ("the size of pop", len(population)),
            "TARGET_SCORE": ("target", schedule.target),
            "WANDB": ("wb", wb),
            **{
                name.upper(): (name, getattr(schedule, name))
                for name in ("max_steps", "evo_steps", "eval_steps", "eval_loop")
            },
        },
    )
    if wandb_kwargs is not None and not wb:
        raise ValueError("wandb_kwargs: expected None, as wb=False; pass wb=True")
    open_pool = pool_opener(env, make_env, workers, threads, len(population))
    scoring = check_scoring(population, fitness, opponents)
    run = TrainingRun(schedule, RunSaver(saving), population, tournament, mutation, scoring)
    if resume is not None:
        run.resume(resume)
    settings = {"env_name": env_name, "algo": algo, **asdict(schedule), **asdict(saving)}
    log = RunLog(
        len(population) * schedule.max_steps,
        verbose=verbose,
        directory=log_dir,
        config={"settings": settings, "INIT_HP": INIT_HP, "MUT_P": MUT_P},
        wandb_kwargs={"name": env_name, **(wandb_kwargs or {})} if wb else None,
        resume_at=None if resume is None else run.state.logged,
    )
    with contextlib.closing(log):
        return run.train_all(open_pool, log), run.state.fitnesses


def _saving(
    checkpoint: int | None,
    checkpoint_path: FilePath | None,
    save_elite: bool,
    elite_path: FilePath | None,
    elite_name: str,
) -> SavingSettings:
    """Return the settings for saving; the elite's default name is no path, whatever is in it."""
    path = None if checkpoint_path is None else checked_path("checkpoint_path", checkpoint_path)
    elite = None if elite_path is None else checked_path("elite_path", elite_path)
    if elite is not None and not save_elite:
        raise ValueError(
            f"elite_path: expected None, as save_elite=False, got {elite}; pass save_elite=True"
        )
    if save_elite and elite is None:
        elite = Path(elite_name.replace("/", "-") + ".pt")
    return SavingSettings(checkpoint, path, elite)


def _check_init_hp(
    init_hp: Mapping[str, Any],
    tournament: TournamentSelection | None,
    given: dict[str, tuple[str, Any]],
) -> None:
    """Check that INIT_HP says what the training function will do."""
    check_run_keys(given["ALGO"][1], init_hp)
    if tournament is not None:
        given = {
            **given,
            "TOURN_SIZE": ("tournament.tournament_size", tournament.tournament_size),
            "ELITISM": ("tournament.elitism", tournament.elitism),
        }
    check_agreement(init_hp, given)
    idle = [key for key in ("TOURN_SIZE", "ELITISM") if key in init_hp and tournament is None]
    if idle:
        warnings.warn(
            f"INIT_HP: {' and '.join(idle)} have no effect, as tournament is None; pass "
            f"tournament=TournamentSelection(...), or leave them out",
            stacklevel=3,
        )


# One function serves both: what differs between PPO and IPPO, the agents know.
train_multi_agent_on_policy = train_on_policy


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
    ) -> None:
        """Begin with a population."""
        self._scoring = dict(scoring)
        self._constant = False  # the sum of all agents' returns is, and that was said
        self.schedule, self.saver = schedule, saver
        self.tournament, self.mutation = tournament, mutation
        self._given = list(population)
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
            **self._random_states(),
        )

    def _random_states(self) -> dict[str, Any]:
        return {
            name: None if part is None else part.state_dict()
            for name, part in (("tournament", self.tournament), ("mutation", self.mutation))
        }

    def resume(self, path: FilePath) -> None:
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
        return self._given if self.tournament is None else self.state.population

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
        for place, agent, report in pool.run(self._jobs(), log.progress):
            state = self.state
            self.state = replace(
                state,
                population=_replaced_at(state.population, place, agent),
                reports=_replaced_at(state.reports, place, report),
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
                agent.custom_networks(),
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
                f"train_on_policy: expected at least one individual that can be trained, all "
                f"failed: {reports[0].failed}"
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
        if best is not None:
            self.saver.save_elite(best)
        latest = [agent.fitness[-1] for agent in self.state.population]
        state = replace(self.state, fitnesses=[*self.state.fitnesses, latest], finished=over)
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
