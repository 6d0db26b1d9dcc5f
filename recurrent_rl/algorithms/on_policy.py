"""On-policy training of one group: its rollout, returns, reward statistics and optimiser.

Letters: T steps, E environments, A agents in the group, N = E * A rows.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import Player
from recurrent_rl.algorithms.configs import Coefficients, PPOConfig
from recurrent_rl.algorithms.policy_optimizer import PolicyOptimizer
from recurrent_rl.algorithms.ppo_update import Diagnostics, ppo_update
from recurrent_rl.algorithms.recorder import OnPolicyRecorder
from recurrent_rl.algorithms.trainer import Trainer
from recurrent_rl.buffers.open_decisions import OpenDecisions
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer, discounted_returns
from recurrent_rl.functional.reward_scaling import REWARD_CLIP
from recurrent_rl.networks.acting_policy import CustomNetworks, Policy
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.flat_parameters import align_parameters
from recurrent_rl.networks.normalization import RewardNorm
from recurrent_rl.networks.policy import ActorCritic

IDLE = 10  # rollouts in a row without an update that are worth a warning


class OnPolicyTrainer(Trainer):
    """Trains one group on its rollouts.

    Attributes, beside those of ``Trainer``:
        reward_norm: running statistics of the discounted return; None without.
        collected: it is whole, and has not been learned from.

    """

    config_type = PPOConfig
    policy_type = ActorCritic
    config: PPOConfig
    reward_norm: RewardNorm | None
    collected: bool

    def __init__(self, group: AgentGroup, config: PPOConfig) -> None:
        """Train ``group``, whose policy was built with the same ``config``."""
        super().__init__(group, config)
        group.reward_scale = config.reward_scale
        self._optimizer = PolicyOptimizer(group.policy, group.device, config.lr, config.adam_eps)
        self.reward_norm = RewardNorm() if config.normalize_reward else None
        self.collected = False
        self._prepared = True
        self._discounted: Tensor | None = None  # discounted return so far, [N]
        self._said: set[str] = set()  # warnings given
        self._new_steps = 0  # of the last rollout, on all ranks
        self._idle = 0  # rollouts in a row that gave no update
        self._open: OpenDecisions | None = None  # what the last rollout has left open

    @property
    def buffer(self) -> SequenceRolloutBuffer | None:
        """The last rollout, which the group has too; None before the first."""
        return cast("SequenceRolloutBuffer | None", self.group.buffer)

    @buffer.setter
    def buffer(self, buffer: SequenceRolloutBuffer | None) -> None:
        self.group.buffer = buffer

    @property
    def policy(self) -> ActorCritic:
        """The group's."""
        return cast("ActorCritic", self.group.policy)

    @property
    def optimizer(self) -> torch.optim.Adam:
        """Adam over those parameters of the policy that require gradients."""
        return self._optimizer.adam

    def _reconfigured(self, changes: Mapping[str, Any]) -> None:
        self.group.reward_scale = self.config.reward_scale
        if "lr" in changes:
            self._optimizer.set_lr(self.config.lr)

    def moments(self) -> list[dict[str, Tensor]]:
        """Return Adam's moments for each of the policy's trained parameters; {} for none."""
        return self._optimizer.moments(self.policy)

    def noisy_modules(self) -> list[nn.Module]:
        return [self.policy.encoders[0], self.policy.action_head.layers]

    def replace_policy(
        self, net_config: NetConfig, policy: Policy, moments: list[dict[str, Tensor]]
    ) -> None:
        """Take another network for the same spaces; collection starts afresh.

        Args:
            net_config: its shapes.
            policy: from ``AgentGroup.build_policy``.
            moments: Adam's, for each of its parameters; empty to begin anew.

        """
        self.group.net_config, self.group.policy = net_config, policy
        self._optimizer.replace(policy, moments)
        self._prepare()
        self.buffer, self.collected, self._discounted, self._open = None, False, None, None

    # --- collecting -------------------------------------------------------------------------

    def recorder(
        self,
        steps: int,
        player: Player,
        *,
        masked: bool,
        continued: bool,
        final_is_next: bool,
        name: Callable[[int], str],
    ) -> OnPolicyRecorder:
        """Begin a rollout; until it is whole there is nothing to learn from.

        Args:
            steps: T.
            player: who acts.
            masked: there are action masks.
            continued: it goes on where the last one ended.
            final_is_next: see ``RowSource``.
            name: says what a row is.

        """
        self._optimizer.check(self.policy)
        align_parameters(self.policy.parameters())
        self._prepare()  # a rollout that nobody has learned from still counts in the statistics
        earlier = self._open if continued else None
        self._open = None
        lead = int(earlier is not None)
        masked = masked or (earlier is not None and earlier.action_mask is not None)
        buffer = self._fitting_buffer(steps, player.state.rows, masked, lead)
        buffer.continued, self.collected = continued, False
        return OnPolicyRecorder(buffer, player, final_is_next, name, earlier)

    def _fitting_buffer(
        self, steps: int, rows: int, masked: bool, lead: int
    ) -> SequenceRolloutBuffer:
        """Return a buffer for T steps of N rows: the last one if it fits."""
        policy, config, buffer = self.policy, self.config, self.buffer
        view = policy.view_codec
        mask_size = policy.actions.mask_size if masked else 0
        if (
            buffer is not None
            and (buffer.steps, buffer.rows, buffer.lead) == (steps, rows, lead)
            and (buffer.action_mask is not None) == (mask_size > 0)
        ):
            return buffer
        buffer = self.buffer = SequenceRolloutBuffer(
            steps,
            rows,
            obs_shape=policy.codec.shape,
            obs_dtype=policy.codec.dtype,
            action_shape=policy.actions.shape,
            action_dtype=policy.actions.dtype,
            state_shapes=policy.state_shapes[: policy.memory],
            max_seq_len=config.max_seq_len if config.recurrent else 1,
            burn_in=config.burn_in if config.recurrent else 0,
            extra=policy.extra.width,
            mask_size=mask_size,
            lead=lead,
            view_shape=None if view is None else view.shape,
            view_dtype=torch.float32 if view is None else view.dtype,
            agents=self.group.size,
        )
        return buffer

    def end_rollout(self, steps: int) -> None:
        """Note that the rollout is whole, after so many environment steps on all ranks."""
        self._new_steps = steps
        self.env_steps += steps
        self.collected, self._prepared = True, False
        assert self.buffer is not None
        self._open = self.buffer.open_decisions(self.config.gamma, self.config.discount_by)

    # --- learning ---------------------------------------------------------------------------

    def ready(self) -> bool:
        """Check that there is a rollout to learn from; return whether a parameter is trained.

        Raises:
            RuntimeError: nothing has been collected since the last call, or the policy or the
                optimiser was changed beyond what learning can go on from.
            TypeError, ValueError: a schedule's function gave no finite number from 0; the rollout
                can still be learned from.

        """
        if self.buffer is None or not self.collected:
            raise RuntimeError(
                "learn: expected a rollout collected since the last call; call "
                "collect_rollouts_recurrent(agent, env) first"
            )
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "learn: expected a call outside of torch.inference_mode, which gradients cannot "
                "be computed in; collect and learn outside of it"
            )
        self._optimizer.check_groups()
        self.coefficients()  # functions of somebody else's may fail
        return self._optimizer.join(self.policy)

    def learn(self) -> Diagnostics:
        """Train on the rollout that ``collect_rollouts_recurrent`` has filled the buffer with.

        A policy, or a trunk, that is frozen as a whole stays as it is, its statistics included.

        Returns:
            losses and what else there is to know.

        Raises:
            RuntimeError, TypeError, ValueError: see ``ready``.
            FloatingPointError: a gradient was not finite; the weights are those before it.

        """
        trained = self.ready()
        assert self.buffer is not None
        now = self.coefficients()
        self._say_what_is_over()
        self.collected = False
        self._prepare()
        if not trained:
            self._warn_once("learn: all parameters of a policy are frozen; it stays as it is")
            return Diagnostics.of_nothing(now)
        self._optimizer.set_lr(now.lr)
        learned = self.buffer.active & self.buffer.exists
        self.policy.value_head.follow(self.buffer.returns[learned], self.world)
        result = ppo_update(
            self.policy,
            self.optimizer,
            self.buffer,
            self.config,
            now,
            self.group.generator,
            self.world,
        )
        # Whoever waits, for a decision's reward or for the next turn, learns later.
        waits = self._open is not None or not bool(self.buffer.exists.any())
        self._idle = 0 if result.updates else self._idle + (not waits)
        if self._idle == IDLE:
            self._warn_once(
                f"learn: in {IDLE} rollouts in a row there was nothing to learn from: no action "
                f"was the policy's own choice, or target_kl stopped every update"
            )
        # Only now: while a rollout is collected and learned from, the policy must not change
        # under it, or the probability ratios would be off before the first update.
        new = self.buffer.behind_lead()
        self.policy.update_statistics(new.obs, new.exists, world=self.world)
        if new.views is not None:
            somebody = new.exists.unflatten(1, (-1, new.agents)).any(-1)
            views = new.views.unflatten(0, somebody.shape)
            self.policy.update_statistics(views, somebody, views=True, world=self.world)
        return result

    def _warn_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warnings.warn(message, stacklevel=6)  # the caller of the agent's learn

    def _prepare(self) -> None:
        """Move the reward statistics and compute the returns, once for each rollout."""
        if self._prepared or self.buffer is None:
            return
        self._prepared = True
        buffer, config = self.buffer, self.config
        scale, clip = config.reward_scale, math.inf
        if self.reward_norm is not None:
            total, after = discounted_returns(
                buffer, config.gamma, self._discounted, config.discount_by
            )
            greatest = self.reward_norm.greatest  # or an outlier would count for many rollouts
            self._discounted = after.clamp(-greatest, greatest)
            self.reward_norm.update(total[buffer.decided()[buffer.lead :]][:, None], self.world)
            scale *= self.reward_norm.factor(config.gamma)
            clip = REWARD_CLIP * config.reward_scale
        buffer.compute_returns(
            buffer.last_value,
            config.gamma,
            config.gae_lambda,
            scale,
            reward_clip=clip,
            discount_by=config.discount_by,
        )

    def _learned_steps(self) -> int:
        """Return the environment steps that were learned from before this rollout."""
        # The rollout about to be learned from is counted already; its share is still to come.
        return self.env_steps - self._new_steps

    def coefficients(self) -> Coefficients:
        """Return what schedules make of hyper-parameters for the rollout that was collected."""
        return self.config.coefficients(self._learned_steps())

    def _say_what_is_over(self) -> None:
        message = self.config.end(self._learned_steps())
        if message is not None:
            self._warn_once(message)

    # --- saving -----------------------------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        self._prepare()
        return {
            **self.group.to_data(),
            "config": self.config.to_dict(),
            "optimizer": self._optimizer.state_dict(self.policy),
            "reward_norm": None if self.reward_norm is None else self.reward_norm.state_dict(),
            "discounted": self._discounted,
            "open": None if self._open is None else self._open.to_data(),
            "env_steps": self.env_steps,
        }

    @classmethod
    def from_data(
        cls, data: Mapping[str, Any], device: torch.device | str, custom_networks: CustomNetworks
    ) -> Self:
        trainer = super().from_data(data, device, custom_networks)
        trainer._optimizer.load_state_dict(trainer.policy, data["optimizer"])
        if trainer.reward_norm is not None:
            trainer.reward_norm.load_state_dict(data["reward_norm"])
        if data["discounted"] is not None:
            trainer._discounted = data["discounted"].to("cpu", copy=True)
        trainer._open = OpenDecisions.from_data(data.get("open"))
        return trainer


def learn_all(trainers: Mapping[str, OnPolicyTrainer]) -> dict[str, Diagnostics]:
    """Have each group learn; all are checked before any does.

    Raises:
        RuntimeError: see ``OnPolicyTrainer.ready``; or every parameter of every group is frozen.
        TypeError, ValueError: see ``OnPolicyTrainer.ready``.
        FloatingPointError: a gradient was not finite.

    """
    ready = [trainer.ready() for trainer in trainers.values()]  # all, before any learns
    if not any(ready):
        raise RuntimeError(
            "learn: expected parameters that require gradients, got none, as all are frozen; "
            "unfreeze some by agent.policy.requires_grad_(True)"
        )
    learned = {}
    for name, trainer in trainers.items():
        learned[name] = trainer.learn()
    return learned
