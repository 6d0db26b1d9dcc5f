"""Tests of `recurrent_rl.plots.memory` and what it stands on: recording, reading out, drawing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.filmed import Remembering, RememberingPair
from torch import Tensor, nn

from recurrent_rl import (
    IPPO,
    PPO,
    SAC,
    MaskVelocityWrapper,
    MemoryProbe,
    make_vect_envs,
    plot_memory,
    probe_memory,
)
from recurrent_rl.plots import memory, recording
from recurrent_rl.plots.readout import fit_readout, r_squared
from recurrent_rl.plots.recording import Step, untrained_memory

SMALL: dict[str, Any] = {"encoder_config": {"hidden_state_size": 8}}
BEFORE = {"first before": lambda env: env.before[0], "second before": lambda env: env.before[1]}


class Keeping(nn.Module):
    """Remembers the last observation, and the one before, and nothing else."""

    def initial_state(self, rows: int) -> Sequence[Tensor]:
        return [torch.zeros(2, rows, 2)]

    def forward(
        self, observation: Tensor, extra: Tensor | None, state: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        kept = torch.stack([state[0][-1], observation[-1]])
        if len(observation) > 1:
            kept = observation[-2:]
        return observation, [kept]


def ppo(env: gym.Env[Any, Any], cell: str = "lstm", **options: Any) -> PPO:
    shapes = {"encoder_config": {**SMALL["encoder_config"], "cell": cell}}
    return PPO(env.observation_space, env.action_space, shapes, seed=0, **options)


class TestProbe:
    def test_what_is_remembered_exactly_is_read_exactly(self) -> None:
        env = Remembering()
        agent = PPO(env.observation_space, env.action_space, actor_network=Keeping(), seed=0)
        probe = probe_memory(agent, env, BEFORE, episodes=8)
        assert probe.names == ("first before", "second before")
        assert probe.memory_r2 == pytest.approx([1, 1], abs=1e-6)
        assert (probe.observation_r2 < 0.1).all()
        assert (probe.fitted, len(probe.traces)) == (4, 4)
        assert "first before: R^2 1.000 from the memory" in str(probe)
        assert probe.untrained_r2 == pytest.approx([1, 1], abs=1e-6)  # the module as it was given
        assert probe.agent == "PPO"

    @pytest.mark.parametrize(
        ("cell", "states", "name"), [("lstm", 2, "LSTM"), ("gru", 1, "GRU"), ("lru", 2, "LRU")]
    )
    def test_cells_keep_some_of_it_by_chance(self, cell: str, states: int, name: str) -> None:
        env = Remembering()
        probe = probe_memory(ppo(env, cell), env, BEFORE, episodes=10)
        assert (probe.memory_r2 > 0.4).all()
        assert (probe.observation_r2 < 0.1).all()
        assert probe.traces[0].memory.shape == (12, 8 * states)
        assert probe.shown_units == 8
        assert probe.agent == f"PPO, {name}"

    def test_traces_are_the_episodes_as_played_by_hand(self) -> None:
        env = Remembering()
        agent = ppo(env, share_encoders=False)
        trace = probe_memory(agent, env, BEFORE, episodes=2).traces[0]
        state, seen = agent.get_initial_hidden_state(), trace.observation.astype("f4")
        for t in range(12):
            out = agent.get_action(seen[t], state, deterministic=True)
            state = out.hidden_state
            mine = torch.cat(
                [x.flatten() for x in state.tensors[:2]]
            )  # the actor's, not the critic's
            assert trace.memory[t] == pytest.approx(mine.numpy(), abs=1e-6)
        assert trace.hidden[1:] == pytest.approx(trace.observation[:-1])
        assert trace.hidden[0].tolist() == [0, 0]
        assert trace.steps.tolist() == list(range(12))

    @pytest.mark.parametrize("name", ["lstm", "gru"])
    def test_an_untrained_memory_sees_the_same(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An agent that has not learned is what it is compared with, given its seed."""
        env = Remembering()
        agent = ppo(env, name, previous_action=True, previous_reward=True, normalize_obs=True)
        vector = make_vect_envs(make_env=Remembering, should_async_vector=False)
        agent.group.policy.preprocessor.norm.update(torch.randn(50, 2))  # type: ignore
        found = probe_memory(agent, vector.envs[0], BEFORE, episodes=4)
        assert found.untrained_r2 != pytest.approx(found.memory_r2)
        monkeypatch.setattr(recording, "SEED", 0)
        again = probe_memory(agent, vector.envs[0], BEFORE, episodes=4)
        assert again.untrained_r2 == pytest.approx(again.memory_r2, abs=1e-5)

    def test_an_untrained_memory_forgets_where_a_life_begins(self) -> None:
        agent, seen = ppo(Remembering()), np.array([0.5, -0.5], "f4")
        nothing = np.zeros(0)
        lives = [(True, seen), (False, -seen), (True, seen), (False, seen)]
        steps = [Step(t, *life, None, nothing, nothing) for t, life in enumerate(lives)]
        first, _, again, later = untrained_memory(agent.group, [steps])[0]
        assert again.tolist() == first.tolist() != later.tolist()

    def test_no_readout_is_scored_where_it_was_fitted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fitted: list[Any] = []

        def fit(features: Any, quantities: Any) -> Any:
            fitted.append(quantities)
            return fit_readout(features, quantities)

        monkeypatch.setattr(memory, "fit_readout", fit)
        env = Remembering()
        traces = probe_memory(ppo(env), env, BEFORE, episodes=4).traces
        assert [len(each) for each in fitted] == [2, 2, 2]  # memory, observation, untrained
        for quantities in fitted:
            for each in quantities:
                assert not any(np.array_equal(each, trace.hidden) for trace in traces)

    def test_masked_velocities_are_found(self) -> None:
        env = MaskVelocityWrapper(gym.make("CartPole-v1"))
        agent = ppo(gym.wrappers.TransformReward(env, lambda r: 2 * r))
        probe = probe_memory(agent, env, episodes=4)
        assert probe.names == ("velocity [m/s]", "angular velocity [rad/s]")
        assert probe.observation_names[1] == "velocity [m/s] (masked)"
        for trace in probe.traces:
            assert not trace.observation[:, [1, 3]].any()
            # 0.02 seconds of a step: x_(t+1) = x_t + 0.02 v_t.
            moved = np.diff(trace.observation[:, 0]) / 0.02
            assert moved == pytest.approx(trace.hidden[:-1, 0], abs=1e-4)

    def test_one_of_several_agents(self) -> None:
        env = RememberingPair()
        observed = {agent: env.observation_space(agent) for agent in env.possible_agents}
        acted = {agent: env.action_space(agent) for agent in env.possible_agents}
        team = IPPO(observed, acted, env.possible_agents, SMALL, seed=0)
        hidden = {"before": lambda env: env.parts["b_0"].before[0]}
        probe = probe_memory(team, env, hidden, agent_id="b_0", episodes=16)
        assert probe.memory_r2[0] > 0.4 > 0.1 > probe.observation_r2[0]
        trace = probe.traces[0]
        assert trace.steps.tolist() == list(range(1, 10))  # while it was there
        assert trace.hidden[1:, 0] == pytest.approx(trace.observation[:-1, 0])
        assert probe.agent == "IPPO b_0, LSTM"
        with pytest.raises(ValueError, match="agent_id: expected one of a_0, b_0"):
            probe_memory(team, env, hidden)

    def test_from_a_replay_and_of_dictionaries(self, tmp_path: Path) -> None:
        env = Remembering(kind="dict")
        shapes = {"encoder_config": {"hidden_state_size": 8, "latent_dim": 8}}
        agent = SAC(env.observation_space, env.action_space, shapes, seed=0)
        agent.save_checkpoint(tmp_path / "agent.pt")
        agent = SAC.load(tmp_path / "agent.pt")
        probe = probe_memory(agent, env, lambda env: env.before, episodes=4)
        assert probe.names == ("hidden[0]", "hidden[1]")
        assert set(probe.observation_names) == {
            "observation['k']", "observation['n'][0]", "observation['n'][1]"
        }  # fmt: skip
        trace = probe.traces[0]
        assert trace.images[0].shape == (12, 3, 10, 10)
        figure = plot_memory(probe, path=tmp_path / "memory.png")
        titles = [axes.get_title(loc="left") for axes in figure.axes]
        assert titles[:5] == ["seen, at some of 12 steps", "seen", "hidden", "hidden", "remembered"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("hidden", "options", "error", "message"),
        [
            (None, {}, ValueError, "hidden: expected a function of the environment, as nothing in"),
            ("speed", {}, TypeError, "hidden: expected a function"),
            ({}, {}, TypeError, "hidden: expected a function"),
            (lambda env: "fast", {}, ValueError, "expected finite numbers"),
            ({"x": lambda env: np.nan}, {}, ValueError, r"hidden\['x'\]: expected a finite number"),
            ({"x": lambda env: 3}, {}, ValueError, "expected 'x' to change in the episodes that"),
            (BEFORE, {"episodes": 1}, ValueError, "episodes: expected a number in"),
            (BEFORE, {"agent_id": "a_0"}, ValueError, "agent_id: expected None"),
        ],
    )
    def test_what_is_hidden(
        self, hidden: Any, options: Any, error: type[Exception], message: str
    ) -> None:
        env = Remembering(3)
        with pytest.raises(error, match=message):
            probe_memory(ppo(env), env, hidden, **{"episodes": 2, **options})

    def test_who_remembers_nothing(self) -> None:
        env = Remembering()
        agent = ppo(env, recurrent=False, previous_action=True)
        with pytest.raises(ValueError, match="agent: expected one with memory, got PPO"):
            probe_memory(agent, env, BEFORE)

    def test_other_things(self) -> None:
        env = Remembering()
        with pytest.raises(TypeError, match="agent: expected an agent"):
            probe_memory(ppo, env)
        with pytest.raises(TypeError, match="env: expected one environment, got 'Pendulum-v1'"):
            probe_memory(ppo(env), "Pendulum-v1")
        with pytest.raises(TypeError, match="probe: expected what probe_memory"):
            plot_memory(ppo(env))  # type: ignore[arg-type]


class TestReadout:
    def test_linear_functions_are_found(self) -> None:
        random = np.random.default_rng(0)
        x = [random.normal(size=(n, 5)) * [1, 10, 0, 1, 1] + 3 for n in (40, 30, 50)]
        y = [each @ np.ones((5, 2)) * [1, -2] + [0, 7] for each in x]
        readout = fit_readout(x[:2], y[:2])
        assert r_squared([readout(x[2])], [y[2]]) == pytest.approx([1, 1], abs=1e-6)

    def test_more_features_than_steps(self) -> None:
        """The same solution, by the smaller of two matrices."""
        random = np.random.default_rng(0)
        x = [random.normal(size=(8, 30)) for _ in range(2)]
        y = [random.normal(size=(8, 1)) for _ in range(2)]
        readout = fit_readout(x, y)
        z = (np.concatenate(x) - readout.mean) / readout.scale
        target = np.concatenate(y) - readout.offset
        # At the minimum z^T (y - z w) = n penalty w, for some penalty.
        pull = z.T @ (target - z @ readout.weights) / len(z)
        penalty = (pull * readout.weights).sum() / (readout.weights**2).sum()
        assert pull == pytest.approx(penalty * readout.weights, rel=1e-6)

    def test_noise_is_not_learned_by_heart(self) -> None:
        """With as many features as steps, only a penalty keeps it near the mean."""
        random = np.random.default_rng(0)
        x = [random.normal(size=(20, 60)) for _ in range(6)]
        y = [random.normal(size=(20, 1)) for _ in range(6)]
        readout = fit_readout(x[:3], y[:3])
        assert r_squared(list(map(readout, x[3:])), y[3:])[0] > -0.3

    def test_shares_by_hand(self) -> None:
        true = [np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([[4.0, 4.0]])]
        read = [np.array([[0.0, 2.0], [2.0, 2.0]]), np.array([[2.0, 2.0]])]
        assert r_squared(read, true) == pytest.approx([1 - 4 / 8, 1 - 6 / 6])


@pytest.fixture(scope="module")
def probe() -> MemoryProbe:
    env = Remembering()
    return probe_memory(ppo(env), env, BEFORE, episodes=4)


class TestPicture:
    def test_panels(self, probe: MemoryProbe, tmp_path: Path) -> None:
        path = tmp_path / "memory.png"
        figure = plot_memory(probe, path=path, episode=1, steps=6, title="Mine")
        assert path.stat().st_size > 5000
        seen, first, second, units, *_ = figure.axes
        assert [np.asarray(each.get_ydata()).tolist() for each in seen.lines] == (
            probe.traces[1].observation[:6].T.tolist()
        )
        truth = probe.traces[1].hidden[:6]
        for axes, q in ((first, 0), (second, 1)):
            assert np.asarray(axes.lines[-1].get_ydata()).tolist() == truth[:, q].tolist()
            texts = [text.get_text() for text in axes.get_legend().get_texts()]  # type: ignore
            numbers = probe.memory_r2[q], probe.untrained_r2[q]
            expected = "memory: {:.2f} (untrained: {:.2f})".format(*numbers)
            assert texts[1] == expected.replace("-", "\N{MINUS SIGN}")
        (heat,) = units.images
        shown = np.asarray(heat.get_array())  # [U, T]
        assert shown.shape == (8, 6)
        assert np.sort(shown, axis=0) == pytest.approx(
            np.sort(probe.traces[1].memory[:6, :8].T, axis=0)
        )

    def test_units_are_sorted_by_correlation(self, probe: MemoryProbe) -> None:
        heat = plot_memory(probe).axes[3].images[0]
        all_units = np.concatenate([each.memory[:, :8] for each in probe.traces])
        quantity = np.concatenate([each.hidden[:, 0] for each in probe.traces])
        by_unit = [np.corrcoef(unit, quantity)[0, 1] for unit in all_units.T]
        order = np.argsort(by_unit)[::-1]
        assert np.asarray(heat.get_array()) == pytest.approx(probe.traces[0].memory[:, order].T)

    def test_there_is_no_such_episode(self, probe: MemoryProbe) -> None:
        with pytest.raises(ValueError, match="episode: expected one of the 2 scored ones"):
            plot_memory(probe, episode=2)
