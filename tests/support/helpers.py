"""Slow, plain references that the tests compare the package with, and random data for both.

Nothing here is clever: rows are walked one by one and step by step in Python, so that no mistake
of the batched code can hide in the reference as well.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.networks.acting_policy import Central
from recurrent_rl.networks.configs import NetConfig
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.recurrent.state import HiddenState

OBSERVATIONS = {
    "vector": gym.spaces.Box(-10.0, 10.0, (3,)),
    "index": gym.spaces.Discrete(4, start=2),
}
VIEW = gym.spaces.Box(-10.0, 10.0, (4,))  # what central critics see
ACTIONS = {
    "discrete": gym.spaces.Discrete(3, start=5),
    "box": gym.spaces.Box(-2.0, 1.0, (2,)),
}


@contextlib.contextmanager
def double() -> Iterator[None]:
    """Make float64 the default inside, as a decorator too: comparisons can then be strict."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@dataclass
class Flags:
    """The three bool fields [T, N] that decide where memory resets, freezes and is trained."""

    start: Tensor
    exists: Tensor
    active: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(T, N)."""
        return tuple(self.start.shape)  # type: ignore[return-value]


# Rollouts are drawn from a seed: drawn number by number, hypothesis prefers the smallest, and most
# examples would have a single step, or no burn-in.
SEEDS = st.integers(0, 2**32 - 1)


def _any_flags(random: np.random.Generator, max_steps: int, max_rows: int) -> Flags:
    shape = random.integers(1, max_steps + 1), random.integers(1, max_rows + 1)

    def some(share: float) -> Tensor:
        likely = random.choice([share, 0.5, round(share)])  # as usual, wild, and none or all
        return torch.from_numpy(random.random(shape) < likely)

    start, exists, active = some(0.15), some(0.85), some(0.85)
    return Flags(start, exists, active & exists)


def flags(max_steps: int = 12, max_rows: int = 4) -> st.SearchStrategy[Flags]:
    """Any flags that design.md allows, such as a start on a step that does not exist."""
    return SEEDS.map(lambda seed: _any_flags(np.random.default_rng(seed), max_steps, max_rows))


def cuttings(max_steps: int = 12, max_rows: int = 4) -> st.SearchStrategy[tuple[Flags, int, int]]:
    """Any flags, with any L, up to T + 2, and any burn-in below it."""

    def build(seed: int) -> tuple[Flags, int, int]:
        random = np.random.default_rng(seed)
        drawn = _any_flags(random, max_steps, max_rows)
        max_seq_len = int(random.integers(1, drawn.shape[0] + 3))
        return drawn, max_seq_len, int(random.integers(max_seq_len))

    return SEEDS.map(build)


def some_of(count: int) -> st.SearchStrategy[list[int]]:
    """Any selection of 0 to count - 1, in any order, but not none."""

    def build(seed: int) -> list[int]:
        random = np.random.default_rng(seed)
        chosen: list[int] = random.permutation(count)[: random.integers(1, count + 1)].tolist()
        return chosen

    return SEEDS.map(build)


def make_flags(
    steps: int,
    rows: int,
    *,
    reset: float = 0.15,
    absent: float = 0.0,
    idle: float = 0.0,
    seed: int = 0,
) -> Flags:
    """Random flags: probabilities of a start, of a step that is absent, of one without a choice."""
    generator = torch.Generator().manual_seed(seed)
    start, gone, idles = (
        torch.rand(steps, rows, generator=generator) < p for p in (reset, absent, idle)
    )
    return Flags(start, ~gone, ~gone & ~idles)


def make_policy(
    observation: str = "vector",
    action: str = "discrete",
    *,
    cell: str = "lstm",
    num_layers: int = 1,
    hidden_size: tuple[int, ...] | None = None,
    hidden_state_size: int = 5,
    central: bool = False,
    encoder: Mapping[str, Any] = {},
    seed: int = 0,
    **config: Any,
) -> ActorCritic:
    """A small policy in the default dtype whose choices clearly depend on what it has seen."""
    torch.manual_seed(seed)
    encoder = {
        **encoder,
        "cell": cell,
        "num_layers": num_layers,
        "hidden_size": () if hidden_size is None and config.get("recurrent", True) else hidden_size,
        "hidden_state_size": hidden_state_size,
    }
    policy = ActorCritic(
        OBSERVATIONS[observation],
        ACTIONS[action],
        NetConfig.from_dict({"encoder_config": encoder, "head_config": {"hidden_size": (6,)}}),
        # Not orthogonal: that begins with biases of zero and a nearly uniform policy, both of
        # which would hide mistakes.
        PPOConfig.from_dict({"ortho_init": False, "squash_output": False, **config}),
        central=Central(VIEW if central else None),
    )
    if policy.value_head.units is not None:
        policy.value_head.units.update(torch.tensor([1.0, 2.0, 6.0]))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    return policy


def jitter(policy: ActorCritic, by: float = 0.2, seed: int = 1) -> ActorCritic:
    """Move the weights, as updates would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return policy


def random_state(policy: ActorCritic, rows: int, generator: torch.Generator) -> HiddenState:
    """What an earlier rollout might have left in the memory."""
    state = policy.initial_state(rows)
    tensors = [torch.randn(x.shape, generator=generator).tanh() for x in state.tensors]
    return HiddenState(tensors, rows)


def empty_buffer(
    policy: ActorCritic,
    steps: int,
    rows: int,
    *,
    max_seq_len: int,
    burn_in: int = 0,
    masked: bool = False,
) -> SequenceRolloutBuffer:
    """A buffer that fits the policy, in the default dtype."""
    codec, actions = policy.codec, policy.actions
    floating = torch.get_default_dtype()
    central = policy.view_codec is not None
    return SequenceRolloutBuffer(
        steps,
        rows,
        obs_shape=codec.shape,
        obs_dtype=floating if codec.dtype.is_floating_point else codec.dtype,
        action_shape=actions.shape,
        action_dtype=floating if actions.dtype.is_floating_point else actions.dtype,
        state_shapes=policy.state_shapes[: policy.memory],
        max_seq_len=max_seq_len,
        burn_in=burn_in,
        extra=policy.extra.width,
        mask_size=actions.mask_size if masked else 0,
        view_shape=VIEW.shape if central else None,
        view_dtype=floating,
        agents=next(a for a in (3, 2, 1) if rows % a == 0) if central else 1,
    )


def view_of(buffer: SequenceRolloutBuffer, t: int, n: int) -> Tensor | None:
    """What a central critic saw of row n's environment at step t, [1, *shape]."""
    if buffer.views is None:
        return None
    envs = buffer.rows // buffer.agents
    return buffer.views[[t * envs + n // buffer.agents]]


def random_observation(policy: ActorCritic, generator: torch.Generator) -> Tensor:
    """One stored observation."""
    space = policy.codec.space
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start) + torch.randint(int(space.n), (), generator=generator)
    return torch.randn(policy.codec.shape, generator=generator)


@dataclass
class Walk:
    """What stepping a policy over a rollout gives.

    Attributes:
        memory: before each step (after any reset), a list over time of [K, N, H] tensors.
        extra: the extra inputs, [T, N, F].
        carried: the state after the last step, with the previous action where the policy has it.

    """

    memory: list[list[Tensor]]
    extra: Tensor
    carried: HiddenState


@torch.no_grad()
def collect(
    policy: ActorCritic,
    flags: Flags,
    *,
    max_seq_len: int,
    burn_in: int = 0,
    masked: bool = False,
    seed: int = 0,
) -> tuple[SequenceRolloutBuffer, HiddenState]:
    """Fill a buffer by stepping a policy, row by row, through a random world.

    Episodes end where the next step is a start (terminated or truncated by the toss of a coin),
    and at some last steps. Returns are computed with gamma 0.9 and lambda 0.8.

    Returns:
        the buffer, and the state that the rollout began from.

    """
    generator = torch.Generator().manual_seed(seed)
    steps, rows = flags.shape
    buffer = empty_buffer(
        policy, steps, rows, max_seq_len=max_seq_len, burn_in=burn_in, masked=masked
    )
    buffer.start[:], buffer.exists[:], buffer.active[:] = flags.start, flags.exists, flags.active
    if isinstance(policy.codec.space, gym.spaces.Discrete):
        buffer.obs.fill_(int(policy.codec.space.start))  # zero need not be a choice
    for t in range(steps):
        for n in range(rows):
            if flags.exists[t, n]:
                buffer.obs[t, n] = random_observation(policy, generator)
    if buffer.views is not None:
        buffer.views.copy_(torch.randn(buffer.views.shape, generator=generator))
    buffer.reward.copy_(torch.randn(steps, rows, generator=generator))
    ended = torch.cat((flags.start[1:], torch.rand(1, rows, generator=generator) < 0.5))
    limit = torch.rand(steps, rows, generator=generator) < 0.5
    buffer.terminated[:], buffer.truncated[:] = ended & ~limit, ended & limit
    buffer.bootstrap[:] = torch.randn(steps, rows, generator=generator) * buffer.truncated
    if buffer.action_mask is not None:
        mask = torch.rand(buffer.action_mask.shape, generator=generator) < 0.6
        choice = torch.randint(mask.shape[-1], mask.shape[:-1], generator=generator)
        buffer.action_mask[:] = mask.scatter(-1, choice[..., None], True)

    initial = random_state(policy, rows, generator)
    walked = walk(policy, buffer, initial, generator)
    if buffer.extra is not None:
        buffer.extra[:] = walked.extra
    for t, memory in enumerate(walked.memory):
        buffer.store_state(t, HiddenState(memory, rows))
    buffer.compute_returns(torch.randn(rows, generator=generator), 0.9, 0.8)
    return buffer, initial


@torch.no_grad()
def walk(
    policy: ActorCritic,
    buffer: SequenceRolloutBuffer,
    initial: HiddenState,
    generator: torch.Generator | None = None,
) -> Walk:
    """Step the policy over a buffer's observations, one row and one step at a time.

    With a generator actions are chosen, and written into the buffer with their log-probabilities
    and values; without one the buffer's actions are followed and nothing is written.
    """
    steps, rows, memory_size = buffer.steps, buffer.rows, policy.memory
    memory = [[x.clone() for x in initial.tensors[:memory_size]] for _ in range(steps)]
    extras = torch.zeros(steps, rows, policy.extra.width)
    carried = [x.clone() for x in initial.tensors]
    zeros = policy.initial_state(1)
    for n in range(rows):
        state = [x[:, [n]] for x in initial.tensors]
        reward = torch.zeros(1)
        for t in range(steps):
            if buffer.start[t, n]:
                state, reward = list(zeros.tensors), torch.zeros(1)
            for kept, now in zip(memory[t], state[:memory_size], strict=True):
                kept[:, n] = now[:, 0]
            parts = [state[-1][0, 0]] if policy.extra.action else []
            parts += [reward] if policy.extra.reward else []
            extra = torch.cat(parts)[None] if parts else None
            if extra is not None:
                extras[t, n] = extra[0]
            reward = buffer.reward[t, [n]]
            if not buffer.exists[t, n]:
                continue
            noise = (
                policy.action_head.distribution.noise((1,), generator)
                if generator is not None
                else None
            )
            mask = None if buffer.action_mask is None else buffer.action_mask[t, [n]]
            before, view = HiddenState(state, 1), view_of(buffer, t, n)
            acted = policy.act(buffer.obs[t, [n]], extra, before, noise, mask, view=view)
            if generator is not None:
                buffer.action[t, n] = acted.action[0]
                assert acted.critic_features is not None
                buffer.value[t, n] = policy.value_of(acted.critic_features)[0]
                buffer.log_prob[t, n] = policy.action_head.distribution.log_prob(
                    acted.dist_params, acted.action
                )[0]
            state = list(acted.state.tensors)
            if policy.extra.action:
                state[-1] = policy.actions.encode(buffer.action[t, [n]])[None]
        for kept, now in zip(carried, state, strict=True):
            kept[:, n] = now[:, 0]
    return Walk(memory, extras, HiddenState(carried, rows))


def spoil(policy: ActorCritic, buffer: SequenceRolloutBuffer) -> None:
    """Write the worst garbage into whatever must not matter: all but the active steps.

    Observations of steps that exist are left alone, since the memory advances over them.
    """
    idle, gone = ~(buffer.active & buffer.exists), ~buffer.exists
    for field in (buffer.log_prob, buffer.value, buffer.advantage, buffer.returns):
        field[idle] = torch.nan
    buffer.bootstrap[~buffer.truncated | buffer.terminated] = torch.nan
    if buffer.action.dtype.is_floating_point:
        buffer.action[idle] = torch.nan
    else:
        buffer.action[idle] = 2**40
    if buffer.action_mask is not None:
        buffer.action_mask[idle] = False
    if buffer.obs.dtype.is_floating_point:
        buffer.obs[gone] = torch.nan
    else:
        # What an absent row sees is encoded with the others, so it must at least be a choice.
        space = policy.codec.space
        assert isinstance(space, gym.spaces.Discrete)
        buffer.obs[gone] = space.start + space.n - 1
    if buffer.extra is not None:
        buffer.extra[gone] = torch.nan
    if buffer.views is not None:  # where nobody of an environment sees anything
        nobody = gone.unflatten(1, (-1, buffer.agents)).all(-1)
        buffer.views[nobody.flatten()] = torch.nan


@dataclass
class Piece:
    """One training sequence, as lists of time steps of one row.

    Attributes:
        row: n.
        begin: where it was cut, a multiple of L or an episode's start.
        steps: what exists from there on, up to the last active one.
        active: which of them are active.
        fresh: it begins from zeros.
        burn_in: the steps of its burn-in.
        burn_in_fresh: those begin from zeros.

    """

    row: int
    begin: int
    steps: list[int]
    active: list[int]
    fresh: bool
    burn_in: list[int]
    burn_in_fresh: bool


def cut_by_hand(flags: Flags, max_seq_len: int, burn_in: int = 0) -> list[Piece]:
    """The training sequences by the words of design.md: row by row, step by step."""
    steps, rows = flags.shape
    pieces = []
    for n in range(rows):
        cuts = [t for t in range(steps) if flags.start[t, n] or t % max_seq_len == 0]
        for begin, end in zip(cuts, [*cuts[1:], steps], strict=True):
            active = [t for t in range(begin, end) if flags.active[t, n]]
            if not active:
                continue
            fresh, before, before_fresh = bool(flags.start[begin, n]), [], False
            if not fresh:
                for t in range(max(begin - burn_in, 0), begin):
                    if flags.start[t, n]:
                        before, before_fresh = [], True
                    if flags.exists[t, n]:
                        before.append(t)
            run = [t for t in range(begin, active[-1] + 1) if flags.exists[t, n]]
            pieces.append(Piece(n, begin, run, active, fresh, before, before_fresh))
    return pieces


def loss_terms_by_hand(
    policy: ActorCritic, buffer: SequenceRolloutBuffer, config: PPOConfig
) -> dict[int, Tensor]:
    """PPO's loss of each active step (by t * N + n), with gradients, from stepping each row.

    At a multiple of L the memory is taken from the buffer, or burnt in from there without
    gradient: the truncation of backpropagation through time. Distributions are torch's own.
    """
    L, terms = buffer.max_seq_len, {}  # noqa: N806 - the letter of the glossary
    every = buffer.active & buffer.exists
    chosen = buffer.advantage[every].double().numpy()
    scale = (chosen.mean(), chosen.std() + 1e-8) if config.normalize_advantage else (0.0, 1.0)
    zeros = policy.initial_state(1).tensors[: policy.memory]

    def step(t: int, n: int, state: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        extra = None if buffer.extra is None else buffer.extra[t, [n]]
        mask = None if buffer.action_mask is None else buffer.action_mask[t, [n]]
        before, view = HiddenState(state, 1), view_of(buffer, t, n)
        acted = policy.act(buffer.obs[t, [n]], extra, before, None, mask, view=view)
        assert acted.critic_features is not None
        value = policy.value_of(acted.critic_features)[0]
        return acted.dist_params[0], value, list(acted.state.tensors[: policy.memory])

    for n in range(buffer.rows):
        state = list(zeros)
        for t in range(buffer.steps):
            if t % L == 0:
                begin = max(t - buffer.burn_in, 0)
                state = [h[t // L, [n]].transpose(0, 1) for h in buffer.hidden]
                for u in range(begin, t):
                    with torch.no_grad():
                        state = list(zeros) if buffer.start[u, n] else state
                        state = step(u, n, state)[2] if buffer.exists[u, n] else state
            if buffer.start[t, n]:
                state = list(zeros)
            if not buffer.exists[t, n]:
                continue
            params, value, state = step(t, n, state)
            if not buffer.active[t, n]:
                continue
            if buffer.action.dtype.is_floating_point:
                choice: Any = torch.distributions.Normal(
                    params, policy.action_head.distribution.log_std.exp()
                )
            else:
                choice = torch.distributions.Categorical(logits=params)
            log_prob = choice.log_prob(buffer.action[t, n]).sum()
            ratio = (log_prob - buffer.log_prob[t, n]).exp()
            advantage = (buffer.advantage[t, n] - scale[0]) / scale[1]
            near = ratio.clamp(1 - config.clip_coef, 1 + config.clip_coef)
            policy_term = -torch.minimum(ratio * advantage, near * advantage)
            units = policy.value_head.units
            unit = 1.0 if units is None else units.deviation
            value_term = 0.5 * ((value - buffer.returns[t, n]) / unit) ** 2
            terms[t * buffer.rows + n] = (
                policy_term + config.vf_coef * value_term - config.ent_coef * choice.entropy().sum()
            )
    return terms


def gradients(policy: ActorCritic, loss: Tensor) -> dict[str, Tensor]:
    """Gradients by name, zeros where the loss does not depend on a parameter."""
    named = dict(policy.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), grads, strict=True)
    }
