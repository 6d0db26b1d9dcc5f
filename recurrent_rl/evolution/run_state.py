"""The state of a training run between its beginning and its end, and how it is saved."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from recurrent_rl import checkpoint
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.buffers.sharing import News, extended
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.evolution.member import Report
from recurrent_rl.evolution.population import population_from_data
from recurrent_rl.evolution.run_settings import SavingSettings
from recurrent_rl.files import tried


@dataclass(frozen=True)
class RunState:
    """What a training run needs in order to go on.

    Attributes:
        population: the individuals.
        generation: number of the generation that they are in, from 0.
        reports: of those that have finished their part of the generation; None for the others.
        fitnesses: of the individuals of each finished generation.
        eval_seed: seed from which each generation's test episodes follow.
        base: an individual's environment steps when the run began, the fewest of all.
        total_steps: environment steps that all individuals together were trained for in this run.
        before: ``total_steps`` when the generation began.
        saved_at: an individual's environment steps when a checkpoint was last due.
        tournament: random state of the tournament selection; None without one.
        mutation: random state of the mutations; None without any.
        finished: whether nothing is left to do.
        best: fitness, when it was tested, of the best individual ever; minus infinity before any.
        memory: the replay that individuals share, as it was when the generation began; None where
            agents learn from rollouts.
        news: what those individuals have added to it that have finished their part; None for the
            others.

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
    best: float = -math.inf
    memory: SequenceReplayBuffer | None = None
    news: list[News | None] = field(default_factory=list)

    def shared_memory(self) -> SequenceReplayBuffer | None:
        """Return the replay with all that was added to it, in the population's order."""
        if self.memory is None:
            return None
        return extended(self.memory, [each for each in self.news if each is not None])

    @property
    def steps(self) -> int:
        """Environment steps of an individual, the most of all."""
        return max(int(agent.env_steps) for agent in self.population)

    @property
    def logged(self) -> tuple[int, int]:
        """The last generation whose logs are complete, and ``total_steps`` at its end."""
        if self.finished:
            return self.generation, self.total_steps
        return self.generation - 1, self.before

    def to_data(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        plain = {name: value for name, value in vars(self).items() if name != "population"}
        plain["reports"] = [None if r is None else asdict(r) for r in self.reports]
        plain["memory"] = None if self.memory is None else self.memory.to_data()
        plain["news"] = [None if n is None else n.to_data() for n in self.news]
        return {"population": [agent.to_checkpoint() for agent in self.population], "run": plain}

    @classmethod
    def from_data(
        cls,
        data: dict[str, Any],
        kind: type[Agent],
        device: torch.device,
        parts: Mapping[str, Any],
    ) -> "RunState":
        """Rebuild what ``to_data`` described, with the user's class and ``custom_parts``."""
        run = dict(data["run"])
        run["reports"] = [None if r is None else Report(**r) for r in run["reports"]]
        replay = run.get("memory")  # absent from checkpoints of earlier versions
        run["memory"] = None if replay is None else SequenceReplayBuffer.from_data(replay)
        news = run.get("news") or [None] * len(run["reports"])
        run["news"] = [None if each is None else News.from_data(each) for each in news]
        population = population_from_data(data["population"], kind, device, **parts)
        return cls(population=population, **run)


def load_state(path: str | os.PathLike[str], present: RunState) -> RunState:
    """Load the state of a run from a checkpoint.

    Args:
        path: the checkpoint.
        present: the state of the run that is to go on from it, which must have as many individuals
            of the same algorithm, and a tournament and mutations if the checkpoint has them.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: of something else, or of another kind of run.

    """
    data = checkpoint.load(path)
    first = present.population[0]
    try:
        state = RunState.from_data(data, type(first), first.device, first.custom_parts())
    except Exception as error:  # a file of something else fails in many ways
        raise CheckpointError(
            f"{path}: expected a checkpoint of a training run: {error!r}"
        ) from error
    if len(state.population) != len(present.population):
        raise CheckpointError(
            f"{path}: expected {len(present.population)} individuals, as in pop, got "
            f"{len(state.population)}"
        )
    for expected, got in zip(present.population, state.population, strict=True):
        if type(expected) is not type(got):
            raise CheckpointError(
                f"{path}: expected {type(expected).__name__} agents, got {type(got).__name__}"
            )
    for name in ("tournament", "mutation"):
        saved = getattr(state, name)
        if (getattr(present, name) is None) != (saved is None):
            has = "none" if saved is None else "one"
            raise CheckpointError(f"{path}: expected a {name} as in this run, it has {has}")
    return state


@dataclass(frozen=True)
class RunSaver:
    """Saves the state of a run and its best individual.

    Attributes:
        settings: when and where.

    """

    settings: SavingSettings

    def is_due(self, state: RunState) -> bool:
        """Whether a checkpoint is due, now that a generation is finished."""
        if self.settings.checkpoint_path is None:
            return False
        every = self.settings.checkpoint
        return every is None or state.finished or state.steps - state.saved_at >= every

    def save(self, state: RunState) -> bool:
        """Save a checkpoint, if there is a path for it; whether that succeeded.

        A full disk is no reason to lose the population: there is a warning, and the run goes on.
        """
        path = self.settings.checkpoint_path
        return path is None or _tried(lambda: checkpoint.save(state.to_data(), path))

    def save_elite(self, elite: Agent) -> bool:
        """Save the best individual so far, if there is a path for it; like ``save``."""
        path = self.settings.elite_path
        return path is None or _tried(lambda: elite.save_checkpoint(path))

    def save_interrupted(self, state: RunState, elite: Agent | None) -> str:
        """Save what there is after Ctrl-C or an error.

        Args:
            state: of the run.
            elite: the best individual that has been tested; None if none has.

        Returns:
            what was saved, in words.

        """
        messages = []
        if not self.save(state):
            messages.append("The run could not be saved.")
        elif self.settings.checkpoint_path is not None:
            messages.append(f"To go on: resume={str(self.settings.checkpoint_path)!r}.")
        if self.settings.elite_path is not None and elite is not None:
            # Else the best of all finished generations is there already.
            saved = bool(state.fitnesses) or self.save_elite(elite)
            where = f"is in {self.settings.elite_path}" if saved else "could not be saved"
            messages.append(f"The elite {where}.")
        return " ".join(messages) or "Nothing was saved: there is no checkpoint_path."


def _tried(save: Callable[[], None]) -> bool:
    """Save; if that is impossible now, warn and say so: there is still the run in memory."""
    return tried(
        save,
        "Training goes on, and saving will be tried again after the next generation; what is not "
        "saved by then is in the population that is returned",
    )
