"""The PPO agent that users hold: construct, act, learn, test, save, load, clone."""

import copy
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv

from recurrent_rl import checkpoint, evaluation, learner
from recurrent_rl.checkpoint import CheckpointError
from recurrent_rl.collect import Carry
from recurrent_rl.config import NetConfig, PPOConfig
from recurrent_rl.learner import Diagnostics
from recurrent_rl.networks import ActorCritic, RunningNorm, adam_state_for, share_memory_of
from recurrent_rl.recurrent import HiddenState
from recurrent_rl.rollout import SequenceRolloutBuffer
from recurrent_rl.spaces import space_from_dict, space_to_dict
from recurrent_rl.vector import Array


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


class PPO:
    """Proximal policy optimisation for policies that remember (and for those that do not).

    Source: Schulman et al. 2017, "Proximal Policy Optimization Algorithms".

    >>> from recurrent_rl import PPO, collect_rollouts_recurrent, make_vect_envs
    >>> env = make_vect_envs("CartPole-v1", 4, should_async_vector=False)
    >>> agent = PPO(env.single_observation_space, env.single_action_space, learn_step=32, seed=0)
    >>> stats = collect_rollouts_recurrent(agent, env)
    >>> agent.learn().updates
    4

    Attributes:
        config: hyper-parameters.
        net_config: network shapes.
        policy: the network.
        optimizer: Adam over it.
        buffer: the last rollout; None before the first.
        steps: environment steps trained for, a list for training loops to append to.
        fitness: results of ``test``, in order.
        scores: returns of training episodes, for training loops to fill.
        env_steps: transitions collected so far, the clock of ``lr_schedule``.

    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net_config: NetConfig | Mapping[str, Any] | None = None,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        **hyperparameters: Any,
    ) -> None:
        """Build an untrained agent.

        Args:
            observation_space: of one environment: Box with one dimension, or Discrete.
            action_space: of one environment: Discrete or Box.
            net_config: ``{"encoder_config": {...}, "head_config": {...}}``, see ``NetConfig``.
            device: of the policy; rollouts are stored on the CPU.
            seed: of weights, actions, shuffling, and of the environments at each fresh start of
                collection. None takes fresh entropy and leaves environments' seeds alone.
            hyperparameters: the fields of ``PPOConfig``.

        Raises:
            TypeError: a space or a value of the wrong kind.
            ValueError: an unknown name or a value out of range; the message has what is known.

        """
        if not isinstance(net_config, NetConfig):
            net_config = NetConfig.from_dict(net_config or {})
        self.config, self.net_config = PPOConfig.from_dict(hyperparameters), net_config
        longest = net_config.encoder_config.max_seq_len
        if self.config.recurrent and self.config.burn_in >= longest:
            raise ValueError(
                f"PPOConfig.burn_in: expected less than max_seq_len = {longest}, got "
                f"{self.config.burn_in}"
            )
        self.observation_space, self.action_space = observation_space, action_space
        self.device, self.seed = torch.device(device), seed
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        with torch.random.fork_rng(devices=[]):  # leave the caller's global random state alone
            torch.default_generator.manual_seed(
                int(torch.randint(2**62, (), generator=self.generator))
            )
            self.policy = ActorCritic(observation_space, action_space, net_config, self.config)
        self.policy.to(self.device)
        on_cpu = self.device.type == "cpu"
        parameters = [share_memory_of(self.policy)] if on_cpu else list(self.policy.parameters())
        self.optimizer = torch.optim.Adam(
            parameters, lr=self.config.lr, eps=self.config.adam_eps, fused=True
        )
        self.reward_norm = RunningNorm(1) if self.config.normalize_reward else None
        self.buffer: SequenceRolloutBuffer | None = None
        self.carry: Carry | None = None
        self.collected = False
        self.env_steps = 0
        self.steps: list[int] = [0]
        self.fitness: list[float] = []
        self.scores: list[float] = []

    def __repr__(self) -> str:
        """Spaces, shapes and size at a glance."""
        size = sum(p.numel() for p in self.policy.parameters())
        encoder = self.net_config.encoder_config
        kind = f"{encoder.cell}({encoder.num_layers} x {encoder.hidden_state_size})"
        return (
            f"PPO({self.observation_space} -> {self.action_space}, "
            f"{kind if self.config.recurrent else 'feed-forward'}, {size:,} parameters, "
            f"{self.env_steps:,} steps)"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Join the parameters and the optimiser's vector again, which copying tears apart."""
        self.__dict__.update(state)
        if self.device.type == "cpu":
            group = self.optimizer.param_groups[0]
            (old,), new = group["params"], share_memory_of(self.policy)
            group["params"] = [new]
            if old in self.optimizer.state:
                self.optimizer.state[new] = self.optimizer.state.pop(old)

    @property
    def learn_step(self) -> int:
        """T, steps per environment in a rollout."""
        return self.config.learn_step

    # --- acting -----------------------------------------------------------------------------

    def get_initial_hidden_state(self, n: int = 1) -> HiddenState:
        """Return the memory of N rows at the start of an episode."""
        if n < 1:
            raise ValueError(f"n: expected at least 1 row, got {n}")
        return self.policy.initial_state(n)

    @torch.no_grad()
    def get_action(
        self,
        obs: Any,
        hidden_state: HiddenState | None = None,
        action_mask: Any = None,
        *,
        deterministic: bool = False,
        reward: Any = None,
    ) -> ActionOutput:
        """Choose actions; the agent itself keeps no memory between calls.

        Args:
            obs: [N, *shape], or one observation [*shape] with a state of one row.
            hidden_state: from ``get_initial_hidden_state`` or the last call; a feed-forward agent
                needs none.
            action_mask: allowed actions, bool [N, n]; Discrete actions only.
            deterministic: the most likely action instead of a sample.
            reward: the last rewards, [N], zeros at an episode's start; for agents built with
                previous_reward only.

        Returns:
            the five of ``ActionOutput``; without the leading axis for a single observation.

        Raises:
            TypeError: not numbers, or no HiddenState.
            ValueError: wrong shapes, numbers that are not finite, a state of the wrong size or
                from another kind of agent, a missing state or reward.

        """
        codec, head = self.policy.codec, self.policy.head
        array = np.asarray(obs)
        single = array.ndim == len(codec.shape)
        array = array[None] if single else array
        rows = len(array) if array.ndim else 1
        observation = torch.as_tensor(codec.check(array, rows), dtype=codec.dtype)
        state = self._check_state(hidden_state, rows)
        last = self._check_reward(reward, rows)
        mask = self._check_mask(action_mask, rows, single)
        extra = self.policy.extra_inputs(state, last)
        noise = None if deterministic else head.noise((rows,), self.generator).to(self.device)
        acted = self.policy.act(observation.to(self.device), extra, state, noise, mask)
        each = 0 if single else slice(None)
        return ActionOutput(
            head.to_env(acted.action)[each],
            head.log_prob(acted.params, acted.action).numpy(force=True)[each],
            head.entropy(acted.params).numpy(force=True)[each],
            self.policy.value_of(acted.critic_features).numpy(force=True)[each],
            acted.state,
        )

    def _check_state(self, state: HiddenState | None, rows: int) -> HiddenState:
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

    def _check_mask(self, mask: Any, rows: int, single: bool) -> torch.Tensor | None:
        if mask is None:
            return None
        size = self.policy.head.mask_size
        array = np.asarray(mask)[None] if single else np.asarray(mask)
        if not size or array.shape != (rows, size):
            expected = f"shape [N, n] = [{rows}, {size}]" if size else "none for this action space"
            raise ValueError(f"action_mask: expected {expected}, got shape {list(array.shape)}")
        if not array.any(-1).all():
            row = int(np.flatnonzero(~array.any(-1))[0])
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
        self.env_steps += self.buffer.steps * self.buffer.rows
        self.collected = True

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
        if self.policy.norm is not None:
            seen = self.buffer.obs[self.buffer.exists]
            self.policy.norm.update(seen.to(self.device))
        return result

    def _lr(self) -> float:
        config = self.config
        if config.lr_schedule == "constant" or config.total_steps is None:
            return config.lr
        # The rollout about to be learned from is counted already; its share is still to come.
        assert self.buffer is not None
        done = self.env_steps - self.buffer.steps * self.buffer.rows
        return config.lr * max(1 - done / config.total_steps, 0.0)

    # --- testing ----------------------------------------------------------------------------

    def evaluate(
        self,
        env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
        episodes: int,
        *,
        max_steps: int | None = None,
        deterministic: bool = True,
        seed: int | None = None,
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Run episodes without learning.

        Every environment of a vector plays the same number of episodes from fresh resets, so that
        short episodes are not favoured.

        Args:
            env: one environment or a vector of E; left open, and its next collection starts
                afresh.
            episodes: at least this many; rounded up to a multiple of E.
            max_steps: stop each episode here; None plays to its end.
            deterministic: take the most likely actions.
            seed: of the first reset; None leaves the environment's randomness as it is.

        Returns:
            undiscounted returns, [episodes].

        """
        return evaluation.evaluate(
            self, env, episodes, max_steps=max_steps, deterministic=deterministic, seed=seed
        )

    def test(
        self,
        env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
        max_steps: int | None = None,
        loop: int = 3,
        **options: Any,
    ) -> float:
        """Return the mean return of ``loop`` deterministic episodes, and append it to ``fitness``.

        Args:
            env: one environment, or a vector of E, each of which plays ``loop`` episodes.
            max_steps: of each episode; None plays to its end.
            loop: episodes of each environment, at least 1.
            options: ``deterministic`` and ``seed``, as ``evaluate`` takes them.

        """
        if loop < 1:
            raise ValueError(f"loop: expected at least 1 episode, got {loop}")
        episodes = loop * int(getattr(env, "num_envs", 1))
        mean = float(self.evaluate(env, episodes, max_steps=max_steps, **options).mean())
        self.fitness.append(mean)
        return mean

    # --- saving -----------------------------------------------------------------------------

    def save_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Save everything that training goes on from: atomically, readable in weights-only mode.

        Weights, optimiser, normalisation, hyper-parameters, counters, random state, and where
        collection stopped. A rollout that has not been learned from is not saved.

        Raises:
            FileNotFoundError: the directory does not exist.
            PermissionError: it cannot be written.

        """
        checkpoint.save(self._to_data(), path)

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Become the agent that was saved, hyper-parameters included.

        To go on training exactly where it stopped, put the environment back into its state and
        call ``collect_rollouts_recurrent(agent, env, reset=False)``.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: truncated, foreign, or of an agent with other spaces or networks;
                this agent is as before.

        """
        other = type(self).load(path, self.device)
        for name in ("observation_space", "action_space", "net_config"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise CheckpointError(
                    f"{path}: expected this agent's {name} {ours}, got {theirs}; use "
                    f"{type(self).__name__}.load(path) to build the saved agent anew"
                )
        self.__dict__.update(other.__dict__)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Self:
        """Build the agent that was saved.

        Args:
            path: written by ``save_checkpoint``.
            device: of the policy.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: truncated or foreign.

        """
        data = checkpoint.load(path)
        if data.get("algorithm") != cls.__name__:
            raise CheckpointError(
                f"{path}: expected a saved {cls.__name__}, got {data.get('algorithm')!r}"
            )
        try:
            return cls._from_data(data, device)
        except Exception as error:  # whatever the wrong part does to the code that reads it
            raise CheckpointError(f"{path}: the parts do not fit together: {error}") from error

    def clone(self) -> Self:
        """Return an independent copy that has not collected anything yet."""
        data = self._to_data()
        data["carry"] = None
        return type(self)._from_data(copy.deepcopy(data), self.device)

    def _to_data(self) -> dict[str, Any]:
        return {
            "algorithm": type(self).__name__,
            "observation_space": space_to_dict(self.observation_space),
            "action_space": space_to_dict(self.action_space),
            "net_config": self.net_config.to_dict(),
            "config": self.config.to_dict(),
            "seed": self.seed,
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "reward_norm": None if self.reward_norm is None else self.reward_norm.state_dict(),
            "generator": self.generator.get_state(),
            "env_steps": self.env_steps,
            "steps": list(self.steps),
            "fitness": list(self.fitness),
            "scores": list(self.scores),
            "carry": None if self.carry is None else self.carry.to_data(),
        }

    @classmethod
    def _from_data(cls, data: dict[str, Any], device: torch.device | str) -> Self:
        agent = cls(
            space_from_dict(data["observation_space"]),
            space_from_dict(data["action_space"]),
            NetConfig.from_dict(data["net_config"]),
            device=device,
            seed=data["seed"],
            **data["config"],
        )
        agent.policy.load_state_dict(data["policy"])
        parameters = list(agent.policy.parameters())
        agent.optimizer.load_state_dict(
            adam_state_for(agent.optimizer, data["optimizer"], parameters)
        )
        if agent.reward_norm is not None:
            agent.reward_norm.load_state_dict(data["reward_norm"])
        agent.generator.set_state(data["generator"].cpu())
        agent.env_steps = data["env_steps"]
        agent.steps, agent.fitness = list(data["steps"]), list(data["fitness"])
        agent.scores = list(data["scores"])
        if data["carry"] is not None:
            agent.carry = Carry.from_data(data["carry"], agent.device)
        return agent
