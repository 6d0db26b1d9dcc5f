"""Training a run's seeds: one in this process, several side by side in processes of their own."""

import math
import multiprocessing as mp
import os
import queue
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from recurrent_rl.cli.errors import UsageError
from recurrent_rl.cli.run_folder import BEST, LATEST, seed_folder
from recurrent_rl.cli.settings import TESTS, Run
from recurrent_rl.envs.cores import available_cores
from recurrent_rl.envs.watchdog import die_with, start_without_ctrl_c
from recurrent_rl.training.interrupts import interruptible
from recurrent_rl.training.report import Rollout, TrainingResult
from recurrent_rl.training.train import train

_POLL = 0.5  # seconds between two looks at whether processes still live
Results = dict[int, TrainingResult]


def train_seeds(run: Run, folder: Path, seeds: Sequence[int], *, resume: bool = False) -> Results:
    """Train an agent for each seed; return how each went that was begun.

    Args:
        run: what is trained.
        folder: of the run.
        seeds: which.
        resume: go on from checkpoints, where there are any.

    Raises:
        UsageError: options that do not fit together, or a run that somebody else is writing.
        RuntimeError: a process has failed; what it said stands above.

    """
    if len(seeds) == 1:
        return {seeds[0]: train_seed(run, folder, seeds[0], resume=resume)}
    return _SideBySide(run, folder, seeds, resume).go()


def train_seed(
    run: Run,
    folder: Path,
    seed: int,
    *,
    resume: bool = False,
    on_rollout: Callable[[Rollout], object] | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train an agent for one seed, in its folder; see ``train_seeds``."""
    here = seed_folder(folder, seed)
    here.mkdir(exist_ok=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(run.threads)
    env = run.vector()
    try:
        test_env = run.test_vector(run.eval_episodes)
        try:
            return train(
                run.new_agent(env, seed),
                env,
                run.total_steps,
                eval_env=test_env,
                eval_every=run.eval_every or max(run.total_steps // TESTS, 1),
                eval_episodes=run.eval_episodes,
                stop_at=run.stop_at,
                log_dir=here,
                best_path=here / BEST,
                checkpoint_path=here / LATEST,
                checkpoint_every=run.checkpoint_every,
                resume="auto" if resume else False,
                on_rollout=on_rollout,
                progress=progress,
            )
        except BlockingIOError as error:
            raise UsageError(f"{here}: somebody else is training there ({error})") from error
        finally:
            test_env.close()
    finally:
        env.close()
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Message:
    """What a process says: how far it is, or how it ended."""

    seed: int
    env_steps: int = 0
    mean_return: float = math.nan
    result: TrainingResult | None = None
    error: str = ""
    is_mistake: bool = False


def _work(run: Run, folder: Path, seed: int, resume: bool, stop: Any, out: Any, pid: int) -> None:
    """Train one seed in a process of its own."""
    # Ctrl-C reaches all processes of a terminal; the first one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(pid)

    def after(rollout: Rollout) -> None:
        returns = rollout.stats.returns
        mean = float(np.mean(returns)) if len(returns) else math.nan
        out.put(_Message(seed, rollout.env_steps, mean))
        if stop.is_set():
            rollout.stop()

    try:
        result = train_seed(run, folder, seed, resume=resume, on_rollout=after, progress=False)
        out.put(_Message(seed, result.env_steps, result=result))
    except UsageError as error:
        out.put(_Message(seed, error=str(error), is_mistake=True))
    except Exception:
        out.put(_Message(seed, error=traceback.format_exc()))


class _SideBySide:
    """Several seeds at a time, as many as there are cores."""

    def __init__(self, run: Run, folder: Path, seeds: Sequence[int], resume: bool) -> None:
        self.run, self.folder, self.resume = run, folder, resume
        self.waiting, self.results = list(seeds), Results()
        self.context = mp.get_context("spawn")  # torch's threads do not survive a fork
        self.messages, self.stop = self.context.Queue(), self.context.Event()
        self.processes: dict[int, BaseProcess] = {}
        self.steps = dict.fromkeys(seeds, 0)
        self.returns: dict[int, float] = {}
        self.at_once = min(len(seeds), max(available_cores() // run.threads, 1))

    def go(self) -> Results:
        """Train all; after Ctrl-C let those that run end in order."""
        total = self.run.total_steps * len(self.steps)
        try:
            with (
                tqdm(total=total, unit="step", unit_scale=True, mininterval=0.5) as bar,
                interruptible() as interrupted,
            ):
                while self.waiting or self.processes:
                    if interrupted():
                        self.stop.set()
                        self.waiting.clear()
                    while self.waiting and len(self.processes) < self.at_once:
                        self._begin(self.waiting.pop(0))
                    self._listen()
                    self._show(bar)
        finally:
            for process in self.processes.values():
                process.terminate()
                process.join()
        return {seed: self.results[seed] for seed in self.steps if seed in self.results}

    def _begin(self, seed: int) -> None:
        arguments = (self.run, self.folder, seed, self.resume, self.stop, self.messages)
        process = self.context.Process(
            target=_work, args=(*arguments, os.getpid()), name=f"seed {seed}"
        )
        start_without_ctrl_c(process)
        self.processes[seed] = process

    def _listen(self) -> None:
        """Take what processes say, and see whether all live."""
        # Before the queue: what a process has said last may arrive after its end.
        ended = [seed for seed, process in self.processes.items() if not process.is_alive()]
        try:
            message = self.messages.get(timeout=_POLL)
            while True:
                self._take(message)
                message = self.messages.get_nowait()
        except queue.Empty:
            pass
        for seed in ended:
            if seed in self.processes:
                code = self.processes.pop(seed).exitcode
                raise RuntimeError(
                    f"seed {seed}: its process died with exit code {code}; -9 is often a lack of "
                    f"memory, -11 a fault in compiled code"
                )

    def _take(self, message: _Message) -> None:
        seed = message.seed
        self.steps[seed] = max(self.steps[seed], min(message.env_steps, self.run.total_steps))
        if not math.isnan(message.mean_return):
            self.returns[seed] = message.mean_return
        if message.is_mistake:
            raise UsageError(message.error)
        if message.error:
            tqdm.write(message.error, file=sys.stderr)
            raise RuntimeError(f"seed {seed}: its training failed; the error stands above")
        if message.result is not None:
            self.results[seed] = message.result
            self.processes.pop(seed).join()

    def _show(self, bar: "tqdm[Any]") -> None:
        bar.update(sum(self.steps.values()) - bar.n)
        if self.returns:
            shown = " ".join(f"{self.returns[seed]:.0f}" for seed in sorted(self.returns))
            bar.set_postfix_str(f"returns {shown}", refresh=False)
