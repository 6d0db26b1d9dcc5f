"""Agents that share one policy.

``PPO`` has one group of one, nameless agent; ``IPPO`` has a group for each kind of agent.

Letters: N rows, A agents in the group; of whole environments, row e * A + a is agent a's.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from recurrent_rl.acting.player import Player, as_tensor
from recurrent_rl.envs.rows import Observed
from recurrent_rl.networks.acting_policy import Central, CustomNetworks, Policy
from recurrent_rl.networks.configs import NetConfig, PolicyConfig
from recurrent_rl.networks.parameter_limit import parameter_limit
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.networks.summary import parameter_count, summary
from recurrent_rl.randomness import derived_seed, peek, seeded
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array, as_array
from recurrent_rl.spaces.masks import check_mask, without_mask
from recurrent_rl.spaces.serialization import space_from_dict, space_to_dict
from recurrent_rl.validation import checked_device, shown


class ActionOutput(NamedTuple):
    """What ``get_action`` returns.

    Attributes:
        action: as the environment takes it, [N, *shape].
        log_prob: of the sampled (unclipped) action, [N].
        entropy: of the policy [nats], [N].
        value: V of the observation and what was remembered, [N]; of agents that learn from a replay
            the value of the action, the lesser one where there are two critics.
        hidden_state: after this step; give it to the next call.

    """

    action: Array
    log_prob: Array
    entropy: Array
    value: Array
    hidden_state: HiddenState


class AgentGroup:
    """A policy, and the agents that share it.

    Attributes:
        observation_space: of one agent.
        action_space: likewise.
        view_space: of what a central critic sees; None without one.
        kind: of policy.
        agents: names of the agents, [A]; () for the one, nameless agent of ``PPO``.
        size: A.
        config: what is built into the policy.
        net_config: network shapes.
        custom_networks: the user's own modules that the policy was built around copies of.
        identities: number of agents that the policy tells apart; 0: none.
        identify: the policy sees which of the agents it acts for; "critic": only its critic does.
        policy: the network.
        generator: of actions, and of all else that is drawn for this group.
        reward_scale: multiplies the rewards that the policy sees.
        buffer: what was recorded of it last; None before anything was.
        drift: gives the noise of N rows, of agents [N] (None: row e * A + a is agent a), some of
            which may start, bool [N] or None, where noise goes on from one call to the next.

    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net_config: NetConfig,
        config: PolicyConfig,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        agents: Sequence[str] = (),
        identify: bool | Literal["critic"] = False,
        custom_networks: CustomNetworks = CustomNetworks(),  # noqa: B008 - immutable
        kind: type[Policy] = ActorCritic,
        view_space: gym.Space[Any] | None = None,
        identities: int | None = None,
    ) -> None:
        """Build an untrained policy.

        Args:
            observation_space: of one agent: Box, Discrete, MultiDiscrete, MultiBinary, or Dict or
                Tuple of these; an action mask within it is split off.
            action_space: of one agent: Discrete, MultiDiscrete, MultiBinary or Box.
            net_config: network shapes.
            config: what is built into the policy.
            device: of the policy.
            seed: of weights, actions and shuffling; None takes fresh entropy.
            agents: their names.
            identify: show the policy which of the agents it acts for, as a one-hot input; "critic"
                shows it to the critic alone.
            custom_networks: modules of one's own in the encoders' places; they are copied.
            kind: of policy; fixed for good.
            view_space: of what a central critic sees; None: the critic sees what the actor does.
            identities: agents that the policy tells apart; None: all of them if it is to identify
                any.

        Raises:
            TypeError: a space of the wrong kind.
            ValueError: options that do not fit the spaces.

        """
        for name, space in (
            ("observation_space", observation_space),
            ("action_space", action_space),
        ):
            if not isinstance(space, gym.Space):
                raise TypeError(
                    f"{name}: expected a gymnasium space, got {shown(space)}; agents are built "
                    f"from spaces: PPO(env.single_observation_space, env.single_action_space)"
                )
        self.kind, self.config, self.net_config = kind, config, net_config
        self.view_space = view_space
        self.observation_space, _ = without_mask(observation_space, action_space)
        self.action_space, self.custom_networks = action_space, custom_networks
        self.device, self.seed = checked_device(device), seed
        self.agents, self.size = tuple(agents), max(len(agents), 1)
        self.identities = self.size * bool(identify) if identities is None else identities
        self.generator = seeded(seed)
        self.identify, self.reward_scale = identify, 1.0
        self.buffer: Any = None  # whatever a trainer records into
        self.drift: Callable[[int, Array | None, Array | None], Tensor] | None = None
        self.policy = self.build_policy(net_config, self.generator)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a policy in a wrapper of torch's, through which agents cannot act or learn."""
        if name == "policy" and not isinstance(value, self.kind):
            raise TypeError(
                f"policy: expected {self.kind.__name__}, got {type(value).__name__}; policies in "
                f"wrappers such as torch.compile's or DataParallel are not supported"
            )
        super().__setattr__(name, value)

    def build_policy(self, net_config: NetConfig, generator: torch.Generator) -> Policy:
        """Return an untrained policy for this group's spaces; its weights are drawn here."""
        with torch.random.fork_rng(devices=[]):  # leave the caller's global random state alone
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            try:
                policy = self.kind(
                    self.observation_space,
                    self.action_space,
                    net_config,
                    self.config,
                    self.identities,
                    CustomNetworks(*(_copied(network) for network in self.custom_networks)),
                    **self._central(),
                )
            except (TypeError, ValueError) as error:
                if self.agents:
                    error.add_note(f"in the policy of {', '.join(map(repr, self.agents))}")
                raise
        return policy.to(self.device)

    def _central(self) -> dict[str, Central]:
        """Return what the critic alone is shown, for policies that have one on trajectories."""
        central = Central(self.view_space, self.identify == "critic")
        return {} if central == Central() else {"central": central}

    def next_seed(self) -> int | None:
        """Return a seed for environments, or None if the group was given none."""
        if self.seed is None:
            return None
        return int(torch.randint(2**31, (), generator=self.generator))

    def reseed(self, number: int) -> None:
        """Go on with a random stream of one's own, which follows from the present one's state."""
        self.generator.manual_seed(derived_seed(peek(self.generator, 2**62), number))

    def describe(self, title: str) -> str:
        """Title and size, what is seen and done, and the networks, a line each."""
        first = f"{title}, {parameter_count(self.policy):,} parameters"
        lines = summary(self.policy, self.net_config)
        return "\n  ".join([first, *lines])

    # --- acting -----------------------------------------------------------------------------

    def identity(self, agent: Array) -> Tensor | None:
        """Which agent each of N rows is (an index, [N]), one-hot [N, A]; None if unseen."""
        if not self.policy.extra.identities:
            return None
        # Of those that it was not built for there is nothing to tell.
        told = self.policy.extra.identities
        table = torch.eye(max(self.size, told), told, device=self.device)
        return table[torch.from_numpy(agent).to(self.device)]

    def name_agents(self, agents: Sequence[str]) -> None:
        """Let the policy act for other agents."""
        self.agents, self.size = tuple(agents), len(agents)

    def player(
        self,
        rows: int,
        state: HiddenState | None = None,
        reward: Tensor | None = None,
        agent: Array | None = None,
    ) -> Player:
        """Return a player for N rows.

        Args:
            rows: N.
            state: what they remember; None: nothing.
            reward: their last rewards, scaled, [N]; None: zeros.
            agent: index of each row's agent, int [N]; None: row e * A + a is agent a.

        """
        return Player(
            self.policy,
            self.policy.initial_state(rows) if state is None else state,
            reward,
            identity=self.identity(np.arange(rows) % self.size if agent is None else agent),
            reward_scale=self.reward_scale,
        )

    @torch.no_grad()
    def choose(
        self,
        seen: Observed,
        hidden_state: HiddenState | None,
        *,
        deterministic: bool = False,
        reward: Any = None,
        agent: Array | None = None,
    ) -> tuple[ActionOutput, Array]:
        """Choose actions for any rows.

        Args:
            seen: by N rows; actions that are forced are returned as they are.
            hidden_state: of N rows; None for a policy that keeps none.
            deterministic: the most likely action instead of a sample.
            reward: the last rewards, [N], for policies that see them.
            agent: index of each row's agent, int [N]; None: row e * A + a is agent a.

        Returns:
            what ``get_action`` returns, and the actions as the policy has them, [N, ...].

        Raises:
            TypeError: not numbers, or no HiddenState.
            ValueError: wrong shapes, numbers that are not finite, a state of the wrong size or
                from another kind of agent, a missing state or reward.

        """
        policy, rows = self.policy, len(seen.observation)
        policy.codec.layout.check_stored(seen.observation, rows)
        state = self.check_state(hidden_state, rows)
        player = self.player(rows, state, self._check_reward(reward, rows), agent)
        mask = None
        if seen.action_mask is not None:
            allowed = check_mask(seen.action_mask, self.action_space, rows, asked=seen.active)
            mask = torch.as_tensor(allowed, device=self.device)
        distribution = policy.distribution
        noise = None
        if not deterministic:
            if self.drift is None:
                noise = distribution.noise((rows,), self.generator).to(self.device)
            else:
                noise = self.drift(rows, agent, seen.start)
        observation = as_tensor(policy, seen.observation)
        acted = player.act(seen, observation, noise, mask, judge=True).acted
        action = policy.actions.to_env(acted.action)
        if seen.forced is not None and seen.forced_action is not None:
            action[seen.forced] = seen.forced_action[seen.forced]  # as given, without rounding
        out = ActionOutput(
            action,
            distribution.log_prob(acted.dist_params, acted.action).numpy(force=True),
            distribution.entropy(acted.dist_params).numpy(force=True),
            policy.chosen_value(acted).numpy(force=True),
            player.state,
        )
        return out, acted.action.numpy(force=True)

    def check_state(self, state: HiddenState | None, rows: int) -> HiddenState:
        """Return a state that fits N rows of this policy, or say what is wrong with it."""
        shapes = self.policy.state_shapes
        if state is None:
            if shapes:
                raise ValueError(
                    f"hidden_state: expected one, as this policy remembers; begin an episode with "
                    f"agent.get_initial_hidden_state({rows}) and pass on what get_action returns"
                )
            return self.policy.initial_state(rows)
        if not isinstance(state, HiddenState):
            raise TypeError(f"hidden_state: expected a HiddenState, got {type(state).__name__}")
        state = state.to(self.device)  # no copy where it is there already
        expected = [(k, rows, h) for k, h in shapes]
        if state.rows != rows or [tuple(x.shape) for x in state.tensors] != expected:
            raise ValueError(
                f"hidden_state: expected {rows} rows and tensors [K, N, H] = {expected}, got "
                f"{state}; is it another agent's, or of another number of environments?"
            )
        for x in state.tensors:
            if x.dtype != torch.get_default_dtype() or not bool(torch.isfinite(x).all()):
                dtype = torch.get_default_dtype()
                got = x.dtype if x.dtype != dtype else "NaN or infinity"
                raise ValueError(
                    f"hidden_state: expected finite numbers of {dtype}, got {got} in {state}; "
                    f"begin an episode with agent.get_initial_hidden_state({rows})"
                )
        return state

    def _check_reward(self, reward: Any, rows: int) -> Tensor | None:
        if not self.policy.extra.reward:
            return None
        array = None if reward is None else as_array(reward)
        if array is None or array.shape not in ((rows,), ()):
            raise ValueError(
                f"reward: expected the last rewards, shape [N] = [{rows}], zeros at an episode's "
                f"start, as this agent was built with previous_reward=True, got {reward!r}"
            )
        scaled = None
        if array.dtype.kind in "fiub":
            with np.errstate(over="ignore"):
                scaled = (np.broadcast_to(array, (rows,)) * self.reward_scale).astype(np.float32)
        if scaled is None or not np.isfinite(scaled).all():
            raise ValueError(
                f"reward: expected finite numbers, also in float32 and multiplied by reward_scale "
                f"= {self.reward_scale:g}, got {reward!r}"
            )
        return torch.from_numpy(scaled).to(self.device)

    # --- saving -----------------------------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        """Return what ``from_data`` needs, in tensors (not copied) and plain values.

        Raises:
            ValueError: the policy has other parameters than it was built with.

        """
        if changed := self.policy.changed_parts():
            raise ValueError(
                f"policy: expected the weights that the agent was built with, as nothing else can "
                f"be loaded, got changes at {', '.join(changed[:4])}; undo them before saving "
                f"(torch.nn.utils.parametrize.remove_parametrizations, for example)"
            )
        return {
            "observation_space": space_to_dict(self.observation_space),
            "action_space": space_to_dict(self.action_space),
            "net_config": self.net_config.to_dict(),
            "seed": self.seed,
            "agents": list(self.agents),
            "identify": self.identify,
            "identities": self.identities,
            "networks": [network is not None for network in self.custom_networks],
            "view_space": None if self.view_space is None else space_to_dict(self.view_space),
            "policy": self.policy.state_dict(),
            "frozen": [n for n, p in self.policy.named_parameters() if not p.requires_grad],
            "generator": self.generator.get_state(),
        }

    @classmethod
    def from_data(
        cls,
        data: Mapping[str, Any],
        config: PolicyConfig,
        device: torch.device | str,
        custom_networks: CustomNetworks,
        kind: type[Policy] = ActorCritic,
    ) -> "AgentGroup":
        """Rebuild what ``to_data`` described, around modules like those it was built with.

        Raises:
            ValueError: modules where the saved group had none, or the other way round; networks
                that are larger than their weights.

        """
        _check_networks(data["networks"], custom_networks)
        view = data.get("view_space")  # older checkpoints do not know
        with parameter_limit(sum(x.numel() for x in data["policy"].values())):
            group = cls(
                space_from_dict(data["observation_space"]),
                space_from_dict(data["action_space"]),
                NetConfig.from_dict(data["net_config"]),
                config,
                device=device,
                seed=data["seed"],
                agents=data["agents"],
                identify=data["identify"],
                custom_networks=custom_networks,
                kind=kind,
                view_space=None if view is None else space_from_dict(view),
                identities=data.get("identities"),
            )
        group.policy.load_state_dict(data["policy"])
        if (frozen := data.get("frozen")) is not None:  # older checkpoints do not know
            for name, parameter in group.policy.named_parameters():
                parameter.requires_grad_(name not in frozen)
        group.generator.set_state(data["generator"].cpu())
        return group


def _copied(network: nn.Module | None) -> nn.Module | None:
    # On the CPU, wherever it is: there policies are built and tried out.
    return copy.deepcopy(network).cpu() if isinstance(network, nn.Module) else network


def _check_networks(had: Sequence[bool], given: CustomNetworks) -> None:
    """Check that there are modules where the saved group had some of the user's."""
    for name, expected, module in zip(CustomNetworks._fields, had, given, strict=True):
        if expected != (module is not None):
            wanted, got = ("a module", "none") if expected else ("none", "one")
            raise ValueError(
                f"{name}_network: expected {wanted}, as in the agent that was saved, got {got}; "
                f"give load the modules that it was built with: {name}_network=..."
            )
