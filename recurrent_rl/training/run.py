"""One run of training: the loop, with what is due in it."""

import collections
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from recurrent_rl import checkpoint, distributed
from recurrent_rl.acting.collect import RolloutStats, collect_rollouts_recurrent
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.envs.final_infos import SUCCESS, mean_of_known
from recurrent_rl.envs.names import env_name
from recurrent_rl.files import tried
from recurrent_rl.metrics import MetricsLogger
from recurrent_rl.training.interrupts import interruptible
from recurrent_rl.training.report import (
    Evaluation,
    Rollout,
    State,
    StoppedBy,
    TrainingResult,
)
from recurrent_rl.training.settings import Settings
from recurrent_rl.versions import how_it_was_run

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
        settings: what it was asked for.
        agent: that is trained.
        state: how it stands.
        resumed: it goes on from a checkpoint.
        logger: writes what is logged; None writes nothing.
        bar: shows how far it is.
        interrupted: whether somebody has asked for the end.

    """

    logger: MetricsLogger | None = None
    bar: "tqdm[Any]"
    interrupted: Callable[[], bool]

    def __init__(self, settings: Settings, state: State, *, resumed: bool) -> None:
        """Args: what is asked for, how the run stands, and whether it stood so before."""
        self.settings, self.state, self.resumed = settings, state, resumed
        self.agent, self._each = settings.agent, settings.each
        for name, steps in self._each.items():
            state.due.setdefault(name, self.agent.env_steps + steps)
        self._began, self._before = time.perf_counter(), state.seconds
        self._first = self.agent.env_steps
        self._learned: dict[str, list[float]] = collections.defaultdict(list)

    def go(self) -> TrainingResult:
        """Train until something ends it."""
        with ExitStack() as stack:
            self._open(stack)
            stopped = self._train()
            if self.settings.checkpoint_path is not None:
                self._save()
        state, steps = self.state, self.agent.env_steps
        return TrainingResult(steps, state.evaluations, state.best, stopped, self._seconds())

    def _open(self, stack: ExitStack) -> None:
        """Begin to log, to show how far it is, and to note who wants the end."""
        log_dir, total = self.settings.log_dir, self.settings.total_steps
        if log_dir is not None:
            at = self.agent.env_steps if self.resumed else None
            self.logger = stack.enter_context(MetricsLogger(Path(log_dir), resume_at=at))
            self.logger.write_config(self.config())
        self.bar = stack.enter_context(
            tqdm(
                total=total,
                initial=min(self.agent.env_steps, total),
                unit="step",
                unit_scale=True,
                mininterval=0.5,
                disable=not self.settings.progress or not distributed.current().is_first,
            )
        )
        self.interrupted = stack.enter_context(interruptible())

    def _train(self) -> StoppedBy:
        """Collect and learn, and do what is due, until something ends it; return what."""
        # What is resumed may have ended already.
        stopped: StoppedBy | None = "stop_at" if self._is_good_enough() else None
        while stopped is None and not self._is_over():
            stopped = self._after(self._rollout())
        return stopped or "total_steps"

    def _is_over(self) -> bool:
        return bool(self.agent.env_steps >= self.settings.total_steps)

    def _rollout(self) -> Rollout:
        """Collect and learn."""
        agent = self.agent
        stats = collect_rollouts_recurrent(agent, self.settings.env)
        diagnostics = agent.learn()
        if agent.world.size > 1:
            stats = RolloutStats.together(agent.world.gather(stats))
        self.state.take(stats)
        by_group = diagnostics if isinstance(diagnostics, dict) else {"": diagnostics}
        for group, one in by_group.items():
            for name, value in one.to_dict().items():
                tag = "/".join(filter(None, ("train", group, TAGS.get(name, name))))
                self._learned[tag].append(value)
        self.bar.update(min(agent.env_steps, self.settings.total_steps) - self.bar.n)
        if self.state.returns:
            self.bar.set_postfix_str(f"return {np.mean(self.state.returns):.1f}", refresh=False)
        return Rollout(agent, agent.env_steps, self.settings.total_steps, stats, diagnostics)

    def _is_due(self, name: str) -> bool:
        steps, due = self.agent.env_steps, self.state.due
        is_due = bool(steps >= due[name])
        while steps >= due[name]:
            due[name] += self._each[name]
        return is_due

    def _after(self, rollout: Rollout) -> StoppedBy | None:
        """Evaluate, call back, log and save what is due; return why training is to end."""
        over, due = self._is_over(), self._is_due("eval_every")
        if self.settings.eval_env is not None and (due or over):
            rollout.evaluation = self._evaluate()
        saves = self._is_due("checkpoint_every") and self.settings.checkpoint_path is not None
        # Also where a checkpoint is, so that nothing is carried beyond it.
        if self._is_due("log_every") or over or saves or rollout.evaluation is not None:
            rollout.values |= self._values(rollout.evaluation)
        if self.settings.on_rollout is not None:
            self.settings.on_rollout(rollout)
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
        if self.settings.stop_at is None or not self.state.evaluations:
            return False
        last = self.state.evaluations[-1]
        return bool(last.env_steps == self.agent.env_steps and last.mean >= self.settings.stop_at)

    def _evaluate(self) -> Evaluation:
        """Test the agent, and keep it if it is the best so far; on rank 0, for all."""
        world = self.agent.world
        now: Evaluation = world.from_first(self._tested() if world.is_first else None)
        best, path = self.state.best, self.settings.best_path
        self.state.evaluations.append(now)
        if path is not None and (best is None or now.mean > best.mean):
            _tried(lambda: self.agent.save_checkpoint(path))
        return now

    def _tested(self) -> Evaluation:
        asked, infos = self.settings, dict[str, Any]()
        returns = self.agent.evaluate(
            asked.eval_env, asked.eval_episodes, seed=asked.eval_seed, infos=infos
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
        path, replay = self.settings.checkpoint_path, self.settings.save_replay
        assert path is not None
        keeps = {"save_replay": replay} if isinstance(self.agent, OffPolicyAgent) else {}
        self.state.seconds = self._seconds()
        data = {**self.agent.to_checkpoint(**keeps), "run": self.state.to_data()}
        if self.agent.world.is_first:
            _tried(lambda: checkpoint.save(data, path))

    def config(self) -> dict[str, Any]:
        """Return what is run, in plain values."""
        agent, asked = self.agent, self.settings
        trainers = agent.trainers.items()
        return {
            "algorithm": type(agent).__name__,
            "seed": agent.seed,
            "total_steps": asked.total_steps,
            "num_envs": int(getattr(asked.env, "num_envs", 1)),
            "environment": env_name(asked.env),
            "hyperparameters": {name or "agent": t.config.to_dict() for name, t in trainers},
            "net_config": {name or "agent": t.net_config.to_dict() for name, t in trainers},
            "eval_episodes": asked.eval_episodes,
            "eval_seed": asked.eval_seed,
            **self._each,
            **how_it_was_run(),
        }


def _tried(save: Callable[[], object]) -> None:
    """Save; if that is impossible now, warn: a full disk is no reason to lose the agent."""
    tried(save, "Training goes on, and saving will be tried again when it is due")
