"""Tests of `recurrent_rl.envs.multi_agent_*`: PettingZoo environments, here and in workers."""

import contextlib
import functools
import gc
import itertools
import multiprocessing as mp
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Text
from mpe2 import simple_spread_v3
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper as Wrapper
from support.envs import Scripted
from support.multi_envs import ScriptedParallel, TurnTaking, scripted_makers
from support.pairs import EXPLORE, pairwise

from recurrent_rl import (
    AsyncMultiAgentVectorEnv,
    SyncMultiAgentVectorEnv,
    make_multi_agent_vect_envs,
)
from recurrent_rl.envs import watchdog

KINDS = pytest.mark.parametrize("kind", [SyncMultiAgentVectorEnv, AsyncMultiAgentVectorEnv])
# A late entry, an end by a limit and a re-entry; everybody's end at once, in all ways.
COMING = {"bob_0": [(0, 3, "t")], "bob_1": [(0, 1, "l"), (2, 3, "b")], "fred_0": [(1, 3, "l")]}
STAYING = {"bob_0": [(0, 2, "l")], "bob_1": [(0, 2, "t")], "fred_0": [(0, 2, "l")]}
SHORT = {"bob_0": [(0, 1, "t")], "bob_1": [(0, 1, "l")], "fred_0": [(0, 1, "b")]}


class Odd(ParallelEnv[str, Any, Any]):
    """Spaces of sizes that do not fit each other; shows its seed and options, rewards actions."""

    metadata: ClassVar[dict[str, Any]] = {"name": "odd_v0", "render_modes": []}
    render_mode = None
    spaces: ClassVar[dict[str, tuple[Any, Any]]] = {
        "bytes_0": (Box(-100, 100, (3,), np.int8), Discrete(5, start=-2)),
        "bytes_1": (Box(-100, 100, (3,), np.int8), Discrete(5, start=-2)),
        "doubles_0": (Box(-1e300, 1e300, (5,), np.float64), Box(-1, 1, (1, 3), np.float64)),
        "index_0": (Discrete(200, start=-100), Box(-9, 9, (3,), np.int16)),
        "scalar_0": (Box(-1e9, 1e9, ()), Discrete(5, start=-2)),
    }

    def __init__(self) -> None:
        self.possible_agents = list(self.spaces)
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gym.Space[Any]:
        return self.spaces[agent][0]

    def action_space(self, agent: str) -> gym.Space[Any]:
        return self.spaces[agent][1]

    def _shown(self) -> dict[str, Any]:
        number = self.time + (self.seed or 0)
        return {
            "bytes_0": np.arange(3, dtype=np.int8) - number,
            "bytes_1": np.arange(3, dtype=np.int8) + number,
            "doubles_0": np.array([1e-300, 1e300, np.pi, self.seed is None, self.option]),
            "index_0": -number,
            "scalar_0": np.float32(number),
        }

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        assert seed is None or type(seed) is int  # as Gymnasium's own generator demands
        self.seed, self.option, self.time = seed, (options or {}).get("option", 0), 0
        self.agents = self.possible_agents[:]
        return self._shown(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        self.time += 1
        never = dict.fromkeys(actions, False)
        for agent, action in actions.items():
            assert self.action_space(agent).contains(action), (agent, action)
        rewards = {agent: float(np.sum(action)) for agent, action in actions.items()}
        return self._shown(), rewards, never, never, {agent: {} for agent in actions}


class Faulty(ScriptedParallel):
    """Goes wrong, if told so, after ``where``; leaves a file behind when it is closed."""

    def __init__(
        self, index: int, where: str = "", how: str = "raise", folder: Path | None = None
    ) -> None:
        super().__init__([{"bob_0": [(0, 9, "t")], "bob_1": [(0, 9, "t")]}], index)
        self.where, self.how, self.folder = where, how, folder
        # An environment with this index is built twice: first as the example, in the main process.
        if self.index or mp.parent_process():
            self._maybe_fail("build")

    def _maybe_fail(self, where: str) -> None:
        if where != self.where:
            return
        if self.how == "raise":
            raise KeyError(f"broken in {where}")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            raise SystemExit(7)
        if self.how == "sleep":
            time.sleep(60)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._maybe_fail("reset")
        return super().reset(seed, options)

    def step(self, actions: dict[str, Any]) -> Any:
        self._maybe_fail("step")
        return super().step(actions)

    def close(self) -> None:
        if self.folder is not None:
            (self.folder / f"closed {self.index}").touch()


def faulty(
    which: int, where: str, how: str = "raise", count: int = 4, folder: Path | None = None
) -> list[Callable[[], Faulty]]:
    """Functions that build environments, one of which goes wrong."""

    def make(e: int) -> Callable[[], Faulty]:
        return lambda: Faulty(e, where if e == which else "", how, folder)

    return [make(e) for e in range(count)]


ACTIONS = {"bob_0": np.ones(4, int), "bob_1": np.ones(4, int)}


def running(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has asked after does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or ") Z " not in stat.read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def assert_gone(pids: list[int], seconds: float = 15) -> None:
    """All processes end within some time."""
    end = time.monotonic() + seconds
    while any(map(running, pids)):
        assert time.monotonic() < end, f"{[pid for pid in pids if running(pid)]} still run"
        time.sleep(0.02)


def workers(env: AsyncMultiAgentVectorEnv) -> list[int]:
    """Process numbers."""
    return [worker.process.pid for worker in env._workers]


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Nested results of reset or step are equal, to the bit and the dtype."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, Mapping):
        assert list(ours) == list(theirs), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype, where
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
    else:
        assert ours == theirs, where


def legal(env: Any, infos: dict[str, Any], step: int) -> dict[str, np.ndarray]:
    """Allowed actions that differ between agents, environments and steps."""
    actions = {}
    for i, agent in enumerate(env.agents):
        space = env.single_action_space(agent)
        if isinstance(space, Discrete):
            wish = (np.arange(env.num_envs) + i + step) % space.n
            mask = infos[agent].get("action_mask", np.ones((env.num_envs, space.n), bool))
            allowed = np.where(mask[np.arange(env.num_envs), wish], wish, mask.argmax(1))
            actions[agent] = allowed + space.start
        else:
            space.seed(100 * i + step)
            actions[agent] = np.stack([space.sample() for _ in range(env.num_envs)])
    return actions


def played(env: Any, steps: int = 12, seed: Any = 3) -> list[Any]:
    """All that reset and some steps return; the environments are closed."""
    with env:
        observations, infos = env.reset(seed=seed)
        results: list[Any] = [(observations, infos)]
        for step in range(steps):
            results.append(env.step(legal(env, results[-1][-1], step)))
    return results


# --- what reset and step return -----------------------------------------------------------------


@KINDS
class TestDictionaries:
    def test_lives_begin_and_end(self, kind: Any) -> None:
        makers = scripted_makers([[COMING], [STAYING]])
        first, second = (make() for make in makers)
        results = played(kind(makers), 3)
        agents = ["bob_0", "bob_1", "fred_0"]
        exists, start = (
            [
                [result[-1][agent][name].astype(int).tolist() for agent in agents]
                for result in results
            ]
            for name in ("exists", "start")
        )
        assert exists == [
            [[1, 1], [1, 1], [0, 1]],
            [[1, 1], [0, 1], [1, 1]],
            [[1, 1], [1, 1], [1, 1]],
            [[1, 1], [1, 1], [0, 1]],
        ]
        assert start == [
            [[1, 1], [1, 1], [0, 1]],
            [[0, 0], [0, 0], [1, 0]],
            [[0, 1], [1, 1], [0, 1]],
            [[1, 0], [1, 0], [0, 0]],
        ]
        terminated, truncated = (
            [[result[i][agent].astype(int).tolist() for agent in agents] for result in results[1:]]
            for i in (2, 3)
        )
        assert terminated == [
            [[0, 0], [0, 0], [0, 0]],
            [[0, 0], [0, 1], [0, 0]],
            [[1, 0], [1, 0], [0, 0]],
        ]
        assert truncated == [
            [[0, 0], [1, 0], [0, 0]],
            [[0, 1], [0, 0], [0, 1]],
            [[0, 0], [1, 0], [1, 0]],
        ]
        # (agent, environment) -> numbers of episode and step, observation by observation.
        moments = {
            ("bob_0", 0): [(0, 0), (0, 1), (0, 2), (1, 0)],
            ("bob_1", 0): [(0, 0), None, (0, 2), (1, 0)],
            ("fred_0", 0): [None, (0, 1), (0, 2), None],
            ("bob_1", 1): [(0, 0), (0, 1), (1, 0), (1, 1)],
        }
        for (agent, e), each in moments.items():
            for result, moment in zip(results, each, strict=True):
                expected = (
                    np.zeros(3) if moment is None else makers[e]().observation_of(agent, *moment)
                )
                np.testing.assert_array_equal(result[0][agent][e], expected)
        finals = [[a for a in agents if "final_obs" in result[-1][a]] for result in results]
        assert finals == [[], ["bob_1"], ["bob_0", "fred_0"], ["bob_1", "fred_0"]]
        for step, agent, env, e in (
            (1, "bob_1", first, 0),
            (2, "bob_0", second, 1),
            (2, "fred_0", second, 1),
            (3, "bob_1", first, 0),
            (3, "fred_0", first, 0),
        ):
            expected = env.observation_of(agent, 0, step)
            np.testing.assert_array_equal(results[step][-1][agent]["final_obs"][e], expected)

    def test_rewards_answer_the_actions(self, kind: Any) -> None:
        makers = scripted_makers([[STAYING], [STAYING]], action="box")
        with kind(makers) as env:
            env.reset(seed=0)
            actions = legal(env, env.reset(seed=0)[1], 0)
            rewards = env.step(actions)[1]
        for e, make in enumerate(makers):
            for agent, action in actions.items():
                expected = make().reward_of(agent, 0, 1, action[e])
                assert rewards[agent][e] == pytest.approx(expected, abs=1e-12)

    def test_masks_and_actions_that_the_environment_defines(self, kind: Any) -> None:
        makers = scripted_makers(
            [[COMING], [STAYING]], masks="info", defined={("bob_0", 1): 2}, action="discrete"
        )
        results = played(kind(makers), 3)
        for t, e in itertools.product(range(2), range(2)):
            mask = makers[e]().mask_of("bob_0", 0, t)
            assert results[t][-1]["bob_0"]["action_mask"][e].tolist() == mask.astype(bool).tolist()
        assert results[0][-1]["fred_0"]["action_mask"][0].all()  # not there yet
        defined = [result[-1]["bob_0"]["env_defined_actions"] for result in results]
        assert defined == [[None, None], [2, 2], [None, None], [None, 2]]
        assert results[1][-1]["bob_1"]["env_defined_actions"] == [None, None]

    def test_environments_without_masks_beside_one_with(self, kind: Any) -> None:
        makers = scripted_makers([[STAYING], [STAYING]], {1: {"masks": "info"}})
        for t, result in enumerate(played(kind(makers), 2)[:2]):
            masks = result[-1]["bob_0"]["action_mask"]
            assert masks[0].all()
            assert masks[1].tolist() == makers[1]().mask_of("bob_0", 0, t).astype(bool).tolist()

    def test_defined_actions_replace_those_that_are_given(self, kind: Any) -> None:
        # The fake itself compares.
        with kind(scripted_makers([[STAYING]], defined={("bob_0", 0): 2})) as env:
            env.reset()
            env.step({agent: [3] for agent in env.agents})

    def test_turns(self, kind: Any) -> None:
        def make(e: int) -> Callable[[], TurnTaking]:
            return lambda: TurnTaking("3l 4t", 2, e, masks="observation")

        results = played(kind([make(0), make(1)]), 4)
        exists = [[r[-1][a]["exists"].tolist() for a in ("player_0", "player_1")] for r in results]
        assert exists == [
            [[True, True], [False, False]],
            [[False, False], [True, True]],
            [[True, True], [False, False]],
            [[True, True], [False, False]],  # the next episode
            [[False, False], [True, True]],
        ]
        env = make(1)()
        for agent in env.possible_agents:
            # Everybody gets a reward in each turn, and a last observation at the end.
            assert np.count_nonzero([r[1][agent] for r in results[1:]]) == 8
            final = results[3][-1][agent]["final_obs"][1]
            np.testing.assert_array_equal(final, env.observation_of(agent, 0, 3))
        shown = results[1]
        np.testing.assert_array_equal(shown[0]["player_1"][1], env.observation_of("player_1", 0, 1))
        assert shown[-1]["player_1"]["action_mask"][1].tolist() == [
            x != 0 for x in env.mask_of("player_1", 0, 1)
        ]

    @pytest.mark.parametrize(
        "options",
        [
            {"masks": "info"},
            {"action": "box", "defined": {("bob_0", t): [t / 2 - 1, t] for t in range(3)}},
        ],
        ids=["masks", "defined"],
    )
    def test_results_are_copies(self, kind: Any, options: dict[str, Any]) -> None:
        with kind(scripted_makers([[COMING], [STAYING]], reuse=True, **options)) as env:
            kept: list[Any] = [env.reset(seed=0)]
            frozen = [repr(kept[0])]
            for step in range(6):
                kept.append(env.step(legal(env, kept[-1][-1], step)))
                frozen.append(repr(kept[-1]))
            assert [repr(x) for x in kept] == frozen

    def test_spaces_and_names(self, kind: Any) -> None:
        with kind(scripted_makers([[COMING]], masks="observation")) as env:
            assert env.agents == env.possible_agents == ["bob_0", "bob_1", "fred_0"]
            assert env.num_envs == 1
            assert list(env.observation_spaces) == list(env.action_spaces) == env.agents
            for agent in env.agents:
                space = env.single_observation_space(agent)
                assert space == env.observation_spaces[agent] == Box(-1, 1, (3,))
                assert env.single_action_space(agent) == env.action_spaces[agent]

    def test_wrong_actions(self, kind: Any) -> None:
        with kind(
            scripted_makers([[STAYING]] * 2, action={"bob": "discrete", "fred": "box"})
        ) as env:
            _, infos = env.reset()
            good = legal(env, infos, 0)
            for agent, bad, message in (
                ("bob_1", None, r"\[E, \.\.\.\] = \[2\], got none"),
                ("bob_1", [1], r"\[2\], got shape \[1\]"),
                ("bob_0", 1, r"\[2\], got shape \[\]"),
                ("fred_0", [1, 1], r"\[2, 2\], got shape \[2\]"),
                ("fred_0", np.ones((2, 3)), r"\[2, 2\], got shape \[2, 3\]"),
            ):
                actions = {**good, agent: bad}
                if bad is None:
                    del actions[agent]
                with pytest.raises(
                    ValueError, match=rf"^actions\['{agent}'\]: expected .*{message}"
                ):
                    env.step(actions)
            env.step(good)


# --- the same in this process and in others -----------------------------------------------------

MIXED: dict[str, Any] = {
    "masks": "info",
    "absent": {("bob_0", 1)},
    "defined": {("bob_0", 2): 1, ("fred_0", 0): 2},
    "observation": {"bob": "matrix", "fred": "discrete"},
}


class TestSyncEqualsAsync:
    @pytest.mark.parametrize("num_workers", [1, 2, 4, None])
    def test_with_the_main_process_stepping_some(self, num_workers: int | None) -> None:
        makers = scripted_makers(
            [[COMING], [STAYING, SHORT], [SHORT], [STAYING], [COMING]], **MIXED
        )
        expected = played(SyncMultiAgentVectorEnv(makers))
        env = AsyncMultiAgentVectorEnv(makers, num_workers=num_workers, use_main_process=True)
        expected_workers = num_workers or max(min(5, os.cpu_count() or 1) - 1, 1)
        assert len(workers(env)) == expected_workers
        assert_same(played(env), expected)

    @pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 5, None])
    def test_for_any_number_of_workers(self, num_workers: int | None) -> None:
        makers = scripted_makers(
            [[COMING], [STAYING, SHORT], [SHORT], [STAYING], [COMING]], **MIXED
        )
        expected = played(SyncMultiAgentVectorEnv(makers))
        env = AsyncMultiAgentVectorEnv(makers, num_workers=num_workers)
        assert len(workers(env)) == (num_workers or min(5, os.cpu_count() or 1))
        assert_same(played(env), expected)

    def test_forkserver(self) -> None:
        makers = scripted_makers([[COMING], [STAYING], [SHORT]], **MIXED)
        expected = played(SyncMultiAgentVectorEnv(makers))
        env = AsyncMultiAgentVectorEnv(makers, num_workers=2, context="forkserver")
        assert_same(played(env), expected)

    def test_spawn(self) -> None:
        makers = scripted_makers([[COMING], [STAYING]], **MIXED)
        expected = played(SyncMultiAgentVectorEnv(makers))
        env = AsyncMultiAgentVectorEnv(makers, num_workers=1, context="spawn")
        pids = workers(env)
        assert_same(played(env), expected)
        assert_gone(pids)

    def test_turns(self) -> None:
        def make(e: int) -> Callable[[], TurnTaking]:
            return lambda: TurnTaking("9t 4l 6b", 3, e, dies={"player_1": 2}, masks="info")

        makers = [make(e) for e in range(3)]
        expected = played(SyncMultiAgentVectorEnv(makers), 30)
        assert_same(played(AsyncMultiAgentVectorEnv(makers, num_workers=2), 30), expected)

    def test_odd_sizes_and_dtypes(self) -> None:
        expected = played(SyncMultiAgentVectorEnv([Odd] * 3))
        observations, infos = expected[0]
        for agent, (space, _) in Odd.spaces.items():
            assert observations[agent].dtype == space.dtype
            assert observations[agent].shape == (3, *space.shape)
        assert "action_mask" not in infos["bytes_0"]
        assert observations["bytes_0"].tolist() == [[-3, -2, -1], [-4, -3, -2], [-5, -4, -3]]
        assert observations["doubles_0"][0, :3].tolist() == [1e-300, 1e300, np.pi]
        assert observations["index_0"].tolist() == [-3, -4, -5]
        assert_same(played(AsyncMultiAgentVectorEnv([Odd] * 3, num_workers=2)), expected)

    def test_shared_arrays_neither_overlap_nor_straddle(self) -> None:
        with AsyncMultiAgentVectorEnv([Odd] * 3, num_workers=2) as env:
            arrays = [
                (f"{i}.{name}", array)
                for i, block in enumerate(env.table.blocks)
                for name, array in vars(block).items()
                if isinstance(array, np.ndarray)
            ]
            arrays.append(("ended", env.table.ended))
            assert len(arrays) == 4 * 16 + 1  # blocks of agents
            for name, array in arrays:
                assert array.flags.aligned, name
                assert array.flags.writeable, name
            for (ours, x), (theirs, y) in itertools.combinations(arrays, 2):
                assert not np.shares_memory(x, y), f"{ours} and {theirs}"


# --- seeds --------------------------------------------------------------------------------------


def seeds_seen(env: Any, **arguments: Any) -> list[int | None]:
    """The seed that each environment was reset with."""
    with env:
        observations, _ = env.reset(**arguments)
    numbers, none = observations["scalar_0"], observations["doubles_0"][:, 3]
    return [None if n else int(x) for x, n in zip(numbers, none, strict=True)]


@KINDS
class TestSeeds:
    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (None, [None] * 3),
            (5, [5, 6, 7]),
            (np.int64(5), [5, 6, 7]),
            ([4, 2, 9], [4, 2, 9]),
            ((4, None, 9), [4, None, 9]),
            (np.array([4, 2, 9]), [4, 2, 9]),
        ],
        ids=str,
    )
    def test_each_environment_has_its_own(self, kind: Any, given: Any, expected: Any) -> None:
        assert seeds_seen(kind([Odd] * 3), seed=given) == expected

    def test_none_is_the_default(self, kind: Any) -> None:
        assert seeds_seen(kind([Odd])) == [None]

    def test_wrong_number(self, kind: Any) -> None:
        with (
            kind([Odd] * 3) as env,
            pytest.raises(ValueError, match=r"^seed: expected 3 seeds, got 2"),
        ):
            env.reset(seed=[1, 2])

    def test_options_are_for_all(self, kind: Any) -> None:
        with kind([Odd] * 3) as env:
            observations, _ = env.reset(options={"option": 4})
            assert observations["doubles_0"][:, 4].tolist() == [4, 4, 4]
            assert env.reset()[0]["doubles_0"][:, 4].tolist() == [0, 0, 0]


class Drawing(ScriptedParallel):
    """Shows what it draws from the global generators; deaf to seeds."""

    def __init__(self, how: str) -> None:
        super().__init__([{"bob_0": [(0, 2, "t")]}])
        self.draw: Callable[[], float] = {
            "numpy": np.random.rand,
            "python": random.random,
            "torch": lambda: float(torch.rand(())),
        }[how]

    def observation_of(self, agent: str, episode: int, step: int) -> Any:
        return np.array([self.draw(), self.draw(), 0], np.float32)


def drawn(env: Any, seed: int | None) -> list[float]:
    """What four environments show at a reset, in a step, and in the next episode."""
    seen = [env.reset(seed=seed)[0]["bob_0"]]
    seen += [env.step({"bob_0": np.ones(4, int)})[0]["bob_0"] for _ in range(3)]
    return [float(x) for x in np.stack(seen)[..., 0].ravel()]


@pytest.mark.parametrize("how", ["numpy", "python", "torch"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 4},
        {"num_workers": 2},
        {"num_workers": 2, "use_main_process": True},
    ],
    ids=str,
)
def test_copies_draw_different_numbers_and_the_same_again(how: str, options: Any) -> None:
    make = functools.partial(Drawing, how)
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    runs = []
    for _ in range(2):
        with AsyncMultiAgentVectorEnv([make] * 4, context="fork", **options) as env:
            if "use_main_process" not in options:
                assert len(set(drawn(env, None))) == 16
            runs += [drawn(env, 5), drawn(env, 6), drawn(env, 5)]
    assert runs[0] == runs[2] == runs[3] == runs[5]
    assert runs[1] == runs[4]
    assert len(set(runs[0])) == len(set(runs[1])) == 16
    assert runs[0] != runs[1]
    after = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    assert before[0] == after[0]
    np.testing.assert_equal(before[1][1], after[1][1])
    assert torch.equal(before[2], after[2])


# Processes that are spawned differ by themselves; those of a fork server begin alike, and sooner.
@pytest.mark.parametrize("context", ["forkserver", "spawn"] if EXPLORE else ["forkserver"])
def test_processes_that_begin_anew_draw_different_numbers_and_the_same_again(context: str) -> None:
    make = functools.partial(Drawing, "numpy")
    with AsyncMultiAgentVectorEnv([make] * 4, context=context, num_workers=2) as env:
        assert len(set(drawn(env, None))) == 16
        runs = [drawn(env, 5) for _ in range(2)]
    assert runs[0] == runs[1]


# --- bad environments ---------------------------------------------------------------------------


class TestBuilding:
    @KINDS
    @pytest.mark.parametrize(
        ("env_fns", "error", "message"),
        [
            ([], ValueError, r"^env_fns: expected at least one function that builds one, got none"),
            (
                [3],
                TypeError,
                r"^env_fns\[0\]: expected a function .* got int 3; write lambda: MyEnv\(\)",
            ),
            (
                [lambda: ScriptedParallel([SHORT]), ScriptedParallel([SHORT])],
                TypeError,
                r"^env_fns\[1\]: expected a function .*, got ScriptedParallel",
            ),
            ([lambda: 3], TypeError, r"^env: expected a PettingZoo .* environment, got int"),
            ([lambda: Scripted("1t")], TypeError, r"^env: .*Scripted; .*PPO and make_vect_envs"),
        ],
    )
    def test_errors(self, kind: Any, env_fns: Any, error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            kind(env_fns)

    @KINDS
    def test_functions_may_come_from_a_generator(self, kind: Any) -> None:
        with kind(make for make in scripted_makers([[SHORT]] * 2)) as env:
            assert env.num_envs == 2

    def test_number_of_workers_beside_the_main_process(self) -> None:
        with pytest.raises(ValueError, match=r"^num_workers: .*\[1, 1\].* one of them here, got 2"):
            AsyncMultiAgentVectorEnv(
                scripted_makers([[SHORT]] * 2), num_workers=2, use_main_process=True
            )

    @pytest.mark.parametrize("num_workers", [0, 3, -1])
    def test_number_of_workers(self, num_workers: int) -> None:
        with pytest.raises(ValueError, match=rf"^num_workers: .*\[1, 2\].* got {num_workers}"):
            AsyncMultiAgentVectorEnv(scripted_makers([[SHORT]] * 2), num_workers=num_workers)

    @pytest.mark.parametrize(
        ("only", "word"),
        [
            ({"observation": {"bob": "wide", "fred": "box"}}, r"\(5,\)"),
            ({"action": "many"}, r"Discrete\(5, start=-1\)"),
            ({"masks": "observation"}, "mask_in_observation=True"),
            ({"episodes": [STAYING, {"eve_0": [(0, 1, "t")]}]}, "eve_0"),
        ],
    )
    def test_environments_that_are_not_alike(self, only: dict[str, Any], word: str) -> None:
        makers = scripted_makers([[STAYING]] * 2)
        makers.append(lambda: ScriptedParallel(**{"episodes": [STAYING], **only}))
        message = rf"environment 2: expected agents and spaces like environment 0's.*{word}"
        with pytest.raises(ValueError, match="^" + message):
            SyncMultiAgentVectorEnv(makers)
        message = r"(?s)^environment 2 failed in building.*" + message
        with pytest.raises(RuntimeError, match=message):
            AsyncMultiAgentVectorEnv(makers, num_workers=2)

    @KINDS
    def test_unsupported_space(self, kind: Any) -> None:
        class Strange(ScriptedParallel):
            def action_space(self, agent: str) -> gym.Space[Any]:
                return Text(2)

        with pytest.raises(TypeError, match=r"^action_space: expected Discrete, .*'bob_0'"):
            kind([lambda: Strange([SHORT])])

    @pytest.mark.parametrize(
        ("use_async", "kind"), [(True, AsyncMultiAgentVectorEnv), (False, SyncMultiAgentVectorEnv)]
    )
    def test_from_one_function(self, use_async: bool, kind: type) -> None:
        env = make_multi_agent_vect_envs(
            ScriptedParallel, 3, should_async_vector=use_async, episodes=[SHORT], masks="info"
        )
        with env:
            assert type(env) is kind
            assert env.num_envs == 3
            assert "action_mask" in env.reset()[1]["bob_0"]

    def test_workers_and_one_environment_are_the_defaults(self) -> None:
        with make_multi_agent_vect_envs(Odd) as env:
            assert type(env) is AsyncMultiAgentVectorEnv
            assert env.num_envs == 1
        with make_multi_agent_vect_envs(Odd, 4, num_workers=3, context="fork") as env:
            assert isinstance(env, AsyncMultiAgentVectorEnv)
            assert len(workers(env)) == 3

    @pytest.mark.parametrize("n", [0, -1])
    def test_no_environment(self, n: int) -> None:
        with pytest.raises(ValueError, match=f"^num_envs: expected a number .*, got {n}"):
            make_multi_agent_vect_envs(Odd, n)

    @KINDS
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_one_object_for_all(self, kind: Any, wrapped: bool) -> None:
        one = ScriptedParallel([SHORT])

        def make() -> Any:
            return Wrapper(one) if wrapped else one

        message = r"one \w+ object for several.*lambda: MyEnv\(\)"
        with pytest.raises((ValueError, RuntimeError), match=message):
            kind([make] * 3)
        kind([make]).close()  # of one there is only one

    @pytest.mark.parametrize("own", [False, True])
    def test_one_object_for_each_worker(self, own: bool) -> None:
        """A fork copies it, so that each worker has one."""
        one = ScriptedParallel([SHORT])
        with pytest.raises(RuntimeError, match="object for several"):
            AsyncMultiAgentVectorEnv([lambda: one] * 2, num_workers=2 - own, use_main_process=own)

    @KINDS
    def test_objects_built_before(self, kind: Any) -> None:
        each = [ScriptedParallel([SHORT], e) for e in range(3)]
        with kind([lambda env=env: env for env in each]) as env:
            assert env.num_envs == 3

    @KINDS
    def test_names_that_are_numbers(self, kind: Any) -> None:
        class Numbered(ScriptedParallel):
            def __init__(self) -> None:
                super().__init__([SHORT])
                self.possible_agents = [0, 1]  # type: ignore[list-item]

        with pytest.raises(TypeError, match=r"^env: expected possible_agents to hold names, .* 0"):
            kind([Numbered])

    def test_no_function(self) -> None:
        for given, hint in (
            (ScriptedParallel([SHORT]), r"ScriptedParallel .*; write lambda: ScriptedParallel\("),
            (
                simple_spread_v3,
                r"module .*; pass its function: make_multi_agent_vect_envs\(mpe2\.s",
            ),
            (["simple_spread_v3"], r"list \['simple_spread_v3'\]; write lambda"),
        ):
            with pytest.raises(TypeError, match="^env: expected a function .* got " + hint):
                make_multi_agent_vect_envs(given, 2)  # type: ignore[arg-type]


ALL_STAGES = ("build", "reset", "step")


def run_until_failure(env: Any) -> None:
    with env:
        env.reset()
        env.step(ACTIONS)
        pytest.fail("nothing went wrong")


class TestFailure:
    @pytest.mark.parametrize(
        ("where", "which"),  # the first two are built, reset and stepped here
        [("reset", 0), ("reset", 1), ("step", 0), ("step", 1), *[(w, 3) for w in ALL_STAGES]],
    )
    def test_error_with_the_main_process_stepping_some(self, where: str, which: int) -> None:
        before = mp.active_children()
        with pytest.raises((KeyError, RuntimeError)) as caught:
            run_until_failure(
                AsyncMultiAgentVectorEnv(faulty(which, where), num_workers=1, use_main_process=True)
            )
        text = "".join(traceback.format_exception(caught.value))
        assert f"broken in {where}" in text
        assert f"environment {which}" in text
        assert mp.active_children() == before

    @pytest.mark.parametrize(
        ("num_workers", "which", "where"), pairwise((1, 2, 4), (0, 1, 3), ALL_STAGES)
    )
    def test_error_in_a_worker(self, where: str, which: int, num_workers: int) -> None:
        before = mp.active_children()
        with pytest.raises(RuntimeError) as error:
            run_until_failure(
                AsyncMultiAgentVectorEnv(faulty(which, where), num_workers=num_workers)
            )
        text = str(error.value)
        doing = "building" if where == "build" else where
        assert text.startswith(f"environment {which} failed in {doing} (all environments are clo")
        assert "Traceback (most recent call last)" in text
        assert "in _maybe_fail" in text
        assert f"KeyError: 'broken in {where}'" in text
        assert mp.active_children() == before

    @pytest.mark.parametrize("where", ["build", "reset", "step"])
    @pytest.mark.parametrize(("how", "code"), [("kill", "-9"), ("exit", "7")])
    def test_worker_dies(self, where: str, how: str, code: str) -> None:
        before = mp.active_children()
        doing = "building" if where == "build" else where
        message = (
            rf"^environment 2 failed in {doing} \(all .* closed now\):\n"
            rf"its worker process died with exit code {code}"
        )
        with pytest.raises(RuntimeError, match=message):
            run_until_failure(AsyncMultiAgentVectorEnv(faulty(2, where, how), num_workers=2))
        assert mp.active_children() == before

    def test_worker_killed_while_it_waits(self) -> None:
        env = AsyncMultiAgentVectorEnv(faulty(9, ""), num_workers=2)
        env.reset()
        os.kill(workers(env)[1], signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"^environment \d failed in step .*\n.*code -9"):
            env.step(ACTIONS)
        with pytest.raises(RuntimeError, match=r"^env: expected open environments, got closed"):
            env.step(ACTIONS)

    @pytest.mark.parametrize("where", ["reset", "step"])
    def test_error_in_this_process(self, where: str) -> None:
        with pytest.raises(KeyError, match=f"broken in {where}") as error:
            run_until_failure(SyncMultiAgentVectorEnv(faulty(2, where)))
        at = ", step 1 of its episode" if where == "step" else ""
        assert error.value.__notes__ == [f"in {where} of environment 2{at}"]

    def test_error_in_building_in_this_process(self) -> None:
        with pytest.raises(KeyError, match="broken in build") as error:
            SyncMultiAgentVectorEnv(faulty(2, "build"))
        assert error.value.__notes__ == ["in building of environment 2"]

        def broken() -> Any:
            raise KeyError("no spaces")

        # The first one is built here for its spaces.
        with pytest.raises(KeyError, match="no spaces") as error:
            AsyncMultiAgentVectorEnv([broken])
        assert error.value.__notes__ == ["in building of environment 0"]

    def test_the_other_environments_are_closed(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match=r"^environment 2 failed in step"):
            run_until_failure(
                AsyncMultiAgentVectorEnv(faulty(2, "step", folder=tmp_path), num_workers=2)
            )
        assert sorted(os.listdir(tmp_path)) == [f"closed {e}" for e in range(4)]

    @pytest.mark.parametrize("where", ["reset", "step"])
    def test_one_that_hangs(self, where: str) -> None:
        before = mp.active_children()
        message = (
            rf"^environment 2 failed in {where} .*\n"
            rf"scripted_v0 took longer than timeout=0.3 seconds"
        )
        env = AsyncMultiAgentVectorEnv(faulty(2, where, "sleep"), num_workers=4, timeout=0.3)
        begin = time.monotonic()
        with pytest.raises(RuntimeError, match=message):
            run_until_failure(env)
        assert time.monotonic() - begin < 5
        assert mp.active_children() == before

    @pytest.mark.parametrize("timeout", [0, -1.0, np.nan, "1", True])
    def test_no_time(self, timeout: Any) -> None:
        with pytest.raises(ValueError, match=r"^timeout: expected seconds > 0"):
            AsyncMultiAgentVectorEnv(faulty(9, ""), timeout=timeout)

    @pytest.mark.parametrize("option", [{"should_async_vector": False}, {"use_main_process": True}])
    def test_no_limit_in_this_process(self, option: dict[str, bool]) -> None:
        with pytest.raises(ValueError, match=r"^timeout: expected None with .*, got 3; leave"):
            make_multi_agent_vect_envs(Odd, 2, timeout=3, **option)  # type: ignore[arg-type]

    def test_an_error_does_not_hide_behind_a_slower_worker(self) -> None:
        class Slow(Faulty):
            def step(self, actions: dict[str, Any]) -> Any:
                time.sleep(0.3)
                return super().step(actions)

        makers: list[Any] = [lambda: Slow(0), lambda: Faulty(1, "step"), *[lambda: Slow(2)] * 2]
        with pytest.raises(RuntimeError, match=r"^environment 1 failed in step"):
            run_until_failure(AsyncMultiAgentVectorEnv(makers, num_workers=4))

    def test_of_several_errors_the_first_is_told(self) -> None:
        makers = [lambda e=e: Faulty(e, "step" if e % 2 else "") for e in range(4)]
        with pytest.raises(RuntimeError, match=r"^environment 1 failed in step"):
            run_until_failure(AsyncMultiAgentVectorEnv(makers, num_workers=4))

    def test_interruption_closes_the_environments(self) -> None:
        # A later step would take the answers to the interrupted one for its own.
        class Slow(Faulty):
            def step(self, actions: dict[str, Any]) -> Any:
                time.sleep(0.5)
                return super().step(actions)

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        env = AsyncMultiAgentVectorEnv([lambda: Slow(0)] * 4, num_workers=2)
        env.reset()
        pids, before = workers(env), signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                env.step(ACTIONS)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert_gone(pids)
        with pytest.raises(RuntimeError, match=r"^env: expected open environments, got closed"):
            env.step(ACTIONS)


# --- the end ------------------------------------------------------------------------------------


class TestClosing:
    @KINDS
    def test_closes_every_environment_and_may_be_repeated(self, kind: Any, tmp_path: Path) -> None:
        env = kind(faulty(9, "", folder=tmp_path))
        env.reset()
        (tmp_path / "closed 0").unlink(missing_ok=True)  # by the example that gave the spaces
        env.close()
        assert sorted(os.listdir(tmp_path)) == [f"closed {e}" for e in range(4)]
        env.close()

    def test_the_example_that_gives_the_spaces_is_closed_at_once(self, tmp_path: Path) -> None:
        with AsyncMultiAgentVectorEnv(faulty(9, "", folder=tmp_path)):
            assert os.listdir(tmp_path) == ["closed 0"]

    @KINDS
    def test_use_afterwards(self, kind: Any) -> None:
        env = kind(faulty(9, ""))
        env.reset()
        env.close()
        for call in (env.reset, lambda: env.step(ACTIONS)):
            with pytest.raises(RuntimeError, match=r"^env: expected open env.* build them anew"):
                call()

    def test_processes_end(self) -> None:
        env = AsyncMultiAgentVectorEnv(faulty(9, ""), num_workers=3)
        pids = workers(env)
        assert len(set(pids)) == 3
        assert all(map(running, pids))
        env.close()
        assert not any(map(running, pids))

    def test_garbage_collection_closes(self, tmp_path: Path) -> None:
        env = AsyncMultiAgentVectorEnv(faulty(9, "", folder=tmp_path), num_workers=2)
        env.reset()
        pids = workers(env)
        del env
        gc.collect()
        assert not any(map(running, pids))
        assert len(os.listdir(tmp_path)) == 4

    def test_leaving_the_context_closes(self) -> None:
        env = AsyncMultiAgentVectorEnv(faulty(9, ""), num_workers=2)
        with pytest.raises(ZeroDivisionError), env:
            raise ZeroDivisionError
        assert not any(map(running, workers(env)))

    def test_a_copy_in_a_forked_process_owns_nothing(self) -> None:
        env = AsyncMultiAgentVectorEnv(faulty(9, ""), num_workers=2)
        with env:
            child = mp.get_context("fork").Process(target=env.close)
            child.start()
            child.join(30)
            assert child.exitcode == 0
            env.reset()
            env.step(ACTIONS)


def live_and_tell(connection: Any, end: str) -> None:
    """A process that builds environments, tells their workers' numbers, and ends somehow."""
    watchdog.die_with.__defaults__ = (0.5,)  # s, not 5, to wait for one that hangs
    env = AsyncMultiAgentVectorEnv(faulty(9, ""), num_workers=3)
    env.reset()
    other = mp.get_context("fork").Process(target=time.sleep, args=(30,))
    if end == "kill beside another":
        # A child that outlives us, and holds our ends of all pipes open.
        other.start()
    connection.send((workers(env), other.pid))
    if end == "exit":
        os._exit(1)
    if end == "kill in hanging step":
        hanging = AsyncMultiAgentVectorEnv(faulty(2, "step", "sleep"), num_workers=3)
        hanging.reset()
        connection.send((workers(hanging), other.pid))
        hanging.step(ACTIONS)
    while end == "kill in step":
        env.step(ACTIONS)
    time.sleep(60)


@pytest.mark.parametrize(
    "end",
    ["exit", "kill", "kill in step", "kill in hanging step", "kill beside another", "terminate"],
)
def test_no_orphans_when_the_process_dies(end: str) -> None:
    context = mp.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=live_and_tell, args=(theirs, end))
    process.start()
    assert ours.poll(30)
    pids, other = ours.recv()
    assert len(pids) == 3
    if end == "kill in hanging step":
        assert ours.poll(30)
        pids += ours.recv()[0]
        time.sleep(0.3)  # until the step hangs
    if end.startswith("kill"):
        process.kill()
    if end == "terminate":
        process.terminate()
    assert process.pid is not None
    assert_gone([process.pid, *pids])
    if other is not None:
        assert running(other)
        os.kill(other, signal.SIGKILL)
    process.join(30)


# Each case is a process of its own, which runs to its end as a script does; all have imported once.
SCRIPT = """
import multiprocessing, os, signal, sys
from test_multi_agent_vector import ACTIONS, AsyncMultiAgentVectorEnv, faulty, workers

def live(context, end):
    # Shells start what runs in the background with Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    env = AsyncMultiAgentVectorEnv(faulty(9, ""), num_workers=2, context=context)
    env.reset()
    print(os.getpid(), *workers(env), flush=True)
    if end == "exception":
        raise ZeroDivisionError("an error of the user's")
    while True:
        env.step(ACTIONS)

if __name__ == "__main__":
    multiprocessing.set_forkserver_preload(["test_multi_agent_vector"])
    cases = {}
    for case in sys.argv[1:]:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for stream in (1, 2):
                os.dup2(os.open(f"{case}.{stream}", os.O_WRONLY | os.O_CREAT), stream)
            live(*case.split())
        cases[case] = pid
    for case, pid in cases.items():
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def first_line(path: Path, within: float = 60.0) -> str:
    """Wait for a file's first line [s]."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.05)
    raise TimeoutError(path)


def test_no_orphans_of_a_script(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    folders = [str(folder) for folder in Path(__file__).parents[:3]]  # of tests, and of the package
    # What the user sees of each: one error, the own one, and nothing from the workers.
    raised, interrupted, killed = ("fork exception", "fork interrupt", "forkserver kill")
    expected = {raised: "ZeroDivisionError: an error of the user's", interrupted: "KeyboardI"}
    process = subprocess.Popen(
        [sys.executable, str(path), raised, interrupted, killed],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        start_new_session=True,
    )
    pids: dict[str, list[int]] = {}
    try:
        for case in (raised, interrupted, killed):
            pids[case] = [int(word) for word in first_line(tmp_path / f"{case}.1").split()]
            assert len(pids[case]) == 3, case  # itself, and two workers
            if case == interrupted:  # as Ctrl-C in a terminal does, to all of them
                os.killpg(pids[case][0], signal.SIGINT)
            if case == killed:
                os.kill(pids[case][0], signal.SIGKILL)
        codes, _ = process.communicate(timeout=60)
        assert_gone([pid for each in pids.values() for pid in each])
    finally:
        for group in (process.pid, *(first for first, *_ in pids.values())):
            with contextlib.suppress(ProcessLookupError):  # it should be gone
                os.killpg(group, signal.SIGKILL)
    assert len(codes.split()) == 3
    assert "0" not in codes.split()
    for case in pids:
        errors = (tmp_path / f"{case}.2").read_text()
        assert errors.count("Traceback") == (case != killed), case
        assert expected.get(case, "") in errors
