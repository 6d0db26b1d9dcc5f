"""What ``train`` is asked for, and whether it makes sense."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.files import check_directory
from recurrent_rl.training.report import Rollout
from recurrent_rl.validation import COUNT, SEED, Range, replace_checked, shown

FilePath = str | os.PathLike[str]
# How often something is due in a run, unless somebody says after how many steps.
TIMES = {"eval_every": 20, "log_every": 1000, "checkpoint_every": 10}


@dataclass(frozen=True)
class Settings:
    """The arguments of ``train``, which says what they mean."""

    agent: Any
    env: Any
    total_steps: int
    eval_env: Any
    eval_every: int | None
    eval_episodes: int
    eval_seed: int
    stop_at: float | None
    log_dir: FilePath | None
    log_every: int | None
    best_path: FilePath | None
    checkpoint_path: FilePath | None
    checkpoint_every: int | None
    save_replay: bool
    resume: bool | str
    on_rollout: Callable[[Rollout], object] | None
    progress: bool

    def __post_init__(self) -> None:
        """Check each, and then what they ask of each other, before anything is done."""
        if not isinstance(self.agent, Agent):
            raise TypeError(f"agent: expected an agent of this package, got {shown(self.agent)}")
        replace_checked(self, "total_steps", Annotated[int, COUNT])
        replace_checked(self, "eval_episodes", Annotated[int, COUNT])
        replace_checked(self, "eval_seed", Annotated[int, SEED])
        replace_checked(self, "stop_at", Annotated[float | None, Range()])
        for name in TIMES:
            replace_checked(self, name, Annotated[int | None, COUNT])
        self._check_resume()
        self._check_eval_env()
        self._check_paths()
        self.agent.rows_of(self.env)  # refuses what it cannot be trained in
        if self.best_path is not None or self.checkpoint_path is not None:
            self.agent.own_data()  # refuses what cannot be saved

    def _check_resume(self) -> None:
        if self.resume not in (True, False, "auto"):
            raise ValueError(f"resume: expected True, False or 'auto', got {self.resume!r}")
        if self.resume and self.checkpoint_path is None:
            raise ValueError("resume: expected a checkpoint_path to go on from, got None")

    def _check_eval_env(self) -> None:
        if self.eval_env is None:
            for name in ("stop_at", "best_path"):
                if (given := getattr(self, name)) is not None:
                    raise ValueError(
                        f"{name}: expected None without an eval_env, whose episodes say how good "
                        f"the agent is, got {given!r}; give eval_env="
                    )
            return
        inner, other = (getattr(env, "unwrapped", env) for env in (self.env, self.eval_env))
        if inner is other:
            raise ValueError(
                "eval_env: expected another environment than env, as each test would end the "
                "episodes that run there; build a second one"
            )

    def _check_paths(self) -> None:
        best, latest = self.best_path, self.checkpoint_path
        for name, path in (("best_path", best), ("checkpoint_path", latest)):
            if path is not None:
                check_directory(Path(path).parent, name)
        if best is None or latest is None:
            return
        if Path(best).resolve() == Path(latest).resolve():
            raise ValueError(
                f"best_path: expected another file than checkpoint_path, which has the latest "
                f"agent rather than the best, got {best} for both"
            )

    @property
    def each(self) -> dict[str, int]:
        """Environment steps between what is due again and again, by its name."""
        steps = {name: getattr(self, name) for name in TIMES}
        usual = {name: max(self.total_steps // times, 1) for name, times in TIMES.items()}
        return {name: usual[name] if n is None else n for name, n in steps.items()}
