"""Ratio one for every pair of observation and action space: the test that most mistakes fail.

Before the first update the learner finds the collection's log-probabilities and values again.
"""

import zlib
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from support.any_envs import AnyTeam, any_vector
from support.spaces_of import observation_spaces

from recurrent_rl import (
    IPPO,
    PPO,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
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


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_ratio_one(observation: str, action: str, core: str) -> None:
    """Every pair, alone; other options by chance, but the same each time."""
    space, own = ACTIONS[action]
    seed = zlib.crc32(f"{observation}/{action}/{core}".encode())
    try_alone(OBSERVATIONS[observation], space, core, seed, **own)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_ratio_one_in_a_team(observation: str, action: str, core: str) -> None:
    """Every pair, in groups whose agents come and go."""
    space, own = ACTIONS[action]
    seed = zlib.crc32(f"{core}/{action}/{observation}".encode())
    try_team(OBSERVATIONS[observation], space, core, seed, **own)


SEEDS = st.integers(0, 2**31)


@settings(max_examples=40)
@given(observation_spaces(), st.sampled_from(list(ACTIONS)), st.sampled_from(CORES), SEEDS)
def test_ratio_one_for_any_space(
    observation: gym.Space[Any], action: str, core: str, seed: int
) -> None:
    space, own = ACTIONS[action]
    try_alone(observation, space, core, seed, **own)


@settings(max_examples=20)
@given(observation_spaces(), st.sampled_from(list(ACTIONS)), st.sampled_from(CORES), SEEDS)
def test_ratio_one_for_any_space_in_a_team(
    observation: gym.Space[Any], action: str, core: str, seed: int
) -> None:
    space, own = ACTIONS[action]
    try_team(observation, space, core, seed, **own)
