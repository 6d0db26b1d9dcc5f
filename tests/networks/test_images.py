"""Tests of images from end to end: bytes stay bytes, memory stays small, statistics go along."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from support.any_envs import any_vector
from torch.utils._python_dispatch import TorchDispatchMode

from recurrent_rl import PPO, collect_rollouts_recurrent
from recurrent_rl.algorithms.unroll import refresh_hidden_state, replay

IMAGE = Box(0, 255, (24, 24, 3), np.uint8)
WITH_NUMBERS = Dict({"image": IMAGE, "speed": Box(-1, 1, (2,))})


def agent_for(space: gym.Space[Any], steps: int, **options: Any) -> PPO:
    encoder = {"max_seq_len": 8, "hidden_state_size": 8, "latent_dim": 8}
    net = {"encoder_config": encoder, "head_config": {"hidden_size": [8]}}
    fixed: dict[str, Any] = {"learn_step": steps, "batch_size": 24, "update_epochs": 2, "seed": 0}
    return PPO(space, Discrete(3), net, **{**fixed, **options})


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else [result]
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
        for x in made:
            # Views of what was there before take no room.
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, x.nbytes)
        return result


@pytest.mark.parametrize("space", [IMAGE, WITH_NUMBERS], ids=["image", "dict"])
@pytest.mark.parametrize("options", [{}, {"normalize_obs": True}, {"refresh_hidden_state": True}])
def test_learning_takes_no_more_room_for_longer_rollouts(
    space: gym.Space[Any], options: dict[str, Any]
) -> None:
    largest = {}
    for steps in (16, 160):
        env = any_vector(space, Discrete(3))
        agent = agent_for(space, steps, **options)
        collect_rollouts_recurrent(agent, env)
        with Largest() as seen:
            agent.learn()
        largest[steps] = seen.bytes
    pixels = 24 * 24 * 3
    # Convolutions give more numbers than they read, but for a minibatch (24 steps and padding) or
    # a block of statistics only; all images of 160 x 3 steps as floats would take 3.3 MB.
    assert largest[160] <= 1.5 * largest[16]
    assert largest[160] < 160 * 3 * pixels * 4 / 2


def test_rollouts_keep_bytes() -> None:
    agent = agent_for(IMAGE, 16)
    collect_rollouts_recurrent(agent, any_vector(IMAGE, Discrete(3)))
    assert agent.buffer is not None
    assert agent.buffer.obs.dtype == torch.uint8
    assert agent.buffer.obs.shape == (16, 3, 24, 24, 3)
    agent = agent_for(WITH_NUMBERS, 16)
    collect_rollouts_recurrent(agent, any_vector(WITH_NUMBERS, Discrete(3)))
    assert agent.buffer is not None
    assert agent.buffer.obs.nbytes == 16 * 3 * (24 * 24 * 3 + 2 * 4)


class TestStatistics:
    def test_of_each_pixel(self) -> None:
        env, agent = (
            any_vector(WITH_NUMBERS, Discrete(3)),
            agent_for(WITH_NUMBERS, 40, normalize_obs=True, update_epochs=1),
        )
        seen = []
        for _ in range(2):
            collect_rollouts_recurrent(agent, env)
            assert agent.buffer is not None
            seen.append(agent.policy.codec(agent.buffer.obs.flatten(0, 1).clone()))
            agent.learn()
        (norm,) = agent.policy.preprocessor.image_norms
        images = torch.cat([x.images[0].flatten(1) for x in seen]).double()
        torch.testing.assert_close(norm.mean, images.mean(0))
        torch.testing.assert_close(norm.variance, images.var(0, unbiased=False))
        shown = agent.policy.preprocessor(agent.buffer.obs).images[0]
        expected = (seen[-1].images[0] - norm.mean.view(3, 24, 24)) * norm.variance.view(
            3, 24, 24
        ).rsqrt()
        torch.testing.assert_close(shown.flatten(0, 1), expected.float(), rtol=1e-3, atol=1e-3)

    def test_saved_and_cloned(self, tmp_path: Any) -> None:
        env, agent = any_vector(IMAGE, Discrete(3)), agent_for(IMAGE, 16, normalize_obs=True)
        collect_rollouts_recurrent(agent, env)
        agent.learn()
        agent.save_checkpoint(tmp_path / "agent.pt")
        for other in (agent.clone(), PPO.load(tmp_path / "agent.pt")):
            for name, x in agent.policy.preprocessor.image_norms.state_dict().items():
                assert torch.equal(other.policy.preprocessor.image_norms.state_dict()[name], x)
            observation = agent.buffer.obs[0].numpy()  # type: ignore[union-attr]
            state = agent.get_initial_hidden_state(3)
            ours, theirs = (
                a.get_action(observation, state, deterministic=True) for a in (agent, other)
            )
            np.testing.assert_array_equal(ours.value, theirs.value)

    def test_frozen_while_a_rollout_is_learned_from(self) -> None:
        env, agent = any_vector(IMAGE, Discrete(3)), agent_for(IMAGE, 16, normalize_obs=True)
        for _ in range(2):
            collect_rollouts_recurrent(agent, env)
            assert agent.buffer is not None
            log_prob, _ = replay(agent.policy, agent.buffer)
            torch.testing.assert_close(log_prob, agent.buffer.log_prob, rtol=1e-4, atol=1e-5)
            refresh_hidden_state(agent.policy, agent.buffer)  # with the same weights: as it was
            log_prob, _ = replay(agent.policy, agent.buffer)
            torch.testing.assert_close(log_prob, agent.buffer.log_prob, rtol=1e-4, atol=1e-5)
            agent.learn()


class TestWhatIsNoByte:
    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.full((24, 24, 3), 0.5, np.float32), r"float32 from 0.5 to 0.5; is it scaled"),
            (np.full((24, 24, 3), 300), r"int64 from 300 to 300"),
            (np.full((24, 24, 3), -1), r"int64 from -1 to -1"),
        ],
    )
    def test_is_an_error(self, image: Any, message: str) -> None:
        for space, seen in ((IMAGE, image), (WITH_NUMBERS, {"image": image, "speed": np.zeros(2)})):
            agent = agent_for(space, 4)
            with pytest.raises(ValueError, match=message):
                agent.get_action(seen, agent.get_initial_hidden_state())

    def test_whole_numbers_of_other_dtypes_will_do(self) -> None:
        agent = agent_for(IMAGE, 4)
        image = np.random.default_rng(0).integers(256, size=(24, 24, 3))
        state = agent.get_initial_hidden_state()
        values = [
            agent.get_action(image.astype(dtype), state, deterministic=True).value
            for dtype in (np.uint8, np.int64, np.float32)
        ]
        assert values[0] == values[1] == values[2]
