"""Hidden state, recurrent cores, and the one way to run them over sequences with resets.

Letters: T steps, N rows (environment, agent), S sequences, L longest sequence, K layers, H units,
D features. Time comes first.

The kernels know nothing of episodes. So a rollout is *cut* into sequences that never contain a
reset; each begins from zeros or from a known state and runs through PyTorch's whole-sequence
kernel. Steps whose observation is not real (``exists=False``) are left out of the sequences, which
freezes the state over them exactly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from einops import rearrange
from torch import Tensor, nn


class HiddenState:
    """What a recurrent policy remembers, explicitly, for N rows.

    Attributes:
        tensors: each [K, N, H] (LSTM: h and c, GRU: h; for actor and critic each when they have
            encoders of their own); empty for a feed-forward policy.
        rows: N.

    ``state[rows]`` selects rows (an index, a slice, a list, or a bool mask), ``state.reset(mask)``
    zeroes them.
    """

    __slots__ = ("rows", "tensors")

    def __init__(self, tensors: Sequence[Tensor], rows: int) -> None:
        """Hold the tensors as they are, without a copy."""
        self.tensors = tuple(tensors)
        self.rows = rows

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> "HiddenState":
        """Select rows; a single index keeps its axis."""
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows).reshape(-1)
            rows = rows if len(rows) else rows.long()  # an empty list becomes a float tensor
        return HiddenState([x[:, rows] for x in self.tensors], len(torch.arange(self.rows)[rows]))

    def reset(self, rows: Tensor) -> "HiddenState":
        """Return a copy with zeros where ``rows`` [N] is True."""
        return HiddenState([x.masked_fill(rows[:, None], 0) for x in self.tensors], self.rows)

    def where(self, rows: Tensor, other: "HiddenState") -> "HiddenState":
        """Take this state's rows where ``rows`` [N] is True, else the other's."""
        return HiddenState(
            [
                torch.where(rows[:, None], a, b)
                for a, b in zip(self.tensors, other.tensors, strict=True)
            ],
            self.rows,
        )

    def to(self, device: torch.device | str) -> "HiddenState":
        """Return the state on another device."""
        return HiddenState([x.to(device) for x in self.tensors], self.rows)

    def clone(self) -> "HiddenState":
        """Return a copy that shares no memory and no gradient."""
        return HiddenState([x.detach().clone() for x in self.tensors], self.rows)

    def __repr__(self) -> str:
        """Rows and shapes."""
        return f"HiddenState(rows={self.rows}, shapes={[list(x.shape) for x in self.tensors]})"


@dataclass(frozen=True)
class Sequences:
    """Where the training sequences of a [T, N] rollout lie.

    ``order`` lists the flat indices (t * N + n) of all existing steps, row by row and in time;
    sequence s runs through ``order[first[s] : first[s] + length[s]]``.

    Attributes:
        order: int64, one for each existing step.
        first: offset into order, [S].
        length: steps to run, up to the last active one, >= 1, [S].
        active: active steps among them, >= 1, [S].
        row: [S].
        chunk: index of the stored state that an unfresh sequence starts from, [S].
        fresh: the sequence starts from zeros, [S] bool.
        prefix: burn-in steps in front of first (in order, and in the same episode), [S].
        prefix_fresh: those start from zeros rather than from the stored state, [S] bool.
        trained: which steps of order are active; None if all are.

    """

    order: Tensor
    first: Tensor
    length: Tensor
    active: Tensor
    row: Tensor
    chunk: Tensor
    fresh: Tensor
    prefix: Tensor
    prefix_fresh: Tensor
    trained: Tensor | None

    def __len__(self) -> int:
        """S."""
        return len(self.first)

    def index(self, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """Flat step indices of some sequences, as a padded rectangle.

        Args:
            which: sequence numbers, [S'].

        Returns:
            index: into the flattened [T * N] rollout, [L', S']; padding repeats a sequence's own
                last step, so it never reads what does not exist.
            chosen: flat positions (l * S' + s) of the active steps, [M]; None if all are.

        """
        first, length = self.first[which], self.length[which]
        longest = int(length.max())
        time = torch.arange(longest)[:, None]
        if int(length.min()) == longest:
            place, real = first + time, None
        else:
            place, real = first + torch.minimum(time, length - 1), time < length
        index = self.order[place]
        if self.trained is not None:
            active = self.trained[place]
            real = active if real is None else real & active
        return index, None if real is None else real.flatten().nonzero().squeeze(1)


def state_times(steps: int, max_seq_len: int, burn_in: int = 0) -> list[int]:
    """Times whose states a rollout must store: each multiple of L, or the burn-in before it.

    Args:
        steps: T.
        max_seq_len: L.
        burn_in: in [0, L).

    Returns:
        ceil(T / L) times, the first is 0.

    """
    return [max(t - burn_in, 0) for t in range(0, steps, max_seq_len)]


def cut_sequences(
    start: Tensor, exists: Tensor, active: Tensor, max_seq_len: int, burn_in: int = 0
) -> Sequences:
    """Cut a rollout at every episode start and at multiples of L; nothing lost, nothing twice.

    Args:
        start: the state was zeroed before this step, bool [T, N].
        exists: the step's observation is real, bool [T, N].
        active: the step is trained on, bool [T, N]; only existing steps can be.
        max_seq_len: L >= 1.
        burn_in: in [0, L).

    Returns:
        the sequences with at least one active step. Each active step is in exactly one of them.

    """
    steps, rows = start.shape
    time = torch.arange(steps)[:, None]
    chunk_begins = (time % max_seq_len == 0).expand(steps, rows)
    by_row = "t n -> (n t)"
    cut = rearrange(start | chunk_begins, by_row)
    segment = cut.cumsum(0) - 1  # number of the segment that a step belongs to
    begin = cut.nonzero().squeeze(1)  # a segment's first step, whether it exists or not
    segments = len(begin)

    step = rearrange(exists, by_row).nonzero().squeeze(1)  # existing steps as n * T + t
    owner = segment[step]
    count = torch.bincount(owner, minlength=segments)
    first = count.cumsum(0) - count
    trained = rearrange(active, by_row)[step]
    rank = torch.arange(len(step)) - first[owner]  # position within the segment
    length = torch.zeros(segments, dtype=torch.int64).scatter_reduce(
        0, owner[trained], rank[trained] + 1, "amax"
    )
    row, t = begin // steps, begin % steps
    fresh = rearrange(start, by_row)[begin]

    # Burn-in: from the stored state's time, or from the episode's start if that came later.
    latest = torch.where(start, time, -1).cummax(0).values  # [T, N], -1: before the rollout
    stored = (t - burn_in).clamp_min(0)
    since = latest[(t - 1).clamp_min(0), row]  # the start that governs the step before t
    before = torch.cat((exists.new_zeros(1, rows, dtype=torch.int64), exists.cumsum(0)))  # [T+1, N]
    prefix = before[t, row] - before[torch.maximum(stored, since), row]
    prefix = torch.where(fresh | (t == 0), 0, prefix)

    keep = length > 0
    return Sequences(
        order=(step % steps) * rows + step // steps,
        first=first[keep],
        length=length[keep],
        active=torch.bincount(owner[trained], minlength=segments)[keep],
        row=row[keep],
        chunk=(t // max_seq_len)[keep],
        fresh=fresh[keep],
        prefix=prefix[keep],
        prefix_fresh=(since >= stored)[keep],
        trained=None if bool(trained.all()) else trained,
    )


def run_by_length(
    run: Callable[[int, Tensor, list[Tensor]], tuple[Tensor, Sequence[Tensor]]],
    length: Tensor,
    state: Sequence[Tensor],
) -> tuple[list[tuple[int, Tensor, Tensor]], tuple[Tensor, ...]]:
    """Run over sequences of different lengths, all those of the same length at once.

    Unlike padding this keeps the final state of every layer exact, and unlike packing it stays on
    the fused CPU kernel.

    Args:
        run: given a number of steps, some sequences and their states, runs over those steps.
        length: [S]; 0 leaves the state as it is.
        state: [K, S, H] each.

    Returns:
        pieces: for each length its steps, sequences and what ``run`` gave.
        state: after each sequence's own last step, [K, S, H] each.

    """
    final = [s.clone() for s in state]
    pieces = []
    for steps in [int(n) for n in length.unique() if n > 0]:
        which = (length == steps).nonzero().squeeze(1)
        y, after = run(steps, which, [s[:, which] for s in state])
        pieces.append((steps, which, y))
        final = [f.index_copy(1, which, a) for f, a in zip(final, after, strict=True)]
    return pieces, tuple(final)


class RecurrentCore(nn.Module):
    """K layers of LSTM or GRU: one step, or a whole sequence, with explicit state.

    The topmost may be residual: each of those adds to what it reads (Wu et al. 2016, "Google's
    Neural Machine Translation System", sec. 3.1).

    Sources: Hochreiter and Schmidhuber 1997, "Long Short-Term Memory" (with forget gates, as in
    Gers et al. 2000); Cho et al. 2014, "Learning Phrase Representations using RNN
    Encoder-Decoder". Weights are those of ``torch.nn.LSTM`` and ``torch.nn.GRU``.

    Attributes:
        rnn: the layers that stand on each other.
        added: the residual ones on top, of one layer each.
        stacks: all of these, from the bottom.
        shapes: (K, H) of each state tensor: two for an LSTM (h, c), one for a GRU (h); K counts
            both kinds of layers.

    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int = 1,
        cell: Literal["lstm", "gru"] = "lstm",
        residual: int = 0,
    ) -> None:
        """Args: inputs D, hidden H, plain layers, cell "lstm" or "gru", residual layers."""
        super().__init__()
        kind: type[nn.LSTM] | type[nn.GRU] = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.rnn = kind(inputs, hidden, layers)
        added = [kind(hidden, hidden) for _ in range(residual)]
        self.added = nn.ModuleList(added)
        self.stacks: tuple[nn.LSTM | nn.GRU, ...] = (
            self.rnn,
            *added,
        )  # faster to go through than modules are
        self.is_lstm = cell == "lstm"
        self.shapes = [(layers + residual, hidden)] * (2 if self.is_lstm else 1)

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Make the residual layers add nothing.

        Without its candidate (the third of an LSTM's and of a GRU's gates) a cell never leaves
        zero; all other weights may be what they like, and gradients reach the candidate at once.
        """
        for rnn in self.stacks[1:]:
            for parameter in rnn.parameters():
                parameter.chunk(4 if self.is_lstm else 3)[2].zero_()

    @torch.no_grad()
    def set_forget_bias(self, value: float) -> None:
        """Set the bias of what keeps the memory: forget gates (LSTM) or update gates (GRU).

        Sources: Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network
        Architectures"; Tallec and Ollivier 2018, "Can Recurrent Neural Networks Warp Time?", which
        recommends the logarithm of the time to remember.
        """
        for rnn in self.stacks:
            for name, bias in rnn.named_parameters():
                if name.startswith("bias"):
                    # Both kinds of cell have that gate second; two biases add up.
                    gate = bias.chunk(4 if self.is_lstm else 3)[1]
                    gate.fill_(value if name.startswith("bias_ih") else 0)

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        """Zeros, [K, N, H] each."""
        like = next(self.rnn.parameters())
        return tuple(like.new_zeros(k, rows, h) for k, h in self.shapes)

    def step(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step for acting; four times faster than a whole-sequence kernel of length one.

        Args:
            x: [N, D].
            state: [K, N, H] each.

        Returns:
            output: [N, H].
            state: after the step.

        """
        layers: list[tuple[Tensor, ...]] = []
        for rnn in self.stacks:
            for weights in rnn.all_weights:
                k = len(layers)
                if self.is_lstm:
                    layers.append(torch.lstm_cell(x, [s[k] for s in state], *weights))
                else:
                    layers.append((torch.gru_cell(x, state[0][k], *weights),))
                x = layers[k][0] if rnn is self.rnn else x + layers[k][0]
        if len(layers) == 1:
            return x, tuple(s.unsqueeze(0) for s in layers[0])
        return x, tuple(torch.stack(s) for s in zip(*layers, strict=True))

    def forward(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Whole sequences without resets, in one kernel call (one more for each residual layer).

        Args:
            x: [L, S, D].
            state: before the first step, [K, S, H] each.

        Returns:
            output: [L, S, H].
            state: after the last step.

        """
        if len(self.stacks) == 1:
            return self._run(self.rnn, x, state)
        plain = self.rnn.num_layers
        x, after = self._run(self.rnn, x, [s[:plain] for s in state])
        states = [after]
        for k, rnn in enumerate(self.stacks[1:], plain):
            y, after = self._run(rnn, x, [s[k : k + 1] for s in state])
            states.append(after)
            x = x + y
        return x, tuple(torch.cat(s) for s in zip(*states, strict=True))

    def _run(
        self, rnn: nn.LSTM | nn.GRU, x: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.is_lstm:
            return cast(tuple[Tensor, tuple[Tensor, ...]], rnn(x, (state[0], state[1])))
        output, h = rnn(x, state[0])
        return output, (h,)

    def run(
        self, x: Tensor, length: Tensor, state: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sequences of different lengths, with the state after each one's own last step.

        Args:
            x: [L, S, D]; whatever stands behind a sequence's end is not read.
            length: [S], each in [0, L]; 0 leaves the state as it is.
            state: [K, S, H] each.

        Returns:
            output: [L, S, H], zeros behind a sequence's end.
            state: [K, S, H] each.

        """
        pieces, final = run_by_length(
            lambda steps, which, before: self(x[:steps, which], before), length, state
        )
        output = x.new_zeros(*x.shape[:2], self.shapes[0][1])
        for steps, which, y in pieces:
            output = output.index_put((torch.arange(steps)[:, None], which), y)
        return output, final

    def unroll(
        self, x: Tensor, state: Sequence[Tensor], start: Tensor, exists: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over T steps of N rows, resetting where episodes start, freezing where they pause.

        Equal to stepping in a loop, zeroing a row's state where ``start`` and keeping it where not
        ``exists``, but on whole-sequence kernels.

        Args:
            x: [T, N, D].
            state: before the first step, [K, N, H] each.
            start: bool [T, N].
            exists: bool [T, N]; None means all.

        Returns:
            output: [T, N, H]; zeros where not exists.
            state: after the last step, [K, N, H] each.

        """
        steps, rows = start.shape
        exists = torch.ones_like(start) if exists is None else exists
        cuts = cut_sequences(start.cpu(), exists.cpu(), exists.cpu(), steps)
        final = [s.masked_fill(start.any(0)[:, None], 0) for s in state]
        output = x.new_zeros(steps * rows, self.shapes[0][1])
        if len(cuts) == 0:
            return rearrange(output, "(t n) h -> t n h", t=steps), tuple(final)
        index, chosen = cuts.index(torch.arange(len(cuts)))
        index, fresh, row = (i.to(x.device) for i in (index, cuts.fresh, cuts.row))
        y, after = self.run(
            x.flatten(0, 1)[index],
            cuts.length.to(x.device),
            [s[:, row].masked_fill(fresh[:, None], 0) for s in state],
        )
        place, y = index.flatten(), y.flatten(0, 1)
        if chosen is not None:
            place, y = place[chosen.to(x.device)], y[chosen.to(x.device)]
        output = output.index_copy(0, place, y)
        # Cuts come row by row and in time: the last of a row holds its state at the end, unless
        # the row restarted after it without taking another step.
        ends = torch.cat((cuts.row[1:] != cuts.row[:-1], torch.ones(1, dtype=torch.bool)))
        last_start = torch.where(start, torch.arange(steps, device=x.device)[:, None], -1).amax(0)
        last_step = (index[:, ends.to(x.device)] // rows).amax(0)
        ended_row = row[ends.to(x.device)]
        alive = last_step >= last_start[ended_row]
        chosen = ends.nonzero().squeeze(1).to(x.device)[alive]
        final = [
            f.index_copy(1, ended_row[alive], a[:, chosen])
            for f, a in zip(final, after, strict=True)
        ]
        return rearrange(output, "(t n) h -> t n h", t=steps), tuple(final)
