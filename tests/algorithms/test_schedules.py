"""Tests of `recurrent_rl.algorithms.schedule*`: shapes, horizons, functions in files, logs."""

import math
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector.utils import CloudpickleWrapper
from support.contract import CASES, train
from support.evolving import assert_same, snapshot
from support.training_runs import assert_same_agents, evolution, recall_env
from support.training_runs import train as train_population

from recurrent_rl import (
    PPO,
    CheckpointError,
    HyperparameterConfig,
    OpponentPool,
    RLParameter,
    collect_rollouts_recurrent,
    create_population,
    load_population,
)
from recurrent_rl import train as train_one
from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.algorithms.off_policy_configs import DQNConfig
from recurrent_rl.algorithms.schedules import Schedule
from recurrent_rl.evolution.pool import packed, unpacked

HALVES: dict[str, Any] = {"total_steps": 80}  # rollouts of 20 steps


def stepwise(progress: float) -> float:
    """A module's own function."""
    return 1.0 if progress < 0.5 else 0.25


def lambdas() -> dict[str, Callable[[float], float]]:
    """Functions that no file can name."""
    return {"lr_schedule": lambda p: 1 - p / 2, "ent_schedule": lambda p: 2 - p}


# --- what they give -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, 0]),
        (0.2, [1, 0.8, 0.6, 0.2]),
        (0, [1, 0.75, 0.5, 0]),
        (1, [1, 1, 1, 1]),
        (stepwise, [1, 1, 0.25, 0.25]),
        (lambda p: np.float32(3), [3, 3, 3, 3]),
    ],
)
def test_factors_by_hand(schedule: Schedule, expected: list[float]) -> None:
    config = PPOConfig(lr=2.0, lr_schedule=schedule, total_steps=400)
    for steps, factor in zip((0, 100, 200, 400), expected, strict=True):
        assert config.coefficients(steps).lr == pytest.approx(2 * factor)
    # Behind the horizon they stay as they are there.
    assert config.factor("lr_schedule", 10**6) == config.factor("lr_schedule", 400)
    assert config.end_of_learning == (400 if expected[-1] == 0 else None)


def test_each_has_its_own() -> None:
    config = PPOConfig(
        lr=0.1,
        clip_coef=0.2,
        ent_coef=0.3,
        lr_schedule="linear",
        clip_schedule=0.5,
        ent_schedule=lambda p: 1 + p,
        total_steps=10,
    )
    assert config.coefficients(5) == pytest.approx((0.05, 0.15, 0.45))


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"clip_schedule": 0.5}, ValueError, r"total_steps: expected .*clip_schedule=0\.5 needs"),
        ({"lr_schedule": "Linear"}, ValueError, r'lr_schedule: expected "constant".*got \'Linear'),
        ({"lr_schedule": None}, TypeError, r"lr_schedule: .* a function of progress, got None"),
        ({"lr_schedule": 1.5}, ValueError, r"lr_schedule: expected a number in \[0, 1\], got 1\.5"),
        (
            {"lr_schedule": lambda p: 0.5 - p},
            ValueError,
            r"lr_schedule: expected a finite number from 0 at progress 0\.6, got -0\.\d+ from t",
        ),
        ({"lr_schedule": lambda p: "a"}, TypeError, r"finite number .* got 'a' from the function"),
        ({"lr_schedule": lambda p: 1 / p}, ValueError, r"progress 0, got ZeroDivisionError from"),
        ({"lr_schedule": dict}, ValueError, r"progress 0, got TypeError from the function <class"),
        ({"lr": lambda p: 1e-3}, TypeError, r"PPOConfig\.lr: .*belongs in lr_schedule"),
        ({"clip_coef": lambda p: 0.2}, TypeError, r"clip_coef: .* belongs in clip_schedule"),
        ({"ent_schedule": "linear"}, ValueError, r"ent_coef: expected more than 0 for ent_sch"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    horizon = {} if "clip_schedule" in options else {"total_steps": 10}
    with pytest.raises(kind, match=message):
        PPOConfig(**options, **horizon)


def test_off_policy_has_one_for_all_step_sizes() -> None:
    with pytest.raises(ValueError, match="DQNConfig has no option 'clip_schedule'"):
        DQNConfig.from_dict({"clip_schedule": "linear"})
    with pytest.raises(TypeError, match=r"DQNConfig\.lr: .*lambda.* belongs in lr_schedule"):
        DQNConfig(lr=lambda p: p)  # type: ignore[arg-type]


# --- what they do -------------------------------------------------------------------------------


def test_each_rollout_is_learned_from_with_what_schedules_say_then() -> None:
    options = {"lr": 0.01, "clip_schedule": "cosine", "ent_coef": 0.1, "ent_schedule": stepwise}
    case = CASES["ppo"]
    agent, env = case.agent(**options, **HALVES, lr_schedule=0.2), case.vector()
    said = [agent.learn() for _ in range(4) if collect_rollouts_recurrent(agent, env)]
    assert [each.lr for each in said] == pytest.approx([0.01, 0.008, 0.006, 0.004])
    cosine = [0.2, 0.1 * (1 + math.sqrt(0.5)), 0.1, 0.1 * (1 - math.sqrt(0.5))]
    assert [each.clip_coef for each in said] == pytest.approx(cosine)
    assert [each.ent_coef for each in said] == pytest.approx([0.1, 0.1, 0.025, 0.025])
    collect_rollouts_recurrent(agent, env)
    with pytest.warns(UserWarning, match="^learn: total_steps = 80 are over") as caught:
        last = agent.learn()
    text = str(caught[0].message)
    assert "lr_schedule=0.2 at a factor of 0.2, clip_schedule='cosine' at a factor of 0," in text
    assert "ent_schedule=the function stepwise of " in text
    assert caught[0].filename == __file__
    assert (last.lr, last.clip_coef, last.ent_coef) == pytest.approx((0.002, 0, 0.025))
    train(agent, env, 1)  # said once


@pytest.mark.parametrize("name", ["clip_coef", "ent_coef"])
def test_a_schedule_equals_numbers_that_are_set_by_hand(name: str) -> None:
    """No update reads the number that a schedule was to change."""
    case, begin = CASES["ppo"], {"clip_coef": 0.02, "ent_coef": 0.5}
    schedule = name.replace("coef", "schedule")
    # Without moments no rollout differs from the first in anything else.
    ours = case.agent(**begin, lr_schedule="constant", **{schedule: stepwise}, **HALVES)
    theirs = case.agent(**begin, lr_schedule="constant", **HALVES)
    untouched = case.agent(**begin, lr_schedule="constant", **HALVES)
    for agent, by_hand in ((ours, False), (theirs, True), (untouched, False)):
        env = case.vector()
        train(agent, env, 2)
        if by_hand:
            agent.reconfigure(**{name: begin[name] / 4})
        train(agent, env, 1, reset=False)
    weights = [agent.to_checkpoint()["groups"][""]["policy"] for agent in (ours, theirs, untouched)]
    assert_same(weights[0], weights[1])
    with pytest.raises(AssertionError):
        assert_same(weights[0], weights[2])


def test_off_policy_says_its_step_sizes() -> None:
    case = CASES["sac"]
    agent = case.agent(lr_actor=0.1, lr_critic=0.2, lr_schedule=0.5, total_steps=40)
    env, said = case.vector(), []
    for _ in range(4):
        collect_rollouts_recurrent(agent, env)
        said.append(agent.learn())
    learned = [each for each in said if each.updates]
    assert learned
    for each in learned:
        assert each.lr_critic == pytest.approx(0.2 * agent.learner.share) or each is not learned[-1]
        assert each.lr_actor == pytest.approx(each.lr_critic / 2)
    assert 0.5 < agent.learner.share < 1


def test_training_logs_them_by_their_usual_names(tmp_path: Path) -> None:
    for name, tags in (
        ("ppo", ["train/learning_rate", "train/clip_range", "train/ent_coef"]),
        ("ippo", ["train/bob/learning_rate", "train/fred/clip_range"]),
        ("dqn", ["train/learning_rate"]),
        ("sac", ["train/learning_rate_actor", "train/learning_rate_critic"]),
    ):
        case, seen = CASES[name], dict[str, float]()
        agent = case.agent(lr_schedule="cosine", total_steps=40)
        folder = tmp_path / name
        train_one(
            agent,
            case.vector(),
            40,
            log_dir=folder,
            on_rollout=lambda rollout, seen=seen: seen.update(rollout.values),
            progress=False,
        )
        assert set(tags) <= seen.keys(), name


@pytest.mark.parametrize("name", ["ppo", "ippo"])
def test_a_function_that_fails_later_leaves_rollouts_to_be_learned_from(name: str) -> None:
    case = CASES[name]
    broken: list[bool] = []
    agent, env = case.agent(lr_schedule="constant", total_steps=100), case.vector()
    # Of a team the last group's: the first must not have learned before it is asked.
    *_, last = agent.trainers.values()
    last.reconfigure(lr_schedule=lambda p: math.nan if broken else 1.0)
    collect_rollouts_recurrent(agent, env)
    broken.append(True)
    with pytest.raises(ValueError, match=r"^lr_schedule: expected a finite number.* got nan"):
        agent.learn()
    broken.clear()
    agent.learn()


# --- copies and files ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo", "ippo", "sac"])
def test_named_functions_are_found_again(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    agent = train(case.agent(lr_schedule=stepwise, total_steps=90), case.vector(), 1)
    agent.save_checkpoint(tmp_path / "agent.pt")
    other = case.kind.load(tmp_path / "agent.pt")
    assert other.config.lr_schedule is stepwise
    assert_same(snapshot(agent), snapshot(other))
    for copied in (agent.clone(), agent.offspring(3), pickle.loads(pickle.dumps(agent))):
        assert copied.config == agent.config


@pytest.mark.parametrize("name", ["ppo", "ippo"])
def test_functions_without_a_name_are_to_be_passed_again(name: str, tmp_path: Path) -> None:
    case, functions = CASES[name], lambdas()
    options = {**functions, "ent_coef": 0.01, "total_steps": 90}
    agent, path = train(case.agent(**options), case.vector(), 2), tmp_path / "agent.pt"
    assert agent.clone().config == agent.config
    shown = " ".join(repr(agent).split())
    assert "lr_schedule=the function lambdas.<locals>.<lambda> of " in shown
    agent.save_checkpoint(path)
    with pytest.raises(
        CheckpointError, match=r"pass it as load\(path, schedules=\{'\w+_schedule"
    ) as e:
        case.kind.load(path)
    assert "At progress 0, 0.1, ..., 1 it gave 1, 0.95, 0.9, " in str(e.value)
    other = case.kind.load(path, schedules=functions)
    assert_same(snapshot(agent), snapshot(other))
    agent.load_checkpoint(path)  # it has its own
    with pytest.warns(
        UserWarning, match="^lr_schedule: expected what the saved one gave, 0.95 at p"
    ):
        case.kind.load(path, schedules={**functions, "lr_schedule": stepwise})
    with pytest.raises(
        ValueError, match="expected none for clip_schedule, which was saved as 'con"
    ):
        case.kind.load(path, schedules={**functions, "clip_schedule": stepwise})
    with pytest.raises(
        ValueError, match="schedules has no option 'lr_sched'; did you mean 'lr_schedule'"
    ):
        case.kind.load(path, schedules={"lr_sched": stepwise})
    with pytest.raises(TypeError, match="schedules: expected functions by name"):
        case.kind.load(path, schedules=stepwise)  # type: ignore[arg-type]


def test_a_file_does_not_reach_into_pythons_own_modules() -> None:
    saved = {"function": "os:makedirs", "told": "a function", "values": [1.0] * 11}
    with pytest.raises(ValueError, match="expected a function again"):
        PPOConfig.from_dict({"lr_schedule": saved, "total_steps": 10})


def test_no_module_is_imported_for_a_function(tmp_path: Path, monkeypatch: Any) -> None:
    module = types.ModuleType("my_schedules")
    exec("def decay(progress):\n    return 1 - 0.3 * progress\n", module.__dict__)
    monkeypatch.setitem(sys.modules, "my_schedules", module)
    case, path = CASES["ppo"], tmp_path / "agent.pt"
    agent = case.agent(lr_schedule=module.decay, total_steps=90)
    agent.save_checkpoint(path)
    assert case.kind.load(path).config.lr_schedule is module.decay
    exec("def decay(progress):\n    return 1 - 0.4 * progress\n", module.__dict__)
    with pytest.warns(
        UserWarning, match=r"expected what .* 0\.97 at progress 0\.1, got 0\.96 from"
    ):
        case.kind.load(path)
    monkeypatch.delitem(sys.modules, "my_schedules")
    with pytest.raises(CheckpointError, match="import my_schedules first, or pass it as load"):
        case.kind.load(path)
    # What only looks like a module's own function is none.
    module.decay.__qualname__ = "other"
    assert agent.to_checkpoint()["groups"][""]["config"]["lr_schedule"]["function"] is None


def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path: Path) -> None:
    case, path = CASES["ppo"], tmp_path / "latest.pt"

    def run(steps: int, resume: bool) -> Any:
        options = {**lambdas(), "ent_coef": 0.1, "total_steps": 120, "clip_schedule": "cosine"}
        agent = case.agent(**options)
        train_one(
            agent,
            case.vector(),
            steps,
            checkpoint_path=path,
            checkpoint_every=60,
            resume=resume,
            progress=False,
        )
        return agent

    whole = run(120, resume=False)
    run(60, resume=False)
    assert_same(snapshot(run(120, resume=True)), snapshot(whole))


def test_opponents_that_were_taken_with_a_function_are_loaded(tmp_path: Path) -> None:
    case, functions = CASES["ippo"], lambdas()
    agent = case.agent(lr_schedule=functions["lr_schedule"], total_steps=500)
    agent.opponents = OpponentPool(every=20, seed=0)
    train(agent, case.vector(), 2)
    agent.save_checkpoint(tmp_path / "agent.pt")
    other = case.kind.load(
        tmp_path / "agent.pt", schedules={"lr_schedule": functions["lr_schedule"]}
    )
    assert len(other.opponents.snapshots) == len(agent.opponents.snapshots) > 1


def test_populations_search_and_are_saved_with_functions(tmp_path: Path) -> None:
    env = recall_env()
    init_hp: dict[str, Any] = {"LEARN_STEP": 8, "BATCH_SIZE": 8, "MAX_STEPS": 192, "LR": 1e-3}
    init_hp["LR_SCHEDULE"] = lambdas()["lr_schedule"]

    def individuals() -> list[Any]:
        return create_population(
            "PPO",
            env.single_observation_space,
            env.single_action_space,
            {"encoder_config": {"hidden_state_size": 5}},
            init_hp,
            HyperparameterConfig(lr=RLParameter(min=1e-4, max=1e-2)),
            population_size=2,
            seed=0,
        )

    assert individuals()[1].config.total_steps == 192
    path = tmp_path / "run.pt"
    run: dict[str, Any] = {"max_steps": 192, "evo_steps": 96}
    alone, _ = train_population(env, individuals(), checkpoint_path=path, **run, **evolution(2))
    # To workers and back, without waiting for their start.
    together = []
    for agent in alone:
        parts = CloudpickleWrapper(agent.custom_parts())  # type: ignore[arg-type]
        theirs = pickle.loads(pickle.dumps(parts)).fn
        there = PPO.from_checkpoint(unpacked(packed(agent.to_checkpoint())), **theirs)
        assert there.config.lr_schedule(0.5) == 0.75  # type: ignore[operator]
        data = unpacked(packed(there.to_checkpoint()))
        together.append(PPO.from_checkpoint(data, **agent.custom_parts()))
    assert_same_agents(together, alone)
    for agent in together:
        assert agent.config.lr_schedule is init_hp["LR_SCHEDULE"]
    with pytest.raises(CheckpointError, match="schedules="):
        load_population(path)
    again = load_population(path, schedules={"lr_schedule": init_hp["LR_SCHEDULE"]})
    assert [agent.config for agent in again] == [agent.config for agent in alone]
    with pytest.raises(ValueError, match="expected none for clip_schedule"):
        load_population(path, schedules={"clip_schedule": stepwise})
