"""Settings of a training run, and whether they fit together."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.evolution.mutation import Mutations
from recurrent_rl.evolution.population import ALGORITHMS
from recurrent_rl.evolution.tournament import TournamentSelection


@dataclass(frozen=True)
class Schedule:
    """How long individuals are trained and tested.

    Attributes:
        max_steps: environment steps that each individual is trained for, with its ancestors.
        evo_steps: environment steps that each individual is trained for in a generation.
        eval_steps: most steps of a test episode; None plays it to its end.
        eval_loop: test episodes in each environment of the vector.
        target: fitness of the best individual at which the run stops; None does not stop it.

    """

    max_steps: int
    evo_steps: int
    eval_steps: int | None
    eval_loop: int
    target: float | None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("max_steps", "evo_steps", "eval_loop", "eval_steps"):
            _check_positive(name, getattr(self, name))

    def check_agreement(self, init_hp: Mapping[str, Any]) -> None:
        """Raise ValueError if INIT_HP has other values."""
        for name in ("max_steps", "evo_steps", "eval_steps", "eval_loop"):
            given = getattr(self, name)
            expected = init_hp.get(name.upper(), given)
            if expected != given:
                raise ValueError(
                    f"{name}: expected {expected}, as INIT_HP[{name.upper()!r}] says, got {given}; "
                    f"pass {name}=INIT_HP[{name.upper()!r}], or leave it out there"
                )

    def check_step_sizes(self, population: Sequence[Agent]) -> None:
        """Warn if some agents' step sizes will have reached 0 before the run's end."""
        ends = [
            trainer.config.total_steps
            for agent in population
            for trainer in agent.trainers.values()
            if trainer.config.lr_schedule != "constant"
        ]
        least = min((steps for steps in ends if steps is not None), default=self.max_steps)
        if least < self.max_steps:
            warnings.warn(
                f"max_steps: expected no more than total_steps = {least}, at which lr_schedule "
                f"has brought the agents' step size to 0, got {self.max_steps}; call "
                f"agent.reconfigure(total_steps=...) or agent.reconfigure(lr_schedule='constant')",
                stacklevel=3,
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
        """Check the numbers, and that the directories exist."""
        _check_positive("checkpoint", self.checkpoint)
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


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")


def check_population(
    algo: str,
    pop: Sequence[Any],
    tournament: TournamentSelection | None,
    mutation: Mutations | None,
) -> list[Agent]:
    """Return the population as a list.

    Raises:
        TypeError: agents of another algorithm.
        ValueError: something else that does not fit together.

    """
    if algo not in ALGORITHMS:
        raise ValueError(f"algo: expected one of {list(ALGORITHMS)}, got {algo!r}")
    if not pop:
        raise ValueError("pop: expected at least one agent, got none")
    for agent in pop:
        if not isinstance(agent, ALGORITHMS[algo]):
            raise TypeError(
                f"pop: expected {algo} agents, as algo says, got {type(agent).__name__}"
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
