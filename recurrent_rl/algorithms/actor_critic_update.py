"""Updates of actors and the critics that judge them: DDPG, TD3, SAC, MADDPG and MATD3.

A critic sees what all agents of a team saw and did; of an agent alone that is its own. So DDPG is
MADDPG with one agent, and TD3 is MATD3 with one.

Letters: P places, L of them trained on, B windows, A agents of a group, R = B * A rows, M
decisions, Q heads of a critic, n choices, Z what stands for an agent.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.algorithms.learner import (
    LEAST_PRIORITY,
    Known,
    Learner,
    Network,
    Target,
    known_decisions,
    priorities,
    replayed,
)
from recurrent_rl.algorithms.off_policy_configs import ActorCriticConfig, DDPGConfig, SACConfig
from recurrent_rl.algorithms.replayed import Replayed, joint
from recurrent_rl.buffers.replay import Windows
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.configs import HeadConfig
from recurrent_rl.networks.distributions import DiagonalGaussian
from recurrent_rl.networks.exploring import NoisyBox, allowed
from recurrent_rl.networks.off_policy import CentralCritic, OffPolicyActor
from recurrent_rl.spaces.actions import BoxCodec

Replays = dict[str, Replayed]


class ActorCriticLearner(Learner):
    """What learns actors by critics.

    The actor's loss reads the critic's features as they were before the critic's step, which spares
    a pass over the sequences; the heads that judge are those after it.

    Attributes:
        policies: by group.
        configs: hyper-parameters by group; the critic's are those of the first.
        critic: of all groups.
        target: its slowly moving copy.
        generator: of noise, on the CPU.

    """

    def __init__(
        self,
        policies: Mapping[str, OffPolicyActor],
        configs: Mapping[str, ActorCriticConfig],
        critic: CentralCritic,
        generator: torch.Generator,
    ) -> None:
        """Learn for all groups of a team."""
        self.policies, self.configs = dict(policies), dict(configs)
        self.critic, self.generator = critic, generator
        self.device = next(iter(policies.values())).device
        config = self.config
        trunks, heads = list(critic.trunks.values()), list(critic.heads.values())
        parts: dict[str, list[nn.Module]] = {"lr_critic": [*trunks, *heads]}
        if config.lr_encoder is not None:
            parts = {"lr_encoder": trunks, "lr_critic": heads}
        sizes = self._step_sizes(config)
        self._of_critic = Network(parts, sizes, self.device, config.adam_eps)
        self._of_actors = {
            name: self._actor_network(policy, self.configs[name])
            for name, policy in policies.items()
        }
        self.target = Target(critic, self._preprocessors())
        self.configure()

    @property
    def config(self) -> ActorCriticConfig:
        """Of the critic."""
        return next(iter(self.configs.values()))

    def _preprocessors(self) -> list[nn.Module]:
        return [policy.preprocessor for policy in self.policies.values()]

    def _actor_network(self, policy: OffPolicyActor, config: ActorCriticConfig) -> Network:
        trunks: list[nn.Module] = [] if policy.shares_trunk else [policy.actor_trunk]
        head: list[nn.Module] = [policy.action_head]
        parts = {"lr_actor": [*trunks, *head]}
        if config.lr_encoder is not None:
            parts = {"lr_encoder": trunks, "lr_actor": head}
        return Network(parts, self._step_sizes(config), self.device, config.adam_eps)

    @staticmethod
    def _step_sizes(config: ActorCriticConfig) -> dict[str, float]:
        encoder = config.lr_encoder
        return {
            "lr_actor": config.lr_actor,
            "lr_critic": config.lr_critic,
            "lr_encoder": 0.0 if encoder is None else encoder,
        }

    def configure(self) -> None:
        for config, network in (
            (self.config, self._of_critic),
            *((self.configs[name], network) for name, network in self._of_actors.items()),
        ):
            network.set_step_sizes(self._step_sizes(config), self.share)
            norm = config.max_grad_norm
            network.max_norm = math.inf if norm is None else norm

    def acting(self) -> Iterator[Policy]:
        yield from self.policies.values()

    def reconfigure(self, group: str, config: ActorCriticConfig) -> None:
        self.configs[group] = config
        self.configure()

    def successor(
        self, group: str, policy: Policy, heads: HeadConfig, generator: torch.Generator
    ) -> "ActorCriticLearner":
        assert isinstance(policy, OffPolicyActor)
        policies = {**self.policies, group: policy}
        with torch.random.fork_rng(devices=[]):  # leave the caller's global random state alone
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            critic = self.critic.like(policies, {**self.critic.shapes, group: heads})
        if critic.alone:
            policy.judged_by(critic)
        return type(self)(policies, self.configs, critic.to(self.device), self.generator)

    def networks(self) -> Iterator[tuple[str, Network]]:
        yield "critic", self._of_critic
        for name, network in self._of_actors.items():
            yield f"actor {name}", network

    def targets(self) -> Iterator[tuple[str, Target]]:
        yield "critic", self.target

    def to_data(self) -> dict[str, Any]:
        heads = self.critic.heads
        frozen = [name for name, p in heads.named_parameters() if not p.requires_grad]
        return {**super().to_data(), "heads": heads.state_dict(), "frozen_heads": frozen}

    def load(self, data: Mapping[str, Any]) -> None:
        self.critic.heads.load_state_dict(data["heads"])
        for name, parameter in self.critic.heads.named_parameters():
            parameter.requires_grad_(name not in data["frozen_heads"])
        super().load(data)

    # --- the update -------------------------------------------------------------------------

    @torch.enable_grad()  # whatever the caller has set
    def update(self, windows: Windows) -> tuple[dict[str, dict[str, Tensor]], Tensor]:
        replays = replayed(windows, self.policies, self.device)
        known = {
            name: known_decisions(
                replay.targets(self.config.gamma, self.config.n_step),
                windows.weight,
                replay.windows.agents,
                self.config.reward_scale,
                self.device,
            )
            for name, replay in replays.items()
        }
        records: dict[str, dict[str, Tensor]] = {name: {} for name in replays}
        if not any(len(each.place) for each in known.values()):
            return records, torch.full((len(windows),), LEAST_PRIORITY)
        acts = (self.updates + 1) % self.config.policy_freq == 0
        acting = self._actor_features(replays, acts)
        targets = self._targets(replays, known, acting)
        features = {
            name: replay.features(self.critic.trunk(name), 0, replay.length)
            for name, replay in replays.items()
        }
        order = self._learn_critic(windows, replays, known, features, targets, records)
        if acts:
            seen = {name: each.detach() for name, each in features.items()}
            for name in replays:
                if len(known[name].place):
                    self._learn_actor(name, replays, known[name], seen, acting, records[name])
            for _, target in self.targets():
                target.move(self.config.tau)
        self.updates += 1  # only now: an update that fails is none
        return records, order

    def _actor_features(self, replays: Replays, acts: bool) -> dict[str, Tensor]:
        """Return the actors' features of all places, with gradients if ``acts``."""
        return {}

    def _learn_critic(
        self,
        windows: Windows,
        replays: Replays,
        known: dict[str, Known],
        features: dict[str, Tensor],
        targets: dict[str, Tensor],
        records: dict[str, dict[str, Tensor]],
    ) -> Tensor:
        """Take a step with the critic; return the windows' priorities."""
        blocks = [
            self._block(name, replay, features[name], self._taken(name, replay))
            for name, replay in replays.items()
        ]
        total, order = None, torch.zeros(len(windows))
        for i, (name, replay) in enumerate(replays.items()):
            each = known[name]
            if not len(each.place):
                continue
            values = self.critic.values(name, each.pick(self._join(blocks, blocks, i, windows)))
            if self.critic.of_choices:
                action = each.pick(self._stored(replay))[:, None]
                values = [value.gather(-1, action).squeeze(-1) for value in values]
            errors = torch.stack([value - targets[name] for value in values])  # [Q, M]
            loss = (each.weight * errors.square()).sum() / errors.shape[1]
            total = loss if total is None else total + loss
            agents = replay.windows.agents
            worst = errors.abs().amax(0)
            mixed = priorities(worst, each.row, agents, len(windows), self.config.priority_mix)
            order = torch.maximum(order, mixed)
            value = values[0].detach().mean()
            records[name] |= {"critic_loss": loss.detach(), "value": value}
        assert total is not None
        norm = self._of_critic.step(total)
        for record in records.values():
            record["critic_grad_norm"] = norm
        return order

    @abstractmethod
    def _targets(
        self, replays: Replays, known: dict[str, Known], acting: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what the decisions' values are to become, [M] by group."""

    @abstractmethod
    def _learn_actor(
        self,
        name: str,
        replays: Replays,
        known: Known,
        features: dict[str, Tensor],
        acting: dict[str, Tensor],
        record: dict[str, Tensor],
    ) -> None:
        """Take a step with one group's actor.

        Args:
            name: of the group.
            replays: of all groups.
            known: the group's decisions.
            features: the critic's, [L, R, H] by group.
            acting: the actors', by group.
            record: to note things in.

        """

    # --- what critics see -------------------------------------------------------------------

    def _stored(self, replay: Replayed) -> Tensor:
        return replay.part(replay.windows.action, 0, replay.length).to(self.device)

    def _taken(self, name: str, replay: Replayed) -> Tensor | None:
        """Return the actions that were taken as critics see them, [L, R, F]."""
        if self.critic.of_choices:
            return None
        return self.critic.actions[name].taken(self._stored(replay))

    def _block(
        self, name: str, replay: Replayed, features: Tensor, action: Tensor | None, begin: int = 0
    ) -> Tensor:
        """Return what stands for each agent of a group, [P, R, Z]: zeros if it is not there."""
        parts = [features] if action is None else [features, action]
        if self.critic.alone:
            return torch.cat(parts, -1) if len(parts) > 1 else features
        exists = replay.part(replay.windows.exists, begin, begin + len(features))
        there = exists.to(self.device)[..., None]
        return torch.cat([*parts, there.to(features.dtype)], -1).masked_fill(~there, 0)

    def _join(
        self, own: list[Tensor], others: list[Tensor], group: int, windows: Windows | int
    ) -> Tensor:
        if self.critic.alone:
            return own[0]
        return joint(own, others, group, windows if isinstance(windows, int) else len(windows))

    @staticmethod
    def _span(replays: Replays, known: dict[str, Known]) -> tuple[int, int]:
        """Return the first place whose value any decision asks for, and the one behind the last."""
        spans = [
            (
                int(each.place.min()) // replays[name].rows,
                int(each.place.max()) // replays[name].rows,
            )
            for name, each in known.items()
            if len(each.place)
        ]
        return min(first for first, _ in spans), max(last for _, last in spans) + 1


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
    def _targets(
        self, replays: Replays, known: dict[str, Known], acting: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        first, end = self._span(replays, known)
        critic: CentralCritic = self.target.module
        blocks = []
        for name, replay in replays.items():
            features = replay.features(critic.trunk(name), first, end)
            action = self._target_action(name, replay, features, first, end)
            blocks.append(self._block(name, replay, features, action, first))
        found = {}
        for i, (name, replay) in enumerate(replays.items()):
            each = known[name]
            place = each.place - first * replay.rows
            windows = replay.rows // replay.windows.agents
            seen = self._join(blocks, blocks, i, windows).flatten(0, 1).index_select(0, place)
            value = torch.stack(critic.values(name, seen)).amin(0) if len(place) else each.reward
            found[name] = each.reward + each.discount * value
        return found

    def _target_action(
        self, name: str, replay: Replayed, critic_features: Tensor, first: int, end: int
    ) -> Tensor:
        """Return what the target actor would do at some places, [P, R, F]."""
        config, seen = self.configs[name], self.critic.actions[name]
        trunk, head = self._actors[name].module
        if self.policies[name].shares_trunk:
            features = critic_features
        else:
            features = replay.features(trunk, first, end)
        params = head(features, self._mask(replay, first, end))
        distribution = self.policies[name].distribution
        if not isinstance(distribution, NoisyBox):
            noise = None
            if config.policy_noise > 0:  # choices are sampled
                drawn = distribution.noise(tuple(params.shape[:2]), self.generator)
                noise = drawn.to(self.device)
            return seen.proposed(params, noise)
        action = seen.proposed(params)
        if config.policy_noise > 0:
            noise = torch.randn(action.shape, generator=self.generator).to(self.device)
            noise = (config.policy_noise * noise).clamp(-config.noise_clip, config.noise_clip)
            action = action + noise
            action = action.clamp(-1, 1) if distribution.squash else action
        return action

    def _mask(self, replay: Replayed, first: int, end: int) -> Tensor | None:
        mask = replay.windows.action_mask
        return None if mask is None else replay.part(mask, first, end).to(self.device)

    def _learn_actor(
        self,
        name: str,
        replays: Replays,
        known: Known,
        features: dict[str, Tensor],
        acting: dict[str, Tensor],
        record: dict[str, Tensor],
    ) -> None:
        policy, replay = self.policies[name], replays[name]
        if policy.shares_trunk:
            seen = features[name]
        else:
            seen = replay.features(policy.actor_trunk, 0, replay.length)
        params = policy.action_head(seen, self._mask(replay, 0, replay.length))
        noise = None
        if not isinstance(policy.distribution, NoisyBox):
            drawn = policy.distribution.noise(tuple(params.shape[:2]), self.generator)
            noise = drawn.to(self.device)
        action = self.critic.actions[name].proposed(params, noise)
        leaf = action.detach().requires_grad_()
        blocks = [
            self._block(other, each, features[other], self._taken(other, each))
            for other, each in replays.items()
        ]
        group = list(replays).index(name)
        own = list(blocks)
        own[group] = self._block(name, replay, features[name], leaf)
        windows = replay.rows // replay.windows.agents
        joined = known.pick(self._join(own, blocks, group, windows))
        with self.critic.judging():
            value = self.critic.values(name, joined, 1)[0].mean()
        (slope,) = torch.autograd.grad(value, leaf)
        surrogate = -(slope * action).sum()
        if (weight := self.configs[name].action_reg) > 0:
            given = known.pick(params)
            surrogate = surrogate + weight * given[allowed(given)].square().mean()
        norm = self._of_actors[name].step(surrogate)
        record |= {"actor_loss": -value.detach(), "actor_grad_norm": norm}


def _actor_of(policy: OffPolicyActor) -> nn.ModuleList:
    """Return what a target actor is a copy of: trunk and head."""
    return nn.ModuleList([policy.actor_trunk, policy.action_head])


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
        self._of_alpha = Network({"lr_alpha": [holder]}, sizes, self.device, config.adam_eps)
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

    def _actor_features(self, replays: Replays, acts: bool) -> dict[str, Tensor]:
        policy, replay = self._policy, replays[self.name]
        if policy.shares_trunk or not policy.actor_trunk.shapes:
            return {}
        with torch.set_grad_enabled(acts):  # one pass serves the actor's loss and the targets
            return {self.name: replay.features(policy.actor_trunk)}

    def _features(
        self, replay: Replayed, acting: dict[str, Tensor], first: int, end: int
    ) -> Tensor:
        if self.name in acting:
            return acting[self.name][first:end]
        return replay.features(self._policy.actor_trunk, first, end)

    def _params(self, replay: Replayed, features: Tensor, first: int, end: int) -> Tensor:
        mask = replay.windows.action_mask
        allowed = None if mask is None else replay.part(mask, first, end).to(self.device)
        params: Tensor = self._policy.action_head(features, allowed)
        return params

    def _sampled(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return Box actions with a gradient and their log-densities in (-1, 1)."""
        distribution = self._policy.distribution
        noise = distribution.noise(tuple(params.shape[:-1]), self.generator).to(self.device)
        action = distribution.sample(params, noise)
        return action, distribution.log_prob(params, action) + self._unit

    @torch.no_grad()
    def _targets(
        self, replays: Replays, known: dict[str, Known], acting: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        first, end = self._span(replays, known)
        replay, each = replays[self.name], known[self.name]
        critic: CentralCritic = self.target.module
        place = each.place - first * replay.rows
        params = self._params(replay, self._features(replay, acting, first, end), first, end)
        params = params.flatten(0, 1).index_select(0, place)
        seen = (
            replay.features(critic.trunk(self.name), first, end)
            .flatten(0, 1)
            .index_select(0, place)
        )
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
        return {self.name: each.reward + each.discount * value}

    def _learn_actor(
        self,
        name: str,
        replays: Replays,
        known: Known,
        features: dict[str, Tensor],
        acting: dict[str, Tensor],
        record: dict[str, Tensor],
    ) -> None:
        replay, length = replays[name], replays[name].length
        if self._policy.shares_trunk:
            seen = features[name]
        else:
            seen = self._features(replay, acting, 0, length)
        params = known.pick(self._params(replay, seen, 0, length))
        judged = known.pick(features[name])
        alpha = self.alpha
        if self.critic.of_choices:
            with torch.no_grad():
                least = torch.stack(self.critic.values(name, judged)).amin(0)
            probability = params.exp()
            each = torch.where(probability > 0, alpha * params - least, 0)
            loss = (probability * each).sum(-1).mean()
            entropy = -torch.where(probability > 0, probability * params, 0).sum(-1).detach()
            surrogate = loss
        else:
            action, log_prob = self._sampled(params)
            shown = self.critic.actions[name].taken(action)
            leaf = shown.detach().requires_grad_()
            with self.critic.judging():
                values = self.critic.values(name, torch.cat((judged, leaf), -1))
            value = torch.stack(values).amin(0).mean()
            (slope,) = torch.autograd.grad(value, leaf)
            surrogate = (alpha * log_prob).mean() - (slope * shown).sum()
            loss = (alpha * log_prob.detach()).mean() - value.detach()
            entropy = -log_prob.detach()
        norm = self._of_actors[name].step(surrogate)
        record |= {"actor_loss": loss.detach(), "actor_grad_norm": norm, "entropy": entropy.mean()}
        record["temperature"] = alpha
        if self.configs[name].ent_coef is None:
            aim = self._target_entropy(params)
            self._of_alpha.step(self.log_alpha * (entropy - aim).mean())

    def _target_entropy(self, params: Tensor) -> Tensor | float:
        """Return what the entropy is to be, one for all or [M]."""
        given = self.configs[self.name].target_entropy
        if given is not None:
            return given
        if self.critic.of_choices:
            allowed = (params > torch.finfo(params.dtype).min / 4).sum(-1)
            return 0.89 * allowed.to(params.dtype).log()
        distribution = self._policy.distribution
        assert isinstance(distribution, DiagonalGaussian)
        free = distribution.free
        return -float(distribution.size if free is None else len(free))
