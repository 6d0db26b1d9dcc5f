"""Updates of actors that choose one action: DDPG, TD3, MADDPG and MATD3.

Letters: P places, R rows, F width of an action as critics see it.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.algorithms.actor_critic_update import ActorCriticLearner, Batch, ByGroup, Record
from recurrent_rl.algorithms.off_policy_configs import DDPGConfig
from recurrent_rl.algorithms.replayed import Replayed
from recurrent_rl.algorithms.target import Target
from recurrent_rl.networks.exploring import NoisyBox, allowed
from recurrent_rl.networks.off_policy import CentralCritic, OffPolicyActor


class DPGLearner(ActorCriticLearner):
    """Learns deterministic actors: by one critic (DDPG, MADDPG) or the lesser of two (TD3, MATD3).

    Sources: Lillicrap et al. 2016, "Continuous control with deep reinforcement learning"; Fujimoto
    et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods"; Lowe et al.
    2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments"; Ackermann et
    al. 2019, "Reducing Overestimation Bias in Multi-Agent Domains Using Double Centralized
    Critics".
    """

    configs: dict[str, DDPGConfig]  # type: ignore[assignment]

    def __init__(self, *args: Any, **options: Any) -> None:
        """See ``ActorCriticLearner``."""
        super().__init__(*args, **options)
        self._actors = {
            name: Target(_actor_of(policy), [policy.preprocessor])
            for name, policy in self.policies.items()
        }

    def targets(self) -> Iterator[tuple[str, Target]]:
        yield from super().targets()
        for name, target in self._actors.items():
            yield f"actor {name}", target

    @torch.no_grad()
    def _targets(self, batch: Batch, acting: ByGroup) -> ByGroup:
        first, end = batch.span()
        critic: CentralCritic = self.target.module
        blocks = []
        for name, replay in batch.replays.items():
            features = replay.features(critic.trunk(name), first, end)
            action = self._target_action(name, replay, features, first)
            blocks.append(self._block(replay, features, action, first))
        found = {}
        for i, (name, replay) in enumerate(batch.replays.items()):
            known = batch.known[name]
            place = known.place - first * replay.rows
            seen = self._join(batch, blocks, blocks, i).flatten(0, 1).index_select(0, place)
            value = torch.stack(critic.values(name, seen)).amin(0) if len(place) else known.reward
            found[name] = known.reward + known.discount * value
        return found

    def _target_action(
        self, name: str, replay: Replayed, critic_features: Tensor, first: int
    ) -> Tensor:
        """Return what the target actor would do at places from ``first`` on, [P, R, F]."""
        config, seen = self.configs[name], self.critic.actions[name]
        trunk, head = self._actors[name].module
        features = critic_features
        if not self.policies[name].shares_trunk:
            features = replay.features(trunk, first, first + len(critic_features))
        params = self._params(replay, head, features, first)
        distribution = self.policies[name].distribution
        if not isinstance(distribution, NoisyBox):  # choices are sampled
            noise = self._noise(name, params) if config.policy_noise > 0 else None
            return seen.proposed(params, noise)
        action = seen.proposed(params)
        if config.policy_noise > 0:
            noise = torch.randn(action.shape, generator=self.generator).to(self.device)
            noise = (config.policy_noise * noise).clamp(-config.noise_clip, config.noise_clip)
            action = action + noise
            action = action.clamp(-1, 1) if distribution.squash else action
        return action

    def _noise(self, name: str, params: Tensor) -> Tensor:
        """Return the distribution's noise for parameters [P, R, *]."""
        distribution = self.policies[name].distribution
        return distribution.noise(tuple(params.shape[:2]), self.generator).to(self.device)

    def _learn_actors(
        self, batch: Batch, features: ByGroup, acting: ByGroup, records: dict[str, Record]
    ) -> None:
        # All of them before the first one learns, so that the order of groups does not matter.
        proposed = {
            name: self._proposed(name, replay, features[name])
            for name, replay in batch.replays.items()
        }
        for i, (name, known) in enumerate(batch.known.items()):
            if not (share := batch.shares[name]):
                continue
            (action, params), config = proposed[name], self.configs[name]
            leaf = action.detach().requires_grad_()
            others = self._taken_blocks(batch, features)
            if config.others == "present":
                others = [
                    self._block(batch.replays[each], features[each], chosen.detach())
                    for each, (chosen, _) in proposed.items()
                ]
            own = [self._block(batch.replays[name], features[name], leaf)] * len(others)
            with self.critic.judging():
                joined = known.pick(self._join(batch, own, others, i))
                value = self.critic.values(name, joined, 1)[0].mean()
            (slope,) = torch.autograd.grad(value, leaf)
            surrogate = -(slope * action).sum()
            if config.action_reg > 0:
                given = known.pick(params)
                surrogate = surrogate + config.action_reg * given[allowed(given)].square().mean()
            norm = self._of_actors[name].step(surrogate * share, self.world)
            records[name] |= {"actor_loss": -value.detach(), "actor_grad_norm": norm}

    def _proposed(self, name: str, replay: Replayed, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a group's actor would do, [L, R, F], and what its head gives for it.

        Args:
            name: of the group.
            replay: the group's.
            features: the critic's, [L, R, H].

        """
        policy = self.policies[name]
        if not policy.shares_trunk:
            features = replay.features(policy.actor_trunk, 0, replay.length)
        params = self._params(replay, policy.action_head, features)
        is_box = isinstance(policy.distribution, NoisyBox)
        noise = None if is_box else self._noise(name, params)
        return self.critic.actions[name].proposed(params, noise), params


def _actor_of(policy: OffPolicyActor) -> nn.ModuleList:
    """Return what a target actor is a copy of: trunk and head."""
    return nn.ModuleList([policy.actor_trunk, policy.action_head])
