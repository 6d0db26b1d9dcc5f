"""Tests of `recurrent_rl.architecture`: networks grow and shrink and keep what they do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from support.agents import assert_same_weights, make_agent, make_team, randomise, weights
from support.envs import scripted
from support.evolving import assert_same, snapshot
from support.helpers import ACTIONS, OBSERVATIONS, SEEDS, double
from support.multi_envs import scripted_makers
from torch import Tensor, nn

from recurrent_rl import (
    IPPO,
    PPO,
    HiddenState,
    NetConfig,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.evolution.morphing import morph
from recurrent_rl.networks.flat_parameters import split_adam_state
from recurrent_rl.networks.policy import ActorCritic

KINDS = ["lstm", "gru", "feed-forward"]
BAR = 1e-5  # of a function-preserving growth, over 200 steps


# --- what a policy does -------------------------------------------------------------------------


@dataclass
class Played:
    """What stepping gives: head parameters [T, N, ...], values [T, N], extra inputs, the end."""

    params: Tensor
    values: Tensor
    extra: Tensor | None
    state: HiddenState


@torch.no_grad()
def play(
    policy: ActorCritic, observation: Tensor, reward: Tensor, state: HiddenState | None = None
) -> Played:
    """Step through [T, N, *shape] with the memory carried along, from its beginning if None."""
    steps, rows = reward.shape
    state = policy.initial_state(rows) if state is None else state
    params, values, extras = [], [], []
    for t in range(steps):
        extra = policy.extra.joined(state, reward[t])
        acted = policy.act(observation[t], extra, state, None)
        params.append(of_action(policy, acted.dist_params))
        values.append(policy.value_of(acted.critic_features))
        extras.append(extra)
        state = acted.state
    known = None if extras[0] is None else torch.stack([x for x in extras if x is not None])
    return Played(torch.stack(params), torch.stack(values), known, state)


@torch.no_grad()
def whole(
    policy: ActorCritic, observation: Tensor, extra: Tensor | None, state: HiddenState
) -> tuple[Tensor, Tensor]:
    """The same in the learner's way, a whole sequence at once: parameters and values."""
    params, values = policy.unroll(observation, extra, state.tensors[: policy.memory], None)
    shape = observation.shape[0], state.rows
    return of_action(policy, params).view(*shape, -1), values.view(shape)


def of_action(policy: ActorCritic, params: Tensor) -> Tensor:
    """Head parameters but for the latents of state-dependent exploration, which may grow."""
    return params[..., : params.shape[-1] - policy.action_head.distribution.latents]


def difference(ours: Any, theirs: Any) -> float:
    """The greatest difference of head parameters and values."""
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


def inputs_for(
    policy: ActorCritic, steps: int, rows: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random observations and rewards."""
    generator = torch.Generator().manual_seed(seed)
    shape, space = (steps, rows), policy.codec.space
    if not isinstance(space, Discrete) and (isinstance(space, Dict) or len(space.shape) > 1):
        space.seed(seed)
        layout = policy.codec.layout
        drawn = np.stack([layout.pack(space.sample()) for _ in range(steps * rows)])
        observation = torch.from_numpy(drawn).view(*shape, *layout.shape).to(layout.dtype)
    elif policy.codec.dtype.is_floating_point:
        observation = 2 * torch.randn(*shape, *policy.codec.shape, generator=generator)
    else:
        observation = 2 + torch.randint(4, shape, generator=generator)
    return observation, torch.randn(shape, generator=generator)


def gap(old: ActorCritic, new: ActorCritic, steps: int = 200, seed: int = 0) -> float:
    """How far two policies are apart, by stepping and over whole sequences."""
    observation, reward = inputs_for(old, steps, seed=seed)
    a, b = (play(policy, observation, reward) for policy in (old, new))
    stepped = difference((a.params, a.values), (b.params, b.values))
    begin = [policy.initial_state(3) for policy in (old, new)]
    sequences = [
        whole(policy, observation, a.extra, state)
        for policy, state in zip((old, new), begin, strict=True)
    ]
    assert difference(sequences[0], (a.params, a.values)) < BAR  # the check itself
    return max(stepped, difference(*sequences))


# --- architectures ------------------------------------------------------------------------------


@dataclass
class Growth:
    """An architecture, a larger one, and the rest of an agent."""

    small: dict[str, Any]
    large: dict[str, Any]
    config: dict[str, Any]
    observation: str
    action: str
    own: dict[str, tuple[int, int]] = field(default_factory=dict)  # arguments of Own

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The user's own, in the default dtype."""
        return {name: Own(*arguments) for name, arguments in self.own.items()}

    def agent(self, seed: int = 0) -> PPO:
        """The small one, with random weights and observations that have been seen."""
        agent = PPO(
            (OBSERVATIONS | SPACES)[self.observation],
            ACTIONS[self.action],
            self.small,
            seed=seed,
            **self.networks,
            **self.config,
        )
        randomise(agent.policy, seed)
        if agent.policy.preprocessor.norm is not None:
            agent.policy.preprocessor.norm.update(
                1 + 3 * torch.randn(50, agent.policy.codec.continuous)
            )
        return agent

    def grow(self, agent: PPO) -> Any:
        """Make the agent large."""
        return change(agent, self.large)


def change(agent: Any, net: dict[str, Any] | NetConfig, seed: int = 1) -> Any:
    """Morph by a configuration."""
    net = net if isinstance(net, NetConfig) else NetConfig.from_dict(net)
    return morph(agent, net, torch.Generator().manual_seed(seed))


def some_growth(kind: str, seed: int) -> Growth:
    """Any agent of a kind, and any architecture that is larger in any of its numbers."""
    random = np.random.default_rng(seed)

    def more(value: int, most: int) -> int:
        return int(value + random.integers(most + 1) * random.integers(2))

    def part(hidden: list[tuple[int, ...]]) -> tuple[dict[str, Any], dict[str, Any]]:
        # ReLU and the like make units whose output is zero for good: too easy to keep.
        widths = hidden[random.integers(len(hidden))]
        layers = int(random.integers(3))
        small = {"hidden_size": widths, "residual_layers": layers}
        small["activation"] = str(random.choice(["Tanh", "ELU", "GELU"]))
        large = {"hidden_size": tuple(more(w, 7) for w in widths)}
        return small, {**small, **large, "residual_layers": more(layers, 2)}

    encoder, large_encoder = part([(), (4,), (5, 3)])
    head, large_head = part([(6,), (), (5, 4)])
    if kind != "feed-forward":
        size = int(random.integers(2, 7))
        common = {"cell": kind, "num_layers": int(random.integers(1, 3)), "max_seq_len": 8}
        encoder |= {**common, "hidden_state_size": size}
        large_encoder |= {**common, "hidden_state_size": more(size, 7)}
    options = ("share_encoders", "previous_action", "previous_reward", "normalize_obs")
    config: dict[str, Any] = {name: bool(random.integers(2)) for name in options}
    config |= {"recurrent": kind != "feed-forward", "squash_output": False}
    return Growth(
        {"encoder_config": encoder, "head_config": head},
        {"encoder_config": large_encoder, "head_config": large_head},
        config,
        str(random.choice(list(OBSERVATIONS))),
        str(random.choice(list(ACTIONS))),
    )


def named_weights(policy: ActorCritic) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.named_parameters()}


# --- images, dictionaries, networks of one's own ------------------------------------------------


# Of different sizes, so that an offset or an area of one used for another is noticed.
SPACES: dict[str, gym.Space[Any]] = {
    "image": Box(0, 255, (8, 9, 2), np.uint8),
    "all": Dict(vector=Box(-2, 2, (3,)), index=Discrete(4, start=2), image=Box(0, 1, (1, 7, 8))),
    "images": Dict(
        vector=Box(-2, 2, (2,)), left=Box(0, 255, (8, 9, 2), np.uint8), right=Box(-1, 1, (1, 7, 7))
    ),
}


class Own(nn.Module):
    """A network of a user: of a vector, with a memory, and a buffer that the policy depends on."""

    scale: Tensor

    def __init__(self, extra: int, cells: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3 + extra, cells)
        self.last = nn.Linear(cells, 4)
        self.register_buffer("scale", torch.ones(()))

    def initial_state(self, rows: int) -> tuple[Tensor, Tensor]:
        zeros = self.last.weight.new_zeros(1, rows, self.rnn.hidden_size)
        return zeros, zeros

    def forward(
        self, observation: Tensor, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        x = observation if extra is None else torch.cat((observation, extra), -1)
        y, after = self.rnn(x, (state[0], state[1]))
        return self.scale * self.last(y), after


CONVOLUTIONS = {"channel_size": (4, 3), "kernel_size": (3, 2), "stride_size": (2, 1)}
WIDER = {**CONVOLUTIONS, "channel_size": (7, 5)}
CORE: dict[str, Any] = {"hidden_state_size": 4, "max_seq_len": 4, "latent_dim": 5}
VECTORS = {"vector_space_mlp": True, "mlp_config": {"hidden_size": (4,), "activation": "ELU"}}
NORMS = {"layer_norm": True, "core_layer_norm": True, "hidden_size": (5, 3)}


def case(
    observation: str,
    small: dict[str, Any],
    large: dict[str, Any],
    *,
    head: dict[str, Any] | None = None,
    larger_head: dict[str, Any] | None = None,
    action: str = "discrete",
    own: dict[str, tuple[int, int]] | None = None,
    **config: Any,
) -> Growth:
    """An encoder, what of it is larger in the large one, and the heads' likewise."""
    encoder = {**CORE, **small}
    head = {"hidden_size": (6,), **(head or {})}
    return Growth(
        {"encoder_config": encoder, "head_config": head},
        {"encoder_config": {**encoder, **large}, "head_config": {**head, **(larger_head or {})}},
        {"squash_output": False, **config},
        observation,
        action,
        own or {},
    )


def flat(options: dict[str, Any]) -> dict[str, Any]:
    """Options as they go into a configuration; for those that replace a nested one whole."""
    return {"cnn_config": {**options, "activation": "ELU"}}


CASES: dict[str, Growth] = {
    "image": case("image", flat(CONVOLUTIONS), flat(WIDER)),
    "image's latents": case("image", flat(CONVOLUTIONS), {"latent_dim": 8}),
    "image, all larger": case(
        "image",
        {**flat(CONVOLUTIONS), "hidden_size": (4,)},
        {**flat(WIDER), "latent_dim": 8, "hidden_size": (6,), "hidden_state_size": 7},
        share_encoders=False,
    ),
    "image, feed-forward": case(
        "image",
        {**flat(CONVOLUTIONS), "residual_layers": 1},
        {**flat(WIDER), "latent_dim": 8, "residual_layers": 2},
        recurrent=False,
        previous_action=True,
    ),
    "flattened image": case(
        "image", {"channel_size": (), "hidden_size": (4,)}, {"hidden_size": (6,)}
    ),
    "dictionary": case(
        "all",
        {**flat(CONVOLUTIONS), "hidden_size": ()},
        {**flat(WIDER), "latent_dim": 7},
        normalize_obs=True,
        previous_action=True,
        previous_reward=True,
    ),
    "dictionary, feed-forward": case(
        "all",
        {**flat(CONVOLUTIONS), **VECTORS, "hidden_size": (), "residual_layers": 1},
        {**flat(WIDER), "latent_dim": 7},
        recurrent=False,
        previous_action=True,
        previous_reward=True,
    ),
    "two images": case(
        "images",
        {**flat(CONVOLUTIONS), "hidden_size": (5, 3)},
        {**flat(WIDER), "latent_dim": 6, "hidden_size": (5, 7)},
    ),
    "two images, feed-forward": case(
        "images",
        {**flat(CONVOLUTIONS), **VECTORS, "hidden_size": ()},
        {**flat(WIDER), "latent_dim": 6},
        recurrent=False,
        share_encoders=False,
        previous_reward=True,
    ),
    "two flattened images": case(
        "images",
        {**VECTORS, "channel_size": ()},
        {"latent_dim": 9, "mlp_config": {"hidden_size": (7,), "activation": "ELU"}},
    ),
    "vector's MLP": case(
        "vector",
        {**VECTORS, "cell": "gru"},
        {"latent_dim": 9, "mlp_config": {"hidden_size": (7,), "activation": "ELU"}},
    ),
    "vector's MLP with LayerNorm": case(
        "all",
        {
            **flat(CONVOLUTIONS),
            "vector_space_mlp": True,
            "mlp_config": {"hidden_size": (4,), "layer_norm": True},
            "hidden_size": (6,),
        },
        {**flat(WIDER), "hidden_size": (8,)},
    ),
    "LayerNorm": case(
        "all",
        {**flat(CONVOLUTIONS), **NORMS},
        {**flat(WIDER), "latent_dim": 7, "residual_layers": 1},
        head={"hidden_size": (6, 5), "layer_norm": True},
        larger_head={"residual_layers": 2},
    ),
    "LayerNorm, feed-forward": case(
        "vector",
        {**NORMS, **VECTORS},
        {"latent_dim": 7, "residual_layers": 2},
        head={"layer_norm": True, "residual_layers": 1},
        recurrent=False,
    ),
    "around the core": case(
        "vector",
        {"core_residual": True, "num_layers": 2, "residual_layers": 1, "hidden_size": (3,)},
        {"hidden_state_size": 7, "residual_layers": 2, "hidden_size": (6,)},
        previous_action=True,
    ),
    "around and behind the core": case(
        "all",
        {**flat(CONVOLUTIONS), "core_residual": True, "core_layer_norm": True, "hidden_size": ()},
        {**flat(WIDER), "latent_dim": 6, "residual_layers": 1},
        previous_action=True,
        share_encoders=False,
    ),
    "exploration by state": case(
        "vector",
        {},
        {"hidden_state_size": 7},
        head={"hidden_size": (5, 6)},
        larger_head={"hidden_size": (9, 6), "residual_layers": 1},
        action="box",
        use_sde=True,
    ),
    "exploration by more latents": case(
        "vector",
        {},
        {"residual_layers": 1},
        larger_head={"hidden_size": (11,), "residual_layers": 1},
        action="box",
        use_sde=True,
    ),
    "deviation by state": case(
        "vector",
        {},
        {"hidden_state_size": 7},
        larger_head={"hidden_size": (11,)},
        action="box",
        state_dependent_std=True,
    ),
    "own actor": case(
        "vector",
        {"cell": "gru"},
        {"hidden_state_size": 7, "hidden_size": (70,)},
        larger_head={"hidden_size": (9,)},
        own={"actor_network": (3, 3)},
        share_encoders=False,
        previous_action=True,
    ),
    "own critic": case(
        "vector",
        {},
        {"hidden_state_size": 7, "residual_layers": 1},
        larger_head={"hidden_size": (9,)},
        own={"critic_network": (0, 3)},
    ),
    "own network": case(
        "vector",
        {},
        {},
        head={"hidden_size": ()},
        larger_head={"residual_layers": 1},
        own={"actor_network": (0, 3)},
    ),
    "two own networks": case(
        "vector",
        {},
        {},
        larger_head={"hidden_size": (9,), "residual_layers": 1},
        own={"actor_network": (0, 3), "critic_network": (0, 5)},
    ),
}


def agent_of(growth: Growth, seed: int = 0) -> PPO:
    """A case's agent, whose own networks have been used: their buffers are not those of Own."""
    agent = growth.agent(seed)
    for module in agent.policy.modules():
        if isinstance(module, Own):
            module.scale.fill_(1.7)
    return agent


class Sampled(gym.Env[Any, Any]):
    """Random observations of any space, in episodes of five steps."""

    def __init__(self, growth: Growth) -> None:
        self.observation_space = (OBSERVATIONS | SPACES)[growth.observation]
        self.action_space = ACTIONS[growth.action]
        self.time = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        reward = float(np.sum(action)) % 1.3
        return self.observation_space.sample(), reward, self.time == 5, False, {}


def sampled(growth: Growth) -> Any:
    return SyncVectorEnv([lambda: Sampled(growth)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)


# --- growing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(SEEDS)
@double()
def test_growing_changes_no_output(kind: str, seed: int) -> None:
    """Any widths and residual layers, stepping and as the learner runs, 200 steps, any weights."""
    growth = some_growth(kind, seed)
    agent = growth.agent(seed)
    old = agent.policy
    before = named_weights(old)
    growth.grow(agent)
    assert agent.policy is not old
    assert agent.net_config == NetConfig.from_dict(growth.large)
    # Far below the bar: in double precision nothing but a mistake makes more.
    assert gap(old, agent.policy, seed=seed % 1000) < 1e-9
    for name, p in old.named_parameters():
        assert torch.equal(p, before[name]), "the old policy was written to"


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("share", [True, False])
def test_a_core_of_64_grows_to_96_and_a_second_layer(cell: str, share: bool) -> None:
    """In single precision, with weights such as training makes."""
    encoder = {"cell": cell, "hidden_state_size": 64}
    agent = PPO(
        OBSERVATIONS["vector"],
        ACTIONS["discrete"],
        {"encoder_config": encoder},
        seed=0,
        share_encoders=share,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in agent.policy.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    old = agent.policy
    larger = {**encoder, "hidden_state_size": 96, "residual_layers": 1}
    change(agent, {"encoder_config": larger})
    assert agent.policy.state_shapes[0] == (2, 96)
    assert gap(old, agent.policy) < BAR


@torch.no_grad()
def top_left(old: ActorCritic, new: ActorCritic) -> None:
    """Growing as it is often done: the old weights into the corner, zeros beside them."""
    for a, b in zip(old.parameters(), new.parameters(), strict=True):
        b.zero_()
        b[tuple(slice(size) for size in a.shape)] = a


@torch.no_grad()
def by_gate_beside_fresh_ones(old: ActorCritic, new: ActorCritic) -> None:
    """The right gates, but old units read the new ones."""
    for (name, a), b in zip(old.named_parameters(), new.parameters(), strict=True):
        gates = (4 if old.encoders[0].core.is_lstm else 3) if ".core." in name else 1
        corner = tuple(slice(size) for size in a.shape[1:])
        for x, y in zip(a.chunk(gates), b.chunk(gates), strict=True):
            y[(slice(len(x)), *corner)] = x


@double()
@pytest.mark.parametrize("naive", [top_left, by_gate_beside_fresh_ones])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_naive_growth_fails_the_same_check(
    cell: str, naive: Callable[[ActorCritic, ActorCritic], None]
) -> None:
    encoder = {"cell": cell, "hidden_state_size": 5}
    agent = PPO(
        OBSERVATIONS["vector"],
        ACTIONS["discrete"],
        {"encoder_config": encoder, "head_config": {"hidden_size": (6,)}},
        seed=0,
    )
    randomise(agent.policy, 0)
    old = agent.policy
    larger = agent.net_config.replace(encoder_config={**encoder, "hidden_state_size": 7})
    new = agent.build_policy(larger, agent.group.generator)
    naive(old, new)
    assert gap(old, new) > 1e-2
    change(agent, larger)
    assert gap(old, agent.policy) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(SEEDS)
@double()
def test_growing_within_an_episode(kind: str, seed: int) -> None:
    """The hidden state is carried over; new units and layers begin from zero."""
    growth = some_growth(kind, seed)
    agent = growth.agent(seed)
    old = agent.policy
    observation, reward = inputs_for(old, 40)
    first = play(old, observation[:20], reward[:20])
    transfer = growth.grow(agent)
    state = transfer.state(first.state)
    agent.check_state(state, 3)
    for x, was in zip(state.tensors, first.state.tensors, strict=True):
        assert torch.equal(x[: len(was), :, : was.shape[2]], was)
        assert (x[len(was) :] == 0).all()
        assert (x[:, :, was.shape[2] :] == 0).all()
    theirs = play(old, observation[20:], reward[20:], first.state)
    ours = play(agent.policy, observation[20:], reward[20:], state)
    assert difference((ours.params, ours.values), (theirs.params, theirs.values)) < 1e-9
    sequence = whole(agent.policy, observation[20:], ours.extra, state)
    assert difference(sequence, (theirs.params, theirs.values)) < 1e-9


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
@double()
def test_growing_any_network_changes_no_output(name: str, seed: int) -> None:
    """From an episode's start, within one, and as the learner runs."""
    growth = CASES[name]
    agent = agent_of(growth, seed)
    old = agent.policy
    observation, reward = inputs_for(old, 24, seed=seed)
    first = play(old, observation[:12], reward[:12])
    transfer = growth.grow(agent)
    sizes = [sum(p.numel() for p in policy.parameters()) for policy in (old, agent.policy)]
    assert sizes[0] < sizes[1]
    assert gap(old, agent.policy, 24, seed) < 1e-9
    state = transfer.state(first.state)
    agent.check_state(state, 3)
    theirs = play(old, observation[12:], reward[12:], first.state)
    ours = play(agent.policy, observation[12:], reward[12:], state)
    assert difference((ours.params, ours.values), (theirs.params, theirs.values)) < 1e-9
    sequence = whole(agent.policy, observation[12:], ours.extra, state)
    assert difference(sequence, (theirs.params, theirs.values)) < 1e-9
    spread = torch.cat((ours.params.flatten(), ours.values.flatten())).std()
    assert spread > 1e-2, "nothing to be preserved"


@pytest.mark.parametrize("activation", ["Tanh", "ReLU"])
def test_new_latents_do_not_change_the_exploration(activation: str) -> None:
    """Bit for bit in single precision: what is drawn, and how likely it is."""
    head = {"hidden_size": (64,), "activation": activation}
    agent = PPO(OBSERVATIONS["vector"], ACTIONS["box"], {"head_config": head}, seed=0, use_sde=True)
    before = agent.policy.head
    change(agent, {"head_config": {**head, "hidden_size": (128,)}})
    after = agent.policy.head
    assert torch.equal(after.log_std[:64], before.log_std)
    assert (after.log_std[64:].exp() > 0).all()
    z = torch.randn(100, 128)
    outputs = [torch.cat((torch.zeros(100, 2), x), -1) for x in (z[:, :64], z)]
    old, new = before.parameters_of(outputs[0]), after.parameters_of(outputs[1])
    for a, b in zip(before.moments(old), after.moments(new), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-7)  # sums in another order
    noise = torch.randn(100, 128, 2)
    drawn = before.sample(old, noise[:, :64])
    torch.testing.assert_close(drawn, after.sample(new, noise), rtol=0, atol=1e-6)
    torch.testing.assert_close(before.log_prob(old, drawn), after.log_prob(new, drawn))


def test_another_activation_keeps_all_weights() -> None:
    growth = some_growth("lstm", 0)
    growth.small["encoder_config"] |= {"hidden_size": (4,), "activation": "Tanh"}
    agent = growth.agent()
    before = named_weights(agent.policy)
    encoder = growth.small["encoder_config"] | {"activation": "ReLU"}
    change(agent, {**growth.small, "encoder_config": encoder})
    assert_same(named_weights(agent.policy), before)
    assert type(agent.policy.encoders[0].mlp[1]).__name__ == "ReLU"


def test_new_weights_come_from_the_generator() -> None:
    growth = some_growth("lstm", 3)
    growth.large["encoder_config"]["hidden_state_size"] += 4
    agents = [growth.agent() for _ in range(3)]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for agent, seed in zip(agents, (1, 1, 2), strict=True):
        change(agent, growth.large, seed)
    assert torch.equal(torch.rand(3), expected), "the global random state was used"
    first, same, other = (named_weights(agent.policy) for agent in agents)
    assert_same(first, same)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    # The agent's own stream, of actions and shuffling, goes on where it was.
    assert torch.equal(agents[0].generator.get_state(), growth.agent().generator.get_state())


# --- shrinking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(SEEDS)
def test_growing_and_shrinking_back_changes_nothing(kind: str, seed: int) -> None:
    """What has just grown is the least useful, so the very same weights are left."""
    growth = some_growth(kind, seed)
    agent = growth.agent(seed)
    before = {name: x.clone() for name, x in agent.policy.state_dict().items()}
    growth.grow(agent)
    change(agent, growth.small)
    assert_same(dict(agent.policy.state_dict()), before)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_growing_any_network_and_shrinking_it_back_changes_nothing(name: str, seed: int) -> None:
    growth = CASES[name]
    agent = agent_of(growth, seed)
    before = {key: x.clone() for key, x in agent.policy.state_dict().items()}
    growth.grow(agent)
    change(agent, growth.small)
    assert_same(dict(agent.policy.state_dict()), before)


def drop(policy: ActorCritic, useless: dict[str, list[int]]) -> None:
    """Zero some columns of some weights: what is read of some units."""
    parameters = dict(policy.named_parameters())
    with torch.no_grad():
        for name, columns in useless.items():
            parameters[name][:, columns] = 0


USELESS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, list[int]]]] = {
    # Other units in each layer, so that a mapping of one layer used for another is noticed.
    "recurrent layers": (
        {"hidden_state_size": 6, "num_layers": 2},
        {"hidden_state_size": 4, "num_layers": 2},
        {
            "encoders.0.core.rnn.weight_hh_l0": [1, 4],
            "encoders.0.core.rnn.weight_ih_l1": [1, 4],
            "encoders.0.core.rnn.weight_hh_l1": [0, 5],
            "actor.0.weight": [0, 5],
            "critic.0.weight": [0, 5],
        },
    ),
    "below a residual layer": (
        {"hidden_state_size": 6, "residual_layers": 1},
        {"hidden_state_size": 4, "residual_layers": 1},
        {
            "encoders.0.core.rnn.weight_hh_l0": [2, 3],
            "encoders.0.core.added.0.weight_ih_l0": [2, 3],
            "encoders.0.core.added.0.weight_hh_l0": [2, 3],
            "actor.0.weight": [2, 3],
            "critic.0.weight": [2, 3],
        },
    ),
    "in front of the core": (
        {"hidden_size": (6, 5), "hidden_state_size": 4},
        {"hidden_size": (4, 4), "hidden_state_size": 4},
        {"encoders.0.mlp.2.weight": [0, 3], "encoders.0.core.rnn.weight_ih_l0": [2]},
    ),
}


@double()
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("which", USELESS)
@pytest.mark.parametrize("extras", [False, True])
def test_shrinking_drops_what_nobody_reads(which: str, cell: str, extras: bool) -> None:
    small, large, useless = USELESS[which]
    agent = PPO(
        OBSERVATIONS["vector"],
        ACTIONS["discrete"],
        {"encoder_config": {**small, "cell": cell}},
        seed=0,
        previous_action=extras,
        previous_reward=extras,
    )
    randomise(agent.policy, 0)
    old = agent.policy
    drop(old, useless)
    observation, reward = inputs_for(old, 40)
    first = play(old, observation[:20], reward[:20])
    transfer = change(agent, {"encoder_config": {**large, "cell": cell}})
    assert gap(old, agent.policy) < 1e-9
    theirs = play(old, observation[20:], reward[20:], first.state)
    ours = play(agent.policy, observation[20:], reward[20:], transfer.state(first.state))
    assert difference((ours.params, ours.values), (theirs.params, theirs.values)) < 1e-9


@double()
@pytest.mark.parametrize(("memory", "useless"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_units_that_only_the_recurrence_reads_are_useful(
    cell: str, memory: int, useless: int
) -> None:
    encoder = {"cell": cell, "hidden_state_size": 3}
    agent = PPO(OBSERVATIONS["vector"], ACTIONS["box"], {"encoder_config": encoder}, seed=0)
    randomise(agent.policy, 0)
    heads = {"actor.0.weight": [memory, useless], "critic.0.weight": [memory, useless]}
    drop(agent.policy, {**heads, "encoders.0.core.rnn.weight_hh_l0": [useless]})
    old = agent.policy
    change(agent, {"encoder_config": {**encoder, "hidden_state_size": 2}})
    assert gap(old, agent.policy, 30) < 1e-9


@double()
@pytest.mark.parametrize("part", ["encoder_config", "head_config"])
def test_shrinking_drops_useless_units_of_mlps_and_residual_blocks(part: str) -> None:
    agent = PPO(
        OBSERVATIONS["vector"],
        ACTIONS["discrete"],
        {part: {"hidden_size": (6, 5), "residual_layers": 2}},
        seed=0,
        recurrent=False,
    )
    randomise(agent.policy, 0)
    old = agent.policy
    if part == "encoder_config":
        drop(old, {"encoders.0.mlp.2.weight": [1, 2]})
        # The second of two blocks stays, the first does nothing.
        with torch.no_grad():
            old.encoders[0].mlp[4].outer.weight.zero_()
            old.encoders[0].mlp[4].outer.bias.zero_()
        kept = old.encoders[0].mlp[5].outer.weight
    else:
        drop(old, {"actor.2.weight": [1, 2], "critic.2.weight": [0, 5]})
        with torch.no_grad():
            for head in (old.actor, old.critic):
                head[5].outer.weight.zero_()
                head[5].outer.bias.zero_()
        kept = old.actor[4].outer.weight
    change(agent, {part: {"hidden_size": (4, 5), "residual_layers": 1}})
    new = (
        agent.policy.encoders[0].mlp[4]
        if part == "encoder_config"
        else agent.policy.action_head.layers[4]
    )
    assert torch.equal(new.outer.weight, kept)
    assert gap(old, agent.policy) < 1e-9


@double()
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_residual_recurrent_layer_that_adds_nothing_goes_first(cell: str) -> None:
    encoder = {"cell": cell, "hidden_state_size": 5, "residual_layers": 2}
    agent = PPO(OBSERVATIONS["vector"], ACTIONS["box"], {"encoder_config": encoder}, seed=0)
    randomise(agent.policy, 0)
    old = agent.policy
    core = old.encoders[0].core
    with torch.no_grad():
        for p in core.added[0].parameters():
            p.chunk(4 if cell == "lstm" else 3)[2].zero_()
    observation, reward = inputs_for(old, 40)
    first = play(old, observation[:20], reward[:20])
    transfer = change(agent, {"encoder_config": {**encoder, "residual_layers": 1}})
    assert gap(old, agent.policy) < 1e-9
    state = transfer.state(first.state)
    assert torch.equal(state.tensors[0][1], first.state.tensors[0][2])  # of the one that stayed
    theirs = play(old, observation[20:], reward[20:], first.state)
    ours = play(agent.policy, observation[20:], reward[20:], state)
    assert difference((ours.params, ours.values), (theirs.params, theirs.values)) < 1e-9


def shrink(agent: PPO, **changes: Any) -> None:
    """Change some of the encoder's widths."""
    encoder = agent.net_config.encoder_config.replace(**changes)
    change(agent, agent.net_config.replace(encoder_config=encoder))


@double()
@pytest.mark.parametrize("recurrent", [True, False])
def test_shrinking_drops_useless_channels(recurrent: bool) -> None:
    """Of each image others, of each convolution others; one pixel is enough to be of use."""
    cnn = {**CONVOLUTIONS, "channel_size": (6, 5)}
    agent = case("images", flat(cnn), {}, recurrent=recurrent).agent()
    old = agent.policy
    with torch.no_grad():
        for image, first, second, useful in zip(
            old.encoders[0].cnns, ([1, 4], [0, 5]), ([0, 3], [2, 4]), (1, 3), strict=True
        ):
            image.convolutions[2].weight[:, first] = 0
            columns = image.latent[0].weight.unflatten(1, (5, image.area))
            columns[:, second] = 0
            columns[:, useful, 1:] = 0
    shrink(agent, **flat(CONVOLUTIONS))
    assert gap(old, agent.policy, 20) < 1e-9


@double()
@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("hidden", [(), (5,)])
def test_shrinking_drops_useless_latents(hidden: tuple[int, ...], recurrent: bool) -> None:
    """Of each image others, and others of the vector."""
    encoder = {**flat(CONVOLUTIONS), **VECTORS, "hidden_size": hidden}
    config = {"recurrent": recurrent, "previous_action": True}
    agent = case("images", encoder, {}, **config).agent()
    old = agent.policy
    useless = [1, 5 + 4, 10 + 0]  # one of each five
    by_reader = {"encoders.0.mlp.0.weight": useless}
    if not hidden:
        heads = {"actor.0.weight": useless, "critic.0.weight": useless}
        by_reader = {"encoders.0.core.rnn.weight_ih_l0": useless} if recurrent else heads
    drop(old, {**by_reader, "encoders.0.vector_mlp.2.weight": [2]})
    changed = {"hidden_size": (3,), "activation": "ELU"}
    shrink(agent, latent_dim=4, mlp_config=changed)
    assert agent.policy.encoders[0].parts == [4, 4, 4]
    assert gap(old, agent.policy, 20) < 1e-9


@double()
def test_shrinking_around_the_core() -> None:
    """What only the map around the core reads is useful; what only it writes is so, too."""
    agent = case("vector", {"core_residual": True, "hidden_size": (5,)}, {}).agent()
    old = agent.policy
    heads = {"actor.0.weight": [2], "critic.0.weight": [2]}
    core = {"encoders.0.core.rnn.weight_ih_l0": [0, 3], "encoders.0.core.rnn.weight_hh_l0": [2]}
    drop(old, {**heads, **core, "encoders.0.skip.weight": [3]})
    with torch.no_grad():
        for weights in (
            old.encoders[0].core.rnn.weight_ih_l0,
            old.encoders[0].core.rnn.weight_hh_l0,
        ):
            weights.unflatten(0, (4, 4))[:, 0] = 0
    shrink(agent, hidden_size=(4,), hidden_state_size=3)
    assert gap(old, agent.policy, 20) < 1e-9


@double()
def test_shrinking_keeps_the_exploration_by_what_stays() -> None:
    agent = case("vector", {}, {}, action="box", use_sde=True).agent()
    old = agent.policy
    drop(old, {"actor.2.weight": [1, 4], "critic.2.weight": [0, 5]})
    before = old.head.log_std.detach().clone()
    before[[1, 4]] = -40
    old.head.log_std.data.copy_(before)
    change(agent, agent.net_config.replace(head_config={"hidden_size": (4,)}))
    assert torch.equal(agent.policy.action_head.distribution.log_std, before[[0, 2, 3, 5]])
    assert gap(old, agent.policy, 20) < 1e-9


def test_layer_norms_stay_with_their_units() -> None:
    """Though widths that they normalise are left alone by mutations."""
    encoder = {"hidden_size": (5,), **{k: v for k, v in NORMS.items() if k != "hidden_size"}}
    agent = case("vector", encoder, {}, head={"layer_norm": True}).agent()
    old = agent.policy
    net = agent.net_config
    shrink(agent, hidden_size=(3,), hidden_state_size=3)
    change(agent, agent.net_config.replace(head_config=net.head_config.replace(hidden_size=(4,))))
    new = agent.policy

    def units(policy: ActorCritic) -> list[set[tuple[float, ...]]]:
        encoder = policy.encoders[0]
        found = []
        for bias, norm in (
            (encoder.mlp[0].bias, encoder.mlp[1]),
            (encoder.core.rnn.bias_ih_l0[: policy.state_shapes[0][1]], encoder.norm),
            (policy.action_head.layers[0].bias, policy.action_head.layers[1]),
            (policy.value_head.layers[0].bias, policy.value_head.layers[1]),
        ):
            rows = torch.stack((bias, norm.weight, norm.bias), 1).tolist()
            found.append({tuple(row) for row in rows})
        return found

    for few, all_of_them, count in zip(units(new), units(old), (3, 3, 4, 4), strict=True):
        assert len(few) == count
        assert few < all_of_them


@torch.no_grad()
def test_what_a_layer_norm_makes_small_is_of_little_use() -> None:
    """Of two units the one stays that the core's louder output reads, though it is read less."""
    encoder = {"core_residual": True, "core_layer_norm": True, "hidden_size": (2,)}
    agent = case("vector", encoder, {}).agent()
    part = agent.policy.encoders[0]
    for weight in (
        agent.policy.action_head.layers[0].weight,
        agent.policy.value_head.layers[0].weight,
        part.mlp[0].weight,
    ):
        weight.fill_(1)
    for weight in (part.core.rnn.weight_ih_l0, part.skip.weight):
        weight.zero_()
    part.skip.weight[1, 0], part.norm.weight[1] = 10, 0.01
    part.skip.weight[0, 1], part.norm.weight[0] = 1, 1
    part.mlp[0].bias.copy_(torch.tensor([5.0, 7.0]))
    shrink(agent, hidden_size=(1,))
    assert agent.policy.encoders[0].mlp[0].bias.tolist() == [7]


# --- the optimiser ------------------------------------------------------------------------------


def env() -> Any:
    return scripted(["3t 5l", "7b"])


def train(agent: Any, vector: Any, rollouts: int = 1) -> None:
    for _ in range(rollouts):
        collect_rollouts_recurrent(agent, vector)
        agent.learn()


LARGER: dict[str, Any] = {
    "encoder_config": {
        "hidden_size": (),
        "hidden_state_size": 8,
        "residual_layers": 1,
        "max_seq_len": 4,
    },
    "head_config": {"hidden_size": (9,), "residual_layers": 1},
}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"cell": "gru", "share_encoders": False, "previous_action": True, "normalize_obs": True},
]


def larger(agent: Any) -> NetConfig:
    """``LARGER``, with the cells that the agent has."""
    encoder = {**LARGER["encoder_config"], "cell": agent.net_config.encoder_config.cell}
    return NetConfig.from_dict({**LARGER, "encoder_config": encoder})


def old_name(name: str) -> str:
    """What a weight of ``LARGER`` was called: a block now stands before the heads' last layer."""
    return name.replace("actor.3.", "actor.2.").replace("critic.3.", "critic.2.")


def kept(name: str, old: Tensor, new: Tensor, gates: int) -> Tensor:
    """A mask of the weights that growing took over."""
    mask = torch.zeros(new.shape, dtype=torch.bool)
    corner = tuple(slice(size) for size in old.shape[1:])
    for part in mask.chunk(gates if ".core." in name else 1):
        part[(slice(len(old) // (gates if ".core." in name else 1)), *corner)] = True
    return mask


@pytest.mark.parametrize("variant", VARIANTS)
def test_moments_come_along(variant: dict[str, Any]) -> None:
    agent = make_agent(env(), hidden_size=(), **variant)
    train(agent, env(), 2)
    gates = 3 if variant else 4
    past_moments = split_adam_state(agent.optimizer.state_dict(), list(agent.policy.parameters()))
    named = named_weights(agent.policy)
    before = {n: (named[n], m) for n, m in zip(named, past_moments, strict=True)}
    change(agent, larger(agent))
    now = split_adam_state(agent.optimizer.state_dict(), list(agent.policy.parameters()))
    every = torch.cat([m["exp_avg_sq"].flatten() for _, m in before.values()])
    for (name, weight), moments in zip(agent.policy.named_parameters(), now, strict=True):
        assert all(moments[key].shape == weight.shape for key in ("exp_avg", "exp_avg_sq"))
        if old_name(name) not in before:  # a new layer
            assert (moments["exp_avg"] == 0).all()
            torch.testing.assert_close(moments["exp_avg_sq"], every.mean().expand(weight.shape))
            continue
        was, past = before[old_name(name)]
        assert float(moments["step"]) == float(past["step"]) > 0
        mask = kept(name, was, weight, gates)
        assert int(mask.sum()) == was.numel()
        assert torch.equal(weight[mask], was.flatten()), name
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(moments[key][mask], past[key].flatten()), name
        assert (moments["exp_avg"][~mask] == 0).all()
        fresh = moments["exp_avg_sq"][~mask]
        torch.testing.assert_close(fresh, past["exp_avg_sq"].mean().expand(fresh.shape))


def test_moments_of_what_shrank_are_those_it_had() -> None:
    agent = make_agent(env(), hidden_size=(), hidden_state_size=8)
    train(agent, env(), 2)
    small = {
        "encoder_config": {"hidden_size": (), "hidden_state_size": 5, "max_seq_len": 4},
        "head_config": {"hidden_size": (6,)},
    }
    names = [name for name, _ in agent.policy.named_parameters()]
    old = split_adam_state(agent.optimizer.state_dict(), list(agent.policy.parameters()))
    parameters = [p.detach().clone() for p in agent.policy.parameters()]
    change(agent, small)
    new = split_adam_state(agent.optimizer.state_dict(), list(agent.policy.parameters()))
    for name, p, was, now, past in zip(
        names, agent.policy.parameters(), parameters, new, old, strict=True
    ):
        assert float(now["step"]) == float(past["step"])
        # Random weights are all different, so each tells where it came from.
        place = {float(w): i for i, w in enumerate(was.flatten())}
        origin = [place[float(w)] for w in p.detach().flatten()]
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(now[key].flatten(), past[key].flatten()[origin]), name


def pretend_moments(agent: PPO) -> None:
    """Adam's moments by which each weight is recognised."""
    (vector,) = agent.optimizer.param_groups[0]["params"]
    now = vector.detach().clone()
    agent.optimizer.state[vector] = {
        "step": torch.tensor(3.0),
        "exp_avg": 2 * now,
        "exp_avg_sq": now.square(),
    }


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("grow", [True, False])
def test_moments_of_any_network_follow_its_weights(name: str, grow: bool) -> None:
    growth = CASES[name]
    agent = agent_of(growth)
    if not grow:
        growth.grow(agent)
        randomise(agent.policy, 1)
    before = named_weights(agent.policy)
    pretend_moments(agent)
    change(agent, growth.large if grow else growth.small)
    after = named_weights(agent.policy)
    moments = split_adam_state(agent.optimizer.state_dict(), list(agent.policy.parameters()))
    kept = 0
    for (name, weight), each in zip(after.items(), moments, strict=True):
        known = each["exp_avg"] != 0
        assert grow or known.all(), name
        kept += int(known.sum())
        assert torch.equal(each["exp_avg"][known], 2 * weight[known]), name
        assert torch.equal(each["exp_avg_sq"][known], weight[known].square()), name
        assert float(each["step"]) == 3
    sizes = [sum(w.numel() for w in weights.values()) for weights in (before, after)]
    assert kept == min(sizes)


def test_an_untrained_agent_begins_without_moments() -> None:
    agent = make_agent(env(), hidden_size=())
    change(agent, LARGER)
    assert agent.optimizer.state_dict()["state"] == {}
    train(agent, env())


# --- learning on --------------------------------------------------------------------------------


SMALLER: dict[str, Any] = {
    "encoder_config": {"hidden_size": (), "hidden_state_size": 3, "max_seq_len": 4},
    "head_config": {"hidden_size": (4,)},
}


@pytest.mark.parametrize("variant", [*VARIANTS, {"recurrent": False}])
@pytest.mark.parametrize("net", [LARGER, SMALLER], ids=["larger", "smaller"])
def test_probability_ratios_are_one_after_a_change(
    net: dict[str, Any], variant: dict[str, Any]
) -> None:
    vector = env()
    agent = make_agent(vector, hidden_size=(), **variant)
    train(agent, vector, 2)
    cell = agent.net_config.encoder_config.cell
    change(agent, {**net, "encoder_config": {**net["encoder_config"], "cell": cell}})
    assert agent.buffer is None
    assert agent.carry is None
    with pytest.raises(RuntimeError, match="expected a rollout"):
        agent.learn()
    collect_rollouts_recurrent(agent, vector)
    log_prob, value = replay(agent.policy, agent.buffer)
    active = agent.buffer.active & agent.buffer.exists
    torch.testing.assert_close(log_prob[active], agent.buffer.log_prob[active])
    torch.testing.assert_close(value[active], agent.buffer.value[active])
    assert agent.learn().updates > 0


@pytest.mark.parametrize("name", CASES)
def test_any_network_goes_on_learning_and_is_saved(name: str, tmp_path: Path) -> None:
    growth = CASES[name]
    short = {"learn_step": 10, "batch_size": 8, "update_epochs": 3, "lr": 1e-2}
    growth = replace(growth, config={**growth.config, **short})
    agent = agent_of(growth)
    vector = sampled(growth)
    train(agent, vector)
    for net in (growth.large, growth.small):
        change(agent, net)
        collect_rollouts_recurrent(agent, vector)
        log_prob, value = replay(agent.policy, agent.buffer)
        active = agent.buffer.active & agent.buffer.exists
        expected = agent.buffer.log_prob[active], agent.buffer.value[active]
        torch.testing.assert_close(log_prob[active], expected[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(value[active], expected[1], rtol=1e-4, atol=1e-4)
        before = named_weights(agent.policy)
        assert agent.learn().updates > 0
        after = named_weights(agent.policy)
        unmoved = [k for k in before if torch.equal(before[k], after[k])]
        assert not unmoved
        agent.save_checkpoint(tmp_path / "agent.pt")
        other = PPO.load(tmp_path / "agent.pt", **growth.networks)
        assert_same_weights(weights(agent), weights(other))
        assert_same_weights(weights(agent), weights(agent.clone()))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("trained", [False, True])
def test_gradients_reach_what_is_new(variant: dict[str, Any], trained: bool) -> None:
    vector = env()
    agent = make_agent(vector, hidden_size=(), batch_size=100, update_epochs=1, **variant)
    if trained:
        train(agent, vector)
    old = named_weights(agent.policy)
    change(agent, larger(agent))
    gates = 3 if variant else 4
    start = named_weights(agent.policy)
    train(agent, vector)  # one gradient step
    first = named_weights(agent.policy)
    for head in ("actor", "critic"):
        columns = f"{head}.0.weight"  # what old hidden units read of new features
        assert (start[columns][:6, 5:] == 0).all()
        assert (first[columns][:6, 5:] != 0).all()
    # Of units that somebody reads already; nobody does what is new in both ways.
    candidate = first["encoders.0.core.added.0.weight_ih_l0"].chunk(gates)[2]
    assert (start["encoders.0.core.added.0.weight_ih_l0"].chunk(gates)[2] == 0).all()
    assert (candidate[:5] != 0).all()
    assert (start["actor.2.outer.weight"] == 0).all()
    assert (first["actor.2.outer.weight"][:6] != 0).all()
    train(agent, vector)  # and another, as zeros stood in front of the new units
    second = named_weights(agent.policy)
    for name, now in second.items():
        if old_name(name) in old:
            new = ~kept(name, old[old_name(name)], now, gates)
            assert (now[new] != start[name][new]).all(), name
        else:
            assert (now != start[name]).any(), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_saving_and_loading_after_a_change(variant: dict[str, Any], tmp_path: Path) -> None:
    agent = make_agent(env(), hidden_size=(), **variant)
    train(agent, env(), 2)
    change(agent, larger(agent))
    agent.save_checkpoint(tmp_path / "agent.pt")
    other = PPO.load(tmp_path / "agent.pt")
    assert other.net_config == agent.net_config
    assert_same_weights(weights(agent), weights(other))
    for each in (agent, other):
        train(each, env(), 2)
    assert_same_weights(weights(agent), weights(other))
    clone = agent.clone()
    assert_same_weights(weights(agent), weights(clone))


def team_env() -> Any:
    episode = {
        "bob_0": [(0, 5, "t")],
        "fred_0": [(1, 3, "l")],
        "bob_1": [(0, 1, "l"), (3, 5, "b")],
    }
    return SyncMultiAgentVectorEnv(scripted_makers([[episode]] * 2))


@pytest.mark.parametrize("agent_id_input", [False, True])
def test_one_group_of_a_team_changes_alone(agent_id_input: bool, tmp_path: Path) -> None:
    vector = team_env()
    agent = make_team(vector, hidden_size=(), agent_id_input=agent_id_input)
    train(agent, vector, 2)
    bob, fred = agent.groups
    others = {"weights": weights(fred), "generator": fred.generator.get_state().clone()}
    policy = fred.policy
    change(bob, LARGER)
    assert fred.policy is policy
    assert_same({"weights": weights(fred), "generator": fred.generator.get_state()}, others)
    assert (bob.net_config, fred.net_config) == (
        NetConfig.from_dict(LARGER),
        make_team(vector, hidden_size=()).groups[1].net_config,
    )
    agent.save_checkpoint(tmp_path / "team.pt")
    other = IPPO.load(tmp_path / "team.pt")
    assert_same(snapshot(other), snapshot(agent))
    collect_rollouts_recurrent(agent, vector)
    for group in agent.groups:
        log_prob, _ = replay(group.policy, group.buffer)
        active = group.buffer.active & group.buffer.exists
        torch.testing.assert_close(log_prob[active], group.buffer.log_prob[active])
    agent.learn()
