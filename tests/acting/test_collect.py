"""Tests of `recurrent_rl.acting.collect`: what a rollout holds, with any environment."""

import copy
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from support.agents import (
    assert_ratio_one,
    assert_same_rollout,
    assert_same_weights,
    fix_noise,
    make_agent,
    prepare,
    rollout,
    weights,
)
from support.envs import NAN_REWARD, GarbageAtReset, Scripted, scripted
from support.pairs import examples
from torch import Tensor

from recurrent_rl import PPO, collect_rollouts, collect_rollouts_recurrent
from recurrent_rl.algorithms.recorder import BLOCK
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED


# --- references -------------------------------------------------------------------------------


class ByHand:
    """One row of collection from nothing but the environment's own ``step`` and ``get_action``.

    Under NEXT_STEP the final observation is seen in a step of its own, whose action does nothing.
    """

    def __init__(self, agent: PPO, env: Scripted, next_step: bool) -> None:
        self.agent, self.env, self.next_step = agent, env, next_step
        self._begin(seed=0)

    def _begin(self, seed: int | None = None) -> None:
        self.observation, info = self.env.reset(seed=seed)
        self.state = self.agent.get_initial_hidden_state(1)
        self.mask, self.reward = info.get("action_mask"), 0.0
        self.start, self.junk = True, False
        self.action = np.zeros(self.agent.policy.actions.features)

    def _extra(self) -> np.ndarray:
        """The previous action and reward, as far as the policy sees them."""
        config = self.agent.config
        reward = [self.reward * config.reward_scale]
        return np.concatenate(
            [self.action] * config.previous_action + [reward] * config.previous_reward + [[]]
        )

    def _act(self) -> Any:
        nothing_allowed = self.mask is None or not self.mask.any()
        return self.agent.get_action(
            self.observation,
            self.state,
            None if nothing_allowed else self.mask,
            reward=self.reward if self.agent.config.previous_reward else None,
        )

    def step(self) -> dict[str, Any]:
        """One step, as the buffer has it."""
        acted = self._act()
        seen = {
            "obs": self.observation,
            "start": self.start,
            "active": not self.junk,
            "state": self.state,
            "extra": self._extra(),
            "value": acted.value,
            "log_prob": acted.log_prob,
            "env_action": acted.action,
            "reward": 0.0,
            "terminated": False,
            "truncated": False,
            "bootstrap": 0.0,
        }
        if self.junk:
            self._begin()
            return seen
        self.observation, reward, terminated, truncated, info = self.env.step(acted.action)
        self.state, self.start, self.mask = acted.hidden_state, False, info.get("action_mask")
        self.reward, self.action = reward, acted.action
        if isinstance(self.env.action_space, Discrete):
            self.action = np.eye(3)[acted.action - 1]  # Discrete(3, start=1)
        bootstrap = self._act().value if truncated else 0.0
        seen |= {"reward": reward, "terminated": terminated, "truncated": truncated}
        seen |= {"bootstrap": bootstrap}
        if terminated or truncated:
            if self.next_step:
                self.junk = True
            else:
                self._begin()
        return seen

    def rollout(self, steps: int) -> tuple[list[dict[str, Any]], float]:
        """T steps, and the value of what is seen next."""
        row = [self.step() for _ in range(steps)]
        return row, float(self._act().value)


def returns_by_hand(
    row: list[dict[str, Any]], last_value: float, gamma: float, lam: float, scale: float
) -> list[float]:
    """Advantages of a row's active steps, each by its own sum of discounted TD errors."""
    row = [step for step in row if step["active"]]
    ended = [step["terminated"] or step["truncated"] for step in row]
    error = []
    for t, step in enumerate(row):
        following = row[t + 1]["value"] if t + 1 < len(row) else last_value
        if ended[t]:
            following = 0.0 if step["terminated"] else step["bootstrap"]
        error.append(step["reward"] * scale + gamma * following - step["value"])
    advantage = []
    for t in range(len(row)):
        end = next((k for k in range(t, len(row)) if ended[k]), len(row) - 1)
        advantage.append(sum((gamma * lam) ** (k - t) * error[k] for k in range(t, end + 1)))
    return [float(a) for a in advantage]


def close(ours: Any, theirs: Any, what: str = "") -> None:
    """Equal up to float32's rounding."""
    np.testing.assert_allclose(
        np.asarray(ours, np.float64), np.asarray(theirs, np.float64), 1e-4, 1e-5, err_msg=what
    )


def assert_row(agent: PPO, n: int, row: list[dict[str, Any]], last_value: float) -> None:
    """Everything the buffer holds of row n is what was found by hand."""
    prepare(agent)
    buffer, config = agent.buffer, agent.config
    assert buffer is not None
    for name in ("obs", "start", "active", "value", "reward", "terminated", "truncated"):
        close(getattr(buffer, name)[:, n], [step[name] for step in row], name)
    assert (buffer.extra is None) == (row[0]["extra"].size == 0)
    if buffer.extra is not None:
        close(buffer.extra[:, n], [step["extra"] for step in row], "extra inputs")
    active = [t for t, step in enumerate(row) if step["active"]]
    assert buffer.exists[:, n].all()
    close(buffer.log_prob[active, n], [row[t]["log_prob"] for t in active], "log_prob")
    close(
        agent.policy.actions.to_env(buffer.action[active, n]),
        np.reshape([row[t]["env_action"] for t in active], (-1, *agent.action_space.shape)),
        "action",
    )
    # Where the episode was cut; a terminal state has no value, whatever stands here.
    cut = [t for t, step in enumerate(row) if step["truncated"] and not step["terminated"]]
    close(buffer.bootstrap[cut, n], [row[t]["bootstrap"] for t in cut], "bootstrap")
    for i, t in enumerate(buffer.state_at):
        for stored, state in zip(buffer.hidden, row[t]["state"].tensors, strict=False):
            close(stored[i, n], state[:, 0], f"state before step {t}")
    advantage = returns_by_hand(
        row, last_value, config.gamma, config.gae_lambda, config.reward_scale
    )
    close(buffer.advantage[active, n], advantage, "advantage")
    value = buffer.value[active, n].numpy()
    close(buffer.returns[active, n], np.asarray(advantage) + value, "returns")


# --- any agent on any environment -------------------------------------------------------------

ACTIONS: list[dict[str, Any]] = [
    {"action": "discrete"},
    {"action": "discrete", "masked": True},
    {"action": "box"},
    {"action": "box", "squash_output": True},
]


@dataclass(frozen=True)
class Case:
    """Environments and an agent, drawn evenly from all that there is."""

    scripts: list[str]
    mode: AutoresetMode
    copy: bool
    environment: dict[str, Any]
    agent: dict[str, Any]

    @classmethod
    def draw(cls, seed: int) -> "Case":
        rng = np.random.default_rng(seed)

        def one_of(*choices: Any) -> Any:
            return choices[rng.integers(len(choices))]

        def script() -> str:
            episodes = range(rng.integers(1, 4))
            return " ".join(f"{rng.integers(1, 10)}{one_of(*'tlb')}" for _ in episodes)

        environment = {"observation": one_of("box", "discrete"), **one_of(*ACTIONS)}
        longest = int(rng.integers(1, 7))
        flags = ("share_encoders", "previous_action", "previous_reward", "normalize_obs")
        return cls(
            scripts=[script() for _ in range(rng.integers(1, 4))],
            mode=one_of(SAME, NEXT, DISABLED),
            copy=one_of(True, False),
            agent={
                "squash_output": environment.pop("squash_output", False),
                "cell": one_of("lstm", "gru", "mingru", "lru"),
                "recurrent": one_of(True, True, True, False),
                "num_layers": one_of(1, 2),
                "hidden_size": one_of((), (4,)),
                "max_seq_len": longest,
                "burn_in": int(rng.integers(longest)),
                "learn_step": int(rng.integers(1, 14)),
                "reward_scale": one_of(1.0, 0.5),
                "refresh_hidden_state": one_of(True, False),
                **{flag: one_of(True, False) for flag in flags},
            },
            environment=environment,
        )


# Few of what the profile would draw, as each case trains an agent for three rollouts.
@settings(max_examples=examples(20))
@given(case=st.builds(Case.draw, st.integers(0, 2**32)))
def test_rollout_equals_a_plain_loop_and_what_the_learner_sees(case: Case) -> None:
    env = scripted(case.scripts, case.mode, copy=case.copy, **case.environment)
    agent = fix_noise(make_agent(env, **case.agent))
    steps = agent.config.learn_step
    hands = [
        ByHand(agent, Scripted(script, i, **case.environment), case.mode == NEXT)
        for i, script in enumerate(case.scripts)
    ]
    for _ in range(3):  # later rollouts begin within episodes, with states of older weights
        stats = collect_rollouts_recurrent(agent, env)
        rows = [hand.rollout(steps) for hand in hands]
        for n, (row, last_value) in enumerate(rows):
            assert_row(agent, n, row, last_value)
        ended = [step for row, _ in rows for step in row if step["terminated"] or step["truncated"]]
        assert len(stats.returns) == len(stats.lengths) == len(ended)
        assert stats.steps == steps * len(hands)
        assert_ratio_one(agent)
        agent.learn()


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
@pytest.mark.parametrize(
    ("script", "steps"),
    [
        ("4l", 4),  # cut in the last step of the rollout
        ("4b", 4),  # a terminal state reached in the very step of the limit
        ("4t", 4),
        ("3l", 4),  # under NEXT_STEP the rollout ends on the step that only resets
        ("1l 1t 1b", 7),  # no episode has a second step
        ("200t", 3),  # neither begins nor ends here
    ],
)
def test_ends_at_the_rollouts_edges(mode: AutoresetMode, script: str, steps: int) -> None:
    env = scripted([script, "5t"], mode)
    agent = fix_noise(make_agent(env, previous_action=True, previous_reward=True))
    hands = [ByHand(agent, Scripted(s, i), mode == NEXT) for i, s in enumerate([script, "5t"])]
    for _ in range(2):
        collect_rollouts_recurrent(agent, env, steps)
        for n, hand in enumerate(hands):
            assert_row(agent, n, *hand.rollout(steps))
        assert_ratio_one(agent)
        agent.learn()


def test_longer_than_a_block() -> None:
    env = scripted(["31t 7l", "50l"], NEXT)
    agent = fix_noise(make_agent(env, max_seq_len=16, previous_action=True))
    collect_rollouts_recurrent(agent, env, 2 * BLOCK + 3)
    for n, script in enumerate(["31t 7l", "50l"]):
        hand = ByHand(agent, Scripted(script, n), True)
        assert_row(agent, n, *hand.rollout(2 * BLOCK + 3))
    assert_ratio_one(agent)


@pytest.mark.parametrize("mode", [SAME, NEXT])
@pytest.mark.parametrize("options", [{}, {"action": "discrete", "masked": True}, {"action": "box"}])
def test_async_equals_sync(mode: AutoresetMode, options: dict[str, Any]) -> None:
    ours, theirs = (
        scripted(["3t 5l", "7b", "2l"], mode, kind, observation="discrete", **options)
        for kind in (SyncVectorEnv, AsyncVectorEnv)
    )
    try:
        agents = [make_agent(env, previous_reward=True) for env in (ours, theirs)]
        for _ in range(3):
            for agent, env in zip(agents, (ours, theirs), strict=True):
                collect_rollouts_recurrent(agent, env)
                assert_ratio_one(agent)
            assert_same_rollout(rollout(agents[0]), rollout(agents[1]))
            for agent in agents:
                agent.learn()
        assert_same_weights(weights(agents[0]), weights(agents[1]))
    finally:
        theirs.close()


# --- returns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [SAME, NEXT])
@pytest.mark.parametrize("end", ["t", "l", "b"])
def test_last_reward_reaches_earlier_steps(mode: AutoresetMode, end: str) -> None:
    def collected(bonus: float) -> SequenceRolloutBuffer:
        env = gym.wrappers.vector.TransformReward(
            scripted([f"5{end}"], mode), lambda r: r + bonus * np.isclose(r, rewards[4])
        )
        agent = make_agent(env, gamma=0.9, gae_lambda=0.8)
        collect_rollouts_recurrent(agent, env, 5)
        prepare(agent)
        assert agent.buffer is not None
        return agent.buffer

    rewards = np.full(5, np.nan)
    rewards = collected(0).reward[:, 0].numpy().copy()
    gain = collected(7).returns[:, 0] - collected(0).returns[:, 0]
    close(gain, [7 * (0.9 * 0.8) ** (4 - t) for t in range(5)])


def test_autoreset_modes_give_the_same_data_for_the_same_episodes() -> None:
    scripts, seen = ["3t 5l 2b", "7l 1t", "30t"], {}
    for mode in (SAME, NEXT, DISABLED):
        env = scripted(scripts, mode, observation="box", action="box")
        agent = fix_noise(make_agent(env, previous_action=True, previous_reward=True))
        collect_rollouts_recurrent(agent, env, 17)
        prepare(agent)
        seen[mode] = agent.buffer
    assert not seen[NEXT].active.all()
    assert seen[SAME].active.all()
    for n in range(3):
        active = seen[NEXT].active[:, n]
        count = int(active.sum())
        # Up to its last end; what comes after depends on where the rollout was cut.
        ended = (seen[NEXT].terminated | seen[NEXT].truncated)[active, n].nonzero()
        whole = int(ended[-1]) + 1 if len(ended) else 0
        assert n == 2 or whole >= 7
        for mode in (SAME, DISABLED):
            for name in ("obs", "start", "action", "value", "log_prob", "reward", "bootstrap"):
                ours, theirs = (getattr(seen[m], name) for m in (NEXT, mode))
                if name == "bootstrap":  # NEXT_STEP has a value at every end; a terminal one is 0
                    ours, theirs = (
                        x * ~seen[m].terminated for x, m in ((ours, NEXT), (theirs, mode))
                    )
                close(ours[active, n], theirs[:count, n], name)
            for name in ("advantage", "returns"):
                ours, theirs = (getattr(seen[m], name) for m in (NEXT, mode))
                close(ours[active, n][:whole], theirs[:whole, n], name)


@pytest.mark.parametrize("mode", [SAME, NEXT])
def test_rewards_are_divided_by_the_deviation_of_discounted_returns(mode: AutoresetMode) -> None:
    # The second environment ends in the last step of a rollout, too: nothing is carried over that.
    env = scripted(["3t 5l", "4b 6t", "40t"], mode)
    agent = make_agent(env, normalize_reward=True, gamma=0.9, gae_lambda=0.8, reward_scale=0.3)
    totals, running = [], [0.0] * 3
    for _ in range(3):
        collect_rollouts_recurrent(agent, env)
        prepare(agent)
        buffer = agent.buffer
        assert buffer is not None
        for t in range(buffer.steps):
            for n in range(3):
                if not buffer.active[t, n]:
                    continue
                running[n] = 0.9 * running[n] + float(buffer.reward[t, n])
                totals.append(running[n])
                if buffer.terminated[t, n] or buffer.truncated[t, n]:
                    running[n] = 0.0
        assert agent.trainer.reward_norm is not None
        deviation = np.std(totals)
        close(1 / float(agent.trainer.reward_norm.scale), deviation)
        # The environment's own rewards stay in the buffer; the returns are of the scaled ones.
        ends = (buffer.terminated & ~buffer.truncated).nonzero().tolist()
        assert ends
        for t, n in ends:
            expected = float(buffer.reward[t, n]) * 0.3 / deviation - float(buffer.value[t, n])
            close(buffer.advantage[t, n], expected)
        agent.learn()


# --- steps that only reset, and other rows ----------------------------------------------------


def junk_steps(buffer: SequenceRolloutBuffer) -> Tensor:
    """Steps behind an episode's end, [T, N]."""
    ended = buffer.terminated | buffer.truncated
    return torch.cat((torch.zeros_like(ended[:1]), ended[:-1]))


def test_step_that_only_resets_is_seen_but_not_trained_on() -> None:
    env = scripted(["3t 5l", "4l", "30t"], NEXT)
    agent = make_agent(env, learn_step=17)
    collect_rollouts_recurrent(agent, env)
    buffer = agent.buffer
    assert buffer is not None
    junk = junk_steps(buffer)
    assert junk.sum(0).tolist() == [3, 3, 0]
    assert torch.equal(buffer.active, ~junk)
    first = torch.ones(1, 3, dtype=torch.bool)
    assert torch.equal(buffer.start, torch.cat((first, junk[:-1])))
    assert torch.equal(replay(agent.policy, buffer)[0].isnan(), junk)
    cuts = buffer.sequences()
    assert int(cuts.active.sum()) == int((~junk).sum())
    cut = buffer.truncated
    close(buffer.bootstrap[cut], torch.roll(buffer.value, -1, 0)[cut])


def test_garbage_in_steps_that_only_reset_changes_nothing() -> None:
    env = scripted(["3t 5l", "4l", "30t"], NEXT, masked=True)
    agent = make_agent(env, previous_action=True, burn_in=2, refresh_hidden_state=True)
    collect_rollouts_recurrent(agent, env)
    spoilt = copy.deepcopy(agent)
    for each in (agent, spoilt):
        prepare(each)
    buffer = spoilt.buffer
    assert buffer is not None
    last_value = buffer.last_value  # not of a step
    junk = junk_steps(buffer)
    assert junk.sum() == 4
    for field in vars(buffer).values():
        if isinstance(field, Tensor) and field.is_floating_point() and field is not last_value:
            field[junk] = torch.nan
    assert buffer.action_mask is not None
    buffer.action[junk], buffer.action_mask[junk] = 2**40, False
    assert agent.learn() == spoilt.learn()
    assert_same_weights(weights(agent), weights(spoilt))


def test_nonsense_from_a_resetting_environment_changes_nothing() -> None:
    options = {"previous_reward": True, "normalize_reward": True, "normalize_obs": True}
    results = []
    for wrap in (GarbageAtReset, lambda env: env):
        env = wrap(scripted(["3t 5l", "4l", "1b 2t"], NEXT))
        agent = make_agent(env, **options)
        stats = []
        for _ in range(3):
            stats.append(collect_rollouts_recurrent(agent, env))
            agent.learn()
        results.append((rollout(agent), weights(agent), stats))
    (ours, our_weights, our_stats), (theirs, their_weights, their_stats) = results
    assert_same_rollout(ours, theirs)
    assert_same_weights(our_weights, their_weights)
    assert our_stats == their_stats


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
@pytest.mark.parametrize("end", ["t", "l"])
def test_one_environments_end_leaves_the_others_alone(mode: AutoresetMode, end: str) -> None:
    seen = []
    for script in (f"3{end} 2{end}", "40t"):
        env = scripted(["20t", script, "20l"], mode, masked=True)
        agent = make_agent(env, previous_action=True, previous_reward=True, num_layers=2)
        collect_rollouts_recurrent(agent, env, 9)
        assert agent.collection.carries is not None
        carried = agent.collection.carries[0].state.tensors
        rows = {name: x[..., [0, 2], :] for name, x in zip("hcp", carried, strict=True)}
        for name, field in rollout(agent).items():
            rows[name] = field[:, [0, 2]]
        seen.append(rows | {"returns": agent.buffer.returns[:, [0, 2]]})  # type: ignore
        assert bool(agent.buffer.terminated.any() | agent.buffer.truncated.any()) == (  # type: ignore
            script != "40t"
        )
    assert_same_rollout(*seen)


# --- continuing and starting afresh -----------------------------------------------------------


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
@pytest.mark.parametrize("parts", [(5, 7), (1, 1, 10), (4, 4, 4), (3, 9)])
def test_calls_in_pieces_equal_one_call(mode: AutoresetMode, parts: tuple[int, ...]) -> None:
    scripts = ["3t 5l", "4l", "30t", "1b 2t"]  # so that cuts fall on ends, resets and in between
    options: dict[str, Any] = {"previous_action": True, "previous_reward": True, "max_seq_len": 1}

    def collected(parts: tuple[int, ...]) -> tuple[dict[str, Tensor], list[Any]]:
        env = scripted(scripts, mode, action="box")
        agent = fix_noise(make_agent(env, **options))
        pieces, returns, lengths = [], [], []
        for steps in parts:
            stats = collect_rollouts_recurrent(agent, env, steps)
            pieces.append(rollout(agent))
            returns += stats.returns
            lengths += stats.lengths
        # What depends on where a rollout ends is not compared.
        names = pieces[0].keys() - {"advantage", "returns", "last_value"}
        return {k: torch.cat([p[k] for p in pieces]) for k in names}, [returns, lengths]

    whole, ends = collected((12,))
    ours, our_ends = collected(parts)
    for name, field in whole.items():
        close(ours[name], field, name)
    close(our_ends[0], ends[0])
    assert our_ends[1] == ends[1]
    assert 5 in ends[1]


def test_episode_returns_and_lengths_across_calls() -> None:
    env = scripted(["3t 5l", "7b"], NEXT)
    agent = make_agent(env)
    rewards, lengths, returns = [], [], []
    for _ in range(4):
        stats = collect_rollouts_recurrent(agent, env, 5)
        assert agent.buffer is not None
        rewards.append(agent.buffer.reward.clone())
        assert stats.steps == 10
        if stats.returns:
            assert stats.mean_return == pytest.approx(np.mean(stats.returns))
        returns += stats.returns
        lengths += stats.lengths
    reward = torch.cat(rewards)
    # Row 0 ends after steps 3, 9, 13, 19 and row 1 after 7, 15 (a reset takes a step too).
    assert lengths == [3, 7, 5, 3, 7, 5]
    spans = [(0, 0, 3), (1, 0, 7), (0, 4, 9), (0, 10, 13), (1, 8, 15), (0, 14, 19)]
    close(returns, [reward[begin:end, n].sum() for n, begin, end in spans])


def test_no_episode_ended() -> None:
    env = scripted(["30t"])
    stats = collect_rollouts_recurrent(make_agent(env), env, 5)
    assert (stats.returns, stats.lengths) == ([], [])
    assert np.isnan(stats.mean_return)


def starts_afresh(agent: PPO, env: Any, **options: Any) -> bool:
    """Collect; tell whether all rows started afresh or all went on (their episodes are long)."""
    collect_rollouts_recurrent(agent, env, 5, **options)
    assert agent.buffer is not None
    start = agent.buffer.start
    assert not start[1:].any()
    assert start[0].all() or not start[0].any()
    fresh = bool(start[0].all())
    if fresh:
        assert all(bool((h[0] == 0).all()) for h in agent.buffer.hidden)
    return fresh


def long_episodes() -> Any:
    return scripted(["300t", "400t"])


def test_goes_on_where_it_stopped() -> None:
    env = long_episodes()
    agent = make_agent(env)
    assert [starts_afresh(agent, env) for _ in range(3)] == [True, False, False]
    agent.learn()
    assert not starts_afresh(agent, env)
    assert [e.time for e in env.envs] == [20, 20]


def test_reset_starts_afresh() -> None:
    env = long_episodes()
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    assert starts_afresh(agent, env, reset=True)
    assert [e.time for e in env.envs] == [5, 5]
    assert not starts_afresh(agent, env, reset=False)


def test_another_environment_starts_afresh() -> None:
    first, second = long_episodes(), long_episodes()
    agent = make_agent(first)
    assert starts_afresh(agent, first)
    assert starts_afresh(agent, second)
    assert starts_afresh(agent, first)
    assert not starts_afresh(agent, first)


def test_environment_of_another_size_starts_afresh() -> None:
    env = scripted(["300t"] * 3)
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    assert starts_afresh(agent, long_episodes())


def test_another_agents_use_of_the_environment_starts_afresh() -> None:
    env = long_episodes()
    ours, theirs = make_agent(env), make_agent(env)
    assert starts_afresh(ours, env)
    assert starts_afresh(theirs, env)
    assert starts_afresh(ours, env)
    assert not starts_afresh(ours, env)


def test_a_test_in_between_starts_afresh() -> None:
    env, other = long_episodes(), long_episodes()
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    agent.test(other, max_steps=3, loop=1)
    assert not starts_afresh(agent, env)
    agent.test(env, max_steps=3, loop=1)
    assert starts_afresh(agent, env)


def test_a_test_in_a_single_environment_of_the_vector_starts_afresh() -> None:
    env = long_episodes()
    agent = make_agent(env)
    for single in (env.envs[1], gym.wrappers.TimeLimit(env.envs[0], 9)):
        assert starts_afresh(agent, env)
        assert not starts_afresh(agent, env)
        agent.test(single, max_steps=3, loop=1)
        assert starts_afresh(agent, env)
        assert not starts_afresh(agent, env)
        agent.collection.forget()


def test_a_test_through_a_wrapper_starts_afresh() -> None:
    env = long_episodes()
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    agent.test(gym.wrappers.vector.RecordEpisodeStatistics(env), max_steps=3, loop=1)
    assert starts_afresh(agent, env)


def test_another_agents_use_of_one_environment_or_of_a_wrapper_starts_afresh() -> None:
    env = long_episodes()
    ours, theirs = make_agent(env), make_agent(env)
    member = SyncVectorEnv([lambda: env.envs[1]], autoreset_mode=SAME)
    for used in (member, gym.wrappers.vector.RecordEpisodeStatistics(env)):
        assert starts_afresh(ours, env)
        assert not starts_afresh(ours, env)
        assert starts_afresh(theirs, used)
        assert starts_afresh(ours, env)
        ours.collection.forget()


def test_goes_on_through_a_wrapper() -> None:
    env = long_episodes()
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    wrapped = gym.wrappers.vector.TransformReward(env, lambda reward: reward / 2)
    assert not starts_afresh(agent, wrapped)
    assert not starts_afresh(agent, env)
    assert [e.time for e in env.envs] == [15, 15]


@pytest.mark.parametrize("mode", AutoresetMode)
def test_another_vector_of_the_same_environments_starts_afresh(mode: AutoresetMode) -> None:
    """It does not know which of them the first was about to reset (NEXT_STEP)."""
    env = scripted(["5t", "3t"], mode)  # the first one ends with the rollout's last step
    agent = make_agent(env, learn_step=5)
    collect_rollouts_recurrent(agent, env)
    again = SyncVectorEnv([lambda i=i: env.envs[i] for i in range(2)], autoreset_mode=mode)
    for each in (again, env):
        collect_rollouts_recurrent(agent, each)
        assert agent.buffer is not None
        assert agent.buffer.start[0].all()
        assert_ratio_one(agent)


@pytest.mark.parametrize("order", [[1, 0], [0], [1], [0, 1, 2]], ids=str)
def test_a_vector_of_some_of_the_environments_starts_afresh(order: list[int]) -> None:
    env, other = long_episodes(), scripted(["300t"])
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    singles = [*env.envs, *other.envs]
    some = SyncVectorEnv([lambda i=i: singles[i] for i in order], autoreset_mode=SAME)
    assert starts_afresh(agent, some)
    assert starts_afresh(agent, env)


def test_other_processes_are_told_apart_by_their_vector() -> None:
    envs = [scripted(["300t"] * 2, kind=AsyncVectorEnv) for _ in range(2)]
    try:
        agent = make_agent(envs[0])
        assert [starts_afresh(agent, envs[0]) for _ in range(2)] == [True, False]
        agent.test(envs[1], max_steps=2, loop=1)
        assert not starts_afresh(agent, envs[0])
        agent.test(envs[0], max_steps=2, loop=1)
        assert starts_afresh(agent, envs[0])
    finally:
        for env in envs:
            env.close()


def test_copies_start_afresh() -> None:
    env = long_episodes()
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    assert starts_afresh(agent, copy.deepcopy(env))
    assert starts_afresh(agent, env)
    assert starts_afresh(copy.deepcopy(agent), env)
    assert starts_afresh(agent, env)


def test_a_clone_starts_afresh_and_so_does_the_original_then() -> None:
    env = long_episodes()
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    assert starts_afresh(agent.clone(), env)
    assert starts_afresh(agent, env)


def test_number_of_steps_may_change() -> None:
    env = long_episodes()
    agent = make_agent(env)
    for steps in (5, 9, 2):
        collect_rollouts_recurrent(agent, env, steps)
        assert_ratio_one(agent)
        assert agent.buffer is not None
        assert agent.buffer.steps == steps
    assert [e.time for e in env.envs] == [16, 16]
    collect_rollouts_recurrent(agent, env)
    assert agent.buffer.steps == agent.config.learn_step
    assert agent.env_steps == 2 * 26


def test_nothing_to_go_on_from() -> None:
    env = long_episodes()
    agent = make_agent(env)
    with pytest.raises(ValueError, match=r"^reset=False: .* agent has nothing; leave reset out"):
        collect_rollouts_recurrent(agent, env, reset=False)
    collect_rollouts_recurrent(agent, env)
    with pytest.raises(ValueError, match=r"on 3 environments .* has 2 environments"):
        collect_rollouts_recurrent(agent, scripted(["300t"] * 3), reset=False)
    assert not starts_afresh(agent, env)  # nothing was lost


def test_each_fresh_start_seeds_differently_and_reproducibly() -> None:
    env = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    firsts = []
    for _ in range(2):
        agent = make_agent(env, seed=3)
        for _ in range(2):
            collect_rollouts_recurrent(agent, env, 1, reset=True)
            assert agent.buffer is not None
            firsts.append(agent.buffer.obs[0].clone())
    assert torch.equal(torch.stack(firsts[:2]), torch.stack(firsts[2:]))
    assert not torch.equal(firsts[0], firsts[1])


def test_one_function_has_two_names() -> None:
    assert collect_rollouts is collect_rollouts_recurrent


# --- action masks -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [SAME, NEXT, DISABLED])
def test_masks_are_obeyed_stored_and_learned_with(mode: AutoresetMode) -> None:
    env = scripted(["3t 5l", "4b"], mode, masked=True)
    agent = make_agent(env, learn_step=40)
    collect_rollouts_recurrent(agent, env)
    buffer = agent.buffer
    assert buffer is not None
    assert buffer.action_mask is not None
    allowed = buffer.action_mask.gather(-1, buffer.action[..., None])[..., 0]
    assert allowed[buffer.active].all()
    assert not buffer.action_mask[buffer.active].all()  # there was something to obey
    for n, single in enumerate(env.envs):
        sent = [int(a) - 1 for a in single.received]  # Discrete(3, start=1)
        assert sent == buffer.action[buffer.active[:, n], n].tolist()
    assert_ratio_one(agent)


def test_masks_of_taxi() -> None:
    # int8 masks from a real environment; a full mask would let an agent bump into walls.
    env = gym.make_vec("Taxi-v4", 3, vectorization_mode="sync", max_episode_steps=9)
    agent = make_agent(env, learn_step=25)
    for _ in range(2):
        stats = collect_rollouts_recurrent(agent, env)
        assert set(stats.lengths) == {9}
        buffer = agent.buffer
        assert buffer is not None
        assert buffer.action_mask is not None
        assert 1 <= buffer.action_mask.sum(-1).min() < 6
        assert buffer.action_mask.gather(-1, buffer.action[..., None])[..., 0][buffer.active].all()
        assert_ratio_one(agent)
        agent.learn()


class MaskFault(gym.vector.VectorWrapper):
    """Replaces the mask of the third step."""

    def __init__(self, env: Any, mask: Any) -> None:
        super().__init__(env)
        self.steps, self.mask = 0, mask

    def step(self, actions: Any) -> Any:
        *rest, info = self.env.step(actions)
        self.steps += 1
        if self.steps == 3:
            info["action_mask"] = self.mask
        return *rest, info


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, r"expected one at every step, as before, got none at step 3"),
        (np.ones((2, 4)), r"expected shape \[N, n\] = \[2, 3\] for Discrete.*, got shape \[2, 4\]"),
        (
            np.array([[1, 0, 0], [0, 0, 0]]),
            r"at least one allowed action, got none from environment 1 at step 3",
        ),
    ],
    ids=["missing", "shape", "nothing"],
)
def test_bad_mask(mask: Any, message: str) -> None:
    env = MaskFault(scripted(["300t", "300t"], masked=True), mask)
    agent = make_agent(env)
    with pytest.raises(ValueError, match=r"^action_mask: .*" + message):
        collect_rollouts_recurrent(agent, env)
    assert starts_afresh(agent, env)


def test_mask_that_reset_did_not_have() -> None:
    """The first mask of all may come at any time; before it, everything was allowed."""
    env = LateMask(long_episodes())
    agent = make_agent(env)
    collect_rollouts_recurrent(agent, env)
    buffer = agent.buffer
    assert buffer is not None
    assert buffer.action_mask is not None
    assert buffer.action_mask[:3].all()
    assert not buffer.action_mask[3:, :, 1:].any()
    assert (buffer.action[3:] == 0).all()
    assert_ratio_one(agent)
    agent.learn()


class LateMask(MaskFault):
    """From the third step on only the first action is allowed."""

    def __init__(self, env: Any) -> None:
        super().__init__(env, None)

    def step(self, actions: Any) -> Any:
        *rest, info = super().step(actions)
        if self.steps >= 3:
            info["action_mask"] = np.array([[1, 0, 0]] * 2)
        return *rest, info


# --- bad data ---------------------------------------------------------------------------------

NORMALIZED = {"normalize_obs": True, "normalize_reward": True}


def assert_discarded(agent: PPO, env: Any, message: str) -> None:
    """Collection fails with the message, nothing has changed, and the next one works."""
    prepare(agent)  # what an earlier rollout did to the statistics is none of this one's doing
    before, steps = weights(agent), agent.env_steps
    with pytest.raises(ValueError, match=message) as error:
        collect_rollouts_recurrent(agent, env)
    assert "discarded" in str(error.value)
    assert_same_weights(before, weights(agent))
    assert agent.env_steps == steps
    with pytest.raises(RuntimeError, match=r"^learn: expected a rollout"):
        agent.learn()
    assert_same_weights(before, weights(agent))
    assert starts_afresh(agent, env)
    agent.learn()


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_observation(kind: Any, value: float) -> None:
    # The first rollout has 10 steps, so the 15th observation is number 5 of the second.
    env = scripted(["300t"] * 3, kind=kind, poisons={1: {15: value}})
    try:
        agent = make_agent(env, **NORMALIZED)
        collect_rollouts_recurrent(agent, env)
        agent.learn()
        assert_discarded(
            agent, env, rf"^observation: .*got \[{value}, .*\] from environment 1 at step 5 "
        )
    finally:
        env.close()


def test_bad_observation_behind_the_last_step() -> None:
    env = scripted(["300t"] * 3, poisons={2: {10: np.nan}})
    assert_discarded(make_agent(env), env, r"^observation: .* environment 2 at step 10 ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("options", [{}, NORMALIZED])
def test_bad_final_observation(value: float, options: dict[str, Any]) -> None:
    # With a single feature its value may well be finite: the gates of an LSTM saturate, and
    # normalisation clips.
    scripts = ["300t", "6l 300t"]
    env = scripted(scripts, observation="narrow", poisons={1: {6: value}})
    agent = make_agent(env, **options)
    assert_discarded(
        agent, env, rf"^final observation: .*got \[{value}\] from environment 1 at step 5 "
    )
    env = scripted(scripts, NEXT, observation="narrow", poisons={1: {6: value}})
    assert_discarded(
        make_agent(env, **options),
        env,
        rf"^observation: .*\[{value}\] from environment 1 at step 6 ",
    )


@pytest.mark.parametrize("mode", [SAME, NEXT])
@pytest.mark.parametrize("options", [{}, NORMALIZED, {"previous_reward": True}])
def test_bad_reward(mode: AutoresetMode, options: dict[str, Any]) -> None:
    env = scripted(["300t"] * 3, mode, poisons={1: {18: NAN_REWARD}})
    agent = make_agent(env, **options)
    collect_rollouts_recurrent(agent, env)  # and is lost as well, being not learned from in time
    # Where the policy sees rewards, its values are lost as well; the reward is named even so.
    assert_discarded(agent, env, r"^reward: .*got nan from environment 1 at step 7 ")


def test_bad_first_observation() -> None:
    env = long_episodes()
    agent = make_agent(env)
    collect_rollouts_recurrent(agent, env)
    agent.learn()
    # As a reset of environment 1 gives it, over and over until it is repaired.
    env.envs[1].clock, env.envs[1].poison = 0, {0: np.nan}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^observation: .* in row 1"):
            collect_rollouts_recurrent(agent, env, reset=True)
    env.envs[1].poison.clear()
    # The environment was reset: there is nothing to go on from any more.
    assert starts_afresh(agent, env)


def test_environment_that_fails_on_the_action_of_its_own_bad_observation() -> None:
    class Strict(Scripted):
        def step(self, action: Any) -> Any:
            assert np.isfinite(action).all(), "bad action"
            return super().step(action)

    env = SyncVectorEnv([lambda: Strict("300t", action="box", poison={4: np.nan})] * 2)
    env.envs[0].poison = {}
    assert_discarded(make_agent(env), env, r"^observation: .*from environment 1 at step 4 ")


@pytest.mark.parametrize("where", ["reset", "step", "step of another's episode"])
def test_failed_collection_by_another_agent_starts_afresh(where: str) -> None:
    env = long_episodes()
    ours, theirs = make_agent(env), make_agent(env)
    collect_rollouts_recurrent(theirs, long_episodes())
    collect_rollouts_recurrent(ours, env)
    env.envs[1].clock = 0
    env.envs[1].poison = {0 if where == "reset" else 4: np.nan}
    with pytest.raises(ValueError, match=r"^observation: "):
        collect_rollouts_recurrent(theirs, env, reset="another" not in where)
    env.envs[1].poison = {}
    assert starts_afresh(ours, env)


def test_environment_that_fails() -> None:
    env = long_episodes()
    agent = make_agent(env)
    assert starts_afresh(agent, env)
    env.envs[1].script = [(0, "t")]
    env.envs[1].ended = True  # makes the next step fail
    before = weights(agent)
    with pytest.raises(AssertionError, match="stepped behind"):
        collect_rollouts_recurrent(agent, env)
    env.envs[1].script = [(300, "t")]
    assert_same_weights(before, weights(agent))
    assert starts_afresh(agent, env)


# --- environments that do not fit -------------------------------------------------------------


def test_plain_environment() -> None:
    env = gym.make("CartPole-v1")
    agent = PPO(env.observation_space, env.action_space)
    with pytest.raises(TypeError, match=r"^env: expected a .* vector environment.*make_vect_envs"):
        collect_rollouts_recurrent(agent, env)  # type: ignore[arg-type]


@pytest.mark.parametrize("metadata", [{}, None, {"autoreset_mode": "never"}])
def test_no_autoreset_mode(metadata: Any) -> None:
    env = long_episodes()
    env.metadata = metadata
    agent = make_agent(env)
    with pytest.raises(ValueError, match=r"autoreset_mode'\]: .* got .* SyncVectorEnv.*NEXT_STEP"):
        collect_rollouts_recurrent(agent, env)
    with pytest.raises(ValueError, match=r"autoreset_mode"):
        agent.test(env)


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("observation", Box(-1, 1, (4,))),
        ("observation", Box(-1, 1, (3, 1))),
        ("observation", Box(0, 9, (3,), np.int64)),
        ("observation", Discrete(3)),
        ("action", Discrete(4, start=1)),
        ("action", Discrete(3)),
        ("action", Box(-1, 1, (2,))),
    ],
    ids=str,
)
def test_other_spaces(name: str, space: Any) -> None:
    env = long_episodes()
    agent = make_agent(env)
    setattr(env, f"single_{name}_space", space)
    with pytest.raises(ValueError, match=f"^env: expected the agent's {name} space .*, got") as e:
        collect_rollouts_recurrent(agent, env)
    assert str(space) in str(e.value)
    with pytest.raises(ValueError, match=f"^env: expected the agent's {name} space"):
        agent.test(env)


def test_other_bounds() -> None:
    env = scripted(["300t"], action="box")
    agent = make_agent(env)
    # A wrapper may tighten the bounds of observations, but actions would mean something else.
    env.single_observation_space = Box(-5, 5, (3,))
    assert starts_afresh(agent, env)
    env.single_action_space = Box(-1, 1, (2,))
    with pytest.raises(ValueError, match=r"^env: expected the agent's action space"):
        collect_rollouts_recurrent(agent, env)


@pytest.mark.parametrize("n_steps", [0, -3])
def test_no_steps(n_steps: int) -> None:
    env = long_episodes()
    with pytest.raises(ValueError, match=f"^n_steps: expected at least 1, got {n_steps}"):
        collect_rollouts_recurrent(make_agent(env), env, n_steps)


# --- real environments ------------------------------------------------------------------------

needs_envpool = pytest.mark.skipif(
    importlib.util.find_spec("envpool") is None, reason="needs envpool"
)


def cartpole() -> Any:
    return gym.make_vec("CartPole-v1", 6, vectorization_mode="vector_entry_point")


def short_cartpole() -> Any:
    return gym.make_vec(
        "CartPole-v1", 6, vectorization_mode="vector_entry_point", max_episode_steps=12
    )


def pendulum() -> Any:
    return gym.make_vec("Pendulum-v1", 3, vectorization_mode="sync")


def envpool(env_id: str, **options: Any) -> Any:
    return pytest.importorskip("envpool").make_gymnasium(env_id, num_envs=5, seed=4, **options)


@pytest.fixture(
    params=[
        cartpole,
        short_cartpole,
        pendulum,
        pytest.param(lambda: envpool("CartPole-v1"), marks=needs_envpool),
        pytest.param(lambda: envpool("CartPole-v1", max_episode_steps=12), marks=needs_envpool),
        pytest.param(lambda: envpool("Pendulum-v1"), marks=needs_envpool),
    ],
    ids=[
        "cartpole",
        "short cartpole",
        "pendulum",
        "ep cartpole",
        "ep short cartpole",
        "ep pendulum",
    ],
)
def real(request: Any) -> Iterator[Any]:
    env = request.param()
    yield env
    env.close()


@pytest.mark.filterwarnings("ignore:EnvPool seeds are fixed:UserWarning")
def test_real_vector_environments(real: Any) -> None:
    agent = make_agent(
        real,
        learn_step=90,
        max_seq_len=16,
        batch_size=128,
        previous_action=True,
        previous_reward=True,
        normalize_obs=True,
        normalize_reward=True,
        burn_in=3,
    )
    ends = cuts = 0
    for i in range(3):
        stats = collect_rollouts_recurrent(agent, real)
        buffer = agent.buffer
        assert buffer is not None
        ends += len(stats.returns)
        cuts += int(buffer.truncated.sum())
        junk = junk_steps(buffer)
        fresh = torch.full((1, buffer.rows), i == 0)
        if i == 0:
            # All of them reset in the step after an end.
            assert torch.equal(buffer.active, ~junk)
            assert torch.equal(buffer.start, torch.cat((fresh, junk[:-1])))
        assert not buffer.start[buffer.terminated | buffer.truncated].any() or 1 in stats.lengths
        assert (buffer.reward[~buffer.active] == 0).all()
        cut = buffer.truncated[:-1] & ~buffer.terminated[:-1]
        close(buffer.bootstrap[:-1][cut], buffer.value[1:][cut])
        assert_ratio_one(agent)
        assert np.isfinite(agent.learn().policy_loss)
    assert ends > 0
    if agent.action_space != Discrete(2):
        assert cuts == ends  # Pendulum never terminates
    assert np.isfinite(agent.test(real, max_steps=20, loop=2))
    collect_rollouts_recurrent(agent, real, 5)
    assert agent.buffer is not None
    assert agent.buffer.start[0].all()


def test_noise_is_fresh_in_every_step_and_row() -> None:
    env = scripted(["300t"] * 3, action="box")
    agent = make_agent(env, recurrent=False)
    collect_rollouts_recurrent(agent, env, 2 * BLOCK + 3)
    buffer = agent.buffer
    assert buffer is not None
    state = agent.get_initial_hidden_state(3)
    mean = torch.stack(
        [agent.policy.act(obs, None, state, None).action for obs in buffer.obs]
    ).detach()
    noise = (buffer.action - mean) / agent.policy.action_head.distribution.log_std.detach().exp()
    assert noise.unique().numel() == noise.numel() == (2 * BLOCK + 3) * 3 * 2
    # Five standard deviations of the mean, and of the variance, of 786 standard normal numbers.
    assert abs(noise.mean()) < 5 * noise.numel() ** -0.5
    assert abs(noise.var() - 1) < 5 * (2 / noise.numel()) ** 0.5
