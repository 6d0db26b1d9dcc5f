"""Policies and critics that learn from replayed sequences.

Letters: N rows, M steps that matter, H width of the features, F width of an action as an input, n
choices, Q heads of a critic, A agents in a team.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import gymnasium as gym
import torch
from torch import Tensor, nn

from recurrent_rl.functional.targets import unscaled
from recurrent_rl.networks.acting_policy import Acted, CustomNetworks, Policy
from recurrent_rl.networks.choose_distribution import check_no_deviation, make_distribution
from recurrent_rl.networks.configs import HeadConfig, NetConfig, PolicyConfig, QPolicyConfig
from recurrent_rl.networks.critic_actions import CriticActions
from recurrent_rl.networks.distributions import ActionDistribution
from recurrent_rl.networks.exploring import EpsilonGreedy, NoisyBox
from recurrent_rl.networks.heads import ActionHead, head_layers
from recurrent_rl.networks.layers import ResidualBlock, orthogonal_init
from recurrent_rl.networks.trunk import Trunk
from recurrent_rl.spaces.actions import BoxCodec


class QHead(nn.Module):
    """From features to the values of n actions.

    Attributes:
        layers: from features to the values, or to the advantages of a dueling head.
        state_value: of a dueling head: from features to V; None without.

    """

    def __init__(self, inputs: int, choices: int, config: HeadConfig, dueling: bool) -> None:
        """Args: H, n, shape of the layers, and whether values are V + A - mean A.

        Source: Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning",
        eq. 9.
        """
        super().__init__()
        self.layers = head_layers(inputs, config, choices)
        self.state_value = head_layers(inputs, config, 1) if dueling else None

    def forward(self, features: Tensor) -> Tensor:
        """[..., H] -> [..., n]."""
        values: Tensor = self.layers(features)
        if self.state_value is None:
            return values
        dueling: Tensor = self.state_value(features) + values - values.mean(-1, keepdim=True)
        return dueling


class QNetwork(Policy):
    """Values of all actions, and the policy that takes the best: DQN's, with memory R2D2's.

    Attributes, beside those of ``Policy``:
        q_head: from features to the values.
        rescaled: what it gives is squeezed, see ``functional.rescaled``.

    """

    one_trunk = True
    rescaled: bool = False

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net: NetConfig,
        config: PolicyConfig,
        identities: int = 0,
        networks: CustomNetworks = CustomNetworks(),  # noqa: B008 - immutable
    ) -> None:
        """Build an untrained network; see ``Policy``.

        Raises:
            TypeError: actions that are no Discrete ones.
            ValueError: options of Box actions.

        """
        if not isinstance(action_space, gym.spaces.Discrete):
            raise TypeError(
                f"action_space: expected Discrete, whose actions' values DQN compares, got "
                f"{action_space}; for Box there are SAC, TD3, DDPG and PPO, for MultiDiscrete and "
                f"MultiBinary PPO, TD3 and DDPG"
            )
        super().__init__(observation_space, action_space, net, config, identities, networks)
        check_no_deviation(self.actions, config)
        assert isinstance(config, QPolicyConfig)
        choices = int(action_space.n)
        self.q_head = QHead(self._ends[0].outputs, choices, net.head_config, config.dueling)
        self._explore = EpsilonGreedy(choices)
        heads = [self.q_head.layers, self.q_head.state_value]
        layers = [(head, 1.0) for head in heads if head is not None]
        self._initialise(layers, config.ortho_init, net.encoder_config.forget_bias)
        self._note_parts()

    @property
    def distribution(self) -> EpsilonGreedy:
        return self._explore

    @property
    def trunk(self) -> Trunk:
        """What the head reads."""
        return self._ends[0]

    def trained_parameters(self) -> list[nn.Parameter]:
        return [*self.trunks.parameters(), *self.q_head.parameters()]

    def dist_params(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        return self._explore.dist_params(self.q_head(features), mask)

    def chosen_value(self, acted: Acted) -> Tensor:
        """Q of what was chosen, in units of scaled rewards, [N]."""
        value = acted.dist_params.gather(-1, acted.action[..., None]).squeeze(-1)
        return unscaled(value) if self.rescaled else value

    def heads(self) -> list[tuple[str, int, str, nn.Module]]:
        width = self._ends[0].outputs
        return [("values", width, f"values of {self.actions.space}", self.q_head)]


class OffPolicyActor(Policy):
    """An actor, and the memory of the critic that judges it.

    The critic's trunk is carried along while acting, if it remembers, so that its memory is there
    for learning; its heads, which need what all agents of a team do, belong to the learner.

    Attributes, beside those of ``Policy``:
        action_head: from the first trunk's features to a distribution over actions.
        critic_actions: how critics see this policy's actions.
        critic: values of the actions of an agent that has no others in its team; None in teams.

    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net: NetConfig,
        config: PolicyConfig,
        identities: int = 0,
        networks: CustomNetworks = CustomNetworks(),  # noqa: B008 - immutable
    ) -> None:
        """Build an untrained actor; see ``Policy``."""
        super().__init__(observation_space, action_space, net, config, identities, networks)
        heads, first = net.head_config, self._ends[0]
        latents = heads.hidden_size[-1] if heads.hidden_size else first.outputs
        distribution = self._make_distribution(config, latents)
        self.action_head = ActionHead(first.outputs, heads, distribution)
        self.critic_actions = CriticActions(self.actions)
        # In a list, so that it is no part of this module.
        self._critic: list[CentralCritic] = []
        self._initialise(
            [(self.action_head.layers, 0.01)], config.ortho_init, net.encoder_config.forget_bias
        )
        self._note_parts()
        self._carried = self._ends if self._ends[1].shapes else (self._ends[0],) * 2

    def _make_distribution(self, config: PolicyConfig, latents: int) -> ActionDistribution:
        return make_distribution(self.actions, config, latents)

    @property
    def distribution(self) -> ActionDistribution:
        return self.action_head.distribution

    @property
    def critic_trunk(self) -> Trunk:
        """What critics' heads read; the actor's where they share one."""
        return self._ends[1]

    @property
    def shares_trunk(self) -> bool:
        """Whether actor and critic have one trunk, which only the critic trains."""
        return self._ends[0] is self._ends[1]

    def trained_parameters(self) -> list[nn.Parameter]:
        parts = (self.action_head.distribution, self.trunks, self.action_head.layers)
        return [parameter for part in parts for parameter in part.parameters()]

    def dist_params(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        params: Tensor = self.action_head(features, mask)
        return params

    def judged_by(self, critic: "CentralCritic") -> None:
        """Let ``get_action`` ask a critic, which must judge this agent alone."""
        self._critic = [critic]

    def chosen_value(self, acted: Acted) -> Tensor:
        """Q of what was chosen, [N]; NaN in a team, where it depends on all agents' actions."""
        if not self._critic:
            return acted.dist_params.new_full(acted.dist_params.shape[:1], torch.nan)
        (critic,) = self._critic
        assert acted.critic_features is not None
        return critic.of_one(acted.critic_features, acted.action)

    def heads(self) -> list[tuple[str, int, str, nn.Module]]:
        return [("actor", self._ends[0].outputs, str(self.actions.space), self.action_head)]


class DeterministicActor(OffPolicyActor):
    """An actor that chooses one action, and explores by noise around it: DDPG's, TD3's.

    Choices and bits are sampled from their probabilities while it explores.
    """

    def _make_distribution(self, config: PolicyConfig, latents: int) -> ActionDistribution:
        if isinstance(self.actions, BoxCodec):
            unused = {"use_sde": config.use_sde, "state_dependent_std": config.state_dependent_std}
            for name, wanted in unused.items():
                if wanted:
                    raise ValueError(
                        f"{name}: expected False, as this actor chooses one action and explores "
                        f"by noise around it, got True; set expl_noise, or use SAC or PPO"
                    )
            if config.action_std_init != PolicyConfig.action_std_init:
                raise ValueError(
                    f"action_std_init: expected the default {PolicyConfig.action_std_init:g}, as "
                    f"this actor chooses one action and explores by noise around it, got "
                    f"{config.action_std_init:g}; set expl_noise instead"
                )
            return NoisyBox(self.actions)
        return make_distribution(self.actions, config, latents)


class CentralCritic(nn.Module):
    """Values of joint actions, for each group of a team.

    Each agent's observations go through its group's trunk, with a memory of each agent's own. What
    these give is joined with all agents' actions, the judged agent's first, and each group's heads
    read it. An agent that has no others in its team has a critic of its own view: that of DDPG, TD3
    and SAC. Source: Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments".

    Attributes:
        trunks: by group; those of the policies themselves.
        heads: by group, Q of them each.
        sizes: number of agents by group.
        shapes: of the heads' layers by group.
        of_choices: heads give the values of all n actions, which they do not read.

    """

    def __init__(
        self,
        policies: Mapping[str, OffPolicyActor],
        sizes: Mapping[str, int],
        heads: Mapping[str, HeadConfig],
        count: int,
        *,
        of_choices: bool = False,
        orthogonal: bool = False,
    ) -> None:
        """Build untrained heads on the policies' trunks.

        Args:
            policies: by group.
            sizes: number of agents by group.
            heads: shapes of the layers by group.
            count: Q, heads of each group.
            of_choices: see the class.
            orthogonal: see ``PolicyConfig.ortho_init``.

        """
        super().__init__()
        self.sizes, self.of_choices, self.shapes = dict(sizes), of_choices, dict(heads)
        self._count, self._orthogonal = count, orthogonal
        self._names = {name: f"group {i}" for i, name in enumerate(policies)}  # no dots in them
        self.trunks = nn.ModuleDict(
            {self._names[name]: policy.critic_trunk for name, policy in policies.items()}
        )
        self.actions = {name: policy.critic_actions for name, policy in policies.items()}
        self.alone = sum(sizes.values()) == 1
        inputs = sum(sizes[name] * self.block(policy) for name, policy in policies.items())
        self.heads = nn.ModuleDict()
        for name, policy in policies.items():
            outputs = policy.actions.features if of_choices else 1
            layers = [head_layers(inputs, heads[name], outputs) for _ in range(count)]
            for head in layers:
                if orthogonal:
                    orthogonal_init(head, 2**0.5)
                    orthogonal_init(head[-1], 1.0)
                for module in head.modules():
                    if isinstance(module, ResidualBlock):
                        module.start_as_identity()
            self.heads[self._names[name]] = nn.ModuleList(layers)

    def block(self, policy: OffPolicyActor) -> int:
        """Return how many numbers stand for one agent: its features come first."""
        actions = 0 if self.of_choices else policy.critic_actions.features
        return policy.critic_trunk.outputs + actions + (not self.alone)

    def blocks(self, name: str) -> list[str]:
        """Return what the heads of a group read, one agent's block after the other, by group."""
        others = [n for other, size in self.sizes.items() if other != name for n in [other] * size]
        return [name] * self.sizes[name] + others

    def like(
        self, policies: Mapping[str, OffPolicyActor], heads: Mapping[str, HeadConfig]
    ) -> "CentralCritic":
        """Return an untrained critic on other trunks, with heads of other shapes."""
        return CentralCritic(
            policies,
            self.sizes,
            heads,
            self._count,
            of_choices=self.of_choices,
            orthogonal=self._orthogonal,
        )

    def heads_of(self, name: str) -> list[nn.Sequential]:
        """Return the heads of a group."""
        heads = cast("nn.ModuleList", self.heads[self._names[name]])
        return [cast("nn.Sequential", head) for head in heads]

    def trunk(self, name: str) -> Trunk:
        """Return a group's trunk."""
        trunk = self.trunks[self._names[name]]
        assert isinstance(trunk, Trunk)
        return trunk

    def values(self, name: str, joint: Tensor, count: int | None = None) -> list[Tensor]:
        """Return what each head of a group gives, [M] each; of choices [M, n].

        ``joint`` [M, *] has what stands for each agent, in the order of ``blocks``; so many of the
        heads as ``count`` are asked, None: all.
        """
        heads = self.heads[self._names[name]]
        assert isinstance(heads, nn.ModuleList)
        given = [head(joint) for head in list(heads)[:count]]
        return given if self.of_choices else [value.squeeze(-1) for value in given]

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Have the heads judge, within, without gradients of their own weights."""
        trained = [p for p in self.heads.parameters() if p.requires_grad]
        for p in trained:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in trained:
                p.requires_grad_(True)

    def of_one(self, features: Tensor, action: Tensor) -> Tensor:
        """Return the least head's value of actions, for an agent that is alone, [N].

        Args:
            features: of the critic's trunk, [N, H].
            action: stored form, [N, *shape].

        """
        (name,) = self._names
        if self.of_choices:
            values = torch.stack(self.values(name, features)).amin(0)
            return values.gather(-1, action[..., None]).squeeze(-1)
        joint = torch.cat((features, self.actions[name].taken(action)), -1)
        return torch.stack(self.values(name, joint)).amin(0)


def copied(module: Any, shared: Sequence[nn.Module] = ()) -> Any:
    """Return a deep copy without gradients that shares some of the module's parts."""
    memo: dict[int, Any] = {id(part): part for part in shared}
    twin = copy.deepcopy(module, memo)
    own = {id(p) for part in shared for p in part.parameters()}
    for parameter in twin.parameters():
        if id(parameter) not in own:
            parameter.requires_grad_(False)
    return twin


@torch.no_grad()
def move_towards(target: Sequence[Tensor], source: Sequence[Tensor], tau: float) -> None:
    """Move target parameters: ``target += tau (source - target)``, Polyak averaging."""
    if tau == 1:
        for old, new in zip(target, source, strict=True):
            old.copy_(new)
        return
    torch._foreach_lerp_(list(target), list(source), tau)
