"""Agents that share one policy, with all that trains it.

PPO is the group of one agent; IPPO has a group for each kind of agent.

Letters: T steps, E environments, A agents in the group, N = E * A rows, row e * A + a.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from recurrent_rl import learner
from recurrent_rl.config import NetConfig, PPOConfig
from recurrent_rl.learner import Diagnostics
from recurrent_rl.networks import ActorCritic, RunningNorm, adam_state_for, share_memory_of
from recurrent_rl.randomness import derived_seed, peek, seeded
from recurrent_rl.recurrent import HiddenState
from recurrent_rl.rollout import SequenceRolloutBuffer
from recurrent_rl.row_collector import Carry
from recurrent_rl.spaces import (
    Array,
    allows_something,
    choices,
    space_from_dict,
    space_to_dict,
    without_mask,
)
from recurrent_rl.summary import parameter_count, summary


class Networks(NamedTuple):
    """Modules of the user's own in the encoders' places, see ``SequenceNetwork``; None: built in.

    Attributes:
        actor: the actor's, and the critic's too where they share one.
        critic: the critic's.

    """

    actor: nn.Module | None = None
    critic: nn.Module | None = None


NO_NETWORKS = Networks()


class ActionOutput(NamedTuple):
    """What ``get_action`` returns.

    Attributes:
        action: as the environment takes it, [N, *shape].
        log_prob: of the sampled (unclipped) action, [N].
        entropy: of the policy [nats], [N].
        value: V of the observation and what was remembered, [N].
        hidden_state: after this step; give it to the next call.

    """

    action: Array
    log_prob: Array
    entropy: Array
    value: Array
    hidden_state: HiddenState


class AgentGroup:
    """A policy, its optimiser, its rollout, and how they are trained.

    Attributes:
        observation_space: of one agent.
        action_space: likewise.
        agents: names of the agents, [A]; () for the one, nameless agent of ``PPO``.
        size: A.
        config: hyper-parameters; ``reconfigure`` changes them.
        net_config: network shapes; ``replace_policy`` changes them.
        policy: the network.
        optimizer: Adam over it.
        buffer: the last rollout; None before the first.
        carry: where collection stopped; None before the first, and after one that failed.
        env_steps: environment steps collected so far, the clock of ``lr_schedule``.

    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net_config: NetConfig | Mapping[str, Any] | None,
        config: PPOConfig,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        agents: Sequence[str] = (),
        identify: bool = False,
        networks: Networks = NO_NETWORKS,
    ) -> None:
        """Build an untrained policy.

        Args:
            observation_space: of one agent: Box, Discrete, MultiDiscrete, MultiBinary, or Dict or
                Tuple of these; an action mask within it is split off.
            action_space: of one agent: Discrete, MultiDiscrete, MultiBinary or Box.
            net_config: ``{"encoder_config": {...}, "head_config": {...}}``, see ``NetConfig``.
            config: hyper-parameters.
            device: of the policy; rollouts are stored on the CPU.
            seed: of weights, actions and shuffling; None takes fresh entropy.
            agents: their names.
            identify: show the policy which of the agents it acts for, as a one-hot input.
            networks: modules of one's own in the encoders' places; they are copied.

        Raises:
            TypeError: a space or a value of the wrong kind.
            ValueError: an unknown name or a value out of range; the message has what is known.

        """
        if not isinstance(net_config, NetConfig):
            net_config = NetConfig.from_dict(net_config or {})
        _check_burn_in(config, net_config)
        self.config, self.net_config = config, net_config
        self.observation_space, _ = without_mask(observation_space, action_space)
        self.action_space, self.networks = action_space, networks
        self.device, self.seed = torch.device(device), seed
        self.agents, self.size = tuple(agents), max(len(agents), 1)
        self.generator = seeded(seed)
        self.identify = identify
        self.policy = self.build_policy(net_config, self.generator)
        self.optimizer = self._optimizer_of(self.policy)
        self.reward_norm = RunningNorm(1) if config.normalize_reward else None
        self.buffer: SequenceRolloutBuffer | None = None
        self.carry: Carry | None = None
        self.collected = False
        self.env_steps = 0

    def build_policy(self, net_config: NetConfig, generator: torch.Generator) -> ActorCritic:
        """Return an untrained policy for this group's spaces; its weights are drawn here."""
        with torch.random.fork_rng(devices=[]):  # leave the caller's global random state alone
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            policy = ActorCritic(
                self.observation_space,
                self.action_space,
                net_config,
                self.config,
                self.size * self.identify,
                *(_copied(network) for network in self.networks),
            )
        return policy.to(self.device)

    def _optimizer_of(self, policy: ActorCritic) -> torch.optim.Adam:
        on_cpu = self.device.type == "cpu"
        parameters = [share_memory_of(policy)] if on_cpu else list(policy.parameters())
        config = self.config
        return torch.optim.Adam(parameters, lr=config.lr, eps=config.adam_eps, fused=True)

    def replace_policy(
        self, net_config: NetConfig, policy: ActorCritic, moments: list[dict[str, torch.Tensor]]
    ) -> None:
        """Take another network for the same spaces; collection starts afresh.

        Args:
            net_config: its shapes.
            policy: from ``build_policy``.
            moments: Adam's, for each of its parameters; empty to begin anew.

        """
        _check_burn_in(self.config, net_config)
        old = self.optimizer.state_dict()
        self.net_config, self.policy = net_config, policy
        self.optimizer = self._optimizer_of(policy)
        state = {"state": dict(enumerate(moments)), "param_groups": old["param_groups"]}
        self.optimizer.load_state_dict(
            adam_state_for(self.optimizer, state, list(policy.parameters()))
        )
        self.buffer, self.carry, self.collected = None, None, False

    def reconfigure(self, **changes: Any) -> None:
        """Change hyper-parameters, from the next rollout on.

        Args:
            changes: those of ``MUTABLE`` in ``recurrent_rl.hpo``; others are built into the policy.

        Raises:
            TypeError: a value of the wrong type.
            ValueError: an unknown name or a value out of range.

        """
        config = self.config.replace(**changes)
        _check_burn_in(config, self.net_config)
        self.config = config

    def branch(self, number: int) -> None:
        """Go on with a random stream of one's own, which follows from the present one's state."""
        self.generator.manual_seed(derived_seed(peek(self.generator, 2**62), number))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Join the parameters and the optimiser's vector again, which copying tears apart."""
        self.__dict__.update(state)
        if self.device.type == "cpu":
            group = self.optimizer.param_groups[0]
            (old,), new = group["params"], share_memory_of(self.policy)
            group["params"] = [new]
            if old in self.optimizer.state:
                self.optimizer.state[new] = self.optimizer.state.pop(old)

    def describe(self, title: str) -> str:
        """Title and size, what is seen and done, and the networks, a line each."""
        first = f"{title}, {parameter_count(self.policy):,} parameters"
        lines = summary(self.policy, self.net_config, self.action_space)
        return "\n  ".join([first, *lines])

    def on_device(self, array: Array) -> torch.Tensor:
        """Return an array as a tensor beside the policy."""
        return torch.from_numpy(array).to(self.device)

    # --- acting -----------------------------------------------------------------------------

    def identity(self, rows: int) -> torch.Tensor | None:
        """Which agent each of N rows of whole environments is, one-hot [N, A]; None if unseen."""
        return self._one_hot(np.arange(rows) % self.size)

    def _one_hot(self, agent: Array) -> torch.Tensor | None:
        if not self.policy.identities:
            return None
        return torch.eye(self.size, device=self.device)[self.on_device(agent)]

    @torch.no_grad()
    def choose(
        self,
        observation: Array,
        hidden_state: HiddenState | None,
        action_mask: Any = None,
        *,
        deterministic: bool = False,
        reward: Any = None,
        agent: Array | None = None,
        forced: tuple[Array, Array] | None = None,
    ) -> ActionOutput:
        """Choose actions for any rows.

        Args:
            observation: as ``ObservationLayout`` keeps them, [N, *shape].
            hidden_state: of N rows; None for a policy that keeps none.
            action_mask: allowed actions, bool [N, n]; Discrete and MultiDiscrete actions only.
            deterministic: the most likely action instead of a sample.
            reward: the last rewards, [N], for policies that see them.
            agent: index of each row's agent, int [N]; None: row e * A + a is agent a.
            forced: rows whose action is given, bool [N], and those actions as the environment
                takes them, [N, *shape]; they are returned as they are, and remembered.

        Returns:
            the five of ``ActionOutput``.

        Raises:
            TypeError: not numbers, or no HiddenState.
            ValueError: wrong shapes, numbers that are not finite, a state of the wrong size or
                from another kind of agent, a missing state or reward.

        """
        codec, head = self.policy.codec, self.policy.head
        rows = len(observation)
        codec.layout.check_stored(observation, rows)
        x = torch.as_tensor(observation, dtype=codec.dtype)
        state = self.check_state(hidden_state, rows)
        last = self._check_reward(reward, rows)
        mask = self._check_mask(action_mask, rows)
        identity = self.identity(rows) if agent is None else self._one_hot(agent)
        extra = self.policy.extra_inputs(state, last, identity)
        noise = None if deterministic else head.noise((rows,), self.generator).to(self.device)
        theirs = None
        if forced is not None:
            theirs = (self.on_device(forced[0]), head.from_env(forced[1]).to(self.device))
        acted = self.policy.act(x.to(self.device), extra, state, noise, mask, theirs)
        action = head.to_env(acted.action)
        if forced is not None:
            action[forced[0]] = forced[1][forced[0]]  # exactly as given, without rounding
        return ActionOutput(
            action,
            head.log_prob(acted.params, acted.action).numpy(force=True),
            head.entropy(acted.params).numpy(force=True),
            self.policy.value_of(acted.critic_features).numpy(force=True),
            acted.state,
        )

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
        expected = [(k, rows, h) for k, h in shapes]
        if state.rows != rows or [tuple(x.shape) for x in state.tensors] != expected:
            raise ValueError(
                f"hidden_state: expected {rows} rows and tensors [K, N, H] = {expected}, got "
                f"{state}; is it another agent's, or of another number of environments?"
            )
        return state

    def _check_reward(self, reward: Any, rows: int) -> torch.Tensor | None:
        if not self.config.previous_reward:
            return None
        if reward is None or np.shape(reward) not in ((rows,), ()):
            raise ValueError(
                f"reward: expected the last rewards, shape [N] = [{rows}], zeros at an episode's "
                f"start, as this agent was built with previous_reward=True, got {reward!r}"
            )
        array = np.asarray(reward)
        if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise ValueError(f"reward: expected finite numbers, got {reward!r}")
        scaled = np.broadcast_to(reward, (rows,)) * self.config.reward_scale
        return torch.as_tensor(scaled, dtype=torch.float32, device=self.device)

    def _check_mask(self, mask: Any, rows: int) -> torch.Tensor | None:
        if mask is None:
            return None
        array, sizes = np.asarray(mask), choices(self.action_space)
        if not sizes or array.shape != (rows, sum(sizes)):
            expected = f"shape [N, n] = [{rows}, {sum(sizes)}]" if sizes else "none"
            raise ValueError(
                f"action_mask: expected {expected} for {self.action_space}, got shape "
                f"{list(array.shape)}"
            )
        allowed = allows_something(array, sizes)
        if not allowed.all():
            row = int(np.flatnonzero(~allowed)[0])
            raise ValueError(f"action_mask: expected an allowed action in each row, none in {row}")
        return torch.as_tensor(array, dtype=torch.bool, device=self.device)

    # --- learning ---------------------------------------------------------------------------

    def prepare_buffer(self, steps: int, rows: int, masked: bool) -> SequenceRolloutBuffer:
        """Return a buffer for T steps of N rows: the last one if it fits (for ``collect``)."""
        policy, config = self.policy, self.config
        recurrent = config.recurrent
        longest = self.net_config.encoder_config.max_seq_len if recurrent else 1
        buffer, masked = self.buffer, masked and policy.head.mask_size > 0
        if (
            buffer is None
            or (buffer.steps, buffer.rows) != (steps, rows)
            or (buffer.action_mask is not None) != masked
        ):
            buffer = self.buffer = SequenceRolloutBuffer(
                steps,
                rows,
                obs_shape=policy.codec.shape,
                obs_dtype=policy.codec.dtype,
                action_shape=policy.head.action_shape,
                action_dtype=policy.head.action_dtype,
                state_shapes=policy.state_shapes[: policy.memory],
                max_seq_len=longest,
                burn_in=config.burn_in if recurrent else 0,
                extra=policy.extra,
                mask_size=policy.head.mask_size if masked else 0,
            )
        return buffer

    def next_seed(self) -> int | None:
        """Return a seed for the environments, or None if the agent was given none."""
        if self.seed is None:
            return None
        return int(torch.randint(2**31, (), generator=self.generator))

    def finish_rollout(self, last_value: torch.Tensor) -> None:
        """Compute the returns of a collected rollout (for ``collect``); V [N] of what follows."""
        assert self.buffer is not None
        scale = self.config.reward_scale
        if self.reward_norm is not None:
            scale *= float(self.reward_norm.scale)
        self.buffer.compute_returns(last_value, self.config.gamma, self.config.gae_lambda, scale)
        self.env_steps += self._steps_in_buffer()
        self.collected = True

    def _steps_in_buffer(self) -> int:
        """Environment steps: all agents of an environment take one together."""
        assert self.buffer is not None
        return self.buffer.steps * self.buffer.rows // self.size

    def learn(self) -> Diagnostics:
        """Train on the rollout that ``collect_rollouts_recurrent`` has filled the buffer with.

        Returns:
            losses and what else there is to know.

        Raises:
            RuntimeError: nothing has been collected since the last call.
            FloatingPointError: a gradient was not finite; the weights are those before it.

        """
        if self.buffer is None or not self.collected:
            raise RuntimeError(
                "learn: expected a rollout collected since the last call; call "
                "collect_rollouts_recurrent(agent, env) first"
            )
        self.collected = False
        result = learner.learn(
            self.policy, self.optimizer, self.buffer, self.config, self._lr(), self.generator
        )
        # Only now: while a rollout is collected and learned from, the policy must not change
        # under it, or the probability ratios would be off before the first update.
        self.policy.update_norms(self.buffer.obs, self.buffer.exists)
        return result

    def _lr(self) -> float:
        config = self.config
        if config.lr_schedule == "constant" or config.total_steps is None:
            return config.lr
        # The rollout about to be learned from is counted already; its share is still to come.
        done = self.env_steps - self._steps_in_buffer()
        return config.lr * max(1 - done / config.total_steps, 0.0)

    # --- saving -----------------------------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        """Return all that training goes on from, in tensors and plain values."""
        return {
            "observation_space": space_to_dict(self.observation_space),
            "action_space": space_to_dict(self.action_space),
            "net_config": self.net_config.to_dict(),
            "config": self.config.to_dict(),
            "seed": self.seed,
            "agents": list(self.agents),
            "identify": self.identify,
            "networks": [network is not None for network in self.networks],
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "reward_norm": None if self.reward_norm is None else self.reward_norm.state_dict(),
            "generator": self.generator.get_state(),
            "env_steps": self.env_steps,
            "carry": None if self.carry is None else self.carry.to_data(),
        }

    def restore(self, data: dict[str, Any]) -> None:
        """Take the state over from data of a group built alike."""
        self.policy.load_state_dict(data["policy"])
        parameters = list(self.policy.parameters())
        self.optimizer.load_state_dict(
            adam_state_for(self.optimizer, data["optimizer"], parameters)
        )
        if self.reward_norm is not None:
            self.reward_norm.load_state_dict(data["reward_norm"])
        self.generator.set_state(data["generator"].cpu())
        self.env_steps = data["env_steps"]
        if data["carry"] is not None:
            self.carry = Carry.from_data(data["carry"], self.device)

    @classmethod
    def from_data(
        cls, data: dict[str, Any], device: torch.device | str, networks: Networks = NO_NETWORKS
    ) -> "AgentGroup":
        """Rebuild what ``to_data`` described, around modules like those it was built with."""
        check_networks(data, networks)
        group = AgentGroup(
            space_from_dict(data["observation_space"]),
            space_from_dict(data["action_space"]),
            NetConfig.from_dict(data["net_config"]),
            PPOConfig.from_dict(data["config"]),
            device=device,
            seed=data["seed"],
            agents=data["agents"],
            identify=data["identify"],
            networks=networks,
        )
        group.restore(data)
        return group


def _copied(network: nn.Module | None) -> nn.Module | None:
    # On the CPU, wherever it is: there policies are built and tried out.
    return copy.deepcopy(network).cpu() if isinstance(network, nn.Module) else network


def check_networks(data: dict[str, Any], networks: Networks) -> None:
    """Raise ValueError unless there are modules where the saved group had some of the user's."""
    for name, had, given in zip(Networks._fields, data["networks"], networks, strict=True):
        if had != (given is not None):
            expected, got = ("a module", "none") if had else ("none", "one")
            raise ValueError(
                f"{name}_network: expected {expected}, as in the agent that was saved, got {got}; "
                f"give load the modules that it was built with: {name}_network=..."
            )


def _check_burn_in(config: PPOConfig, net_config: NetConfig) -> None:
    longest = net_config.encoder_config.max_seq_len
    if config.recurrent and config.burn_in >= longest:
        raise ValueError(
            f"PPOConfig.burn_in: expected less than max_seq_len = {longest}, got {config.burn_in}"
        )
