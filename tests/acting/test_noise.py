"""Tests of `recurrent_rl.acting.player`: exploration noise, drawn for many steps at once."""

import pytest
import torch
from support.helpers import make_policy

from recurrent_rl.acting.player import NOISE_BLOCK, SampledNoise


def noises(sample_freq: int, steps: int) -> list[torch.Tensor]:
    """What a player of two rows draws for T steps of state-dependent exploration."""
    policy = make_policy(action="box", use_sde=True, sde_sample_freq=sample_freq)
    generator = torch.Generator().manual_seed(1)
    explorer = SampledNoise(policy.distribution, 2, generator, torch.device("cpu"))
    return [explorer.noise(steps - t) for t in range(steps)]


@pytest.mark.parametrize("sample_freq", [1, 5, 64, 100])
def test_noise_holds_for_as_many_steps_as_was_asked(sample_freq: int) -> None:
    """Blocks are 64 steps long, or as long as a function of the exploration is to hold."""
    drawn = noises(sample_freq, 230)
    block = max(NOISE_BLOCK, sample_freq)
    for t in range(1, len(drawn)):
        same = torch.equal(drawn[t], drawn[t - 1])
        assert same == (t % block != 0 and t % block % sample_freq != 0), t


def test_no_more_noise_is_drawn_than_there_are_steps() -> None:
    """The stream then stands where it stood had each step been drawn by itself."""
    policy = make_policy(action="box")
    generator = torch.Generator().manual_seed(1)
    explorer = SampledNoise(policy.distribution, 3, generator, torch.device("cpu"))
    drawn = torch.stack([explorer.noise(70 - t) for t in range(70)])
    again = torch.Generator().manual_seed(1)
    distribution = policy.action_head.distribution
    blocks = [distribution.noise((steps, 3), again) for steps in (64, 6)]
    assert torch.equal(drawn, torch.cat(blocks))
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=again))
