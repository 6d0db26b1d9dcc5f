"""Tests of `recurrent_rl.networks`: initial weights, normalisation, encoders, the actor-critic."""

import copy
import itertools
import math
from typing import Any

import gymnasium as gym
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import ACTIONS, OBSERVATIONS, double, make_policy, random_state
from torch import Tensor, nn

from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.networks.flat_parameters import (
    adam_state_for,
    flatten_parameters,
    split_adam_state,
)
from recurrent_rl.networks.layers import ResidualBlock, mlp, orthogonal_init
from recurrent_rl.networks.normalization import RunningNorm
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.codec import ObservationCodec

# --- layers and their first weights -----------------------------------------------------------


def test_mlp_has_an_activation_behind_each_hidden_layer_only() -> None:
    kinds = [type(layer).__name__ for layer in mlp(3, (8, 4), "ReLU", 2)]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in mlp(3, (8,), "ELU", None)] == ["Linear", "ELU"]
    assert mlp(3, (8, 4), "Tanh", 2)(torch.zeros(5, 3)).shape == (5, 2)
    assert mlp(3, (8, 4), "Tanh", None)(torch.zeros(5, 3)).shape == (5, 4)
    x = torch.randn(5, 3)
    assert torch.equal(mlp(3, (), "Tanh", None)(x), x)


def assert_orthogonal(weight: Tensor, gain: float) -> None:
    """Rows, or columns if there are fewer of them, are orthogonal and of length ``gain``."""
    wide = weight if weight.shape[0] <= weight.shape[1] else weight.T
    expected = gain**2 * torch.eye(len(wide))
    torch.testing.assert_close(wide @ wide.T, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", [3, 8, 20])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_weights_are_orthogonal_gate_by_gate(
    kind: type[nn.LSTM | nn.GRU], gates: int, inputs: int
) -> None:
    # Over the stacked gates at once, no gate alone would be orthogonal.
    layer = kind(inputs, 8, 2)
    orthogonal_init(layer, math.sqrt(2))
    for name, parameter in layer.named_parameters():
        if name.startswith("bias"):
            assert (parameter == 0).all()
            continue
        assert len(parameter) == gates * 8
        for gate in parameter.detach().split(8):
            assert_orthogonal(gate, 1.0)
    first, second = layer.weight_hh_l0.detach().split(8)[:2]
    assert not torch.allclose(first, second)


def test_linear_weights_are_orthogonal_with_the_given_gain() -> None:
    module = mlp(5, (9,), "Tanh", 3)
    orthogonal_init(module, 0.5)
    for layer in (module[0], module[2]):
        assert isinstance(layer, nn.Linear)
        assert_orthogonal(layer.weight.detach(), 0.5)
        assert (layer.bias == 0).all()


def test_first_weights_of_a_policy() -> None:
    net = NetConfig.from_dict({"encoder_config": {"hidden_size": [7]}})
    policy = ActorCritic(OBSERVATIONS["vector"], ACTIONS["discrete"], net, PPOConfig())
    (encoder,) = policy.encoders
    for layer, gain in (
        (encoder.mlp[0], math.sqrt(2)),
        (policy.action_head.layers[0], math.sqrt(2)),
        (policy.value_head.layers[0], math.sqrt(2)),
        (policy.action_head.layers[-1], 0.01),
        (policy.value_head.layers[-1], 1.0),
    ):
        assert_orthogonal(layer.weight.detach(), gain)
    assert_orthogonal(encoder.core.rnn.weight_hh_l0.detach()[:64], 1.0)
    acted = policy.act(torch.randn(5, 3), None, policy.initial_state(5), None)
    torch.testing.assert_close(
        acted.dist_params.exp(), torch.full((5, 3), 1 / 3), rtol=0, atol=0.02
    )

    plain = ActorCritic(
        OBSERVATIONS["vector"], ACTIONS["discrete"], net, PPOConfig(ortho_init=False)
    )
    assert (plain.actor[-1].bias != 0).any()


# --- one vector of parameters -----------------------------------------------------------------


def test_parameters_become_views_of_one_vector() -> None:
    policy = make_policy(num_layers=2)
    x, state = torch.randn(4, 3), random_state(policy, 4, torch.Generator())
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    params = policy.act(x, None, state, None).params
    flat = flatten_parameters(policy)
    assert flat.numel() == sum(p.numel() for p in before.values())
    assert torch.equal(policy.act(x, None, state, None).params, params)
    for name, p in policy.named_parameters():
        assert torch.equal(p, before[name])
        assert p.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        assert isinstance(p, nn.Parameter)
        assert p.requires_grad
    with torch.no_grad():
        flat.add_(1)
    for name, p in policy.named_parameters():
        assert torch.equal(p, before[name] + 1)


def test_gradients_that_exist_already_are_kept() -> None:
    module = mlp(3, (4,), "Tanh", 2)
    module(torch.randn(5, 3)).sum().backward()
    module[0].bias.grad = None
    before = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    flat = flatten_parameters(module)
    assert flat.grad is not None
    for p, grad in zip(module.parameters(), before, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, torch.zeros_like(p) if grad is None else grad)
        assert p.grad.untyped_storage().data_ptr() == flat.grad.untyped_storage().data_ptr()


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimiser_on_the_vector_does_what_one_on_the_parameters_does(optimiser: Any) -> None:
    modules = [mlp(3, (4,), "Tanh", 2) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    flat = flatten_parameters(modules[0])
    optimisers = [optimiser([flat], lr=0.1), optimiser(modules[1].parameters(), lr=0.1)]
    for _ in range(3):
        x = torch.randn(6, 3)
        for module, optim in zip(modules, optimisers, strict=True):
            optim.zero_grad(set_to_none=False)
            module(x).square().sum().backward()
            optim.step()
    for ours, theirs in zip(*(m.parameters() for m in modules), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_weights_loaded_into_shared_parameters_stay_shared() -> None:
    module, other = mlp(3, (4,), "Tanh", 2), mlp(3, (4,), "Tanh", 2)
    flat = flatten_parameters(module)
    module.load_state_dict(other.state_dict())
    assert torch.equal(flat, torch.cat([p.flatten() for p in other.parameters()]))


@pytest.mark.parametrize("to_shared", [True, False])
def test_adams_state_moves_between_the_vector_and_the_parameters(to_shared: bool) -> None:
    """As when a checkpoint goes from a CPU to a GPU: training continues as if nothing happened."""
    modules = [mlp(3, (4,), "Tanh", 2) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    vector = flatten_parameters(modules[int(to_shared)])
    parameters = list(modules[0].parameters()) if to_shared else [vector]
    others = [vector] if to_shared else list(modules[1].parameters())
    optimisers = [torch.optim.Adam(p, lr=0.01) for p in (parameters, others)]

    def update(which: int) -> None:
        torch.manual_seed(9)
        optimisers[which].zero_grad(set_to_none=False)
        modules[which](torch.randn(6, 3)).square().sum().backward()
        optimisers[which].step()

    update(0)
    update(0)
    modules[1].load_state_dict(modules[0].state_dict())
    saved = optimisers[0].state_dict()
    state = adam_state_for(optimisers[1], saved, list(modules[1].parameters()))
    optimisers[1].load_state_dict(state)
    update(0)
    update(1)
    for ours, theirs in zip(*(m.parameters() for m in modules), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shared", [True, False])
def test_adams_state_by_parameter(shared: bool) -> None:
    module = mlp(3, (4,), "Tanh", 2, 1)
    vector = [flatten_parameters(module)] if shared else list(module.parameters())
    optimiser = torch.optim.Adam(vector)
    parameters = list(module.parameters())
    assert split_adam_state(optimiser.state_dict(), parameters) == []  # before the first step
    for _ in range(3):
        optimiser.zero_grad(set_to_none=False)
        module(torch.ones(6, 3)).square().sum().backward()
        optimiser.step()
    saved = optimiser.state_dict()
    split = split_adam_state(saved, parameters)
    assert [float(moments["step"]) for moments in split] == [3.0] * len(parameters)
    for key in ("exp_avg", "exp_avg_sq"):
        assert [m[key].shape for m in split] == [p.shape for p in parameters]
        joined = torch.cat([m[key].flatten() for m in split])
        assert torch.equal(joined, torch.cat([x[key].flatten() for x in saved["state"].values()]))
    if shared:  # on its own: what is done to the one does nothing to the other
        split[0]["exp_avg"].zero_()
        assert optimiser.state[vector[0]]["exp_avg"][:12].all()


# --- residual blocks --------------------------------------------------------------------------


def test_residual_blocks_stand_behind_the_hidden_layers() -> None:
    kinds = [type(layer).__name__ for layer in mlp(3, (8,), "ReLU", 2, 2)]
    assert kinds == ["Linear", "ReLU", "ResidualBlock", "ResidualBlock", "Linear"]
    assert [type(x).__name__ for x in mlp(3, (), "ReLU", None, 1)] == ["ResidualBlock"]
    assert mlp(3, (), "Tanh", None, 1)(torch.zeros(5, 3)).shape == (5, 3)


@pytest.mark.parametrize("activation", ["Tanh", "ReLU"])
def test_residual_block_by_its_equation(activation: str) -> None:
    block, x = ResidualBlock(4, activation), torch.randn(5, 2, 4)
    act = {"Tanh": torch.tanh, "ReLU": torch.relu}[activation]
    w1, b1, w2, b2 = block.parameters()
    torch.testing.assert_close(block(x), x + act(x @ w1.T + b1) @ w2.T + b2)
    block.start_as_identity()
    assert torch.equal(block(x), x)
    assert (block.inner.weight != 0).all()
    (block(x) * torch.randn_like(x)).sum().backward()
    assert block.outer.weight.grad is not None
    assert (block.outer.weight.grad != 0).any(1).all()


@pytest.mark.parametrize("ortho_init", [True, False])
@pytest.mark.parametrize("recurrent", [True, False])
def test_residual_layers_of_a_new_policy_are_the_identity(
    ortho_init: bool, recurrent: bool
) -> None:
    policies = []
    for layers in (0, 2):
        net = {
            "encoder_config": {"hidden_size": [4], "residual_layers": layers},
            "head_config": {"residual_layers": layers},
        }
        config = PPOConfig(recurrent=recurrent, ortho_init=ortho_init, share_encoders=False)
        spaces = OBSERVATIONS["vector"], ACTIONS["discrete"]
        policies.append(ActorCritic(*spaces, NetConfig.from_dict(net), config))
    plain, deep = policies
    ours = dict(deep.named_parameters())
    with torch.no_grad():
        for name, p in plain.named_parameters():
            # The heads' last layer stands behind the blocks.
            ours[name.replace("actor.2", "actor.4").replace("critic.2", "critic.4")].copy_(p)
    x = torch.randn(7, 5, 3)
    results = [p.evaluate(x, None, p.initial_state(5).tensors[: p.memory], None) for p in policies]
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    assert [k for k, _ in deep.state_shapes] == ([3] * 4 if recurrent else [])


# --- running normalisation --------------------------------------------------------------------


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 30), st.just(2)),
        elements=st.floats(-1e3, 1e3, width=32),
    ),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_running_moments_do_not_depend_on_how_the_data_arrive(
    data: np.ndarray[Any, Any], cuts: list[int]
) -> None:
    norm = RunningNorm(2)
    for part in np.split(data, sorted(min(c, len(data)) for c in cuts)):  # some parts are empty
        norm.update(torch.from_numpy(part))
    assert float(norm.count) == len(data)
    exact = data.astype(np.float64)
    np.testing.assert_allclose(norm.mean.numpy(), exact.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(norm.variance.numpy(), exact.var(0), rtol=1e-9, atol=1e-6)


def test_running_moments_are_exact_far_from_zero() -> None:
    # In float32 the variance around a mean of 1e4 would be lost after a few thousand steps.
    norm = RunningNorm(1)
    data = 1e4 + torch.randn(100_000, 1, dtype=torch.float64)
    for part in data.split(64):
        norm.update(part)
    assert norm.mean.dtype == norm.variance.dtype == norm.count.dtype == torch.float64
    torch.testing.assert_close(norm.variance, data.var(0, unbiased=False), rtol=1e-9, atol=0)


def test_normalisation_begins_as_the_identity_and_then_standardises() -> None:
    norm = RunningNorm(3)
    x = 5 + 3 * torch.randn(2000, 3)
    torch.testing.assert_close(norm(x), x.clamp(-10, 10))
    norm.update(x)
    y = norm(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(y.std(0, unbiased=False), torch.ones(3), rtol=1e-4, atol=0)
    assert norm(torch.full((1, 3), 1e6)).tolist() == [[10, 10, 10]]
    assert norm(torch.full((1, 3), -1e6)).tolist() == [[-10, -10, -10]]


def test_a_feature_that_never_varies_stays_finite() -> None:
    norm = RunningNorm(1)
    norm.update(torch.full((10, 1), 3.0))
    assert norm(torch.full((4, 1), 3.0)).abs().max() < 1e-3


def test_normalisation_moves_in_update_only() -> None:
    norm = RunningNorm(2)
    norm.update(torch.randn(10, 2))
    before = copy.deepcopy(norm.state_dict())
    norm.train()(torch.randn(10, 2))
    norm.update(torch.zeros(0, 2))
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name])


def test_copies_and_loaded_normalisers_behave_alike() -> None:
    norm, x = RunningNorm(2), torch.randn(5, 2)
    norm.update(4 + 2 * torch.randn(50, 2))
    loaded = RunningNorm(2)
    loaded.load_state_dict(norm.state_dict())
    copied = copy.deepcopy(norm)
    for other in (loaded, copied):
        assert torch.equal(other(x), norm(x))
    copied.update(torch.randn(50, 2))
    assert not torch.equal(copied(x), norm(x)), "a copy must not share its moments"
    assert torch.equal(loaded(x), norm(x))
    assert set(norm.state_dict()) == {"mean", "variance", "count"}


# --- encoders ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recurrent", "widths"), [(True, None), (True, (7,)), (True, (64, 3)), (False, None)]
)
@pytest.mark.parametrize("extra", [0, 2])
def test_extra_inputs_reach_the_features(
    recurrent: bool, widths: tuple[int, ...] | None, extra: int
) -> None:
    encoder_config = {"hidden_size": widths, "hidden_state_size": 5}
    net = NetConfig.from_dict({"encoder_config": encoder_config})
    codec = ObservationCodec(OBSERVATIONS["vector"])
    encoder = Encoder(codec, extra, net, recurrent)
    x, more = codec(torch.randn(4, 3)), torch.randn(4, extra) if extra else None
    state = tuple(torch.zeros(k, 4, h) for k, h in encoder.shapes)
    y, after = encoder.step(x, more, state)
    assert y.shape == (4, encoder.outputs)
    assert encoder.outputs == (5 if recurrent else 64)
    assert len(after) == len(encoder.shapes) == (2 if recurrent else 0)
    if more is not None:
        assert not torch.equal(encoder.step(x, more + 1, state)[0], y)
    if encoder.core is not None:
        # Behind the MLP, not through it.
        assert encoder.core.rnn.input_size == (widths[-1] if widths else 64) + extra


# --- the actor-critic -------------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    {"cell": cell, "num_layers": layers, "share_encoders": share, **inputs}
    for cell, layers, share, inputs in itertools.product(
        ["lstm", "gru"],
        [1, 2],
        [True, False],
        [
            {"hidden_size": (7,)},
            {"previous_action": True, "previous_reward": True, "action": "box"},
        ],
    )
] + [
    {"recurrent": False},
    {"recurrent": False, "share_encoders": False, "action": "box"},
    {"observation": "index", "normalize_obs": True, "previous_action": True},
    {"normalize_obs": True, "action": "box", "squash_output": True, "previous_reward": True},
    {"recurrent": False, "observation": "index", "previous_reward": True},
]


def name_of(variant: dict[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in variant.items())


def random_inputs(policy: ActorCritic, *shape: int) -> tuple[Tensor, Tensor | None]:
    """Observations [*shape, ...] and extra inputs [*shape, F]."""
    extra = torch.randn(*shape, policy.extra.width) if policy.extra.width else None
    if isinstance(policy.codec.space, gym.spaces.Discrete):
        start, n = int(policy.codec.space.start), int(policy.codec.space.n)
        return start + torch.randint(n, shape), extra
    return torch.randn(*shape, *policy.codec.shape), extra


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
@double()
def test_evaluating_sequences_equals_acting_step_by_step(variant: dict[str, Any]) -> None:
    """Head parameters, values and the memory, with resets nowhere: those cut sequences."""
    policy = make_policy(**variant)
    steps, rows = 5, 4
    x, extra = random_inputs(policy, steps, rows)
    if policy.preprocessor.norm is not None:
        policy.preprocessor.norm.update(1 + 2 * torch.randn(20, 3))
    state = random_state(policy, rows, torch.Generator().manual_seed(0))
    memory = state.tensors[: policy.memory]
    params, values = [], []
    with torch.no_grad():
        now = state
        for t in range(steps):
            acted = policy.act(x[t], None if extra is None else extra[t], now, None)
            value = policy.value(x[t], None if extra is None else extra[t], now)
            torch.testing.assert_close(policy.value_of(acted.critic_features), value)
            params.append(acted.dist_params)
            values.append(value)
            now = acted.state
        ours, value = policy.unroll(x, extra, memory, None)
        torch.testing.assert_close(ours, torch.cat(params))
        torch.testing.assert_close(value, torch.cat(values))
        chosen = torch.tensor([0, 3, 7, 19])
        some, value = policy.unroll(x, extra, memory, chosen)
        torch.testing.assert_close(some, torch.cat(params)[chosen])
        torch.testing.assert_close(value, torch.cat(values)[chosen])

    after = policy.advance(x, extra, torch.full((rows,), steps), memory)
    assert len(after) == policy.memory
    for advanced, stepped in zip(after, now.tensors, strict=False):
        torch.testing.assert_close(advanced, stepped)
        assert not advanced.requires_grad


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
@double()
def test_rows_act_for_themselves(variant: dict[str, Any]) -> None:
    policy = make_policy(**variant)
    x, extra = random_inputs(policy, 4)
    generator = torch.Generator().manual_seed(0)
    state, noise = (
        random_state(policy, 4, generator),
        policy.action_head.distribution.noise((4,), generator),
    )
    before = [s.clone() for s in state.tensors]
    together = policy.act(x, extra, state, noise)
    for n in range(4):
        one = [n]
        alone = policy.act(x[one], None if extra is None else extra[one], state[n], noise[one])
        torch.testing.assert_close(alone.action, together.action[one])
        torch.testing.assert_close(alone.params, together.params[one])
        for a, b in zip(alone.state.tensors, together.state[n].tensors, strict=True):
            torch.testing.assert_close(a, b)
    assert together.state.rows == 4
    for s, b in zip(state.tensors, before, strict=True):
        assert torch.equal(s, b), "acting must leave the state it was given alone"


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("recurrent", [True, False])
def test_encoders_are_shared_or_separate(share: bool, recurrent: bool) -> None:
    policy = make_policy(share_encoders=share, recurrent=recurrent)
    assert len(policy.encoders) == (1 if share else 2)
    x, _ = random_inputs(policy, 3, 4)
    state = random_state(policy, 4, torch.Generator()).tensors
    params, value = policy.unroll(x, None, state, None)

    def touched(score: Tensor) -> set[str]:
        named = dict(policy.named_parameters())
        grads = torch.autograd.grad(
            score, list(named.values()), allow_unused=True, retain_graph=True
        )
        return {name for name, g in zip(named, grads, strict=True) if g is not None and g.any()}

    by_actor, by_critic = touched(params.square().sum()), touched(value.sum())
    both = by_actor & by_critic
    if share:
        assert both
        assert all(name.startswith("encoders.0") for name in both)
    else:
        assert not both
        assert any(name.startswith("encoders.0") for name in by_actor)
        assert any(name.startswith("encoders.1") for name in by_critic)
    assert not any(name.startswith("critic") for name in by_actor)
    assert not any(name.startswith("actor") for name in by_critic)


def test_state_shapes() -> None:
    def shapes(**variant: Any) -> list[tuple[int, ...]]:
        state = make_policy(hidden_state_size=5, **variant).initial_state(4)
        assert all((s == 0).all() for s in state.tensors)
        assert state.rows == 4
        return [tuple(s.shape) for s in state.tensors]

    h = (1, 4, 5)
    assert shapes() == [h, h]
    assert shapes(cell="gru") == [h]
    assert shapes(num_layers=3) == [(3, 4, 5)] * 2
    assert shapes(share_encoders=False) == [h] * 4
    assert shapes(share_encoders=False, cell="gru", previous_action=True) == [h, h, (1, 4, 3)]
    assert shapes(previous_action=True, action="box") == [h, h, (1, 4, 2)]
    assert shapes(recurrent=False) == []
    assert shapes(recurrent=False, previous_action=True) == [(1, 4, 3)]


@pytest.mark.parametrize("action", ["discrete", "box"])
def test_the_previous_action_travels_in_the_state(action: str) -> None:
    policy = make_policy(action=action, previous_action=True)
    x, state = torch.randn(4, 3), policy.initial_state(4)
    nothing = policy.extra.joined(state, None)
    assert nothing is not None
    assert (nothing == 0).all()
    acted = policy.act(
        x, nothing, state, policy.action_head.distribution.noise((4,), torch.Generator())
    )
    extra = policy.extra.joined(acted.state, None)
    assert extra is not None
    assert torch.equal(extra, policy.actions.encode(acted.action))
    assert not torch.equal(
        policy.act(x, extra, acted.state, None).params,
        policy.act(x, torch.zeros_like(extra), acted.state, None).params,
    )


def test_previous_action_comes_before_previous_reward() -> None:
    policy = make_policy(previous_action=True, previous_reward=True)
    state = HiddenState([*policy.initial_state(2).tensors[:2], torch.eye(3)[None, :2]], 2)
    extra = policy.extra.joined(state, torch.tensor([5.0, -6.0]))
    assert extra is not None
    assert extra.tolist() == [[1, 0, 0, 5], [0, 1, 0, -6]]
    only = make_policy(previous_reward=True).extra_inputs(state, torch.tensor([5.0, -6.0]))
    assert only is not None
    assert only.tolist() == [[5], [-6]]
    assert make_policy().extra_inputs(state, torch.tensor([5.0, -6.0])) is None


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
@pytest.mark.parametrize("deterministic", [True, False])
def test_forced_actions_replace_those_of_their_rows_only(
    variant: dict[str, Any], deterministic: bool
) -> None:
    policy = make_policy(**{**variant, "previous_action": True})
    x, extra = random_inputs(policy, 4)
    generator = torch.Generator().manual_seed(0)
    state = random_state(policy, 4, generator)
    noise = None if deterministic else policy.action_head.distribution.noise((4,), generator)
    free = policy.act(x, extra, state, noise)
    rows = torch.tensor([False, True, False, True])
    # Other ones than were chosen, in every row; those of rows that are not forced mean nothing.
    theirs = 2 - free.action if policy.actions.dtype == torch.int64 else free.action + 1
    theirs = torch.where(theirs == free.action, (theirs + 1) % 3, theirs)
    forced = policy.act(x, extra, state, noise, None, (rows, theirs))
    assert forced.action.dtype == free.action.dtype
    assert torch.equal(forced.action[rows], theirs[rows])
    assert torch.equal(forced.action[~rows], free.action[~rows])
    # It is remembered as the last one; what was seen counts all the same.
    assert torch.equal(forced.state.tensors[-1][0], policy.actions.encode(forced.action))
    for ours, expected in zip(forced.state.tensors[:-1], free.state.tensors[:-1], strict=True):
        assert torch.equal(ours, expected)
    assert torch.equal(forced.params, free.params)
    assert torch.equal(forced.critic_features, free.critic_features)


def test_identities_come_last_of_the_extra_inputs() -> None:
    config = {"previous_action": True, "previous_reward": True}
    space, actions = OBSERVATIONS["vector"], ACTIONS["discrete"]
    policy = ActorCritic(space, actions, NetConfig(), PPOConfig.from_dict(config), identities=2)
    assert policy.extra.width == 3 + 1 + 2
    state = HiddenState([*policy.initial_state(2).tensors[:2], torch.eye(3)[None, :2]], 2)
    extra = policy.extra.joined(state, torch.tensor([5.0, -6.0]), torch.eye(2))
    assert extra is not None
    assert extra.tolist() == [[1, 0, 0, 5, 1, 0], [0, 1, 0, -6, 0, 1]]
    only = ActorCritic(space, actions, NetConfig(), PPOConfig(), identities=2)
    assert only.extra_inputs(only.initial_state(2), None, torch.eye(2)).tolist() == [[1, 0], [0, 1]]  # type: ignore[union-attr]


def test_without_noise_the_most_likely_action_is_taken() -> None:
    policy = make_policy()
    x, state = torch.randn(50, 3), policy.initial_state(50)
    mode = policy.act(x, None, state, None)
    assert torch.equal(mode.action, mode.params.argmax(-1))
    sampled = policy.act(
        x, None, state, policy.action_head.distribution.noise((50,), torch.Generator())
    )
    assert torch.equal(sampled.params, mode.params)
    assert not torch.equal(sampled.action, mode.action)


@double()
def test_masks_act_and_are_applied_again_in_evaluation() -> None:
    policy = make_policy()
    x, state = torch.randn(3, 4, 3), random_state(policy, 4, torch.Generator())
    mask = torch.rand(3, 4, 3) < 0.5
    mask[..., 1] = True
    now, params = state, []
    for t in range(3):
        acted = policy.act(
            x[t], None, now, policy.action_head.distribution.noise((4,), torch.Generator()), mask[t]
        )
        assert mask[t].gather(1, acted.action[:, None]).all()
        params.append(acted.dist_params)
        now = acted.state
    chosen = torch.tensor([1, 2, 6, 11])
    ours, _ = policy.unroll(x, None, state.tensors, chosen, mask.flatten(0, 1)[chosen])
    torch.testing.assert_close(ours, torch.cat(params)[chosen])


@settings(max_examples=20)
@given(st.integers(0, 100))
def test_what_is_not_chosen_changes_no_bit_of_a_gradient(seed: int) -> None:
    """Steps behind the last chosen one of each sequence, garbage and all."""
    policy = make_policy(num_layers=2, seed=seed)
    x = torch.randn(5, 3, 3)
    chosen = torch.arange(3 * 3)  # the first three of five steps
    results = []
    for behind in (0.0, 1e30):
        x[3:] = behind
        params, value = policy.unroll(x, None, policy.initial_state(3).tensors, chosen)
        score = params.square().sum() + value.square().sum()
        grads = torch.autograd.grad(score, list(policy.parameters()))
        results.append([score, *grads])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_observations_are_standardised_inside_the_policy() -> None:
    policy = make_policy(normalize_obs=True)
    assert policy.preprocessor.norm is not None
    x = 50 + 10 * torch.randn(500, 3)
    policy.preprocessor.norm.update(x)
    features = policy.preprocessor(x).vector
    torch.testing.assert_close(features.mean(0), torch.zeros(3), rtol=0, atol=1e-3)
    assert {"norm.mean", "norm.variance", "norm.count"} <= set(policy.state_dict())
    assert make_policy().norm is None


def test_discrete_observations_are_one_hot_counted_from_their_start() -> None:
    policy = make_policy(observation="index", normalize_obs=True)
    assert policy.preprocessor.norm is None, "there is nothing to standardise in an index"
    assert policy.preprocessor(torch.tensor([2, 5])).vector.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_unsupported_spaces_are_named_with_what_is_supported() -> None:
    text, net, config = gym.spaces.Text(3), NetConfig(), PPOConfig()
    with pytest.raises(TypeError, match=r"observation_space: expected Box, .*, got Text.*Filter"):
        ActorCritic(text, ACTIONS["discrete"], net, config)
    with pytest.raises(TypeError, match=r"action_space: expected Discrete, .* Box, got Text"):
        ActorCritic(OBSERVATIONS["vector"], gym.spaces.Text(3), net, config)


@pytest.mark.parametrize("ortho_init", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_forget_bias_lets_memories_last(cell: str, layers: int, ortho_init: bool) -> None:
    def kept(forget_bias: float) -> Tensor:
        """How much of a state is left after ten steps, if nothing comes in."""
        net = NetConfig.from_dict(
            {"encoder_config": {"cell": cell, "num_layers": layers, "forget_bias": forget_bias}}
        )
        policy = ActorCritic(
            OBSERVATIONS["vector"], ACTIONS["discrete"], net, PPOConfig(ortho_init=ortho_init)
        )
        core = policy.encoders[0].core
        with torch.no_grad():
            for name, parameter in core.named_parameters():
                if "weight" in name:
                    parameter.zero_()
                else:  # what is written into the memory: the last gate but an LSTM's output
                    parameter.chunk(4 if cell == "lstm" else 3)[2].zero_()
            state = tuple(torch.ones_like(s) for s in core.initial_state(1))
            for _ in range(10):
                _, state = core.step(torch.zeros(1, core.rnn.input_size), state)
        return state[-1]

    # By the cells' equations: a factor of sigmoid(bias) a step.
    factor = torch.tensor(3.0).sigmoid()
    torch.testing.assert_close(kept(3.0), (factor**10).expand(layers, 1, 64))
    assert kept(0.0).max() < 0.01
