"""Tests of `recurrent_rl.algorithms.ppo`: building agents, acting, learning, testing."""

import doctest
import importlib
import pkgutil
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Sequence, Text, Tuple
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from support.agents import (
    assert_same_weights,
    make_agent,
    prepare,
    weights,
)
from support.envs import Scripted, scripted

import recurrent_rl
from recurrent_rl import PPO, ActionOutput, HiddenState, collect_rollouts_recurrent

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED
VECTOR, CHOICE, RANGE = Box(-1, 1, (3,)), Discrete(3, start=1), Box(-2, 1, (2,))
INDEX = Discrete(5, start=2)


def agent_for(observation: Any = VECTOR, action: Any = CHOICE, **options: Any) -> PPO:
    """A small agent for single spaces."""

    class Spaces:
        single_observation_space, single_action_space = observation, action

    return make_agent(Spaces, **options)


def observations(agent: PPO, n: int, seed: int = 0) -> Any:
    """N observations of the agent's space."""
    agent.observation_space.seed(seed)
    return np.stack([agent.observation_space.sample() for _ in range(n)])


# --- building ---------------------------------------------------------------------------------


class TestConstructor:
    def test_defaults_and_attributes(self) -> None:
        agent = PPO(VECTOR, CHOICE)
        assert agent.learn_step == agent.config.learn_step == 128
        assert (agent.steps, agent.fitness, agent.scores, agent.env_steps) == ([0], [], [], 0)
        assert agent.buffer is None

    def test_repr(self) -> None:
        text = repr(agent_for(num_layers=2))
        assert "LSTM 2 x 5" in text
        assert "feed-forward" in repr(agent_for(recurrent=False))
        size = sum(p.numel() for p in agent_for().policy.parameters())
        assert f"{size:,} parameters" in repr(agent_for())

    def test_net_config_reaches_the_network(self) -> None:
        agent = PPO(VECTOR, CHOICE, {"encoder_config": {"hidden_state_size": 7, "num_layers": 3}})
        state = agent.get_initial_hidden_state(2)
        assert [tuple(x.shape) for x in state.tensors] == [(3, 2, 7)] * 2

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"gama": 0.9}, ValueError, r"no option 'gama'; did you mean 'gamma'\?"),
            ({"gamma": 1.5}, ValueError, r"PPOConfig\.gamma: expected a number in \[0, 1\], got"),
            ({"lr": "fast"}, TypeError, r"PPOConfig\.lr: expected float, got 'fast'"),
            ({"learn_step": 0}, ValueError, r"PPOConfig\.learn_step: expected a number in"),
            ({"lr_schedule": "linear"}, ValueError, r"PPOConfig\.total_steps: .* got None"),
            ({"burn_in": 64}, ValueError, r"burn_in: expected less than max_seq_len = 64, got 64"),
            ({"net_config": {"encoder": {}}}, ValueError, r"did you mean 'encoder_config'\?"),
            (
                {"net_config": {"encoder_config": {"cell": "rnn"}}},
                ValueError,
                r"EncoderConfig\.cell: expected one of \['lstm', .*'lru'\], got 'rnn'",
            ),
            (
                {"net_config": {"encoder_config": {"hidden_state_size": 2.5}}},
                TypeError,
                r"EncoderConfig\.hidden_state_size: expected int, got 2\.5",
            ),
            (
                {"observation_space": Text(3)},
                TypeError,
                r"^observation_space: expected Box, .* Dict and Tuple of these, got Text\(",
            ),
            (
                {"observation_space": Dict(a=Tuple([VECTOR, Sequence(VECTOR)]))},
                TypeError,
                r"^observation_space\['a'\]\[1\]: expected Box.*got Sequence\(",
            ),
            ({"observation_space": Dict()}, TypeError, r"^observation_space: .*at least one part"),
            ({"action_space": Text(2)}, TypeError, r"^action_space: expected .*MultiBinary.*Text"),
            ({"action_space": Dict(a=CHOICE)}, TypeError, r"^action_space: expected .*got Dict\("),
            (
                {"action_space": Box(-np.inf, np.inf, (1,)), "squash_output": True},
                ValueError,
                r"^squash_output: .* finite bounds, got Box.*RescaleAction",
            ),
        ],
    )
    def test_errors(self, options: dict[str, Any], error: type[Exception], message: str) -> None:
        spaces = {"observation_space": VECTOR, "action_space": CHOICE}
        with pytest.raises(error, match=message):
            PPO(**{**spaces, **options})

    def test_burn_in_concerns_recurrent_agents_only(self) -> None:
        PPO(VECTOR, CHOICE, recurrent=False, burn_in=64)


# --- acting -----------------------------------------------------------------------------------

ANY_AGENT = pytest.mark.parametrize(
    "options",
    [
        {},
        {"action": RANGE},
        {"action": RANGE, "squash_output": True},
        {"observation": INDEX, "cell": "gru", "num_layers": 2},
        {"share_encoders": False, "previous_action": True, "previous_reward": True},
        {"recurrent": False},
        {"recurrent": False, "previous_action": True},
    ],
    ids=str,
)


class TestGetAction:
    @ANY_AGENT
    def test_five_names_and_shapes(self, options: dict[str, Any]) -> None:
        agent = agent_for(**options)
        reward = {"reward": np.zeros(4)} if agent.config.previous_reward else {}
        out = agent.get_action(observations(agent, 4), agent.get_initial_hidden_state(4), **reward)
        assert isinstance(out, ActionOutput)
        action, log_prob, entropy, value, hidden_state = out
        assert out._fields == ("action", "log_prob", "entropy", "value", "hidden_state")
        assert action.shape == (4, *agent.action_space.shape)
        assert action.dtype == agent.action_space.dtype
        for a in action:
            assert agent.action_space.contains(a)
        for array in (log_prob, entropy, value):
            assert isinstance(array, np.ndarray)
            assert (array.shape, array.dtype) == ((4,), np.float32)
        assert isinstance(hidden_state, HiddenState)
        assert hidden_state.rows == 4

    @ANY_AGENT
    def test_single_observation_equals_a_batch_of_one(self, options: dict[str, Any]) -> None:
        agent = agent_for(**options)
        [observation] = observations(agent, 1)
        reward = {"reward": 0.5} if agent.config.previous_reward else {}
        state = agent.get_initial_hidden_state(1)
        for _ in range(3):
            one = agent.get_action(observation, state, deterministic=True, **reward)
            many = agent.get_action(observation[None], state, deterministic=True, **reward)
            for ours, theirs in zip(one[:4], many[:4], strict=True):
                assert np.array_equal(ours, theirs[0])
            assert np.shape(one.value) == ()
            assert agent.action_space.contains(one.action)
            assert one.hidden_state.rows == 1
            state = one.hidden_state

    @ANY_AGENT
    def test_rows_are_independent_and_the_state_is_explicit(self, options: dict[str, Any]) -> None:
        agent = agent_for(**options)
        seen = [observations(agent, 3, seed=seed) for seed in range(3)]
        together, alone = agent.get_initial_hidden_state(3), agent.get_initial_hidden_state(1)
        rewards = agent.config.previous_reward
        for t, observation in enumerate(seen):
            reward = np.array([1.0, -t, 0.5])
            batch = agent.get_action(
                observation, together, deterministic=True, reward=reward if rewards else None
            )
            one = agent.get_action(
                observation[1], alone, deterministic=True, reward=reward[1] if rewards else None
            )
            for ours, theirs in zip(one[:4], batch[:4], strict=True):
                np.testing.assert_allclose(ours, theirs[1], rtol=1e-4, atol=1e-6)
            together, alone = batch.hidden_state, one.hidden_state
            for ours, theirs in zip(alone.tensors, together[1].tensors, strict=True):
                torch.testing.assert_close(ours, theirs)

    def test_no_memory_is_kept(self) -> None:
        agent = agent_for(previous_action=True)
        state = agent.get_initial_hidden_state(2)
        before = state.clone()
        first, other = observations(agent, 2), observations(agent, 2, seed=1)
        results = []
        for between in (first, other):
            out = agent.get_action(first, state, deterministic=True)
            results.append(out)
            agent.get_action(between, out.hidden_state, deterministic=True)
        for ours, theirs in zip(results[0][:4], results[1][:4], strict=True):
            assert np.array_equal(ours, theirs)
        for ours, theirs in zip(state.tensors, before.tensors, strict=True):
            assert torch.equal(ours, theirs)
        # But what is remembered matters.
        again = agent.get_action(first, results[0].hidden_state, deterministic=True)
        assert not np.array_equal(again.value, results[0].value)

    def test_deterministic_draws_nothing_and_is_the_mode(self) -> None:
        agent = agent_for(action=RANGE, squash_output=True)
        state, seen = agent.get_initial_hidden_state(500), np.tile(observations(agent, 1), (500, 1))
        before = agent.group.generator.get_state()
        mode = agent.get_action(seen, state, deterministic=True).action
        assert torch.equal(agent.group.generator.get_state(), before)
        assert (mode == mode[0]).all()
        sample = agent.get_action(seen, state).action
        # The median of a squashed Gaussian is its squashed mean.
        spread = sample.std(0)
        assert (spread > 0.1).all()
        assert (np.abs(np.median(sample, 0) - mode[0]) < 0.2 * spread + 0.1).all()

    def test_most_likely_choice_and_its_probability(self) -> None:
        agent = agent_for()
        state, seen = (
            agent.get_initial_hidden_state(2000),
            np.tile(observations(agent, 1), (2000, 1)),
        )
        sample, log_prob, entropy, *_ = agent.get_action(seen, state)
        mode = agent.get_action(seen, state, deterministic=True)
        probabilities = {int(a): float(np.exp(p)) for a, p in zip(sample, log_prob, strict=True)}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert max(probabilities, key=lambda a: probabilities[a]) == mode.action[0]
        expected = -sum(p * np.log(p) for p in probabilities.values())
        assert entropy[0] == pytest.approx(expected, abs=1e-4)
        for a, p in probabilities.items():
            # Five standard deviations of a share of 2000 samples.
            assert (sample == a).mean() == pytest.approx(p, abs=5 * (p * (1 - p) / 2000) ** 0.5)

    def test_sampling_is_reproducible(self) -> None:
        actions = []
        for seed in (1, 1, 2):
            agent = agent_for(action=RANGE, seed=0)
            agent.group.generator.manual_seed(seed)
            state, seen = agent.get_initial_hidden_state(4), observations(agent, 4)
            actions.append(np.stack([agent.get_action(seen, state).action for _ in range(3)]))
        assert np.array_equal(actions[0], actions[1])
        assert not np.array_equal(actions[0], actions[2])
        assert not np.array_equal(actions[0][0], actions[0][1])

    @pytest.mark.parametrize("deterministic", [True, False])
    @pytest.mark.parametrize("kind", [bool, np.int8])
    def test_masks(self, deterministic: bool, kind: Any) -> None:
        agent = agent_for()
        mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]]).astype(kind)
        state, seen = agent.get_initial_hidden_state(4), observations(agent, 4)
        for _ in range(20):
            out = agent.get_action(seen, state, mask, deterministic=deterministic)
            assert out.action[:3].tolist() == [1, 2, 3]  # Discrete(3, start=1)
            assert out.action[3] in (1, 3)
            assert out.log_prob[:3].tolist() == [0, 0, 0]
            assert out.entropy[:3].tolist() == [0, 0, 0]
        one = agent.get_action(seen[0], agent.get_initial_hidden_state(1), mask[1])
        assert one.action == 2

    def test_previous_reward_matters(self) -> None:
        agent = agent_for(previous_reward=True, reward_scale=0.5)
        state, [seen] = agent.get_initial_hidden_state(1), observations(agent, 1)
        values = [agent.get_action(seen, state, reward=r).value for r in (0.0, 1.0, [1.0])]
        assert values[0] != values[1] == values[2]
        # It sees what the learner's rewards are scaled to.
        doubled = agent_for(previous_reward=True, reward_scale=1.0)
        assert doubled.get_action(seen, state, reward=0.5).value == values[1]

    @pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64, torch.float32, list])
    def test_any_numbers(self, kind: Any) -> None:
        agent = agent_for()
        state, seen = agent.get_initial_hidden_state(2), np.array([[0, 1, -1], [1, 0, 1]])
        expected = agent.get_action(seen.astype(np.float32), state, deterministic=True)
        if kind is list:
            given: Any = seen.tolist()
        else:
            given = torch.tensor(seen, dtype=kind) if kind is torch.float32 else seen.astype(kind)
        assert np.array_equal(
            agent.get_action(given, state, deterministic=True).value, expected.value
        )

    def test_result_carries_no_gradient(self) -> None:
        agent = agent_for()
        out = agent.get_action(observations(agent, 2), agent.get_initial_hidden_state(2))
        assert not any(x.requires_grad for x in out.hidden_state.tensors)

    @pytest.mark.parametrize("n", [0, -1])
    def test_initial_state_of_no_row(self, n: int) -> None:
        with pytest.raises(ValueError, match=f"^n: expected at least 1 row, got {n}"):
            agent_for().get_initial_hidden_state(n)


def bad(**arguments: Any) -> dict[str, Any]:
    """Arguments of ``get_action`` for two rows, some of them bad."""
    return {"obs": np.zeros((2, 3)), **arguments}


@pytest.mark.parametrize(
    ("options", "arguments", "error", "message"),
    [
        ({}, bad(obs=np.zeros((2, 4))), ValueError, r"^observation: .*\[2, 3\], got \[2, 4\]"),
        ({}, bad(obs=np.zeros((1, 2, 3))), ValueError, r"^observation: expected shape"),
        ({}, bad(obs=np.zeros(4)), ValueError, r"^observation: expected shape"),
        ({}, bad(obs=3.0), ValueError, r"^observation: expected shape .*, got \[\]"),
        ({}, bad(obs="left"), TypeError, r"^observation: expected numbers .*dtype <U4"),
        ({}, bad(obs=None), TypeError, r"^observation: expected numbers .*dtype object"),
        ({}, bad(obs={"a": 1}), TypeError, r"^observation: expected numbers .*dtype object"),
        ({}, bad(obs=np.zeros((2, 3)) + 1j), TypeError, r"^observation: .*dtype complex128"),
        (
            {},
            bad(obs=np.array([[0, 0, 0], [0, np.nan, 0]])),
            ValueError,
            r"^observation: expected finite numbers, got \[ ?0\. *nan +0\. ?\] in row 1",
        ),
        ({}, bad(obs=np.full((2, 3), -np.inf)), ValueError, r"^observation: .*finite.* row 0"),
        ({"observation": INDEX}, bad(obs=[2, 7]), ValueError, r"^observation: .*in \[2, 6\], got"),
        ({"observation": INDEX}, bad(obs=[1, 2]), ValueError, r"^observation: .*in \[2, 6\], got"),
        ({"observation": INDEX}, bad(obs=[2.5, 3]), ValueError, r"^observation: expected integers"),
        ({"observation": INDEX}, bad(obs=[[2], [3]]), ValueError, r"^observation: expected shape"),
        ({}, bad(hidden_state=None), ValueError, r"^hidden_state: .*get_initial_hidden_state\(2\)"),
        ({}, bad(hidden_state=3), ValueError, r"^hidden_state: expected 2 rows .*rows=3"),
        ({}, bad(hidden_state=[]), TypeError, r"^hidden_state: expected a HiddenState, got list"),
        ({"previous_reward": True}, bad(), ValueError, r"^reward: .*shape \[N\] = \[2\].*None"),
        ({"previous_reward": True}, bad(reward=[0] * 3), ValueError, r"^reward: expected the last"),
        ({"previous_reward": True}, bad(reward=[[0]] * 2), ValueError, r"^reward: expected the"),
        ({"previous_reward": True}, bad(reward=[0, np.nan]), ValueError, r"^reward: .*finite"),
        ({"previous_reward": True}, bad(reward=np.inf), ValueError, r"^reward: .*finite"),
        ({"previous_reward": True}, bad(reward="much"), ValueError, r"^reward: .*finite numbers"),
        (
            {},
            bad(action_mask=[1, 0, 1]),
            ValueError,
            r"^action_mask: .*\[2, 3\] for .* shape \[3\]",
        ),
        ({}, bad(action_mask=np.ones((2, 4))), ValueError, r"^action_mask: .*got shape \[2, 4\]"),
        (
            {},
            bad(action_mask=[[1, 0, 0], [0, 0, 0]]),
            ValueError,
            r"^action_mask: expected at least one allowed action, got none from row 1",
        ),
        (
            {"action": RANGE},
            bad(action_mask=np.ones((2, 2))),
            ValueError,
            r"^action_mask: expected none for Box\(.*\), got shape \[2, 2\]",
        ),
    ],
)
def test_bad_input(
    options: dict[str, Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    agent = agent_for(**options)
    state = arguments.pop("hidden_state", 2)
    if isinstance(state, int):
        state = agent.get_initial_hidden_state(state)
    before, generator = weights(agent), agent.group.generator.get_state()
    with pytest.raises(error, match=message):
        agent.get_action(hidden_state=state, **arguments)
    assert_same_weights(before, weights(agent))
    assert torch.equal(generator, agent.group.generator.get_state())


@pytest.mark.parametrize(
    "other",
    [
        {"cell": "gru"},
        {"num_layers": 2},
        {"hidden_state_size": 6},
        {"share_encoders": False},
        {"previous_action": True},
        {"recurrent": False},
    ],
    ids=str,
)
def test_state_of_another_agent(other: dict[str, Any]) -> None:
    ours, theirs = agent_for(share_encoders=True), agent_for(**{"share_encoders": True, **other})
    for agent, stranger in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ValueError, match=r"^hidden_state: expected 2 rows and tensors .*anoth"):
            agent.get_action(observations(agent, 2), stranger.get_initial_hidden_state(2))


def test_feed_forward_needs_no_state() -> None:
    agent = agent_for(recurrent=False)
    seen = observations(agent, 2)
    out = agent.get_action(seen, deterministic=True)
    again = agent.get_action(seen, out.hidden_state, deterministic=True)
    assert np.array_equal(out.value, again.value)


# --- learning ---------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "previous_action": True,
    "previous_reward": True,
    "normalize_obs": True,
    "normalize_reward": True,
    "lr_schedule": "linear",
    "total_steps": 500,
    "ent_coef": 0.01,
}


def trained(env: Any, rollouts: int = 3, **options: Any) -> PPO:
    """An agent after some rollouts."""
    agent = make_agent(env, **options)
    for _ in range(rollouts):
        collect_rollouts_recurrent(agent, env)
        agent.learn()
    return agent


class TestReproducible:
    @pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
    def test_same_seed_same_weights(self, kind: Any) -> None:
        results = []
        for seed in (1, 1, 2):
            # Anything may have drawn from the global generators before.
            torch.rand(len(results) + 1)
            np.random.rand(len(results) + 1)  # noqa: NPY002
            env = kind([lambda: gym.make("CartPole-v1")] * 3, autoreset_mode=SAME)
            try:
                results.append(weights(trained(env, seed=seed, **EVERYTHING)))
            finally:
                env.close()
        assert_same_weights(results[0], results[1])
        assert not torch.equal(
            results[0]["action_head.layers.0.weight"], results[2]["action_head.layers.0.weight"]
        )

    @pytest.mark.parametrize("recurrent", [True, False])
    def test_order_of_minibatches_is_drawn_from_the_agents_seed(self, recurrent: bool) -> None:
        env = scripted(["30t"] * 3)
        first, second = (make_agent(env, recurrent=recurrent) for _ in range(2))
        for agent in (first, second):
            collect_rollouts_recurrent(agent, env)
        second.group.generator.manual_seed(9)
        first.learn()
        second.learn()
        assert not torch.equal(
            first.policy.action_head.layers[0].weight, second.policy.action_head.layers[0].weight
        )


class TestLearn:
    def test_linear_schedule(self) -> None:
        env = scripted(["30t"] * 2)
        agent = make_agent(env, lr=0.01, lr_schedule="linear", total_steps=80)
        rates = []
        for _ in range(4):  # 20 steps each
            collect_rollouts_recurrent(agent, env)
            rates.append(agent.learn().lr)
        collect_rollouts_recurrent(agent, env)
        with pytest.warns(UserWarning, match=r"^learn: total_steps = 80 .* reconfigure\(total"):
            rates.append(agent.learn().lr)
        assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025, 0])
        assert agent.env_steps == 100

    def test_constant_rate(self) -> None:
        env = scripted(["30t"] * 2)
        agent = make_agent(env, lr=0.01, total_steps=30)
        rates = []
        for _ in range(3):
            collect_rollouts_recurrent(agent, env)
            rates.append(agent.learn().lr)
        assert rates == [0.01] * 3

    def test_number_of_updates(self) -> None:
        env = scripted(["30t"] * 2)
        agent = make_agent(env, learn_step=16, batch_size=8, update_epochs=3, max_seq_len=4)
        collect_rollouts_recurrent(agent, env)
        result = agent.learn()
        assert (result.updates, result.epochs) == (3 * 32 // 8, 3)
        assert agent.optimizer.state_dict()["state"][0]["step"] == 12

    def test_exploding_gradient_is_reported_and_not_taken(self) -> None:
        env = scripted(["30t"] * 2)
        agent = make_agent(env, reward_scale=1e30)
        collect_rollouts_recurrent(agent, env)
        before = weights(agent)
        with pytest.raises(FloatingPointError, match=r"^learn: expected a finite gradient"):
            agent.learn()
        assert_same_weights(before, weights(agent))
        collect_rollouts_recurrent(agent, env)  # and collection goes on


class TestObservationNormalisation:
    @pytest.mark.parametrize("mode", [SAME, NEXT])
    def test_running_moments_of_what_was_seen(self, mode: AutoresetMode) -> None:
        env = scripted(["3t 5l", "7b"], mode)
        agent = make_agent(env, normalize_obs=True)
        seen = []
        for _ in range(3):
            collect_rollouts_recurrent(agent, env)
            assert agent.buffer is not None
            seen.append(agent.buffer.obs.flatten(0, 1).clone())
            agent.learn()
        every = torch.cat(seen).double()
        norm = agent.policy.preprocessor.norm
        assert norm is not None
        torch.testing.assert_close(norm.mean, every.mean(0))
        torch.testing.assert_close(norm.variance, every.var(0, unbiased=False))
        assert norm.count == len(every)
        expected = (every - every.mean(0)) / every.std(0, unbiased=False)
        torch.testing.assert_close(
            agent.policy.preprocessor(torch.cat(seen)).vector,
            expected.float(),
            rtol=1e-4,
            atol=1e-5,
        )

    def test_frozen_but_for_learning(self) -> None:
        env = scripted(["3t 5l", "7b"])
        agent = trained(env, normalize_obs=True, normalize_reward=True)
        before = weights(agent)
        agent.test(scripted(["9t", "5l"]), loop=2)
        agent.get_action(np.full((1, 3), 100.0), agent.get_initial_hidden_state())
        assert_same_weights(before, weights(agent))
        collect_rollouts_recurrent(agent, env)
        assert_same_weights(before, weights(agent))
        prepare(agent)
        for name, x in weights(agent).items():
            # Rewards' deviation moves before anything is learned; the policy must not.
            assert torch.equal(x, before[name]) != name.startswith("reward."), name

    def test_indices_are_not_normalised(self) -> None:
        assert agent_for(INDEX, normalize_obs=True).policy.preprocessor.norm is None


# --- testing ----------------------------------------------------------------------------------


def played_by_hand(
    agent: PPO, env: Scripted, episodes: int, limit: int | None = None
) -> list[float]:
    """Returns of episodes, with the loop that users write."""
    returns = []
    for i in range(episodes):
        observation, info = env.reset(seed=0 if i == 0 else None)
        state, reward, total, ended, steps = agent.get_initial_hidden_state(), 0.0, 0.0, False, 0
        while not ended and steps != limit:
            action, _, _, _, state = agent.get_action(
                observation,
                state,
                info.get("action_mask"),
                deterministic=True,
                reward=reward if agent.config.previous_reward else None,
            )
            observation, reward, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
            total += reward
            steps += 1
        returns.append(total)
    return returns


@pytest.mark.parametrize("options", [{}, {"previous_action": True, "previous_reward": True}])
@pytest.mark.parametrize("masked", [False, True])
class TestEvaluation:
    def test_single_environment(self, masked: bool, options: dict[str, Any]) -> None:
        env = Scripted("3t", masked=masked)
        agent = make_agent(scripted(["3t"], masked=masked), **options)
        returns = agent.evaluate(env, 3, seed=0)
        assert returns.shape == (3,)
        assert len(env.received) == 9
        expected = played_by_hand(agent, Scripted("3t", masked=masked), 1)
        np.testing.assert_allclose(returns[:1], expected, rtol=1e-5)

    @pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
    @pytest.mark.parametrize("limit", [None, 4])
    def test_each_environment_plays_the_same_number_of_episodes(
        self, masked: bool, options: dict[str, Any], mode: AutoresetMode, limit: int | None
    ) -> None:
        scripts = ["2t", "9l", "5b"]
        env = scripted(scripts, mode, masked=masked)
        agent = make_agent(env, **options)
        returns = agent.evaluate(env, 3, max_steps=limit, seed=0)
        expected = [
            played_by_hand(agent, Scripted(script, n, masked=masked), 1, limit)[0]
            for n, script in enumerate(scripts)
        ]
        np.testing.assert_allclose(returns, expected, rtol=1e-5)
        # Asked for four, it plays six: each environment's second as well.
        assert agent.evaluate(env, 4, max_steps=limit).shape == (6,)


class TestTest:
    def test_mean_is_returned_and_noted(self) -> None:
        env = scripted(["2t", "9l"])
        agent = make_agent(env)
        first = agent.test(env, loop=1, seed=0)
        expected = [played_by_hand(agent, Scripted(s, n), 1)[0] for n, s in enumerate(["2t", "9l"])]
        assert first == pytest.approx(np.mean(expected), rel=1e-5)
        second = agent.test(env, max_steps=1, loop=2)
        assert agent.fitness == [first, second]

    def test_loop_counts_episodes_of_each_environment(self) -> None:
        env = scripted(["2t", "2t"])
        agent = make_agent(env)
        calls = []
        agent.evaluate = lambda env, episodes, **_: calls.append(episodes) or np.zeros(1)  # type: ignore
        agent.test(env, loop=4)
        agent.test(Scripted("2t"), loop=4)
        agent.test(Scripted("2t"))
        assert calls == [8, 4, 3]

    @pytest.mark.parametrize("vector", [True, False])
    def test_reproducible_with_a_seed(self, vector: bool) -> None:
        make = gym.make_vec if vector else gym.make
        sizes = {"num_envs": 3, "vectorization_mode": "sync"} if vector else {}
        env: Any = make("Pendulum-v1", max_episode_steps=20, **sizes)
        agent = agent_for(
            env.observation_space if not vector else env.single_observation_space,
            env.action_space if not vector else env.single_action_space,
        )
        first, again, other = (agent.test(env, loop=2, seed=seed) for seed in (5, 5, 6))
        assert first == again != other
        assert agent.test(env, loop=2, seed=5, deterministic=False) != first

    def test_environment_is_left_open(self) -> None:
        class Door(Scripted):
            closed = False

            def close(self) -> None:
                self.closed = True

        env = Door("2t")
        agent = make_agent(scripted(["2t"]))
        agent.test(env)
        assert not env.closed
        env.reset()

    def test_a_real_single_environment(self) -> None:
        env = gym.make("CartPole-v1")
        agent = agent_for(env.observation_space, env.action_space)
        assert 8 <= agent.test(env, loop=2) <= 500
        assert agent.test(env, max_steps=5, loop=2) == 5

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loop": 0}, r"^loop: expected at least 1 episode, got 0"),
            ({"max_steps": 0}, r"^max_steps: expected at least 1, got 0"),
        ],
    )
    def test_errors(self, options: dict[str, Any], message: str) -> None:
        agent = agent_for()
        with pytest.raises(ValueError, match=message):
            agent.test(Scripted("2t"), **options)
        with pytest.raises(ValueError, match=r"^episodes: expected at least 1, got 0"):
            agent.evaluate(Scripted("2t"), 0)
        assert agent.fitness == []


# --- documentation ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [m.name for m in pkgutil.walk_packages(recurrent_rl.__path__, "recurrent_rl.")]
)
def test_docstring_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_is_an_example() -> None:
    assert doctest.testmod(importlib.import_module("recurrent_rl.algorithms.ppo")).attempted >= 5


def test_names_of_the_package() -> None:
    for name in recurrent_rl.__all__:
        assert getattr(recurrent_rl, name) is not None
