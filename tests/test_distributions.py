"""Tests of `recurrent_rl.distributions`: sampling, probabilities and masks of the action heads."""

import math
from typing import Any

import gymnasium as gym
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from helpers import double
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import AffineTransform, Categorical, Normal, TanhTransform
from torch.distributions import TransformedDistribution as Transformed

from recurrent_rl.distributions import CategoricalHead, GaussianHead, make_head

BOUNDED = Box(np.array([-2.0, 0.0, -1e-3]), np.array([1.0, 5.0, 1e3]), dtype=np.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(space: Box = BOUNDED, squash: bool = False, std_init: float = 0.5) -> GaussianHead:
    """A head with a different deviation for each component, as after some training."""
    head = GaussianHead(space, std_init, squash)
    with torch.no_grad():
        head.log_std += torch.linspace(-0.5, 0.5, head.outputs)
    return head


@st.composite
def masked_logits(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Network outputs [N, 4], and masks that allow at least one choice each."""
    rows = draw(st.integers(1, 4))
    logits = draw(hnp.arrays(np.float32, (rows, 4), elements=st.floats(-20, 20, width=32)))
    mask = draw(hnp.arrays(bool, (rows, 4)))
    allowed = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    mask[np.arange(rows), allowed] = True
    return torch.from_numpy(logits), torch.from_numpy(mask)


# --- discrete actions -------------------------------------------------------------------------


@given(masked_logits())
def test_categorical_equals_torchs(case: tuple[Tensor, Tensor]) -> None:
    logits, _ = case
    head = CategoricalHead(Discrete(4))
    params, theirs = head.parameters_of(logits), Categorical(logits=logits)
    for choice in range(4):
        action = torch.full(logits.shape[:1], choice)
        torch.testing.assert_close(head.log_prob(params, action), theirs.log_prob(action))
    torch.testing.assert_close(head.entropy(params), theirs.entropy())
    best = logits.gather(1, head.mode(params)[:, None]).squeeze(1)
    torch.testing.assert_close(best, logits.amax(-1))  # logits may differ by less than rounding


@given(masked_logits())
def test_a_mask_is_the_distribution_over_what_is_left(case: tuple[Tensor, Tensor]) -> None:
    """Probabilities, entropy and mode are those of a smaller space without the masked choices."""
    logits, mask = case
    head = CategoricalHead(Discrete(4))
    params = head.parameters_of(logits, mask)
    for n in range(len(logits)):
        left = mask[n].nonzero().squeeze(1)
        smaller = Categorical(logits=logits[n, left])
        torch.testing.assert_close(params[n, left], smaller.log_prob(torch.arange(len(left))))
        torch.testing.assert_close(head.entropy(params)[n], smaller.entropy())
        assert (params[n, ~mask[n]].exp() == 0).all()
        assert mask[n, head.mode(params)[n]]
    assert torch.isfinite(params).all()


@given(masked_logits(), st.integers(0, 1000))
def test_masked_actions_are_never_sampled(case: tuple[Tensor, Tensor], seed: int) -> None:
    logits, mask = case
    head = CategoricalHead(Discrete(4))
    params = head.parameters_of(logits, mask)
    row = torch.arange(len(logits))
    assert mask[row, head.sample(params, head.noise((len(logits),), generator(seed)))].all()
    # The most extreme noise that float32 can hold, all of it in favour of the masked choices.
    tiny = torch.finfo(torch.float32).tiny
    extreme = torch.where(mask, -math.log(200), -math.log(tiny))
    assert mask[row, head.sample(params, extreme)].all()


def test_a_mask_wins_against_any_logit() -> None:
    head = CategoricalHead(Discrete(3))
    params = head.parameters_of(torch.tensor([-1e6, -1e6, 1e30]), torch.tensor([True, True, False]))
    torch.testing.assert_close(params.exp(), torch.tensor([0.5, 0.5, 0.0]))
    assert (head.sample(params, head.noise((1000,), generator())) < 2).all()


def test_gumbel_noise_is_never_infinite() -> None:
    head = CategoricalHead(Discrete(2))
    noise = head.noise((200_000,), generator())
    assert noise.shape == (200_000, 2)
    assert torch.isfinite(noise).all()


def test_noise_of_an_exponential_draw_of_zero_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rare but possible; -log(0) would be an infinity that outweighs any mask.
    monkeypatch.setattr(Tensor, "exponential_", lambda self, generator: self.zero_())
    noise = CategoricalHead(Discrete(2)).noise((3,), generator())
    assert torch.isfinite(noise).all()


def test_categorical_samples_follow_their_probabilities() -> None:
    head = CategoricalHead(Discrete(4))
    logits, mask = torch.tensor([0.0, 1.0, 5.0, -1.0]), torch.tensor([True, True, False, True])
    params = head.parameters_of(logits, mask)
    count = 100_000
    action = head.sample(params, head.noise((count,), generator()))
    share = torch.bincount(action, minlength=4) / count
    # A share's standard deviation is at most sqrt(0.25 / 1e5) = 0.0016; 0.008 is 5 of them.
    torch.testing.assert_close(share, params.exp(), rtol=0, atol=0.008)
    assert action.dtype == head.action_dtype == torch.int64


@settings(max_examples=50)
@given(masked_logits(), st.sampled_from([math.nan, math.inf, -math.inf, 1e38]))
def test_garbage_under_a_mask_changes_no_bit(case: tuple[Tensor, Tensor], garbage: float) -> None:
    clean, mask = case
    head = CategoricalHead(Discrete(4))
    action = mask.float().argmax(-1)
    results = []
    for logits in (clean, torch.where(mask, clean, garbage)):
        leaf = logits.clone().requires_grad_()
        params = head.parameters_of(leaf, mask)
        log_prob, entropy = head.log_prob(params, action), head.entropy(params)
        (grad,) = torch.autograd.grad((log_prob + entropy).sum(), leaf)
        results.append((params, log_prob, entropy, grad))
        assert (grad[~mask] == 0).all()
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
        assert torch.isfinite(a).all()


def test_a_mask_that_allows_nothing_is_uniform_and_has_finite_gradients() -> None:
    head = CategoricalHead(Discrete(3))
    logits = torch.tensor([[1.0, 2.0, -4.0], [0.0, 1.0, 2.0]], requires_grad=True)
    mask = torch.tensor([[False, False, False], [True, True, False]])
    params = head.parameters_of(logits, mask)
    torch.testing.assert_close(params[0].exp(), torch.full((3,), 1 / 3))
    score = head.entropy(params).sum() + head.log_prob(params, torch.tensor([2, 1])).sum()
    score.backward()
    assert torch.isfinite(score)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0] == 0).all()


@given(masked_logits())
def test_even_the_log_probability_of_a_masked_action_is_finite(
    case: tuple[Tensor, Tensor],
) -> None:
    logits, mask = case
    leaf = logits.clone().requires_grad_()
    head = CategoricalHead(Discrete(4))
    log_prob = head.log_prob(head.parameters_of(leaf, mask), mask.float().argmin(-1))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


def test_discrete_actions_count_from_zero_inside_and_from_start_outside() -> None:
    space = Discrete(3, start=-1)
    head = CategoricalHead(space)
    stored = torch.tensor([0, 1, 2])
    outside = head.to_env(stored)
    assert outside.tolist() == [-1, 0, 1]
    assert outside.dtype == np.int64
    assert all(space.contains(a) for a in outside)
    assert head.encode(stored).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert head.encode(stored).dtype == torch.float32
    assert (head.outputs, head.features, head.mask_size, head.action_shape) == (3, 3, 3, ())


# --- continuous actions -----------------------------------------------------------------------


@double()
@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_gaussian_equals_torchs(seed: int) -> None:
    torch.manual_seed(seed)
    head = gaussian()
    params, action = torch.randn(2, 5, 3), 2 * torch.randn(2, 5, 3)
    theirs = Normal(params, head.log_std.exp())
    torch.testing.assert_close(head.log_prob(params, action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(head.entropy(params), theirs.entropy().sum(-1))
    assert torch.equal(head.mode(params), params)
    assert head.parameters_of(params) is params


@double()
@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_squashed_gaussian_equals_torchs(seed: int) -> None:
    """The density of what the environment gets, with the change of variables."""
    torch.manual_seed(seed)
    head = gaussian(squash=True)
    params, u = torch.randn(6, 3), torch.randn(6, 3)
    half = (0.5 * (head.high - head.low)).double()  # the bounds are float32
    middle = head.low.double() + half
    theirs = Transformed(
        Normal(params, head.log_std.exp()), [TanhTransform(), AffineTransform(middle, half)]
    )
    action = middle + half * u.tanh()
    expected = theirs.log_prob(action).sum(-1)
    torch.testing.assert_close(head.log_prob(params, u), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(head.bounded(u), action)


def test_the_squashed_density_integrates_to_one() -> None:
    # Over the actions of the environment, whose interval is 2 wide and not centred.
    head = gaussian(Box(0.0, 2.0, (1,)), squash=True)
    u = torch.linspace(-9, 9, 20_001, dtype=torch.float64)[:, None]
    density = head.log_prob(torch.tensor([0.3], dtype=torch.float64), u).exp().detach()
    action = (1 + u.tanh())[:, 0]
    assert float(torch.trapezoid(density, action)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("size", [10.0, 100.0, 1e4])
@pytest.mark.parametrize("sign", [-1, 1])
def test_squashed_log_probability_is_stable_where_tanh_saturates(size: float, sign: int) -> None:
    head = gaussian(Box(-1.0, 1.0, (1,)), squash=True)
    mean = torch.tensor([[sign * size]], requires_grad=True)
    u = torch.tensor([[sign * (size + 0.25)]])
    log_prob = head.log_prob(mean, u)
    log_prob.sum().backward()
    # For large |u|, log(1 - tanh(u)^2) = 2 log 2 - 2 |u|.
    std = head.log_std.exp().item()
    plain = -0.5 * (0.25 / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
    expected = plain - 2 * math.log(2) + 2 * (size + 0.25)
    assert log_prob.item() == pytest.approx(expected, rel=1e-4)
    assert mean.grad is not None
    assert float(mean.grad) == pytest.approx(sign * 0.25 / std**2, rel=1e-2)


@pytest.mark.parametrize("squash", [False, True])
def test_gaussian_samples_follow_their_mean_and_deviation(squash: bool) -> None:
    head = gaussian(squash=squash)
    params = torch.tensor([0.5, -1.0, 3.0])
    count = 100_000
    sample = head.sample(params, head.noise((count,), generator()))
    assert sample.shape == (count, 3)
    std = head.log_std.exp()
    # A mean's standard deviation is std / sqrt(1e5) = std / 316; that of a deviation is less.
    torch.testing.assert_close(sample.mean(0), params, rtol=0, atol=5 * std.max().item() / 316)
    torch.testing.assert_close(sample.std(0), std, rtol=0.02, atol=0)
    correlation = torch.corrcoef(sample.T)
    torch.testing.assert_close(correlation, torch.eye(3), rtol=0, atol=0.02)


def test_noise_depends_on_its_generator_alone() -> None:
    for head in (CategoricalHead(Discrete(3)), gaussian()):
        torch.manual_seed(1)
        first = head.noise((4, 5), generator(7))
        torch.manual_seed(2)
        assert torch.equal(head.noise((4, 5), generator(7)), first)
        assert not torch.equal(head.noise((4, 5), generator(8)), first)
        assert first.shape == (4, 5, 3)


def test_action_std_init_is_the_deviation_at_the_start() -> None:
    head = GaussianHead(BOUNDED, 0.3, squash=False)
    torch.testing.assert_close(head.log_std.exp(), torch.full((3,), 0.3))
    assert head.log_std.requires_grad


@pytest.mark.parametrize("squash", [False, True])
@given(hnp.arrays(np.float32, (4, 3), elements=st.floats(width=32, allow_nan=False)))
def test_bounded_actions_are_in_the_space_whatever_was_sampled(
    squash: bool, stored: np.ndarray[Any, Any]
) -> None:
    head = gaussian(squash=squash)
    for action in head.to_env(torch.from_numpy(stored)):
        assert BOUNDED.contains(action)
    encoded = head.encode(torch.from_numpy(stored))
    assert (encoded >= head.low).all()
    assert (encoded <= head.high).all()


def test_actions_within_bounds_reach_the_environment_as_they_are() -> None:
    head = gaussian(Box(-1.0, 1.0, (2,)))
    assert head.to_env(torch.tensor([[0.25, -0.5], [3.0, -3.0]])).tolist() == [
        [0.25, -0.5],
        [1.0, -1.0],
    ]
    squashed = gaussian(Box(-1.0, 3.0, (1,)), squash=True)
    torch.testing.assert_close(
        torch.from_numpy(squashed.to_env(torch.tensor([[0.0], [0.5]]))),
        torch.tensor([[1.0], [1 + 2 * math.tanh(0.5)]]),
    )


@pytest.mark.parametrize("squash", [False, True])
def test_box_actions_of_any_shape(squash: bool) -> None:
    space = Box(-1.0, 1.0, (2, 3))
    head = gaussian(space, squash)
    assert (head.outputs, head.features, head.mask_size, head.action_shape) == (6, 6, 0, (6,))
    params = torch.randn(4, 6)
    action = head.sample(params, head.noise((4,), generator())).detach()
    assert head.log_prob(params, action).shape == head.entropy(params).shape == (4,)
    outside = head.to_env(action)
    assert outside.shape == (4, 2, 3)
    assert outside.dtype == np.float32
    assert all(space.contains(a) for a in outside)
    np.testing.assert_allclose(outside.reshape(4, 6), head.bounded(action).numpy())


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_actions_have_the_spaces_dtype_and_stay_within_its_bounds(
    dtype: type[np.floating[Any]], squash: bool
) -> None:
    # float32(0.1) lies above the float64 0.1: a bound rounded on the way would be overstepped.
    space = Box(
        np.array([-0.1, 0.3]).astype(dtype), np.array([0.1, 0.7]).astype(dtype), dtype=dtype
    )
    head = gaussian(space, squash)
    for action in head.to_env(torch.tensor([[50.0, 50.0], [-50.0, -50.0], [0.05, 0.5]])):
        assert action.dtype == dtype
        assert space.contains(action)


def test_unbounded_actions_are_left_alone() -> None:
    head = gaussian(Box(-np.inf, np.inf, (2,)))
    assert head.to_env(torch.tensor([[1e30, -1e30]])).tolist() == [pytest.approx([1e30, -1e30])]


@pytest.mark.parametrize(
    "space", [Box(-np.inf, np.inf, (2,)), Box(0.0, np.inf, (2,)), Box(-np.inf, 0.0, (2,))]
)
def test_squashing_without_bounds_is_an_error_that_says_what_to_do(space: Box) -> None:
    with pytest.raises(
        ValueError, match=r"squash_output: expected .* finite bounds.*RescaleAction"
    ):
        make_head(space, 1.0, squash=True)


def test_make_head_chooses_by_space() -> None:
    assert isinstance(make_head(Discrete(2), 1.0, False), CategoricalHead)
    head = make_head(BOUNDED, 0.5, True)
    assert isinstance(head, GaussianHead)
    assert head.squash


@pytest.mark.parametrize("space", [gym.spaces.Text(5), gym.spaces.Dict({"a": Discrete(2)})])
def test_unsupported_action_spaces_are_named_with_what_is_supported(
    space: gym.Space[Any],
) -> None:
    with pytest.raises(TypeError, match=r"action_space: expected Discrete and Box, got"):
        make_head(space, 1.0, False)


# --- actions that somebody else chose ---------------------------------------------------------


def test_choices_come_back_from_the_environment() -> None:
    head = CategoricalHead(Discrete(4, start=-2))
    stored = torch.tensor([0, 3, 1])
    assert head.to_env(stored).tolist() == [-2, 1, -1]
    for dtype in (np.int64, np.int8):
        back = head.from_env(head.to_env(stored).astype(dtype))
        assert back.dtype == torch.int64
        assert torch.equal(back, stored)


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("leading", [(5,), (2, 3)])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_box_actions_come_back_from_the_environment(
    squash: bool, leading: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    space = Box(np.full(shape, -2.0), np.full(shape, 1.0), dtype=np.float64)
    head = gaussian(space, squash)
    # Within the bounds: what is clipped does not come back.
    stored = 0.9 * (2 * torch.rand(*leading, head.outputs) - 1)
    action = head.to_env(stored)
    assert action.shape == (*leading, *shape)
    back = head.from_env(action)
    assert (back.shape, back.dtype) == (stored.shape, torch.float32)
    torch.testing.assert_close(back, stored, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head.to_env(back), action, rtol=1e-4, atol=1e-5)


def test_squashed_actions_at_the_bounds_stay_finite() -> None:
    head = gaussian(squash=True)
    bounds = np.stack([BOUNDED.low, BOUNDED.high])
    stored = head.from_env(bounds)
    assert torch.isfinite(stored).all()
    assert (stored[0] < -5).all()
    assert (stored[1] > 5).all()
    assert torch.isfinite(head.log_prob(torch.zeros(2, 3), stored)).all()
    np.testing.assert_allclose(head.to_env(stored), bounds, rtol=1e-5, atol=2e-3)


def test_actions_come_back_without_squashing_as_they_are() -> None:
    BOUNDED.seed(0)
    action = BOUNDED.sample()
    assert torch.equal(gaussian().from_env(action), torch.from_numpy(action))
