"""Tests of what infos say in training runs: in logs, across checkpoints, and as fitness."""

import contextlib
import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import Recall
from support.multi_envs import RecallTeam
from support.training_runs import StopAt, evolution, population, train

from recurrent_rl import (
    DQN,
    RolloutStats,
    make_multi_agent_vect_envs,
    make_vect_envs,
    train_off_policy,
)
from recurrent_rl.evolution.member import Report


class Remembers(gym.Wrapper):  # type: ignore[type-arg]
    """Says whether the answer was right, and how long that took."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated:
            info = {"is_success": reward == 1, "steps": self.unwrapped.time, "text": "over"}
        return observation, reward, terminated, truncated, info


class TeamRemembers(RecallTeam):
    """The same of each agent."""

    def step(self, actions: Any) -> Any:
        seen, rewards, ended, truncated, infos = super().step(actions)
        for agent in ended:
            if ended[agent]:
                infos[agent] = {"is_success": rewards[agent] == 1, "steps": self.time}
        return seen, rewards, ended, truncated, infos


def recall_env(num_envs: int = 4) -> Any:
    return make_vect_envs(
        make_env=lambda: Remembers(Recall()), num_envs=num_envs, should_async_vector=False
    )


def team_env() -> Any:
    return make_multi_agent_vect_envs(TeamRemembers, 2, should_async_vector=False)


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("quick_workers")
def test_logs_have_successes_and_other_numbers(workers: int, tmp_path: Path) -> None:
    env = recall_env()
    pop = population(env, 2)
    train(env, pop, max_steps=256, log_dir=tmp_path, workers=workers)
    metrics, individuals = (read(tmp_path / name) for name in ("metrics.csv", "population.csv"))
    for generation, row in enumerate(metrics):
        own = individuals[2 * generation : 2 * generation + 2]
        # An episode's return is 1 for a success.
        for place, individual in enumerate(own):
            for name in ("success_rate", "eval_success_rate"):
                assert row[f"member_{place}/{name}"] == individual[name]
            assert individual["success_rate"] == individual["score"]
            assert individual["eval_success_rate"] == individual["fitness"]
            assert row[f"member_{place}/info/steps"] == "9.0"
        for tag, name in (("rollout", "success_rate"), ("eval", "eval_success_rate")):
            mean = np.mean([float(individual[name]) for individual in own])
            assert float(row[f"{tag}/success_rate"]) == pytest.approx(mean)
    assert not any("is_success" in name or "text" in name for name in metrics[0])


def test_logs_of_teams(tmp_path: Path) -> None:
    env = team_env()
    train(env, population(env, 1), max_steps=64, log_dir=tmp_path)
    row = read(tmp_path / "metrics.csv")[-1]
    assert float(row["rollout/success_rate"]) == pytest.approx(float(row["member_0/score"]) / 3)
    assert [name for name in row if "info/" in name] == ["member_0/info/steps"]


def test_logs_of_those_who_learn_from_a_replay(tmp_path: Path) -> None:
    env = recall_env()
    agent = DQN(
        env.single_observation_space, env.single_action_space, learning_starts=32, batch_size=4
    )
    options = {"max_steps": 128, "evo_steps": 64, "verbose": False, "log_dir": tmp_path}
    train_off_policy(env, "Recall", "DQN", [agent], **options)
    for row in read(tmp_path / "metrics.csv"):
        assert float(row["rollout/success_rate"]) == pytest.approx(float(row["member_0/score"]))
        assert row["member_0/info/steps"] == "9.0"


def test_logs_where_nobody_speaks_of_successes(tmp_path: Path) -> None:
    env = make_vect_envs(make_env=Recall, num_envs=4, should_async_vector=False)
    train(env, population(env, 1), max_steps=64, log_dir=tmp_path)
    columns = [*read(tmp_path / "metrics.csv")[0], *read(tmp_path / "population.csv")[0]]
    assert not any("success" in name or "info/" in name for name in columns)


@pytest.mark.usefixtures("quick_workers")
def test_a_population_is_selected_by_success() -> None:
    env = recall_env()
    options: dict[str, Any] = {"max_steps": 256, **evolution()}
    by_name = train(env, population(env), fitness="is_success", **options)[1]
    assert by_name == train(env, population(env), **options)[1]  # the return is 1 for a success
    twice = train(
        env,
        population(env),
        fitness=lambda _, infos: 2 * infos["is_success"].mean(),
        workers=2,
        **options,
    )[1]
    assert np.array(twice) == pytest.approx(2 * np.array(by_name))
    stopped = train(env, population(env, 2), fitness="steps", target=9.0)[1]
    assert stopped == [[9.0, 9.0]]


def test_a_team_is_selected_by_success() -> None:
    env = team_env()
    options = {"max_steps": 64, "evo_steps": 64}
    found = [
        train(env, population(env, 1), fitness=fitness, **options)[1][0][0]
        for fitness in (None, "is_success", "a_1/is_success", "a_1")
    ]
    assert found[0] == pytest.approx(3 * found[1])
    assert found[2] == found[3]


def test_a_team_that_is_tested_with_other_agents() -> None:
    (agent,) = population(team_env(), 1)
    larger = make_multi_agent_vect_envs(lambda: TeamRemembers(4), 2, should_async_vector=False)
    infos: dict[str, Any] = {}
    total = agent.test(larger, seed=1, infos=infos)
    own = [infos[f"a_{i}/is_success"].mean() for i in range(4)]
    assert total == pytest.approx(sum(own))
    by_success = agent.test(larger, seed=1, fitness="is_success")
    assert by_success == pytest.approx(np.mean(own))


def test_a_name_that_nobody_says() -> None:
    env = recall_env()
    with pytest.raises(ValueError, match=r"\['is_success', 'steps'\], got 'success'"):
        train(env, population(env, 1), fitness="success")


def test_logs_go_on_exactly(tmp_path: Path) -> None:
    options: dict[str, Any] = {"fitness": "is_success", **evolution()}
    path = tmp_path / "run.pt"
    stopped = StopAt(recall_env(), 260, ZeroDivisionError)  # in the second generation
    with contextlib.suppress(ZeroDivisionError):
        train(stopped, population(stopped), log_dir=tmp_path / "a", checkpoint_path=path, **options)
    assert len(read(tmp_path / "a" / "metrics.csv")) == 1
    env = recall_env()
    options |= {"tournament": evolution()["tournament"], "mutation": evolution()["mutation"]}
    train(env, population(env), log_dir=tmp_path / "a", resume=path, **options)
    train(env, population(env), log_dir=tmp_path / "b", **{**options, **evolution()})
    for name in ("metrics.csv", "population.csv"):
        one, other = (read(tmp_path / folder / name) for folder in "ab")
        for row in (*one, *other):
            for timed in ("seconds", "steps_per_second"):
                row.pop(timed, None)
        assert one == other
        assert list(one[0]) == list(other[0])


def test_reports_of_earlier_versions() -> None:
    report = Report(steps=3, score=1.0, fitness=2.0, seconds=0.1)
    assert np.isnan([report.success_rate, report.eval_success_rate]).all()
    assert np.isnan(RolloutStats(3, [1.0], [3]).success_rate)


def test_an_individual_without_episodes_ranks_last() -> None:
    env = recall_env()
    with pytest.warns(UserWarning, match="it ranks last"):
        fitnesses = train(
            env, population(env, 2), eval_steps=3, fitness="is_success", max_steps=64
        )[1]
    assert np.isnan(fitnesses).all()
