"""Settings of a training run, and whether they fit together."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from recurrent_rl import distributed
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.algorithms.scoring import Fitness, Scoring, check_alone
from recurrent_rl.algorithms.swapping import warn_of_swap_channels
from recurrent_rl.evolution.mutation import Mutations, check_hyperparameters, idle_kinds
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.evolution.tournament import TournamentSelection
from recurrent_rl.files import check_directory
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.validation import COUNT, WHOLE, replace_checked, shown


@dataclass(frozen=True)
class Schedule:
    """How long individuals are trained and tested.

    Attributes:
        max_steps: environment steps that each individual is trained for, with its ancestors.
        evo_steps: environment steps that each individual is trained for in a generation.
        eval_steps: most steps of a test episode; None plays it to its end.
        eval_loop: test episodes in each environment of the vector.
        target: fitness of the best individual at which the run stops; None does not stop it.
        learning_delay: environment steps in a shared replay before anybody learns from it.

    """

    max_steps: int
    evo_steps: int
    eval_steps: int | None
    eval_loop: int
    target: float | None
    learning_delay: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("max_steps", "evo_steps", "eval_loop"):
            replace_checked(self, name, Annotated[int, COUNT])
        replace_checked(self, "eval_steps", Annotated[int | None, COUNT])
        replace_checked(self, "target", float | None)
        replace_checked(self, "learning_delay", Annotated[int, WHOLE])

    def check_step_sizes(self, population: Sequence[Agent]) -> None:
        """Warn if some agents' step sizes will have reached 0 before the run's end."""
        ends = [
            trainer.config.end_of_learning
            for agent in population
            for trainer in agent.trainers.values()
        ]
        least = min((steps for steps in ends if steps is not None), default=self.max_steps)
        if least < self.max_steps:
            warnings.warn(
                f"max_steps: expected no more than total_steps = {least}, at which lr_schedule "
                f"has brought the agents' step size to 0, got {self.max_steps}; call "
                f"agent.reconfigure(total_steps=...) or agent.reconfigure(lr_schedule='constant')",
                stacklevel=4,
            )


@dataclass(frozen=True)
class SavingSettings:
    """When and where a run is saved.

    Attributes:
        checkpoint: an individual's steps between checkpoints; None: one after each generation.
        checkpoint_path: file of the checkpoint; None saves none.
        elite_path: file of the best individual; None saves none.

    """

    checkpoint: int | None
    checkpoint_path: Path | None
    elite_path: Path | None

    def __post_init__(self) -> None:
        """Check the number, and that the files can be written."""
        replace_checked(self, "checkpoint", Annotated[int | None, COUNT])
        if self.checkpoint is not None and self.checkpoint_path is None:
            raise ValueError(
                f"checkpoint_path: expected a path, as checkpoint={self.checkpoint}, got None"
            )
        for name in ("checkpoint_path", "elite_path"):
            path = getattr(self, name)
            if path is not None:
                _check_writable(name, path)


def _check_writable(name: str, path: Path) -> None:
    """Check that a file can be written, now rather than after an hour of training."""
    check_directory(path.parent, name)
    if path.is_dir():
        raise IsADirectoryError(
            f"{name}: expected the path of a file, got the directory {path}; add a file name"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{name}: expected a directory that can be written, got {path.parent}; choose another"
        )


def check_population(
    algo: str,
    pop: Sequence[Any],
    tournament: TournamentSelection | None,
    mutation: Mutations | None,
    from_replay: bool,
) -> list[Agent]:
    """Return the population as a list.

    Args:
        algo: name of the agents' algorithm.
        pop: the agents.
        tournament: selects among them, or None.
        mutation: changes them, or None.
        from_replay: agents are trained that learn from a replay; False: from rollouts.

    Raises:
        TypeError: agents of another algorithm.
        ValueError: something else that does not fit together.
        RuntimeError: there are several ranks.

    """
    distributed.check_alone(
        "pop", "populations are trained in several processes by workers=, or leave out init()"
    )
    known = [
        name
        for name, agent in ALGORITHMS.items()
        if issubclass(agent, OffPolicyAgent) == from_replay
    ]
    if not isinstance(algo, str) or algo not in known:
        hint = ""
        if isinstance(algo, str) and algo in ALGORITHMS:
            way, other = ("rollouts", "on") if from_replay else ("a replay", "off")
            hint = f", which learns from {way}; call train_{other}_policy"
        raise ValueError(f"algo: expected one of {known}, got {shown(algo)}{hint}")
    if not isinstance(pop, Iterable) or isinstance(pop, str | bytes | Mapping):
        raise TypeError(f"pop: expected a list of agents, got {shown(pop)}")
    agents = list(pop)
    if not agents:
        raise ValueError("pop: expected at least one agent, got none")
    for agent in agents:
        if not isinstance(agent, ALGORITHMS[algo]):
            raise TypeError(
                f"pop: expected {algo} agents, as algo says, got {type(agent).__name__}"
            )
        agent.own_data()  # refuses what cannot be copied
    if len({id(agent) for agent in agents}) < len(agents):
        raise ValueError(
            "pop: expected different agents, got one of them more than once; build them with "
            "create_population, or copy it with clone()"
        )
    _check_tournament(agents, tournament)
    _check_mutation(agents, tournament, mutation)
    return agents


def _check_tournament(pop: Sequence[Agent], tournament: TournamentSelection | None) -> None:
    if tournament is None:
        return
    if not isinstance(tournament, TournamentSelection):
        raise TypeError(
            f"tournament: expected a TournamentSelection or None, got {shown(tournament)}"
        )
    numbers = [agent.index for agent in pop]
    if len(set(numbers)) < len(numbers):
        raise ValueError(
            f"pop: expected individuals with different numbers, got {numbers}; build them with "
            f"create_population"
        )
    if tournament.population_size != len(pop):
        raise ValueError(
            f"tournament: expected the population_size {len(pop)} of pop, got "
            f"{tournament.population_size}"
        )
    if tournament.tournament_size > len(pop):
        raise ValueError(
            f"tournament: expected a tournament_size of at most {len(pop)}, the individuals of "
            f"pop, got {tournament.tournament_size}; make pop larger, or tournament_size smaller; "
            f"one individual alone trains with tournament=None and mutation=None"
        )


def _check_mutation(
    pop: Sequence[Agent], tournament: TournamentSelection | None, mutation: Mutations | None
) -> None:
    if mutation is None:
        return
    if not isinstance(mutation, Mutations):
        raise TypeError(f"mutation: expected Mutations or None, got {shown(mutation)}")
    if tournament is None:
        raise ValueError("tournament: expected one, as mutations without selection are noise")
    if tournament.elitism and tournament.population_size == 1 and not mutation.mutate_elite:
        raise ValueError(
            "mutation: expected somebody to mutate, got a population of one, which is its own "
            "elite; make it larger, or pass mutation=None and tournament=None"
        )
    for agent in pop:
        check_hyperparameters(agent)
    idle = idle_kinds(mutation, pop)
    active = [k for k, share in mutation.probabilities.items() if share and k != "none"]
    if not idle:
        return
    what = "; ".join(f"{kind}: {why}" for kind, why in idle.items())
    if set(idle) == set(active):
        raise ValueError(f"mutation: expected mutations that change something, got {what}")
    warnings.warn(f"mutation: some mutations will change nothing: {what}", stacklevel=5)


def check_environment(env: Any, pop: Sequence[Agent]) -> None:
    """Check that all individuals fit an environment.

    Raises:
        TypeError: it is of the wrong kind.
        ValueError: spaces or agents that are not an individual's.

    """
    for agent in pop:
        agent.rows_of(env)


def warn_of_idle_arguments(
    pop: Sequence[Agent], net_config: NetConfig | Mapping[str, Any] | None, swap_channels: bool
) -> None:
    """Warn of arguments that change nothing, where somebody may expect that they do."""
    warn_of_swap_channels(swap_channels, stacklevel=4)
    for agent in pop if net_config is not None else ():
        assert isinstance(agent, OffPolicyAgent)
        wanted = agent.networks_of(net_config)
        if any(trainer.net_config != wanted[name] for name, trainer in agent.trainers.items()):
            warnings.warn(
                f"net_config has no effect: agents are built already, and individual "
                f"{agent.index} with other networks; pass it to create_population",
                stacklevel=4,
            )
            return


def check_steps(schedule: Schedule, pop: Sequence[Agent]) -> None:
    """Raise ValueError if nobody would be trained."""
    least = min(int(agent.env_steps) for agent in pop)
    if least >= schedule.max_steps:
        raise ValueError(
            f"max_steps: expected more than {least}, the environment steps that pop has been "
            f"trained for already, as they count too, got {schedule.max_steps}"
        )


def check_scoring(
    pop: Sequence[Agent], fitness: Fitness, opponents: Literal["random"] | None
) -> dict[str, Any]:
    """Return the options of ``test`` that the arguments stand for.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: an unknown agent or opponent, or opponents of agents that play alone.

    """
    if isinstance(pop[0], MultiAgent):
        Scoring(fitness, opponents).check(pop[0].agent_ids)
        return {"fitness": fitness, "opponents": opponents}
    check_alone(fitness)
    if opponents is not None:
        raise ValueError(
            f"opponents: expected None, as one agent plays alone, got {shown(opponents)}"
        )
    return {"fitness": fitness}
