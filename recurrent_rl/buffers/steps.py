"""Steps: what every algorithm stores of what happened, whatever it makes of it.

Letters: T steps, N rows (environment, agent), L longest sequence (``max_seq_len``), K layers, H
units, F width of the extra inputs. Time comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recurrent_rl.recurrent.sequences import Sequences, cut_sequences, state_times
from recurrent_rl.recurrent.state import HiddenState


@dataclass(frozen=True)
class StepShapes:
    """What one step of one row takes.

    Attributes:
        obs_shape: of one stored observation.
        action_shape: of one stored action.
        obs_dtype: of the store.
        action_dtype: likewise.
        state_shapes: (K, H) of each state tensor.
        extra: F; 0 for no extra inputs.
        mask_size: width of an action mask; 0 for none.
        spaces: of observations and actions, in words; () where nobody asks.
        view_shape: of one stored view of a central critic; None without one.
        view_dtype: of the store.
        agents: A; rows e * A to e * A + A - 1 have the same view.

    """

    obs_shape: tuple[int, ...]
    action_shape: tuple[int, ...]
    obs_dtype: torch.dtype = torch.float32
    action_dtype: torch.dtype = torch.float32
    state_shapes: Sequence[tuple[int, int]] = ()
    extra: int = 0
    mask_size: int = 0
    spaces: tuple[str, ...] = ()
    view_shape: tuple[int, ...] | None = None
    view_dtype: torch.dtype = torch.float32
    agents: int = 1


class Steps:
    """T steps of N rows, time-major, on the CPU.

    Fields are plain tensors that recorders write into, row t at step t. Allocated once; its memory
    is the sum of the fields.

    Attributes:
        obs: what the policy saw, [T, N, *shape].
        extra: previous action, previous reward and identity as the policy saw them, [T, N, F] or
            None.
        views: what a central critic saw, once for all agents of an environment, flat: first each
            row's of the lead, then those of T steps and E environments, [lead * N + T * E, *shape];
            None without one.
        agents: A.
        action: stored form, [T, N, *shape].
        action_mask: bool [T, N, mask_size] or None.
        reward: of the transition at t, as the environment gave it, [T, N].
        start: the state was zeroed before consuming obs[t], bool [T, N].
        exists: the observation is real; else the state is frozen, bool [T, N].
        active: the policy chose this action and it is trained on, bool [T, N].
        terminated: outcome of the transition at t, bool [T, N].
        truncated: likewise.
        hidden: states at multiples of L (less the burn-in), [lead + ceil(T / L), N, K, H] each.
        chunk_at: which of these is before a place; only those that are kept.
        lead: 1 if a step that earlier ones have left open stands in front of the T steps, else 0;
            all fields are that much longer, and multiples of L count from behind it.
        continued: the T steps follow on the last one of the steps recorded before.

    """

    def __init__(
        self,
        steps: int,
        rows: int,
        shapes: StepShapes,
        *,
        max_seq_len: int = 1,
        burn_in: int = 0,
        lead: int = 0,
    ) -> None:
        """Allocate.

        Args:
            steps: T >= 1.
            rows: N >= 1.
            shapes: of one step.
            max_seq_len: L >= 1.
            burn_in: in [0, L).
            lead: 0 or 1, see the class.

        Raises:
            ValueError: a size out of range.

        """
        for name, size in (("steps", steps), ("rows", rows), ("max_seq_len", max_seq_len)):
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        if not 0 <= burn_in < max_seq_len:
            raise ValueError(
                f"burn_in: expected at least 0 and less than max_seq_len = {max_seq_len}, "
                f"got {burn_in}"
            )
        self.steps, self.rows, self.lead = steps, rows, lead
        self.max_seq_len, self.burn_in = max_seq_len, burn_in
        extra, mask_size = shapes.extra, shapes.mask_size
        self.state_at = state_times(steps, max_seq_len, burn_in, lead)
        steps += lead
        self.obs = torch.zeros(steps, rows, *shapes.obs_shape, dtype=shapes.obs_dtype)
        self.extra = torch.zeros(steps, rows, extra) if extra else None
        self.agents, self.views = shapes.agents, None
        if shapes.view_shape is not None:
            count = lead * rows + (steps - lead) * (rows // shapes.agents)
            self.views = torch.zeros(count, *shapes.view_shape, dtype=shapes.view_dtype)
        self.action = torch.zeros(steps, rows, *shapes.action_shape, dtype=shapes.action_dtype)
        self.action_mask = torch.ones(steps, rows, mask_size).bool() if mask_size else None
        self.reward = torch.zeros(steps, rows)
        self.start, self.terminated, self.truncated = (
            torch.zeros(steps, rows, dtype=torch.bool) for _ in range(3)
        )
        self.exists, self.active = (torch.ones(steps, rows, dtype=torch.bool) for _ in range(2))
        self.hidden = [torch.zeros(len(self.state_at), rows, k, h) for k, h in shapes.state_shapes]
        self.chunk_at = {t: i for i, t in enumerate(self.state_at)}
        self.continued = False

    def nbytes(self) -> int:
        """Bytes of all fields."""
        fields = [x for x in vars(self).values() if isinstance(x, Tensor)]
        return sum(x.nbytes for x in fields + self.hidden)

    def views_of(self, place: Tensor) -> Tensor | None:
        """Return what a central critic saw at flat places (t * N + n): [*place.shape, *shape]."""
        return None if self.views is None else self.views[self.view_places(place)]

    def view_places(self, place: Tensor) -> Tensor:
        """Return where in ``views`` is what was seen at flat places (t * N + n)."""
        rows, leading = self.rows, self.lead * self.rows
        time, row = place // rows - self.lead, place % rows
        at = leading + time * (rows // self.agents) + row // self.agents
        return torch.where(time < 0, place, at) if leading else at

    def add_masks(self, mask_size: int) -> Tensor:
        """Make room for action masks, as one has come; until now everything was allowed."""
        self.action_mask = torch.ones(*self.active.shape, mask_size, dtype=torch.bool)
        return self.action_mask

    def clear(self) -> None:
        """Put the flags that recorders write only where they differ back to their defaults."""
        for flag in (self.start, self.terminated, self.truncated):
            flag.zero_()
        for flag in (self.exists, self.active):
            flag.fill_(True)

    def store_state(self, t: int, state: HiddenState) -> None:
        """Keep the state before place t (after any reset), if it is one of those to be kept."""
        chunk = self.chunk_at.get(t)
        if chunk is not None:
            # A state may end on the previous action, which is stored in `extra` already.
            for stored, tensor in zip(self.hidden, state.tensors, strict=False):
                stored[chunk] = tensor.transpose(0, 1)  # [K, N, H] -> [N, K, H]

    def sequences(self) -> Sequences:
        """Return the training sequences: each active step is in exactly one."""
        active = self.active & self.exists
        return cut_sequences(
            self.start, self.exists, active, self.max_seq_len, self.burn_in, self.lead
        )
