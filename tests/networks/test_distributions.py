"""Tests of `recurrent_rl.networks.distributions`: sampling, probabilities and masks."""

import math
from typing import Any

import gymnasium as gym
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from hypothesis import given, settings
from hypothesis import strategies as st
from support.heads import Head, make_head
from support.helpers import double
from support.pairs import examples
from torch import Tensor
from torch import distributions as torchs
from torch.distributions import AffineTransform, Normal, TanhTransform
from torch.distributions import TransformedDistribution as Transformed

from recurrent_rl.networks.distributions import (
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Gaussian,
    MultiCategorical,
)
from recurrent_rl.networks.state_dependent import (
    LOG_STD_RISE,
    GeneralizedSDE,
    StateDependentGaussian,
)

BOUNDED = Box(np.array([-2.0, 0.0, -1e-3]), np.array([1.0, 5.0, 1e3]), dtype=np.float32)
LATENTS = 5
# Where the deviation of a Box action comes from.
DEVIATIONS: dict[str, dict[str, Any]] = {
    "own": {},
    "state": {"state_dependent_std": True},
    "sde": {"use_sde": True},
}
# One space of each kind of odd shape, with the options of its head.
CASES: dict[str, tuple[gym.Space[Any], dict[str, Any]]] = {
    "Discrete": (Discrete(3, start=-4), {}),
    "MultiDiscrete": (MultiDiscrete([3, 2, 4]), {}),
    "MultiDiscrete of one": (MultiDiscrete([3]), {}),
    "MultiDiscrete table": (
        MultiDiscrete(np.array([[3, 1], [2, 5]]), np.int32, start=np.array([[-1, 4], [0, 7]])),
        {},
    ),
    "MultiBinary": (MultiBinary(4), {}),
    "MultiBinary table": (MultiBinary((2, 3)), {}),
}
for _name, _options in DEVIATIONS.items():
    for _squash in (False, True):
        for _box in (
            Box(-2.0, 1.0, (3,)),
            Box(-2.0, np.array([[1.0, 2.0], [3.0, 4.0]]), (2, 2), np.float64),
            Box(-2.0, 1.0, ()),
        ):
            CASES[f"Box {_box.shape}, {_name}{', squashed' * _squash}"] = (
                _box,
                {**_options, "squash_output": _squash, "action_std_init": 0.1},
            )
every_head = pytest.mark.parametrize("case", CASES)
every_deviation = pytest.mark.parametrize("deviation", DEVIATIONS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(space: Box = BOUNDED, squash: bool = False, std_init: float = 0.5) -> Head:
    """With a different deviation for each component, as after some training."""
    head = head_of(space, squash_output=squash, action_std_init=std_init)
    with torch.no_grad():
        head.log_std.add_(torch.linspace(-0.5, 0.5, head.outputs))
    return head


def head_of(space: gym.Space[Any], **options: Any) -> Head:
    return make_head(space, LATENTS, **options)


def box_head(deviation: str, squash: bool = False, std_init: float = 0.5) -> Head:
    """For ``BOUNDED``, with parameters, if any, as after some training."""
    options = {**DEVIATIONS[deviation], "squash_output": squash, "action_std_init": std_init}
    head = head_of(BOUNDED, **options)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.5 * torch.rand_like(parameter) - 0.25
    return head


def read_by_head(head: Head, *leading: int) -> Tensor:
    """What a network might give: outputs [..., P] and behind them any latents [..., Z]."""
    outputs, latents = torch.randn(*leading, head.outputs), torch.randn(*leading, head.latents)
    return torch.cat([0.3 * outputs, latents.tanh()], -1)


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
    head = Categorical(4)
    params, theirs = head.dist_params(logits), torchs.Categorical(logits=logits)
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
    head = Categorical(4)
    params = head.dist_params(logits, mask)
    for n in range(len(logits)):
        left = mask[n].nonzero().squeeze(1)
        smaller = torchs.Categorical(logits=logits[n, left])
        torch.testing.assert_close(params[n, left], smaller.log_prob(torch.arange(len(left))))
        torch.testing.assert_close(head.entropy(params)[n], smaller.entropy())
        assert (params[n, ~mask[n]].exp() == 0).all()
        assert mask[n, head.mode(params)[n]]
    assert torch.isfinite(params).all()


@given(masked_logits(), st.integers(0, 1000))
def test_masked_actions_are_never_sampled(case: tuple[Tensor, Tensor], seed: int) -> None:
    logits, mask = case
    head = Categorical(4)
    params = head.dist_params(logits, mask)
    row = torch.arange(len(logits))
    assert mask[row, head.sample(params, head.noise((len(logits),), generator(seed)))].all()
    # The most extreme noise that float32 can hold, all of it in favour of the masked choices.
    tiny = torch.finfo(torch.float32).tiny
    extreme = torch.where(mask, -math.log(200), -math.log(tiny))
    assert mask[row, head.sample(params, extreme)].all()


def test_a_mask_wins_against_any_logit() -> None:
    head = Categorical(3)
    params = head.dist_params(torch.tensor([-1e6, -1e6, 1e30]), torch.tensor([True, True, False]))
    torch.testing.assert_close(params.exp(), torch.tensor([0.5, 0.5, 0.0]))
    assert (head.sample(params, head.noise((1000,), generator())) < 2).all()


def test_gumbel_noise_is_never_infinite() -> None:
    head = Categorical(2)
    noise = head.noise((200_000,), generator())
    assert noise.shape == (200_000, 2)
    assert torch.isfinite(noise).all()


def test_noise_of_an_exponential_draw_of_zero_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    # Rare but possible; -log(0) would be an infinity that outweighs any mask.
    monkeypatch.setattr(Tensor, "exponential_", lambda self, generator: self.zero_())
    noise = Categorical(2).noise((3,), generator())
    assert torch.isfinite(noise).all()


def test_categorical_samples_follow_their_probabilities() -> None:
    head = Categorical(4)
    logits, mask = torch.tensor([0.0, 1.0, 5.0, -1.0]), torch.tensor([True, True, False, True])
    params = head.dist_params(logits, mask)
    count = 100_000
    action = head.sample(params, head.noise((count,), generator()))
    share = torch.bincount(action, minlength=4) / count
    # A share's standard deviation is at most sqrt(0.25 / 1e5) = 0.0016; 0.008 is 5 of them.
    torch.testing.assert_close(share, params.exp(), rtol=0, atol=0.008)
    assert action.dtype == torch.int64


@settings(max_examples=examples(50))
@given(masked_logits(), st.sampled_from([math.nan, math.inf, -math.inf, 1e38]))
def test_garbage_under_a_mask_changes_no_bit(case: tuple[Tensor, Tensor], garbage: float) -> None:
    clean, mask = case
    head = Categorical(4)
    action = mask.float().argmax(-1)
    results = []
    for logits in (clean, torch.where(mask, clean, garbage)):
        leaf = logits.clone().requires_grad_()
        params = head.dist_params(leaf, mask)
        log_prob, entropy = head.log_prob(params, action), head.entropy(params)
        (grad,) = torch.autograd.grad((log_prob + entropy).sum(), leaf)
        results.append((params, log_prob, entropy, grad))
        assert (grad[~mask] == 0).all()
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
        assert torch.isfinite(a).all()


def test_a_mask_that_allows_nothing_is_uniform_and_has_finite_gradients() -> None:
    head = Categorical(3)
    logits = torch.tensor([[1.0, 2.0, -4.0], [0.0, 1.0, 2.0]], requires_grad=True)
    mask = torch.tensor([[False, False, False], [True, True, False]])
    params = head.dist_params(logits, mask)
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
    head = Categorical(4)
    log_prob = head.log_prob(head.dist_params(leaf, mask), mask.float().argmin(-1))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


# --- several choices at once ------------------------------------------------------------------


@st.composite
def masked_components(draw: st.DrawFn) -> tuple[list[int], Tensor, Tensor]:
    """Numbers of choices, network outputs [N, sum(nvec)], and masks that leave some of each."""
    nvec = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    shape = draw(st.integers(1, 3)), sum(nvec)
    logits = draw(hnp.arrays(np.float32, shape, elements=st.floats(-20, 20, width=32)))
    mask = draw(hnp.arrays(bool, shape))
    for row in mask:
        for part in np.split(row, np.cumsum(nvec)[:-1]):
            part[draw(st.integers(0, len(part) - 1))] = True
    return nvec, torch.from_numpy(logits), torch.from_numpy(mask)


def any_choices(nvec: list[int], rows: int) -> Tensor:
    """Stored actions [N, K]."""
    return torch.stack([torch.randint(n, (rows,)) for n in nvec], -1)


@given(masked_components())
def test_multi_categorical_equals_torchs(case: tuple[list[int], Tensor, Tensor]) -> None:
    nvec, logits, _ = case
    head = MultiCategorical(nvec)
    params, action = head.dist_params(logits), any_choices(nvec, len(logits))
    assert params.shape == (len(logits), len(nvec), max(nvec))
    theirs = [torchs.Categorical(logits=part) for part in logits.split(nvec, -1)]
    log_prob = sum(one.log_prob(action[:, k]) for k, one in enumerate(theirs))
    torch.testing.assert_close(head.log_prob(params, action), log_prob)
    torch.testing.assert_close(head.entropy(params), sum(one.entropy() for one in theirs))
    for part, mode in zip(logits.split(nvec, -1), head.mode(params).T, strict=True):
        best = part.gather(1, mode[:, None]).squeeze(1)
        torch.testing.assert_close(best, part.amax(-1))


@given(masked_components())
def test_a_mask_leaves_a_smaller_space_in_each_component(
    case: tuple[list[int], Tensor, Tensor],
) -> None:
    nvec, logits, mask = case
    head = MultiCategorical(nvec)
    params = head.dist_params(logits, mask)
    assert torch.isfinite(params).all()
    for n in range(len(logits)):
        entropy = torch.zeros(())
        parts = zip(logits[n].split(nvec), mask[n].split(nvec), strict=True)
        for k, (outputs, allowed) in enumerate(parts):
            left = allowed.nonzero().squeeze(1)
            smaller = torchs.Categorical(logits=outputs[left])
            expected = torch.zeros(max(nvec))
            expected[left] = smaller.probs
            torch.testing.assert_close(params[n, k].exp(), expected)
            torch.testing.assert_close(params[n, k, left], smaller.logits)
            assert allowed[head.mode(params)[n, k]]
            entropy = entropy + smaller.entropy()
        torch.testing.assert_close(head.entropy(params)[n], entropy)


@given(masked_components(), st.integers(0, 1000))
def test_masked_choices_and_those_that_do_not_exist_are_never_sampled(
    case: tuple[list[int], Tensor, Tensor], seed: int
) -> None:
    nvec, logits, mask = case
    head = MultiCategorical(nvec)
    params = head.dist_params(logits, mask)
    allowed = torch.zeros(params.shape, dtype=torch.bool)
    for k, part in enumerate(mask.split(nvec, -1)):
        allowed[:, k, : nvec[k]] = part
    # The most extreme noise that float32 can hold, all of it in favour of what is not allowed.
    extreme = torch.where(allowed, -math.log(200), -math.log(torch.finfo(torch.float32).tiny))
    for noise in (head.noise((len(logits),), generator(seed)), extreme):
        action = head.sample(params, noise)
        assert (action.dtype, action.shape) == (torch.int64, (len(logits), len(nvec)))
        assert allowed.gather(-1, action[..., None]).all()
    unmasked = head.sample(head.dist_params(logits), extreme)
    assert (unmasked < torch.tensor(nvec)).all()


def test_a_mask_of_components_wins_against_any_logit() -> None:
    head = MultiCategorical([3, 2])
    logits = torch.tensor([-1e6, -1e6, 1e30, 1e30, -1e6])
    params = head.dist_params(logits, torch.tensor([True, True, False, False, True]))
    torch.testing.assert_close(params.exp(), torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))
    action = head.sample(params, head.noise((1000,), generator()))
    assert (action[:, 0] < 2).all()
    assert (action[:, 1] == 1).all()


def test_components_are_sampled_by_their_probabilities_and_independently() -> None:
    head = MultiCategorical([2, 4, 2])
    logits = torch.tensor([0.0, 1.0, 0.0, 1.0, 5.0, -1.0, 2.0, 1.0])
    mask = torch.tensor([True, True, True, True, False, True, True, True])
    params = head.dist_params(logits, mask)
    count = 100_000
    action = head.sample(params, head.noise((count,), generator()))
    joint = torch.zeros(2, 4, 2)
    joint.index_put_(tuple(action.T), torch.ones(count), accumulate=True)
    p, q, r = params.exp()
    expected = p[:2, None, None] * q[:, None] * r[:2]
    # A share's standard deviation is at most sqrt(0.25 / 1e5) = 0.0016; 0.008 is 5 of them.
    torch.testing.assert_close(joint / count, expected, rtol=0, atol=0.008)


@settings(max_examples=examples(50))
@given(masked_components(), st.sampled_from([math.nan, math.inf, -math.inf, 1e38]))
def test_garbage_under_a_mask_of_components_changes_no_bit(
    case: tuple[list[int], Tensor, Tensor], garbage: float
) -> None:
    nvec, clean, mask = case
    head = MultiCategorical(nvec)
    action, results = head.mode(head.dist_params(clean, mask)), []
    for logits in (clean, torch.where(mask, clean, garbage)):
        leaf = logits.clone().requires_grad_()
        params = head.dist_params(leaf, mask)
        log_prob, entropy = head.log_prob(params, action), head.entropy(params)
        (grad,) = torch.autograd.grad((log_prob + entropy).sum(), leaf)
        results.append((params, log_prob, entropy, grad))
        assert (grad[~mask] == 0).all()
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
        assert torch.isfinite(a).all()


def test_a_component_of_which_nothing_is_allowed_is_uniform_over_its_own_choices() -> None:
    head = MultiCategorical([2, 4, 3])
    logits = torch.randn(9, requires_grad=True)
    mask = torch.tensor([False] * 6 + [True, True, False])
    params = head.dist_params(logits, mask)
    third = logits[6:8].detach().softmax(0).tolist()
    expected = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25] * 4, [*third, 0.0, 0.0]])
    torch.testing.assert_close(params.exp(), expected)
    action = head.sample(params, head.noise((1000,), generator()))
    assert (action < torch.tensor([2, 4, 2])).all()
    score = head.entropy(params) + head.log_prob(params, torch.tensor([1, 3, 0]))
    score.backward()
    assert torch.isfinite(score)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[:6] == 0).all()
    assert (logits.grad[6:8] != 0).all()


@given(masked_components())
def test_even_the_log_probability_of_nothing_but_masked_choices_is_finite(
    case: tuple[list[int], Tensor, Tensor],
) -> None:
    nvec, logits, mask = case
    leaf = logits.clone().requires_grad_()
    head = MultiCategorical(nvec)
    parts = mask.split(nvec, -1)
    masked = torch.stack([part.float().argmin(-1) for part in parts], -1)
    log_prob = head.log_prob(head.dist_params(leaf, mask), masked)
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert leaf.grad is not None
    assert torch.isfinite(leaf.grad).all()


# --- bits -------------------------------------------------------------------------------------


@double()
@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(-20, 20)))
def test_bernoulli_equals_torchs(values: np.ndarray[Any, Any]) -> None:
    head, logits = Bernoulli(4), torch.from_numpy(values)
    params, theirs = head.dist_params(logits), torchs.Bernoulli(logits=logits)
    action = torch.randint(2, (3, 4)).to(torch.int8)
    expected = theirs.log_prob(action.double()).sum(-1)
    torch.testing.assert_close(head.log_prob(params, action), expected)
    torch.testing.assert_close(head.entropy(params), theirs.entropy().sum(-1))
    assert torch.equal(head.mode(params), (logits > 0).to(torch.int8))


@pytest.mark.parametrize("size", [10.0, 30.0, 100.0, 1e30])
@pytest.mark.parametrize("sign", [-1, 1])
def test_bits_are_stable_for_large_logits(size: float, sign: int) -> None:
    head = Bernoulli(1)
    logit = torch.tensor([sign * size], requires_grad=True)
    likely = torch.tensor([sign > 0]).to(torch.int8)
    # log sigmoid(l) is about -exp(-l), and the entropy about (l + 1) exp(-l), both below 1 % off.
    assert head.log_prob(logit, likely).item() == pytest.approx(-math.exp(-size), rel=0.01)
    assert head.log_prob(logit, 1 - likely).item() == pytest.approx(-size, rel=1e-4)
    entropy = head.entropy(logit)
    assert entropy.item() == pytest.approx((size + 1) * math.exp(-size), rel=0.01)
    (entropy + head.log_prob(logit, 1 - likely)).backward()
    assert logit.grad is not None
    assert logit.grad.item() == pytest.approx(-sign, rel=0.01)


def test_bits_are_sampled_by_their_probabilities_and_independently() -> None:
    head = Bernoulli(3)
    logits, count = torch.tensor([-2.0, 0.0, 1.0]), 100_000
    action = head.sample(head.dist_params(logits), head.noise((count,), generator()))
    assert (action.dtype, action.shape) == (torch.int8, (count, 3))
    # A share's standard deviation is at most sqrt(0.25 / 1e5) = 0.0016; 0.008 is 5 of them.
    torch.testing.assert_close(action.float().mean(0), logits.sigmoid(), rtol=0, atol=0.008)
    correlation = torch.corrcoef(action.float().T)
    torch.testing.assert_close(correlation, torch.eye(3), rtol=0, atol=0.02)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_noise_of_the_outmost_uniform_draws_is_finite(
    monkeypatch: pytest.MonkeyPatch, uniform: float
) -> None:
    # Rare but possible; infinite noise would outweigh any logit.
    monkeypatch.setattr(torch, "rand", lambda *shape, generator: torch.full(shape, uniform))
    noise = Bernoulli(2).noise((3,), generator())
    assert torch.isfinite(noise).all()
    assert (noise.abs() > 16).all()


# --- continuous actions -----------------------------------------------------------------------


@double()
@settings(max_examples=examples(30))
@given(st.integers(0, 1000))
def test_gaussian_equals_torchs(seed: int) -> None:
    torch.manual_seed(seed)
    head = gaussian()
    params, action = torch.randn(2, 5, 3), 2 * torch.randn(2, 5, 3)
    theirs = Normal(params, head.log_std.exp())
    torch.testing.assert_close(head.log_prob(params, action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(head.entropy(params), theirs.entropy().sum(-1))
    assert torch.equal(head.mode(params), params)
    assert head.dist_params(params) is params


@every_deviation
@double()
@settings(max_examples=examples(30))
@given(st.integers(0, 1000))
def test_squashed_gaussian_equals_torchs(deviation: str, seed: int) -> None:
    """The density of what the environment gets, with the change of variables."""
    torch.manual_seed(seed)
    head = box_head(deviation, squash=True)
    params, u = head.dist_params(read_by_head(head, 6)), torch.randn(6, 3)
    mean, log_std = head.moments(params)
    half = (0.5 * (head.high - head.low)).double()  # the bounds are float32
    middle = head.low.double() + half
    theirs = Transformed(
        Normal(mean, log_std.exp()), [TanhTransform(), AffineTransform(middle, half)]
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


@pytest.mark.parametrize(("log_std", "expected"), [(0, 0.67), (1, -0.76), (2, -7.08)])
def test_the_entropy_of_squashed_actions_falls_where_they_saturate(
    log_std: float, expected: float
) -> None:
    # Of the Gaussian itself it would be 1.42, 2.42 and 3.42.
    head = make_head(Box(-1.0, 1.0, (1,)), LATENTS, squash_output=True)
    with torch.no_grad():
        head.log_std.fill_(log_std)
    entropy = head.entropy(torch.zeros(1, 1))
    assert entropy.item() == pytest.approx(expected, abs=0.006)
    (grad,) = torch.autograd.grad(entropy.sum(), head.log_std)
    # The maximum is at a deviation of about 0.87; beyond it a bonus must not reward more.
    assert float(grad) < 0
    with torch.no_grad():
        head.log_std.fill_(-1)
    (grad,) = torch.autograd.grad(head.entropy(torch.zeros(1, 1)).sum(), head.log_std)
    assert float(grad) > 0


@every_deviation
@pytest.mark.parametrize("squash", [False, True])
def test_entropy_is_the_mean_of_what_log_prob_says(deviation: str, squash: bool) -> None:
    head = box_head(deviation, squash, std_init=1.2)
    count = 100_000
    params = head.dist_params(read_by_head(head)).detach().expand(count, -1)
    action = head.sample(params, head.noise((count,), generator())).detach()
    surprise = -head.log_prob(params, action)
    near = 5 * surprise.std().item() / math.sqrt(count)
    mean = float(surprise.detach().mean())
    assert head.entropy(params)[0].item() == pytest.approx(mean, abs=near)


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


@every_head
@pytest.mark.parametrize("shape", [(5,), (4, 5)])
def test_noise_depends_on_its_generator_alone(case: str, shape: tuple[int, ...]) -> None:
    space, options = CASES[case]
    head = head_of(space, **options)
    torch.manual_seed(1)
    first = head.noise(shape, generator(7))
    torch.manual_seed(2)
    assert torch.equal(head.noise(shape, generator(7)), first)
    assert not torch.equal(head.noise(shape, generator(8)), first)
    assert first.shape[: len(shape)] == shape
    assert torch.isfinite(first).all()


def test_action_std_init_is_the_deviation_at_the_start() -> None:
    head = Gaussian(3, 0.3)
    torch.testing.assert_close(head.log_std.exp(), torch.full((3,), 0.3))
    assert head.log_std.requires_grad


@pytest.mark.parametrize("squash", [False, True])
def test_box_actions_of_any_shape_have_one_probability(squash: bool) -> None:
    head = gaussian(Box(-1.0, 1.0, (2, 3)), squash)
    assert (head.outputs, head.features) == (6, 6)
    params = torch.randn(4, 6)
    action = head.sample(params, head.noise((4,), generator())).detach()
    assert head.log_prob(params, action).shape == head.entropy(params).shape == (4,)


@pytest.mark.parametrize(
    ("std_init", "least"), [(1.0, 0.005), (0.1, 0.005), (0.002, 0.002), (50.0, 0.25)]
)
def test_a_deviation_stops_at_what_float32_carries_and_can_come_back(
    std_init: float, least: float
) -> None:
    head = Gaussian(2, std_init)
    with torch.no_grad():
        head.log_std.copy_(torch.tensor([-30.0, 0.0]))
    mean = torch.zeros(2)
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            assert head.moments(mean)[1].exp()[0].item() == pytest.approx(least)
    rise = head.entropy(mean)  # raising it raises this
    assert torch.autograd.grad(-rise, head.log_std)[0].tolist() == [-1, -1]
    assert torch.autograd.grad(head.entropy(mean), head.log_std)[0].tolist() == [0, 1]


DEVIATING = {"own": Gaussian, "state": StateDependentGaussian, "sde": GeneralizedSDE}


def test_make_distribution_chooses_by_space() -> None:
    for space, kind, outputs in (
        (Discrete(3, start=-4), Categorical, 3),
        (MultiDiscrete([2, 3]), MultiCategorical, 5),
        (MultiDiscrete([[3, 2], [1, 4]]), MultiCategorical, 10),
        (MultiBinary((2, 3)), Bernoulli, 6),
    ):
        head = head_of(space)
        assert type(head.distribution) is kind
        assert (head.outputs, head.latents, head.hold) == (outputs, 0, 1)
    for squash in (False, True):
        for deviation, kind in DEVIATING.items():
            distribution = box_head(deviation, squash).distribution
            assert type(distribution) is kind
            assert isinstance(distribution, DiagonalGaussian)
            assert (distribution.half_range is not None) == squash
            assert distribution.outputs == (6 if deviation == "state" else 3)
            assert distribution.latents == (LATENTS if deviation == "sde" else 0)


def test_what_follows_from_the_space_is_no_part_of_a_checkpoint() -> None:
    assert not MultiCategorical([2, 3]).state_dict()
    assert list(box_head("own", squash=True).distribution.state_dict()) == ["log_std"]


@pytest.mark.parametrize("option", ["use_sde", "state_dependent_std"])
@pytest.mark.parametrize("space", [Discrete(2), MultiDiscrete([2, 3]), MultiBinary(2)])
def test_only_box_actions_have_a_deviation(space: gym.Space[Any], option: str) -> None:
    with pytest.raises(ValueError, match=rf"{option}: expected a Box .*got .*leave {option}=False"):
        head_of(space, **{option: True})


# --- deviations that depend on the state ------------------------------------------------------


@double()
@settings(max_examples=examples(30))
@given(st.integers(0, 1000))
def test_state_dependent_deviation_equals_torchs(seed: int) -> None:
    torch.manual_seed(seed)
    head = StateDependentGaussian(3, 0.5)
    mean, log_ratio, action = torch.randn(3, 2, 5, 3).clamp(-4.0, LOG_STD_RISE)
    params = head.dist_params(torch.cat([mean, log_ratio], -1))
    theirs = Normal(mean, 0.5 * log_ratio.exp())
    torch.testing.assert_close(head.log_prob(params, action), theirs.log_prob(action).sum(-1))
    torch.testing.assert_close(head.entropy(params), theirs.entropy().sum(-1))
    assert torch.equal(head.mode(params), mean)
    assert (head.outputs, head.latents) == (6, 0)


def test_samples_follow_the_deviation_of_their_state() -> None:
    head, count = StateDependentGaussian(3, 0.5), 100_000
    mean, std = torch.tensor([0.5, -1.0, 3.0]), torch.tensor([0.1, 0.5, 2.0])
    params = head.dist_params(torch.cat([mean, (std / 0.5).log()]))
    sample = head.sample(params, head.noise((count,), generator()))
    # As above: a mean's standard deviation is std / 316, and that of a deviation is less.
    torch.testing.assert_close((sample.mean(0) - mean) / std, torch.zeros(3), rtol=0, atol=5 / 316)
    torch.testing.assert_close(sample.std(0), std, rtol=0.02, atol=0)


def test_the_deviation_starts_at_action_std_init_and_stays_within_its_range() -> None:
    head = StateDependentGaussian(1, 0.3)
    output = torch.tensor([[0.0, 0.0], [0.0, -1e30], [0.0, 1e30]], requires_grad=True)
    params = head.dist_params(output)
    _, log_std = head.moments(params)
    expected = torch.tensor([[0.3], [0.005], [0.3 * math.exp(3)]])
    torch.testing.assert_close(log_std.exp(), expected)
    score = head.log_prob(params, torch.tensor([[0.5], [0.5], [0.5]])) + head.entropy(params)
    score.sum().backward()
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()
    assert (output.grad[0] != 0).all()


@double()
@settings(max_examples=examples(30))
@given(st.integers(0, 1000))
def test_sde_is_the_gaussian_of_the_variance_by_hand(seed: int) -> None:
    """Raffin et al. 2021: the variance of component a is sum_d z_d^2 sigma_da^2."""
    torch.manual_seed(seed)
    head = box_head("sde")
    mean, z, action = torch.randn(4, 3), torch.randn(4, LATENTS), torch.randn(4, 3)
    sigma = head.log_std.exp()
    std = torch.zeros(4, 3)
    for n in range(4):
        for a in range(3):
            # Without the term that keeps a variance of zero away, a millionth of it.
            std[n, a] = sum((z[n, d] * sigma[d, a]) ** 2 for d in range(LATENTS)) ** 0.5
    theirs = Normal(mean, std)
    params = head.dist_params(torch.cat([mean, z], -1))
    near = {"rtol": 1e-4, "atol": 1e-4}
    log_prob = theirs.log_prob(action).sum(-1)
    torch.testing.assert_close(head.log_prob(params, action), log_prob, **near)
    torch.testing.assert_close(head.entropy(params), theirs.entropy().sum(-1), **near)
    assert torch.equal(head.mode(params), mean)
    assert (head.outputs, head.latents) == (3, LATENTS)


@pytest.mark.parametrize("squash", [False, True])
def test_sde_samples_follow_their_mean_and_stated_deviation(squash: bool) -> None:
    head, count = box_head("sde", squash), 100_000
    params = head.dist_params(read_by_head(head)).detach()
    sample = head.sample(params, head.noise((count,), generator())).detach()
    assert sample.shape == (count, 3)
    mean, log_std = head.moments(params)
    std = log_std.exp()
    # As above: a mean's standard deviation is std / 316, and that of a deviation is less.
    torch.testing.assert_close((sample.mean(0) - mean) / std, torch.zeros(3), rtol=0, atol=5 / 316)
    torch.testing.assert_close(sample.std(0), std, rtol=0.02, atol=0)
    correlation = torch.corrcoef(sample.T)
    torch.testing.assert_close(correlation, torch.eye(3), rtol=0, atol=0.02)


def test_sde_deviates_by_a_linear_function_of_the_latents() -> None:
    head = box_head("sde")
    noise = head.noise((1,), generator()).expand(4, -1, -1)  # one function for all rows
    z = torch.randn(LATENTS), torch.randn(LATENTS)
    latents = torch.stack([z[0], z[1], 2 * z[0] - z[1], torch.zeros(LATENTS)])
    params = head.dist_params(torch.cat([torch.zeros(4, 3), latents], -1))
    first, second, third, none = head.sample(params, noise)
    torch.testing.assert_close(third, 2 * first - second)
    assert not none.any()


@pytest.mark.parametrize("frequency", [1, 4, 64, 100])
@pytest.mark.parametrize("steps", [1, 8, 10])
def test_sde_noise_is_held_for_some_steps(frequency: int, steps: int) -> None:
    head = GeneralizedSDE(3, 0.5, latents=LATENTS, sample_freq=frequency)
    assert head.hold == frequency
    noise = head.noise((steps, 3), generator())
    assert noise.shape == (steps, 3, LATENTS, 3)
    for t in range(steps):
        for u in range(t):
            assert torch.equal(noise[t], noise[u]) == (t // frequency == u // frequency)
    assert len(noise[0].unique()) == noise[0].numel()  # every row has its own


def test_sde_noise_of_one_step_has_a_function_for_each_row() -> None:
    noise = box_head("sde").noise((3,), generator())
    assert noise.shape == (3, LATENTS, 3)
    assert len(noise.unique()) == noise.numel()


@pytest.mark.parametrize("squash", [False, True])
def test_sde_sends_gradients_into_sigma_and_the_mean_but_not_into_the_latents(
    squash: bool,
) -> None:
    head = box_head("sde", squash)
    mean = torch.randn(4, 3, requires_grad=True)
    z = torch.randn(4, LATENTS, requires_grad=True)
    params = head.dist_params(torch.cat([mean, z], -1))
    sample = head.sample(params, head.noise((4,), generator()))
    action = sample.detach()
    terms = {
        "log_prob": (head.log_prob(params, action), [mean, head.log_std]),
        # A squashed action's entropy falls where its mean saturates.
        "entropy": (head.entropy(params), [mean, head.log_std] if squash else [head.log_std]),
        "sample": (sample, [mean, head.log_std]),
    }
    for term, reached in terms.values():
        inputs = [mean, head.log_std, z]
        grads = torch.autograd.grad(
            term.sum(), inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for tensor, grad in zip(inputs, grads, strict=True):
            assert bool((grad != 0).all()) == any(tensor is one for one in reached)
            assert bool((grad != 0).any()) == any(tensor is one for one in reached)


@pytest.mark.parametrize("latents", [1, 64])
def test_sde_starts_at_action_std_init_where_latents_have_a_mean_square_of_one(
    latents: int,
) -> None:
    head = GeneralizedSDE(3, 0.3, latents=latents, sample_freq=4)
    z = torch.randn(latents)
    z = z / z.square().mean().sqrt()
    _, log_std = head.moments(head.dist_params(torch.cat([torch.zeros(3), z])))
    torch.testing.assert_close(log_std.exp(), torch.full((3,), 0.3))


def test_sde_without_any_latent_that_is_not_zero_stays_finite() -> None:
    head = box_head("sde")
    params = head.dist_params(torch.zeros(2, 3 + LATENTS))
    score = head.log_prob(params, torch.full((2, 3), 0.1)) + head.entropy(params)
    score.sum().backward()
    assert torch.isfinite(score).all()
    assert head.log_std.grad is not None
    assert torch.isfinite(head.log_std.grad).all()


# --- every head -------------------------------------------------------------------------------


@every_head
@pytest.mark.parametrize("leading", [(5,), (2, 3)])
def test_sampled_actions_are_in_the_space_and_come_back(
    case: str, leading: tuple[int, ...]
) -> None:
    space, options = CASES[case]
    head = head_of(space, **options)
    assert space.shape is not None
    params = head.dist_params(read_by_head(head, *leading)).detach()
    for action in (head.sample(params, head.noise(leading, generator())), head.mode(params)):
        action = action.detach()
        assert (action.shape, action.dtype) == ((*leading, *head.shape), head.dtype)
        outside = head.to_env(action)
        assert outside.shape == (*leading, *space.shape)
        assert outside.dtype == space.dtype
        for one in outside.reshape(-1, *space.shape):
            # NumPy makes a scalar of an array without axes, which a Box() does not take.
            assert space.contains(one if isinstance(space, Discrete) else np.asarray(one))
        back = head.from_env(outside)
        assert back.dtype == head.dtype
        torch.testing.assert_close(back, action, rtol=1e-4, atol=1e-5)


@every_head
def test_a_row_alone_gives_what_it_gives_among_others(case: str) -> None:
    """For all methods: leading axes are but a batch, and there may be none."""
    space, options = CASES[case]
    head = head_of(space, **options)
    output, noise = read_by_head(head, 2, 3), head.noise((2, 3), generator())
    mask = torch.rand(2, 3, head.mask_size) < 0.7 if head.mask_size else None

    def all_of(index: tuple[int, ...]) -> list[Tensor]:
        params = head.dist_params(output[index], None if mask is None else mask[index])
        action = head.sample(params, noise[index])
        values = [params, action, head.mode(params), head.encode(action)]
        return [*values, head.log_prob(params, action), head.entropy(params)]

    together, outside = all_of(()), head.to_env(all_of(())[1])
    assert together[3].shape == (2, 3, head.features)
    assert together[3].dtype == torch.float32
    assert together[4].shape == together[5].shape == (2, 3)
    for n in range(2):
        for m in range(3):
            alone = all_of((n, m))
            for a, b in zip(alone, together, strict=True):
                torch.testing.assert_close(a, b[n, m])
            np.testing.assert_allclose(head.to_env(alone[1]), outside[n, m], rtol=1e-5, atol=1e-6)


@every_head
@double()
def test_every_head_works_in_float64(case: str) -> None:
    space, options = CASES[case]
    head = head_of(space, **options)
    params = head.dist_params(read_by_head(head, 4))
    noise = head.noise((4,), generator())
    action = head.sample(params, noise).detach()
    for values in (params, noise, head.log_prob(params, action), head.entropy(params)):
        assert values.dtype == torch.float64
        assert torch.isfinite(values).all()
    assert head.encode(action).dtype == torch.float64


@every_head
def test_the_expected_score_is_zero(case: str) -> None:
    """E[d log p(a) / d output] = 0 where ``sample`` draws by the very p of ``log_prob``."""
    space, options = CASES[case]
    head, count = head_of(space, **options), 20_000
    read = read_by_head(head).expand(count, -1).clone().requires_grad_()
    params = head.dist_params(read)
    action = head.sample(params, head.noise((count,), generator())).detach()
    (score,) = torch.autograd.grad(head.log_prob(params, action).sum(), read)
    score = score[:, : head.outputs]
    # The mean of 20,000 lies within 5 of its standard deviations.
    assert (score.mean(0).abs() <= 5 * score.std(0) / math.sqrt(count) + 1e-6).all()


# --- actions that somebody else chose ---------------------------------------------------------


def test_the_probability_of_squashed_actions_at_the_bounds_is_finite() -> None:
    head = gaussian(squash=True)
    stored = head.from_env(np.stack([BOUNDED.low, BOUNDED.high]))
    assert torch.isfinite(head.log_prob(torch.zeros(2, 3), stored)).all()
