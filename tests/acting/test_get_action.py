"""Tests of what ``get_action`` takes, and what it refuses, of PPO and IPPO alike."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from support.multi_envs import ScriptedParallel

from recurrent_rl import IPPO, PPO
from recurrent_rl.recurrent.state import HiddenState

VECTOR = Box(-np.inf, np.inf, (2,), np.float64)
IMAGE = Box(0, 255, (6, 5, 3), np.uint8)
Ask = Callable[..., Any]


def asks(space: Any, kind: str, **options: Any) -> Ask:
    """A function that asks an agent, of either class, for actions; arguments as PPO's."""
    actions = options.pop("actions", Discrete(3))
    if kind == "ppo":
        agent = PPO(space, actions, seed=0, **options)

        def ask(obs: Any, state: Any = None, **rest: Any) -> Any:
            state = agent.get_initial_hidden_state(2) if state is None else state
            return agent.get_action(obs, state, deterministic=True, **rest)

        return ask
    names = ["a_0", "a_1"]
    team = IPPO(
        dict.fromkeys(names, space), dict.fromkeys(names, actions), names, seed=0, **options
    )

    def ask_team(obs: Any, state: Any = None, **rest: Any) -> Any:
        state = team.get_initial_hidden_state(2)["a_1"] if state is None else state
        given = {name: {"a_1": value} for name, value in rest.items()}
        out = team.get_action({"a_1": obs}, {"a_1": state}, deterministic=True, **given)
        return type("One", (), {name: getattr(out, name)["a_1"] for name in out._fields})

    return ask_team


@pytest.fixture(params=["ppo", "ippo"])
def kind(request: Any) -> str:
    return str(request.param)


def test_observations_come_in_any_form(kind: str) -> None:
    ask, seen = asks(VECTOR, kind), np.array([[0.5, -2.0], [1.0, 0.25]])
    expected = ask(seen).value
    tensor = torch.tensor(seen)
    read_only = seen.copy()
    read_only.flags.writeable = False
    for same in (
        seen.tolist(),
        seen.astype(">f8"),
        seen[::-1, ::-1].copy()[::-1, ::-1],
        np.asfortranarray(seen),
        read_only,
        tensor,
        tensor.float().requires_grad_(),
        tensor.bfloat16(),
        list(tensor),
        tuple(tensor.requires_grad_()),
        seen.astype(np.longdouble),
    ):
        np.testing.assert_array_equal(ask(same).value, expected)


def test_images_may_be_turned_around(kind: str) -> None:
    ask = asks(IMAGE, kind)
    images = np.random.default_rng(0).integers(256, size=(2, *IMAGE.shape), dtype=np.uint8)
    expected = ask(images[:, ::-1].copy()).value
    np.testing.assert_array_equal(ask(images[:, ::-1]).value, expected)
    np.testing.assert_array_equal(ask(torch.tensor(images).flip(1)).value, expected)


@pytest.mark.parametrize("bad", [1e39, -1e300, np.nan, np.inf])
@pytest.mark.parametrize("recurrent", [True, False])
def test_what_float32_does_not_hold_is_refused(kind: str, recurrent: bool, bad: float) -> None:
    value = np.array([[0, 1], [0, bad]])
    for space, seen, part in (
        (VECTOR, value, ""),
        (Dict(x=VECTOR, i=IMAGE), {"x": value, "i": np.zeros((2, 6, 5, 3), np.uint8)}, r"\['x'\]"),
        (Tuple([Discrete(2), VECTOR]), ([0, 1], value), r"\[1\]"),
    ):
        ask = asks(space, kind, recurrent=recurrent)
        with pytest.raises(ValueError, match=rf"^observation{part}: expected finite .* in row 1"):
            ask(seen)


@pytest.mark.parametrize("bad", [1e39, np.nan, -np.inf])
def test_rewards_that_float32_does_not_hold_are_refused(kind: str, bad: float) -> None:
    ask = asks(VECTOR, kind, previous_reward=True)
    for reward in (np.array([0, bad]), torch.tensor([bad, 0.0], dtype=torch.float64), [bad, bad]):
        with pytest.raises(ValueError, match=r"^reward: expected finite numbers"):
            ask(np.zeros((2, 2)), reward=reward)
    values = [
        ask(np.zeros((2, 2)), reward=reward).value.tolist()
        for reward in ([1.0, 0.5], np.array([0.5, 1.0])[::-1], torch.tensor([1, 0.5]))
    ]
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("bad", [np.nan, -3, 0.5, 2, np.inf])
def test_masks_of_anything_but_flags_are_refused(kind: str, bad: float) -> None:
    ask = asks(VECTOR, kind)
    for mask in ([[1, 0, 1], [1, bad, 1]], torch.tensor([[bad, 1, 1], [1, 1, 1]])):
        with pytest.raises(ValueError, match=r"^action_mask: expected 0 and 1, .*got .*"):
            ask(np.zeros((2, 2)), action_mask=mask)


@pytest.mark.parametrize(
    "mask",
    [
        [[0, 1, 0], [0, 0, 1]],
        np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        torch.tensor([[False, True, False], [False, False, True]]),
        np.array([[0, 0, 1], [0, 1, 0]], np.int8)[::-1],
    ],
)
def test_masks_come_in_any_form(kind: str, mask: Any) -> None:
    assert asks(VECTOR, kind)(np.zeros((2, 2)), action_mask=mask).action.tolist() == [1, 2]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_states_that_are_not_finite_or_fit_nothing_are_refused(kind: str, cell: str) -> None:
    encoder = {"encoder_config": {"cell": cell}}
    ask, agent = asks(VECTOR, kind, net_config=encoder), PPO(VECTOR, Discrete(3), encoder)
    good, seen = agent.get_initial_hidden_state(2), np.zeros((2, 2))
    for bad in (np.nan, np.inf):
        tensors = [x.clone() for x in good.tensors]
        tensors[-1][0, 1, 3] = bad
        with pytest.raises(ValueError, match=r"^hidden_state: expected finite numbers"):
            ask(seen, HiddenState(tensors, 2))
    for other in (
        HiddenState([x[..., :-1] for x in good.tensors], 2),
        HiddenState(good.tensors, 3),
        good[[0, 1, 1]],
        HiddenState([x.double() for x in good.tensors], 2),
    ):
        with pytest.raises(ValueError, match=r"^hidden_state: expected"):
            ask(seen, other)
    with pytest.raises(TypeError, match=r"^hidden_state: expected a HiddenState, got (list|tuple)"):
        ask(seen, good.tensors)


@pytest.mark.parametrize("value", [[[0, 1], [2]], [[[0, 1], [2]], [[0], [1]]]])
def test_lists_that_make_no_array_are_named(kind: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^observation: expected numbers of shape \[..., 2\]"):
        asks(VECTOR, kind)(value)


@pytest.mark.parametrize("space", [VECTOR, Box(-1e300, 1e300, (2,), np.float64)])
def test_flags_of_a_team_are_flags(space: Any) -> None:
    names = ["a_0", "a_1"]
    team = IPPO(dict.fromkeys(names, space), dict.fromkeys(names, Discrete(3)), names, seed=0)
    infos = {"a_0": {"start": np.array([np.nan, 0])}}
    message = r"^infos\['a_0'\]\['start'\]: expected 0 and 1"
    with pytest.raises(ValueError, match=message):
        team.get_action({"a_0": np.zeros((2, 2))}, team.get_initial_hidden_state(2), infos=infos)


AGENTS = Path(__file__).parents[2] / "docs" / "agents.md"
MEMORIES = [{}, {"recurrent": False}, {"net_config": {"encoder_config": {"cell": "gru"}}}]


@pytest.mark.parametrize("options", MEMORIES, ids=["lstm", "none", "gru"])
def test_the_loop_of_the_documentation_where_agents_die_and_come_back(options: Any) -> None:
    """The environment refuses actions of those who are not there; memories begin with lives."""
    lives = {"u_0": [(0, 9, "t")], "u_1": [(0, 2, "t"), (5, 8, "l")], "u_2": [(3, 4, "l")]}
    env = ScriptedParallel([lives])
    agent = IPPO(env.observation_spaces, env.action_spaces, env.possible_agents, seed=0, **options)
    given: dict[int, Any] = {}
    get_action = agent.get_action

    def spy(obs: Any, hidden_state: Any, **rest: Any) -> Any:
        given[env.time] = obs.keys(), hidden_state["u_1"]
        return get_action(obs, hidden_state, **rest)

    agent.get_action = spy  # type: ignore[method-assign]
    (loop,) = (
        snippet
        for snippet in re.findall(r"^```python\n(.*?)^```", AGENTS.read_text(), re.M | re.S)
        if "while env.agents:" in snippet
    )
    exec(loop, {"agent": agent, "env": env})
    assert env.time == 9
    for step, (seen, state) in given.items():
        there = {a for a, each in lives.items() if any(x <= step < y for x, y, _ in each)}
        assert set(seen) == there
        if step in (0, 2, 3, 4, 5, 8):  # not in a life of u_1, or at its start
            assert all(not tensor.any() for tensor in state.tensors)
        elif agent.groups[0].policy.state_shapes:
            assert any(tensor.any() for tensor in state.tensors)
