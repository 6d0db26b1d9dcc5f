"""Decisions that a rollout leaves open: what they led to is seen in the next one only.

Letters: N rows (environment, agent), M decisions, K layers, H units, F width of extra inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class OpenDecisions:
    """One row's last decision each, where the row had not been asked again when the rollout ended.

    Others act meanwhile, or the environment acts for the agent; what the decision earns may still
    be to come. So it is trained on with the next rollout, as that one's first step.

    Attributes:
        row: which rows, int64 [M]; each at most once.
        obs: what the policy saw, [M, *shape].
        extra: previous action, previous reward and identity, [M, F] or None.
        action: stored form, [M, *shape].
        action_mask: bool [M, mask_size] or None.
        hidden: the state before the decision, [M, K, H] each.
        reward: earned since, discounted to the decision, as the environment gave it, [M].
        discount: of what comes next, in [0, 1], [M].
        view: what a central critic saw, [M, *shape] or None.

    """

    row: Tensor
    obs: Tensor
    extra: Tensor | None
    action: Tensor
    action_mask: Tensor | None
    hidden: list[Tensor]
    reward: Tensor
    discount: Tensor
    view: Tensor | None = None

    def to_data(self) -> dict[str, Any]:
        """Tensors, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any] | None) -> "OpenDecisions | None":
        """Rebuild what ``to_data`` described, on the CPU, sharing no memory with it."""
        if data is None:
            return None

        def copied(value: Any) -> Any:
            if isinstance(value, list):
                return [copied(each) for each in value]
            return None if value is None else value.to("cpu", copy=True)

        return cls(**{field.name: copied(data.get(field.name)) for field in fields(cls)})


def last_decision(decided: Tensor, ended: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Find the decisions that are still open after a rollout.

    Args:
        decided: the policy chose this step's action, bool [T, N].
        ended: the row's life ended with this step, bool [T, N].
        asked: rows that the policy chooses for next, bool [N].

    Returns:
        row: int64 [M].
        time: of each one's last decision, int64 [M].

    """
    time = torch.arange(len(decided))[:, None]
    last, end = (torch.where(flag, time, -1).amax(0) for flag in (decided, ended))
    row = ((last > end) & ~asked).nonzero().squeeze(1)
    return row, last[row]
