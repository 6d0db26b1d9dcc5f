"""What agents have in common that learn actors by critics, alone or in teams."""

from typing import ClassVar, cast

import torch
from torch import nn

from recurrent_rl.algorithms.actor_critic_update import ActorCriticLearner
from recurrent_rl.algorithms.off_policy import OffPolicyTrainer
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.algorithms.off_policy_configs import ActorCriticConfig
from recurrent_rl.networks.off_policy import CentralCritic, OffPolicyActor
from recurrent_rl.networks.summary import head_summary
from recurrent_rl.randomness import peek


class ActorCriticTrainer(OffPolicyTrainer):
    """What is one group's own beside the critic, which is the team's."""

    config: ActorCriticConfig

    @property
    def policy(self) -> OffPolicyActor:
        """The group's."""
        return cast("OffPolicyActor", self.group.policy)

    def noisy_modules(self) -> list[nn.Module]:
        return [self.policy.encoders[0], self.policy.action_head.layers]


class ActorCriticAgent(OffPolicyAgent):
    """The half of an agent that learns actors by critics.

    Attributes, beside those of ``OffPolicyAgent``:
        learner_type: what learns.
        critic: values of what all agents do.

    """

    learner_type: ClassVar[type[ActorCriticLearner]]
    trainers: dict[str, ActorCriticTrainer]  # type: ignore[assignment]
    learner: ActorCriticLearner

    def __repr__(self) -> str:
        """Spaces, networks and sizes at a glance, critics' heads included."""
        # Of a team each group has its own settings, and the critics come behind all of them.
        shown, settings, own = super().__repr__().partition("\n  settings")
        lines, critic = [shown], self.critic
        for name in self.trainers:
            heads = critic.heads_of(name)
            inputs = sum(critic.block(self.trainers[b].policy) for b in critic.blocks(name))
            gives = "values of all actions" if critic.of_choices else "value"
            gives += f", {len(heads)} times" if len(heads) > 1 else ""
            title = f"Q of {name}" if name else "Q"
            shape, module = critic.shapes[name], nn.ModuleList(heads)
            lines.append("  " + head_summary(title, inputs, shape, gives, module))
        return "\n".join(lines) + settings + own

    @property
    def critic(self) -> CentralCritic:
        """The critic of all groups."""
        return self.learner.critic

    def _of_choices(self) -> bool:
        """Whether critics give the values of all choices, rather than of one action."""
        return False

    def _make_learner(self) -> ActorCriticLearner:
        first = next(iter(self.trainers.values()))
        policies = {name: trainer.policy for name, trainer in self.trainers.items()}
        generator = first.group.generator
        with torch.random.fork_rng(devices=[]):  # leave the caller's global random state alone
            # Looked at, not drawn: a loaded agent goes on where the saved one stopped.
            torch.default_generator.manual_seed(peek(generator, 2**62))
            critic = CentralCritic(
                policies,
                {name: trainer.group.size for name, trainer in self.trainers.items()},
                {name: trainer.net_config.head_config for name, trainer in self.trainers.items()},
                first.config.critics,
                of_choices=self._of_choices(),
                orthogonal=first.config.ortho_init,
            ).to(self.device)
        if critic.alone:
            first.policy.judged_by(critic)
        configs = {name: trainer.config for name, trainer in self.trainers.items()}
        return self.learner_type(policies, configs, critic, generator)
