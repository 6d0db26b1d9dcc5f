"""What training functions are asked for: whether it fits together, and the run it becomes."""

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from recurrent_rl.algorithms.multi_agent_replay import MultiAgentReplayBuffer
from recurrent_rl.algorithms.scoring import Fitness
from recurrent_rl.buffers.replay import SequenceReplayBuffer
from recurrent_rl.evolution.mutation import Mutations
from recurrent_rl.evolution.pools import pool_opener
from recurrent_rl.evolution.run_keys import check_agreement, check_run_keys
from recurrent_rl.evolution.run_log import RunLog
from recurrent_rl.evolution.run_settings import (
    SavingSettings,
    Schedule,
    check_environment,
    check_population,
    check_scoring,
    check_steps,
    warn_of_idle_arguments,
)
from recurrent_rl.evolution.run_state import RunSaver
from recurrent_rl.evolution.shared_memory import SharedMemory
from recurrent_rl.evolution.tournament import TournamentSelection
from recurrent_rl.evolution.training_run import TrainingRun
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.validation import checked_path, replace_checked
from recurrent_rl.versions import how_it_was_run

FilePath = str | os.PathLike[str]


@dataclass(frozen=True)
class Request:
    """What a training function was asked for: its arguments, under their names."""

    env: Any
    env_name: str
    algo: str
    pop: Sequence[Any]
    INIT_HP: Mapping[str, Any] | None
    MUT_P: Mapping[str, Any] | None
    max_steps: int
    evo_steps: int
    eval_steps: int | None
    eval_loop: int
    target: float | None
    tournament: TournamentSelection | None
    mutation: Mutations | None
    checkpoint: int | None
    checkpoint_path: FilePath | None
    save_elite: bool
    elite_path: FilePath | None
    wb: bool
    verbose: bool
    log_dir: FilePath | None
    resume: FilePath | None
    workers: int | Literal["ray"]
    make_env: Callable[[], Any] | None
    threads: int
    wandb_kwargs: Mapping[str, Any] | None
    fitness: Fitness
    opponents: Literal["random"] | None
    memory: SequenceReplayBuffer | MultiAgentReplayBuffer | None = None
    net_config: NetConfig | Mapping[str, Any] | None = None
    swap_channels: bool = False
    learning_delay: int = 0

    def __post_init__(self) -> None:
        """Check what no other object checks."""
        for name in ("save_elite", "wb", "verbose", "swap_channels"):
            replace_checked(self, name, bool)
        replace_checked(self, "env_name", str)

    def train(self, *, from_replay: bool) -> tuple[list[Any], list[list[float]]]:
        """Check the arguments, and train agents that learn from a replay, or else from rollouts."""
        schedule = Schedule(
            self.max_steps,
            self.evo_steps,
            self.eval_steps,
            self.eval_loop,
            self.target,
            self.learning_delay,
        )
        population = check_population(
            self.algo, self.pop, self.tournament, self.mutation, from_replay
        )
        check_environment(self.env, population)
        schedule.check_step_sizes(population)
        saving = self._checked_saving()
        log_dir = None if self.log_dir is None else checked_path("log_dir", self.log_dir)
        resume = None if self.resume is None else checked_path("resume", self.resume)
        if resume is None:
            check_steps(schedule, population)
        warn_of_idle_arguments(population, self.net_config, self.swap_channels)
        memory = None
        if from_replay:
            memory = SharedMemory(self.memory, population, self.env.num_envs)
        self._check_init_hp(schedule, len(population), memory)
        if self.wandb_kwargs is not None and not self.wb:
            raise ValueError("wandb_kwargs: expected None, as wb=False; pass wb=True")
        open_pool = pool_opener(
            self.env, self.make_env, self.workers, self.threads, len(population)
        )
        scoring = check_scoring(population, self.fitness, self.opponents)
        run = TrainingRun(
            schedule, RunSaver(saving), population, self.tournament, self.mutation, scoring, memory
        )
        if resume is not None:
            run.resume(resume)
        log = self._open_log(schedule, saving, run, log_dir, resumed=resume is not None)
        with contextlib.closing(log):
            return run.train_all(open_pool, log), run.state.fitnesses

    def _open_log(
        self,
        schedule: Schedule,
        saving: SavingSettings,
        run: TrainingRun,
        log_dir: Path | None,
        *,
        resumed: bool,
    ) -> RunLog:
        settings = {"env_name": self.env_name, "algo": self.algo}
        settings |= {**asdict(schedule), **asdict(saving)}
        return RunLog(
            len(run.state.population) * schedule.max_steps,
            verbose=self.verbose,
            directory=log_dir,
            config={
                "algorithm": self.algo,
                "environment": self.env_name,
                "settings": settings,
                "INIT_HP": self.INIT_HP,
                "MUT_P": self.MUT_P,
                **how_it_was_run(),
            },
            wandb_kwargs={"name": self.env_name, **(self.wandb_kwargs or {})} if self.wb else None,
            resume_at=run.state.logged if resumed else None,
        )

    def _checked_saving(self) -> SavingSettings:
        """Return the settings for saving; the elite's default name is no path."""
        path = elite = None
        if self.checkpoint_path is not None:
            path = checked_path("checkpoint_path", self.checkpoint_path)
        if self.elite_path is not None:
            elite = checked_path("elite_path", self.elite_path)
        if elite is not None and not self.save_elite:
            raise ValueError(
                f"elite_path: expected None, as save_elite=False, got {elite}; pass save_elite=True"
            )
        if self.save_elite and elite is None:
            elite = Path(f"{self.env_name}-elite_{self.algo}".replace("/", "-") + ".pt")
        return SavingSettings(self.checkpoint, path, elite)

    def _check_init_hp(self, schedule: Schedule, size: int, memory: SharedMemory | None) -> None:
        """Check that INIT_HP says what the training function will do."""
        init_hp, tournament = {} if self.INIT_HP is None else self.INIT_HP, self.tournament
        check_run_keys(self.algo, init_hp)
        given = {
            "ALGO": ("algo", self.algo),
            "ENV_NAME": ("env_name", self.env_name),
            "NUM_ENVS": ("env.num_envs", self.env.num_envs),
            "POP_SIZE": ("the size of pop", size),
            "TARGET_SCORE": ("target", schedule.target),
            "WANDB": ("wb", self.wb),
            **{
                name.upper(): (name, getattr(schedule, name))
                for name in ("max_steps", "evo_steps", "eval_steps", "eval_loop")
            },
        }
        if memory is not None:
            given["LEARNING_DELAY"] = ("learning_delay", schedule.learning_delay)
            given["MEMORY_SIZE"] = ("memory.memory_size", memory.memory.memory_size)
        if tournament is not None:
            given["TOURN_SIZE"] = ("tournament.tournament_size", tournament.tournament_size)
            given["ELITISM"] = ("tournament.elitism", tournament.elitism)
        check_agreement(init_hp, given)
        idle = [key for key in ("TOURN_SIZE", "ELITISM") if key in init_hp and tournament is None]
        if idle:
            warnings.warn(
                f"INIT_HP: {' and '.join(idle)} have no effect, as tournament is None; pass "
                f"tournament=TournamentSelection(...), or leave them out",
                stacklevel=4,
            )
