"""Tests of `recurrent_rl.evolution.mutation`: what each kind changes, and what it leaves alone."""

import math
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from support.agents import make_team
from support.envs import scripted
from support.evolving import assert_same, grow_older, individual, snapshot
from support.growing import CASES, CONVOLUTIONS, VECTORS, agent_of, case, gap, sampled
from support.helpers import double
from support.multi_envs import scripted_makers
from torch import Tensor

from recurrent_rl import (
    PPO,
    Birth,
    HyperparameterConfig,
    Mutations,
    RLParameter,
    SyncMultiAgentVectorEnv,
    TournamentSelection,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.evolution.architecture_sites import depth_sites, width_sites

KINDS = ("none", "architecture", "parameters", "activation", "rl_hp")
RANGES = HyperparameterConfig(
    lr=RLParameter(1e-4, 1e-1),
    learn_step=RLParameter(4, 16, dtype=int),
    ent_coef=RLParameter(0, 0.1),
)


def mutations(kind: str, new_layer_prob: float = 0.5, **options: Any) -> Mutations:
    """Of one kind alone; layers may be as small as those of the tests."""
    chances = [float(kind == each) for each in KINDS]
    options = {"min_width": 2, "rand_seed": 0, **options}
    return Mutations(chances[0], chances[1], new_layer_prob, *chances[2:], **options)


def population(count: int = 3, **options: Any) -> list[Any]:
    """Individuals with ranges of hyper-parameters, numbered from 0."""
    agents = [individual(i, **options) for i in range(count)]
    for agent in agents:
        agent.hp_config = RANGES
    return agents


def env() -> Any:
    return scripted(["3t 5l", "7b"])


def team_env() -> Any:
    episode = {"bob_0": [(0, 3, "t")], "fred_0": [(0, 3, "l")], "bob_1": [(1, 3, "l")]}
    return SyncMultiAgentVectorEnv(scripted_makers([[episode]] * 2))


def team(index: int = 0) -> Any:
    """Two groups, trained once."""
    vector = team_env()
    agent = make_team(vector, seed=index, hidden_size=())
    collect_rollouts_recurrent(agent, vector)
    agent.learn()
    agent.lineage, agent.hp_config = [Birth(index)], RANGES
    return agent


def trained(index: int = 0, **options: Any) -> Any:
    agent = individual(index, **options)
    collect_rollouts_recurrent(agent, env())
    agent.learn()
    agent.hp_config = RANGES
    return agent


def parameters(agent: Any) -> dict[str, Tensor]:
    return {
        f"{i}.{name}": p.detach().clone()
        for i, group in enumerate(agent.groups)
        for name, p in group.policy.named_parameters()
    }


def many(agent: Any, mutation: Mutations, count: int = 40) -> list[Any]:
    """The same individual mutated many times."""
    return mutation.mutation([agent] * count)


# --- all kinds ----------------------------------------------------------------------------------


DONE = {
    "none": r"none",
    "architecture": r"(encoder\.(hidden_state_size|residual_layers)|"
    r"head\.(hidden_size\[0\]|residual_layers)) \d+ -> \d+",
    "parameters": r"weights \+ 0\.1 rms",
    "activation": r"head\.activation Tanh -> (ReLU|ELU|GELU)",
    "rl_hp": r"(lr 0\.01|learn_step (8|10)|ent_coef 0) -> [\d.]+",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone_does_what_it_says(kind: str) -> None:
    agents = population()
    mutated = mutations(kind).mutation(agents)
    for agent, child in zip(agents, mutated, strict=True):
        assert re.fullmatch(DONE[kind], child.mut), child.mut
        assert (child is agent) == (kind == "none")
        same_weights = parameters(agent).keys() == parameters(child).keys() and all(
            torch.equal(a, b)
            for a, b in zip(parameters(agent).values(), parameters(child).values(), strict=True)
        )
        assert same_weights == (kind in ("none", "activation", "rl_hp"))
        assert (child.net_config == agent.net_config) == (
            kind not in ("architecture", "activation")
        )
        assert (child.config == agent.config) == (kind != "rl_hp")


@pytest.mark.parametrize("make", [trained, team], ids=["PPO", "IPPO"])
@pytest.mark.parametrize("kind", KINDS)
def test_input_stays_as_it_is_and_the_mutated_go_on_learning(kind: str, make: Any) -> None:
    agents = [make(i) for i in range(2)]
    before = [snapshot(agent) for agent in agents]
    buffers = [trainer.buffer for agent in agents for trainer in agent.trainers.values()]
    mutated = mutations(kind).mutation(agents)
    vector = env() if make is trained else team_env()
    for agent, child in zip(agents, mutated, strict=True):
        if child is agent:
            continue
        collect_rollouts_recurrent(child, vector)
        for trainer in child.trainers.values():
            log_prob, _ = replay(trainer.policy, trainer.buffer)
            active = trainer.buffer.active & trainer.buffer.exists
            torch.testing.assert_close(log_prob[active], trainer.buffer.log_prob[active])
        child.learn()
        type(child).from_checkpoint(snapshot(child))
    for agent, state in zip(agents, before, strict=True):
        assert_same(snapshot(agent), state)
    now = [trainer.buffer for agent in agents for trainer in agent.trainers.values()]
    assert all(ours is theirs for ours, theirs in zip(now, buffers, strict=True))


@pytest.mark.parametrize("make", [individual, team], ids=["PPO", "IPPO"])
def test_reproducible_from_its_seed(make: Any) -> None:
    runs = []
    for seed in (3, 3, 4):
        agents = [make(i) for i in range(4)]
        for agent in agents:
            agent.hp_config = RANGES
        mutation = Mutations(0.5, 2, 0.5, 1, 1, 1, min_width=2, rand_seed=seed)
        torch.manual_seed(len(runs))  # of no importance
        for _ in range(2):
            agents = mutation.mutation(agents)
        runs.append([snapshot(agent) for agent in agents])
    assert_same(runs[0], runs[1])
    assert [a["individual"]["lineage"] for a in runs[0]] != [
        a["individual"]["lineage"] for a in runs[2]
    ]


def test_goes_on_from_a_checkpoint() -> None:
    agents = population()
    ours = Mutations(0, 2, 0.5, 1, 1, 1, min_width=2, rand_seed=1)
    theirs = Mutations(0, 2, 0.5, 1, 1, 1, min_width=2, rand_seed=2)
    ours.mutation(agents)
    theirs.load_state_dict(ours.state_dict())
    results = [[snapshot(a) for a in each.mutation(agents)] for each in (ours, theirs)]
    assert_same(*results)


def test_probabilities_are_relative() -> None:
    mutation = Mutations(6, 0, 0, 2, 1, 3, rand_seed=0)
    agent = population(1)[0]
    count = Counter(
        "none" if child is agent else re.split(r"[ .]", child.mut)[0]
        for child in many(agent, mutation, 120)
    )
    hp = count["lr"] + count["learn_step"] + count["ent_coef"]
    for found, share in (
        (count["none"], 6 / 12),
        (count["weights"], 2 / 12),
        (count["head"], 1 / 12),
        (hp, 3 / 12),
    ):
        deviation = math.sqrt(120 * share * (1 - share))
        assert abs(found - 120 * share) < 4 * deviation
    assert sum(count.values()) == 120


@pytest.mark.parametrize("kind", KINDS[1:])
def test_elite_is_left_alone_unless_told(kind: str) -> None:
    agents = population(2)
    agents[0].elite = True
    before = snapshot(agents[0])
    kept = mutations(kind).mutation(agents)
    assert kept[0] is agents[0]
    assert kept[1] is not agents[1]
    changed = mutations(kind, mutate_elite=True).mutation(agents)
    assert changed[0] is not agents[0]
    assert not changed[0].elite
    assert changed[0].mut != "none"
    assert_same(snapshot(agents[0]), before)


# --- lineage ------------------------------------------------------------------------------------


def test_the_newly_born_keep_their_number() -> None:
    agents = population()
    mutated = mutations("parameters").mutation(agents)
    assert [child.index for child in mutated] == [0, 1, 2]
    assert [len(child.lineage) for child in mutated] == [1, 1, 1]
    assert [child.mut for child in agents] == ["none"] * 3


def test_the_mutated_of_old_become_parents() -> None:
    mutation = mutations("parameters")
    old = mutation.mutation(population())
    for agent in old:
        grow_older(agent, 50)
        agent.fitness.append(2.5)
    new = mutation.mutation(old)
    for parent, child in zip(old, new, strict=True):
        birth = child.lineage[-1]
        assert (birth.parent, birth.steps, birth.fitness) == (parent.index, 50, 2.5)
        assert child.lineage[:-1] == parent.lineage
    assert [child.index for child in new] == [3, 4, 5]
    streams = {tuple(a.group.generator.get_state().tolist()) for a in (*old, *new)}
    assert len(streams) == 6


def test_a_mutated_elite_has_a_number_of_its_own() -> None:
    # The elite is still there, and whoever looks for its number must not find somebody else.
    agents = population(2)
    for agent in agents:
        grow_older(agent, 80)
        agent.fitness = [float(agent.index)]
    elite, children = TournamentSelection(2, True, 2, rand_seed=0).select(agents)
    mutated = mutations("parameters", mutate_elite=True).mutation(children)
    assert elite.index not in [child.index for child in mutated]
    # Nor was the elite itself born with this mutation.
    assert mutated[0].lineage[0] == elite.lineage[0]
    assert mutated[0].lineage[-1].parent == elite.index


# --- architecture -------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("size", [3, 20, 60, 110])
def test_widths_stay_in_range_and_shrink_at_most_by_half(size: int, recurrent: bool) -> None:
    encoder = {"hidden_size": [size, size], "hidden_state_size": size}
    agent = individual(encoder=encoder, head={"hidden_size": [size]}, recurrent=recurrent)
    mutation = mutations("architecture", new_layer_prob=0, min_width=8, max_width=100)
    seen: Counter[str] = Counter()
    for child in many(agent, mutation, 16):
        found = re.fullmatch(r"(\S+) (\d+) -> (\d+)", child.mut)
        if found is None:
            raise AssertionError(child.mut)
        before, after = int(found[2]), int(found[3])
        assert before == size
        sites = {str(s): s.value for s in width_sites(child)}
        assert sites.pop(found[1]) == after, "not what it says"
        assert set(sites.values()) == {size}, "more than one was changed"
        if after > before:
            assert after - before in (16, 32, 64) or (before < 8 and after == 8)
            assert after <= 100
        else:
            assert before - after in (16, 32, 64) or after in (size // 2, 8)
            assert after >= max(8, size // 2)
        assert child.lineage[-1].shrunk == (after < before)
        seen["shrunk" if after < before else "grown"] += 1
        seen[found[1]] += 1
    assert bool(seen["grown"]) == (size <= 84)
    assert bool(seen["shrunk"]) == (size > 8)
    assert len(seen) >= 3


def test_growing_is_as_likely_as_shrinking() -> None:
    agent = individual(encoder={"hidden_state_size": 40}, head={"hidden_size": [40]})
    shrunk = [c.lineage[-1].shrunk for c in many(agent, mutations("architecture", 0), 30)]
    assert 6 < sum(shrunk) < 24  # three deviations


@pytest.mark.parametrize("recurrent", [True, False])
def test_depth_stays_in_range(recurrent: bool) -> None:
    mutation = mutations("architecture", new_layer_prob=1, max_residual_layers=1)
    agents = [individual(recurrent=recurrent)]
    values: set[tuple[int, ...]] = set()
    for _ in range(25):
        (before,) = agents
        agents = mutation.mutation(agents)
        depths = [[s.value for s in depth_sites(a)] for a in (before, *agents)]
        values.add(tuple(depths[1]))
        changed = [b - a for a, b in zip(*depths, strict=True)]
        assert sorted(map(abs, changed)) == [0, 1]
        assert agents[0].lineage[-1].shrunk == (sum(changed) < 0)
        assert re.fullmatch(r"(encoder|head)\.residual_layers [01] -> [01]", agents[0].mut)
    assert values == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_deeper_networks_than_allowed_may_only_shrink() -> None:
    agent = individual(encoder={"residual_layers": 3}, head={"residual_layers": 0})
    mutation = mutations("architecture", new_layer_prob=1, max_residual_layers=0)
    assert {c.mut for c in many(agent, mutation, 10)} == {"encoder.residual_layers 3 -> 2"}


def test_new_layers_by_their_probability() -> None:
    deeper = [
        "residual" in child.mut for child in many(individual(), mutations("architecture", 0.25), 48)
    ]
    assert 3 < sum(deeper) < 21  # three deviations


def test_no_layer_to_change() -> None:
    agent = individual()
    wide = mutations("architecture", 0, min_width=6, max_width=6)
    narrow = individual(head={"hidden_size": []})
    assert wide.mutation([narrow])[0].mut == "none (no layer to change)"
    flat = mutations("architecture", 1, max_residual_layers=0)
    (child,) = flat.mutation([agent])
    assert child.mut == "none (no layer to change)"
    assert_same(parameters(child), parameters(agent))


# --- images, dictionaries, networks of one's own ------------------------------------------------


LATENT = {"encoder.latent_dim"}
CHANNELS = {f"encoder.cnn_config.channel_size[{i}]" for i in (0, 1)}
SHAPED = {"cnn_config": CONVOLUTIONS}
PLAIN = {"encoder.hidden_size[0]", "encoder.hidden_state_size", "head.hidden_size[0]"}
SITES: dict[str, tuple[Any, set[str]]] = {
    "vector": (case("vector", {}, {}), PLAIN),
    "flattened image": (case("image", {"channel_size": (), "hidden_size": (4,)}, {}), PLAIN),
    "image": (
        case("image", SHAPED, {}),
        {"encoder.hidden_state_size", "head.hidden_size[0]"} | LATENT | CHANNELS,
    ),
    "image, feed-forward": (
        case("image", SHAPED, {}, recurrent=False),
        {"encoder.hidden_size[0]", "head.hidden_size[0]"} | LATENT | CHANNELS,
    ),
    # The defaults give an image of 8 x 9 three convolutions.
    "image by default": (
        case("image", {}, {}),
        {
            "encoder.hidden_state_size",
            "head.hidden_size[0]",
            "encoder.cnn_config.channel_size[2]",
        }
        | LATENT
        | CHANNELS,
    ),
    "vector's MLP": (
        case("vector", VECTORS, {}),
        PLAIN | LATENT | {"encoder.mlp_config.hidden_size[0]"},
    ),
    "MLP of a vector that is not there": (
        case("image", {**VECTORS, "channel_size": (), "hidden_size": (4,)}, {}),
        PLAIN,
    ),
    "normalised latents": (
        case(
            "images",
            {
                **SHAPED,
                "vector_space_mlp": True,
                "mlp_config": {"layer_norm": True},
                "hidden_size": (4,),
            },
            {},
        ),
        PLAIN | CHANNELS,
    ),
    "normalised MLPs": (
        case("vector", {"layer_norm": True}, {}, head={"layer_norm": True}),
        {"encoder.hidden_state_size"},
    ),
    "normalised core": (
        case("vector", {"core_layer_norm": True, "core_residual": True}, {}),
        PLAIN - {"encoder.hidden_state_size"},
    ),
    "exploration by the actor's last layer": (
        case("vector", {}, {}, head={"hidden_size": (5, 6)}, action="box", use_sde=True),
        PLAIN,
    ),
    "exploration by the core": (
        case("vector", {}, {}, head={"hidden_size": ()}, action="box", use_sde=True),
        {"encoder.hidden_size[0]"},
    ),
    "exploration by the MLP": (
        case(
            "vector", {}, {}, head={"hidden_size": ()}, action="box", use_sde=True, recurrent=False
        ),
        {"encoder.hidden_size[0]"},
    ),
    "exploration by the latents": (
        case(
            "image",
            {**SHAPED, "hidden_size": ()},
            {},
            head={"hidden_size": ()},
            action="box",
            use_sde=True,
            recurrent=False,
        ),
        CHANNELS,
    ),
    "exploration by an own network": (
        case(
            "vector",
            {},
            {},
            head={"hidden_size": ()},
            action="box",
            use_sde=True,
            share_encoders=False,
            own={"actor_network": (0, 3)},
        ),
        {"encoder.hidden_size[0]", "encoder.hidden_state_size"},
    ),
    "own network": (
        case("vector", VECTORS, {}, own={"actor_network": (0, 3)}),
        {"head.hidden_size[0]"},
    ),
    "own critic": (case("vector", {}, {}, own={"critic_network": (0, 3)}), PLAIN),
}


@pytest.mark.parametrize("name", SITES)
def test_sites(name: str) -> None:
    growth, expected = SITES[name]
    agent = growth.agent()
    sites = width_sites(agent)
    assert {str(site) for site in sites} == expected
    assert len(sites) == len(expected)
    for site in sites:
        assert site.set(agent.net_config, site.value + 3) != agent.net_config
        unchanged = agent.group.build_policy(
            site.set(agent.net_config, site.value), agent.group.generator
        )
        shapes = [[p.shape for p in net.parameters()] for net in (agent.policy, unchanged)]
        assert shapes[0] == shapes[1]
    depths = {str(site) for site in depth_sites(agent)}
    of_encoder = set() if name == "own network" else {"encoder.residual_layers"}
    assert depths == {"head.residual_layers"} | of_encoder


GROWTHS = CASES | {f"{name} (sites)": growth for name, (growth, _) in SITES.items()}


@pytest.mark.parametrize("name", GROWTHS)
@double()
def test_mutations_of_any_network_that_grow_it_change_no_output(name: str) -> None:
    agent = agent_of(GROWTHS[name])
    mutation = mutations("architecture", max_width=60)
    grown = 0
    for child in many(agent, mutation, 5):
        if re.fullmatch(r"\S+ \d+ -> \d+", child.mut) is None:
            assert child.mut == "none (no layer to change)"
            assert not width_sites(child)
        elif not child.lineage[-1].shrunk:
            grown += 1
            assert gap(agent.policy, child.policy, 12) < 1e-9, child.mut
    assert grown


@pytest.mark.parametrize("name", CASES)
def test_any_network_mutates_and_learns_for_generations(name: str) -> None:
    growth = CASES[name]
    agents = [agent_of(growth)]
    agents[0].reconfigure(learn_step=8, update_epochs=1, lr=1e-2)
    vector = sampled(growth)
    mutation = Mutations(0, 3, 0.4, 1, 1, 0, min_width=2, max_width=80, rand_seed=1)
    for _ in range(5):
        agents = mutation.mutation(agents)
        collect_rollouts_recurrent(agents[0], vector)
        assert agents[0].learn().updates > 0


def pictures(*sizes: int, **cnn: Any) -> PPO:
    """An agent that sees images of some sizes."""
    spaces = {f"{i}": Box(0, 255, (size, size, 3), np.uint8) for i, size in enumerate(sizes)}
    net = {"encoder_config": {"hidden_state_size": 16, "cnn_config": cnn}}
    return PPO(Dict(spaces), Discrete(3), net, seed=0)


def test_a_changed_channel_is_written_with_all_that_goes_with_it() -> None:
    agent = pictures(14, 18)  # of both, the defaults are the same
    assert agent.net_config.encoder_config.cnn_config.channel_size is None
    (site,) = [s for s in width_sites(agent) if str(s) == "encoder.cnn_config.channel_size[1]"]
    net = site.set(agent.net_config, 40)
    cnn = net.encoder_config.cnn_config
    assert (cnn.channel_size, cnn.kernel_size, cnn.stride_size) == ((16, 40), (4, 3), (2, 2))
    assert net.replace(encoder_config=agent.net_config.encoder_config) == agent.net_config
    assert cnn.replace(channel_size=None, kernel_size=None, stride_size=None) == (
        agent.net_config.encoder_config.cnn_config
    )


def test_channels_that_the_defaults_choose_by_image_stay() -> None:
    assert not [s for s in width_sites(pictures(10, 40)) if s.is_channel]
    chosen = pictures(10, 40, channel_size=(8,), kernel_size=(4,), stride_size=(2,))
    assert [s.value for s in width_sites(chosen) if s.is_channel] == [8]


@pytest.mark.parametrize("size", [3, 8, 16, 30, 60])
def test_channels_count_double(size: int) -> None:
    agent = pictures(10, channel_size=(size,), kernel_size=(4,), stride_size=(2,))
    seen = set()
    options: dict[str, Any] = {"min_width": 16, "max_width": 96}
    for child in many(agent, mutations("architecture", 0, **options), 16):
        if "channel_size" not in child.mut:
            continue
        before, after = (int(n) for n in re.findall(r" (\d+)", child.mut))
        assert before == size
        assert child.policy.encoders[0].cnns[0].convolutions[0].out_channels == after
        assert abs(after - before) in (8, 16, 32) or after in (8, size // 2)
        assert min(size, 8) <= after <= max(size, 48)
        assert after >= size // 2
        seen.add(after > before)
    assert seen == {3: {True}, 8: {True}, 16: {True, False}, 30: {True, False}, 60: {False}}[size]


def test_frozen_weights_of_an_own_network_stay() -> None:
    growth = case("vector", {}, {}, own={"actor_network": (0, 3)})
    agent = growth.agent()
    agent.policy.encoders[0].network.last.requires_grad_(False)  # type: ignore[union-attr]
    agent = agent.clone()
    (child,) = mutations("parameters").mutation([agent])
    before, after = parameters(agent), parameters(child)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in same if "trunks" in name} == {
        "0.trunks.0.encoder.network.last.weight",
        "0.trunks.0.encoder.network.last.bias",
    }


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("image", {"encoder.cnn_config", "head"}),
        ("flattened image", {"encoder", "head"}),
        ("vector's MLP", {"encoder.mlp_config", "encoder", "head"}),
        ("normalised MLPs", {"encoder", "head"}),
        ("own network", {"head"}),
    ],
)
def test_activations_of_parts(name: str, paths: set[str]) -> None:
    agent = SITES[name][0].agent()
    found = set()
    for child in many(agent, mutations("activation", activation_selection=["SiLU"]), 24):
        path, chosen = re.fullmatch(r"(\S+)\.activation \w+ -> (\w+)", child.mut).groups()  # type: ignore[union-attr]
        found.add(path)
        config = child.net_config
        for part in (
            path.replace("encoder", "encoder_config").replace("head", "head_config").split(".")
        ):
            config = getattr(config, part)
        assert config.activation == chosen == "SiLU"
        assert "SiLU" in {type(m).__name__ for m in child.policy.modules()}
        assert_same(parameters(child), parameters(agent))
    assert found == paths


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share_encoders", [True, False])
def test_noise_goes_to_the_actor_and_what_it_reads(share_encoders: bool) -> None:
    agent = individual(encoder={"hidden_size": [4]}, share_encoders=share_encoders)
    (child,) = mutations("parameters").mutation([agent])
    before, after = parameters(agent), parameters(child)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {n for n in before if n.startswith(("0.trunks.0.", "0.action_head.layers."))}
    assert any("core" in name for name in changed)
    assert any("trunks.1" in name for name in before) != share_encoders


@pytest.mark.parametrize("sd", [0.05, 0.3])
def test_scale_of_the_noise(sd: float) -> None:
    agent = individual(encoder={"hidden_state_size": 64}, head={"hidden_size": [64]})
    with torch.no_grad():
        agent.policy.action_head.layers[0].weight *= 7  # each has noise of its own scale
    (child,) = mutations("parameters", mutation_sd=sd).mutation([agent])
    before, after = parameters(agent), parameters(child)
    for name in ("0.action_head.layers.0.weight", "0.trunks.0.encoder.core.rnn.weight_hh_l0"):
        noise = after[name] - before[name]
        rms = float(before[name].square().mean().sqrt())
        assert float(noise.std()) == pytest.approx(sd * rms, rel=0.06)  # 4096 numbers and more
        assert abs(float(noise.mean())) < 0.06 * sd * rms
    assert child.mut == f"weights + {sd:g} rms"


def test_no_noise() -> None:
    agent = individual()
    (child,) = mutations("parameters", mutation_sd=0).mutation([agent])
    assert_same(parameters(child), parameters(agent))


# --- activation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, {"head"}),
        ({"encoder": {"hidden_size": [4]}}, {"encoder", "head"}),
        ({"recurrent": False}, {"encoder", "head"}),
        ({"head": {"hidden_size": []}}, set()),
        ({"head": {"hidden_size": [], "residual_layers": 1}}, {"head"}),
        # A residual recurrent layer has none, a feed-forward one has.
        ({"head": {"hidden_size": []}, "encoder": {"residual_layers": 1}}, set()),
        (
            {
                "head": {"hidden_size": []},
                "encoder": {"residual_layers": 1, "hidden_size": []},
                "recurrent": False,
            },
            {"encoder"},
        ),
    ],
)
def test_activations_change_where_there_are_any(options: Any, parts: set[str]) -> None:
    options = {key: dict(x) if isinstance(x, dict) else x for key, x in options.items()}
    agent = individual(**options)
    children = many(agent, mutations("activation"), 12)
    if not parts:
        assert {child.mut for child in children} == {"none (no activation to change)"}
        return
    found = set()
    for child in children:
        part, old, new = re.fullmatch(r"(\w+)\.activation (\w+) -> (\w+)", child.mut).groups()  # type: ignore[union-attr]
        assert old == "Tanh" != new
        config = {
            p: getattr(child.net_config, f"{p}_config").activation for p in ("encoder", "head")
        }
        assert config == {"encoder": "Tanh", "head": "Tanh", part: new}
        module = child.policy.action_head.layers if part == "head" else child.policy.encoders[0].mlp
        assert new in {type(m).__name__ for m in module.modules()}
        assert "Tanh" not in {type(m).__name__ for m in module.modules()}
        assert_same(parameters(child), parameters(agent))
        assert not child.lineage[-1].shrunk
        found.add(part)
    assert found == parts


def test_activations_to_choose_from() -> None:
    agent = individual()
    only = mutations("activation", activation_selection=["SiLU"])
    assert only.mutation([agent])[0].mut == "head.activation Tanh -> SiLU"
    none = mutations("activation", activation_selection=["Tanh"])
    assert none.mutation([agent])[0].mut == "none (no other activation than Tanh)"


# --- hyper-parameters ---------------------------------------------------------------------------


def test_hyperparameters_move_within_their_ranges() -> None:
    agents = population(1)
    mutation = mutations("rl_hp")
    seen = set()
    for _ in range(40):
        (before,) = agents
        agents = mutation.mutation(agents)
        child = agents[0]
        name = child.mut.split()[0]
        seen.add(name)
        old, new = (getattr(a.config, name) for a in (before, child))
        assert child.mut == f"{name} {old:g} -> {new:g}"
        assert RANGES.parameters[name].min <= new <= RANGES.parameters[name].max
        assert new != old
        assert child.config == before.config.replace(**{name: new})
        assert child.hp_config == RANGES
    assert seen == set(RANGES.parameters)


def test_changed_hyperparameters_act() -> None:
    agent = trained(learn_step=8)
    agent.hp_config = HyperparameterConfig(
        learn_step=RLParameter(4, 16, grow_factor=2, dtype=int, shrink_factor=0.5)
    )
    (child,) = mutations("rl_hp").mutation([agent])
    assert child.learn_step in (4, 16)
    collect_rollouts_recurrent(child, env())
    assert child.buffer.steps == child.learn_step
    agent.hp_config = HyperparameterConfig(lr=RLParameter(1e-3, 1e-1))
    (child,) = mutations("rl_hp").mutation([agent])
    collect_rollouts_recurrent(child, env())
    assert child.learn().lr == child.config.lr != agent.config.lr


@pytest.mark.parametrize("config", [None, HyperparameterConfig()])
def test_nothing_to_search(config: HyperparameterConfig | None) -> None:
    agent = individual()
    agent.hp_config = config
    assert mutations("rl_hp").mutation([agent])[0].mut == "none (no hp_config)"


def test_hyperparameter_that_is_switched_off() -> None:
    agent = individual()
    agent.hp_config = HyperparameterConfig(target_kl=RLParameter(0.01, 0.1))
    assert mutations("rl_hp").mutation([agent])[0].mut == "none (target_kl is None)"


def test_hyperparameter_that_the_algorithm_does_not_have() -> None:
    agents = [individual(0), individual(1)]
    agents[1].hp_config = HyperparameterConfig()
    agents[1].hp_config.parameters["tau"] = RLParameter(0.001, 0.1)
    before = [snapshot(agent) for agent in agents]
    source = mutations("rl_hp")
    drawn = source.generator.get_state()
    with pytest.raises(ValueError, match=r"^hp_config of PPO has no option 'tau'.* batch_size"):
        source.mutation(agents)
    assert_same([snapshot(agent) for agent in agents], before)
    assert torch.equal(source.generator.get_state(), drawn)


# --- teams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["architecture", "parameters", "activation", "rl_hp"])
def test_one_group_of_a_team_is_changed(kind: str) -> None:
    agent = team()
    agent.hp_config = HyperparameterConfig(lr=RLParameter(1e-4, 1e-1))
    groups = set()
    for child in many(agent, mutations(kind), 10):
        name, done = child.mut.split(": ")
        groups.add(name)
        assert re.fullmatch(DONE[kind], done)
        (other,) = set(child.trainers) - {name}
        assert_same(
            child.trainers[other].to_data()["policy"], agent.trainers[other].to_data()["policy"]
        )
        changed = {
            each
            for each in child.trainers
            if child.trainers[each].net_config != agent.trainers[each].net_config
            or child.trainers[each].config != agent.trainers[each].config
            or not all(
                torch.equal(a, b)
                for a, b in zip(
                    child.trainers[each].policy.parameters(),
                    agent.trainers[each].policy.parameters(),
                    strict=True,
                )
            )
        }
        assert changed == {name}
    assert groups == {"bob", "fred"}


def test_learn_step_is_common_to_all_groups() -> None:
    agent = team()
    agent.hp_config = HyperparameterConfig(learn_step=RLParameter(4, 16, dtype=int))
    for child in many(agent, mutations("rl_hp"), 6):
        steps = {trainer.config.learn_step for trainer in child.trainers.values()}
        assert steps == {child.learn_step} != {10}
        assert child.mut == f"learn_step 10 -> {child.learn_step}"
    collect_rollouts_recurrent(child, team_env())
    assert {trainer.buffer.steps for trainer in child.trainers.values()} == {child.learn_step}
    child.learn()


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"no_mutation": -0.1}, r"no_mutation: expected a number in \[0, inf\), got -0\.1"),
        ({"architecture": math.nan}, "architecture: expected a finite number"),
        ({"rl_hp": math.inf}, "rl_hp: expected a finite number"),
        ({"mutation_sd": -1}, "mutation_sd: expected a number"),
        ({"new_layer_prob": 1.5}, r"new_layer_prob: expected a number in \[0, 1\], got 1\.5"),
        ({"new_layer_prob": -0.5}, "new_layer_prob"),
        (dict.fromkeys(("no_mutation", "architecture", "parameters"), 0), "positive probability"),
        ({"min_width": 0}, "min_width: expected a number"),
        ({"min_width": 9, "max_width": 8}, "min_width <= max_width"),
        ({"max_residual_layers": -1}, "max_residual_layers: expected a number"),
        ({"activation_selection": ["Tanh", "Relu"]}, r"activation_selection\[1\]: .* got 'Relu'"),
    ],
)
def test_wrong_settings(change: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {
        "no_mutation": 1,
        "architecture": 1,
        "new_layer_prob": 0.2,
        "parameters": 1,
        "activation": 0,
        "rl_hp": 0,
    }
    with pytest.raises(ValueError, match=message):
        Mutations(**{**settings, **change})


def test_empty_population_and_scripts_that_name_a_device() -> None:
    assert mutations("parameters", device="cpu").mutation([]) == []


def test_results_from_before_a_mutation_are_not_the_mutants_own() -> None:
    agent = individual()
    agent.fitness = [500.0]
    nothing = Mutations(0, 0, 0, 0, 0, 1, rand_seed=0)  # there is no hp_config
    assert nothing.mutation([agent])[0].own_fitness == [500.0]
    (mutant,) = Mutations(0, 0, 0, 1, 0, 0, rand_seed=0).mutation([agent])
    assert (mutant.fitness, mutant.own_fitness, agent.own_fitness) == ([500.0], [], [500.0])
