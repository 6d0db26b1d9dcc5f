"""Tests of `recurrent_rl.networks.policy`: the actor-critic, step by step and in sequences."""

import itertools
import math
from typing import Any

import gymnasium as gym
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.helpers import ACTIONS, OBSERVATIONS, double, make_policy, random_state
from support.pairs import examples
from support.weights import assert_orthogonal
from torch import Tensor

from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.recurrent.state import HiddenState

# --- its parameters ----------------------------------------------------------------------------


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
    assert (plain.action_head.layers[-1].bias != 0).any()


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
            ours[name.replace("head.layers.2", "head.layers.4")].copy_(p)
    x = torch.randn(7, 5, 3)
    results = [p.unroll(x, None, p.initial_state(5).tensors[: p.memory], None) for p in policies]
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    assert [k for k, _ in deep.state_shapes] == ([3] * 4 if recurrent else [])


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


@pytest.mark.parametrize("variant", [{}, {"share_encoders": False, "action": "box"}], ids=str)
def test_the_parameters_that_are_trained_are_all_there_are(variant: dict[str, Any]) -> None:
    """In an order that checkpoints rely on, see `trained_parameters`."""
    policy = make_policy(**variant)
    names = {id(p): name for name, p in policy.named_parameters()}
    trained = [names[id(p)] for p in policy.trained_parameters()]
    assert sorted(trained) == sorted(names.values())
    order = [
        "action_head.distribution",
        "trunks.0",
        "trunks.1",
        "action_head.layers",
        "value_head.layers",
    ]
    parts = [next(part for part in order if name.startswith(part)) for name in trained]
    assert parts == sorted(parts, key=order.index)


# --- acting and learning -----------------------------------------------------------------------


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
    {"cell": "mingru", "num_layers": 2, "previous_reward": True},
    {"cell": "lru", "share_encoders": False, "hidden_size": (7,)},
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
        torch.testing.assert_close(alone.dist_params, together.dist_params[one])
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
        assert all(name.startswith("trunks.0") for name in both)
    else:
        assert not both
        assert any(name.startswith("trunks.0") for name in by_actor)
        assert any(name.startswith("trunks.1") for name in by_critic)
    assert not any(name.startswith("value_head") for name in by_actor)
    assert not any(name.startswith("action_head") for name in by_critic)


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
        policy.act(x, extra, acted.state, None).dist_params,
        policy.act(x, torch.zeros_like(extra), acted.state, None).dist_params,
    )


def test_previous_action_comes_before_previous_reward() -> None:
    policy = make_policy(previous_action=True, previous_reward=True)
    state = HiddenState([*policy.initial_state(2).tensors[:2], torch.eye(3)[None, :2]], 2)
    extra = policy.extra.joined(state, torch.tensor([5.0, -6.0]))
    assert extra is not None
    assert extra.tolist() == [[1, 0, 0, 5], [0, 1, 0, -6]]
    only = make_policy(previous_reward=True).extra.joined(state, torch.tensor([5.0, -6.0]))
    assert only is not None
    assert only.tolist() == [[5], [-6]]
    assert make_policy().extra.joined(state, torch.tensor([5.0, -6.0])) is None


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
    assert torch.equal(forced.dist_params, free.dist_params)
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
    assert only.extra.joined(only.initial_state(2), None, torch.eye(2)).tolist() == [[1, 0], [0, 1]]  # type: ignore[union-attr]


def test_without_noise_the_most_likely_action_is_taken() -> None:
    policy = make_policy()
    x, state = torch.randn(50, 3), policy.initial_state(50)
    mode = policy.act(x, None, state, None)
    assert torch.equal(mode.action, mode.dist_params.argmax(-1))
    sampled = policy.act(
        x, None, state, policy.action_head.distribution.noise((50,), torch.Generator())
    )
    assert torch.equal(sampled.dist_params, mode.dist_params)
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


@settings(max_examples=examples(20))
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
    names = {f"trunks.0.preprocessor.norm.{x}" for x in ("mean", "variance", "count")}
    assert names <= set(policy.state_dict())
    assert make_policy().preprocessor.norm is None


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
