"""Tests of `recurrent_rl.algorithms.ippo`: building agents, acting, learning, testing, saving."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Text
from support.agents import assert_same_weights, make_agent, make_team, team_weights, weights
from support.envs import Scripted, scripted
from support.multi_envs import RecallTeam, ScriptedParallel, TurnTaking, scripted_makers

from recurrent_rl import (
    IPPO,
    PPO,
    AsyncMultiAgentVectorEnv,
    CheckpointError,
    HiddenState,
    MultiAgentActionOutput,
    NetConfig,
    SyncMultiAgentVectorEnv,
    checkpoint,
    collect_rollouts_recurrent,
)

VECTOR, CHOICE, RANGE = Box(-1, 1, (3,)), Discrete(3, start=1), Box(-2, 1, (2,))
AGENTS = ["bob_0", "fred_0", "bob_1"]
COMING = {
    "bob_0": [(0, 5, "t")],
    "fred_0": [(1, 3, "l")],
    "bob_1": [(0, 1, "l"), (3, 5, "b")],
}
STAYING = {"bob_0": [(0, 3, "l")], "fred_0": [(0, 3, "t")], "bob_1": [(0, 3, "l")]}
MIXED: dict[str, Any] = {
    "observation": {"bob": "box", "fred": "discrete"},
    "action": {"bob": "discrete", "fred": "box"},
}


def vector(*scripts: Any, **options: Any) -> SyncMultiAgentVectorEnv:
    """A vector of scripted environments."""
    return SyncMultiAgentVectorEnv(scripted_makers([[s] for s in scripts], **options))


def team(
    agents: Any = AGENTS, observation: Any = VECTOR, action: Any = CHOICE, **options: Any
) -> IPPO:
    """A small agent with random weights; the same spaces for all."""

    class Spaces:
        def __init__(self) -> None:
            self.possible_agents = list(agents)
            self.observation_spaces = dict.fromkeys(agents, observation)
            self.action_spaces = dict.fromkeys(agents, action)

    return make_team(Spaces(), **options)


# --- building -----------------------------------------------------------------------------------


class TestConstructor:
    def test_defaults_and_attributes(self) -> None:
        agent = IPPO([VECTOR] * 3, [CHOICE] * 3, AGENTS)
        assert agent.agent_ids == AGENTS
        assert agent.grouped_agents == {"bob": ["bob_0", "bob_1"], "fred": ["fred_0"]}
        assert agent.shared_agent_ids == ["bob", "fred"]
        assert agent.has_grouped_agents()
        assert [agent.get_group_id(a) for a in AGENTS] == ["bob", "fred", "bob"]
        assert agent.learn_step == agent.config.learn_step == 128
        assert (agent.steps, agent.fitness, agent.scores, agent.env_steps) == ([0], [], [], 0)
        assert list(agent.trainers) == ["bob", "fred"]
        assert [group.size for group in agent.groups] == [2, 1]
        assert all(trainer.buffer is None for trainer in agent.trainers.values())

    def test_one_policy_and_one_optimiser_for_each_group(self) -> None:
        bob, fred = team().trainers.values()
        assert bob.policy is not fred.policy
        assert bob.optimizer is not fred.optimizer
        ours = {p.data_ptr() for p in bob.policy.parameters()}
        assert ours.isdisjoint({p.data_ptr() for p in fred.policy.parameters()})

    @pytest.mark.parametrize(
        ("agents", "groups"),
        [
            (["a_0", "a_1"], {"a": ["a_0", "a_1"]}),
            (
                ["red_fox_0", "red_1", "red_fox_1"],
                {"red_fox": ["red_fox_0", "red_fox_1"], "red": ["red_1"]},
            ),
            (["alice", "bob"], {"alice": ["alice"], "bob": ["bob"]}),
            (["_0", "a_"], {"_0": ["_0"], "a": ["a_"]}),
        ],
    )
    def test_groups_by_name(self, agents: list[str], groups: dict[str, list[str]]) -> None:
        agent = team(agents)
        assert agent.grouped_agents == groups
        assert agent.has_grouped_agents() == (len(groups) < len(agents))

    def test_explicit_groups_keep_the_order_of_the_agents(self) -> None:
        agent = team(groups={"x": ["bob_1", "fred_0"], "y": ["bob_0"]})
        assert agent.grouped_agents == {"x": ["fred_0", "bob_1"], "y": ["bob_0"]}
        assert agent.get_group_id("bob_1") == "x"
        assert agent.groups[0].agents == ("fred_0", "bob_1")

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            ({"x": ["bob_0"]}, r"in no group: \['bob_1', 'fred_0'\]"),
            ({"x": AGENTS, "y": ["eve_0"]}, r"unknown: \['eve_0'\]"),
            ({"x": AGENTS, "y": ["bob_1"]}, r"in more than one: \['bob_1'\]"),
            ({"x": AGENTS, "y": []}, r"groups without agents: \['y'\]"),
        ],
    )
    def test_wrong_groups(self, groups: Any, message: str) -> None:
        with pytest.raises(ValueError, match=r"^groups: expected each of \['bob_0', .*" + message):
            team(groups=groups)

    def test_spaces_by_agent_in_any_order(self) -> None:
        observations = {"fred_0": Discrete(4), "bob_1": VECTOR, "bob_0": VECTOR}
        actions = {"bob_0": CHOICE, "bob_1": CHOICE, "fred_0": RANGE}
        agent = IPPO(observations, actions, AGENTS)
        assert list(agent.observation_spaces) == list(agent.action_spaces) == AGENTS
        assert agent.trainers["fred"].group.observation_space == Discrete(4)
        assert agent.trainers["fred"].group.action_space == RANGE
        in_list = IPPO([VECTOR, Discrete(4), VECTOR], [CHOICE, RANGE, CHOICE], AGENTS)
        assert in_list.observation_spaces == agent.observation_spaces
        # Without names, those of the first dictionary.
        assert IPPO(actions, observations).agent_ids == ["bob_0", "bob_1", "fred_0"]

    def test_action_mask_within_observations_is_no_input(self) -> None:
        masked = Dict(observation=VECTOR, action_mask=Box(0, 1, (3,), np.int8))
        agent = team(observation=masked)
        assert agent.observation_spaces["bob_0"] == VECTOR
        assert agent.trainers["bob"].policy.codec.features == 3

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (([VECTOR], [CHOICE]), ValueError, r"^agent_ids: expected the names .*possible_agents"),
            (({}, {}, []), ValueError, r"^agent_ids: expected different names, got \[\]"),
            ((VECTOR, CHOICE), TypeError, r"^observation_spaces: .*dict.fromkeys\(env.poss"),
            (({"a_0": VECTOR}, CHOICE), TypeError, r"^action_spaces: .*dict.fromkeys\(env.poss"),
            ((str, CHOICE, ["a"]), TypeError, r"^observation_spaces: .*env.observation_space\(a\)"),
            (({"a_0": VECTOR}, {"a_0": 3}), TypeError, r"^action_spaces\['a_0'\]: .*, got 3"),
            (({0: VECTOR}, {0: CHOICE}), TypeError, r"^agent_ids: expected names, .*got 0 of type"),
            (({"a": VECTOR}, {"a": CHOICE}, "a"), TypeError, r"^agent_ids: .*pass a list"),
            (([VECTOR] * 2, [CHOICE] * 2, ["a", "a"]), ValueError, r"^agent_ids: expected diff"),
            (([VECTOR], [CHOICE] * 2, ["a", "b"]), ValueError, r"^observation_spaces: .*, got 1"),
            (([VECTOR] * 2, [CHOICE], ["a", "b"]), ValueError, r"^action_spaces: .*, got 1"),
            (
                ({"a": VECTOR, "b": VECTOR}, {"a": CHOICE, "c": CHOICE}),
                ValueError,
                r"^action_spaces: expected the agents \['a', 'b'\], .*unknown: \['b', 'c'\]",
            ),
            (
                ([Text(2)], [CHOICE], ["a"]),
                TypeError,
                r"^observation_space: expected Box, Disc.*Text",
            ),
            (
                ([VECTOR], [Text(2)], ["a"]),
                TypeError,
                r"^action_space: expected Discrete, Multi.*Te",
            ),
        ],
    )
    def test_wrong_spaces(self, arguments: Any, error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            IPPO(*arguments)

    @pytest.mark.parametrize(
        ("name", "ours", "theirs"),
        [
            ("observation", {}, {"observation": Box(-1, 1, (4,))}),
            ("observation", {}, {"observation": Box(-1, 2, (3,))}),
            ("action", {}, {"action": Discrete(3)}),
            ("action", {}, {"action": RANGE}),
        ],
    )
    def test_unequal_spaces_in_a_group(self, name: str, ours: Any, theirs: Any) -> None:
        observations, actions = [VECTOR] * 3, [CHOICE] * 3
        observations[2] = theirs.get("observation", VECTOR)
        actions[2] = theirs.get("action", CHOICE)
        with pytest.raises(ValueError, match=rf"^group 'bob': expected equal {name} spaces") as e:
            IPPO(observations, actions, AGENTS)
        first, second = (VECTOR, observations[2]) if name == "observation" else (CHOICE, actions[2])
        assert f"got {first} of agent 'bob_0' and {second} of agent 'bob_1'" in str(e.value)
        assert "groups=" in str(e.value)
        # Which helps.
        IPPO(observations, actions, AGENTS, groups={"x": ["bob_0", "fred_0"], "y": ["bob_1"]})

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"gama": 0.9}, ValueError, r"no option 'gama'; did you mean 'gamma'\?"),
            ({"gamma": 1.5}, ValueError, r"PPOConfig\.gamma: expected a number in \[0, 1\], got"),
            ({"burn_in": 64}, ValueError, r"burn_in: expected less than max_seq_len = 4"),
            ({"team_reward": "max"}, ValueError, r"^team_reward: expected 'sum', 'mean' or None"),
            ({"net_config": {"bop": {}}}, ValueError, r"'bop'; did you mean 'bob'\?"),
            ({"net_config": {"bob_2": {}}}, ValueError, r"'bob_2'; did you mean 'bob_1'\?"),
            ({"net_config": {"encoder": {}}}, ValueError, r"did you mean 'encoder_config'\?"),
            ({"net_config": {"bob": {"head": {}}}}, ValueError, r"NetConfig has no option 'head'"),
            (
                {"net_config": {"fred": {"encoder_config": {"cell": "rnn"}}}},
                ValueError,
                r"EncoderConfig\.cell: expected one of \['lstm', .*'lru'\], got 'rnn'",
            ),
            (
                {"net_config": {"bob_0": {"head_config": {}}, "bob_1": {"encoder_config": {}}}},
                ValueError,
                r"one configuration for group 'bob', got different ones for 'bob_0' and 'bob_1'",
            ),
        ],
        ids=str,
    )
    def test_wrong_options(self, options: Any, error: Any, message: str) -> None:
        with pytest.raises(error, match=message):
            team(**options)

    @pytest.mark.parametrize("key", ["fred", "fred_0"])
    @pytest.mark.parametrize("as_object", [True, False])
    def test_networks_of_a_group(self, key: str, as_object: bool) -> None:
        own: Any = {"encoder_config": {"cell": "gru", "hidden_state_size": 7, "num_layers": 2}}
        shapes = {
            "encoder_config": {"hidden_state_size": 6},
            key: NetConfig.from_dict(own) if as_object else own,
        }
        agent = IPPO([VECTOR] * 3, [CHOICE] * 3, AGENTS, shapes)
        state = agent.get_initial_hidden_state(2)
        assert list(state) == ["bob_0", "bob_1", "fred_0"]
        sizes = {a: [tuple(x.shape) for x in s.tensors] for a, s in state.items()}
        assert sizes == {
            "bob_0": [(1, 2, 6)] * 2,
            "bob_1": [(1, 2, 6)] * 2,
            "fred_0": [(2, 2, 7)],
        }
        assert agent.net_configs["fred"].encoder_config.cell == "gru"
        assert agent.net_configs["bob"].encoder_config.hidden_state_size == 6

    def test_what_is_special_to_a_group_replaces_only_its_part(self) -> None:
        shapes = {"head_config": {"hidden_size": [9]}, "fred": {"encoder_config": {"cell": "gru"}}}
        agent = IPPO([VECTOR] * 3, [CHOICE] * 3, AGENTS, shapes)
        assert [n.head_config.hidden_size for n in agent.net_configs.values()] == [(9,), (9,)]

    def test_what_is_special_to_a_group_is_put_over_the_common_part(self) -> None:
        shapes = {
            "encoder_config": {"hidden_state_size": 6, "num_layers": 2},
            "fred": {"encoder_config": {"num_layers": 1}},
        }
        agent = IPPO([VECTOR] * 3, [CHOICE] * 3, AGENTS, shapes)
        sizes = {
            name: (net.encoder_config.hidden_state_size, net.encoder_config.num_layers)
            for name, net in agent.net_configs.items()
        }
        assert sizes == {"bob": (6, 2), "fred": (6, 1)}

    def test_networks_of_all_as_an_object(self) -> None:
        shapes = NetConfig.from_dict({"head_config": {"hidden_size": [9]}})
        assert IPPO([VECTOR] * 3, [CHOICE] * 3, AGENTS, shapes).net_configs == {
            "bob": shapes,
            "fred": shapes,
        }

    def test_groups_begin_with_weights_of_their_own(self) -> None:
        weights = team_weights(IPPO([VECTOR] * 3, [CHOICE] * 3, AGENTS, seed=1))
        ours, theirs = (weights[f"{name}.action_head.layers.0.weight"] for name in ("bob", "fred"))
        assert not torch.equal(ours, theirs)

    def test_the_first_group_begins_like_ppo(self) -> None:
        ours, theirs = IPPO([VECTOR], [CHOICE], ["a_0"], seed=3), PPO(VECTOR, CHOICE, seed=3)
        assert_same_weights(weights(ours.trainers["a"]), weights(theirs))
        generators = ours.trainers["a"].group.generator, theirs.group.generator
        assert torch.equal(*(generator.get_state() for generator in generators))

    def test_agent_id_input_widens_the_policy_by_the_groups_size(self) -> None:
        plain, seeing = team(), team(agent_id_input=True)
        for name, size in (("bob", 2), ("fred", 1)):
            assert plain.trainers[name].policy.extra.width == 0
            assert seeing.trainers[name].policy.extra.width == size

    def test_repr(self) -> None:
        agent = make_team(vector(STAYING, **MIXED), num_layers=2)
        text = repr(agent)
        assert text.startswith("IPPO after 0 steps\n  bob x 2, ")
        bob, fred = text.split("\n  fred x 1, ")
        assert "\n    sees      numbers [3]\n" in bob
        assert "LSTM 2 x 5" in bob
        assert "-> Discrete(3, start=1) " in bob
        assert "\n    sees      5 choices\n" in fred
        assert "-> Box(" in fred
        size = sum(p.numel() for p in agent.trainers["fred"].policy.parameters())
        assert fred.startswith(f"{size:,} parameters\n")

    @pytest.mark.parametrize("name", ["eve_2", "ed", ""])
    def test_group_of_an_unknown_agent(self, name: str) -> None:
        message = rf"^The team has no agent '{name}'.*bob_0, bob_1, fred_0"
        with pytest.raises(ValueError, match=message):
            team().get_group_id(name)


# --- acting -------------------------------------------------------------------------------------


def observations(agent: IPPO, n: int | None = 4, seed: int = 0, who: Any = None) -> dict[str, Any]:
    """Observations of each agent's space; n None: one, without an axis."""
    seen = {}
    for i, name in enumerate(who or agent.agent_ids):
        space = agent.observation_spaces[name]
        space.seed(10 * seed + i)
        rows = [space.sample() for _ in range(n or 1)]
        seen[name] = rows[0] if n is None else np.stack(rows)
    return seen


def mixed_team(**options: Any) -> IPPO:
    """Groups with different spaces, one of them of two agents."""
    return make_team(vector(STAYING, **MIXED), **options)


def assert_same_state(ours: HiddenState, theirs: HiddenState) -> None:
    """Up to what batches of other sizes do to rounding."""
    assert ours.rows == theirs.rows
    for x, y in zip(ours.tensors, theirs.tensors, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)


def assert_same_output(ours: Any, theirs: Any, agent: str, row: Any = slice(None)) -> None:
    """All but the state, up to rounding."""
    for name in ("action", "log_prob", "entropy", "value"):
        x, y = getattr(ours, name)[agent], getattr(theirs, name)[agent][row]
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6, err_msg=f"{agent} {name}")


ANY_TEAM = pytest.mark.parametrize(
    "options",
    [
        {},
        {"cell": "gru", "num_layers": 2, "agent_id_input": True},
        {"share_encoders": False, "previous_action": True, "previous_reward": True},
        {"recurrent": False},
        {"recurrent": False, "previous_action": True},
    ],
    ids=str,
)


class TestGetAction:
    @ANY_TEAM
    def test_five_names_and_shapes(self, options: dict[str, Any]) -> None:
        agent = mixed_team(**options)
        reward = dict.fromkeys(agent.agent_ids, 0.5) if agent.config.previous_reward else None
        out = agent.get_action(
            observations(agent), agent.get_initial_hidden_state(4), reward=reward
        )
        assert isinstance(out, MultiAgentActionOutput)
        assert out._fields == ("action", "log_prob", "entropy", "value", "hidden_state")
        for name in agent.agent_ids:
            space = agent.action_spaces[name]
            assert out.action[name].shape == (4, *space.shape)
            assert out.action[name].dtype == space.dtype
            assert all(space.contains(a) for a in out.action[name])
            for each in (out.log_prob, out.entropy, out.value):
                assert (each[name].shape, each[name].dtype) == ((4,), np.float32)
            assert out.hidden_state[name].rows == 4
            assert not any(x.requires_grad for x in out.hidden_state[name].tensors)

    @ANY_TEAM
    def test_one_observation_equals_a_batch_of_one(self, options: dict[str, Any]) -> None:
        agent = mixed_team(**options)
        state, one_state = (agent.get_initial_hidden_state() for _ in range(2))
        reward = dict.fromkeys(agent.agent_ids, 0.5) if agent.config.previous_reward else None
        for t in range(3):
            seen = observations(agent, None, t)
            many = {name: np.asarray(x)[None] for name, x in seen.items()}
            one = agent.get_action(seen, one_state, deterministic=True, reward=reward)
            out = agent.get_action(many, state, deterministic=True, reward=reward)
            for name in agent.agent_ids:
                assert_same_output(one, out, name, 0)
                assert np.shape(one.value[name]) == ()
                assert agent.action_spaces[name].contains(one.action[name])
            state, one_state = out.hidden_state, one.hidden_state

    @ANY_TEAM
    def test_each_agent_remembers_its_own_whoever_else_acts(self, options: dict[str, Any]) -> None:
        agent = mixed_team(**options)
        together = agent.get_initial_hidden_state(2)
        alone = {name: {name: state} for name, state in agent.get_initial_hidden_state(2).items()}
        present = [AGENTS, ["bob_1"], ["fred_0", "bob_1"], ["bob_1", "bob_0"], AGENTS]
        for t, who in enumerate(present):
            seen = observations(agent, 2, t, who)
            reward = {a: np.array([t, -1.0]) for a in who} if agent.config.previous_reward else None
            # Nothing may depend on the dictionary's order.
            backwards = dict(reversed(seen.items()))
            out = agent.get_action(backwards, together, deterministic=True, reward=reward)
            assert (
                set(out.action)
                == set(out.value)
                == set(out.log_prob)
                == set(out.entropy)
                == set(who)
            )
            assert set(out.hidden_state) == set(AGENTS)
            for name in AGENTS:
                if name not in who:
                    assert out.hidden_state[name] is together[name]
                    continue
                own = agent.get_action(
                    {name: seen[name]}, alone[name], deterministic=True, reward=reward
                )
                assert_same_output(own, out, name)
                assert_same_state(own.hidden_state[name], out.hidden_state[name])
                alone[name] = own.hidden_state
            together = out.hidden_state

    def test_agents_of_a_group_share_the_policy_but_not_the_memory(self) -> None:
        agent = mixed_team()
        state = agent.get_initial_hidden_state(1)
        same = dict.fromkeys(["bob_0", "bob_1"], np.ones((1, 3)))
        first = agent.get_action(same, state, deterministic=True)
        assert first.value["bob_0"] == pytest.approx(first.value["bob_1"], rel=1e-5)
        other = agent.get_action({"bob_0": -np.ones((1, 3))}, first.hidden_state)
        second = agent.get_action(same, other.hidden_state, deterministic=True)
        third = agent.get_action(same, first.hidden_state, deterministic=True)
        assert second.value["bob_1"] == pytest.approx(third.value["bob_1"], rel=1e-5)
        assert second.value["bob_0"] != pytest.approx(third.value["bob_1"], rel=1e-3)

    def test_agent_id_input_tells_the_agents_apart(self) -> None:
        agent = team(["a_0", "a_1", "a_2"], agent_id_input=True)
        state, seen = agent.get_initial_hidden_state(), np.ones(3)
        every = agent.get_action(dict.fromkeys(agent.agent_ids, seen), state, deterministic=True)
        assert len({round(float(v), 4) for v in every.value.values()}) == 3
        for name in agent.agent_ids:
            alone = agent.get_action({name: seen}, state, deterministic=True)
            assert_same_output(alone, every, name, ())
        plain = team(["a_0", "a_1", "a_2"])
        every = plain.get_action(dict.fromkeys(agent.agent_ids, seen), state, deterministic=True)
        assert len({round(float(v), 4) for v in every.value.values()}) == 1

    def test_nothing_is_kept_nor_changed(self) -> None:
        agent = mixed_team(previous_action=True)
        state = agent.get_initial_hidden_state(2)
        copied = {name: s.clone() for name, s in state.items()}
        before, keys = team_weights(agent), list(state)
        results = []
        for between in (0, 1):
            results.append(agent.get_action(observations(agent, 2), state, deterministic=True))
            agent.get_action(observations(agent, 2, between), results[-1].hidden_state)
        for name in agent.agent_ids:
            assert np.array_equal(results[0].value[name], results[1].value[name])
            for x, y in zip(state[name].tensors, copied[name].tensors, strict=True):
                assert torch.equal(x, y)
        assert list(state) == keys
        assert_same_weights(before, team_weights(agent))

    def test_deterministic_draws_nothing(self) -> None:
        agent = mixed_team()
        seen, state = observations(agent), agent.get_initial_hidden_state(4)
        before = [group.generator.get_state() for group in agent.groups]
        first = agent.get_action(seen, state, deterministic=True)
        for group, generator in zip(agent.groups, before, strict=True):
            assert torch.equal(group.generator.get_state(), generator)
        again = agent.get_action(seen, state, deterministic=True)
        for name in agent.agent_ids:
            assert np.array_equal(first.action[name], again.action[name])
        samples = [agent.get_action(seen, state).action["fred_0"] for _ in range(2)]
        assert not np.array_equal(*samples)

    def test_sampling_is_reproducible(self) -> None:
        results = []
        for seed in (1, 1, 2):
            agent = mixed_team()
            for group in agent.groups:
                group.generator.manual_seed(seed)
            out = agent.get_action(observations(agent), agent.get_initial_hidden_state(4))
            results.append(np.concatenate([x.ravel() for x in out.action.values()]))
        assert np.array_equal(results[0], results[1])
        assert not np.array_equal(results[0], results[2])

    def test_feed_forward_needs_no_state(self) -> None:
        agent = mixed_team(recurrent=False)
        seen = observations(agent)
        out = agent.get_action(seen, deterministic=True)
        again = agent.get_action(seen, out.hidden_state, deterministic=True)
        for name in agent.agent_ids:
            assert np.array_equal(out.value[name], again.value[name])

    def test_nobody_acts(self) -> None:
        agent = mixed_team()
        state = agent.get_initial_hidden_state()
        for seen in ({}, dict.fromkeys(agent.agent_ids)):  # None: sees nothing
            out = agent.get_action(seen, state)
            assert out.action == out.value == {}
            assert out.hidden_state == state

    def test_previous_reward_matters(self) -> None:
        agent = mixed_team(previous_reward=True, reward_scale=0.5)
        state, seen = agent.get_initial_hidden_state(1), observations(agent, None, who=["bob_1"])
        values = [
            agent.get_action(seen, state, reward={"bob_1": r, "bob_0": 9.0}).value["bob_1"]
            for r in (0.0, 1.0, [1.0])
        ]
        assert values[0] != values[1] == values[2]
        doubled = mixed_team(previous_reward=True)
        assert doubled.get_action(seen, state, reward={"bob_1": 0.5}).value["bob_1"] == values[1]


class Strict(ScriptedParallel):
    """Takes actions of those who are there, and of nobody else."""

    def step(self, actions: dict[str, Any]) -> Any:
        for agent in actions:
            if agent not in self.agents:
                raise KeyError(agent)
        return super().step(actions)


@pytest.mark.parametrize("options", [{}, {"cell": "gru"}, {"recurrent": False}])
def test_by_hand_where_agents_die_and_come_back(options: dict[str, Any]) -> None:
    """Its actions are those of a vector's, in which memory is kept by the player."""
    vector = SyncMultiAgentVectorEnv([lambda: Strict([COMING])])
    agent = make_team(vector, **options)
    env = Strict([COMING])
    hidden_state = agent.get_initial_hidden_state(1)
    obs, infos = env.reset(seed=0)
    while env.agents:
        actions, _, _, _, hidden_state = agent.get_action(
            obs, hidden_state=hidden_state, infos=infos, agents=env.agents, deterministic=True
        )
        assert set(actions) == set(env.agents)
        obs, _, _, _, infos = env.step(actions)
    agent.evaluate(vector, 1)
    assert vector.envs[0].received == env.received


def test_only_those_who_are_there_act() -> None:
    agent = make_team(SyncMultiAgentVectorEnv([lambda: ScriptedParallel([STAYING])]))
    state = agent.get_action(observations(agent), agent.get_initial_hidden_state(4)).hidden_state
    out = agent.get_action(observations(agent), state, agents=["bob_0"])
    assert list(out.action) == ["bob_0"]
    assert not any(bool(tensor.any()) for tensor in out.hidden_state["bob_1"].tensors)
    assert any(bool(tensor.any()) for tensor in state["bob_1"].tensors)
    with pytest.raises(ValueError, match=r"^agents: expected agents of .* got 'nobody'"):
        agent.get_action({}, state, agents=["nobody"])


class TestInfos:
    """What an environment may say about the agents, besides what they see."""

    @pytest.mark.parametrize("how", ["argument", "infos", "observation"])
    @pytest.mark.parametrize("deterministic", [True, False])
    def test_masks(self, how: str, deterministic: bool) -> None:
        agent = team()
        masks = {"bob_1": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]], np.int8)}
        seen, arguments = observations(agent), {}
        if how == "argument":
            arguments = {"action_mask": masks}
        elif how == "infos":
            arguments = {"infos": {"bob_1": {"action_mask": masks["bob_1"]}, "bob_0": {}}}
        else:
            seen["bob_1"] = {"observation": seen["bob_1"], "action_mask": masks["bob_1"]}
        for _ in range(20):
            out = agent.get_action(
                seen, agent.get_initial_hidden_state(4), deterministic=deterministic, **arguments
            )
            assert out.action["bob_1"][:3].tolist() == [1, 2, 3]  # Discrete(3, start=1)
            assert out.action["bob_1"][3] in (1, 3)
            assert out.log_prob["bob_1"][:3].tolist() == [0, 0, 0]
            # Nobody else is restricted by it.
            assert (out.entropy["bob_0"] > 0.1).all()
            assert (out.entropy["fred_0"] > 0.1).all()

    def test_mask_of_a_single_observation(self) -> None:
        agent = team()
        seen = observations(agent, None)
        seen["bob_0"] = {"observation": seen["bob_0"], "action_mask": np.array([0, 0, 1], np.int8)}
        out = agent.get_action(
            seen, agent.get_initial_hidden_state(), {"fred_0": [False, True, False]}
        )
        assert (out.action["bob_0"], out.action["fred_0"]) == (3, 2)

    def test_the_argument_overrides_infos_and_these_the_observation(self) -> None:
        agent = team(["a"])
        masks = np.eye(3, dtype=np.int8)
        state = agent.get_initial_hidden_state()
        seen = {"a": {"observation": np.zeros(3), "action_mask": masks[0]}}
        infos = {"a": {"action_mask": masks[1]}}
        assert agent.get_action(seen, state).action["a"] == 1
        assert agent.get_action(seen, state, infos=infos).action["a"] == 2
        assert agent.get_action(seen, state, {"a": masks[2]}, infos).action["a"] == 3

    def test_actions_that_the_environment_defines(self) -> None:
        agent = mixed_team(previous_action=True)
        seen, state = observations(agent), agent.get_initial_hidden_state(4)
        theirs = np.array([0.1, -1.9], np.float64).astype(np.float32)
        infos: dict[str, Any] = {
            "bob_1": {"env_defined_actions": [None, np.array([3]), None, 1]},
            "fred_0": {"env_defined_actions": [theirs, None, None, None]},
            "bob_0": {"env_defined_actions": None},
        }
        free = agent.get_action(seen, state, deterministic=True)
        out = agent.get_action(seen, state, infos=infos, deterministic=True)
        assert out.action["bob_1"][[1, 3]].tolist() == [3, 1]
        assert np.array_equal(out.action["fred_0"][0], theirs)
        for name, rows in (("bob_1", [0, 2]), ("fred_0", [1, 2, 3]), ("bob_0", [0, 1, 2, 3])):
            assert np.array_equal(out.action[name][rows], free.action[name][rows])
        for name in agent.agent_ids:
            # The observation is seen all the same, and it has the same value.
            assert np.array_equal(out.value[name], free.value[name])
            for x, y in zip(
                out.hidden_state[name].tensors[:2], free.hidden_state[name].tensors[:2], strict=True
            ):
                assert torch.equal(x, y)
        remembered = out.hidden_state["bob_1"].tensors[-1][0]
        assert remembered.argmax(-1)[[1, 3]].tolist() == [2, 0]
        # The probability is that of the action that was taken.
        for row, action in ((1, 3), (3, 1)):
            mask = np.ones((4, 3), bool)
            probability = {
                a: agent.get_action(
                    {"bob_1": seen["bob_1"]},
                    state,
                    infos={"bob_1": {"env_defined_actions": [a] * 4}},
                ).log_prob["bob_1"][row]
                for a in (1, 2, 3)
            }
            assert sum(np.exp(list(probability.values()))) == pytest.approx(1, abs=1e-5)
            assert out.log_prob["bob_1"][row] == pytest.approx(probability[action], abs=1e-5)
            assert mask.all()

    @pytest.mark.parametrize("given", [2, np.array(2), np.array([2]), np.int64(2)], ids=repr)
    def test_defined_action_of_a_single_observation(self, given: Any) -> None:
        agent = team()
        infos = {"bob_0": {"env_defined_actions": given}, "fred_0": {}, "bob_1": None}
        for _ in range(5):
            out = agent.get_action(
                observations(agent, None), agent.get_initial_hidden_state(), infos=infos
            )
            assert out.action["bob_0"] == 2
            assert np.shape(out.action["bob_0"]) == ()

    def test_defined_actions_need_not_be_allowed(self) -> None:
        agent = team(["a"])
        infos = {"a": {"env_defined_actions": 2, "action_mask": np.zeros(3, np.int8)}}
        out = agent.get_action({"a": np.zeros(3)}, agent.get_initial_hidden_state(), infos=infos)
        assert out.action["a"] == 2
        assert np.isfinite(out.log_prob["a"])

    def test_rows_that_do_not_exist_keep_their_memory(self) -> None:
        agent = mixed_team(previous_action=True)
        state = agent.get_action(
            observations(agent), agent.get_initial_hidden_state(4)
        ).hidden_state
        exists = np.array([True, False, True, False])
        infos: Any = {
            "bob_0": {"exists": exists, "action_mask": exists[:, None] & np.ones(3, bool)}
        }
        out = agent.get_action(observations(agent, seed=1), state, infos=infos)
        for before, after in zip(
            state["bob_0"].tensors, out.hidden_state["bob_0"].tensors, strict=True
        ):
            same = (before == after).all(-1).all(0)
            assert same[~exists].all()
        hidden = state["bob_0"].tensors[0] != out.hidden_state["bob_0"].tensors[0]
        assert hidden[:, exists].all()
        assert not torch.equal(state["bob_1"].tensors[0], out.hidden_state["bob_1"].tensors[0])

    def test_rows_that_start_forget(self) -> None:
        agent = mixed_team(previous_action=True, previous_reward=True)
        fresh, reward = agent.get_initial_hidden_state(4), dict.fromkeys(AGENTS, 1.0)
        state = agent.get_action(observations(agent), fresh, reward=reward).hidden_state
        copied = state["bob_1"].clone()
        start = np.array([False, True, True, False])
        arguments: Any = {"obs": observations(agent, seed=1), "deterministic": True}
        infos = {"bob_1": {"start": start}}
        zeros = dict.fromkeys(AGENTS, 0.0)
        out = agent.get_action(hidden_state=state, infos=infos, reward=reward, **arguments)
        continued = agent.get_action(hidden_state=state, reward=reward, **arguments)
        anew = agent.get_action(hidden_state=fresh, reward=zeros, **arguments)
        for name in AGENTS:
            expected = anew.value[name] if name == "bob_1" else continued.value[name]
            expected = np.where(start, expected, continued.value[name])
            np.testing.assert_allclose(out.value[name], expected, rtol=1e-5)
        assert not np.allclose(continued.value["bob_1"], anew.value["bob_1"])
        for x, y in zip(copied.tensors, state["bob_1"].tensors, strict=True):
            assert torch.equal(x, y)  # the caller's own is left alone

    def test_infos_of_a_vector_of_environments(self) -> None:
        # A whole run by hand: what the environment says suffices to act exactly as testing does.
        later = {
            "bob_0": [(0, 5, "l")],
            "fred_0": [(2, 5, "l")],
            "bob_1": [(0, 2, "t"), (4, 5, "t")],
        }
        options: Any = {"masks": "info", "defined": {("bob_0", 2): 1}}
        env = vector(COMING, later, **options)
        agent = make_team(env)
        expected = agent.evaluate(vector(COMING, later, **options), 2, seed=0)
        seen, infos = env.reset(seed=0)
        state, returns = agent.get_initial_hidden_state(2), dict.fromkeys(AGENTS, np.zeros(2))
        for _ in range(5):
            out = agent.get_action(seen, state, infos=infos, deterministic=True)
            seen, rewards, _, _, infos = env.step(out.action)
            state = out.hidden_state
            returns = {name: returns[name] + reward for name, reward in rewards.items()}
        for name, total in expected.items():
            np.testing.assert_allclose(returns[name], total, rtol=1e-6)


def bad(**arguments: Any) -> dict[str, Any]:
    """Arguments of ``get_action`` for two rows of two agents, some of them bad."""
    return {"obs": {"bob_0": np.zeros((2, 3)), "bob_1": np.zeros((2, 3))}, **arguments}


def seen_by_bob_1(observation: Any) -> dict[str, Any]:
    return bad(obs={"bob_0": np.zeros((2, 3)), "bob_1": observation})


@pytest.mark.parametrize(
    ("options", "arguments", "error", "message"),
    [
        ({}, {"obs": {"eve_0": np.zeros(3)}}, ValueError, r"^obs: expected agents .*'eve_0'"),
        ({}, bad(hidden_state={"eve_0": None}), ValueError, r"^hidden_state: .*got 'eve_0'"),
        ({}, bad(action_mask={"eve_0": None}), ValueError, r"^action_mask: .*got 'eve_0'"),
        ({}, seen_by_bob_1(np.zeros((2, 4))), ValueError, r"^observation: (?s:.*)'bob_1'"),
        ({}, seen_by_bob_1(np.zeros((1, 2, 3))), ValueError, r"^observation: (?s:.*)'bob_1'"),
        ({}, seen_by_bob_1(3.0), ValueError, r"^observation: (?s:.*)'bob_1'"),
        ({}, seen_by_bob_1("left"), TypeError, r"^observation: expected num(?s:.*)'bob_1'"),
        (
            {},
            seen_by_bob_1([[0, 0, 0], [0, np.nan, 0]]),
            ValueError,
            r"^observation: expected finite numbers, .* in row 1\n.*'bob_1'",
        ),
        ({}, bad(hidden_state=None), ValueError, r"^hidden_state: expected one for agent 'bob_0'"),
        ({}, bad(hidden_state=["bob_0"]), ValueError, r"^hidden_state: .*'bob_1'.*_state\(2\)"),
        ({}, bad(hidden_state=3), ValueError, r"^hidden_state: expected 2 rows(?s:.*)'bob_0'"),
        (
            {},
            bad(hidden_state={"bob_0": []}),
            TypeError,
            r"^hidden_state: expected a HiddenState, got list\n.*'bob_0'",
        ),
        (
            {},
            bad(action_mask={"bob_1": np.ones(3)}),
            ValueError,
            r"^action_mask: .*\[2, 3\] .*got shape \[3\]\n.*'bob_1'",
        ),
        (
            {},
            bad(infos={"bob_1": {"action_mask": np.ones((2, 4))}}),
            ValueError,
            r"^action_mask: .*got shape \[2, 4\]\n.*'bob_1'",
        ),
        (
            {},
            bad(action_mask={"bob_1": [[1, 0, 0], [0, 0, 0]]}),
            ValueError,
            r"^action_mask: expected at least one allowed action, got none from .*'bob_1'.*row 1",
        ),
        (
            {"action": RANGE},
            bad(action_mask={"bob_1": np.ones((2, 2))}),
            ValueError,
            r"^action_mask: expected none for Box.*, got shape \[2, 2\]\n.*'bob_1'",
        ),
        (
            {},
            bad(infos={"bob_1": {"env_defined_actions": [None, 4]}}),
            ValueError,
            r"^infos\['bob_1'\]\['env_defined_actions'\]: expected an action in Disc.*, got 4",
        ),
        (
            {},
            bad(infos={"bob_1": {"env_defined_actions": [[1, 2], None]}}),
            ValueError,
            r"^infos\['bob_1'\]\['env_defined_actions'\]: expected one value .*got \[1, 2\]",
        ),
        (
            {"action": RANGE},
            bad(infos={"bob_1": {"env_defined_actions": [None, [0.0]]}}),
            ValueError,
            r"^infos\['bob_1'\]\['env_defined_actions'\]: expected shape \[2\] .*got \[0\.0\]",
        ),
        (
            {},
            bad(infos={"bob_1": {"env_defined_actions": [None] * 3}}),
            ValueError,
            r"^infos\['bob_1'\]\['env_defined_actions'\]: expected 2 entries, .*got \[None, None",
        ),
        (
            {},
            bad(infos={"bob_1": {"env_defined_actions": 1}}),
            ValueError,
            r"^infos\['bob_1'\]\['env_defined_actions'\]: expected 2 entries, .*got 1",
        ),
        (
            {},
            bad(infos={"bob_1": {"exists": [True] * 3}}),
            ValueError,
            r"^infos\['bob_1'\]\['exists'\]: expected shape \[n\] = \[2\], got \[3\]",
        ),
        (
            {},
            bad(infos={"bob_1": {"start": [[True]] * 2}}),
            ValueError,
            r"^infos\['bob_1'\]\['start'\]: expected shape \[n\] = \[2\], got \[2, 1\]",
        ),
        (
            {"previous_reward": True},
            bad(reward={"bob_0": [0, 0]}),
            ValueError,
            r"^reward: expected the last rewards of agent 'bob_1', shape \[n\] = \[2\].*None",
        ),
        (
            {"previous_reward": True},
            bad(reward={"bob_0": [0, 0], "bob_1": [0] * 3}),
            ValueError,
            r"^reward: expected the last rewards of agent 'bob_1'",
        ),
        (
            {"previous_reward": True},
            bad(reward={"bob_0": [0, 0], "bob_1": [0, np.nan]}),
            ValueError,
            r"^reward: expected finite numbers(?s:.*)'bob_1'",
        ),
    ],
)
def test_bad_input(
    options: dict[str, Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    agent = team(**options)
    state: Any = arguments.pop("hidden_state", 2)
    if isinstance(state, int):
        state = agent.get_initial_hidden_state(state)
    elif isinstance(state, list):
        state = {name: agent.get_initial_hidden_state(2)[name] for name in state}
    before = [group.generator.get_state() for group in agent.groups]
    with pytest.raises(error, match=message):
        agent.get_action(hidden_state=state, **arguments)
    for group, generator in zip(agent.groups, before, strict=True):
        assert torch.equal(group.generator.get_state(), generator)


@pytest.mark.parametrize("n", [0, -1])
def test_initial_state_of_no_row(n: int) -> None:
    with pytest.raises(ValueError, match=f"^n: expected at least 1 row, got {n}"):
        team().get_initial_hidden_state(n)


def test_state_of_an_agent_of_another_group() -> None:
    agent = mixed_team(
        net_config={
            "encoder_config": {"hidden_state_size": 5, "max_seq_len": 4},
            "fred": {"encoder_config": {"hidden_state_size": 6, "max_seq_len": 4}},
        }
    )
    state = agent.get_initial_hidden_state(4)
    state["bob_1"], state["fred_0"] = state["fred_0"], state["bob_1"]
    with pytest.raises(ValueError, match=r"^hidden_state: .*another agent's(?s:.*)'bob_1'"):
        agent.get_action(observations(agent), state)


# --- environments -------------------------------------------------------------------------------


class TestEnvironments:
    @pytest.mark.parametrize(
        "call", [collect_rollouts_recurrent, lambda a, env: a.evaluate(env, 1)]
    )
    def test_gymnasium_for_ippo(self, call: Any) -> None:
        message = r"^env: expected a .*PettingZoo.*, got (SyncVectorEnv|Scripted); .*make_"
        with pytest.raises(TypeError, match=message):
            call(team(), scripted(["3t"]))
        with pytest.raises(TypeError, match=message):
            call(team(), Scripted("3t"))

    @pytest.mark.parametrize(
        "call", [collect_rollouts_recurrent, lambda a, env: a.evaluate(env, 1)]
    )
    def test_pettingzoo_for_ppo(self, call: Any) -> None:
        agent = make_agent(scripted(["3t"]))
        message = r"^env: expected a Gymnasium.*SyncMultiAgentVectorEnv.*PettingZoo's there is IPPO"
        with pytest.raises(TypeError, match=message):
            call(agent, vector(STAYING))

    def test_one_environment_is_no_vector(self) -> None:
        message = r"^env: expected a vector .* got ScriptedParallel; .*make_multi_agent_vect_envs"
        with pytest.raises(TypeError, match=message):
            collect_rollouts_recurrent(team(), ScriptedParallel([STAYING]))

    @pytest.mark.parametrize(
        ("env", "message"),
        [
            (
                {"bob_0": [(0, 3, "t")], "bob_1": [(0, 3, "t")]},
                r"^env: expected the agents \['bob_0', .*unknown: \['fred_0'\]",
            ),
            ({**STAYING, "eve_0": [(0, 3, "t")]}, r"^env: expected the agents .*: \['eve_0'\]"),
        ],
    )
    def test_other_agents(self, env: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            collect_rollouts_recurrent(team(), vector(env))
        if "eve_0" in env:  # fewer are played with, but nobody of a group that nobody knows
            with pytest.raises(ValueError, match=message):
                team().evaluate(vector(env), 1)

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"observation": {"bob": "box", "fred": "wide"}}, "observation"),
            ({"observation": {"bob": "box", "fred": "discrete"}}, "observation"),
            ({"action": {"bob": "discrete", "fred": "many"}}, "action"),
            ({"action": {"bob": "discrete", "fred": "box"}}, "action"),
        ],
    )
    def test_other_spaces(self, options: Any, name: str) -> None:
        message = (
            rf"^env: expected agent 'fred_0' to have the {name} space .*, got .*as in training"
        )
        with pytest.raises(ValueError, match=message):
            collect_rollouts_recurrent(team(), vector(STAYING, **options))

    def test_group_that_is_not_alike_in_the_environment(self) -> None:
        # Its agents' arrays lie apart there: one would see, and act for, another.
        class Wider(ScriptedParallel):
            def __init__(self) -> None:
                super().__init__([STAYING])
                self.observation_spaces["bob_1"] = Box(-2, 2, (3,))

        class Masked(Wider):
            def __init__(self) -> None:
                super().__init__()
                mask = Box(0, 1, (3,), np.int8)
                self.observation_spaces["bob_1"] = Dict(observation=VECTOR, action_mask=mask)

        for kind in (Wider, Masked):
            message = (
                r"^env: expected equal spaces for group 'bob', .*'bob_0' and .*'bob_1'.*groups="
            )
            with pytest.raises(ValueError, match=message):
                collect_rollouts_recurrent(team(), SyncMultiAgentVectorEnv([kind]))
            agent = team(groups={"x": ["bob_0", "fred_0"], "y": ["bob_1"]})
            agent.rows_of(SyncMultiAgentVectorEnv([kind]))

    def test_bounds_of_observations_may_differ(self) -> None:
        agent = team(observation=Box(-9, 9, (3,)))
        collect_rollouts_recurrent(agent, vector(STAYING))

    def test_index_of_somebody_who_comes_later(self) -> None:
        env = vector({"a_0": [(0, 3, "t")], "a_1": [(1, 3, "t")]}, observation="discrete")
        collect_rollouts_recurrent(make_team(env), env)

    def test_order_of_agents_may_differ(self) -> None:
        # Everybody gets the own rows all the same.
        agents = ["bob_1", "fred_0", "bob_0"]
        agent = team(agents)
        env = vector(STAYING, masks=None)
        collect_rollouts_recurrent(agent, env, 2)
        buffer = agent.trainers["bob"].buffer
        assert buffer is not None
        assert agent.trainers["bob"].agents == ("bob_1", "bob_0")
        made = ScriptedParallel([STAYING])
        for row, name in enumerate(("bob_1", "bob_0")):
            np.testing.assert_array_equal(buffer.obs[1, row], made.observation_of(name, 0, 1))


# --- learning -----------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "previous_action": True,
    "previous_reward": True,
    "normalize_obs": True,
    "normalize_reward": True,
    "lr_schedule": "linear",
    "total_steps": 500,
    "ent_coef": 0.01,
    "agent_id_input": True,
    "team_reward": "mean",
}


def train(agent: IPPO, env: Any, rollouts: int, reset: bool | None = None) -> IPPO:
    """Collect and learn."""
    for _ in range(rollouts):
        collect_rollouts_recurrent(agent, env, reset=reset)
        agent.learn()
        reset = None
    return agent


class TestLearn:
    def test_diagnostics_by_group(self) -> None:
        env = vector(STAYING, COMING)
        agent = make_team(env)
        collect_rollouts_recurrent(agent, env)
        result = agent.learn()
        assert list(result) == ["bob", "fred"]
        assert all(diagnostics.updates > 0 for diagnostics in result.values())

    def test_groups_learn_from_their_own_agents(self) -> None:
        """What happens to one group leaves the other's weights alone, to the bit."""
        results = []
        for scale in (1, 5):

            class Scaled(ScriptedParallel):
                def reward_of(self, agent: str, *moment: Any, by: int = scale) -> float:
                    reward = super().reward_of(agent, *moment)
                    return by * reward if agent == "fred_0" else reward

            env = SyncMultiAgentVectorEnv([lambda: Scaled([STAYING])])
            results.append(team_weights(train(make_team(env), env, 2)))
        for name in results[0]:
            if name.startswith("bob."):
                assert torch.equal(results[0][name], results[1][name]), name
        assert not torch.equal(
            results[0]["fred.value_head.layers.0.weight"],
            results[1]["fred.value_head.layers.0.weight"],
        )

    @pytest.mark.parametrize(("team_reward", "share"), [("sum", 1), ("mean", 1 / 3)])
    def test_team_reward_is_trained_on_and_returns_stay_individual(
        self, team_reward: Any, share: float
    ) -> None:
        rewards, returns = [], []
        for option in (None, team_reward):
            env = vector(STAYING)
            agent = make_team(env, team_reward=option, learn_step=3)
            stats = collect_rollouts_recurrent(agent, env)
            buffers = [trainer.buffer for trainer in agent.trainers.values()]
            rewards.append(torch.cat([b.reward for b in buffers if b is not None], 1))
            returns.append(stats.agent_returns)
        expected = share * rewards[0].sum(1, keepdim=True).expand(3, 3)
        torch.testing.assert_close(rewards[1], expected)
        assert returns[0] == returns[1]

    def test_steps_are_the_environments(self) -> None:
        env = vector(STAYING, COMING)
        agent = train(make_team(env), env, 3)
        assert agent.env_steps == 3 * 10 * 2
        assert {trainer.env_steps for trainer in agent.trainers.values()} == {60}

    def test_group_nobody_of_which_acts(self) -> None:
        script = {"bob_0": [(0, 9, "t")], "fred_0": [(8, 9, "t")], "bob_1": [(0, 9, "t")]}
        env = vector(script)
        agent = make_team(env, learn_step=5)
        before = team_weights(agent)
        collect_rollouts_recurrent(agent, env)
        result = agent.learn()
        assert (result["fred"].updates, result["bob"].updates > 0) == (0, True)
        for name, x in team_weights(agent).items():
            assert torch.isfinite(x).all()
            if name.startswith("fred."):
                assert torch.equal(x, before[name])


class TestReproducible:
    def test_same_seed_same_weights_here_and_in_workers(self) -> None:
        makers: list[Any] = [RecallTeam] * 3
        results = []
        for seed, kind in (
            (1, SyncMultiAgentVectorEnv),
            (1, AsyncMultiAgentVectorEnv),
            (2, SyncMultiAgentVectorEnv),
        ):
            # Anything may have drawn from the global generators before.
            torch.rand(len(results) + 1)
            np.random.rand(len(results) + 1)  # noqa: NPY002
            with kind(makers) as env:
                results.append(team_weights(train(make_team(env, seed=seed, **EVERYTHING), env, 3)))
        assert_same_weights(results[0], results[1])
        assert not torch.equal(
            results[0]["a.action_head.layers.0.weight"], results[2]["a.action_head.layers.0.weight"]
        )

    def test_environments_are_seeded_by_the_agents_seed(self) -> None:
        seeds = []
        for seed in (1, 1, 2, None):
            env = vector(STAYING, COMING)
            train(
                make_team(env, seed=0 if seed is None else seed)
                if seed is not None
                else IPPO(env.observation_spaces, env.action_spaces, learn_step=3),
                env,
                1,
            )
            seeds.append([e.seeds[0] for e in env.envs])
        assert seeds[0] == seeds[1] != seeds[2]
        assert seeds[0][1] == seeds[0][0] + 1
        assert seeds[3] == [None, None]


# --- testing ------------------------------------------------------------------------------------


def by_hand(agent: IPPO, env: Any, limit: int | None = None) -> dict[str, float]:
    """Returns of an episode of a parallel environment, with the loop that users write."""
    seen, infos = env.reset(seed=0)
    state, steps = agent.get_initial_hidden_state(), 0
    reward, returns = (
        dict.fromkeys(env.possible_agents, 0.0),
        dict.fromkeys(env.possible_agents, 0.0),
    )
    while env.agents and steps != limit:
        before = set(env.agents)
        out = agent.get_action(
            {name: seen[name] for name in env.agents},
            state,
            infos=infos,
            deterministic=True,
            reward=reward if agent.config.previous_reward else None,
        )
        state = out.hidden_state
        seen, reward, _, _, infos = env.step(out.action)
        for name, r in reward.items():
            returns[name] += r
        for name in env.agents:
            if name not in before:  # (re-)entered: a new life, a new memory
                state[name], reward[name] = agent.get_initial_hidden_state()[name], 0.0
        steps += 1
    return returns


def turns_by_hand(agent: IPPO, env: Any) -> dict[str, float]:
    """The same of a turn-based environment."""
    env.reset(seed=0)
    state, returns = agent.get_initial_hidden_state(), dict.fromkeys(env.possible_agents, 0.0)
    for name in env.agent_iter():
        seen, reward, termination, truncation, info = env.last()
        returns[name] += reward
        if termination or truncation:
            env.step(None)
            continue
        out = agent.get_action(
            {name: seen},
            state,
            infos={name: info},
            deterministic=True,
            reward={name: reward} if agent.config.previous_reward else None,
        )
        state = out.hidden_state
        env.step(out.action[name])
    return returns


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"previous_action": True, "previous_reward": True, "agent_id_input": True},
        {"team_reward": "sum"},
    ],
    ids=str,
)
@pytest.mark.parametrize("masks", [None, "info", "observation"])
class TestEvaluation:
    def test_one_environment(self, masks: str | None, options: dict[str, Any]) -> None:
        for script in (COMING, STAYING):
            how: Any = {"masks": masks, "defined": {("bob_1", 0): 2, ("fred_0", 2): 3}}
            agent = make_team(vector(script, **how), **options)
            env = ScriptedParallel([script], **how)
            returns = agent.evaluate(env, 3, seed=0)
            assert list(returns) == agent.agent_ids
            assert env.seeds[0] == 0
            assert all(array.shape == (3,) for array in returns.values())
            expected = by_hand(agent, ScriptedParallel([script], **how))
            for name, array in returns.items():
                assert array[0] == pytest.approx(expected[name], rel=1e-5)
            assert not env.closed

    @pytest.mark.parametrize("limit", [None, 2])
    def test_each_environment_plays_the_same_number_of_episodes(
        self, masks: str | None, options: dict[str, Any], limit: int | None
    ) -> None:
        scripts = [COMING, STAYING]
        env = vector(*scripts, masks=masks)
        agent = make_team(env, **options)
        returns = agent.evaluate(env, 2, max_steps=limit, seed=0)
        for e, script in enumerate(scripts):
            expected = by_hand(agent, ScriptedParallel([script], e, masks=masks), limit)
            for name, array in returns.items():
                assert array[e] == pytest.approx(expected[name], rel=1e-5)
        # Asked for three, it plays four: each environment's second as well.
        assert agent.evaluate(env, 3, max_steps=limit)["bob_0"].shape == (4,)

    def test_turns(self, masks: str | None, options: dict[str, Any]) -> None:
        how: Any = {"masks": masks, "dies": {"player_1": 3}}
        make: Any = lambda: TurnTaking("9t", **how)  # noqa: E731
        agent = make_team(SyncMultiAgentVectorEnv([make]), **options)
        returns = agent.evaluate(make(), 2, seed=0)
        expected = turns_by_hand(agent, make())
        assert set(returns) == set(expected)
        for name, array in returns.items():
            assert array[0] == pytest.approx(expected[name], rel=1e-5)


class TestTest:
    def test_sum_or_means_are_returned_and_the_sum_is_noted(self) -> None:
        env = vector(COMING, STAYING)
        agent = make_team(env)
        total = agent.test(env, loop=2, seed=0)
        means = agent.test(env, loop=2, sum_scores=False, seed=0)
        returns = agent.evaluate(env, 4, seed=0)
        assert means == {name: pytest.approx(r.mean()) for name, r in returns.items()}
        assert total == pytest.approx(sum(means.values()))
        assert agent.fitness == [total, total]

    def test_loop_counts_episodes_of_each_environment(self) -> None:
        env = vector(COMING, STAYING)
        agent = make_team(env)
        calls = []
        agent.evaluate = lambda env, episodes, **options: (  # type: ignore[method-assign]
            calls.append((episodes, options["max_steps"])) or {"bob_0": np.zeros(1)}
        )
        agent.test(env, loop=4)
        agent.test(ScriptedParallel([COMING]), 7, loop=4)
        agent.test(ScriptedParallel([COMING]))
        assert calls == [(8, None), (4, 7), (3, None)]

    @pytest.mark.parametrize("many", [True, False])
    def test_reproducible_with_a_seed(self, many: bool) -> None:
        env: Any = SyncMultiAgentVectorEnv([RecallTeam] * 3) if many else RecallTeam()
        agent = make_team(SyncMultiAgentVectorEnv([RecallTeam]))
        scores = [agent.test(env, loop=20, seed=seed) for seed in (5, 5, 61)]
        assert scores[0] == scores[1] != scores[2]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loop": 0}, r"^loop: expected at least 1 episode, got 0"),
            ({"max_steps": 0}, r"^max_steps: expected at least 1, got 0"),
        ],
    )
    def test_errors(self, options: dict[str, Any], message: str) -> None:
        agent = team()
        with pytest.raises(ValueError, match=message):
            agent.test(vector(STAYING), **options)
        with pytest.raises(ValueError, match=r"^episodes: expected at least 1, got 0"):
            agent.evaluate(vector(STAYING), 0)
        assert agent.fitness == []


# --- saving -------------------------------------------------------------------------------------


SCRIPTS = [COMING, STAYING]


@pytest.fixture
def agent() -> IPPO:
    env = vector(*SCRIPTS)
    return train(
        make_team(env, groups={"x": ["bob_1", "fred_0"], "y": ["bob_0"]}, **EVERYTHING), env, 2
    )


@pytest.fixture
def path(tmp_path: Path, agent: IPPO) -> Path:
    """A checkpoint of ``agent``, alone in its directory."""
    agent.save_checkpoint(tmp_path / "agent.pt")
    return tmp_path / "agent.pt"


def assert_refused(agent: IPPO, path: Path, message: str) -> None:
    """Loading fails, and nothing has changed."""
    before, groups = team_weights(agent), agent.groups
    with pytest.raises(CheckpointError, match=message) as error:
        agent.load_checkpoint(path)
    assert str(path) in str(error.value)
    assert agent.groups == groups
    assert_same_weights(before, team_weights(agent))


class TestRefused:
    @pytest.mark.parametrize("part", ["agent_ids", "team_reward", "groups", "steps"])
    def test_part_is_something_else(self, part: str, agent: IPPO, path: Path) -> None:
        data = checkpoint.load(path)
        checkpoint.save({**data, part: 1.5}, path)
        assert_refused(agent, path, r"the parts do not fit together")

    @pytest.mark.parametrize("part", ["agents", "seed", "policy", "generator"])
    def test_part_of_a_group_is_something_else(self, part: str, agent: IPPO, path: Path) -> None:
        data = checkpoint.load(path)
        group = {**data["groups"]["y"], part: 1.5}
        checkpoint.save({**data, "groups": {**data["groups"], "y": group}}, path)
        assert_refused(agent, path, r"the parts do not fit together")

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({}, "grouped_agents"),
            ({"script": {"bob_0": [(0, 3, "t")]}}, "agent_ids"),
            ({"observation": "wide", "groups": True}, "observation_spaces"),
            ({"action": "box", "groups": True}, "action_spaces"),
            ({"hidden_state_size": 6, "groups": True}, "net_configs"),
        ],
        ids=str,
    )
    def test_mismatched_agent(self, options: dict[str, Any], name: str, path: Path) -> None:
        spaces = {k: options.pop(k) for k in ("observation", "action") if k in options}
        if options.pop("groups", False):
            options["groups"] = {"x": ["bob_1", "fred_0"], "y": ["bob_0"]}
        env = vector(options.pop("script", COMING), **spaces)
        other = make_team(env, **{**EVERYTHING, **options})
        assert_refused(other, path, rf"expected this agent's {name} .*, got .*IPPO\.load\(path\)")


def test_copies_have_lists_of_their_own(agent: IPPO) -> None:
    for twin in (agent.clone(), copy.deepcopy(agent)):
        twin.grouped_agents["x"].append("eve")
        assert agent.grouped_agents["x"] == ["fred_0", "bob_1"]


def test_spaces_are_plain_gymnasium(agent: IPPO) -> None:
    assert all(isinstance(space, gym.Space) for space in agent.observation_spaces.values())
