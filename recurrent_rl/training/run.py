"""One run of training: the loop, with what is due in it."""

import collections
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from tqdm import tqdm

from recurrent_rl import checkpoint
from recurrent_rl.acting.collect import RolloutStats, collect_rollouts_recurrent
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.envs.final_infos import SUCCESS, mean_of_known
from recurrent_rl.envs.names import env_name
from recurrent_rl.files import tried
from recurrent_rl.metrics import MetricsLogger
from recurrent_rl.training.report import (
    Evaluation,
    Rollout,
    State,
    StoppedBy,
    TrainingResult,
)
from recurrent_rl.versions import versions

FilePath = str | os.PathLike[str]
# What users of other libraries look for, where a name of ours differs.
TAGS = {
    "policy_loss": "policy_gradient_loss",
    "lr": "learning_rate",
    "lr_actor": "learning_rate_actor",
    "lr_critic": "learning_rate_critic",
    "lr_encoder": "learning_rate_encoder",
    "lr_alpha": "learning_rate_alpha",
    "clip_coef": "clip_range",
    "updates": "n_updates",
}


class Run:
    """One call of ``train``.

    Attributes:
        logger: writes what is logged; None writes nothing.
        bar: shows how far it is.
        interrupted: whether somebody has asked for the end.

    """

    logger: MetricsLogger | None = None
    bar: "tqdm[Any]"
    interrupted: Callable[[], bool]

    def __init__(
        self,
        agent: Agent,
        env: Any,
        total_steps: int,
        state: State,
        each: Mapping[str, int],
        *,
        eval_env: Any,
        eval_episodes: int,
        eval_seed: int,
        stop_at: float | None,
        best_path: FilePath | None,
        checkpoint_path: FilePath | None,
        save_replay: bool,
        on_rollout: Callable[[Rollout], object] | None,
    ) -> None:
        """See ``train``; ``each`` has the steps between what is due again and again."""
        self.agent: Any = agent
        self.env, self.total_steps, self.state = env, total_steps, state
        self.eval_env, self.eval_episodes = eval_env, eval_episodes
        self.eval_seed, self.stop_at = eval_seed, stop_at
        self.best_path, self.checkpoint_path = best_path, checkpoint_path
        self.save_replay, self.on_rollout = save_replay, on_rollout
        self._each = each
        for name, steps in each.items():
            state.due.setdefault(name, agent.env_steps + steps)
        self._began, self._before = time.perf_counter(), state.seconds
        self._first = agent.env_steps
        self._learned: dict[str, list[float]] = collections.defaultdict(list)

    def go(self) -> TrainingResult:
        """Train until something ends it."""
        # What is resumed may have ended already.
        stopped: StoppedBy | None = "stop_at" if self._is_good_enough() else None
        while stopped is None and self.agent.env_steps < self.total_steps:
            rollout = self._rollout()
            stopped = self._after(rollout, over=self.agent.env_steps >= self.total_steps)
        if self.checkpoint_path is not None:
            self._save()
        state = self.state
        return TrainingResult(
            self.agent.env_steps,
            state.evaluations,
            state.best,
            stopped or "total_steps",
            self._seconds(),
        )

    def _rollout(self) -> Rollout:
        """Collect and learn."""
        agent = self.agent
        stats = collect_rollouts_recurrent(agent, self.env)
        diagnostics = agent.learn()
        if agent.world.size > 1:
            stats = RolloutStats.together(agent.world.gather(stats))
        self.state.take(stats)
        by_group = diagnostics if isinstance(diagnostics, dict) else {"": diagnostics}
        for group, one in by_group.items():
            for name, value in one.to_dict().items():
                tag = "/".join(filter(None, ("train", group, TAGS.get(name, name))))
                self._learned[tag].append(value)
        self.bar.update(min(agent.env_steps, self.total_steps) - self.bar.n)
        if self.state.returns:
            self.bar.set_postfix_str(f"return {np.mean(self.state.returns):.1f}", refresh=False)
        return Rollout(agent, agent.env_steps, self.total_steps, stats, diagnostics)

    def _is_due(self, name: str) -> bool:
        steps, due = self.agent.env_steps, self.state.due
        is_due = bool(steps >= due[name])
        while steps >= due[name]:
            due[name] += self._each[name]
        return is_due

    def _after(self, rollout: Rollout, over: bool) -> StoppedBy | None:
        """Evaluate, call back, log and save what is due; return why training is to end."""
        due = self._is_due("eval_every")
        if self.eval_env is not None and (due or over):
            rollout.evaluation = self._evaluate()
        saves = self._is_due("checkpoint_every") and self.checkpoint_path is not None
        # Also where a checkpoint is, so that nothing is carried beyond it.
        if self._is_due("log_every") or over or saves or rollout.evaluation is not None:
            rollout.values |= self._values(rollout.evaluation)
        if self.on_rollout is not None:
            self.on_rollout(rollout)
        if self.logger is not None and rollout.values:
            self.logger.log(self.agent.env_steps, rollout.values)
        if saves and not over:
            self._save()
            self.agent.collection.forget()
            self.agent.join_world(again=True)  # as where a run is resumed
        asked = self.agent.world.numbers(rollout.stops, self.interrupted())
        if any(stops for stops, _ in asked):
            return "on_rollout"
        if self._is_good_enough():
            return "stop_at"
        return "interrupt" if any(interrupted for _, interrupted in asked) else None

    def _is_good_enough(self) -> bool:
        """Whether a test of the agent as it is now has reached ``stop_at``."""
        if self.stop_at is None or not self.state.evaluations:
            return False
        last = self.state.evaluations[-1]
        return bool(last.env_steps == self.agent.env_steps and last.mean >= self.stop_at)

    def _evaluate(self) -> Evaluation:
        """Test the agent, and keep it if it is the best so far; on rank 0, for all."""
        world = self.agent.world
        now: Evaluation = world.from_first(self._tested() if world.is_first else None)
        best, path = self.state.best, self.best_path
        self.state.evaluations.append(now)
        if path is not None and (best is None or now.mean > best.mean):
            _tried(lambda: self.agent.save_checkpoint(path))
        return now

    def _tested(self) -> Evaluation:
        infos: dict[str, Any] = {}
        returns = self.agent.evaluate(
            self.eval_env, self.eval_episodes, seed=self.eval_seed, infos=infos
        )
        if isinstance(returns, dict):
            returns = np.sum(list(returns.values()), axis=0)
        rate = mean_of_known(infos.get(SUCCESS, ()))
        success = None if math.isnan(rate) else rate
        return Evaluation(
            self.agent.env_steps, float(returns.mean()), float(returns.std()), success
        )

    def _values(self, evaluation: Evaluation | None) -> dict[str, float]:
        """Return what is to be logged."""
        values = self.state.values()
        for tag, numbers in self._learned.items():
            if tag.endswith("n_updates"):
                values[tag] = self.state.updates.get(tag, 0.0) + sum(numbers)
                self.state.updates[tag] = values[tag]
                continue
            if not math.isnan(mean := mean_of_known(numbers)):
                values[tag] = mean
        self._learned.clear()
        values |= self.agent.own_metrics()
        values["time/total_timesteps"] = float(self.agent.env_steps)
        values["time/time_elapsed"] = self._seconds()
        steps, seconds = self.agent.env_steps - self._first, self._seconds() - self._before
        values["time/fps"] = steps / max(seconds, 1e-9)
        if evaluation is not None:
            values["eval/mean_reward"], values["eval/std_reward"] = evaluation.mean, evaluation.std
            if evaluation.success_rate is not None:
                values["eval/success_rate"] = evaluation.success_rate
        return values

    def _seconds(self) -> float:
        return self._before + time.perf_counter() - self._began

    def _save(self) -> None:
        """Save the latest agent, with how the run stands."""
        path = self.checkpoint_path
        assert path is not None
        keeps = {"save_replay": self.save_replay} if isinstance(self.agent, OffPolicyAgent) else {}
        self.state.seconds = self._seconds()
        data = {**self.agent.to_checkpoint(**keeps), "run": self.state.to_data()}
        if self.agent.world.is_first:
            _tried(lambda: checkpoint.save(data, path))

    def config(self) -> dict[str, Any]:
        """Return what is run, in plain values."""
        agent = self.agent
        trainers = agent.trainers.items()
        return {
            "algorithm": type(agent).__name__,
            "seed": agent.seed,
            "total_steps": self.total_steps,
            "num_envs": int(getattr(self.env, "num_envs", 1)),
            "environment": env_name(self.env),
            "hyperparameters": {name or "agent": t.config.to_dict() for name, t in trainers},
            "net_config": {name or "agent": t.net_config.to_dict() for name, t in trainers},
            "eval_episodes": self.eval_episodes,
            "eval_seed": self.eval_seed,
            **self._each,
            "command": sys.argv,
            "versions": versions(),
        }


def _tried(save: Callable[[], object]) -> None:
    """Save; if that is impossible now, warn: a full disk is no reason to lose the agent."""
    tried(save, "Training goes on, and saving will be tried again when it is due")


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C, for training to end in order; the second one interrupts."""
    noted, before = threading.Event(), signal.getsignal(signal.SIGINT)
    # Signals go to the main thread; and whoever runs it in the background may have them ignored.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield noted.is_set
        return

    def note(number: int, frame: Any) -> None:
        noted.set()
        signal.signal(signal.SIGINT, before)
        tqdm.write("Ending with this rollout, and saving; press Ctrl-C again to end at once.")

    signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, before)
