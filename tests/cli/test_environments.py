"""Tests of `recurrent_rl.cli.environments` and `settings`: environments by name, what they get."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from recurrent_rl.cli.environments import Environment, EnvironmentOptions
from recurrent_rl.cli.errors import UsageError
from recurrent_rl.cli.settings import Algorithm, start_of
from recurrent_rl.envs.envpool_vector import EnvPoolVectorEnv
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.tuned import TUNED, load_tuned
from recurrent_rl.wrappers import EarlyMessageWrapper, MaskVelocityWrapper

OWN = """
import gymnasium as gym

class Short(gym.Wrapper):
    def __init__(self, env, factor=1.0):
        super().__init__(env)
        self.factor = factor

def make(limit=5, render_mode=None):
    return gym.make("CartPole-v1", max_episode_steps=limit, render_mode=render_mode)
"""


def environment(env_id: str, **options: Any) -> Environment:
    return Environment.from_options({**EnvironmentOptions().to_dict(), "env_id": env_id, **options})


def test_masked() -> None:
    found = environment("Pendulum-v1", mask_velocity=True)
    env = found.build()
    assert isinstance(env, MaskVelocityWrapper)
    assert env.spec.id == "Pendulum-v1"
    assert str(found) == "Pendulum-v1 in MaskVelocityWrapper"
    assert found.folder == "Pendulum-v1-masked"
    assert not found.has_team()


def test_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_envs.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    found = environment(
        "own_envs:make",
        env_args="limit=3",
        wrapper=("own_envs:Short(factor=2.5)", "FrameStackObservation(stack_size=2)"),
    )
    env = found.build()
    assert isinstance(env, gym.wrappers.FrameStackObservation)
    assert env.env.factor == 2.5
    assert env.spec.max_episode_steps == 3
    assert found.folder == "own_envs_make-Short-FrameStackObservation-limit=3"


def test_folders() -> None:
    grid = environment("MiniGrid-MemoryS7-v0")
    assert grid.wrappers
    assert grid.folder == "MiniGrid-MemoryS7-v0"  # it gets its wrappers by itself
    odd = environment("A/b-v1", wrapper=("a.b:C(x='d:e(f)')",))
    assert (odd.folder, str(odd)) == ("A_b-v1-C", "A/b-v1 in C(x='d:e(f)')")


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("Pendulm-v1", {}, r"ENV_ID: .* got 'Pendulm-v1'; did you mean Pendulum-v1\?"),
        ("nothing_v7", {}, "for one of your own write module:function"),
        ("no_such_module:make", {}, "no_such_module: expected a module that can be imported"),
        ("math:pi", {}, "math"),
        ("CartPole-v1", {"wrapper": ("Nothing",)}, "--wrapper: expected a class in .*'Nothing'"),
        ("CartPole-v1", {"wrapper": ("a:b:c",)}, "--wrapper: expected module:Class"),
        ("CartPole-v1", {"env_args": "speed=3"}, "CartPole-v1, speed=3: .*speed"),
        ("Acrobot-v1", {"mask_velocity": True}, "expected one of the ids"),
        (None, {}, "ENV_ID: expected an environment, such as Pendulum-v1"),
    ],
)
def test_what_there_is_not(env_id: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        environment(env_id, **options).has_team()


def test_teams() -> None:
    pytest.importorskip("mpe2")
    assert environment("simple_spread_v3").has_team()
    early = environment("simple_speaker_listener_v4-early").build()
    assert isinstance(early, EarlyMessageWrapper)
    pytest.importorskip("lbforaging")
    assert environment("Foraging-8x8-2p-2f-v3").has_team()


def test_in_envpool() -> None:
    pytest.importorskip("envpool", reason="the extra envpool is not installed")
    masked = environment("Pendulum-v1", mask_velocity=True, env_args="max_episode_steps=5")
    env = masked.vector(3, team=False, in_envpool=True)
    assert type(env.unwrapped) is EnvPoolVectorEnv
    assert env.unwrapped.options == {"max_episode_steps": 5}
    assert not env.reset()[0][:, 2].any()
    for message, options, more in (
        ("--backend: expected gymnasium with --wrapper X, got envpool", {"wrapper": ("X",)}, {}),
        ("--backend: expected gymnasium with several agents", {}, {"in_workers": True}),
        ("--backend envpool: .* refuses {'g': 9}", {"env_args": "g=9"}, {}),
    ):
        with pytest.raises(UsageError, match=message):
            environment("Pendulum-v1", **options).vector(3, team=False, in_envpool=True, **more)


def test_what_pettingzoo_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mpe2.simple_spread_v3", raising=False)
    monkeypatch.setitem(sys.modules, "mpe2", None)
    with pytest.raises(UsageError, match=r"those of mpe2 take pip install 'recurrent_rl\[mpe\]'"):
        environment("simple_spread_v3").has_team()


def test_all_algorithms_may_be_named() -> None:
    assert list(Algorithm.__args__) == list(ALGORITHMS)


class TestTuned:
    """Which settings are begun with: those for masked environments are for masked ones."""

    def test_for_what_it_is(self) -> None:
        start = start_of(environment("Pendulum-v1", mask_velocity=True), None, tuned=True)
        assert (start.algo, start.settings) == ("PPO", TUNED["Pendulum-v1", "PPO"])
        assert start.note == "tuned for Pendulum-v1 with --mask-velocity with PPO"
        assert start.training() == {"algo": "PPO", "total_steps": 100_000, "num_envs": 8}
        assert start.hyperparameters()["lr"] == 3e-3
        assert start.hyperparameters()["max_seq_len"] == 64
        assert start.networks("head_config")["hidden_size"] == (64,)

    def test_with_velocities_the_harder_ones_are_named(self) -> None:
        start = start_of(environment("Pendulum-v1"), None, tuned=True)
        assert start.settings is TUNED["Pendulum-v1", "PPO"]
        assert "with --mask-velocity, which is harder" in start.note
        own = start_of(environment("Pendulum-v1"), "SAC", tuned=True)
        assert own.settings is TUNED["Pendulum-v1-observed", "SAC"]

    def test_without_memory_never_for_masked_ones(self) -> None:
        masked = environment("CartPole-v1", mask_velocity=True)
        assert start_of(masked, "DQN", tuned=True).settings is TUNED["CartPole-v1", "DQN"]
        monkey = start_of(environment("Pendulum-v1", mask_velocity=True), "TD3", tuned=True)
        assert monkey.settings is None
        assert "TD3's defaults, as none are tuned for Pendulum-v1 in Mask" in monkey.note
        assert "--algo PPO or SAC" in monkey.note

    def test_none_if_not_asked_for(self) -> None:
        start = start_of(environment("Pendulum-v1"), None, tuned=False)
        assert start.settings is None
        assert start.hyperparameters() == {}

    def test_teams_have_their_own(self) -> None:
        pytest.importorskip("mpe2")
        spread = environment("simple_spread_v3")
        assert start_of(spread, None, tuned=True).algo == "IPPO"
        start = start_of(spread, "MADDPG", tuned=True)
        # They were found with forces rather than choices.
        assert start.environment.arguments == {"continuous_actions": True}
        # No IPPO has learned it; as load_tuned chooses.
        early = start_of(environment("simple_speaker_listener_v4-early"), None, tuned=True)
        assert early.algo == load_tuned("simple_speaker_listener_v4-early").algo == "MAPPO"
        untuned = start_of(environment("simple_speaker_listener_v4-early"), None, tuned=False)
        assert untuned.algo == "IPPO"
        assert "began with speakers who are heard all the time" in early.note
        with pytest.raises(UsageError, match="several agents, as simple_spread_v3 has, got SAC"):
            start_of(spread, "SAC", tuned=True)
        with pytest.raises(UsageError, match="one agent, as CartPole-v1 has, got IPPO"):
            start_of(environment("CartPole-v1"), "IPPO", tuned=True)
