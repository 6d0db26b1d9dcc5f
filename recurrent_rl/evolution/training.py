"""Training functions: a population collects, learns, is tested, selected and mutated.

A run is a chain of generations. Its state changes at few, whole points: when an individual has
finished its part of a generation, and when the next generation is ready. Only such states are ever
saved, and individuals start each generation from a reset. So a run that goes on from a checkpoint
does what it would have done had it never stopped.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from recurrent_rl import checkpoint as files
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.evolution.member import Plan, Report
from recurrent_rl.evolution.mutation import Mutations
from recurrent_rl.evolution.population import ALGORITHMS, population_from_data
from recurrent_rl.evolution.process_pool import Job, Pool, ProcessPool, SerialPool, builder_of
from recurrent_rl.evolution.run_log import RunLog
from recurrent_rl.evolution.tournament import TournamentSelection
from recurrent_rl.randomness import derived_seed, peek

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
) -> tuple[list[Any], list[list[float]]]:
    """Train a population: collect, learn, test, select, mutate, until ``max_steps`` or ``target``.

    ``train_multi_agent_on_policy`` is the same function, for IPPO. Each individual starts each
    generation from a reset of the environment, and all are tested on the same episodes.

    Source: Jaderberg et al. 2017, "Population Based Training of Neural Networks", with tournaments
    and architecture mutations as in Franke et al. 2021, "Sample-Efficient Automated Deep
    Reinforcement Learning".

    Args:
        env: the vector environment to train and test on; left open.
        env_name: for logs.
        algo: "PPO" or "IPPO", the agents' algorithm.
        pop: from ``create_population``. Without a tournament these agents themselves are trained;
            with one, their descendants.
        INIT_HP: kept with the logs; where it has "MAX_STEPS", "EVO_STEPS", "EVAL_STEPS" or
            "EVAL_LOOP", these must be those given here.
        MUT_P: likewise.
        max_steps: environment steps that each individual, ancestors included, is trained for.
        evo_steps: of these, between two evaluations: there is one after the rollout in which
            another ``evo_steps`` are reached.
        eval_steps: of a test episode; None plays to its end.
        eval_loop: test episodes in each environment of the vector.
        target: stop once the best individual's fitness has reached this.
        tournament: selects; None keeps every individual.
        mutation: changes those selected; needs a tournament.
        checkpoint: save the run every so many steps of an individual; None, if there is a path,
            after each generation.
        checkpoint_path: where to; each replaces the last, atomically.
        save_elite: save the best individual of each generation, as it was evaluated, in the place
            of the last generation's.
        elite_path: where to; None is "{env_name}-elite_{algo}.pt".
        wb: log to Weights & Biases as well (extra: wandb).
        verbose: show progress and a table of each generation.
        log_dir: write metrics.csv, population.csv, config.json and TensorBoard events there; None
            writes none.
        resume: a checkpoint of the same run; its population takes the place of ``pop``. Logs are
            continued from there.
        workers: processes that train individuals at the same time; the results are those of one.
            Scripts need the guard ``if __name__ == "__main__":`` then.
        make_env: builds each worker's vector environment; None builds it like ``env``, which must
            then be from ``make_vect_envs`` or ``make_multi_agent_vect_envs``.
        threads: torch's, for each individual.
        wandb_kwargs: for ``wandb.init``.

    Returns:
        population: as last evaluated; after Ctrl-C, as far as each individual had come. A vector
            of environments in processes does not survive Ctrl-C; build it anew.
        fitnesses: of each generation, in the population's order.

    Raises:
        ImportError: ``wb`` without wandb.
        TypeError, ValueError: arguments that do not fit together.
        FileNotFoundError: nothing to resume from, or a directory that does not exist.
        CheckpointError: a checkpoint of something else.
        RuntimeError: a worker failed; with its traceback.

    """
    settings = _Settings(
        env_name,
        algo,
        max_steps,
        evo_steps,
        eval_steps,
        eval_loop,
        target,
        checkpoint,
        None if checkpoint_path is None else Path(checkpoint_path),
        Path(elite_path or f"{env_name}-elite_{algo}.pt") if save_elite else None,
    )
    _check_agreement(settings, INIT_HP or {})
    population = _checked(settings, pop, tournament, mutation)
    if workers < 1 or threads < 1:
        raise ValueError(f"expected at least 1 of workers and threads, got {workers=}, {threads=}")
    run = _Run(settings, population, tournament, mutation)
    if resume is not None:
        run.resume(resume)
    build = builder_of(env) if workers > 1 and make_env is None else make_env
    count = min(workers, len(population))
    log = RunLog(
        len(population) * max_steps,
        verbose=verbose,
        directory=log_dir,
        config={"settings": asdict(settings), "INIT_HP": INIT_HP, "MUT_P": MUT_P},
        wandb_kwargs={"name": env_name, **(wandb_kwargs or {})} if wb else None,
        resume_at=None if resume is None else run.logged(),
    )

    def open_pool() -> Pool:
        if count > 1 and build is not None:
            return ProcessPool(build, env.num_envs, count, threads)
        return SerialPool(env, threads)

    try:
        with contextlib.closing(log):
            run.go(open_pool, log)
    finally:
        if tournament is None:
            for agent, trained in zip(pop, run.state.population, strict=True):
                agent.become(trained)
    return list(pop) if tournament is None else run.state.population, run.state.fitnesses


# One function serves both: what differs between PPO and IPPO, the agents know.
train_multi_agent_on_policy = train_on_policy


@dataclass(frozen=True)
class _Settings:
    env_name: str
    algo: str
    max_steps: int
    evo_steps: int
    eval_steps: int | None
    eval_loop: int
    target: float | None
    checkpoint: int | None
    checkpoint_path: Path | None
    elite_path: Path | None

    def __post_init__(self) -> None:
        for name in ("max_steps", "evo_steps", "eval_loop", "eval_steps", "checkpoint"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if self.checkpoint is not None and self.checkpoint_path is None:
            raise ValueError(
                f"checkpoint_path: expected a path, as checkpoint={self.checkpoint}, got None"
            )
        for name in ("checkpoint_path", "elite_path"):
            path = getattr(self, name)
            # Now rather than after an hour of training.
            if path is not None and not path.parent.is_dir():
                raise FileNotFoundError(
                    f"{name}: expected the directory {path.parent} to exist; create it first"
                )


class _AllFailedError(RuntimeError):
    """No individual of a generation could be trained."""


def _check_agreement(settings: _Settings, init_hp: Mapping[str, Any]) -> None:
    for name in ("max_steps", "evo_steps", "eval_steps", "eval_loop"):
        here = getattr(settings, name)
        there = init_hp.get(name.upper(), here)
        if there != here:
            raise ValueError(
                f"{name}: expected {there}, as INIT_HP[{name.upper()!r}] says, got {here}; pass "
                f"{name}=INIT_HP[{name.upper()!r}], or leave it out there"
            )


def _checked(
    settings: _Settings,
    pop: Sequence[Any],
    tournament: TournamentSelection | None,
    mutation: Mutations | None,
) -> list[Agent]:
    """Return the population, or say what does not fit together."""
    if settings.algo not in ALGORITHMS:
        raise ValueError(f"algo: expected one of {list(ALGORITHMS)}, got {settings.algo!r}")
    kind = ALGORITHMS[settings.algo]
    if not pop:
        raise ValueError("pop: expected at least one agent, got none")
    for agent in pop:
        if not isinstance(agent, kind):
            raise TypeError(
                f"pop: expected {settings.algo} agents, as algo says, got {type(agent).__name__}"
            )
    numbers = [agent.index for agent in pop]
    if tournament is not None and len(set(numbers)) < len(numbers):
        raise ValueError(
            f"pop: expected individuals with different numbers, got {numbers}; build them with "
            f"create_population"
        )
    if mutation is not None and tournament is None:
        raise ValueError("tournament: expected one, as mutations without selection are noise")
    if tournament is not None and tournament.population_size != len(pop):
        raise ValueError(
            f"tournament: expected the population_size {len(pop)} of pop, got "
            f"{tournament.population_size}"
        )
    return list(pop)


@dataclass(frozen=True)
class _State:
    """What a run continues from.

    Attributes:
        population: the individuals.
        generation: which they are in, from 0.
        reports: of those that have finished their part of it; None for the others.
        fitnesses: of the generations that are over.
        eval_seed: test episodes follow from this and the generation's number.
        base: the individuals' steps when the run began.
        total_steps: of all individuals that ever were.
        before: the same, when the generation began.
        saved_at: an individual's steps when a checkpoint was last due.
        tournament: its random state.
        mutation: likewise.
        finished: nothing is left to do.

    """

    population: list[Any]
    generation: int
    reports: list[Report | None]
    fitnesses: list[list[float]]
    eval_seed: int
    base: int
    total_steps: int
    before: int
    saved_at: int
    tournament: dict[str, Any] | None
    mutation: dict[str, Any] | None
    finished: bool

    def to_data(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        plain = {name: value for name, value in vars(self).items() if name != "population"}
        plain["reports"] = [None if r is None else asdict(r) for r in self.reports]
        return {"population": [agent.to_checkpoint() for agent in self.population], "run": plain}

    @classmethod
    def from_data(
        cls, data: dict[str, Any], device: torch.device, networks: Mapping[str, Any]
    ) -> "_State":
        """Rebuild what ``to_data`` described, around the user's own modules."""
        run = dict(data["run"])
        run["reports"] = [None if r is None else Report(**r) for r in run["reports"]]
        population = population_from_data(data["population"], device, **networks)
        return cls(population=population, **run)


class _Run:
    """A training run between its beginning and its end.

    Attributes:
        state: replaced as a whole whenever something is finished, so that it is whole at any time.

    """

    def __init__(
        self,
        settings: _Settings,
        population: list[Any],
        tournament: TournamentSelection | None,
        mutation: Mutations | None,
    ) -> None:
        self.settings, self.tournament, self.mutation = settings, tournament, mutation
        self.state = _State(
            population=population,
            generation=0,
            reports=[None] * len(population),
            fitnesses=[],
            # Its own stream is to stay as it is.
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
            CheckpointError: of something else, or of another number of individuals.

        """
        first = self.state.population[0]
        data = files.load(path)
        try:
            state = _State.from_data(data, first.device, first.custom_networks())
        except Exception as error:  # whatever the wrong part does to the code that reads it
            raise CheckpointError(
                f"{path}: expected a checkpoint of a training run: {error!r}"
            ) from error
        if len(state.population) != len(self.state.population):
            raise CheckpointError(
                f"{path}: expected {len(self.state.population)} individuals, as in pop, got "
                f"{len(state.population)}"
            )
        for expected, got in zip(self.state.population, state.population, strict=True):
            if type(expected) is not type(got):
                raise CheckpointError(
                    f"{path}: expected {type(expected).__name__} agents, got {type(got).__name__}"
                )
        for name, part in (("tournament", self.tournament), ("mutation", self.mutation)):
            saved = getattr(state, name)
            if (part is None) != (saved is None):
                has = "none" if saved is None else "one"
                raise CheckpointError(f"{path}: expected a {name} as in this run, it has {has}")
            if part is not None:
                part.load_state_dict(saved)
        self.state = state
        if state.finished and not self._over():  # it is to be trained for longer
            self.state = self._next()

    def logged(self) -> tuple[int, int]:
        """Return the last generation whose logs are to be kept, and all steps up to its end."""
        state = self.state
        if state.finished:
            return state.generation, state.total_steps
        return state.generation - 1, state.before

    def go(self, open_pool: Callable[[], Pool], log: RunLog) -> None:
        """Train to the end; if Ctrl-C or an error comes before it, save what there is."""
        try:
            with contextlib.closing(open_pool()) as pool:
                self._train(pool, log)
        except KeyboardInterrupt:
            saved = self._save_what_there_is()
            log.say(f"Interrupted in generation {self.state.generation}. {saved}")
        except _AllFailedError:
            raise  # there is nothing in this state that is worth the place of an earlier one
        except Exception as error:
            error.add_note(self._save_what_there_is())
            raise

    def _train(self, pool: Pool, log: RunLog) -> None:
        log.begin(sum(agent.env_steps for agent in self.state.population))
        while not self.state.finished:
            self._generation(pool, log)
            log.generation(self.state, self._fitness)
            self._conclude()
            self._save_if_due()

    def _fitness(self, agent: Agent) -> float:
        if self.tournament is not None:
            return self.tournament.fitness(agent)
        return agent.fitness[-1]

    def _best(self) -> Agent:
        tested: list[Agent] = [agent for agent in self.state.population if agent.fitness]
        return max(tested, key=self._fitness)

    def _generation(self, pool: Pool, log: RunLog) -> None:
        """Have all individuals that have not yet done so finish their part of the generation."""
        settings, state = self.settings, self.state
        goal = state.base + (state.generation + 1) * settings.evo_steps
        last, seed = (
            derived_seed(state.eval_seed, generation, bits=31)
            for generation in (max(state.generation - 1, 0), state.generation)
        )
        plan = Plan(
            min(goal, settings.max_steps),
            settings.max_steps,
            settings.eval_steps,
            settings.eval_loop,
            seed,
            last,
        )
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
        for place, agent, report in pool.run(jobs, log.progress):
            state = self.state
            self.state = replace(
                state,
                population=_replaced_at(state.population, place, agent),
                reports=_replaced_at(state.reports, place, report),
                total_steps=state.total_steps + report.steps,
            )

    def _over(self) -> bool:
        agents, reports = self.state.population, [r for r in self.state.reports if r is not None]
        target, max_steps = self.settings.target, self.settings.max_steps
        if all(report.failed for report in reports):
            raise _AllFailedError(
                f"train_on_policy: expected at least one individual that can be trained, all "
                f"failed: {reports[0].failed}"
            )
        reached = target is not None and self._fitness(self._best()) >= target
        # Without selection one that fails stays behind for ever.
        return reached or all(
            agent.env_steps >= max_steps or report.failed
            for agent, report in zip(agents, reports, strict=True)
        )

    def _conclude(self) -> None:
        """Save the elite, and make the next generation of this one, unless it is the last."""
        state, over = self.state, self._over()
        if self.settings.elite_path is not None:
            self._best().save_checkpoint(self.settings.elite_path)
        fitnesses = [*state.fitnesses, [agent.fitness[-1] for agent in state.population]]
        concluded = replace(state, fitnesses=fitnesses, finished=over)
        self.state = concluded if concluded.finished else self._next(concluded)

    def _next(self, state: _State | None = None) -> _State:
        """Return the state at the beginning of the next generation."""
        state = self.state if state is None else state
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

    # --- saving -----------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        path, every = self.settings.checkpoint_path, self.settings.checkpoint
        if path is None:
            return
        steps = max(agent.env_steps for agent in self.state.population)
        if every is None or self.state.finished or steps - self.state.saved_at >= every:
            self.state = replace(self.state, saved_at=steps)
            self._save(path)

    def _save(self, path: Path) -> None:
        files.save(self.state.to_data(), path)

    def _save_what_there_is(self) -> str:
        """After Ctrl-C or an error: save what can be, and say what was."""
        saved = []
        path, elite = self.settings.checkpoint_path, self.settings.elite_path
        if path is not None:
            self._save(path)
            saved.append(f"To go on: resume={str(path)!r}.")
        if elite is not None:
            # If there was a whole generation its elite stands there already.
            if not self.state.fitnesses and any(a.fitness for a in self.state.population):
                self._best().save_checkpoint(elite)
            if any(a.fitness for a in self.state.population):
                saved.append(f"The elite is in {elite}.")
        return " ".join(saved) or "Nothing was saved: there is no checkpoint_path."


def _updates_per_step(agent: Agent) -> float:
    """Gradient steps for each step collected: what training time mostly depends on."""
    return sum(t.config.update_epochs / t.config.batch_size for t in agent.trainers.values())


def _replaced_at(items: list[Any], place: int, item: Any) -> list[Any]:
    """Return a copy of a list with another item in one place."""
    return [*items[:place], item, *items[place + 1 :]]
