"""Tests of `recurrent_rl.algorithms.actor_critic_update`."""

import copy
import functools
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from support import slow_updates
from support.envs import Scripted, scripted
from support.helpers import SEEDS, double
from support.multi_envs import OneAgent
from support.pairs import examples
from support.replaying import random_windows, scramble, spoiled
from torch import Tensor

from recurrent_rl import (
    DDPG,
    DQN,
    IPPO,
    MADDPG,
    MATD3,
    SAC,
    TD3,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
)
from recurrent_rl.buffers.replay import Windows

SEEN = gym.spaces.Box(-10.0, 10.0, (3,))
ACTIONS: dict[str, gym.Space[Any]] = {
    "box": gym.spaces.Box(np.float32([-2, 0]), np.float32([1, 3])),
    "free": gym.spaces.Box(-np.inf, np.inf, (2,)),
    "choice": gym.spaces.Discrete(3, start=1),
    "choices": gym.spaces.MultiDiscrete([2, 3]),
    "bits": gym.spaces.MultiBinary(2),
}
# Agents' names and actions; those with the same first name share a policy.
TEAMS: dict[str, dict[str, str]] = {
    "pair": {"a_0": "box", "a_1": "box"},
    "mixed": {"a_0": "box", "b_0": "choice", "b_1": "choice", "c_0": "choices"},
    "others": {"a_0": "bits", "b_0": "free", "b_1": "free", "b_2": "free"},
}
ALGORITHMS = {"DDPG": DDPG, "TD3": TD3, "SAC": SAC, "MADDPG": MADDPG, "MATD3": MATD3}

# Algorithm, action or team, options; each is a value of ``case`` below.
DETERMINISTIC: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ddpg-lstm": ("DDPG", "box", {}),
    "ddpg-flat": ("DDPG", "box", {"recurrent": False, "n_step": 2, "previous_reward": True}),
    "td3-gru": ("TD3", "box", {"cell": "gru", "num_layers": 2, "n_step": 3}),
    "td3-free": ("TD3", "free", {"previous_action": True, "reward_scale": 3.0}),
    "td3-shared": ("TD3", "box", {"share_encoders": True, "critics": 3}),
    "td3-choice": ("TD3", "choice", {"policy_noise": 0.3}),
    "ddpg-bits": ("DDPG", "bits", {"recurrent": False}),
    "ddpg-choices": ("DDPG", "choices", {"share_encoders": True}),
    "maddpg-present": ("MADDPG", "mixed", {"others": "present", "action_reg": 0.1}),
    "matd3-present": ("MATD3", "pair", {"others": "present", "share_encoders": True}),
    "maddpg-pair": ("MADDPG", "pair", {"n_step": 2}),
    "maddpg-mixed": ("MADDPG", "mixed", {"recurrent": False}),
    "matd3-mixed": ("MATD3", "mixed", {"cell": "gru", "agent_id_input": True}),
    "matd3-others": ("MATD3", "others", {"share_encoders": True, "n_step": 2, "lr_encoder": 1e-3}),
}
SOFT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "box-lstm": ("SAC", "box", {}),
    "box-flat": ("SAC", "box", {"recurrent": False, "n_step": 3}),
    "box-shared": ("SAC", "box", {"share_encoders": True, "cell": "gru", "critics": 1}),
    "box-fixed": ("SAC", "box", {"ent_coef": 0.3, "critics": 3, "n_step": 2}),
    "box-no-entropy": ("SAC", "box", {"ent_coef": 0.0}),
    "free": ("SAC", "free", {"reward_scale": 0.5, "ent_coef_init": 0.2}),
    "choice-lstm": ("SAC", "choice", {"n_step": 2}),
    "choice-flat": ("SAC", "choice", {"recurrent": False, "target_entropy": 0.7}),
    "choice-shared": ("SAC", "choice", {"share_encoders": True, "ent_coef": 0.0}),
}


def make(kind: str, actions: str, options: dict[str, Any] | None = None, seed: int = 0) -> Any:
    options = {"policy_freq": 1, **(options or {})}
    names = ("cell", "num_layers")
    encoder = {name: options.pop(name) for name in names if name in options}
    encoder |= {"hidden_size": [5], "hidden_state_size": 4}
    net = {"encoder_config": encoder, "head_config": {"hidden_size": [6]}}
    if actions in TEAMS:
        team = TEAMS[actions]
        # Each group sees something of its own width.
        width = {name[0]: 2 + i for i, name in enumerate(sorted({n[0] for n in team}))}
        seen = {n: gym.spaces.Box(-10.0, 10.0, (width[n[0]],)) for n in team}
        taken = {name: ACTIONS[action] for name, action in team.items()}
        agent: Any = ALGORITHMS[kind](seen, taken, None, net, seed=seed, **options)
    else:
        agent = ALGORITHMS[kind](SEEN, ACTIONS[actions], net, seed=seed, **options)
    scramble(agent, seed)
    return agent


def sample(agent: Any, seed: int, **options: Any) -> Windows:
    if not agent.groups[0].policy.memory:
        options = {"burn_in": 0, "length": 1, "windows": 9, "ahead": 4, **options}
    return random_windows(agent, seed, **options)


def state(agent: Any) -> dict[str, Tensor]:
    """All that an update may move, but for the moments."""
    found = {}
    for i, group in enumerate(agent.groups):
        found |= {f"{i} {name}": x.clone() for name, x in group.policy.state_dict().items()}
    found |= {f"heads {n}": x.clone() for n, x in agent.critic.heads.state_dict().items()}
    for name, target in agent.learner.targets():
        found |= {f"target {name} {i}": x.clone() for i, x in enumerate(target.to_data())}
    return found


def assert_gradients(expected: dict[str, Tensor], *modules: torch.nn.Module) -> None:
    found = slow_updates.taken_gradients(*modules)
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-9, msg=name)


# --- against plain loops -----------------------------------------------------------------------


@pytest.mark.parametrize("case", DETERMINISTIC)
@settings(max_examples=examples(3))
@given(seed=SEEDS)
@double()
def test_deterministic_actors_and_their_critics(case: str, seed: int) -> None:
    kind, actions, options = DETERMINISTIC[case]
    agent = make(kind, actions, options, seed % 1000)
    windows = sample(agent, seed, masked=seed % 3 > 0)
    slow = slow_updates.DPG(agent, windows)
    if not any(slow.known.values()):
        return
    expected, order = slow.critic_loss(slow.targets())
    grads = slow.critic_gradients(expected)
    records, found = agent.learner.update(windows)
    loss = sum(record.get("critic_loss", torch.zeros(())) for record in records.values())
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.double(), torch.tensor(order), rtol=1e-6, atol=1e-7)
    assert_gradients(grads, agent.critic)
    for name, policy in agent.learner.policies.items():
        if not slow.known[name]:
            continue
        actor_loss = slow.actor_loss(name, agent.critic)
        learned = actor_loss + agent.config.action_reg * slow.regularised(name)
        grads = slow_updates.gradients(learned, *slow.actor_modules(name))
        close = {"rtol": 1e-7, "atol": 1e-9}
        torch.testing.assert_close(records[name]["actor_loss"], actor_loss.detach(), **close)
        trunks = [] if policy.shares_trunk else [policy.actor_trunk]
        assert_gradients(grads, policy.action_head, *trunks)


@pytest.mark.parametrize("case", SOFT)
@settings(max_examples=examples(3))
@given(seed=SEEDS)
@double()
def test_soft_actors_and_their_critics(case: str, seed: int) -> None:
    kind, actions, options = SOFT[case]
    agent = make(kind, actions, options, seed % 1000)
    windows = sample(agent, seed, masked=seed % 3 > 0)
    slow = slow_updates.Soft(agent, windows)
    if not any(slow.known.values()):
        return
    expected, order = slow.critic_loss(slow.targets())
    grads = slow.critic_gradients(expected)
    records, found = agent.learner.update(windows)
    record = records[""]
    close = {"rtol": 1e-7, "atol": 1e-8}
    torch.testing.assert_close(record["critic_loss"], expected.detach(), **close)
    torch.testing.assert_close(found.double(), torch.tensor(order), rtol=1e-6, atol=1e-7)
    assert_gradients(grads, agent.critic)
    loss, entropies = slow.actor_loss(agent.critic)
    torch.testing.assert_close(record["actor_loss"], loss.detach(), **close)
    torch.testing.assert_close(record["entropy"], torch.tensor(np.mean(entropies)), **close)
    policy = agent.policy
    trunks = [] if policy.shares_trunk else [policy.actor_trunk]
    assert_gradients(
        slow_updates.gradients(loss, *slow.actor_modules("")), policy.action_head, *trunks
    )
    if agent.config.ent_coef is None:
        # The temperature rises where there is less entropy than aimed at.
        aims = [_aim(agent, slow, d) for d in slow.known[""]]
        slope = np.mean([entropy - aim for entropy, aim in zip(entropies, aims, strict=True)])
        assert agent.learner.log_alpha.grad.item() == pytest.approx(slope, rel=1e-6, abs=1e-8)


def _aim(agent: Any, slow: slow_updates.Soft, decision: slow_updates.Decision) -> float:
    if agent.config.target_entropy is not None:
        return float(agent.config.target_entropy)
    if isinstance(agent.action_space, gym.spaces.Box):
        return -2.0
    allowed = slow_updates.mask_at(slow.group, slow.burn_in, decision.place, decision.row)
    return 0.89 * math.log(3 if allowed is None else int(allowed.sum()) or 3)


CASES = {**DETERMINISTIC, **{f"sac-{name}": case for name, case in SOFT.items()}}
SOME = ["ddpg-flat", "td3-shared", "matd3-mixed", "sac-box-lstm", "sac-choice-flat"]


@pytest.mark.parametrize("case", SOME)
def test_what_is_not_there_changes_no_bit(case: str) -> None:
    found = []
    for nonsense in (None, 1, 2):
        agent = make(*CASES[case])
        windows = sample(agent, 3, masked=True, windows=12)
        windows = windows if nonsense is None else spoiled(windows, nonsense)
        records, order = agent.learner.update(windows)
        values = [x for record in records.values() for x in record.values()]
        found.append([*state(agent).values(), *values, order])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize(("single", "team"), [(DDPG, MADDPG), (TD3, MATD3)])
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_team_of_one_is_the_single_agents_algorithm(
    single: Any, team: Any, recurrent: bool
) -> None:
    """Bit for bit: exploration, replay, updates and targets, over several calls."""
    options = {
        "recurrent": recurrent,
        "learning_starts": 40,
        "batch_size": 16,
        "learn_step": 4,
        "seed": 3,
        "net_config": {"encoder_config": {"hidden_size": [8], "max_seq_len": 4}},
    }
    scripts = ["9t 5l", "4l 7t"]
    one = scripted(scripts, action="box")
    spaces = one.single_observation_space, one.single_action_space
    many = SyncMultiAgentVectorEnv(
        [
            functools.partial(OneAgent, Scripted(script, i, action="box"))
            for i, script in enumerate(scripts)
        ]
    )
    agents = (
        single(*spaces, **options),
        team(*({"agent_0": space} for space in spaces), None, **options),
    )
    for _ in range(6):
        for agent, env in zip(agents, (one, many), strict=True):
            collect_rollouts_recurrent(agent, env, 8)
            agent.learn()
    ours, theirs = map(state, agents)
    assert agents[0].learner.updates == agents[1].learner.updates > 5
    assert ours.keys() == {name.replace("actor agent", "actor ") for name in theirs}
    for (name, x), y in zip(ours.items(), theirs.values(), strict=True):
        assert torch.equal(x, y), name


# --- what moves, and what does not -----------------------------------------------------------


def sources(agent: Any) -> dict[str, list[Tensor]]:
    """What each target network is to follow."""
    found = {"critic": [p.detach().clone() for p in agent.critic.parameters()]}
    for name, policy in agent.learner.policies.items():
        both = torch.nn.ModuleList([policy.actor_trunk, policy.action_head])
        found[f"actor {name}"] = [p.detach().clone() for p in both.parameters()]
    return found


@pytest.mark.parametrize("tau", [1.0, 0.25])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("case", SOME)
def test_targets_and_actors_move_as_configured(case: str, every: int, tau: float) -> None:
    kind, actions, options = CASES[case]
    agent = make(kind, actions, {**options, "policy_freq": every, "tau": tau})
    targets = dict(agent.learner.targets())
    expected = {n: [p.clone() for p in t.module.parameters()] for n, t in targets.items()}
    for i in range(1, 7):
        actors = [policy.action_head.layers[-1].weight.clone() for policy in _policies(agent)]
        agent.learner.update(sample(agent, i, windows=12))
        now = [policy.action_head.layers[-1].weight for policy in _policies(agent)]
        assert [torch.equal(*pair) for pair in zip(actors, now, strict=True)] == [
            i % every > 0
        ] * len(now)
        for name, target in targets.items():
            if i % every == 0:
                pairs = zip(expected[name], sources(agent)[name], strict=True)
                expected[name] = [old + tau * (new - old) for old, new in pairs]
            for ours, theirs in zip(target.module.parameters(), expected[name], strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert agent.learner.updates == 6


def _policies(agent: Any) -> list[Any]:
    return list(agent.learner.policies.values())


def test_targets_have_no_gradients_and_share_what_stands_in_front() -> None:
    agent = make("MATD3", "mixed", {"normalize_obs": True})
    agent.learner.update(sample(agent, 0))
    for name, target in agent.learner.targets():
        assert not any(p.requires_grad or p.grad is not None for p in target.module.parameters())
        if name.startswith("actor "):
            policy = agent.learner.policies[name.removeprefix("actor ")]
            assert target.module[0].preprocessor is policy.preprocessor
            assert agent.learner.target.module.trunk(name[6:]).preprocessor is policy.preprocessor


@pytest.mark.parametrize("case", SOME)
def test_where_nothing_is_known_nothing_happens(case: str) -> None:
    agent = make(*CASES[case])
    windows = sample(agent, 0)
    for group in windows.groups.values():
        group.active[:] = False
    before = state(agent)
    records, order = agent.learner.update(windows)
    assert records == {name: {} for name in windows.groups}
    assert agent.learner.updates == 0
    assert all(torch.equal(x, before[name]) for name, x in state(agent).items())
    assert order.tolist() == pytest.approx([1e-6] * len(windows))


def test_a_group_without_decisions_learns_nothing() -> None:
    agent = make("MATD3", "mixed")
    agent.learner.update(sample(agent, 0))
    windows = sample(agent, 1)
    windows.groups["b"].active[:] = False
    before = state(agent)
    records, _ = agent.learner.update(windows)
    assert "critic_loss" not in records["b"]
    assert "critic_loss" in records["a"]
    moved = {n for n, x in state(agent).items() if not torch.equal(x, before[n])}
    assert "0 action_head.layers.0.weight" in moved
    assert "1 action_head.layers.0.weight" not in moved


@pytest.mark.parametrize("case", SOME)
def test_a_loss_that_is_not_finite_leaves_all_as_it_was(case: str) -> None:
    agent = make(*CASES[case])
    agent.learner.update(sample(agent, 0))
    before, data = state(agent), repr(agent.learner.to_data())
    windows = sample(agent, 1)
    next(iter(windows.groups.values())).reward[:] = np.nan
    with pytest.raises(FloatingPointError, match="Lower lr or reward_scale"):
        agent.learner.update(windows)
    assert all(torch.equal(x, before[name]) for name, x in state(agent).items())
    assert repr(agent.learner.to_data()) == data
    agent.learner.update(sample(agent, 1))
    assert all(bool(x.isfinite().all()) for x in state(agent).values())


@pytest.mark.parametrize("options", [{}, {"lr_encoder": 1e-2}])
@pytest.mark.parametrize("part", ["actor", "actor head", "critic", "critic heads"])
@pytest.mark.parametrize("case", ["td3-gru", "matd3-mixed", "sac-box-lstm", "sac-choice-lstm"])
def test_frozen_parts_stay(case: str, part: str, options: dict[str, Any]) -> None:
    """In spite of the momentum that they have; everything else moves."""
    kind, actions, given_options = CASES[case]
    agent = make(kind, actions, {**given_options, **options, "max_grad_norm": None})
    agent.learner.update(sample(agent, 0, windows=12))
    policies = _policies(agent)
    frozen = {
        "actor": [m for p in policies for m in (p.actor_trunk, p.action_head)],
        "actor head": [p.action_head for p in policies],
        "critic": [agent.critic],
        "critic heads": [agent.critic.heads],
    }[part]
    held = {id(p) for module in frozen for p in module.requires_grad_(False).parameters()}
    assert agent.learner.join()
    every = [*(p for policy in policies for p in policy.parameters()), *agent.critic.parameters()]
    before = [p.detach().clone() for p in every]
    agent.learner.update(sample(agent, 1, windows=12))
    for p, old in zip(every, before, strict=True):
        assert torch.equal(p, old) == (id(p) in held)


@pytest.mark.parametrize("case", ["td3-gru", "sac-box-lstm"])
def test_step_sizes_of_actor_critic_and_encoders(case: str) -> None:
    sizes = {"lr_actor": 1e-2, "lr_critic": 3e-3, "lr_encoder": 1e-4}
    kind, actions, options = CASES[case]
    agent = make(kind, actions, {**options, **sizes})
    before = state(agent)
    agent.learner.update(sample(agent, 0))
    for name, x in state(agent).items():
        if name.startswith("target"):
            continue
        expected = sizes["lr_encoder"]
        if name.startswith("heads"):
            expected = sizes["lr_critic"]
        elif "action_head" in name:
            expected = sizes["lr_actor"]
        # Adam's first step is its step size for every parameter with a gradient to speak of.
        assert (x - before[name]).abs().max().item() == pytest.approx(expected, rel=0.03), name


def test_gradients_of_each_network_are_scaled_down_together() -> None:
    agent = make("TD3", "box", {"max_grad_norm": 1e-3})
    agent.learner.update(sample(agent, 0))
    for _, network in agent.learner.networks():
        parts = [p for part in network.parts.values() for p in part.parameters()]
        norm = torch.cat([p.grad.flatten() for p in parts if p.grad is not None]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_the_actors_step_leaves_the_critic_alone() -> None:
    """Weights and gradients; an actor that is frozen makes no difference to it."""
    found = []
    for frozen in (False, True):
        agent = make("TD3", "box")
        if frozen:
            agent.policy.actor_trunk.requires_grad_(False)
            agent.policy.action_head.requires_grad_(False)
            agent.learner.join()
        agent.learner.update(sample(agent, 0))
        found.append([x for p in agent.critic.parameters() for x in (p, p.grad)])
    assert all(map(torch.equal, *found))


def test_a_head_in_anothers_place_is_refused() -> None:
    agent = make("SAC", "box")
    agent.policy.action_head = copy.deepcopy(agent.policy.action_head)
    with pytest.raises(RuntimeError, match="expected the trunks and heads that it was built with"):
        agent.learner.join()


class Counting(torch.nn.Module):
    """A network of somebody's own, with a statistic that moves while it is used."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 4)
        self.register_buffer("count", torch.zeros(()))

    def initial_state(self, rows: int) -> list[Tensor]:
        return []

    def forward(self, observation: Tensor, extra: Any, state: Any) -> tuple[Tensor, list[Tensor]]:
        if torch.is_grad_enabled():
            self.count += 1
        return self.layer(observation), []


def test_statistics_of_ones_own_networks_follow_too() -> None:
    agent = SAC(SEEN, ACTIONS["box"], recurrent=False, seed=0, critic_network=Counting())
    first = agent.learner.target.module.trunk("").encoder.network.count.item()
    agent.learner.update(sample(agent, 0))
    counts = [
        trunk.encoder.network.count
        for trunk in (agent.policy.critic_trunk, agent.learner.target.module.trunk(""))
    ]
    assert counts[0] > first
    assert counts[0] == counts[1]
    # And they are a part of what is saved.
    other = SAC(SEEN, ACTIONS["box"], recurrent=False, seed=1, critic_network=Counting())
    other.learner.load(agent.learner.to_data())
    assert other.learner.target.module.trunk("").encoder.network.count == counts[1]


# --- the temperature -------------------------------------------------------------------------


def test_a_fixed_temperature_stays_and_none_is_no_entropy() -> None:
    for fixed in (0.0, 0.7):
        agent = make("SAC", "box", {"ent_coef": fixed})
        for seed in range(3):
            (record,) = agent.learner.update(sample(agent, seed))[0].values()
            assert record["temperature"].item() == pytest.approx(fixed)
        assert agent.learner.alpha.item() == pytest.approx(fixed)


@pytest.mark.parametrize(("aim", "rises"), [(5.0, True), (-50.0, False)])
def test_a_learned_temperature_seeks_its_entropy(aim: float, rises: bool) -> None:
    agent = make("SAC", "box", {"target_entropy": aim, "lr_alpha": 0.05, "ent_coef_init": 0.3})
    assert agent.learner.alpha.item() == pytest.approx(0.3)
    for seed in range(5):
        agent.learner.update(sample(agent, seed))
    # Adam's first steps are nearly its step size.
    expected = 0.3 * math.exp(0.25 if rises else -0.25)
    assert agent.learner.alpha.item() == pytest.approx(expected, rel=0.03)


# --- what get_action says ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TD3", "SAC"])
@pytest.mark.parametrize("actions", ["box", "choice"])
def test_value_is_the_least_critics_of_what_is_chosen(kind: str, actions: str) -> None:
    agent = make(kind, actions, {"recurrent": False})
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    noise = torch.Generator()
    noise.set_state(agent.groups[0].generator.get_state())
    out = agent.get_action(obs)
    policy, seen = agent.policy, torch.from_numpy(obs)
    with torch.no_grad():
        acting, judged = (
            trunk(trunk.inputs(seen), None, ())[0]
            for trunk in (policy.actor_trunk, policy.critic_trunk)
        )
        params = policy.action_head(acting)
        stored = policy.distribution.sample(params, policy.distribution.noise((20,), noise))
        values = []
        for row in range(20):
            own = slow_updates.encoded(policy, stored[row])
            view = judged[row] if agent.critic.of_choices else torch.cat((judged[row], own))
            heads = [head(view) for head in agent.critic.heads["group 0"]]
            heads = [head[own.argmax()] if agent.critic.of_choices else head[0] for head in heads]
            values.append(min(float(head) for head in heads))
    np.testing.assert_allclose(out.value, values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out.action, policy.actions.to_env(stored))
    assert np.isfinite(out.log_prob).all()
    assert np.isfinite(out.entropy).all()
    assert len(set(out.log_prob.tolist())) > 1


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("actions", ["choices", "bits"])
def test_spaces_that_sac_does_not_take(actions: str) -> None:
    with pytest.raises(TypeError, match=r"expected Box or Discrete.*DDPG and TD3 learn it"):
        SAC(SEEN, ACTIONS[actions])


@pytest.mark.parametrize(
    ("kind", "taken"),
    [
        (DDPG, "Discrete, MultiDiscrete, MultiBinary and Box, got"),
        (SAC, r"Box or Discrete, which SAC can take expectations over, got [^;]*$"),
    ],
)
@pytest.mark.parametrize("space", [gym.spaces.Text(3), gym.spaces.Tuple([gym.spaces.Discrete(2)])])
def test_spaces_that_nothing_takes(kind: Any, taken: str, space: Any) -> None:
    with pytest.raises(TypeError, match=f"^action_space: expected {taken}"):
        kind(SEEN, space)


@pytest.mark.parametrize("kind", [IPPO, MATD3])
def test_whose_space_it_is_that_nothing_takes(kind: Any) -> None:
    agents = ["a_0", "b_0", "b_1"]
    seen = {agent: gym.spaces.Text(3) if agent[0] == "b" else SEEN for agent in agents}
    with pytest.raises(TypeError, match=r"^observation_space: expected Box") as error:
        kind(seen, dict.fromkeys(agents, ACTIONS["choice"]))
    assert error.value.__notes__ == ["in the policy of 'b_0', 'b_1'"]


@pytest.mark.parametrize("option", ["use_sde", "state_dependent_std"])
@pytest.mark.parametrize(
    ("kind", "actions", "message"),
    [
        (DQN, "choice", "expected a Box action space, whose actions have a deviation"),
        (SAC, "choice", "expected a Box action space, whose actions have a deviation"),
        (TD3, "bits", "expected a Box action space, whose actions have a deviation"),
        (TD3, "box", "expected False, as this actor chooses one action .* set expl_noise"),
    ],
)
def test_deviations_that_would_do_nothing_are_refused(
    kind: Any, actions: str, message: str, option: str
) -> None:
    with pytest.raises(ValueError, match=f"^{option}: {message}"):
        kind(SEEN, ACTIONS[actions], **{option: True})


def test_soft_actors_have_one_kind_of_deviation_by_state() -> None:
    assert SAC(SEEN, ACTIONS["box"]).config.state_dependent_std
    assert not SAC(SEEN, ACTIONS["box"], use_sde=np.True_).config.state_dependent_std
    with pytest.raises(ValueError, match="expected one of use_sde and state_dependent_std"):
        SAC(SEEN, ACTIONS["box"], use_sde=True, state_dependent_std=True)
