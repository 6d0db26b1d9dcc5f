"""Updates of actors that keep their entropy, and of the temperature: SAC.

Letters: P places, R rows, M decisions, n choices, H features.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.algorithms.actor_critic_update import ActorCriticLearner, Batch, ByGroup, Record
from recurrent_rl.algorithms.network import Network
from recurrent_rl.algorithms.off_policy_configs import SACConfig
from recurrent_rl.algorithms.replayed import Replayed
from recurrent_rl.networks.distributions import DiagonalGaussian
from recurrent_rl.networks.exploring import allowed
from recurrent_rl.networks.off_policy import CentralCritic
from recurrent_rl.spaces.actions import BoxCodec


class SACLearner(ActorCriticLearner):
    """Learns an actor of much entropy, with the temperature that keeps it so.

    Sources: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications"; of choices
    Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings".

    Attributes:
        log_alpha: logarithm of the temperature.

    """

    configs: dict[str, SACConfig]  # type: ignore[assignment]

    def __init__(self, *args: Any, **options: Any) -> None:
        """See ``ActorCriticLearner``."""
        self.log_alpha = nn.Parameter(torch.zeros(()))
        super().__init__(*args, **options)
        (self.name,) = self.policies
        config = self.configs[self.name]
        self._policy = self.policies[self.name]
        start = config.ent_coef_init if config.ent_coef is None else config.ent_coef
        self.log_alpha.data = torch.tensor(math.log(max(start, 1e-30)), device=self.device)
        self.log_alpha.requires_grad_(config.ent_coef is None)
        holder = nn.ParameterList([self.log_alpha])
        sizes = {"lr_alpha": config.lr_alpha or config.lr_critic}
        self._of_alpha = Network(
            {"lr_alpha": [holder]}, sizes, self.device, config.adam_eps, compiled=config.compiled
        )
        actions = self._policy.actions
        self._unit = 0.0  # from densities of the environment's actions to those in (-1, 1)
        if isinstance(actions, BoxCodec) and actions.squash:
            self._unit = float(actions.half_range[~actions.fixed].log().sum())

    def configure(self) -> None:
        super().configure()
        if hasattr(self, "_of_alpha"):
            config = self.configs[self.name]
            size = {"lr_alpha": config.lr_alpha or config.lr_critic}
            self._of_alpha.set_step_sizes(size, self.share)

    def networks(self) -> Iterator[tuple[str, Network]]:
        yield from super().networks()
        yield "temperature", self._of_alpha

    def to_data(self) -> dict[str, Any]:
        return {**super().to_data(), "log_alpha": self.log_alpha.detach()}

    def load(self, data: Mapping[str, Any]) -> None:
        with torch.no_grad():
            self.log_alpha.copy_(data["log_alpha"])
        super().load(data)

    @property
    def alpha(self) -> Tensor:
        """The temperature, without gradient."""
        if self.configs[self.name].ent_coef == 0:
            return self.log_alpha.new_zeros(())
        return self.log_alpha.detach().exp()

    def _actor_features(self, batch: Batch, acts: bool) -> ByGroup:
        policy, replay = self._policy, batch.replays[self.name]
        if policy.shares_trunk or not policy.actor_trunk.shapes:
            return {}
        with torch.set_grad_enabled(acts):  # one pass serves the actor's loss and the targets
            return {self.name: replay.features(policy.actor_trunk)}

    def _features(self, replay: Replayed, acting: ByGroup, first: int, end: int) -> Tensor:
        """Return what the actor's head reads at places ``first`` to ``end``, [P, R, H]."""
        if self.name in acting:
            return acting[self.name][first:end]
        return replay.features(self._policy.actor_trunk, first, end)

    def _sampled(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return Box actions with a gradient and their log-densities in (-1, 1)."""
        distribution = self._policy.distribution
        noise = distribution.noise(tuple(params.shape[:-1]), self.generator).to(self.device)
        action = distribution.sample(params, noise)
        return action, distribution.log_prob(params, action) + self._unit

    @torch.no_grad()
    def _targets(self, batch: Batch, acting: ByGroup) -> ByGroup:
        first, end = batch.span()
        replay, known = batch.replays[self.name], batch.known[self.name]
        critic: CentralCritic = self.target.module
        place = known.place - first * replay.rows

        def at(field: Tensor) -> Tensor:
            return field.flatten(0, 1).index_select(0, place)

        features = self._features(replay, acting, first, end)
        params = at(self._params(replay, self._policy.action_head, features, first))
        seen = at(replay.features(critic.trunk(self.name), first, end))
        if critic.of_choices:
            least = torch.stack(critic.values(self.name, seen)).amin(0)
            # Forbidden choices have no probability, and 0 times whatever they are worth is 0.
            probability = params.exp()
            soft = torch.where(probability > 0, least - self.alpha * params, 0)
            value = (probability * soft).sum(-1)
        else:
            action, log_prob = self._sampled(params)
            joined = torch.cat((seen, self.critic.actions[self.name].taken(action)), -1)
            least = torch.stack(critic.values(self.name, joined)).amin(0)
            value = least - self.alpha * log_prob
        return {self.name: known.reward + known.discount * value}

    def _learn_actors(
        self, batch: Batch, features: ByGroup, acting: ByGroup, records: dict[str, Record]
    ) -> None:
        name = self.name
        replay, known, seen = batch.replays[name], batch.known[name], features[name]
        if not self._policy.shares_trunk:
            seen = self._features(replay, acting, 0, replay.length)
        params = known.pick(self._params(replay, self._policy.action_head, seen))
        judged = known.pick(features[name])
        loss_of = self._loss_of_choices if self.critic.of_choices else self._loss_of_samples
        surrogate, loss, entropy = loss_of(params, judged)
        share = batch.shares[name]
        norm = self._of_actors[name].step(surrogate * share, self.world)
        record = {"actor_loss": loss, "actor_grad_norm": norm, "entropy": entropy.mean()}
        records[name] |= {**record, "temperature": self.alpha}
        if self.configs[name].ent_coef is None:
            aim = self._target_entropy(params)
            slope = (entropy - aim).mean()  # of log_alpha times that
            self._of_alpha.descend(slope * share, self.world)

    def _loss_of_choices(self, params: Tensor, judged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the actor's loss, by the exact expectation over n choices.

        Args:
            params: log-probabilities, [M, n].
            judged: what the critic's heads read of the same decisions, [M, H].

        Returns:
            what has the loss's gradient, the loss, entropies [M]; without gradients the last two.

        """
        with torch.no_grad():
            least = torch.stack(self.critic.values(self.name, judged)).amin(0)
        probability = params.exp()
        each = torch.where(probability > 0, self.alpha * params - least, 0)
        loss = (probability * each).sum(-1).mean()
        entropy = -torch.where(probability > 0, probability * params, 0).sum(-1).detach()
        return loss, loss.detach(), entropy

    def _loss_of_samples(self, params: Tensor, judged: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same of Box actions, by one sample of each decision."""
        action, log_prob = self._sampled(params)
        shown = self.critic.actions[self.name].taken(action)
        leaf = shown.detach().requires_grad_()
        with self.critic.judging():
            values = self.critic.values(self.name, torch.cat((judged, leaf), -1))
        value = torch.stack(values).amin(0).mean()
        (slope,) = torch.autograd.grad(value, leaf)
        surrogate = (self.alpha * log_prob).mean() - (slope * shown).sum()
        entropy = -log_prob.detach()
        return surrogate, -(self.alpha * entropy).mean() - value.detach(), entropy

    def _target_entropy(self, params: Tensor) -> Tensor | float:
        """Return what the entropy is to be, one for all or [M]."""
        given = self.configs[self.name].target_entropy
        if given is not None:
            return given
        if self.critic.of_choices:
            return 0.89 * allowed(params).sum(-1).to(params.dtype).log()
        distribution = self._policy.distribution
        assert isinstance(distribution, DiagonalGaussian)
        free = distribution.free
        return -float(distribution.size if free is None else len(free))
