"""Agents for Gymnasium environments: one group of one agent, without a name."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from recurrent_rl.acting.evaluate import play_episodes
from recurrent_rl.acting.group import ActionOutput, AgentGroup
from recurrent_rl.acting.spectator import Spectator
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.configs import sorted_options
from recurrent_rl.algorithms.scoring import FitnessFunction, check_alone, value_alone
from recurrent_rl.algorithms.swapping import warn_of_swap_channels
from recurrent_rl.algorithms.trainer import Trainer
from recurrent_rl.envs.gymnasium_vector import GymRows
from recurrent_rl.envs.rows import Observed
from recurrent_rl.export.export import export_one
from recurrent_rl.networks.acting_policy import CustomNetworks, Policy
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.recurrent.state import HiddenState
from recurrent_rl.spaces.array import Array
from recurrent_rl.spaces.masks import flat_mask, part_mask
from recurrent_rl.spaces.serialization import same_space
from recurrent_rl.validation import SEED, checked


class SingleAgent(Agent):
    """One agent in Gymnasium environments, whatever its algorithm.

    Attributes, beside those of ``Agent``:
        trainer: what trains the policy.
        group: the policy, and how it acts.

    """

    _fixed = ("observation_space", "action_space", "net_config")

    def __repr__(self) -> str:
        """Spaces, networks and sizes at a glance."""
        return self.trainer.describe(f"{type(self).__name__} after {self.env_steps:,} steps")

    def _build(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        net_config: NetConfig | Mapping[str, Any] | None,
        hyperparameters: Mapping[str, Any],
        networks: CustomNetworks,
        device: torch.device | str,
        seed: int | None,
    ) -> None:
        """Set up an untrained agent from what constructors take."""
        seed = checked("seed", seed, Annotated[int | None, SEED])
        shapes, options = sorted_options(net_config, hyperparameters)
        config, kind = self.config_type.from_dict(options), self.trainer_type
        group = AgentGroup(
            observation_space,
            action_space,
            shapes,
            config,
            device=device,
            seed=seed,
            custom_networks=networks,
            kind=kind.policy_type,
        )
        self._set_up({"": kind(group, config)}, device, seed)

    # --- parts ------------------------------------------------------------------------------

    @property
    def trainer(self) -> Trainer:
        """What trains the policy."""
        return self.trainers[""]

    @property
    def group(self) -> AgentGroup:
        """The policy, and how it acts."""
        return self.trainer.group

    @property
    def observation_space(self) -> gym.Space[Any]:
        """Of one environment, without the action mask that may be in it."""
        return self.group.observation_space

    @property
    def action_space(self) -> gym.Space[Any]:
        """Of one environment."""
        return self.group.action_space

    @property
    def policy(self) -> Policy:
        """The network."""
        return self.group.policy

    @property
    def net_config(self) -> NetConfig:
        """Network shapes."""
        return self.group.net_config

    def rows_of(self, env: VectorEnv[Any, Any, Any]) -> GymRows:
        """See a Gymnasium vector environment as rows.

        Raises:
            TypeError: it is of another kind.
            ValueError: no declared autoreset mode, or spaces that are not the agent's.

        """
        rows = GymRows(env)
        for name, expected, got in (
            ("observation", self.observation_space, rows.observation_space),
            ("action", self.action_space, rows.env.single_action_space),
        ):
            if not same_space(expected, got, bounds=name == "action"):
                raise ValueError(
                    f"env: expected the agent's {name} space {expected}, got {got}; build the "
                    f"agent from this environment's spaces, or wrap the environment as in training"
                )
        return rows

    # --- acting -----------------------------------------------------------------------------

    def get_initial_hidden_state(self, n: int = 1) -> HiddenState:
        """Return the memory of N rows at the start of an episode."""
        if n < 1:
            raise ValueError(f"n: expected at least 1 row, got {n}")
        return self.policy.initial_state(n)

    def get_action(
        self,
        obs: Any,
        hidden_state: HiddenState | None = None,
        action_mask: Any = None,
        *,
        deterministic: bool | None = None,
        reward: Any = None,
    ) -> ActionOutput:
        """Choose actions; the agent itself keeps no memory between calls.

        Args:
            obs: [N, *shape], or one observation [*shape] with a state of one row; of Dict and
                Tuple spaces dictionaries and tuples of these, an "action_mask" within it included.
            hidden_state: from ``get_initial_hidden_state`` or the last call; a feed-forward agent
                needs none.
            action_mask: allowed actions, bool [N, n], for Discrete actions; for MultiDiscrete ones
                those of the components joined, or a tuple of them. Goes before the observation's.
            deterministic: the most likely action instead of a sample; None: a sample, unless
                ``training`` is False.
            reward: the last rewards, [N], zeros at an episode's start; for agents built with
                previous_reward only.

        Returns:
            the five of ``ActionOutput``; without the leading axis for a single observation.

        Raises:
            TypeError: not numbers, or no HiddenState.
            ValueError: wrong shapes, numbers that are not finite, a state of the wrong size or
                from another kind of agent, a missing state or reward.

        """
        layout, mask = self.policy.codec.layout, action_mask
        deterministic = not self.training if deterministic is None else deterministic
        if self.policy.actions.choices:
            obs, own = part_mask(obs)
            mask = own if mask is None else mask
        batch, rows, single = layout.batched(obs)
        if mask is not None:
            mask = flat_mask(mask)[None] if single else flat_mask(mask)
        seen = Observed(layout.check(batch, rows), action_mask=mask)
        out, _ = self.group.choose(seen, hidden_state, deterministic=deterministic, reward=reward)
        if not single:
            return out
        action, log_prob, entropy, value, state = out
        return ActionOutput(action[0], log_prob[0], entropy[0], value[0], state)

    # --- testing ----------------------------------------------------------------------------

    def evaluate(
        self,
        env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
        episodes: int,
        *,
        max_steps: int | None = None,
        deterministic: bool = True,
        seed: int | None = None,
        infos: dict[str, Array] | None = None,
        watch: Spectator | None = None,
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Run episodes without learning.

        Every environment of a vector plays the same number of episodes from fresh resets, so that
        short episodes are not favoured. One environment, and those of a ``SyncVectorEnv``, are
        reset once for each episode and left at the end of the last one; other vectors reset
        themselves as their autoreset mode says.

        Args:
            env: one environment or a vector of E; left open, and its next collection starts
                afresh.
            episodes: at least this many; rounded up to a multiple of E.
            max_steps: stop each episode here; None plays to its end.
            deterministic: take the most likely actions.
            seed: of the first reset; None leaves the environment's randomness as it is.
            infos: a dictionary that is emptied and filled with the finite numbers of the episodes'
                last infos, ``is_success`` for example: arrays [episodes] by name, beside the
                returns; NaN where an episode's has none of that name, or was stopped before.
            watch: sees the episodes as they are played, see ``Spectator``.

        Returns:
            undiscounted returns, [episodes].

        """
        if not hasattr(env, "num_envs"):
            env = one_environment(env)
        (returns,) = play_episodes(
            self,
            env,
            episodes,
            max_steps=max_steps,
            deterministic=deterministic,
            seed=seed,
            infos=infos,
            watch=watch,
        )
        return returns[:, 0]

    def test(
        self,
        env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any],
        max_steps: int | None = None,
        loop: int = 3,
        *,
        fitness: str | FitnessFunction | None = None,
        swap_channels: bool = False,
        **options: Any,
    ) -> float:
        """Return the mean return of ``loop`` deterministic episodes, and append it to ``fitness``.

        Args:
            env: one environment, or a vector of E, each of which plays ``loop`` episodes.
            max_steps: of each episode; None plays to its end.
            loop: episodes of each environment, at least 1.
            fitness: what to return and append instead of the mean return: the mean of a number in
                the episodes' last infos, by its name, such as "is_success" (episodes without it do
                not count); or what a function makes of the returns, [episodes], or of
                ``(returns, infos)``, infos as ``evaluate`` fills them.
            swap_channels: has no effect, as images are recognised; True warns of that.
            options: ``deterministic``, ``seed`` and ``infos``, as ``evaluate`` takes them.

        """
        warn_of_swap_channels(swap_channels)
        if loop < 1:
            raise ValueError(f"loop: expected at least 1 episode, got {loop}")
        check_alone(fitness)
        episodes = loop * int(getattr(env, "num_envs", 1))
        infos = options.pop("infos", None)
        infos = {} if infos is None else infos
        returns = self.evaluate(env, episodes, max_steps=max_steps, infos=infos, **options)
        self.fitness.append(value_alone(fitness, returns, infos, whole=max_steps is None))
        return self.fitness[-1]

    # --- saving -----------------------------------------------------------------------------

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: Literal["onnx", "pt2"] | None = None,
        action_mask: bool = True,
    ) -> Path:
        """Write the policy into a file that is run without this package.

        A step of it, deterministic, as it is now: observations and hidden state in, the action as
        the environment takes it and the next hidden state out, for any number of rows. Statistics
        of observations, masks, squashing and bounds are within; critics are not. The file says what
        its tensors are called and what shapes they have; it is tried out before it is written.

        Args:
            path: of the file, whose directory must exist. One that ends in .onnx is run by any ONNX
                runtime; one in .pt2 by torch (``torch.export``).
            format: of a file whose name ends otherwise.
            action_mask: what is run takes a mask, of Discrete and MultiDiscrete actions; False
                leaves it out, for environments in which everything is always allowed.

        Returns:
            the path.

        Raises:
            ExportError: the policy cannot be exported; the message says why.
            ImportError: ONNX needs packages that are missing (the extra ``export``).
            FileNotFoundError: the directory does not exist.
            ValueError: no such format.

        """
        return export_one(self.group, self._about(), path, format, action_mask)

    def custom_networks(self) -> dict[str, Any]:
        networks = self.group.custom_networks._asdict()
        return {f"{name}_network": module for name, module in networks.items()}

    def _rebuild(
        self, data: dict[str, Any], device: torch.device | str, networks: dict[str, Any]
    ) -> None:
        custom = CustomNetworks(networks.get("actor_network"), networks.get("critic_network"))
        trainer = self.trainer_type.from_data(data["groups"][""], device, custom)
        self._set_up({"": trainer}, device, data["seed"])


def one_environment(env: gym.Env[Any, Any]) -> VectorEnv[Any, Any, Any]:
    """See a single environment as a vector of one."""
    return _OneEnvironment([lambda: env], autoreset_mode=AutoresetMode.SAME_STEP)


class _OneEnvironment(SyncVectorEnv):
    """Somebody's environment, which stays open when the vector around it goes."""

    def close_extras(self, **kwargs: Any) -> None:
        pass
