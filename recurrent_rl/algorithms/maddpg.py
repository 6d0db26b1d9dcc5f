"""MADDPG and MATD3: teams whose actors are judged by critics that see what everybody does."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, Unpack

import torch

from recurrent_rl.acting.multi_agent_acting import MultiAgentActionOutput
from recurrent_rl.algorithms.actor_critic_agent import ActorCriticAgent, ActorCriticTrainer
from recurrent_rl.algorithms.ddpg import DDPGTrainer
from recurrent_rl.algorithms.dpg_update import DPGLearner
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.off_policy import OffPolicyDiagnostics
from recurrent_rl.algorithms.off_policy_configs import (
    DDPGConfig,
    DDPGOptions,
    TD3Config,
    TD3Options,
)
from recurrent_rl.algorithms.off_policy_single import off_policy_shapes
from recurrent_rl.algorithms.td3 import TD3Trainer
from recurrent_rl.algorithms.team import CustomByGroup, Spaces, Team, TeamReward, custom_by_group
from recurrent_rl.buffers.replay import SequenceReplayBuffer, Windows
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import checked


class TeamKeywords(TypedDict, total=False):
    """What these agents take by name beside hyper-parameters."""

    groups: Mapping[str, Sequence[str]] | None
    agent_id_input: bool
    team_reward: TeamReward
    device: torch.device | str
    seed: int | None
    actor_network: CustomByGroup
    critic_network: CustomByGroup
    action_pairs: bool


class CentrallyJudged(ActorCriticAgent, MultiAgent):
    """Several agents that learn from a replay, by critics of all that they see and do.

    Attributes, beside those of ``ActorCriticAgent`` and ``MultiAgent``:
        action_pairs: ``get_action`` returns two dictionaries: the actions for the environment, and
            the same as ``MultiAgentReplayBuffer.save_to_memory`` takes them.

    """

    action_pairs: bool
    config_type: ClassVar[type[DDPGConfig]]
    trainer_type: ClassVar[type[ActorCriticTrainer]]
    learner_type = DPGLearner

    def __init__(
        self,
        observation_spaces: Spaces,
        action_spaces: Spaces,
        agent_ids: Sequence[str] | None = None,
        net_config: Mapping[str, Any] | NetConfig | None = None,
        *,
        groups: Mapping[str, Sequence[str]] | None = None,
        agent_id_input: bool = False,
        team_reward: TeamReward = None,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        actor_network: CustomByGroup = None,
        critic_network: CustomByGroup = None,
        action_pairs: bool = False,
        **hyperparameters: Any,
    ) -> None:
        """Build an untrained agent.

        Args:
            observation_spaces: by agent, or a list in the order of ``agent_ids``.
            action_spaces: likewise: Box, Discrete, MultiDiscrete or MultiBinary.
            agent_ids: the environment's ``possible_agents``; needed unless the spaces are
                dictionaries.
            net_config: ``{"encoder_config": {...}, "head_config": {...}}`` for all, see
                ``NetConfig``; under the name of a group or an agent stands what is special to it.
                Here activations are ReLU, and heads have a layer of 128, unless it says otherwise.
            groups: names and members; None groups by what stands before the final "_".
            agent_id_input: show each policy which agent of its group it acts for, one-hot.
            team_reward: train every agent on the sum or the mean of all living agents' rewards;
                None, on its own.
            device: of the networks; the replay is stored on the CPU.
            seed: of weights, actions, sampling, and of the environments at each fresh start of
                collection. None takes fresh entropy and leaves environments' seeds alone.
            actor_network: by group, a module of your own in place of the encoder that
                ``net_config`` describes, see ``SequenceNetwork``; or one for all.
            critic_network: likewise, for the critic alone.
            action_pairs: let ``get_action`` return ``action, raw_action`` instead of the usual
                five values, as loops expect that fill a ``MultiAgentReplayBuffer``; for agents
                without memory only.
            hyperparameters: the fields of the algorithm's configuration, for all groups.

        Raises:
            TypeError: a space or a value of the wrong kind.
            ValueError: an unknown name, a value out of range, agents of a group with different
                spaces; the message has what is known.

        """
        team = Team.resolve(observation_spaces, action_spaces, agent_ids, groups, team_reward)
        own = custom_by_group(list(team.grouped_agents), actor_network, critic_network)
        shapes = off_policy_shapes(net_config)
        self._build(team, shapes, hyperparameters, own, agent_id_input, device, seed)
        self._set_pairs(action_pairs)

    def _set_pairs(self, action_pairs: bool) -> None:
        self.action_pairs = checked("action_pairs", action_pairs, bool)
        if action_pairs and any(group.policy.state_shapes for group in self.groups):
            raise ValueError(
                "action_pairs: expected False for agents with memory (recurrent=True or "
                "previous_action=True), whose hidden state get_action returns as well, got True; "
                "build them with recurrent=False"
            )

    @classmethod
    def option_names(cls) -> list[str]:
        return [*super().option_names(), "action_pairs"]

    def _chosen(self, out: MultiAgentActionOutput, stored: dict[str, Array]) -> Any:
        return (out.action, stored) if self.action_pairs else out

    def to_checkpoint(self, save_replay: bool = False) -> dict[str, Any]:
        return {**super().to_checkpoint(save_replay), "action_pairs": self.action_pairs}

    @classmethod
    def from_checkpoint(
        cls, data: dict[str, Any], device: torch.device | str = "cpu", **parts: Any
    ) -> Any:
        agent = super().from_checkpoint(data, device, **parts)
        agent.action_pairs = data["action_pairs"]
        return agent

    def networks_of(self, net_config: Mapping[str, Any] | NetConfig | None) -> dict[str, NetConfig]:
        options = self.team.options(off_policy_shapes(net_config), {})
        return {name: shapes for name, (shapes, _) in options.items()}

    def learn(
        self, experiences: SequenceReplayBuffer | Windows | None = None
    ) -> dict[str, OffPolicyDiagnostics]:
        """Take the updates that are due for the steps collected since the last call.

        Args:
            experiences: a memory to sample from instead of the agent's own; or a sample, upon which
                one update is taken.

        Returns:
            losses and what else there is to know, by group.

        Raises:
            RuntimeError: there is less in the memory than a batch, or everything is frozen.
            ValueError: it is of other spaces, agents or sequences.
            FloatingPointError: a gradient was not finite; the weights are those before it.

        """
        return self._learn(experiences)


class MADDPGKeywords(DDPGOptions, TeamKeywords, total=False):
    """What ``MADDPG`` takes by name."""


class MADDPG(CentrallyJudged):
    """Multi-agent deep deterministic policy gradient, each group's critic with all agents in view.

    Source: Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments".

    Hyper-parameters are the fields of ``DDPGConfig``.

    >>> from mpe2 import simple_speaker_listener_v4
    >>> from recurrent_rl import MADDPG, collect_rollouts_recurrent, make_multi_agent_vect_envs
    >>> env = make_multi_agent_vect_envs(
    ...     simple_speaker_listener_v4.parallel_env, 4, should_async_vector=False
    ... )
    >>> agent = MADDPG(
    ...     env.observation_spaces,
    ...     env.action_spaces,
    ...     env.agents,
    ...     learning_starts=64,
    ...     learn_step=4,
    ...     seed=0,
    ...     batch_size=64,
    ...     max_seq_len=8,
    ... )
    >>> stats = collect_rollouts_recurrent(agent, env, 20)
    >>> [(group, diagnostics.updates) for group, diagnostics in agent.learn().items()]
    [('speaker', 4), ('listener', 4)]
    """

    config_type = DDPGConfig
    trainer_type = DDPGTrainer

    if TYPE_CHECKING:  # the same constructor, with the names and types of what it takes here

        def __init__(
            self,
            observation_spaces: Spaces,
            action_spaces: Spaces,
            agent_ids: Sequence[str] | None = None,
            net_config: NetConfig | Mapping[str, Any] | None = None,
            **keywords: Unpack[MADDPGKeywords],
        ) -> None:
            """Build an untrained agent; see ``CentrallyJudged``."""


class MATD3Keywords(TD3Options, TeamKeywords, total=False):
    """What ``MATD3`` takes by name."""


class MATD3(CentrallyJudged):
    """MADDPG with the lesser of two critics, a noisy target and delayed actors.

    Source: Ackermann et al. 2019, "Reducing Overestimation Bias in Multi-Agent Domains Using Double
    Centralized Critics".

    Hyper-parameters are the fields of ``TD3Config``.

    >>> from mpe2 import simple_speaker_listener_v4
    >>> from recurrent_rl import MATD3, collect_rollouts_recurrent, make_multi_agent_vect_envs
    >>> env = make_multi_agent_vect_envs(
    ...     simple_speaker_listener_v4.parallel_env, 4, should_async_vector=False
    ... )
    >>> agent = MATD3(
    ...     env.observation_spaces,
    ...     env.action_spaces,
    ...     env.agents,
    ...     learning_starts=64,
    ...     learn_step=4,
    ...     seed=0,
    ...     batch_size=64,
    ...     max_seq_len=8,
    ... )
    >>> stats = collect_rollouts_recurrent(agent, env, 20)
    >>> [(group, diagnostics.updates) for group, diagnostics in agent.learn().items()]
    [('speaker', 4), ('listener', 4)]
    """

    config_type = TD3Config
    trainer_type = TD3Trainer

    if TYPE_CHECKING:  # the same constructor, with the names and types of what it takes here

        def __init__(
            self,
            observation_spaces: Spaces,
            action_spaces: Spaces,
            agent_ids: Sequence[str] | None = None,
            net_config: NetConfig | Mapping[str, Any] | None = None,
            **keywords: Unpack[MATD3Keywords],
        ) -> None:
            """Build an untrained agent; see ``CentrallyJudged``."""
