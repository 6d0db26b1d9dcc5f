"""Agents that learn from the rollout that they have just collected, and from no other."""

import warnings
from collections.abc import Iterator, Sequence

from torch import Tensor

from recurrent_rl.acting.player import Player
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.algorithms.recorder import OnPolicyRecorder
from recurrent_rl.envs.rows import Observed, RowSource


class OnPolicyAgent(Agent):
    """The on-policy half of an agent; ``SingleAgent`` or ``MultiAgent`` is the other.

    Attributes, beside those of ``Agent``:
        trainers: what trains each group, by its name.

    """

    config_type = PPOConfig
    trainer_type = OnPolicyTrainer
    trainers: dict[str, OnPolicyTrainer]
    _wasted = False  # it has been said that a rollout was thrown away

    @property
    def config(self) -> PPOConfig:
        """Hyper-parameters, of the first group; mutations may give each group its own."""
        return next(iter(self.trainers.values())).config

    def start_rollout(
        self,
        steps: int,
        players: Sequence[Player],
        seen: Sequence[Observed],
        rows: RowSource,
        continued: bool,
    ) -> list[OnPolicyRecorder]:
        if not self._wasted and any(trainer.collected for trainer in self.trainers.values()):
            self._wasted = True
            warnings.warn(
                "collect_rollouts_recurrent: the last rollout is thrown away, as nothing was "
                "learned from it; call agent.learn() after each collection, or collect more at "
                "once by n_steps= or learn_step=",
                stacklevel=3,
            )
        for trainer, observed in zip(self.trainers.values(), seen, strict=True):
            codec = trainer.policy.view_codec
            if codec is not None and observed.view is None:
                raise ValueError(
                    "env: expected the agents that critics were built for, got other ones, for "
                    "whom policies can act and be tested only; build an agent for them, or use IPPO"
                )
        parts = zip(self.trainers.values(), players, seen, strict=True)
        return [
            trainer.recorder(
                steps,
                player,
                masked=observed.action_mask is not None,
                continued=continued,
                final_is_next=rows.final_is_next,
                name=lambda row, i=i: rows.name(i, row),  # type: ignore[misc]
            )
            for i, (trainer, player, observed) in enumerate(parts)
        ]

    def end_rollout(self, steps: int) -> None:
        steps = self.on_all_ranks(steps)
        for trainer in self.trainers.values():
            trainer.end_rollout(steps)

    def _shared(self) -> Iterator[Tensor]:
        yield from super()._shared()
        for trainer in self.trainers.values():
            if trainer.reward_norm is not None:
                yield from trainer.reward_norm.state_dict().values()
