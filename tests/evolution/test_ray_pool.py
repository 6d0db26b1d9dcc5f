"""Tests of `recurrent_rl.evolution.ray_pool`: tasks of Ray do what one process does, or say why."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.envs import Recall
from support.training_runs import assert_same_agents, evolution, population, recall_env, train

from recurrent_rl import make_vect_envs
from recurrent_rl.evolution import ray_pool


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[Any]:
    """A local Ray of two CPUs, initialised as a script would, before anybody trains."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for the tests' own modules
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


class Mortal(Recall):
    """Ends its process as long as there are files in its folder, and takes one with it."""

    folder = ""

    def step(self, action: Any) -> Any:
        lives = sorted(Path(self.folder).iterdir())
        if lives:
            lives[0].unlink()
            os._exit(7)
        return super().step(action)


class Broken(Recall):
    def step(self, action: Any) -> Any:
        raise ZeroDivisionError("in a task")


def env_of(kind: Any) -> Any:
    return make_vect_envs(make_env=kind, num_envs=4, should_async_vector=False)


def mortal_env(folder: Path, deaths: int) -> Any:
    for i in range(deaths):
        (folder / str(i)).touch()
    return env_of(type("Mortal", (Mortal,), {"folder": str(folder)}))


def steps_told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that will hold what pools tell of their progress."""
    told, run = [], ray_pool.RayPool.run

    def listened_to(self: Any, jobs: Any, progress: Any, memory: Any = None) -> Any:
        def tell(steps: int, score: float) -> None:
            told.append(steps)
            progress(steps, score)

        return run(self, jobs, tell, memory)

    monkeypatch.setattr(ray_pool.RayPool, "run", listened_to)
    return told


# One test, as pytest-xdist would have several processes start a Ray each.
def test_tasks_do_what_one_process_does_or_say_why(
    two_cpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, settings = recall_env(), {"max_steps": 256}
    told = steps_told(monkeypatch)
    alone, fitnesses = train(env, population(env, 2), **settings, **evolution(2))
    with pytest.warns(UserWarning, match=r"individual \d of the population died .* attempt 2 of 3"):
        together, theirs = train(
            mortal_env(tmp_path, 1), population(env, 2), workers="ray", **settings, **evolution(2)
        )
    assert_same_agents(together, alone)
    assert theirs == fitnesses
    assert sum(told) == sum(each.env_steps for each in alone)

    env = env_of(Broken)
    with pytest.raises(RuntimeError, match=r"(?s)failed in its worker:.*ZeroDivisionError.*task"):
        train(env, population(env, 1), workers="ray")

    with pytest.raises(UserWarning, match=r"wait until a machine with {'CPU': 3, .* joins Ray"):
        train(env, population(env, 1), workers="ray", threads=3)

    monkeypatch.setattr(ray_pool, "ATTEMPTS", 1)
    env = mortal_env(tmp_path, 3)
    with pytest.raises(RuntimeError, match=r"individual 0 of the population died .*, 1 times"):
        train(env, population(env, 1), workers="ray")
    assert len(list(tmp_path.iterdir())) == 2  # nobody has tried again
    assert two_cpus.is_initialized()  # as it is not ours


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"workers='ray': .* pip install 'recurrent_rl\[ray\]'"):
        train(recall_env(), population(recall_env(), 1), workers="ray")


def test_other_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="workers: expected a number or 'ray', got 'dask'"):
        train(recall_env(), population(recall_env(), 1), workers="dask")


@pytest.mark.parametrize("workers", [2, "ray"])
def test_what_cannot_be_sent_is_refused_before_anything_starts(workers: Any) -> None:
    if workers == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed")
    lock, env = threading.Lock(), recall_env()
    with pytest.raises(TypeError, match=r"make_env: .* cannot be pickled .*thread.lock"):
        train(env, population(env, 2), workers=workers, make_env=lambda: (lock, recall_env())[1])
