"""One step of a policy as a function from tensors to tensors, which graphs can be made of.

Letters: N rows, K layers, H units, A agents in a group, n choices of all components of an action.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.acting.player import Player
from recurrent_rl.envs.rows import Observed
from recurrent_rl.recurrent.state import HiddenState

Role = Literal["observation", "hidden_state", "action_mask", "reward", "agent", "action"]
Shape = tuple[int | None, ...]


class ExportError(ValueError):
    """A policy that cannot be exported; the message says why. Nothing has been written."""


@dataclass(frozen=True)
class TensorSpec:
    """What goes in or comes out.

    Attributes:
        name: in the file.
        role: what it is.
        dtype: of its numbers.
        shape: None stands for N.

    """

    name: str
    role: Role
    dtype: np.dtype[Any]
    shape: Shape

    @property
    def rows_axis(self) -> int:
        """Which axis is that of the N rows."""
        return self.shape.index(None)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Its dtype in torch's words."""
        return torch.from_numpy(np.zeros((), self.dtype)).dtype

    def sized(self, rows: int) -> tuple[int, ...]:
        """Return its shape for N rows."""
        return tuple(rows if size is None else size for size in self.shape)


class PolicyStep(nn.Module):
    """Observations and hidden state in, the most likely action and the next hidden state out.

    It acts through the player, as collection and testing do. It is a copy: later training does not
    change it.

    Attributes:
        policy: what acts, without its critic, on the CPU.
        inputs: what ``forward`` takes, in order: the parts of the observation, hidden states, the
            action mask, the last reward, the agent's index.
        outputs: what it gives: the action, the next hidden states.

    """

    identities: Tensor | None

    def __init__(self, group: AgentGroup, action_mask: bool = True) -> None:
        """Copy a group's policy.

        Args:
            group: whose it is.
            action_mask: take a mask, if the action is a choice out of a few.

        """
        super().__init__()
        policy = group.policy.actor_alone().cpu().eval().requires_grad_(False)
        self.policy, self._reward_scale = policy, group.reward_scale
        policy.codec.layout = policy.codec.layout.of_numbers()
        told = policy.extra.identities > 0
        identities = group.identity(np.arange(group.size)) if told else None
        self.register_buffer("identities", None if identities is None else identities.cpu())
        self._mask_size = policy.actions.mask_size * action_mask
        state = self._state_specs()
        self.inputs = [*self._observation_specs(), *state, *self._further_specs()]
        codec = policy.actions
        self.outputs = [
            TensorSpec("action", "action", codec.env_dtype, (None, *codec.env_shape)),
            *(TensorSpec(f"new_{x.name}", x.role, x.dtype, x.shape) for x in state),
        ]

    def _observation_specs(self) -> list[TensorSpec]:
        leaves = self.policy.codec.layout.leaves
        specs = [
            TensorSpec(
                ".".join(("observation", *map(str, leaf.path))),
                "observation",
                leaf.dtype,
                (None, *leaf.shape),
            )
            for leaf in leaves
        ]
        if len({spec.name for spec in specs}) < len(specs):
            names = [leaf.name for leaf in leaves]
            raise ExportError(
                f"observation_space: expected keys that tell its parts apart when they are joined "
                f"by dots, got {', '.join(names)}; name one of them otherwise"
            )
        return specs

    def _state_specs(self) -> list[TensorSpec]:
        dtype = np.dtype(str(next(self.policy.parameters()).dtype).removeprefix("torch."))
        return [
            TensorSpec(f"state_{i}", "hidden_state", dtype, (k, None, h))
            for i, (k, h) in enumerate(self.policy.state_shapes)
        ]

    def _further_specs(self) -> list[TensorSpec]:
        specs = []
        if self._mask_size:
            shape = (None, self._mask_size)
            specs.append(TensorSpec("action_mask", "action_mask", np.dtype(bool), shape))
        if self.policy.extra.reward:
            specs.append(TensorSpec("reward", "reward", np.dtype(np.float32), (None,)))
        if self.identities is not None:
            specs.append(TensorSpec("agent", "agent", np.dtype(np.int64), (None,)))
        return specs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Take a step: ``inputs`` in, ``outputs`` out."""
        observation = self.policy.codec.layout.record(self._of(inputs, "observation"))
        state = HiddenState(self._of(inputs, "hidden_state"), observation.shape[0])
        mask, reward, agent = (
            next(iter(self._of(inputs, role)), None) for role in ("action_mask", "reward", "agent")
        )
        identity = None if agent is None or self.identities is None else self.identities[agent]
        scale = self._reward_scale
        player = Player(self.policy, state, identity=identity, reward_scale=scale)
        if reward is not None:
            player.hear(reward, None)
        turn = player.act(Observed(NOT_READ), observation, None, mask)
        action = self.policy.actions.for_env(turn.acted.action).to(self.outputs[0].torch_dtype)
        return action, *player.state.tensors

    def _of(self, inputs: Sequence[Tensor], role: str) -> list[Tensor]:
        pairs = zip(inputs, self.inputs, strict=True)
        return [given for given, spec in pairs if spec.role == role]


# The player reads the tensor that goes with it.
NOT_READ = np.zeros(0)
