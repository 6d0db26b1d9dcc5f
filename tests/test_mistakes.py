"""Twelve natural mistakes of a new user: each message names the mistake, and what to do instead.

Elsewhere tests look at the checks themselves; these are the scripts that one writes on the first
day, coming from another library or from none.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
from mpe2 import simple_spread_v3

from recurrent_rl import (
    DQN,
    IPPO,
    PPO,
    SAC,
    TD3,
    CheckpointError,
    collect_rollouts_recurrent,
    make_multi_agent_vect_envs,
    make_vect_envs,
    train,
)


class Echo(gym.Env[Any, Any]):
    """Rewards the bit that is shown."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), float(action), False, False, {}


class OldStep(Echo):
    """Of the time before Gymnasium 0.26."""

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), 0.0, False, {}


class OldReset(Echo):
    """Likewise."""

    def reset(self, **options: Any) -> Any:
        return np.zeros(2, np.float32)


class Three(OldReset):
    """An observation that is not taken for two things."""

    def reset(self, **options: Any) -> Any:
        return np.zeros(3, np.float32)


class OldSeed(Echo):
    """Likewise; seeds had a method of their own."""

    def reset(self) -> Any:  # type: ignore[override]
        return np.zeros(2, np.float32)


SPACES: Any = (Echo.observation_space, Echo.action_space)
SMALL: dict[str, Any] = {
    "net_config": {"encoder_config": {"hidden_state_size": 4}, "head_config": {"hidden_size": [4]}},
    "seed": 0,
}


def vector(make: Callable[[], Any] = Echo, **options: Any) -> Any:
    return make_vect_envs(make_env=make, num_envs=2, should_async_vector=False, **options)


def agent(**options: Any) -> Any:
    return PPO(*SPACES, **{**SMALL, "learn_step": 4, **options})


def team() -> Any:
    names, spaces = ["a_0", "a_1"], SPACES
    return IPPO([spaces[0]] * 2, [spaces[1]] * 2, names, **SMALL)


def collected(env: Any = None, **options: Any) -> Any:
    """An agent with a rollout to learn from."""
    made = agent(**options)
    collect_rollouts_recurrent(made, vector() if env is None else env)
    return made


def another(path: Path) -> Path:
    """The file of a saved PPO."""
    agent().save_checkpoint(path / "agent.pt")
    return path / "agent.pt"


def collected_twice(_: Path) -> Any:
    env = vector()
    collect_rollouts_recurrent(collected(env), env)


SEEN = np.zeros((2, 2), np.float32)


class Mistake(NamedTuple):
    """What somebody writes, and what must be said.

    Attributes:
        make: does it, with a folder to write to.
        kind: of the error or warning.
        named: expected in the message: the mistake.
        remedy: likewise, what to do.

    """

    make: Callable[[Path], Any]
    kind: type[Exception]
    named: str
    remedy: str


T, V = TypeError, ValueError
OBJECT, MODULE = "got Echo <", "got module mpe2.simple_spread_v3"
BUILD = "write make_env=lambda: Echo(...), which builds a new one each time"
FUNCTION = "pass its function: make_multi_agent_vect_envs(mpe2.simple_spread_v3.parallel_env)"
HIDDEN = "get_initial_hidden_state(2) and pass on what get_action returns"
OLD = "is it the interface from before Gymnasium 0.26? Return those from it, or convert it with"
RESET = "expected reset to return (observation, info)"

MISTAKES: dict[str, list[Mistake]] = {
    "a name of another library": [
        Mistake(lambda _: agent(learning_rate=1e-3), V, "'learning_rate'", "is called lr here"),
        Mistake(lambda _: SAC(*SPACES, lr=1e-3), V, "'lr'", "called lr_actor or lr_critic here"),  # type: ignore[call-arg]
        Mistake(lambda _: agent(lr=lambda p: p), T, "lr: expected the number", "in lr_schedule"),
    ],
    "networks among hyper-parameters": [
        Mistake(
            lambda _: agent(lstm_hidden_size=64),
            V,
            "'lstm_hidden_size'",
            "is called hidden_state_size here (64 by default rather than 256) and belongs in "
            "net_config={'encoder_config': {'hidden_state_size': ...}}",
        ),
    ],
    "n_envs": [
        Mistake(lambda _: vector(n_envs=2), T, "no argument 'n_envs'", "is called num_envs here"),
        Mistake(
            lambda _: make_vect_envs("CartPole-v1", n_envs=2), T, "'n_envs'", "called num_envs here"
        ),
        Mistake(
            lambda _: make_multi_agent_vect_envs(simple_spread_v3.parallel_env, n_envs=2),
            T,
            "make_multi_agent_vect_envs has no argument 'n_envs'",
            "called num_envs here",
        ),
    ],
    "no function that builds environments": [
        Mistake(lambda _: make_vect_envs(Echo(), 2), T, OBJECT, BUILD),  # type: ignore[arg-type]
        Mistake(lambda _: vector(Echo()), T, OBJECT, BUILD),
        Mistake(lambda _: vector(simple_spread_v3), T, MODULE, FUNCTION),
        Mistake(lambda _: make_vect_envs(Echo), T, "got type <", "pass it as make_env="),  # type: ignore[arg-type]
        Mistake(lambda _: vector([Echo, Echo]), T, "got list [", "one function, and num_envs= for"),  # type: ignore[arg-type]
        Mistake(lambda _: vector(vector()), T, "which is one", "a vector already: use it as it is"),
        Mistake(lambda _: make_multi_agent_vect_envs(simple_spread_v3, 2), T, MODULE, FUNCTION),
        Mistake(
            lambda _: make_multi_agent_vect_envs(simple_spread_v3.parallel_env(), 2),
            T,
            "got aec_to_parallel_wrapper <",
            "write lambda: raw_env(...), which builds a new one each time",
        ),
        Mistake(
            lambda _: vector(simple_spread_v3.parallel_env),
            T,
            "got aec_to_parallel_wrapper;",
            "for PettingZoo's there is make_multi_agent_vect_envs",
        ),
    ],
    "no memory": [
        Mistake(lambda _: agent().get_action(SEEN), V, "expected one, as this policy rem", HIDDEN),
        Mistake(
            lambda _: team().get_action({"a_0": SEEN}), V, "expected one for agent 'a_0'", HIDDEN
        ),
    ],
    "another observation": [
        Mistake(
            lambda _: agent().get_action(SEEN[:, :1], agent().get_initial_hidden_state(2)),
            V,
            "observation: expected shape [N, ...] = [2, 2], got [2, 1]",
            "is it of another environment, or not wrapped as in training?",
        ),
        Mistake(
            lambda _: agent().get_action(Echo().reset(), agent().get_initial_hidden_state()),
            T,
            "expected an observation alone, got it in a tuple with its info",
            "write obs, info = env.reset()",
        ),
        Mistake(
            lambda _: team().get_action(SEEN, team().get_initial_hidden_state(2)),
            T,
            "expected observations by agent, as in {'a_0': ...}, got ndarray",
            "the environment's observations are such a dictionary",
        ),
    ],
    "the old interface": [
        Mistake(lambda _: collected(vector(OldStep)), V, "env.step: expected a tuple of 5", OLD),
        Mistake(lambda _: collected(vector(OldReset)), V, RESET, OLD),
        Mistake(lambda _: collected(vector(Three)), V, "env.reset: expected a tuple of 2", OLD),
        Mistake(lambda _: collected(vector(OldSeed)), T, "unexpected keyword argument 'seed'", OLD),
        Mistake(lambda _: agent().evaluate(OldStep(), 1), V, "expected a tuple of 5", OLD),
        Mistake(lambda _: agent().evaluate(OldReset(), 1), V, RESET, OLD),
    ],
    "testing where one trains": [
        Mistake(
            lambda _: (lambda env: train(agent(), env, 8, eval_env=env, progress=False))(vector()),
            V,
            "eval_env: expected another environment than env",
            "build a second one",
        ),
    ],
    "learning from nothing, and twice as much": [
        Mistake(
            lambda _: agent().learn(),
            RuntimeError,
            "expected a rollout collected since the last call",
            "call collect_rollouts_recurrent(agent, env) first",
        ),
        Mistake(
            collected_twice,
            UserWarning,
            "the last rollout is thrown away, as nothing was learned from it",
            "call agent.learn() after each collection",
        ),
    ],
    "a file of something else": [
        Mistake(
            lambda path: SAC.load(another(path)),
            CheckpointError,
            "expected a saved SAC, got 'PPO'",
            "load it by PPO.load",
        ),
    ],
    "an algorithm for other actions": [
        Mistake(
            lambda _: DQN(SPACES[0], gym.spaces.Box(-1, 1, (1,))),
            T,
            "action_space: expected Discrete, whose actions' values DQN compares, got Box",
            "for Box there are SAC, TD3, DDPG and PPO",
        ),
        Mistake(
            lambda _: PPO("MlpLstmPolicy", vector()),  # type: ignore[arg-type]
            T,
            "expected a gymnasium space, got 'MlpLstmPolicy'",
            "PPO(env.single_observation_space, env.single_action_space)",
        ),
    ],
    "hyper-parameters that do nothing": [
        Mistake(
            lambda _: setattr(agent(), "lr", 1e-4),
            AttributeError,
            "PPO.lr: expected hyper-parameters to be changed by reconfigure",
            "call agent.reconfigure(lr=0.0001)",
        ),
        Mistake(
            lambda _: setattr(agent(), "learning_rate", 1e-4),
            AttributeError,
            "PPO has no attribute 'learning_rate', which nothing would read",
            "agent.reconfigure(lr=...)",
        ),
        Mistake(
            lambda _: agent().gamma, AttributeError, "no attribute 'gamma'", "agent.config.gamma"
        ),
    ],
}


def test_there_are_twelve() -> None:
    assert len(MISTAKES) == 12


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(one, id=f"{name} {i}")
        for name, each in MISTAKES.items()
        for i, one in enumerate(each)
    ],
)
def test_the_message_names_the_mistake_and_the_remedy(mistake: Mistake, tmp_path: Path) -> None:
    said = f"{re.escape(mistake.named)}(.|\n)*{re.escape(mistake.remedy)}"
    if issubclass(mistake.kind, Warning):
        with pytest.warns(mistake.kind, match=said) as caught:
            mistake.make(tmp_path)
        assert len(caught) == 1
        assert Path(caught[0].filename) == Path(__file__)
        return
    with pytest.raises(mistake.kind, match=said):
        mistake.make(tmp_path)


def test_warnings_are_given_once() -> None:
    env, made = vector(), agent()
    collect_rollouts_recurrent(made, env)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            collect_rollouts_recurrent(made, env)
    assert ["thrown away" in str(each.message) for each in caught] == [True]
    made.learn()


def test_old_workers_are_told_too() -> None:
    env = make_vect_envs(make_env=OldReset, num_envs=1)
    with pytest.raises(ValueError, match=r"^env\.reset: expected .* Gymnasium 0\.26"):
        collect_rollouts_recurrent(agent(), env)


def test_an_environments_own_errors_stay_what_they_are() -> None:
    class Broken(Echo):
        def step(self, action: Any) -> Any:
            _a, _b = 1, 2, 3  # type: ignore[misc]

    with pytest.raises(ValueError, match=r"^too many values to unpack"):
        collected(vector(Broken))


# --- attributes ---------------------------------------------------------------------------------


def test_subclasses_have_attributes_of_their_own() -> None:
    class Mine(PPO):
        """With a note."""

        def __init__(self, *spaces: Any, **options: Any) -> None:
            super().__init__(*spaces, **options)
            self.note, self.learning_rate = "mine", 3

    made = Mine(*SPACES, **SMALL)
    assert (made.note, made.learning_rate) == ("mine", 3)
    made.anything = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"Mine\.lr: .* reconfigure"):
        made.lr = 1  # type: ignore[attr-defined]


def test_private_names_and_declared_ones_may_be_set() -> None:
    made = agent()
    made._mine, made.fitness, made.training = 1, [2.0], False
    assert (made._mine, made.fitness, made.training) == (1, [2.0], False)
    with pytest.raises(AttributeError, match="no attribute '_none'"):
        made._none  # noqa: B018
    with pytest.raises(AttributeError, match=r"; did you mean 'policy'\? Attributes of your own b"):
        made.polcy = 1
    with pytest.raises(AttributeError, match="OnPolicyTrainer has no attribute 'gama'"):
        made.trainer.gama = 1
    assert not hasattr(made, "predict")
    with pytest.raises(AttributeError, match="'predict'; it is called get_action here"):
        made.predict  # noqa: B018


def test_a_property_that_fails_says_why() -> None:
    """Not that there is no such property."""
    empty = PPO.__new__(PPO)
    with pytest.raises(AttributeError, match="no attribute 'trainers'"):
        empty.policy  # noqa: B018


# --- help ---------------------------------------------------------------------------------------


def test_help_lists_all_hyperparameters_with_their_defaults() -> None:
    import recurrent_rl

    for name in ("PPO", "IPPO", "MAPPO", "DQN", "DDPG", "TD3", "SAC", "MADDPG", "MATD3"):
        kind = getattr(recurrent_rl, name)
        assert not kind.__doc__.startswith("Hyper-parameters")
        for option, default in vars(kind.config_type()).items():
            line = f"\n    {option} = {default!r}  ("
            assert kind.__doc__.count(line) == 1, (name, option)
        assert "\n    hidden_state_size = 64  (whole number in [1, 1,000,000])\n" in kind.__doc__


def test_help_of_a_users_own_class() -> None:
    class Mine(PPO):
        """Mine."""

    class Bare(PPO):
        pass

    assert Mine.__doc__ is not None
    assert Mine.__doc__.startswith("Mine.\n\nHyper-parameters, with their defaults:\n\n    recurr")
    assert Bare.__doc__ is None


@pytest.mark.parametrize("kind", [DQN, TD3])
def test_print_shows_what_is_not_as_by_default(kind: Any) -> None:
    assert "settings" not in repr(kind(*SPACES))
    assert repr(kind(*SPACES, gamma=0.9, n_step=3)).endswith("settings  gamma=0.9, n_step=3")
