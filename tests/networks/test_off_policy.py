"""Tests of `recurrent_rl.networks.off_policy`: Q networks, actors, critics, and copies of them."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from recurrent_rl import DDPG, DQN, MADDPG, SAC
from recurrent_rl.networks.configs import HeadConfig
from recurrent_rl.networks.off_policy import QHead, copied, move_towards

SEEN = gym.spaces.Box(-1.0, 1.0, (3,))
BOX = gym.spaces.Box(-1.0, 1.0, (2,))


class TestQHead:
    def test_dueling_values_by_hand(self) -> None:
        head = QHead(2, 3, HeadConfig(hidden_size=()), dueling=True)
        with torch.no_grad():
            head.layers[-1].weight.copy_(torch.tensor([[1.0, 0], [0, 2], [1, 1]]))
            head.layers[-1].bias.copy_(torch.tensor([0.0, 1, -4]))
            assert head.state_value is not None
            head.state_value[-1].weight.copy_(torch.tensor([[10.0, 0]]))
            head.state_value[-1].bias.fill_(0.5)
            # V = 30.5; A = 3, 9, 3, of mean 5.
            assert head(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([28.5, 34.5, 28.5])

    def test_without_dueling_they_are_the_layers(self) -> None:
        head = QHead(2, 3, HeadConfig(), dueling=False)
        x = torch.randn(5, 4, 2)
        assert torch.equal(head(x), head.layers(x))
        assert head.state_value is None


class TestCopies:
    def test_a_copy_is_apart_and_without_gradients(self) -> None:
        whole = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        twin = copied(whole, [whole[0]])
        assert twin[0] is whole[0]
        assert all(p.requires_grad for p in whole.parameters())
        assert not any(p.requires_grad for p in twin[1].parameters())
        before = twin[1].weight.clone()
        with torch.no_grad():
            whole[1].weight += 1
        assert torch.equal(twin[1].weight, before)

    @pytest.mark.parametrize("tau", [0.1, 1.0])
    def test_move_towards(self, tau: float) -> None:
        old, new = [torch.zeros(3), torch.ones(2)], [torch.full((3,), 2.0), torch.full((2,), 3.0)]
        move_towards(old, new, tau)
        assert old[0].tolist() == pytest.approx([2 * tau] * 3)
        assert old[1].tolist() == pytest.approx([1 + 2 * tau] * 2)
        assert new[0].tolist() == [2] * 3


class TestMemory:
    """Of actor and critic: whose is carried while acting, and what is computed."""

    @pytest.mark.parametrize(
        ("kind", "options", "trunks", "tensors"),
        [
            (DQN, {}, 1, 2),
            (SAC, {}, 2, 4),
            (SAC, {"share_encoders": True}, 1, 2),
            (DDPG, {"recurrent": False}, 2, 0),
        ],
    )
    def test_trunks_and_states(self, kind: Any, options: Any, trunks: int, tensors: int) -> None:
        space = gym.spaces.Discrete(3) if kind is DQN else BOX
        agent = kind(SEEN, space, seed=0, **options)
        assert len(agent.policy.trunks) == trunks
        assert len(agent.get_initial_hidden_state(2).tensors) == tensors

    def test_a_critic_without_memory_is_run_only_when_asked(self) -> None:
        agent = DDPG(SEEN, BOX, recurrent=False, seed=0)
        encoder, calls = agent.policy.critic_trunk.encoder, []
        step = encoder.step
        encoder.step = lambda *given: calls.append(1) or step(*given)
        state = agent.policy.initial_state(1)
        for judge in (False, True):
            agent.policy.act(torch.zeros(1, 3), None, state, None, judge=judge)
        assert len(calls) == 1


class TestCentralCritic:
    def make(self) -> MADDPG:
        seen = {"a_0": SEEN, "a_1": SEEN, "b_0": gym.spaces.Box(-1.0, 1.0, (4,))}
        taken = {"a_0": BOX, "a_1": BOX, "b_0": gym.spaces.Discrete(5)}
        net = {"encoder_config": {"hidden_size": [6], "hidden_state_size": 7}}
        return MADDPG(seen, taken, None, net, seed=0, critics=2)

    def test_heads_read_what_all_agents_see_and_do(self) -> None:
        agent = self.make()
        # Features, action, and whether it is there: of each.
        width = 2 * (7 + 2 + 1) + (7 + 5 + 1)
        for heads in agent.critic.heads.values():
            assert [head[0].in_features for head in heads] == [width] * 2

    def test_each_group_has_heads_of_its_own(self) -> None:
        agent = self.make()
        a, b = (set(map(id, heads.parameters())) for heads in agent.critic.heads.values())
        assert not a & b

    def test_the_target_of_a_critic_is_a_copy(self) -> None:
        agent = self.make()
        twin = agent.learner.target.module
        assert twin.trunk("a").preprocessor is agent.critic.trunk("a").preprocessor
        ours, theirs = (dict(x.named_parameters()) for x in (agent.critic, twin))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[n], theirs[n]) for n in ours)
        assert not any(p.requires_grad for p in theirs.values())

    def test_a_team_has_no_value_of_one_agents_action(self) -> None:
        """It depends on what everybody does."""
        agent = self.make()
        obs = {n: s.sample()[None] for n, s in agent.observation_spaces.items()}
        out = agent.get_action(obs, agent.get_initial_hidden_state(1))
        assert all(np.isnan(value).all() for value in out.value.values())
        assert all(np.isfinite(x).all() for x in out.log_prob.values())
        assert all(np.isfinite(x).all() for x in out.entropy.values())
