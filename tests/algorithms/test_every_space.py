"""Ratio one for every pair of observation and action space: the test that most mistakes fail.

Before the first update the learner finds the collection's log-probabilities and values again; those
that learn from a replay find the distributions again that actions were taken from.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from support.any_envs import AnyEnv, AnyTeam, any_vector
from support.contract import behaviour
from support.evolving import assert_same
from support.multi_envs import OneAgent
from support.pairs import examples, pairwise
from support.recollected import acting_noted, assert_replays
from support.spaces_of import observation_spaces

from recurrent_rl import (
    DDPG,
    DQN,
    IPPO,
    MADDPG,
    MATD3,
    PPO,
    SAC,
    TD3,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.spaces.masks import choices

IMAGE = Box(0, 255, (5, 6, 3), np.uint8)
OBSERVATIONS: dict[str, gym.Space[Any]] = {
    "vector": Box(-1, 1, (3,)),
    "scalar": Box(-1, 1, ()),
    "matrix": Box(-np.inf, np.inf, (2, 3), np.float64),
    "integers": Box(-5, 5, (4,), np.int32),
    "bytes": Box(0, 255, (4,), np.uint8),
    "image": IMAGE,
    "channels first": Box(0, 255, (1, 4, 4), np.uint8),
    "float image": Box(0, 1, (6, 5, 2)),
    "index": Discrete(4, start=-2),
    "indices": MultiDiscrete([3, 2], start=[1, -4]),
    "bits": MultiBinary((2, 2)),
    "dict": Dict({"image": IMAGE, "where": Box(-1, 1, (2,)), "facing": Discrete(4)}),
    "tuple": Tuple([MultiBinary(2), Box(-1, 1, (2, 2))]),
    "nested": Dict(
        {
            "views": Tuple([IMAGE, Box(0, 1, (3, 4, 4))]),
            "body": Dict({"joints": Box(-1, 1, (3,)), "mode": MultiDiscrete([[2, 3]])}),
        }
    ),
}
BOX = Box(np.array([-1, -2], np.float32), np.array([1, 3], np.float32))
ACTIONS: dict[str, tuple[gym.Space[Any], dict[str, Any]]] = {
    "choice": (Discrete(3, start=2), {}),
    "choices": (MultiDiscrete([2, 4, 3], start=[0, -1, 5]), {}),
    "table of choices": (MultiDiscrete([[2, 3], [4, 2]]), {}),
    "bits": (MultiBinary(3), {}),
    "clipped": (BOX, {"squash_output": False}),
    "squashed": (Box(-2, 1, (2, 2), np.float64), {"squash_output": True}),
    "deviation by state": (BOX, {"state_dependent_std": True}),
    "sde": (BOX, {"use_sde": True, "squash_output": False, "sde_sample_freq": 3}),
    "squashed sde": (BOX, {"use_sde": True, "squash_output": True}),
}
CORES = ("lstm", "gru", "none")
# What learns from a replay, with the kinds of actions that it takes.
BOXES, CHOSEN = ("clipped", "squashed"), ("choice", "choices", "table of choices", "bits")
OFF_POLICY: dict[type[OffPolicyAgent], tuple[str, ...]] = {
    DQN: ("choice",),
    SAC: ("choice", *BOXES, "sde", "squashed sde"),
    **dict.fromkeys((DDPG, TD3, MADDPG, MATD3), (*BOXES, *CHOSEN)),
}


def shapes(core: str, random: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    """Small networks with any of the options, and options of the agent that concern memory."""

    def maybe(**options: Any) -> dict[str, Any]:
        return options if random.random() < 0.4 else {}

    encoder = {
        "hidden_state_size": 6,
        "latent_dim": 5,
        "max_seq_len": int(random.integers(2, 8)),
        **({} if core == "none" else {"cell": core}),
        **maybe(hidden_size=[]),
        **maybe(layer_norm=True),
        **maybe(num_layers=2),
        **maybe(residual_layers=1),
        **maybe(core_residual=True),
        **maybe(core_layer_norm=True),
        **maybe(vector_space_mlp=True, mlp_config={"hidden_size": [4], "layer_norm": True}),
        **maybe(cnn_config={"channel_size": []}),
    }
    head = {"hidden_size": [7], **maybe(hidden_size=[]), **maybe(layer_norm=True)}
    options = {
        "recurrent": core != "none",
        # Not orthogonal: that begins nearly uniform, and with biases of zero, which hide mistakes.
        "ortho_init": False,
        **maybe(share_encoders=False),
        **maybe(previous_action=True),
        **maybe(previous_reward=True),
        **maybe(normalize_obs=True),
        **maybe(normalize_images=False),
        **(maybe(burn_in=1) if core != "none" else {}),
    }
    return {"encoder_config": encoder, "head_config": head}, options


def fit(options: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Leave out what no float32 can bear."""
    if own.get("state_dependent_std"):
        # Bytes as they are make outputs of thousands, hence deviations near zero, by which the
        # rounding of a mean is divided.
        options.pop("normalize_images", None)
    return {**options, **own}


def assert_ratio_one(trainer: OnPolicyTrainer) -> None:
    """Replayed and collected log-probabilities and values agree wherever a step is trained on."""
    buffer = trainer.buffer
    assert buffer is not None
    log_prob, value = replay(trainer.policy, buffer)
    active = buffer.active & buffer.exists
    assert active.any()
    assert buffer.log_prob[active].std() > 0, "a policy that says nothing proves nothing"
    for ours, theirs in ((log_prob, buffer.log_prob), (value, buffer.value)):
        # Raw bytes as inputs make large sums, of which float32 keeps 7 digits.
        torch.testing.assert_close(ours[active], theirs[active], rtol=2e-4, atol=2e-4)
    assert torch.isnan(log_prob[~active]).all()


def assert_learns(trainer: OnPolicyTrainer) -> None:
    """An update moves finite weights."""
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    assert np.isfinite(trainer.learn().policy_loss)
    after = list(trainer.policy.parameters())
    assert all(torch.isfinite(p).all() for p in after)
    assert any(not torch.equal(p, q) for p, q in zip(before, after, strict=True))


def try_alone(
    observation: gym.Space[Any], action: gym.Space[Any], core: str, seed: int, **own: Any
) -> None:
    """Collect and learn with PPO twice, with any options."""
    random = np.random.default_rng(seed)
    masked = bool(choices(action)) and random.random() < 0.5
    mode = AutoresetMode.NEXT_STEP if random.random() < 0.3 else AutoresetMode.SAME_STEP
    env = any_vector(observation, action, masked=masked, mode=mode, seed=seed % 1000)
    net, options = shapes(core, random)
    options = fit(options, own)
    agent = PPO(observation, action, net, learn_step=11, batch_size=16, seed=seed, **options)
    for _ in range(2):  # in the second, memory and normalisation come from the first
        collect_rollouts_recurrent(agent, env)
        if not options.get("burn_in"):  # which begins from fresher states than collection did
            assert_ratio_one(agent.trainer)
        assert_learns(agent.trainer)


def try_team(
    observation: gym.Space[Any], action: gym.Space[Any], core: str, seed: int, **own: Any
) -> None:
    """The same with IPPO."""
    random = np.random.default_rng(seed)
    masked = bool(choices(action)) and random.random() < 0.5
    makers = [lambda e=e: AnyTeam(observation, action, seed + e, masked) for e in range(2)]
    env = SyncMultiAgentVectorEnv(makers)
    net, options = shapes(core, random)
    options |= {"agent_id_input": True} if random.random() < 0.4 else {}
    agent = IPPO(
        env.observation_spaces,
        env.action_spaces,
        net_config=net,
        learn_step=11,
        batch_size=16,
        seed=seed,
        **fit(options, own),
    )
    for _ in range(2):
        collect_rollouts_recurrent(agent, env)
        for trainer in agent.trainers.values():
            if not options.get("burn_in"):
                assert_ratio_one(trainer)
            assert_learns(trainer)
    env.close()


@pytest.mark.parametrize(
    ("observation", "action", "core", "attempt"),
    pairwise(OBSERVATIONS, ACTIONS, CORES, (try_alone, try_team)),
)
def test_ratio_one(observation: str, action: str, core: str, attempt: Callable[..., None]) -> None:
    """Every pair, alone or in groups whose agents come and go; other options by chance."""
    space, own = ACTIONS[action]
    seed = zlib.crc32(f"{attempt.__name__}/{observation}/{action}/{core}".encode())
    attempt(OBSERVATIONS[observation], space, core, seed, **own)


SEEDS = st.integers(0, 2**31)


@settings(max_examples=examples(20))
@given(observation_spaces(), st.sampled_from(list(ACTIONS)), st.sampled_from(CORES), SEEDS)
def test_ratio_one_for_any_space(
    observation: gym.Space[Any], action: str, core: str, seed: int
) -> None:
    space, own = ACTIONS[action]
    try_alone(observation, space, core, seed, **own)


@settings(max_examples=examples(10))
@given(observation_spaces(), st.sampled_from(list(ACTIONS)), st.sampled_from(CORES), SEEDS)
def test_ratio_one_for_any_space_in_a_team(
    observation: gym.Space[Any], action: str, core: str, seed: int
) -> None:
    space, own = ACTIONS[action]
    try_team(observation, space, core, seed, **own)


# --- from a replay ------------------------------------------------------------------------------


def replaying(kind: type[OffPolicyAgent], core: str, random: np.random.Generator) -> dict[str, Any]:
    """Options by chance, in the manner of ``shapes``, with the networks' among them."""
    net, options = shapes(core, random)

    def maybe(**more: Any) -> dict[str, Any]:
        return more if random.random() < 0.4 else {}

    options.pop("share_encoders", None)
    options |= {**maybe(n_step=3), **maybe(sampling="priority"), **maybe(lr_encoder=1e-3)}
    options |= maybe(dueling=True) if kind is DQN else maybe(share_encoders=True)
    if core != "none":
        options |= {**maybe(overlap=1), **maybe(sampling="episodes")}
    if kind in (MADDPG, MATD3):
        options |= {**maybe(agent_id_input=True), **maybe(team_reward="mean")}
        options |= maybe(groups={"x": ["it_0"], "y": ["it_1"]})
    options |= {"memory_size": 150, "batch_size": 16, "learn_step": 15, "learning_starts": 5}
    return {"net_config": net, "gradient_steps": 2, **options}


def assert_updates(agent: Any) -> None:
    """Some were taken, which moved finite weights of each group, and losses are finite."""
    before = [[p.detach().clone() for p in g.policy.parameters()] for g in agent.groups]
    learned = agent.learn()
    for one in learned.values() if isinstance(learned, dict) else (learned,):
        assert one.updates > 0
        assert all(math.isfinite(value) for value in one.values.values())
    for group, old in zip(agent.groups, before, strict=True):
        after = list(group.policy.parameters())
        assert all(torch.isfinite(p).all() for p in after)
        assert any(not torch.equal(p, q) for p, q in zip(old, after, strict=True))


def try_replay(
    kind: type[OffPolicyAgent], observation: gym.Space[Any], action: str, core: str, seed: int
) -> tuple[Any, Any]:
    """Collect, replay, learn and go on, with any options; returns agent and environment."""
    random = np.random.default_rng(seed)
    space, own = ACTIONS[action]
    masked = bool(choices(space)) and random.random() < 0.5
    options = {**replaying(kind, core, random), **own, "seed": seed}
    env: Any
    build: Any = kind
    if kind in (MADDPG, MATD3):
        makers = [lambda e=e: AnyTeam(observation, space, seed + e, masked) for e in range(2)]
        env = SyncMultiAgentVectorEnv(makers)
        agent = build(env.observation_spaces, env.action_spaces, **options)
    else:
        mode = AutoresetMode.NEXT_STEP if random.random() < 0.3 else AutoresetMode.SAME_STEP
        env = any_vector(observation, space, masked=masked, mode=mode, seed=seed % 1000)
        agent = build(observation, space, **options)
    agent.end_rollout = lambda steps: None  # statistics of what was seen move, as weights do
    with acting_noted() as acted:
        collect_rollouts_recurrent(agent, env, 11)
    # Raw bytes as inputs make large sums, of which float32 keeps 7 digits.
    assert assert_replays(agent, acted, rtol=2e-4, atol=2e-4) > 10
    del agent.end_rollout
    collect_rollouts_recurrent(agent, env, 11)
    assert_updates(agent)
    return agent, env


def _replays() -> Iterator[tuple[type[OffPolicyAgent], str, str, str]]:
    """Every observation with each algorithm; those that differ in settings alone share them."""
    for j, (kind, actions) in enumerate(OFF_POLICY.items()):
        for i, observation in enumerate(OBSERVATIONS):
            if kind in (DQN, SAC) or i % 2 == j % 2:
                yield kind, observation, actions[(i // 2 + j) % len(actions)], CORES[(i + j) % 3]


@pytest.mark.parametrize(("kind", "observation", "action", "core"), list(_replays()))
def test_what_is_replayed_was_collected(
    kind: type[OffPolicyAgent], observation: str, action: str, core: str, tmp_path: Path
) -> None:
    """Every observation and action with each algorithm; what is loaded goes on in the same way."""
    seed = zlib.crc32(f"{kind.__name__}/{observation}/{action}".encode())
    agent, env = try_replay(kind, OBSERVATIONS[observation], action, core, seed)
    agent.save_checkpoint(tmp_path / "agent.pt", save_replay=True)
    other: Any = kind.load(tmp_path / "agent.pt")
    assert_same(*(behaviour(each, deterministic=False, steps=2) for each in (agent, other)))
    collect_rollouts_recurrent(other, env, 11)
    assert_updates(other)


@settings(max_examples=examples(10))
@given(
    observation_spaces(),
    st.sampled_from([(kind, action) for kind, own in OFF_POLICY.items() for action in own]),
    st.sampled_from(CORES),
    SEEDS,
)
def test_what_is_replayed_was_collected_for_any_space(
    observation: gym.Space[Any], agent: tuple[type[OffPolicyAgent], str], core: str, seed: int
) -> None:
    try_replay(agent[0], observation, agent[1], core, seed)


class Split(gym.Wrapper[Any, Any, Any, Any]):
    """Shows a vector of five numbers in a Dict of two, perhaps with the mask beside them."""

    def __init__(self, env: gym.Env[Any, Any], masked: bool) -> None:
        super().__init__(env)
        self.masked = masked
        parts: dict[str, gym.Space[Any]] = {"a": Box(-5, 5, (2,)), "b": Box(-5, 5, (3,))}
        if masked:
            parts["action_mask"] = MultiBinary(sum(choices(env.action_space)))
        self.observation_space = Dict(parts)

    def _shown(self, observation: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        given = {"a": observation[:2], "b": observation[2:]}
        if self.masked:
            given["action_mask"] = info.pop("action_mask").astype(np.int8)
        return given, info

    def reset(self, **options: Any) -> Any:
        return self._shown(*self.env.reset(**options))

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, info = self._shown(observation, info)
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", OFF_POLICY)
def test_the_same_in_other_words_is_learned_from_in_the_same_way(
    kind: type[OffPolicyAgent], masked: bool
) -> None:
    """Bit for bit: numbers in a Dict or in one vector, masks among them or in infos."""
    of_kind: dict[Any, Any] = {DQN: Discrete(3), SAC: Discrete(4), TD3: MultiDiscrete([2, 3])}
    space = of_kind.get(kind, Discrete(3, start=1))
    learned = []
    for split in (False, True):
        found = [AnyEnv(Box(-5, 5, (5,)), space, i, masked) for i in range(3)]
        envs: list[Any] = [Split(env, masked) if split else env for env in found]
        build: Any = kind
        options = {"learning_starts": 15, "batch_size": 16, "learn_step": 15, "memory_size": 100}
        options |= {"max_seq_len": 6, "seed": 0, "normalize_obs": True, "n_step": 2}
        env: Any
        if kind in (MADDPG, MATD3):
            env = SyncMultiAgentVectorEnv([lambda e=e: OneAgent(e) for e in envs])
            agent = build(env.observation_spaces, env.action_spaces, **options)
        else:
            env = SyncVectorEnv([lambda e=e: e for e in envs], autoreset_mode="SameStep")
            agent = build(env.single_observation_space, env.single_action_space, **options)
        for _ in range(4):
            collect_rollouts_recurrent(agent, env, 8)
            diagnostics = agent.learn()
        learned.append(
            [[list(g.policy.parameters()) for g in agent.groups], agent.learner.to_data()]
        )
        one = diagnostics[next(iter(diagnostics))] if isinstance(diagnostics, dict) else diagnostics
        assert one.updates > 0
    assert_same(*learned)
