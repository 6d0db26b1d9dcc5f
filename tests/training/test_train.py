"""Tests of `recurrent_rl.training`: one call that trains, tests, logs, saves and goes on."""

import csv
import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.contract import CASES, everything
from support.envs import scripted
from support.pairs import EXPLORE

from recurrent_rl import PPO, Rollout, SequenceRolloutBuffer, TrainingResult, train
from recurrent_rl.checkpoint import CheckpointError

QUIET: dict[str, Any] = {"progress": False}


def parts(name: str = "ppo", **options: Any) -> tuple[Any, Any, Any]:
    """An agent, its environments, and others like them to test in."""
    case = CASES[name]
    return case.agent(**options), case.vector(), case.vector()


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def without_time(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


TIMES = ("time/fps", "time/time_elapsed")


class KilledError(Exception):
    """In the place of a process that ends."""


# --- to the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo", "ippo", "mappo", "sac", "dqn", "maddpg"])
def test_any_agent_is_trained_tested_and_logged(name: str, tmp_path: Path) -> None:
    agent, env, eval_env = parts(name)
    result = train(
        agent,
        env,
        120,
        eval_env=eval_env,
        eval_every=40,
        eval_episodes=2,
        log_dir=tmp_path,
        **QUIET,
    )
    assert isinstance(result, TrainingResult)
    assert result.env_steps == agent.env_steps >= 120
    assert result.stopped_by == "total_steps"
    assert [one.env_steps for one in result.evaluations] == pytest.approx([40, 80, 120], abs=20)
    assert result.best in result.evaluations
    rows = rows_of(tmp_path)
    assert int(rows[-1]["step"]) == agent.env_steps
    usual = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "time/total_timesteps"}
    assert usual | {"eval/mean_reward", "eval/std_reward"} <= rows[-1].keys()
    assert any(tag.startswith("train/") and tag.endswith("n_updates") for tag in rows[-1])
    assert float(rows[-1]["eval/mean_reward"]) == result.evaluations[-1].mean
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["algorithm"] == type(agent).__name__
    assert said["total_steps"] == 120
    assert said["num_envs"] == 2
    assert said["versions"]["torch"] == torch.__version__
    for group, trainer in agent.trainers.items():
        assert said["hyperparameters"][group or "agent"]["gamma"] == trainer.config.gamma


def test_means_over_the_last_episodes(tmp_path: Path) -> None:
    agent, env, _ = parts(lr_schedule="constant")
    seen: list[Any] = []
    train(agent, env, 700, log_dir=tmp_path, on_rollout=lambda r: seen.append(r.stats), **QUIET)
    returns = [x for stats in seen for x in stats.returns]
    assert len(returns) > 100
    last = rows_of(tmp_path)[-1]
    assert float(last["rollout/ep_rew_mean"]) == pytest.approx(np.mean(returns[-100:]))
    lengths = [x for stats in seen for x in stats.lengths]
    assert float(last["rollout/ep_len_mean"]) == pytest.approx(np.mean(lengths[-100:]))


class Successful(gym.Wrapper[Any, Any, Any, Any]):
    """Says at each end whether it was one of the good ones."""

    count = 0

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            self.count += 1
            info = {**info, "is_success": self.count % 4 == 0, "score": 7.0}
        return observation, reward, terminated, truncated, info


def test_successes_are_counted(tmp_path: Path) -> None:
    def build() -> gym.Env[Any, Any]:
        return Successful(gym.make("CartPole-v1", max_episode_steps=5))

    env = gym.vector.SyncVectorEnv([build] * 2, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    agent = PPO(env.single_observation_space, env.single_action_space, learn_step=10, seed=0)
    result = train(agent, env, 200, eval_env=build(), eval_episodes=8, log_dir=tmp_path, **QUIET)
    last = rows_of(tmp_path)[-1]
    assert float(last["rollout/success_rate"]) == pytest.approx(0.25, abs=0.05)
    assert float(last["rollout/score"]) == 7.0
    assert result.evaluations[-1].success_rate == float(last["eval/success_rate"]) == 0.25


def test_replays_do_not_fill_logs(tmp_path: Path) -> None:
    agent, env, _ = parts("sac", learn_step=2)
    train(agent, env, 300, log_dir=tmp_path, log_every=100, **QUIET)
    rows = rows_of(tmp_path)
    assert len(rows) == 3
    updates = [float(row["train/n_updates"]) for row in rows]
    assert updates == sorted(updates)
    assert updates[-1] == agent.learner.updates


def test_a_bar_shows_how_far_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    agent, env, _ = parts()
    train(agent, env, 60)
    shown = capfd.readouterr().err
    assert "100%" in shown
    assert "step/s" in shown
    assert "return" in shown
    train(agent, env, 120, progress=False)
    assert not capfd.readouterr().err


def test_updates_of_groups_are_counted_apart(tmp_path: Path) -> None:
    agent, env, _ = parts("ippo")
    counts = dict.fromkeys(agent.trainers, 0)

    def count(rollout: Rollout) -> None:
        for name, diagnostics in rollout.diagnostics.items():
            counts[name] += diagnostics.updates

    train(agent, env, 100, log_dir=tmp_path, on_rollout=count, **QUIET)
    last = rows_of(tmp_path)[-1]
    assert len(counts) == 2
    for name, updates in counts.items():
        assert float(last[f"train/{name}/n_updates"]) == updates > 0


# --- what ends it, and what is kept ------------------------------------------------------------


def evaluating(agent: Any, means: list[float]) -> None:
    """Let tests give some returns, one after the other."""
    given = iter(means)
    agent.evaluate = lambda *args, **options: np.full(4, next(given))


def test_the_best_is_kept_apart_from_the_latest(tmp_path: Path) -> None:
    agent, env, eval_env = parts()
    evaluating(agent, [1.0, 3.0, 3.0, math.nan, 2.0])
    result = train(
        agent,
        env,
        100,
        eval_env=eval_env,
        eval_every=20,
        best_path=tmp_path / "best.pt",
        checkpoint_path=tmp_path / "latest.pt",
        **QUIET,
    )
    assert [one.mean for one in result.evaluations][:3] == [1.0, 3.0, 3.0]
    assert result.best == result.evaluations[1]
    assert PPO.load(tmp_path / "best.pt").env_steps == 40
    assert PPO.load(tmp_path / "latest.pt").env_steps == 100


def test_it_stops_where_a_test_is_good_enough() -> None:
    agent, env, eval_env = parts()
    evaluating(agent, [1.0, 5.0, 9.0])
    result = train(agent, env, 200, eval_env=eval_env, eval_every=20, stop_at=4.0, **QUIET)
    assert result.stopped_by == "stop_at"
    assert (result.env_steps, len(result.evaluations)) == (40, 2)


def test_a_run_that_has_stopped_is_over_when_it_is_resumed(tmp_path: Path) -> None:
    agent, env, eval_env = parts()
    options = {"checkpoint_path": tmp_path / "latest.pt", "eval_every": 20, **QUIET}
    evaluating(agent, [5.0])
    train(agent, env, 200, eval_env=eval_env, stop_at=4.0, **options)
    options |= {"resume": True, "eval_env": eval_env}
    result = train(agent, env, 200, stop_at=4.0, **options)
    assert (result.stopped_by, result.env_steps) == ("stop_at", 20)
    evaluating(agent, [6.0])
    result = train(agent, env, 200, stop_at=5.5, **options)  # asked for more, it goes on
    assert (result.stopped_by, result.env_steps) == ("stop_at", 40)


def test_callbacks_stop_log_and_change(tmp_path: Path) -> None:
    agent, env, _ = parts("ppo", lr_schedule="constant")
    seen: list[Rollout] = []

    def on_rollout(rollout: Rollout) -> None:
        seen.append(rollout)
        rollout.values["mine"] = float(len(seen))
        if len(seen) == 2:
            rollout.agent.reconfigure(lr=1e-4)
        if len(seen) == 4:
            rollout.stop()

    result = train(agent, env, 1000, log_dir=tmp_path, on_rollout=on_rollout, **QUIET)
    assert result.stopped_by == "on_rollout"
    assert len(seen) == 4
    assert agent.config.lr == 1e-4
    rows = rows_of(tmp_path)
    assert [row["mine"] for row in rows] == ["1.0", "2.0", "3.0", "4.0"]
    rates = [float(row["train/learning_rate"]) for row in rows]
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[0] != rates[-1]


def test_what_is_over_is_not_trained_on() -> None:
    agent, env, _ = parts()
    train(agent, env, 40, **QUIET)
    before = everything(agent)
    result = train(agent, env, 40, **QUIET)
    assert result.env_steps == 40
    assert all(torch.equal(x, before[name]) for name, x in everything(agent).items())


# --- interrupted, and resumed ------------------------------------------------------------------


def killed_at(steps: int) -> Callable[[Rollout], None]:
    def on_rollout(rollout: Rollout) -> None:
        if rollout.env_steps >= steps:
            raise KilledError

    return on_rollout


# What agents of every class save is tested with them; here it is how a run goes on with each kind:
# one agent or several, learning from rollouts or from a replay.
@pytest.mark.parametrize("name", CASES if EXPLORE else ["ppo", "mappo", "sac", "matd3"])
def test_a_resumed_run_is_the_same_to_the_last_bit(name: str, tmp_path: Path) -> None:
    ended = []
    for kill in (None, 130):
        folder = tmp_path / str(kill)
        folder.mkdir()
        options: dict[str, Any] = {
            "eval_every": 45,
            "eval_episodes": 2,
            "log_dir": folder,
            "checkpoint_path": folder / "latest.pt",
            "checkpoint_every": 60,
            **QUIET,
        }
        agent, env, eval_env = parts(name)
        if kill is not None:
            with pytest.raises(KilledError):
                train(agent, env, 200, eval_env=eval_env, on_rollout=killed_at(kill), **options)
            agent, env, eval_env = parts(name, seed=99)  # another process knows nothing of it
        result = train(agent, env, 200, eval_env=eval_env, resume=kill is not None, **options)
        ended.append((everything(agent), result.evaluations, without_time(rows_of(folder))))
    (ours, tests, log), (theirs, other_tests, other_log) = ended
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())
    assert tests == other_tests
    assert log == other_log


@pytest.fixture
def interrupts() -> Iterator[None]:
    """As in a terminal: shells have Ctrl-C ignored by what they run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_with_the_rollout_and_saves(tmp_path: Path) -> None:
    agent, env, _ = parts()
    before = signal.getsignal(signal.SIGINT)

    def press(rollout: Rollout) -> None:
        if rollout.env_steps == 40:
            signal.raise_signal(signal.SIGINT)

    result = train(
        agent, env, 400, checkpoint_path=tmp_path / "latest.pt", on_rollout=press, **QUIET
    )
    assert (result.stopped_by, result.env_steps) == ("interrupt", 40)
    assert PPO.load(tmp_path / "latest.pt").env_steps == 40
    assert signal.getsignal(signal.SIGINT) is before
    result = train(agent, env, 80, checkpoint_path=tmp_path / "latest.pt", resume=True, **QUIET)
    assert (result.stopped_by, result.env_steps) == ("total_steps", 80)


@pytest.mark.usefixtures("interrupts")
def test_a_second_ctrl_c_interrupts_at_once() -> None:
    agent, env, _ = parts()

    def press(rollout: Rollout) -> None:
        for _ in range(2):  # from outside two at once would be one
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(agent, env, 400, on_rollout=press, **QUIET)


@pytest.mark.usefixtures("interrupts")
def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent, env, _ = parts()
    result = train(agent, env, 60, on_rollout=lambda _: signal.raise_signal(signal.SIGINT), **QUIET)
    assert (result.stopped_by, result.env_steps) == ("total_steps", 60)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_a_thread() -> None:
    agent, env, _ = parts()
    done: list[TrainingResult] = []
    thread = threading.Thread(target=lambda: done.append(train(agent, env, 40, **QUIET)))
    thread.start()
    thread.join()
    assert done[0].env_steps == 40


def test_auto_resumes_where_there_is_something(tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    for total in (40, 80):
        agent, env, _ = parts()
        result = train(agent, env, total, checkpoint_path=path, resume="auto", **QUIET)
        assert result.env_steps == total
    assert PPO.load(path).env_steps == 80


def test_a_full_disk_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, env, eval_env = parts()

    def full(*args: Any, **options: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr("recurrent_rl.checkpoint.save", full)
    paths = {"best_path": tmp_path / "best.pt", "checkpoint_path": tmp_path / "latest.pt"}
    with pytest.warns(RuntimeWarning, match="no room. Training goes on"):
        result = train(agent, env, 60, eval_env=eval_env, **paths, **QUIET)
    assert result.stopped_by == "total_steps"
    assert not list(tmp_path.iterdir())


def test_replays_are_left_out_on_request(tmp_path: Path) -> None:
    sizes = []
    for keep in (True, False):
        agent, env, _ = parts("sac")
        path = tmp_path / f"{keep}.pt"
        train(agent, env, 100, checkpoint_path=path, save_replay=keep, **QUIET)
        sizes.append(path.stat().st_size)
    assert sizes[0] > sizes[1]


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"total_steps": 0}, ValueError, r"total_steps: expected"),
        ({"eval_every": 0}, ValueError, r"eval_every: expected"),
        ({"stop_at": 3.0}, ValueError, r"stop_at: expected None without an eval_env"),
        ({"best_path": "best.pt"}, ValueError, r"best_path: expected None without an eval_env"),
        ({"resume": True}, ValueError, r"resume: expected a checkpoint_path"),
        ({"resume": "yes"}, ValueError, r"resume: expected True, False or 'auto'"),
        (
            {"resume": True, "checkpoint_path": "nothing.pt"},
            FileNotFoundError,
            r"resume: expected a checkpoint at nothing.pt",
        ),
        (
            {"checkpoint_path": "nowhere/latest.pt"},
            FileNotFoundError,
            r"checkpoint_path: expected the directory nowhere to exist",
        ),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    agent, env, _ = parts()
    before = everything(agent)
    with pytest.raises(error, match=message):
        train(agent, env, **{"total_steps": 40, **options}, **QUIET)
    assert all(torch.equal(x, before[name]) for name, x in everything(agent).items())
    assert not list(tmp_path.iterdir())


def test_environments_and_agents_that_do_not_fit(tmp_path: Path) -> None:
    agent, env, eval_env = parts()
    with pytest.raises(ValueError, match=r"eval_env: expected another environment than env"):
        train(agent, env, 40, eval_env=env, **QUIET)
    path = tmp_path / "a.pt"
    with pytest.raises(ValueError, match=r"best_path: expected another file"):
        train(agent, env, 40, eval_env=eval_env, best_path=path, checkpoint_path=path, **QUIET)
    with pytest.raises(ValueError, match="env"):
        train(agent, scripted(["3t"], observation="narrow"), 40, **QUIET)
    with pytest.raises(TypeError, match=r"agent: expected an agent of this package"):
        train(SequenceRolloutBuffer, env, 40, **QUIET)
    assert agent.env_steps == 0


def test_agents_alone_and_other_agents_are_no_runs(tmp_path: Path) -> None:
    agent, env, _ = parts()
    agent.save_checkpoint(tmp_path / "agent.pt")
    with pytest.raises(CheckpointError, match=r"expected what train\(\) has saved"):
        train(agent, env, 40, checkpoint_path=tmp_path / "agent.pt", resume=True, **QUIET)
    other, others, _ = parts("sac")
    train(other, others, 40, checkpoint_path=tmp_path / "sac.pt", **QUIET)
    before = everything(agent)
    with pytest.raises(CheckpointError, match="SAC"):
        train(agent, env, 40, checkpoint_path=tmp_path / "sac.pt", resume=True, **QUIET)
    assert all(torch.equal(x, before[name]) for name, x in everything(agent).items())
