"""Tests of `recurrent_rl.acting.collect` with groups of agents: what rollouts hold."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo import AECEnv
from support.agents import (
    assert_ratio_one,
    assert_same_rollout,
    assert_same_weights,
    fix_noise,
    make_agent,
    make_team,
    prepare,
    rollout,
    team_weights,
    weights,
)
from support.envs import NAN_REWARD, Scripted, scripted
from support.multi_envs import (
    Episode,
    OneAgent,
    ScriptedParallel,
    TurnTaking,
    scripted_makers,
)
from support.pairs import examples
from torch import Tensor

from recurrent_rl import IPPO, SyncMultiAgentVectorEnv, collect_rollouts_recurrent
from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.algorithms.on_policy import OnPolicyTrainer
from recurrent_rl.algorithms.unroll import replay
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.recurrent.state import HiddenState


def close(ours: Any, theirs: Any, what: str = "") -> None:
    """Equal up to float32's rounding."""
    np.testing.assert_allclose(
        np.asarray(ours, np.float64), np.asarray(theirs, np.float64), 1e-4, 1e-5, err_msg=what
    )


def team_on(scripts: Sequence[Sequence[Episode]], only: Any = None, **options: Any) -> Any:
    """A vector of scripted environments."""
    return SyncMultiAgentVectorEnv(scripted_makers(scripts, only, **options))


def fixed(team: IPPO) -> IPPO:
    """The same noise in every step and row."""
    for group in team.groups:
        fix_noise(group)  # type: ignore[arg-type]
    return team


def trainers_of(team: IPPO) -> list[OnPolicyTrainer]:
    """The trainers of all groups, in their order."""
    return list(team.trainers.values())


def buffer_of(trainer: OnPolicyTrainer) -> SequenceRolloutBuffer:
    """A group's buffer, which is there."""
    assert trainer.buffer is not None
    return trainer.buffer


# --- reference --------------------------------------------------------------------------------


@dataclass
class Moment:
    """One step of one agent, as the buffer should have it."""

    exists: bool
    start: bool
    active: bool
    observation: Any
    mask: Any
    state: HiddenState
    extra: np.ndarray
    action: Any = None
    log_prob: float = np.nan
    value: float = np.nan
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    bootstrap: float = 0.0
    stored: Any = None


@dataclass
class Mind:
    """An agent between two steps."""

    trainer: OnPolicyTrainer
    state: HiddenState
    alive: bool = False
    reward: float = 0.0
    taken: int = 0
    total: float = 0.0
    latest: float = 0.0
    moments: list[Moment] = field(default_factory=list)
    # The last decision and what followed, if it was still open when the last rollout ended.
    earlier: list[Moment] = field(default_factory=list)
    held: bool = False  # and if the last decision of this one is


class TeamByHand:
    """The agents of one environment, each computed alone, from nothing but the script's numbers.

    ``played`` is the environment that was collected from; of it only the actions are taken that
    it received of agents that were shown nothing.
    """

    def __init__(self, team: IPPO, played: ScriptedParallel) -> None:
        self.team, self.env = team, played
        self.minds = {}
        for trainer in trainers_of(team):
            for agent in trainer.agents:
                self.minds[agent] = Mind(trainer, trainer.policy.initial_state(1))
        self.episode = self.time = 0
        self.ended: list[tuple[int, int, dict[str, float]]] = []

    def _at(self, table: Any, agent: str, step: int) -> Any:
        return next((k for k in ((agent, self.episode, step), (agent, step)) if k in table), None)

    def _life(self, agent: str) -> Any:
        lives = self.env.lives_of(agent, self.episode)
        return next((x for x in lives if x[0] <= self.time < x[1]), None)

    def _there(self, agent: str) -> bool:
        """Listed, or shown something since it came."""
        return self.minds[agent].alive or self._life(agent) is not None

    def _shown(self, agent: str, step: int) -> bool:
        return self._at(self.env.absent, agent, step) is None

    def _observation(self, agent: str, step: int) -> Any:
        value = self.env.observation_of(agent, self.episode, step)
        return value["observation"] if isinstance(value, dict) else value

    def _extra(self, agent: str) -> np.ndarray:
        mind = self.minds[agent]
        config, members = mind.trainer.config, mind.trainer.agents
        parts = [mind.state.tensors[-1][0, 0].numpy()] if config.previous_action else []
        parts += [np.array([mind.reward])] if config.previous_reward else []
        parts += [np.eye(len(members))[members.index(agent)]] if self.team.agent_id_input else []
        return np.concatenate([*parts, []])

    def _inputs(self, agent: str, observation: Any) -> Any:
        extra = torch.tensor(self._extra(agent), dtype=torch.float32)[None]
        dtype = self.minds[agent].trainer.policy.codec.dtype
        return torch.as_tensor(observation, dtype=dtype)[None], extra if extra.numel() else None

    def _value(self, agent: str, observation: Any) -> float:
        mind = self.minds[agent]
        x, extra = self._inputs(agent, observation)
        with torch.no_grad():
            return float(mind.trainer.policy.value(x, extra, mind.state))

    def _enter(self, agent: str) -> bool:
        """Whether a life begins with what is shown now."""
        mind = self.minds[agent]
        if mind.alive:
            return False
        mind.alive, mind.reward = True, 0.0
        mind.state = mind.trainer.policy.initial_state(1)
        return True

    def _act(self, agent: str) -> Moment:
        mind, env = self.minds[agent], self.env
        policy, life = mind.trainer.policy, self._life(agent)
        exists = life is not None and self._shown(agent, self.time)
        start = exists and self._enter(agent)
        key = self._at(env.defined, agent, self.time)
        forced = None if key is None or life is None else env.defined[key]
        mask = env.mask_of(agent, self.episode, self.time) if env.masks else None
        moment = Moment(
            exists,
            start,
            exists and forced is None,
            self._observation(agent, self.time) if exists else None,
            mask if exists else None,
            mind.state,
            self._extra(agent),
        )
        if life is not None:
            moment.action = env.received[agent][mind.taken]
            mind.taken += 1
        if not exists:
            return moment
        x, extra = self._inputs(agent, moment.observation)
        noise = torch.linspace(-1, 1, policy.action_head.distribution.outputs)[None]
        allowed = None if mask is None else torch.from_numpy(mask.astype(bool))[None]
        with torch.no_grad():
            acted = policy.act(x, extra, mind.state, noise, allowed)
            moment.value = mind.latest = float(policy.value_of(acted.critic_features))
            moment.stored = acted.action
            moment.log_prob = float(
                policy.action_head.distribution.log_prob(acted.dist_params, acted.action)
            )
            tensors = list(acted.state.tensors)
            if forced is None:
                close(policy.actions.to_env(acted.action)[0], moment.action, f"action of {agent}")
            elif mind.trainer.config.previous_action:
                stored = policy.actions.from_env(np.asarray(forced)[None])
                tensors[-1] = policy.actions.encode(stored)[None]
        mind.state = HiddenState(tensors, 1)
        return moment

    def step(self) -> None:
        """One step of everybody."""
        moments = {agent: self._act(agent) for agent in self.minds}
        own = {
            agent: 0.0
            if moment.action is None
            else self.env.reward_of(agent, self.episode, self.time + 1, moment.action)
            for agent, moment in moments.items()
        }
        together = sum(own.values())
        if self.team.team_reward == "mean":
            together /= max(sum(self._there(agent) for agent in self.minds), 1)
        for agent, moment in moments.items():
            mind = self.minds[agent]
            mind.total += own[agent]
            moment.reward = own[agent]
            if self.team.team_reward is not None:
                moment.reward = together if self._there(agent) else 0.0
            seen = moment.reward * mind.trainer.config.reward_scale
            mind.reward = seen if moment.exists else mind.reward + seen
            self._end(agent, moment)
            mind.moments.append(moment)
        self.time += 1
        lives = [x for agent in self.minds for x in self.env.lives_of(agent, self.episode)]
        if self.time == max(leave for _, leave, _ in lives):
            totals = {agent: mind.total for agent, mind in self.minds.items()}
            self.ended.append((len(mind.moments), self.time, totals))
            self.episode, self.time = self.episode + 1, 0
            for mind in self.minds.values():
                mind.total = 0.0

    def _end(self, agent: str, moment: Moment) -> None:
        mind, life = self.minds[agent], self._life(agent)
        if not mind.alive or life is None or life[1] != self.time + 1:
            return
        mind.alive = False
        moment.terminated, moment.truncated = life[2] in "tb", life[2] in "lb"
        if moment.truncated and not moment.terminated:
            last = self._observation(agent, life[1])
            shown = self._shown(agent, life[1])
            moment.bootstrap = self._value(agent, last) if shown else mind.latest

    def rollout(self, steps: int) -> tuple[dict[str, list[Moment]], dict[str, float]]:
        """T steps of everybody, and the values of what each sees next."""
        for mind in self.minds.values():
            mind.earlier = self._open(mind) if mind.held else []
            mind.moments, mind.latest = [], 0.0
            if mind.earlier:
                self._recall(mind)
        self.ended = []
        for _ in range(steps):
            self.step()
        for agent, mind in self.minds.items():
            mind.held = bool(self._open(mind)) and not self._asked(agent)
        values = {agent: self._next_value(agent) for agent in self.minds}
        return {agent: mind.moments for agent, mind in self.minds.items()}, values

    def _asked(self, agent: str) -> bool:
        """Whether the policy is to choose next."""
        there = self._life(agent) is not None and self._shown(agent, self.time)
        return there and self._at(self.env.defined, agent, self.time) is None

    def _open(self, mind: Mind) -> list[Moment]:
        """The last decision of a life that has not ended, and what has followed."""
        moments = [*mind.earlier, *mind.moments]
        for i in reversed(range(len(moments))):
            if moments[i].terminated or moments[i].truncated:
                break
            if moments[i].active:
                return moments[i:]
        return []

    def _recall(self, mind: Mind) -> None:
        """An earlier decision counts as the present policy's."""
        moment, policy = mind.earlier[0], mind.trainer.policy
        x = torch.as_tensor(moment.observation, dtype=policy.codec.dtype)[None]
        extra = torch.tensor(moment.extra, dtype=torch.float32)[None]
        allowed = None if moment.mask is None else torch.from_numpy(moment.mask.astype(bool))[None]
        with torch.no_grad():
            acted = policy.act(x, extra if extra.numel() else None, moment.state, None, allowed)
            moment.value = mind.latest = float(policy.value_of(acted.critic_features))
            distribution = policy.action_head.distribution
            moment.log_prob = float(distribution.log_prob(acted.dist_params, moment.stored))

    def _next_value(self, agent: str) -> float:
        mind = self.minds[agent]
        if self._life(agent) is None or not self._shown(agent, self.time):
            return np.nan  # whatever is still open waits for the next rollout
        before = mind.alive, mind.reward, mind.state
        self._enter(agent)
        value = self._value(agent, self._observation(agent, self.time))
        mind.alive, mind.reward, mind.state = before
        return value


def advantages_by_hand(
    row: list[Moment], last_value: float, config: PPOConfig, held: bool
) -> list[float]:
    """Of the active steps, by the definition: from each decision to the next of the same life.

    The last is 0 if it is ``held``: what follows it is not known yet.
    """
    by_steps, lam = config.discount_by == "step", config.gae_lambda
    active = [t for t, moment in enumerate(row) if moment.active]
    advantages: list[float] = []
    for t in reversed(active):
        if held and t == active[-1]:
            advantages.append(0.0)
            continue
        total, then, later = 0.0, None, 0.0
        for s in range(t, len(row)):
            total += config.gamma ** ((s - t) * by_steps) * row[s].reward * config.reward_scale
            following = config.gamma ** (s + 1 - t if by_steps else 1)
            if row[s].terminated or row[s].truncated:
                then = 0.0 if row[s].terminated else following * row[s].bootstrap
                break
            if s + 1 < len(row) and row[s + 1].active:
                then = following * row[s + 1].value
                later = following * lam * advantages[-1]
                break
        if then is None:
            then = following * last_value
        advantages.append(total + then - row[t].value + later)
    return advantages[::-1]


def assert_row(trainer: OnPolicyTrainer, n: int, mind: Mind, last_value: float) -> None:
    """Everything the buffer holds of row n is what was found by hand."""
    whole, config, row = buffer_of(trainer), trainer.config, mind.moments
    buffer, lead = whole.behind_lead(), whole.lead
    moments = [*mind.earlier, *row]
    decided = [t - len(mind.earlier) for t, moment in enumerate(moments) if moment.active]
    advantage = advantages_by_hand(moments, last_value, config, mind.held)
    active = [moment.active for moment in row]
    if mind.held:
        advantage.pop()
        last = decided.pop()
        if last >= 0:
            active[last] = False
    if mind.earlier:
        moment = mind.earlier[0]
        assert lead == 1
        assert bool(whole.exists[0, n])
        assert bool(whole.active[0, n]) == (decided[:1] == [-len(mind.earlier)])
        close(whole.value[0, n], moment.value, "value of the earlier decision")
        close(whole.log_prob[0, n], moment.log_prob, "log_prob of the earlier decision")
        close(whole.obs[0, n], moment.observation, "its observation")
        for stored, state in zip(whole.hidden, moment.state.tensors, strict=False):
            close(stored[0, n], state[:, 0], "state before the earlier decision")
        if decided[:1] == [-len(mind.earlier)]:
            close(whole.advantage[0, n], advantage[0], "advantage of the earlier decision")
            close(whole.returns[0, n], advantage[0] + moment.value, "its return")
            del advantage[0], decided[0]
    elif lead:
        assert not whole.exists[0, n]
    _assert_steps(trainer, buffer, n, row, active)
    close(whole.advantage[lead:][decided, n], advantage, "advantage")
    returns = np.add(advantage, [row[t].value for t in decided])
    close(whole.returns[lead:][decided, n], returns, "returns")


def _assert_steps(
    trainer: OnPolicyTrainer,
    buffer: SequenceRolloutBuffer,
    n: int,
    row: list[Moment],
    trained: list[bool],
) -> None:
    """What the buffer holds of row n's steps is what was found by hand."""
    assert buffer.active[:, n].tolist() == trained
    for name in ("exists", "start", "terminated", "truncated"):
        ours = getattr(buffer, name)[:, n].tolist()
        assert ours == [getattr(moment, name) for moment in row], name
    space = trainer.group.observation_space
    blank = np.full(space.shape or (), getattr(space, "start", 0))
    seen = [blank if moment.observation is None else moment.observation for moment in row]
    close(buffer.obs[:, n], seen, "observation")
    close(buffer.reward[:, n], [moment.reward for moment in row], "reward")
    there = [t for t, moment in enumerate(row) if moment.exists]
    close(buffer.value[there, n], [row[t].value for t in there], "value")
    sent = trainer.policy.actions.to_env(buffer.action[there, n])
    expected = [row[t].action for t in there]
    close(sent, np.reshape(expected, sent.shape), "action")
    assert (buffer.extra is None) == (row[0].extra.size == 0)
    if buffer.extra is not None:
        for t in there:
            close(buffer.extra[t, n], row[t].extra, f"extra inputs of step {t}")
    active = [t for t, moment in enumerate(row) if moment.active]
    close(buffer.log_prob[active, n], [row[t].log_prob for t in active], "log_prob")
    if any(moment.mask is not None for moment in row):
        assert buffer.action_mask is not None
        assert buffer.action_mask[there, n].tolist() == [(row[t].mask > 0).tolist() for t in there]
    cut = [t for t, moment in enumerate(row) if moment.truncated and not moment.terminated]
    close(buffer.bootstrap[cut, n], [row[t].bootstrap for t in cut], "bootstrap")
    for i, t in enumerate(buffer.state_at):
        for stored, state in zip(buffer.hidden, row[t].state.tensors, strict=False):
            close(stored[i, n], state[:, 0], f"state before step {t}")


class Played:
    """A team on scripted environments, and all of it by hand."""

    def __init__(self, team: IPPO, env: Any) -> None:
        self.team, self.env = fixed(team), env
        self.hands = [TeamByHand(team, single) for single in env.envs]

    def compare(self, steps: int) -> None:
        """Collect T steps and compare everything."""
        stats = collect_rollouts_recurrent(self.team, self.env, steps)
        prepare(self.team)
        assert stats.steps == steps * len(self.hands)
        for e, hand in enumerate(self.hands):
            _, last_values = hand.rollout(steps)
            for trainer in trainers_of(self.team):
                agents = trainer.agents
                for a, agent in enumerate(agents):
                    row = e * len(agents) + a
                    assert_row(trainer, row, hand.minds[agent], last_values[agent])
        for trainer in trainers_of(self.team):
            assert_ratio_one(trainer)
        self._compare_stats(stats)

    def _compare_stats(self, stats: Any) -> None:
        """Episodes are in the order of ending, and then of environments."""
        ended = [x for hand in self.hands for x in hand.ended]
        ended.sort(key=lambda end: end[0])  # stable
        assert stats.lengths == [length for _, length, _ in ended]
        assert set(stats.agent_returns) == set(self.team.agent_ids)
        for agent, returns in stats.agent_returns.items():
            close(returns, [totals[agent] for *_, totals in ended], agent)
        close(stats.returns, [sum(totals.values()) for *_, totals in ended], "team")


# --- any team in any environment --------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Environments and a team, drawn evenly from all that there is."""

    scripts: list[list[dict[str, Any]]]
    environment: dict[str, Any]
    team: dict[str, Any]

    @classmethod
    def draw(cls, seed: int) -> "Case":
        rng = np.random.default_rng(seed)

        def one_of(*choices: Any) -> Any:
            return choices[rng.integers(len(choices))]

        names = [f"bob_{i}" for i in range(rng.integers(1, 4))]
        names += [f"fred_{i}" for i in range(rng.integers(0, 3))]
        names = [str(name) for name in rng.permutation(names)]

        def lives() -> list[tuple[int, int, str]]:
            ends = np.sort(rng.choice(9, 2 * rng.integers(0, 3), replace=False)).tolist()
            return [(a, b, one_of(*"tlb")) for a, b in zip(ends[::2], ends[1::2], strict=True)]

        def episode() -> dict[str, Any]:
            while True:
                play = {name: lives() for name in names}
                try:
                    if any(play.values()):
                        ScriptedParallel([play])
                        return play
                except AssertionError:
                    pass

        def moments(share: float) -> list[tuple[str, int]]:
            return [(n, k) for n in names for k in range(9) if rng.random() < share]

        action = one_of("discrete", "many", "box")
        defined = {
            moment: one_of(1, 2) if action != "box" else np.float32([0.3, -1.2])
            for moment in moments(one_of(0, 0.2, 0.5))
        }
        groups = one_of(None, None, {"all": names}, {"last": names[-1:], "rest": names[:-1]})
        longest = int(rng.integers(1, 7))
        flags = (
            *("share_encoders", "previous_action", "previous_reward", "normalize_obs"),
            *("agent_id_input", "refresh_hidden_state"),
        )
        return cls(
            [[episode() for _ in range(rng.integers(1, 4))] for _ in range(rng.integers(1, 4))],
            {
                "observation": one_of("box", "matrix", "narrow", "discrete"),
                "action": action,
                "masks": None if action == "box" else one_of(None, "info", "observation"),
                "absent": set(moments(one_of(0, 0, 0.25))),
                "defined": defined,
                "reuse": one_of(True, False),
            },
            {
                "groups": groups if groups is None or all(groups.values()) else None,
                "team_reward": one_of(None, None, "sum", "mean"),
                "cell": one_of("lstm", "gru", "mingru", "lru"),
                "recurrent": one_of(True, True, True, False),
                "num_layers": one_of(1, 2),
                "hidden_size": one_of((), (4,)),
                "max_seq_len": longest,
                "burn_in": int(rng.integers(longest)),
                "learn_step": int(rng.integers(1, 14)),
                "reward_scale": one_of(1.0, 0.5),
                "discount_by": one_of("step", "decision"),
                **{flag: one_of(True, False) for flag in flags},
            },
        )


@settings(max_examples=examples(15))
@given(case=st.builds(Case.draw, st.integers(0, 2**32)))
def test_rollout_equals_each_agent_by_hand_and_what_the_learner_sees(case: Case) -> None:
    env = team_on(case.scripts, **case.environment)
    team = make_team(env, **case.team)
    played = Played(team, env)
    for _ in range(3):  # later rollouts begin within lives, with states of older weights
        played.compare(team.learn_step)
        for diagnostics in team.learn().values():
            numbers = diagnostics.to_dict()
            del numbers["explained_variance"]  # is none where nothing varies
            assert all(np.isfinite(x) for x in numbers.values())


# --- golden values ----------------------------------------------------------------------------

GAMMA, LAMBDA = 0.9, 0.8


def collected(team: IPPO, env: Any, steps: int | None = None) -> list[SequenceRolloutBuffer]:
    """The groups' buffers after a collection."""
    collect_rollouts_recurrent(team, env, steps)
    prepare(team)
    return [buffer_of(trainer) for trainer in trainers_of(team)]


def test_a_life_in_golden_values() -> None:
    """Enters late, is shown nothing once, is told what to do once, dies; lives again to a limit."""
    play = {"bob_0": [(0, 9, "l")], "bob_1": [(1, 6, "t"), (7, 9, "l")]}
    env = team_on([[play]], absent={("bob_1", 3)}, defined={("bob_1", 4): 3})
    team = make_team(env, gamma=GAMMA, gae_lambda=LAMBDA)
    (buffer,) = collected(team, env, 10)
    script = env.envs[0]

    def flags(name: str) -> str:
        return "".join(".x"[x] for x in getattr(buffer, name)[:, 1].tolist())

    assert flags("exists") == ".xx.xx.xx."
    assert flags("start") == ".x.....x.."
    assert flags("active") == ".xx..x.xx."
    assert flags("terminated") == ".....x...."
    assert flags("truncated") == "........x."
    sent = [1 + int(a) for a in buffer.action[:, 1]]
    assert script.received["bob_1"] == sent[1:6] + sent[7:9]
    assert sent[4] == 3
    r, v = buffer.reward[:, 1].tolist(), buffer.value[:, 1].tolist()
    assert (r[0], r[6], r[9]) == (0, 0, 0)
    close(r[1:6], [script.reward_of("bob_1", 0, t + 1, sent[t]) for t in range(1, 6)])
    blanks = buffer.obs[[0, 3, 6, 9], 1]
    assert torch.equal(blanks, torch.zeros(4, 3))
    close(buffer.obs[4, 1], script.observation_of("bob_1", 0, 4))
    # The second life: two decisions, then the value of the final observation.
    a8 = r[8] + GAMMA * float(buffer.bootstrap[8, 1]) - v[8]
    a7 = r[7] + GAMMA * v[8] - v[7] + GAMMA * LAMBDA * a8
    # The first: what steps 3 and 4 earned counts for the decision of step 2; lambda counts once.
    a5 = r[5] - v[5]
    d2 = r[2] + GAMMA * r[3] + GAMMA**2 * r[4] + GAMMA**3 * v[5] - v[2]
    a2 = d2 + GAMMA**3 * LAMBDA * a5
    a1 = r[1] + GAMMA * v[2] - v[1] + GAMMA * LAMBDA * a2
    close(buffer.advantage[:, 1], [0, a1, a2, 0, 0, a5, 0, a7, a8, 0])
    assert float(buffer.bootstrap[8, 1]) != 0


def test_rewards_after_the_last_own_decision_reach_it() -> None:
    """In a game of turns, the opponent's last move decides who wins."""
    env = SyncMultiAgentVectorEnv([lambda: TurnTaking("5t", players=3)])
    team = make_team(env, gamma=GAMMA, gae_lambda=LAMBDA)
    (buffer,) = collected(team, env, 5)
    assert buffer.active.nonzero().tolist() == [[0, 0], [1, 1], [2, 2], [3, 0], [4, 1]]
    assert torch.equal(buffer.active, buffer.exists)
    assert buffer.start.nonzero().tolist() == [[0, 0], [1, 1], [2, 2]]
    assert buffer.terminated.tolist() == [[False] * 3] * 4 + [[True] * 3]
    r, v = buffer.reward.tolist(), buffer.value.tolist()
    game = env.envs[0]
    moves = [1 + int(buffer.action[t, t % 3]) for t in range(5)]
    close(
        r,
        [[game.reward_of(f"player_{i}", 0, t + 1, moves[t]) for i in range(3)] for t in range(5)],
    )
    a3 = r[3][0] + GAMMA * r[4][0] - v[3][0]
    d0 = r[0][0] + GAMMA * r[1][0] + GAMMA**2 * r[2][0] + GAMMA**3 * v[3][0] - v[0][0]
    close(buffer.advantage[[0, 3], 0], [d0 + GAMMA**3 * LAMBDA * a3, a3])
    close(buffer.advantage[2, 2], r[2][2] + GAMMA * r[3][2] + GAMMA**2 * r[4][2] - v[2][2])


def test_turns_at_a_limit_end_in_the_values_of_final_observations() -> None:
    env = SyncMultiAgentVectorEnv([lambda: TurnTaking("4l", players=2, masks="observation")])
    team = make_team(env, gamma=GAMMA, gae_lambda=LAMBDA)
    (buffer,) = collected(team, env, 4)
    assert buffer.truncated.tolist() == [[False] * 2] * 3 + [[True] * 2]
    game, policy = env.envs[0], team.groups[0].policy
    assert buffer.action_mask is not None
    for t in range(4):
        mask = game.mask_of(f"player_{t % 2}", 0, t).astype(bool).tolist()
        assert buffer.action_mask[t, t % 2].tolist() == mask
    for i in range(2):
        state = policy.initial_state(1)
        for t in (i, i + 2):
            with torch.no_grad():
                state = policy.act(buffer.obs[t, [i]], None, state, None).state
        final = torch.from_numpy(game.observation_of(f"player_{i}", 0, 4))[None]
        close(buffer.bootstrap[3, i], policy.value(final, None, state).item())
    r, v, last = buffer.reward, buffer.value, buffer.bootstrap[3, 0]
    close(buffer.advantage[2, 0], r[2, 0] + GAMMA * r[3, 0] + GAMMA**2 * last - v[2, 0])
    assert_ratio_one(trainers_of(team)[0])


def test_truncated_without_a_final_observation_keeps_the_latest_value() -> None:
    play = {"bob_0": [(0, 5, "l")], "bob_1": [(0, 4, "l")], "bob_2": [(0, 4, "t")]}
    absent = {("bob_1", 3), ("bob_1", 4), ("bob_2", 4)}
    env = team_on([[play]], absent=absent)
    (buffer,) = collected(make_team(env, gamma=GAMMA, gae_lambda=LAMBDA), env, 5)
    assert buffer.truncated[:, 1].nonzero().tolist() == [[3]]
    assert float(buffer.bootstrap[3, 1]) == float(buffer.value[2, 1])
    r, v = buffer.reward[:, 1].tolist(), buffer.value[:, 1].tolist()
    close(buffer.advantage[2, 1], r[2] + GAMMA * r[3] + GAMMA**2 * v[2] - v[2])
    close(buffer.advantage[3, 2], buffer.reward[3, 2] - buffer.value[3, 2])  # nothing follows


@pytest.mark.parametrize("options", [{}, {"recurrent": False}, {"discount_by": "decision"}])
@pytest.mark.parametrize("saved", [False, True])
def test_a_decision_waits_for_what_it_earns_in_later_rollouts(
    options: dict[str, Any], saved: bool, tmp_path: Path
) -> None:
    play = {"bob_0": [(0, 9, "l")], "bob_1": [(0, 9, "l")]}
    # bob_1 decides at step 3, is told what to do at step 5, and decides again at step 7 only.
    unasked: dict[str, Any] = {
        "absent": {("bob_1", 4), ("bob_1", 6)},
        "defined": {("bob_1", 5): 1},
        "masks": "info",
    }
    options = {"gamma": GAMMA, "gae_lambda": LAMBDA, "max_seq_len": 2, "burn_in": 1, **options}
    options |= {"previous_action": True, "previous_reward": True}
    env = team_on([[play]], **unasked)
    (whole,) = collected(fixed(make_team(env, **options)), env, 9)
    env = team_on([[play]], **unasked)
    team = fixed(make_team(env, **options))
    (buffer,) = collected(team, env, 5)
    assert buffer.lead == 0
    assert buffer.active[:, 1].tolist() == [True] * 3 + [False] * 2
    assert buffer.active[:, 0].all()
    r, v = whole.reward[:, 1].tolist(), whole.value[:, 1].tolist()
    # Earlier decisions expect its value, and no more.
    close(buffer.advantage[2, 1], r[2] + GAMMA * v[3] - v[2])
    for steps in (1, 3):
        if saved:
            team.save_checkpoint(tmp_path / "team.pt")
            team = fixed(IPPO.load(tmp_path / "team.pt"))
        collect_rollouts_recurrent(team, env, steps, reset=False)
        assert_ratio_one(trainers_of(team)[0])
        (buffer,) = (buffer_of(trainer) for trainer in trainers_of(team))
        assert buffer.exists[0].tolist() == [False, True]
        if steps == 1:  # it is not known yet what the decision leads to
            assert buffer.active[:, 1].tolist() == [False, False]
    prepare(team)
    assert buffer.active[:, 1].tolist() == [True, False, True, True]
    assert buffer.active[:, 0].tolist() == [False, True, True, True]
    for name in ("obs", "action", "log_prob", "value", "extra", "action_mask", "advantage"):
        ours, theirs = getattr(buffer, name), getattr(whole, name)
        close(ours[[0, 2, 3], 1], theirs[[3, 7, 8], 1], name)


def test_what_is_open_is_forgotten_with_the_environment() -> None:
    play = {"bob_0": [(0, 9, "l")], "bob_1": [(0, 9, "l")]}
    env = team_on([[play]], absent={("bob_1", 4)})
    team = make_team(env)
    for continued in (True, False):
        collect_rollouts_recurrent(team, env, 4, reset=True)
        assert not buffer_of(trainers_of(team)[0]).active[3, 1]
        collect_rollouts_recurrent(team, env, 4, reset=not continued)
        assert buffer_of(trainers_of(team)[0]).lead == int(continued)


class Duel(AECEnv):  # type: ignore[misc]
    """One moves (0 is right), then the other, whereupon the first is paid and the game ends."""

    metadata: ClassVar[dict[str, Any]] = {"name": "duel"}
    render_mode = None

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["first_0", "second_0"]

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(-1, 1, (1,))

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(2)

    def observe(self, agent: str) -> np.ndarray:
        return np.zeros(1, np.float32)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict(self.rewards)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict(self.terminations)
        self.infos: dict[str, Any] = {agent: {} for agent in self.agents}
        self.agent_selection = "first_0"

    def step(self, action: Any) -> None:
        if self.terminations[self.agent_selection]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[self.agent_selection] = 0
        self._clear_rewards()
        if self.agent_selection == "first_0":
            self.move, self.agent_selection = action, "second_0"
        else:
            self.rewards["first_0"] = 1.0 if self.move == 0 else -1.0
            self.terminations = dict.fromkeys(self.agents, True)
            self.agent_selection = "first_0"
        self._accumulate_rewards()


@pytest.mark.parametrize("steps", [1, 3])
def test_rewards_behind_a_rollouts_end_are_learned_from(steps: int) -> None:
    env = SyncMultiAgentVectorEnv([Duel] * 8)
    team = IPPO(
        env.observation_spaces,
        env.action_spaces,
        env.possible_agents,
        **{"seed": 0, "learn_step": steps, "lr": 3e-3, "batch_size": 64, "recurrent": False},
    )
    right = 0.0
    while right < 1 and team.env_steps < 8 * 600:
        for _ in range(60):
            collect_rollouts_recurrent(team, env)
            team.learn()
        right = team.evaluate(env, 20)["first_0"].mean()
    # Always right is 1, a random player 0; in rollouts of one step no pay came in time before.
    assert right == 1


def test_waiting_for_a_turn_is_no_standstill() -> None:
    """Nobody is warned that nothing is learned where others have many turns in between."""
    env = SyncMultiAgentVectorEnv([lambda: TurnTaking("99l", players=14)])
    players = env.possible_agents
    team = make_team(env, groups={player: [player] for player in players}, learn_step=1)
    updates = 0
    for _ in range(30):
        collect_rollouts_recurrent(team, env)
        updates += sum(d.updates > 0 for d in team.learn().values())
    assert updates == 30 - 13  # each decision once, as soon as its player's next turn has come


def test_discount_by_decisions_is_the_parallel_games() -> None:
    """Three players in turn, paid at the end of a round: gamma counts rounds."""
    env = SyncMultiAgentVectorEnv([lambda: TurnTaking("9l", players=3)])
    team = make_team(env, gamma=GAMMA, gae_lambda=1.0, discount_by="decision")
    (buffer,) = collected(team, env, 9)
    r, v = buffer.reward[:, 0], buffer.value[:, 0]
    rounds = r.reshape(3, 3).sum(1)
    expected = rounds[0] + GAMMA * rounds[1] + GAMMA**2 * rounds[2]
    close(buffer.returns[0, 0], expected + GAMMA**3 * buffer.bootstrap[8, 0])
    assert float(v[0]) != 0


def test_defined_action_is_taken_seen_and_not_learned_from() -> None:
    play = {"bob_0": [(0, 6, "l")], "bob_1": [(0, 6, "l")]}
    given = np.float32([0.123456789, -1.7])
    env = team_on([[play]], action="box", defined={("bob_1", 2): given})
    team = make_team(env, previous_action=True)
    (buffer,) = collected(team, env, 6)
    received = env.envs[0].received["bob_1"]
    assert received[2].tobytes() == given.tobytes()  # exactly
    assert received[1].tolist() != given.tolist()
    assert buffer.active[:, 1].tolist() == [True, True, False, True, True, True]
    assert buffer.exists.all()
    assert buffer.extra is not None
    close(buffer.extra[3, 1], given)
    close(buffer.extra[1:, 0], env.envs[0].received["bob_0"][:-1])
    # The memory has seen that observation: another one would have changed what comes after.
    others = team_on(
        [[play]], action="box", defined={("bob_1", 2): given}, poison={("bob_1", 2): 0.77}
    )
    (other,) = collected(make_team(others, previous_action=True), others, 6)
    assert (buffer.value[3:, 1] != other.value[3:, 1]).all()
    assert_ratio_one(trainers_of(team)[0])


# --- team rewards, statistics, clocks ---------------------------------------------------------

TEAM = {"bob_0": [(0, 6, "l")], "bob_1": [(0, 2, "t"), (4, 6, "l")], "fred_0": [(1, 3, "t")]}


@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_team_reward_is_for_those_who_live(kind: Any) -> None:
    envs = [team_on([[TEAM], [TEAM]]) for _ in range(2)]
    teams = [fixed(make_team(envs[0], team_reward=x)) for x in (None, kind)]
    stats = [
        collect_rollouts_recurrent(team, env, 12) for team, env in zip(teams, envs, strict=True)
    ]
    assert stats[0] == stats[1]  # episodes are scored by each agent's own rewards
    (own, ours), (own_fred, our_fred) = (
        [buffer_of(trainers_of(team)[g]).reward for team in teams] for g in (0, 1)
    )
    lives = [[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]] * 2
    for t, (bob_0, bob_1, fred) in enumerate(lives):
        for e in range(2):
            together = own[t, 2 * e] + own[t, 2 * e + 1] + own_fred[t, e]
            if kind == "mean":
                together = together / (bob_0 + bob_1 + fred)
            close(ours[t, 2 * e], together)
            close(ours[t, 2 * e + 1], together * bob_1)
            close(our_fred[t, e], together * fred)


def test_statistics() -> None:
    short = {"fred_0": [(0, 2, "t")], "bob_0": [(0, 1, "t")], "bob_1": [(0, 2, "l")]}
    long = {"fred_0": [(0, 4, "t")], "bob_0": [(0, 4, "t")], "bob_1": []}
    env = team_on([[short], [long]])
    team = make_team(env)
    rewards, ends = [], []
    for _ in range(2):  # episodes reach over the end of a rollout
        stats = collect_rollouts_recurrent(team, env, 3)
        assert stats.steps == 6
        by_group = [buffer_of(x).reward.reshape(3, 2, -1) for x in trainers_of(team)]
        rewards.append(torch.cat(by_group, -1))
        ends.append(stats)
    assert team.agent_ids == ["fred_0", "bob_0", "bob_1"]
    reward = torch.cat(rewards)  # [6, E, agents]
    episodes = [(0, 0, 2), (0, 2, 4), (1, 0, 4), (0, 4, 6)]
    assert [stats.lengths for stats in ends] == [[2], [2, 4, 2]]
    for i, agent in enumerate(team.agent_ids):
        ours = [x for stats in ends for x in stats.agent_returns[agent]]
        close(ours, [reward[a:b, e, i].sum() for e, a, b in episodes], agent)
    ours = [x for stats in ends for x in stats.returns]
    close(ours, [reward[a:b, e].sum() for e, a, b in episodes])


def test_no_episode_ended() -> None:
    env = team_on([[TEAM]])
    stats = collect_rollouts_recurrent(make_team(env), env, 2)
    assert (stats.returns, stats.lengths) == ([], [])
    assert stats.agent_returns == {"bob_0": [], "bob_1": [], "fred_0": []}


def test_schedules_clock_counts_environment_steps() -> None:
    play = {"bob_0": [(0, 9, "l")], "bob_1": [(0, 9, "l")], "fred_0": [(0, 1, "t")]}
    env = team_on([[play]] * 2)
    team = make_team(env, lr=0.5, lr_schedule="linear", total_steps=40, learn_step=5)
    for share in (1, 0.75, 0.5, 0.25):
        collect_rollouts_recurrent(team, env)
        assert [d.lr for d in team.learn().values()] == [0.5 * share] * 2
    collect_rollouts_recurrent(team, env)
    with pytest.warns(UserWarning, match="total_steps = 40 are over"):
        assert [d.lr for d in team.learn().values()] == [0, 0]
    assert team.env_steps == 50


def test_deviation_of_rewards_is_that_of_the_active_steps() -> None:
    play = {"bob_0": [(0, 9, "l")], "bob_1": [(0, 3, "t"), (5, 9, "l")], "fred_0": [(0, 2, "t")]}
    env = team_on([[play]], absent={("bob_0", 2)}, defined={("bob_1", 6): 1})
    team = make_team(env, normalize_reward=True, gamma=GAMMA, gae_lambda=LAMBDA)
    totals: dict[str, list[float]] = {"bob": [], "fred": []}
    running: dict[Any, float] = {}
    for _ in range(2):
        collect_rollouts_recurrent(team, env, 7)
        prepare(team)
        for name, trainer in team.trainers.items():
            buffer = buffer_of(trainer)
            for t in range(7):
                for n in range(buffer.rows):
                    total = GAMMA * running.get((name, n), 0) + float(buffer.reward[t, n])
                    if buffer.active[t, n]:
                        totals[name].append(total)
                    ended = buffer.terminated[t, n] or buffer.truncated[t, n]
                    running[name, n] = 0 if ended else total
            assert trainer.reward_norm is not None
            close(1 / float(trainer.reward_norm.scale), np.std(totals[name]))
        team.learn()


def test_observations_are_standardised_by_what_was_seen() -> None:
    play = {"bob_0": [(0, 6, "l")], "bob_1": [(2, 4, "t")]}
    env = team_on([[play]], defined={("bob_0", 1): 2})
    team = make_team(env, normalize_obs=True)
    collect_rollouts_recurrent(team, env, 6)
    team.learn()
    script = env.envs[0]
    seen = [script.observation_of("bob_0", 0, t) for t in range(6)]
    seen += [script.observation_of("bob_1", 0, t) for t in (2, 3)]
    norm = team.groups[0].policy.preprocessor.norm
    assert norm is not None
    close(norm.mean, np.mean(seen, 0))
    close(norm.variance, np.var(seen, 0))


# --- others' data -----------------------------------------------------------------------------

COMING = {
    "bob_0": [(0, 3, "t"), (5, 7, "l")],
    "bob_1": [(0, 7, "l")],
    "fred_0": [(1, 2, "t"), (4, 7, "b")],
}
STAYING = {agent: [(0, 30, "t")] for agent in COMING}
SEEING: dict[str, Any] = {
    "previous_action": True,
    "previous_reward": True,
    "num_layers": 2,
    "agent_id_input": True,
}


def of_environments(team: IPPO, which: Sequence[int]) -> dict[str, Tensor]:
    """All that the buffers hold of some environments, and what is carried on."""
    found = {}
    assert team.collection.carries is not None
    for (name, trainer), carry in zip(team.trainers.items(), team.collection.carries, strict=True):
        size = trainer.group.size
        rows = [e * size + a for e in which for a in range(size)]
        found |= {f"{name} {key}": x[:, rows] for key, x in rollout(trainer).items()}
        for i, x in enumerate(carry.state.tensors):
            found[f"{name} carried {i}"] = x[:, rows]
    return found


@pytest.mark.parametrize("masks", [None, "info", "observation"])
def test_one_environments_end_leaves_the_others_alone(masks: str | None) -> None:
    seen = []
    # Nobody of the others is cut by a limit in the same step: the last bits of a matrix product
    # depend on the number of rows.
    ending = {"bob_0": [(0, 2, "l")], "bob_1": [(0, 4, "l")], "fred_0": [(1, 2, "t"), (3, 4, "b")]}
    for script in ([ending], [STAYING]):
        env = team_on([[STAYING, COMING], script, [COMING, STAYING]], masks=masks)
        team = make_team(env, **SEEING)
        ended = len(collect_rollouts_recurrent(team, env, 17).returns)
        assert ended == 1 + 4 * (script[0] is ending)
        seen.append(of_environments(team, [0, 2]))
    assert_same_rollout(*seen)


@pytest.mark.parametrize("masks", [None, "observation"])
def test_environments_together_equal_each_alone(masks: str | None) -> None:
    scripts = [[STAYING, COMING], [COMING], [COMING, STAYING]]
    makers = scripted_makers(scripts, masks=masks, absent={("bob_1", 2)})
    env = SyncMultiAgentVectorEnv(makers)
    together = fixed(make_team(env, **SEEING))
    collect_rollouts_recurrent(together, env, 17)
    for e in range(3):
        single = SyncMultiAgentVectorEnv([makers[e]])
        alone = fixed(make_team(single, **SEEING))
        collect_rollouts_recurrent(alone, single, 17)
        ours, theirs = of_environments(together, [e]), of_environments(alone, [0])
        for name in ours.keys() | theirs.keys():
            if "action_mask" in name and name not in theirs:
                assert ours[name].all()  # there is room for masks, as another may give some
                continue
            close(ours[name], theirs[name], name)


def test_memory_is_an_agents_own() -> None:
    """What one agent sees changes nothing of what another remembers, in either group."""
    seen = []
    for poison in ({}, {("bob_0", t): 0.5 for t in range(3)}):
        env = team_on([[COMING, STAYING]] * 2, poison=poison)
        team = make_team(env, **SEEING)
        collect_rollouts_recurrent(team, env, 9)
        seen.append(of_environments(team, [0, 1]))
    for name, ours in seen[0].items():
        theirs = seen[1][name]
        if name.startswith("fred"):
            assert torch.equal(ours, theirs), name
            continue
        assert torch.equal(ours[:, 1::2], theirs[:, 1::2]), name
        if name in ("bob obs", "bob value", "bob hidden0", "bob hidden1"):
            assert not torch.equal(ours[:, ::2], theirs[:, ::2]), name


def test_memory_is_frozen_while_nothing_is_shown_and_zero_in_a_new_life() -> None:
    env = team_on([[COMING]], absent={("bob_1", 3), ("bob_1", 4)})
    team = make_team(env, previous_action=True, max_seq_len=1)
    (bob, fred) = collected(team, env, 9)
    for h in bob.hidden:
        assert torch.equal(h[3, 1], h[4, 1])
        assert torch.equal(h[3, 1], h[5, 1])
        assert not torch.equal(h[5, 1], h[6, 1])
        assert not torch.equal(h[2, 1], h[3, 1])
        assert h[5, 0].any() == h[7, 1].any() == False  # noqa: E712
        assert h[1:5, 0].any(-1).all()
    assert fred.hidden[0][4].any() == False  # noqa: E712
    assert fred.hidden[0][5].any()


@pytest.mark.parametrize("parts", [(5, 7), (1, 1, 10), (4, 4, 4), (3, 9)])
def test_calls_in_pieces_equal_one_call(parts: tuple[int, ...]) -> None:
    options: dict[str, Any] = {**SEEING, "max_seq_len": 1, "team_reward": "mean"}

    def collect(parts: tuple[int, ...]) -> tuple[dict[str, Tensor], Any]:
        env = team_on([[COMING], [STAYING], [TEAM]], action="box", absent={("bob_1", 3)})
        team = fixed(make_team(env, **options))
        pieces, stats = [], []
        for steps in parts:
            stats.append(collect_rollouts_recurrent(team, env, steps))
            pieces.append(of_environments(team, [0, 1, 2]))
            for name, trainer in team.trainers.items():  # what waits for the next rollout
                piece, buffer = pieces[-1], buffer_of(trainer)
                piece[f"{name} active"] = buffer.decided()
                for key in piece:
                    if key.startswith(f"{name} ") and "carried" not in key:
                        piece[key] = piece[key][buffer.lead * ("last_value" not in key) :]
        names = {k for k in pieces[0] if not k.endswith(("advantage", "returns", "last_value"))}
        joined = {k: torch.cat([p[k] for p in pieces]) for k in names if "carried" not in k}
        joined |= {k: pieces[-1][k] for k in names if "carried" in k}
        agents = {a: [x for s in stats for x in s.agent_returns[a]] for a in team.agent_ids}
        return joined, (agents, [x for s in stats for x in s.lengths])

    whole, (returns, lengths) = collect((12,))
    ours, (our_returns, our_lengths) = collect(parts)
    assert whole.keys() == ours.keys()
    for name, values in whole.items():
        close(ours[name], values, name)
    assert our_lengths == lengths == [6, 7, 6]
    for agent, values in returns.items():
        close(our_returns[agent], values)


# --- what may not matter ----------------------------------------------------------------------


def spoil(buffer: SequenceRolloutBuffer, value: float) -> None:
    """Write garbage wherever nothing may depend on it. Done before returns are computed."""
    idle, absent = ~buffer.active, ~buffer.exists
    alive = torch.zeros_like(idle)
    living = torch.zeros(buffer.rows, dtype=torch.bool)
    for t in range(buffer.steps):
        living = living | buffer.start[t]
        alive[t] = living
        living = living & ~buffer.terminated[t] & ~buffer.truncated[t]
    assert bool((idle & alive).any())
    assert bool((~alive).any())
    assert bool((idle & ~absent).any())
    buffer.obs[absent] = value
    if buffer.extra is not None:
        buffer.extra[absent] = value
    if buffer.action.dtype.is_floating_point:
        buffer.action[idle] = value
    else:
        buffer.action[idle] = 2**40
    if buffer.action_mask is not None:
        buffer.action_mask[idle] = False
    buffer.log_prob[idle] = value
    if np.isfinite(value):
        # Rewards are finite, or the rollout would have been refused.
        buffer.reward[~alive] = value
    # What was seen counts when a limit cuts or a rollout ends; its copies were taken before.
    buffer.value[idle] = value
    buffer.bootstrap[~buffer.truncated | buffer.terminated] = value


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
@pytest.mark.parametrize("options", [{"burn_in": 2, "refresh_hidden_state": True}, {"cell": "gru"}])
@pytest.mark.parametrize("environment", [{"masks": "observation"}, {"action": "box"}])
def test_garbage_where_nobody_acts_changes_nothing(
    value: float, options: dict[str, Any], environment: dict[str, Any]
) -> None:
    forced = np.float32([0.5, 1]) if "action" in environment else 2
    absent = {("bob_1", 2), ("fred_0", 5)}
    defined = {("bob_1", 4): forced, ("fred_0", 6): forced}
    results = []
    for spoilt in (False, True):
        env = team_on([[COMING], [COMING]], absent=absent, defined=defined, **environment)
        team = make_team(env, **SEEING, normalize_obs=True, ent_coef=0.1, **options)
        collect_rollouts_recurrent(team, env, 10)
        buffers = [buffer_of(trainer) for trainer in trainers_of(team)]
        if spoilt:
            for buffer in buffers:
                spoil(buffer, value)
        prepare(team)
        targets = [buffer.targets(True)[:, buffer.active.flatten()] for buffer in buffers]
        results.append((targets, team.learn(), team_weights(team)))
    (ours, our_diagnostics, our_weights), (theirs, diagnostics, their_weights) = results
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert our_diagnostics == diagnostics
    assert all(d.updates > 0 for d in diagnostics.values())
    assert_same_weights(our_weights, their_weights)


@pytest.mark.parametrize("options", [{}, {"recurrent": False}, {"normalize_reward": True}])
def test_group_that_is_wholly_dead_learns_nothing(options: dict[str, Any]) -> None:
    play = {"bob_0": [(0, 30, "t")], "fred_0": [(0, 2, "t")], "fred_1": [(0, 1, "l")]}
    env = team_on([[play]])
    team = make_team(env, normalize_obs=True, ent_coef=0.1, **options)
    collect_rollouts_recurrent(team, env, 5)
    assert all(d.updates > 0 for d in team.learn().values())
    before = team_weights(team)
    collect_rollouts_recurrent(team, env, 5)
    assert not buffer_of(team.trainers["fred"]).exists.any()
    diagnostics = team.learn()
    assert diagnostics["bob"].updates > 0
    assert diagnostics["fred"].updates == 0
    assert np.isnan(diagnostics["fred"].explained_variance)
    after = team_weights(team)
    for name, values in after.items():
        assert values.isfinite().all()
        assert torch.equal(values, before[name]) or name.startswith("bob")


@pytest.mark.parametrize("lives", [[(2, 3, "t")], [(2, 3, "l")], [(4, 9, "t")]])
@pytest.mark.parametrize("options", [{}, {"recurrent": False}, {"clip_vf_coef": 0.2}])
def test_group_with_one_active_step(lives: Any, options: dict[str, Any]) -> None:
    env = team_on([[{"bob_0": [(0, 9, "t")], "fred_0": lives}]])
    team = make_team(env, normalize_obs=True, normalize_reward=True, ent_coef=0.1, **options)
    collect_rollouts_recurrent(team, env, 5)
    assert int(buffer_of(team.trainers["fred"]).active.sum()) == 1
    assert team.learn()["fred"].updates == 2
    assert all(values.isfinite().all() for values in team_weights(team).values())
    assert_ratio_one_after(team, env)


def assert_ratio_one_after(team: IPPO, env: Any) -> None:
    """It holds for the next rollout, too."""
    collect_rollouts_recurrent(team, env, 5)
    for trainer in trainers_of(team):
        assert_ratio_one(trainer)


# --- one agent --------------------------------------------------------------------------------


def cartpole() -> Any:
    return gym.make("CartPole-v1", max_episode_steps=17)


def pendulum() -> Any:
    return gym.make("Pendulum-v1", max_episode_steps=13)


ONE = [
    (cartpole, {}),
    (cartpole, {"cell": "gru", "previous_action": True, "normalize_obs": True}),
    (cartpole, {"recurrent": False, "normalize_reward": True, "target_kl": 0.01}),
    (cartpole, {"previous_reward": True, "burn_in": 2, "refresh_hidden_state": True}),
    (pendulum, {"normalize_reward": True, "normalize_obs": True, "num_layers": 2}),
    (pendulum, {"squash_output": True, "share_encoders": False, "previous_action": True}),
    (pendulum, {"lr_schedule": "linear", "total_steps": 200, "ent_coef": 0.01}),
    (lambda: Scripted("3t 5l 2b", masked=True), {"previous_action": True, "cell": "gru"}),
    (lambda: Scripted("3t 5l 2b", observation="discrete"), {"reward_scale": 0.1}),
]


@pytest.mark.parametrize(("make", "options"), ONE)
def test_ppo_is_ippo_with_one_agent(make: Any, options: dict[str, Any]) -> None:
    """Bit for bit: seeds, rollouts, weights, optimisers, statistics."""
    single = SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    several = SyncMultiAgentVectorEnv([lambda: OneAgent(make())] * 3)
    ppo = make_agent(single, seed=7, learn_step=30, **options)
    ippo = make_team(several, seed=7, learn_step=30, **options)
    (trainer,) = trainers_of(ippo)
    assert_same_weights(weights(ppo), weights(trainer))
    for _ in range(3):
        ours = collect_rollouts_recurrent(ppo, single)
        theirs = collect_rollouts_recurrent(ippo, several)
        assert ours.returns
        assert (ours.steps, ours.returns, ours.lengths) == (
            theirs.steps,
            theirs.returns,
            theirs.lengths,
        )
        assert_same_rollout(rollout(ppo), rollout(trainer))
        assert ppo.learn() == ippo.learn()["agent"]
        assert_same_weights(weights(ppo), weights(trainer))
        ours_next, theirs_next = (x.generator.get_state() for x in (ppo.group, trainer.group))
        assert torch.equal(ours_next, theirs_next)
    assert ppo.env_steps == ippo.env_steps == 270
    assert ppo.evaluate(single, 3, seed=5).tolist() == (
        ippo.evaluate(several, 3, seed=5)["agent_0"].tolist()
    )


def test_initial_weights_of_one_agent_are_those_of_ppo() -> None:
    from recurrent_rl import PPO

    env = scripted(["3t"])
    spaces = env.single_observation_space, env.single_action_space
    ppo = PPO(*spaces, seed=11)
    ippo = IPPO([spaces[0]], [spaces[1]], ["agent_0"], seed=11)
    assert_same_weights(weights(ppo), weights(trainers_of(ippo)[0]))


# --- bad data ---------------------------------------------------------------------------------

LONG = {"bob_0": [(0, 300, "t")], "bob_1": [(0, 300, "t")], "fred_0": [(0, 300, "t")]}


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        ({("bob_1", 14): np.nan}, r"^observation: .*got \[nan, .*\] from agent 'bob_1'.* step 4 "),
        ({("fred_0", 11): np.inf}, r"^observation: .*\[inf, .*\] from agent 'fred_0'.* step 1 "),
        ({("bob_0", 20): np.nan}, r"^observation: .* from agent 'bob_0' in .* step 10 "),
        ({("bob_1", 18): NAN_REWARD}, r"^reward: .*got nan from agent 'bob_1' in .* step 7 "),
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"normalize_obs": True, "normalize_reward": True, "team_reward": "sum"}]
)
def test_bad_numbers_of_one_agent(
    poison: dict[Any, Any], message: str, options: dict[str, Any]
) -> None:
    env = team_on([[LONG]] * 3)
    team = make_team(env, **options)
    collect_rollouts_recurrent(team, env)
    team.learn()
    # Found in the second rollout; not there any more after the reset, which the script shows by
    # beginning anew.
    env.envs[2].poison = poison
    before, steps = team_weights(team), team.env_steps
    with pytest.raises(ValueError, match=message + "of this rollout") as error:
        collect_rollouts_recurrent(team, env)
    assert "in environment 2 at step" in str(error.value)
    assert "discarded" in str(error.value)
    env.envs[2].poison = {}
    assert_same_weights(before, team_weights(team))
    assert team.env_steps == steps
    with pytest.raises(RuntimeError, match=r"^learn: expected a rollout"):
        team.learn()
    assert_same_weights(before, team_weights(team))
    with pytest.raises(ValueError, match=r"^reset=False: .* the agent has nothing"):
        collect_rollouts_recurrent(team, env, reset=False)
    collect_rollouts_recurrent(team, env)
    assert [single.time for single in env.envs] == [10] * 3
    for trainer in trainers_of(team):
        assert buffer_of(trainer).start[0].all()
        assert_ratio_one(trainer)
    team.learn()


def test_environment_that_fails_on_the_action_of_its_own_bad_observation() -> None:
    """Whichever group it was."""
    env = team_on([[LONG]] * 2, {1: {"poison": {("fred_0", 4): np.nan}}}, action="box")
    message = r"^observation: .* from agent 'fred_0' in environment 1 at step 4 "
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(make_team(env), env)


def test_bad_final_observation() -> None:
    play = {"bob_0": [(0, 300, "t")], "bob_1": [(0, 6, "l")], "bob_2": [(0, 6, "t")]}
    env = team_on([[play]] * 2, observation="narrow", poison={("bob_2", 6): np.nan})
    team = make_team(env, normalize_obs=True)
    collect_rollouts_recurrent(team, env)  # nobody needs the last observation of the terminated
    env.envs[1].poison = {("bob_1", 6): np.nan}
    before = team_weights(team)
    message = r"^final observation: .*got \[nan\] from agent 'bob_1' in environment 1 at step 5 "
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(team, env, reset=True)
    assert_same_weights(before, team_weights(team))


def test_bad_first_observation() -> None:
    env = team_on([[LONG]] * 2, {1: {"poison": {("fred_0", 0): np.nan}}})
    team = make_team(env)
    with pytest.raises(ValueError, match=r"^observation: .* in row 1") as error:
        collect_rollouts_recurrent(team, env)
    assert error.value.__notes__ == ["the first observation of agent 'fred_0' in environment 1"]


def test_mask_without_a_choice() -> None:
    class Stuck(ScriptedParallel):
        def mask_of(self, agent: str, episode: int, step: int) -> Any:
            mask = super().mask_of(agent, episode, step)
            return mask * 0 if (agent, step, self.index) == ("bob_1", 3, 1) else mask

    env = SyncMultiAgentVectorEnv([lambda i=i: Stuck([LONG], i, masks="info") for i in range(2)])
    team = make_team(env)
    message = r"allowed action, got none from agent 'bob_1' in environment 1 at step 3 "
    with pytest.raises(ValueError, match=message):
        collect_rollouts_recurrent(team, env)


# --- action masks -----------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["info", "observation"])
def test_masks_are_obeyed_stored_and_learned_with(masks: str) -> None:
    env = team_on([[COMING], [STAYING]], masks=masks, action={"bob": "many", "fred": "discrete"})
    team = make_team(env, learn_step=40)
    for buffer, policy in zip(
        collected(team, env), [group.policy for group in team.groups], strict=True
    ):
        assert buffer.action_mask is not None
        allowed = buffer.action_mask.gather(-1, buffer.action[..., None])[..., 0]
        assert allowed[buffer.active].all()
        assert not buffer.action_mask[buffer.active].all(-1).any()  # there was something to obey
        log_prob, _ = replay(policy, buffer)
        close(log_prob[buffer.active], buffer.log_prob[buffer.active])
        buffer.action_mask[:] = True
        unmasked, _ = replay(policy, buffer)
        assert (unmasked[buffer.active] < log_prob[buffer.active] - 1e-3).all()


KINDS = {"bob": "many", "fred": "discrete"}


def test_masks_in_one_group_only() -> None:
    class Half(ScriptedParallel):
        def _infos(self, agents: list[str]) -> Any:
            infos = super()._infos(agents)
            return {a: {} if a.startswith("fred") else info for a, info in infos.items()}

        def _check_action(self, agent: str, action: Any) -> None:
            if agent.startswith("bob"):
                super()._check_action(agent, action)

    env = SyncMultiAgentVectorEnv([lambda: Half([STAYING], masks="info", action=KINDS)] * 2)
    bob, fred = collected(make_team(env), env)
    assert bob.action_mask is not None
    assert fred.action_mask is None


# --- starting afresh --------------------------------------------------------------------------


def test_each_environment_has_its_own_seed_and_each_start_another() -> None:
    given = []
    for _ in range(2):
        env = team_on([[LONG]] * 3)
        team = make_team(env, seed=3)
        for _ in range(2):
            collect_rollouts_recurrent(team, env, 1, reset=True)
        given.append([single.seeds for single in env.envs])
    assert given[0] == given[1]
    (a, b), second, third = given[0]
    assert a != b
    assert second == [a + 1, b + 1]
    assert third == [a + 2, b + 2]


def test_goes_on_or_starts_afresh() -> None:
    env, other = team_on([[LONG]] * 2), team_on([[LONG]] * 3)
    team, another = make_team(env), make_team(env)

    def fresh(team: IPPO, env: Any) -> bool:
        starts = [buffer.start[0] for buffer in collected(team, env, 5)]
        assert len({bool(x) for start in starts for x in start}) == 1
        return bool(starts[0][0])

    assert [fresh(team, env) for _ in range(3)] == [True, False, False]
    team.learn()
    assert not fresh(team, env)
    assert fresh(another, env)
    assert fresh(team, env)
    assert fresh(team, other)
    assert fresh(team, env)
    for used in (env, env.envs[1]):
        team.test(used, max_steps=2, loop=1)
        assert fresh(team, env)
        assert not fresh(team, env)
    team.test(other, max_steps=2, loop=1)
    assert not fresh(team, env)
    part = SyncMultiAgentVectorEnv([lambda: env.envs[0]])
    assert fresh(team, part)
    assert fresh(team, env)
    again = SyncMultiAgentVectorEnv([lambda i=i: env.envs[i] for i in range(2)])
    assert fresh(team, again)
    assert fresh(team.clone(), env)


class Kept(ScriptedParallel):
    """Keeps those who have ended in its list, and flags them, until all have ended."""

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.over: dict[str, Any] = {}
        return super().reset(seed, options)

    def step(self, actions: dict[str, Any]) -> Any:
        self.agents[:] = [agent for agent in self.agents if agent not in self.over]
        results = super().step({a: x for a, x in actions.items() if a not in self.over})
        if self.agents:
            for agent in self.over:
                for result, value in zip(results, self.over[agent], strict=True):
                    result[agent] = value
                self.agents.append(agent)
            for agent in actions:
                if agent not in self.agents:
                    self.over[agent] = results[0][agent], 0.0, True, False, {}
                    self.agents.append(agent)
        return results


def test_the_dead_in_the_list_are_trained_as_the_dead_outside() -> None:
    play = {"bob_0": [(0, 6, "t")], "bob_1": [(0, 2, "t")], "fred_0": [(0, 3, "t")]}
    rollouts = []
    for kind in (ScriptedParallel, Kept):
        env = SyncMultiAgentVectorEnv([lambda kind=kind: kind([play])])
        team = make_team(env)
        stats = collect_rollouts_recurrent(team, env, 10)
        prepare(team)
        for trainer in trainers_of(team):
            buffer = buffer_of(trainer)
            active = buffer.active & buffer.exists
            rollouts.append((active, buffer.start & active, buffer.returns * active, stats))
    ours, theirs = rollouts[:2], rollouts[2:]
    for (active, start, returns, stats), other in zip(ours, theirs, strict=True):
        assert torch.equal(active, other[0])
        assert torch.equal(start, other[1])
        assert stats.lengths == other[3].lengths
        assert returns.shape == other[2].shape


class Posthumous(ScriptedParallel):
    """Pays 1 to everybody in every step, the dead and those to come included."""

    def step(self, actions: dict[str, Any]) -> Any:
        observations, rewards, *rest = super().step(actions)
        return observations, dict.fromkeys([*rewards, *self.possible_agents], 1.0), *rest


@pytest.mark.parametrize("team_reward", [None, "sum", "mean"])
def test_rewards_of_who_is_not_there_count_nowhere(team_reward: Any) -> None:
    play = {"bob_0": [(0, 4, "t")], "bob_1": [(0, 2, "t")], "bob_2": [(1, 4, "t")]}
    env = SyncMultiAgentVectorEnv([lambda: Posthumous([play])])
    options = {"gamma": 1.0, "gae_lambda": 1.0, "normalize_reward": False}
    team = make_team(env, team_reward=team_reward, **options)
    with pytest.warns(UserWarning, match=r"^environment 0 rewards agent 'bob_2', .* not there"):
        stats = collect_rollouts_recurrent(team, env, 4)
    assert stats.agent_returns == {"bob_0": [4.0], "bob_1": [2.0], "bob_2": [3.0]}
    lives = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 0, 1]])
    paid = {None: lives, "sum": lives * lives.sum(1, keepdim=True), "mean": lives}[team_reward]
    buffer = buffer_of(trainers_of(team)[0])
    close(buffer.reward, paid.double())
    prepare(team)
    to_go = paid.flip(0).cumsum(0).flip(0) * lives
    close(buffer.returns * buffer.active, to_go.double())
    returns = team.evaluate(env, 1)  # the warning comes once
    assert {agent: float(x[0]) for agent, x in returns.items()} == {
        "bob_0": 4,
        "bob_1": 2,
        "bob_2": 3,
    }


def test_the_first_mask_of_all_comes_after_a_decision_that_is_open() -> None:
    play = {"bob_0": [(0, 30, "t")], "fred_0": [(0, 30, "t")]}
    env = team_on([[play]], masks="info", absent={("fred_0", k) for k in range(2, 5)})
    (one,) = env.envs
    one._check_action = lambda *_: None
    infos, seen = one._infos, []

    def late(agents: Any) -> Any:
        seen.append(agents)
        return infos(agents if len(seen) > 6 else [])

    one._infos = late
    team = make_team(env)
    collect_rollouts_recurrent(team, env, 3)
    collect_rollouts_recurrent(team, env, 5)
    fred = buffer_of(trainers_of(team)[1])
    assert fred.lead == 1
    assert fred.active[:, 0].tolist() == [True, False, False, True, True, True]
    assert fred.action_mask is not None
    assert fred.action_mask[:4].all()
    assert not fred.action_mask[4:].all()
    assert_ratio_one(trainers_of(team)[1])
    team.learn()


@pytest.mark.parametrize("masks", ["info", "observation"])
def test_masks_of_a_group_that_sees_nothing_at_first(masks: str) -> None:
    play = {"bob_0": [(0, 30, "t")], "fred_0": [(0, 30, "t")], "fred_1": [(0, 30, "t")]}
    absent = {(fred, k) for fred in ("fred_0", "fred_1") for k in range(3)}
    env = team_on([[play]], masks=masks, absent=absent)
    (one,) = env.envs
    one._check_action = lambda *_: None
    infos = one._infos
    one._infos = lambda agents: infos([agent for agent in agents if agent in one._shown])
    team = make_team(env)
    collect_rollouts_recurrent(team, env, 8)
    fred = buffer_of(trainers_of(team)[1])
    assert fred.action_mask is not None
    assert fred.action_mask[:3].all()
    assert not fred.action_mask[3:].all()
    assert_ratio_one(trainers_of(team)[1])
    team.learn()
