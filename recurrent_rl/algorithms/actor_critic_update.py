"""Updates of critics that judge actors: what DDPG, TD3, SAC, MADDPG and MATD3 have in common.

A critic sees what all agents of a team saw and did; of an agent alone that is its own. So DDPG is
MADDPG with one agent, and TD3 is MATD3 with one.

Letters: P places, L of them trained on, B windows, A agents of a group, R = B * A rows, M
decisions, Q heads of a critic, Z what stands for an agent.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recurrent_rl.algorithms.decisions import LEAST_PRIORITY, Known, known_decisions, priorities
from recurrent_rl.algorithms.learner import Learner
from recurrent_rl.algorithms.network import Network
from recurrent_rl.algorithms.off_policy_configs import ActorCriticConfig
from recurrent_rl.algorithms.replayed import Replayed, joint, replayed
from recurrent_rl.algorithms.target import Target
from recurrent_rl.buffers.replay import Windows
from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.configs import HeadConfig
from recurrent_rl.networks.off_policy import CentralCritic, OffPolicyActor

ByGroup = dict[str, Tensor]
Record = dict[str, Tensor]  # what is noted of a group in an update


@dataclass(frozen=True)
class Batch:
    """What an update learns from.

    Attributes:
        size: B.
        replays: windows to run networks over, by group.
        known: decisions whose outcome is known, by group.
        shares: of all ranks' decisions, by group; 0 where nobody learns of it.

    """

    size: int
    replays: dict[str, Replayed]
    known: dict[str, Known]
    shares: dict[str, float]

    def span(self) -> tuple[int, int]:
        """Return the first place whose value any decision asks for, and the one behind the last."""
        spans = [
            each.span(self.replays[name].rows)
            for name, each in self.known.items()
            if len(each.place)
        ]
        return min(first for first, _ in spans), max(end for _, end in spans)


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
        self._of_critic = Network(
            parts, sizes, self.device, config.adam_eps, compiled=config.compiled
        )
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
        return Network(
            parts, self._step_sizes(config), self.device, config.adam_eps, compiled=config.compiled
        )

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
    def update(self, windows: Windows) -> tuple[dict[str, Record], Tensor]:
        batch = self._batch(windows)
        records: dict[str, Record] = {name: {} for name in batch.replays}
        if not any(batch.shares.values()):
            return records, torch.full((batch.size,), LEAST_PRIORITY)
        acts = (self.updates + 1) % self.config.policy_freq == 0
        acting = self._actor_features(batch, acts)
        targets = self._targets(batch, acting)
        features = {
            name: replay.features(self.critic.trunk(name), 0, replay.length)
            for name, replay in batch.replays.items()
        }
        order = self._learn_critic(batch, features, targets, records)
        if acts:
            seen = {name: each.detach() for name, each in features.items()}
            self._learn_actors(batch, seen, acting, records)
            for _, target in self.targets():
                target.move(self.config.tau)
        self.updates += 1  # only now: an update that fails is none
        return records, order

    def _batch(self, windows: Windows) -> Batch:
        config, replays = self.config, replayed(windows, self.policies, self.device)
        known = {
            name: known_decisions(
                replay.targets(config.gamma, config.n_step),
                windows.weight,
                replay.windows.agents,
                config.reward_scale,
                self.device,
            )
            for name, replay in replays.items()
        }
        shares = self.shares(*(len(each.place) for each in known.values()))
        return Batch(len(windows), replays, known, dict(zip(known, shares, strict=True)))

    def _actor_features(self, batch: Batch, acts: bool) -> ByGroup:
        """Return actors' features that targets and losses share, with gradients if ``acts``.

        Of groups that are in it those of all places, [P, R, H]; of no group unless it is said.
        """
        return {}

    def _learn_critic(
        self, batch: Batch, features: ByGroup, targets: ByGroup, records: dict[str, Record]
    ) -> Tensor:
        """Take a step with the critic; return the windows' priorities, [B]."""
        blocks = self._taken_blocks(batch, features)
        total, order = None, torch.zeros(batch.size)
        for i, (name, replay) in enumerate(batch.replays.items()):
            known, share = batch.known[name], batch.shares[name]
            if not share:
                continue
            values = self.critic.values(name, known.pick(self._join(batch, blocks, blocks, i)))
            if self.critic.of_choices:
                action = known.pick(self._stored(replay))[:, None]
                values = [value.gather(-1, action).squeeze(-1) for value in values]
            errors = torch.stack([value - targets[name] for value in values])  # [Q, M]
            loss = (known.weight * errors.square()).sum() / errors.shape[1]
            total = loss * share if total is None else total + loss * share
            worst, agents = errors.abs().amax(0), replay.windows.agents
            mixed = priorities(worst, known.row, agents, batch.size, self.config.priority_mix)
            order = torch.maximum(order, mixed)
            value = values[0].detach().mean()
            records[name] |= {"critic_loss": loss.detach(), "value": value}
        assert total is not None
        norm = self._of_critic.step(total, self.world)
        for record in records.values():
            record["critic_grad_norm"] = norm
        return order

    @abstractmethod
    def _targets(self, batch: Batch, acting: ByGroup) -> ByGroup:
        """Return what the decisions' values are to become, [M] by group."""

    @abstractmethod
    def _learn_actors(
        self, batch: Batch, features: ByGroup, acting: ByGroup, records: dict[str, Record]
    ) -> None:
        """Take a step with the actor of each group of which decisions are known.

        Args:
            batch: of all groups.
            features: the critic's, [L, R, H] by group.
            acting: from ``_actor_features``.
            records: by group, to note things in.

        """

    def _params(
        self, replay: Replayed, head: nn.Module, features: Tensor, first: int = 0
    ) -> Tensor:
        """Return what an actor's head gives at some places, [P, R, *]."""
        mask = replay.windows.action_mask
        if mask is not None:
            mask = replay.part(mask, first, first + len(features)).to(self.device)
        params: Tensor = head(features, mask)
        return params

    # --- what critics see -------------------------------------------------------------------

    def _stored(self, replay: Replayed) -> Tensor:
        """Return the actions that were taken, [L, R, *shape]."""
        return replay.part(replay.windows.action, 0, replay.length).to(self.device)

    def _taken(self, name: str, replay: Replayed) -> Tensor | None:
        """Return the actions that were taken as critics see them, [L, R, F]."""
        if self.critic.of_choices:
            return None
        return self.critic.actions[name].taken(self._stored(replay))

    def _block(
        self, replay: Replayed, features: Tensor, action: Tensor | None, begin: int = 0
    ) -> Tensor:
        """Return what stands for each agent of a group, [P, R, Z]: zeros if it is not there.

        Args:
            replay: the group's.
            features: the critic's at places from ``begin`` on, [P, R, H].
            action: there, as critics see it, [P, R, F]; None where they do not.
            begin: counted from the first place trained on.

        """
        parts = [features] if action is None else [features, action]
        if self.critic.alone:
            return torch.cat(parts, -1) if len(parts) > 1 else features
        exists = replay.part(replay.windows.exists, begin, begin + len(features))
        there = exists.to(self.device)[..., None]
        return torch.cat([*parts, there.to(features.dtype)], -1).masked_fill(~there, 0)

    def _taken_blocks(self, batch: Batch, features: ByGroup) -> list[Tensor]:
        """Return what stands for each group's agents, who did what they did, [L, R, Z]."""
        return [
            self._block(replay, features[name], self._taken(name, replay))
            for name, replay in batch.replays.items()
        ]

    def _join(self, batch: Batch, own: list[Tensor], others: list[Tensor], group: int) -> Tensor:
        """Return what the heads of the group of a number read, [P, R, *]; see ``joint``."""
        return own[0] if self.critic.alone else joint(own, others, group, batch.size)
