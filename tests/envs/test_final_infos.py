"""Tests of `recurrent_rl.envs.final_infos`: which numbers are kept, and how put together."""

import enum
import fractions
import math
from collections import UserDict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from recurrent_rl.envs.final_infos import (
    by_name,
    by_players,
    mean_of_known,
    numbers_of,
    numbers_of_rows,
)
from recurrent_rl.envs.gymnasium_workers import InProcessVectorEnv, WorkerVectorEnv

NAN = math.nan


class Attributes(dict):  # type: ignore[type-arg]
    """As some packages have them: whatever is asked for and missing is a KeyError."""

    __getattr__ = dict.__getitem__


class Goal(enum.IntEnum):
    REACHED = 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1.0),
        (3, 3.0),
        (-0.5, -0.5),
        (np.bool_(True), 1.0),
        (np.uint8(200), 200.0),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.25), 0.25),
        (np.array(7), 7.0),
        (np.array(False), 0.0),
        (torch.tensor(1.5), 1.5),
        (torch.tensor(True), 1.0),
        (Goal.REACHED, 2.0),
        (NAN, None),
        (np.inf, None),
        (10**400, None),
        (np.array([1.0]), None),
        (torch.ones(1), None),
        (np.timedelta64(3, "s"), None),
        (np.datetime64("2026-01-01"), None),
        (np.array("won"), None),
        (np.array(None), None),
        (1j, None),
        ("1", None),
        (None, None),
        ([1], None),
        pytest.param(Attributes(), None, id="attributes"),
        (fractions.Fraction(1, 2), None),
    ],
)
def test_numbers_are_told_from_other_things(value: Any, expected: float | None) -> None:
    assert numbers_of({"x": value}) == ({} if expected is None else {"x": expected})
    array = np.empty(2, dtype=object)
    array[1] = value
    assert numbers_of_rows({"x": array}, np.array([1]), 2).get(1, {}) == numbers_of({"x": value})


def test_names_that_are_not_kept() -> None:
    others = ("_own", "", "action_mask", "final_obs", "TimeLimit.truncated", "a\nb", "\ud800", 3)
    assert numbers_of(dict.fromkeys((*others, "kept"), 1)) == {"kept": 1.0}
    assert numbers_of(UserDict(kept=1)) == {"kept": 1.0}
    for info in (None, [], "kept", 3, [("kept", 1)]):
        assert numbers_of(info) == {}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"a": np.array([1, 2, 3])}, {0: {"a": 1.0}, 2: {"a": 3.0}}),
        ({"a": np.array([1, 2, 3]), "_a": np.array([0, 1, 1], bool)}, {2: {"a": 3.0}}),
        ({"a": [1, 2, 3], "_a": [True, False, False]}, {0: {"a": 1.0}}),
        ({"a": torch.arange(3)}, {0: {"a": 0.0}, 2: {"a": 2.0}}),
        ({"a": np.array([1, 2, 3]), "_a": True}, {0: {"a": 1.0}, 2: {"a": 3.0}}),
        ({"a": np.array([1, 2])}, {}),
        ({"a": np.ones((3, 1)), "b": np.array(1), "c": 1, "d": "won"}, {}),
        ({"episode": {"r": np.ones(3)}, "_episode": np.ones(3, bool)}, {}),
        ([{"a": 1}, {"a": 2}, None], {0: {"a": 1.0}}),
        (np.array([{"a": 1}, None, {"b": 2}], dtype=object), {0: {"a": 1.0}, 2: {"b": 2.0}}),
        ([{"a": 1}], {}),
        (None, {}),
        ("abc", {}),
    ],
)
def test_what_vectors_say_of_some_rows(info: Any, expected: Any) -> None:
    assert numbers_of_rows(info, np.array([0, 2]), 3) == expected


def test_put_together_by_name() -> None:
    entries = [(2, "", {"a": 1.0}), (0, "", {"a": 2.0, "b": 3.0})]
    assert str(by_name(entries, 3)) == str({"a": [2.0, NAN, 1.0], "b": [3.0, NAN, NAN]})
    entries = [(0, "red", {"won": 0.1}), (0, "blue", {"won": 0.1}), (0, "grey", {"won": 0.1})]
    entries += [(1, "red", {"won": 1.0}), (1, "blue", {"won": 0.0, "left": 4.0})]
    named = by_name(entries, 2)
    assert named["won"] == [0.1, 0.5]  # exactly what all say
    assert str(named["left"]) == str(named["blue/left"]) == "[nan, 4.0]"
    assert str(named["grey/won"]) == "[0.1, nan]"
    arrays = {name: np.array(values) for name, values in named.items()}
    own = by_players([(["red"], arrays), (["blue"], {"blue/won": np.array([0.3, NAN])})], 2)
    assert {name: str(values) for name, values in own.items()} == {
        "won": "[0.2 1. ]",
        "red/won": "[0.1 1. ]",
        "blue/won": "[0.3 nan]",
    }


def test_means_are_exact_where_all_agree_and_never_warn() -> None:
    assert mean_of_known([0.1] * 3) == 0.1
    assert mean_of_known([1.0, NAN, 0.0]) == 0.5
    assert math.isnan(mean_of_known([NAN]))
    assert math.isnan(mean_of_known(()))
    assert mean_of_known([1e308, 1.5e308]) == np.inf


class Saying(gym.Env[Any, Any]):
    """Ends every episode after a step, with an info."""

    observation_space = action_space = gym.spaces.Discrete(2)

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = info

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return 0, {}

    def step(self, action: Any) -> Any:
        return 0, 0.0, True, False, self.info


@pytest.mark.parametrize("kind", [InProcessVectorEnv, WorkerVectorEnv])
def test_who_comes_first_does_not_decide_what_others_can_say(kind: Any) -> None:
    says = [0, 0.5, True, np.uint8(7), "lost", np.array(2.5), None, np.arange(2), 10**30]
    env = kind([lambda x=x: Saying({"x": x}) for x in says], autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset()
    info = env.step(np.zeros(len(says), int))[4]["final_info"]
    found = numbers_of_rows(info, np.arange(len(says)), len(says))
    env.close()
    expected = [0.0, 0.5, 1.0, 7.0, None, 2.5, None, None, 1e30]
    assert [found.get(i, {}).get("x") for i in range(len(says))] == expected


def test_infos_of_one_kind_are_as_gymnasium_gives_them() -> None:
    infos = []
    for kind in (SyncVectorEnv, InProcessVectorEnv):
        says = [{"a": 1, "b": True}, {"a": 2, "c": np.ones(2)}, {}]
        makers = [lambda x=x: Saying(x) for x in says]
        env = kind(makers, autoreset_mode=AutoresetMode.SAME_STEP)
        env.reset()
        infos.append(env.step(np.zeros(3, int))[4]["final_info"])
    assert str(infos[0]) == str(infos[1])
    assert [x.dtype for x in infos[0].values()] == [x.dtype for x in infos[1].values()]
