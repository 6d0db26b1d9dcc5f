"""Tests of `recurrent_rl.evolution.morphing`: networks grow and shrink and keep what they do."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support.agents import assert_same_weights, make_agent, make_team, randomise, weights
from support.envs import scripted
from support.evolving import assert_same, snapshot
from support.growing import (
    BAR,
    CASES,
    CONVOLUTIONS,
    NORMS,
    VECTORS,
    Growth,
    agent_of,
    case,
    change,
    difference,
    flat,
    gap,
    inputs_for,
    named_weights,
    play,
    sampled,
    whole,
)
from support.helpers import ACTIONS, OBSERVATIONS, SEEDS, double
from support.multi_envs import scripted_makers
from support.pairs import examples
from torch import Tensor

from recurrent_rl import (
    IPPO,
    PPO,
    NetConfig,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.networks.flat_parameters import split_adam_state
from recurrent_rl.networks.policy import ActorCritic

CORES = ["lstm", "gru", "mingru", "lru"]
KINDS = [*CORES, "feed-forward"]
LONG = ["lstm", "gru", "feed-forward"]  # the others follow below, over fewer steps


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
        common = {"cell": kind, "num_layers": int(random.integers(1, 3))}
        encoder |= {**common, "hidden_state_size": size}
        large_encoder |= {**common, "hidden_state_size": more(size, 7)}
    options = ("share_encoders", "previous_action", "previous_reward", "normalize_obs")
    config: dict[str, Any] = {name: bool(random.integers(2)) for name in options}
    config |= {"recurrent": kind != "feed-forward", "squash_output": False, "max_seq_len": 8}
    return Growth(
        {"encoder_config": encoder, "head_config": head},
        {"encoder_config": large_encoder, "head_config": large_head},
        config,
        str(random.choice(list(OBSERVATIONS))),
        str(random.choice(list(ACTIONS))),
    )


# --- growing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LONG)
@settings(max_examples=examples(5))
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


@pytest.mark.parametrize(
    ("cell", "share"),
    [*itertools.product(["lstm", "gru"], [True, False]), ("mingru", True), ("lru", False)],
)
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
        gates = old.encoders[0].core.rnn.gates if ".core." in name else 1
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
    new = agent.group.build_policy(larger, agent.group.generator)
    naive(old, new)
    assert gap(old, new) > 1e-2
    change(agent, larger)
    assert gap(old, agent.policy) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(8))
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
    agent.group.check_state(state, 3)
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
@pytest.mark.parametrize("seed", range(2))
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
    agent.group.check_state(state, 3)
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
    before = agent.policy.action_head.distribution
    change(agent, {"head_config": {**head, "hidden_size": (128,)}})
    after = agent.policy.action_head.distribution
    assert torch.equal(after.log_std[:64], before.log_std)
    assert (after.log_std[64:].exp() > 0).all()
    z = torch.randn(100, 128)
    outputs = [torch.cat((torch.zeros(100, 2), x), -1) for x in (z[:, :64], z)]
    old, new = before.dist_params(outputs[0]), after.dist_params(outputs[1])
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
    assert torch.equal(
        agents[0].group.generator.get_state(), growth.agent().group.generator.get_state()
    )


# --- shrinking ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(10))
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


def read_by_heads(columns: list[int]) -> dict[str, list[int]]:
    """The same columns of both heads' first layers."""
    return {f"{head}.layers.0.weight": columns for head in ("action_head", "value_head")}


USELESS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, list[int]]]] = {
    # Other units in each layer, so that a mapping of one layer used for another is noticed.
    "recurrent layers": (
        {"hidden_state_size": 6, "num_layers": 2},
        {"hidden_state_size": 4, "num_layers": 2},
        {
            "trunks.0.encoder.core.rnn.weight_hh_l0": [1, 4],
            "trunks.0.encoder.core.rnn.weight_ih_l1": [1, 4],
            "trunks.0.encoder.core.rnn.weight_hh_l1": [0, 5],
            **read_by_heads([0, 5]),
        },
    ),
    "below a residual layer": (
        {"hidden_state_size": 6, "residual_layers": 1},
        {"hidden_state_size": 4, "residual_layers": 1},
        {
            "trunks.0.encoder.core.rnn.weight_hh_l0": [2, 3],
            "trunks.0.encoder.core.added.0.weight_ih_l0": [2, 3],
            "trunks.0.encoder.core.added.0.weight_hh_l0": [2, 3],
            **read_by_heads([2, 3]),
        },
    ),
    "in front of the core": (
        {"hidden_size": (6, 5), "hidden_state_size": 4},
        {"hidden_size": (4, 4), "hidden_state_size": 4},
        {"trunks.0.encoder.mlp.2.weight": [0, 3], "trunks.0.encoder.core.rnn.weight_ih_l0": [2]},
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
@pytest.mark.parametrize("cell", ["mingru", "lru"])
def test_shrinking_drops_what_nobody_reads_of_a_linear_recurrence(cell: str) -> None:
    encoder = {"cell": cell, "hidden_state_size": 6, "num_layers": 2}
    agent = PPO(OBSERVATIONS["vector"], ACTIONS["box"], {"encoder_config": encoder}, seed=0)
    randomise(agent.policy, 0)
    rnn, states = "trunks.0.encoder.core.rnn", {1: [2, 3, 8, 9], 0: [0, 1, 10, 11]}
    useless = {f"{rnn}.weight_ih_l1": [1, 4], **read_by_heads([0, 5])}
    if cell == "lru":  # whose states are read by its own outputs, in pairs
        useless |= {f"{rnn}.weight_out_l0": states[1], f"{rnn}.weight_out_l1": states[0]}
        useless[f"{rnn}.weight_skip_l1"] = [1, 4]
    drop(agent.policy, useless)
    old = agent.policy
    observation, reward = inputs_for(old, 40)
    first = play(old, observation[:20], reward[:20])
    transfer = change(agent, {"encoder_config": {**encoder, "hidden_state_size": 4}})
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
    heads = read_by_heads([memory, useless])
    drop(agent.policy, {**heads, "trunks.0.encoder.core.rnn.weight_hh_l0": [useless]})
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
        drop(old, {"trunks.0.encoder.mlp.2.weight": [1, 2]})
        # The second of two blocks stays, the first does nothing.
        with torch.no_grad():
            old.encoders[0].mlp[4].outer.weight.zero_()
            old.encoders[0].mlp[4].outer.bias.zero_()
        kept = old.encoders[0].mlp[5].outer.weight
    else:
        drop(old, {"action_head.layers.2.weight": [1, 2], "value_head.layers.2.weight": [0, 5]})
        with torch.no_grad():
            for head in (old.action_head, old.value_head):
                head.layers[5].outer.weight.zero_()
                head.layers[5].outer.bias.zero_()
        kept = old.action_head.layers[4].outer.weight
    change(agent, {part: {"hidden_size": (4, 5), "residual_layers": 1}})
    new = (
        agent.policy.encoders[0].mlp[4]
        if part == "encoder_config"
        else agent.policy.action_head.layers[4]
    )
    assert torch.equal(new.outer.weight, kept)
    assert gap(old, agent.policy) < 1e-9


@double()
@pytest.mark.parametrize("cell", CORES)
def test_a_residual_recurrent_layer_that_adds_nothing_goes_first(cell: str) -> None:
    encoder = {"cell": cell, "hidden_state_size": 5, "residual_layers": 2}
    agent = PPO(OBSERVATIONS["vector"], ACTIONS["box"], {"encoder_config": encoder}, seed=0)
    randomise(agent.policy, 0)
    old = agent.policy
    core = old.encoders[0].core
    core.added[0].start_as_identity()
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
    by_reader = {"trunks.0.encoder.mlp.0.weight": useless}
    if not hidden:
        heads = read_by_heads(useless)
        by_reader = {"trunks.0.encoder.core.rnn.weight_ih_l0": useless} if recurrent else heads
    drop(old, {**by_reader, "trunks.0.encoder.vector_mlp.2.weight": [2]})
    changed = {"hidden_size": (3,), "activation": "ELU"}
    shrink(agent, latent_dim=4, mlp_config=changed)
    assert agent.policy.encoders[0].parts == [4, 4, 4]
    assert gap(old, agent.policy, 20) < 1e-9


@double()
def test_shrinking_around_the_core() -> None:
    """What only the map around the core reads is useful; what only it writes is so, too."""
    agent = case("vector", {"core_residual": True, "hidden_size": (5,)}, {}).agent()
    old = agent.policy
    heads = read_by_heads([2])
    core = "trunks.0.encoder.core.rnn.weight"
    drop(old, {**heads, f"{core}_ih_l0": [0, 3], f"{core}_hh_l0": [2]})
    drop(old, {"trunks.0.encoder.skip.weight": [3]})
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
    drop(old, {"action_head.layers.2.weight": [1, 4], "value_head.layers.2.weight": [0, 5]})
    before = old.action_head.distribution.log_std.detach().clone()
    before[[1, 4]] = -40
    old.action_head.distribution.log_std.data.copy_(before)
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


def named_moments(agent: PPO) -> dict[str, dict[str, Tensor]]:
    """Adam's moments by the names of the weights."""
    trained = agent.policy.trained_parameters()
    names = {p: name for name, p in agent.policy.named_parameters()}
    moments = split_adam_state(agent.optimizer.state_dict(), trained)
    return {names[p]: each for p, each in zip(trained, moments, strict=True)}


LARGER: dict[str, Any] = {
    "encoder_config": {
        "hidden_size": (),
        "hidden_state_size": 8,
        "residual_layers": 1,
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
    return name.replace("_head.layers.3.", "_head.layers.2.")


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
    named, past_moments = named_weights(agent.policy), named_moments(agent)
    before = {n: (named[n], past_moments[n]) for n in named}
    change(agent, larger(agent))
    now = named_moments(agent)
    every = torch.cat([m["exp_avg_sq"].flatten() for _, m in before.values()])
    for name, weight in agent.policy.named_parameters():
        moments = now[name]
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
        "encoder_config": {"hidden_size": (), "hidden_state_size": 5},
        "head_config": {"hidden_size": (6,)},
    }
    old, parameters = named_moments(agent), named_weights(agent.policy)
    change(agent, small)
    new = named_moments(agent)
    assert new.keys() == old.keys()
    for name, p in agent.policy.named_parameters():
        was, now, past = parameters[name], new[name], old[name]
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
    moments = named_moments(agent)
    kept = 0
    for name, weight in after.items():
        each = moments[name]
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
    "encoder_config": {"hidden_size": (), "hidden_state_size": 3},
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
    assert agent.collection.of(agent.groups) is None
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
    agent = make_agent(vector, hidden_size=(), batch_size=256, update_epochs=1, **variant)
    if trained:
        train(agent, vector)
    old = named_weights(agent.policy)
    change(agent, larger(agent))
    gates = 3 if variant else 4
    start = named_weights(agent.policy)
    train(agent, vector)  # one gradient step
    first = named_weights(agent.policy)
    for head in ("action_head", "value_head"):
        columns = f"{head}.layers.0.weight"  # what old hidden units read of new features
        assert (start[columns][:6, 5:] == 0).all()
        assert (first[columns][:6, 5:] != 0).all()
    # Of units that somebody reads already; nobody does what is new in both ways.
    candidate = first["trunks.0.encoder.core.added.0.weight_ih_l0"].chunk(gates)[2]
    assert (start["trunks.0.encoder.core.added.0.weight_ih_l0"].chunk(gates)[2] == 0).all()
    assert (candidate[:5] != 0).all()
    assert (start["action_head.layers.2.outer.weight"] == 0).all()
    assert (first["action_head.layers.2.outer.weight"][:6] != 0).all()
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


def test_there_is_nothing_to_continue_after_a_change_saved_or_not(tmp_path: Path) -> None:
    vector = env()
    agent = make_agent(vector, hidden_size=())
    train(agent, vector)
    change(agent, larger(agent))
    agent.save_checkpoint(tmp_path / "agent.pt")
    for each in (agent, PPO.load(tmp_path / "agent.pt")):
        with pytest.raises(ValueError, match="to continue, the agent has nothing"):
            collect_rollouts_recurrent(each, vector, reset=False)


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
    bob, fred = agent.trainers.values()
    others = {"weights": weights(fred), "generator": fred.group.generator.get_state().clone()}
    policy = fred.policy
    change(bob, LARGER)
    assert fred.policy is policy
    assert_same({"weights": weights(fred), "generator": fred.group.generator.get_state()}, others)
    assert (bob.net_config, fred.net_config) == (
        NetConfig.from_dict(LARGER),
        make_team(vector, hidden_size=()).groups[1].net_config,
    )
    agent.save_checkpoint(tmp_path / "team.pt")
    other = IPPO.load(tmp_path / "team.pt")
    assert_same(snapshot(other), snapshot(agent))
    collect_rollouts_recurrent(agent, vector)
    for trainer in agent.trainers.values():
        log_prob, _ = replay(trainer.policy, trainer.buffer)
        active = trainer.buffer.active & trainer.buffer.exists
        torch.testing.assert_close(log_prob[active], trainer.buffer.log_prob[active])
    agent.learn()
