"""Tests of `recurrent_rl.evolution.process_pool`: workers do what one process does, or say why."""

import functools
import os
from pathlib import Path
from typing import Any

import pytest
from support.envs import Recall
from support.training_runs import (
    StopAt,
    assert_same_agents,
    evolution,
    population,
    recall_env,
    train,
)

from recurrent_rl import make_vect_envs


def test_workers_do_what_one_process_does() -> None:
    env = recall_env()
    alone, fitnesses = train(env, population(env, 4), **evolution(4))
    together, theirs = train(env, population(env, 4), workers=2, **evolution(4))
    assert_same_agents(together, alone)
    assert theirs == fitnesses


class Broken(Recall):
    """Fails in its third episode."""

    episodes = 0

    def reset(self, **options: Any) -> Any:
        self.episodes += 1
        if self.episodes == 3:
            raise ZeroDivisionError("the third episode")
        return super().reset(**options)


@pytest.mark.usefixtures("quick_workers")
def test_a_failing_worker_is_an_error_with_its_traceback_and_leaves_nobody_behind() -> None:
    env = make_vect_envs(make_env=Broken, num_envs=2, should_async_vector=False)
    before = children()
    with pytest.raises(RuntimeError, match=r"(?s)failed in its worker:.*ZeroDivisionError: the th"):
        train(env, population(env), workers=2, **evolution())
    assert children() == before


class Unplugged(Recall):
    """Loses a connection of its own."""

    def step(self, action: Any) -> Any:
        raise ConnectionResetError("the simulator has left")


@pytest.mark.usefixtures("quick_workers")
def test_a_connection_that_an_environment_loses_is_its_error_not_ours() -> None:
    env = make_vect_envs(make_env=Unplugged, num_envs=2, should_async_vector=False)
    with pytest.raises(RuntimeError, match="ConnectionResetError: the simulator has left"):
        train(env, population(env), workers=2, **evolution())


class Suicidal(Recall):
    """Ends its process."""

    def step(self, action: Any) -> Any:
        os._exit(7)


@pytest.mark.usefixtures("quick_workers")
def test_a_worker_that_dies_is_an_error_with_its_exit_code() -> None:
    env = make_vect_envs(make_env=Suicidal, num_envs=2, should_async_vector=False)
    before = children()
    with pytest.raises(RuntimeError, match=r"died with exit code 7.*__main__"):
        train(env, population(env), workers=2, **evolution())
    assert children() == before


def children() -> set[int]:
    """Processes that this one has started and that have not ended."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("no /proc")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.usefixtures("quick_workers")
def test_workers_need_an_environment_that_can_be_built_again() -> None:
    env = StopAt(recall_env(), -1)
    with pytest.raises(
        ValueError, match=r"workers: expected an environment .* got StopAt; pass make"
    ):
        train(env, population(env), workers=2, **evolution())


@pytest.mark.usefixtures("quick_workers")
def test_workers_build_what_make_env_says() -> None:
    env = recall_env()
    alone, _ = train(env, population(env), max_steps=128, **evolution())
    built, _ = train(
        StopAt(env, -1),
        population(env),
        max_steps=128,
        workers=2,
        make_env=recall_env,
        **evolution(),
    )
    assert_same_agents(built, alone)


@pytest.mark.usefixtures("quick_workers")
def test_workers_need_as_many_environments() -> None:
    env = recall_env()
    with pytest.raises(RuntimeError, match="make_env: expected 4 environments in the vector, as"):
        train(env, population(env), workers=2, make_env=functools.partial(recall_env, 3))
