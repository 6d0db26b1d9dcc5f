"""Tests of `recurrent_rl.networks.trunk`: what a trunk reads, keeps, and is copied with."""

import copy

import gymnasium as gym
import pytest
import torch
from support.helpers import make_policy

from recurrent_rl.networks.configs import NetConfig, PolicyConfig
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.networks.trunk import ExtraInputs
from recurrent_rl.recurrent.state import HiddenState


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_target_network_is_a_copy_of_a_trunk_and_its_head(cell: str) -> None:
    """It gives the same numbers, statistics included, and moves on its own."""
    policy = make_policy(cell=cell, share_encoders=False, normalize_obs=True)
    policy.preprocessor.update(torch.randn(7, 2, 3), torch.ones(7, 2, dtype=torch.bool))
    trunk, head = policy.trunks[1], policy.value_head
    target, target_head = copy.deepcopy((trunk, head))
    observation, tensors = torch.randn(5, 4, 3), policy.initial_state(4).tensors
    before = head(trunk(trunk.inputs(observation), None, tensors)[0])
    torch.testing.assert_close(
        target_head(target(target.inputs(observation), None, tensors)[0]), before, rtol=0, atol=0
    )
    with torch.no_grad():
        for parameter in (*trunk.parameters(), *head.parameters()):
            parameter.add_(1)
    policy.preprocessor.update(5 + torch.randn(7, 2, 3), torch.ones(7, 2, dtype=torch.bool))
    after = target_head(target(target.inputs(observation), None, tensors)[0])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not torch.equal(head(trunk(trunk.inputs(observation), None, tensors)[0]), before)


def test_each_trunk_has_its_slice_of_the_state() -> None:
    """The critic's memory changes nothing in what the actor does, and the other way round."""
    policy = make_policy(share_encoders=False, previous_action=True)
    actor, critic = policy.trunks
    assert (actor.place, critic.place) == (slice(0, 2), slice(2, 4))
    assert policy.memory == 4
    assert policy.state_shapes[4] == (1, policy.actions.features)
    state = policy.initial_state(2)
    other = HiddenState(
        [x + (i in (2, 3)) for i, x in enumerate(state.tensors)], 2
    )  # another memory of the critic's
    observation, extra = torch.randn(2, 3), torch.zeros(2, policy.extra.width)
    one, two = (policy.act(observation, extra, s, None) for s in (state, other))
    assert torch.equal(one.dist_params, two.dist_params)
    assert not torch.equal(one.critic_features, two.critic_features)
    for i in range(2):
        assert torch.equal(one.state.tensors[i], two.state.tensors[i])


def test_what_both_trunks_read_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy(share_encoders=False, normalize_obs=True)
    calls = []
    inner = policy.preprocessor.forward
    monkeypatch.setattr(policy.preprocessor, "forward", lambda x: calls.append(len(x)) or inner(x))
    policy.act(torch.randn(2, 3), None, policy.initial_state(2), None)
    assert calls == [2]


def test_extra_inputs_are_joined_in_order() -> None:
    extra = ExtraInputs(action=2, reward=True, identities=3)
    state = HiddenState([torch.zeros(1, 2, 4), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])], 2)
    joined = extra.joined(state, torch.tensor([5.0, 6.0]), torch.eye(3)[[0, 2]])
    assert joined is not None
    assert joined.tolist() == [[1, 2, 5, 1, 0, 0], [3, 4, 6, 0, 0, 1]]
    assert extra.width == joined.shape[1]
    assert ExtraInputs().joined(state, None) is None


def test_parameters_come_in_the_order_that_files_have() -> None:
    """The distribution's, the trunks', the action head's, the value head's: each exactly once."""
    policy = ActorCritic(
        gym.spaces.Box(-1, 1, (3,)),
        gym.spaces.Box(-1, 1, (2,)),
        NetConfig(),
        PolicyConfig(share_encoders=False),
    )
    parameters = policy.trained_parameters()
    assert {id(p) for p in parameters} == {id(p) for p in policy.parameters()}
    assert len(parameters) == len(list(policy.parameters()))
    assert parameters[0] is policy.action_head.distribution.log_std
    assert parameters[1] is next(policy.trunks[0].parameters())
    assert parameters[-1] is policy.value_head.layers[-1].bias
