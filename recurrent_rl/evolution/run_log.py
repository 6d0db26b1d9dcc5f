"""What a training run shows and writes: progress, a table of each generation, log files."""

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.envs.final_infos import SUCCESS, mean_of_known
from recurrent_rl.evolution.member import Report
from recurrent_rl.evolution.run_state import RunState
from recurrent_rl.extras import extra_package
from recurrent_rl.metrics import CsvTable, MetricsLogger, loggable


class RunLog:
    """Shows the progress of a run on the console, and writes its log files.

    ``population.csv`` has a row for each individual of each generation, with its parent, its
    mutation and its hyper-parameters. ``metrics.csv`` and TensorBoard have the numbers of each
    generation, over the steps of all individuals together: "rollout/success_rate" and
    "eval/success_rate" are means over individuals that know theirs, of training and of tests, and
    "member_0/info/..." the means of other numbers in the last infos of training episodes.
    """

    def __init__(
        self,
        total: int,
        *,
        verbose: bool,
        directory: str | os.PathLike[str] | None,
        config: Mapping[str, Any],
        wandb_kwargs: Mapping[str, Any] | None,
        resume_at: tuple[int, int] | None,
    ) -> None:
        """Open the logs.

        Args:
            total: environment steps of the whole run, for the progress bar.
            verbose: write to the console.
            directory: for log files; None writes none.
            config: what the run was started with.
            wandb_kwargs: options of ``wandb.init``; None does not use Weights & Biases.
            resume_at: the last generation that existing logs keep, and the steps of all individuals
                up to its end; None begins new logs.

        Raises:
            ImportError: wandb is needed and not installed.

        """
        self.total, self.verbose = total, verbose
        self._latest = self._best = ""
        self._wandb = None if wandb_kwargs is None else _wandb_run(config, wandb_kwargs)
        self._metrics: MetricsLogger | None = None
        self._table: CsvTable | None = None
        if directory is not None:
            last, steps = (None, None) if resume_at is None else resume_at
            self._metrics = MetricsLogger(Path(directory), resume_at=steps)
            try:
                self._table = CsvTable(Path(directory) / "population.csv", "generation", last)
            except BaseException:
                self._metrics.close()
                raise
            self._metrics.write_config(config)
        self._bar: tqdm[Any] | None = None
        self._since = time.perf_counter()

    def begin(self, done: int) -> None:
        """Show the progress bar; ``done`` steps were taken before."""
        self._since = time.perf_counter()
        if self.verbose:
            self._bar = tqdm(
                total=self.total, initial=done, unit="step", unit_scale=True, mininterval=1
            )

    def progress(self, steps: int, score: float) -> None:
        """Count the steps of a rollout, and show the mean return of its episodes."""
        if self._bar is not None:
            self._bar.update(steps)
            if not np.isnan(score):
                self._latest = f"score {score:.1f}"
                self._update_bar()

    def _update_bar(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(filter(None, (self._latest, self._best))))

    def write(self, text: str) -> None:
        """Write a line to the console, above the progress bar."""
        if self.verbose:
            tqdm.write(text)

    def generation(self, state: RunState, fitness: Callable[[Agent], float]) -> None:
        """Log a generation in which all individuals have been trained and tested.

        Args:
            state: of the state.
            fitness: gives the fitness that selection uses.

        """
        seconds = time.perf_counter() - self._since
        self._since = time.perf_counter()
        reports = [report for report in state.reports if report is not None]
        latest = [report.fitness for report in reports]
        speed = sum(report.steps for report in reports) / max(seconds, 1e-9)
        rows = [
            _row(state.generation, place, agent, report, fitness(agent))
            for place, (agent, report) in enumerate(zip(state.population, reports, strict=True))
        ]
        values = {
            "generation": float(state.generation),
            "fitness/best": max(latest),
            "fitness/mean": float(np.mean(latest)),
            "steps_per_second": speed,
            **_known(
                {
                    "rollout/success_rate": mean_of_known(r.success_rate for r in reports),
                    "eval/success_rate": mean_of_known(r.eval_success_rate for r in reports),
                }
            ),
        }
        for place, (agent, report) in enumerate(zip(state.population, reports, strict=True)):
            values |= _metrics_of(f"member_{place}", agent, report)
        values = loggable(values)  # before anything is written
        self._write_files(state, rows, values)
        if self._wandb is not None:
            self._wandb.log(values, step=state.total_steps)
        self._best = f"fitness {max(latest):.1f}"
        self._update_bar()
        if self.verbose:
            self.write(_as_text(state, rows, speed))

    def _write_files(
        self, state: RunState, rows: list[dict[str, Any]], values: dict[str, float]
    ) -> None:
        """Write a generation into the log files; a full disk is no reason to lose the run."""
        try:
            if self._table is not None:
                for row in rows:
                    self._table.append(row)
            if self._metrics is not None:
                self._metrics.log(state.total_steps, values)
        except OSError as error:
            warnings.warn(
                f"log_dir: generation {state.generation} could not be logged in full: {error}; "
                f"training goes on",
                RuntimeWarning,
                stacklevel=2,
            )

    def close(self) -> None:
        """Close the progress bar and the logs."""
        if self._bar is not None:
            self._bar.close()
        for log in (self._metrics, self._table):
            if log is not None:
                try:
                    log.close()
                except OSError as error:  # what was still to be written finds no room
                    message = f"log_dir: the end of the logs could not be written: {error}"
                    warnings.warn(message, RuntimeWarning, stacklevel=2)
        if self._wandb is not None:
            self._wandb.finish()


def hyperparameters(agent: Agent) -> dict[str, float]:
    """Return the values of what mutations may change; names begin with the group, if several."""
    names = () if agent.hp_config is None else agent.hp_config.parameters
    several = len(agent.trainers) > 1
    return {
        f"{group}/{name}" if several else name: getattr(trainer.config, name)
        for group, trainer in agent.trainers.items()
        for name in names
        if getattr(trainer.config, name) is not None
    }


def _row(
    generation: int, place: int, agent: Agent, report: Report, fitness: float
) -> dict[str, Any]:
    birth = agent.lineage[-1]
    return {
        "generation": generation,
        "place": place,
        "index": birth.index,
        "parent": birth.parent,
        "born_at_steps": birth.steps,
        "mutation": "none" if agent.elite else agent.mut,
        "elite": agent.elite,
        "steps": agent.env_steps,
        "score": report.score,
        "fitness": report.fitness,
        "mean_fitness": fitness,
        "fitness_lost_by_shrinking": birth.lost,
        "parameters": sum(p.numel() for g in agent.groups for p in g.policy.parameters()),
        "seconds": round(report.seconds, 3),
        "failed": report.failed,
        **_successes(report),
        **hyperparameters(agent),
    }


def _successes(report: Report) -> dict[str, float]:
    rates = {"success_rate": report.success_rate, "eval_success_rate": report.eval_success_rate}
    return _known(rates)


def _known(values: Mapping[str, float]) -> dict[str, float]:
    """Return what is not NaN: where nobody speaks of successes, logs do not either."""
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _metrics_of(name: str, agent: Agent, report: Report) -> dict[str, float]:
    values = {
        "index": float(agent.index),
        "steps": float(agent.env_steps),
        "score": report.score,
        "fitness": report.fitness,
        **_successes(report),
        **{f"score/{who}": score for who, score in report.agent_scores.items()},
        **{f"info/{what}": mean for what, mean in report.infos.items() if what != SUCCESS},
        **{f"learn/{what}": value for what, value in report.diagnostics.items()},
        **{f"hp/{what}": value for what, value in hyperparameters(agent).items()},
        **agent.own_metrics(),
    }
    return {f"{name}/{what}": value for what, value in values.items()}


def _as_text(state: RunState, rows: list[dict[str, Any]], speed: float) -> str:
    """Return a table of the generation as text; a star marks the elite."""
    names = list(dict.fromkeys(n for agent in state.population for n in hyperparameters(agent)))
    head = ["", "index", "parent", "score", "fitness", "mean", *names, "mutation"]
    lines = [head]
    for row in rows:
        numbers = [f"{row[name]:.1f}" for name in ("score", "fitness", "mean_fitness")]
        parent = "" if row["parent"] is None else str(row["parent"])
        star = "*" if row["elite"] else ""
        mutation = row["mutation"]
        if row["fitness_lost_by_shrinking"] is not None:
            mutation += f" (cost {row['fitness_lost_by_shrinking']:z.1f})"
        if row["failed"]:
            mutation += f" FAILED: {row['failed']}"
        values = [f"{row[name]:.4g}" if name in row else "" for name in names]
        lines.append([star, str(row["index"]), parent, *numbers, *values, mutation])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head) - 1)]
    table = "\n".join(
        "  ".join([*(word.rjust(w) for word, w in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    )
    steps = max(row["steps"] for row in rows)
    return (
        f"--- Generation {state.generation}: {steps:,} steps each, {state.total_steps:,} in all, "
        f"{speed:,.0f} steps/s\n{table}"
    )


def _wandb_run(config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    wandb = extra_package("wandb", "wandb", "wb=True")
    return wandb.init(**{"project": "recurrent_rl", "config": dict(config), **options})
