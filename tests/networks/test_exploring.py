"""Tests of `recurrent_rl.networks.exploring`: distributions around a greedy choice."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.helpers import SEEDS
from torch import Tensor

from recurrent_rl.networks.exploring import EDGE, EpsilonGreedy, NoisyBox, allowed, forbid
from recurrent_rl.spaces.actions import BoxCodec


def values(seed: int, rows: int = 5, choices: int = 4) -> tuple[Tensor, Tensor]:
    """Values, and masks that allow something."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, choices, generator=generator) < 0.6
    mask[:, seed % choices] |= ~mask.any(-1)
    return 100 * torch.randn(rows, choices, generator=generator), mask


class TestEpsilonGreedy:
    @given(SEEDS, st.sampled_from([0.0, 0.3, 1.0]), st.booleans())
    def test_probabilities_entropy_and_mode(self, seed: int, epsilon: float, masked: bool) -> None:
        q, mask = values(seed)
        mask = mask if masked else torch.ones_like(mask)
        head = EpsilonGreedy(4, epsilon)
        params = head.dist_params(q, mask if masked else None)
        for row in range(len(q)):
            may = [i for i in range(4) if mask[row, i]]
            best = max(may, key=lambda i: float(q[row, i]))
            p = [epsilon * (i in may) / len(may) + (1 - epsilon) * (i == best) for i in range(4)]
            assert head.mode(params)[row] == best
            entropy = -sum(x * math.log(x) for x in p if x > 0)
            assert head.entropy(params)[row].item() == pytest.approx(entropy, abs=1e-6)
            for i in range(4):
                found = head.log_prob(params[row], torch.tensor(i)).item()
                if p[i] > 0:
                    assert found == pytest.approx(math.log(p[i]), abs=1e-6)
                else:
                    assert -100 < found < -80  # of nothing, but finite

    def test_samples_are_as_probable_as_it_says(self) -> None:
        head = EpsilonGreedy(4, 0.4)
        q = torch.tensor([3.0, 9.0, 1.0, 8.0]).expand(20_000, 4)
        mask = torch.tensor([True, False, True, True]).expand(20_000, 4)
        params = head.dist_params(q, mask)
        noise = head.noise((20_000,), torch.Generator().manual_seed(0))
        counts = head.sample(params, noise).bincount(minlength=4) / 20_000
        expected = torch.tensor([0.4 / 3, 0, 0.4 / 3, 0.6 + 0.4 / 3])
        # Four and a half deviations of a share of at most one half.
        torch.testing.assert_close(counts, expected, rtol=0, atol=4.5 * 0.5 / math.sqrt(20_000))
        assert counts[1] == 0

    def test_without_epsilon_it_is_greedy(self) -> None:
        head, (q, _) = EpsilonGreedy(4), values(0, rows=500)
        noise = head.noise((500,), torch.Generator().manual_seed(0))
        assert torch.equal(head.sample(q, noise), q.argmax(-1))

    def test_forbidden_values_are_below_all_others_and_finite(self) -> None:
        q, mask = values(1)
        low = forbid(1e30 * q, mask)
        assert torch.equal(allowed(low), mask)
        assert low.isfinite().all()
        assert not low.sum(-1).isnan().any()
        assert torch.equal(low[mask], (1e30 * q)[mask])

    def test_where_nothing_is_allowed_everything_counts(self) -> None:
        q, _ = values(2)
        head = EpsilonGreedy(4, 0.5)
        params = head.dist_params(q, torch.zeros_like(q, dtype=torch.bool))
        assert torch.equal(params, q)
        assert head.entropy(params).isfinite().all()


class TestNoisyBox:
    SPACE = gym.spaces.Box(np.float32([-2, 0, 1]), np.float32([1, 5, 1]))  # the last is fixed

    def make(self, deviation: float, squash: bool | None = None) -> NoisyBox:
        return NoisyBox(BoxCodec(self.SPACE, squash), deviation)

    def test_noise_is_added_within_the_bounds(self) -> None:
        head = self.make(0.5)
        mean = torch.tensor([[-0.3, 0.9, 0.0]])
        noise = torch.tensor([[0.2, 5.0, -0.1]])
        action = head.sample(mean, noise).tanh()
        expected = [math.tanh(-0.3) + 0.2, EDGE, -0.1]
        assert action[0].tolist() == pytest.approx(expected, abs=1e-6)
        assert torch.isfinite(head.sample(mean, 1e9 * noise)).all()

    def test_without_squashing_it_is_added_to_the_number(self) -> None:
        head = self.make(0.5, squash=False)
        mean, noise = torch.tensor([[4.0, 0, 0]]), torch.tensor([[1.5, -1, 2]])
        assert head.sample(mean, noise).tolist() == [[5.5, -1, 2]]

    @pytest.mark.parametrize("squash", [True, False])
    def test_density_and_entropy_are_those_of_free_numbers(self, squash: bool) -> None:
        head = self.make(0.4, squash)
        generator = torch.Generator().manual_seed(0)
        mean, action = (torch.randn(7, 3, generator=generator) for _ in range(2))
        a, b = (x.tanh() if squash else x for x in (mean, action))
        normal = torch.distributions.Normal(a, 0.4)
        expected = normal.log_prob(b)[:, :2].sum(-1)
        torch.testing.assert_close(head.log_prob(mean, action), expected)
        torch.testing.assert_close(head.entropy(mean), normal.entropy()[:, :2].sum(-1))

    def test_its_draws_deviate_as_much_as_it_says(self) -> None:
        noise = self.make(0.4).noise((5000,), torch.Generator().manual_seed(0))
        error = 4.5 * 0.4 / math.sqrt(2 * 5000)
        assert noise.std(0).tolist() == pytest.approx([0.4] * 3, abs=error)

    def test_without_noise_there_is_no_density(self) -> None:
        head, mean = self.make(0.0), torch.randn(4, 3)
        assert head.noise((4,), torch.Generator()).abs().max() == 0
        assert head.log_prob(mean, mean).tolist() == [0] * 4
        assert head.entropy(mean).tolist() == [0] * 4
        assert torch.equal(head.mode(mean), mean)
        torch.testing.assert_close(head.sample(mean, torch.zeros(4, 3)), mean, rtol=1e-4, atol=1e-5)

    def test_it_has_no_weights(self) -> None:
        assert not self.make(0.1).state_dict()
