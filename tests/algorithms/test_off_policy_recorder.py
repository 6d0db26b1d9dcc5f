"""Tests of `recurrent_rl.algorithms.off_policy_recorder`: what of an environment is remembered."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from pettingzoo import ParallelEnv
from support.envs import NAN_REWARD, Scripted, scripted
from support.helpers import SEEDS
from support.multi_envs import Episode, ScriptedParallel, TurnTaking, scripted_makers
from support.pairs import examples
from support.replays import assert_same_memory, held, make_off_policy
from torch import Tensor

from recurrent_rl import SyncMultiAgentVectorEnv, collect_rollouts_recurrent
from recurrent_rl.algorithms.replayed import Replayed
from recurrent_rl.buffers.replay import SequenceReplayBuffer

SAME, NEXT, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED
MODES = [SAME, NEXT, DISABLED]


def close(ours: Any, theirs: Any, what: str = "") -> None:
    """Equal up to float32's rounding."""
    np.testing.assert_allclose(
        np.asarray(ours, np.float64), np.asarray(theirs, np.float64), 1e-5, 1e-6, err_msg=what
    )


# --- one agent, in all autoreset modes --------------------------------------------------------


def one_hot(space: Any, action: Any) -> np.ndarray:
    """An action as policies see their last one."""
    if action is None:
        return np.zeros(3 if isinstance(space, Discrete) else 2)
    return np.eye(3)[action - 1] if isinstance(space, Discrete) else np.asarray(action)


def played(env: Scripted, actions: Sequence[Any], steps: int, mode: AutoresetMode) -> list[Any]:
    """What should be remembered of so many steps, from nothing but the environment itself.

    One dictionary for each place, the one that is seen next included.
    """
    places: list[dict[str, Any]] = []
    left = list(actions)

    def see(observation: Any, info: Mapping[str, Any], **flags: Any) -> dict[str, Any]:
        extra = [one_hot(env.action_space, last), [earned]]
        place = {"obs": observation, "mask": info.get("action_mask"), "start": False}
        place |= {"active": True, "final": False, "reward": 0, "extra": np.concatenate(extra)}
        place |= {"terminated": False, "truncated": False, "action": None, **flags}
        places.append(place)
        return place

    def begin(seed: int | None = None) -> dict[str, Any]:
        return see(*env.reset(seed=seed), start=True)

    last, earned = None, 0.0
    present = begin(seed=0)
    for _ in range(steps):
        if not present["active"]:  # a step that resets, and no more
            last, earned = None, 0.0
            present = begin()
            continue
        last = present["action"] = left.pop(0)
        observation, earned, terminated, truncated, info = env.step(last)
        present |= {"reward": earned, "terminated": terminated, "truncated": truncated}
        if not (terminated or truncated):
            present = see(observation, info)
        elif mode == NEXT:
            present = see(observation, {"action_mask": np.ones(3)}, active=False)
        else:
            if truncated and not terminated:
                see(observation, {"action_mask": np.ones(3)}, active=False, final=True)
            last, earned = None, 0.0
            present = begin()
    assert not left
    return places


def assert_played(agent: Any, env: int, places: list[Any]) -> None:
    """An environment's part of the memory is what should be there."""
    ours = held(agent.memory, "", env)
    assert len(ours["obs"]) == len(places) or agent.memory.written[env] >= agent.memory.places
    places = places[-len(ours["obs"]) :]
    assert ours["exists"].all()
    for name in ("obs", "start", "active", "final", "reward", "terminated", "truncated", "extra"):
        if name in ours:
            close(ours[name][:, 0], [place[name] for place in places], name)
    decided = [i for i, place in enumerate(places) if place["action"] is not None]
    action = agent.policy.actions.to_env(ours["action"][decided, 0])
    close(action, [places[i]["action"] for i in decided], "action")
    if "action_mask" in ours:
        close(ours["action_mask"][:, 0], [place["mask"] for place in places], "mask")


@pytest.mark.parametrize("pieces", [[1] * 20, [20], [7, 1, 12]], ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("kind", "options", "size"),
    [
        ("dqn", {"masked": True}, 500),
        ("dqn", {"masked": True}, 18),
        ("dqn", {"observation": "discrete"}, 500),
        ("sac", {"action": "box"}, 30),
        ("td3", {"action": "box"}, 500),
    ],
)
def test_every_transition_is_remembered_once(
    kind: str, options: dict[str, Any], size: int, mode: AutoresetMode, pieces: list[int]
) -> None:
    scripts = ["3t 2l 4b 1l", "2l 1t 6l", "1b 1l 7t"]
    env = scripted(scripts, mode, **options)
    agent = make_off_policy(kind, env, previous_action=True, previous_reward=True, memory_size=size)
    for steps in pieces:
        collect_rollouts_recurrent(agent, env, steps)
    assert agent.memory.counter == 60
    assert len(agent.memory) == 60 if size == 500 else size - 15 <= len(agent.memory) <= size + 12
    for i, script in enumerate(scripts):
        actions = env.envs[i].unwrapped.received
        assert_played(agent, i, played(Scripted(script, i, **options), actions, 20, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_collecting_in_pieces_makes_no_difference(kind: str, mode: AutoresetMode) -> None:
    options: dict[str, Any] = {"memory_size": 30, "burn_in": 1, "overlap": 2}
    options |= {"epsilon_start": 0.0, "epsilon_end": 0.0} if kind == "dqn" else {}
    memories = []
    for pieces in ([1] * 40, [40], [13, 27]):
        env = scripted(["3t 2l 4b 1l", "2l 1t 6l"], mode, masked=kind == "dqn")
        agent = make_off_policy(kind, env, previous_reward=True, **options)
        for group in agent.groups:  # the same noise in every step
            noise = torch.linspace(0.1, 0.9, group.policy.distribution.outputs)
            if kind == "sac":
                group.policy.distribution.noise = lambda shape, _, n=noise: n.expand(*shape, -1)
        for steps in pieces:
            collect_rollouts_recurrent(agent, env, steps)
        memories.append(agent.memory)
    assert_same_memory(memories[0], memories[1])
    assert_same_memory(memories[0], memories[2])


@pytest.mark.parametrize("mode", MODES)
def test_a_fresh_start_ends_lives_as_if_cut_by_a_limit(mode: AutoresetMode) -> None:
    """What was seen last is known, and lives that have ended already are left alone."""
    env = scripted(["9t", "3t 9t", "3l 9t", "2t 9t"], mode)
    agent = make_off_policy("dqn", env)
    collect_rollouts_recurrent(agent, env, 3)
    collect_rollouts_recurrent(agent, env, 1, reset=True)
    memory = agent.memory
    for i in range(4):
        places = {k: x[:, 0].tolist() for k, x in held(memory, "", i).items()}
        starts = [t for t, start in enumerate(places["start"]) if start]
        again = starts[-1]
        # The last step before is cut, or had ended, and what it led to is there.
        ends = [(places["terminated"][t], places["truncated"][t]) for t in range(again)]
        shown = [t for t in range(again) if places["final"][t]]
        if i == 0:
            assert ends == [(False, False)] * 2 + [(False, True), (False, False)]
            assert shown == [3]
        elif i == 1:  # ended by itself: next-step autoreset has shown its end
            assert ends[:3] == [(False, False)] * 2 + [(True, False)]
            assert shown == ([3] if mode == NEXT else [])
        elif i == 2:
            assert ends[:3] == [(False, False)] * 2 + [(False, True)]
            assert shown == [3]
        else:  # a first observation that nobody acted upon is dropped, or cut after a step
            assert ends[1] == (True, False)
        assert again == memory.written[i] - 1
    assert len(memory) == memory.counter == 16


# --- bad input --------------------------------------------------------------------------------


class Breaks(Scripted):
    """Raises in a given step."""

    breaks = 10**9

    def step(self, action: Any) -> Any:
        if self.clock + 1 == self.breaks:
            raise RuntimeError("out of order")
        return super().step(action)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [20, 500])
@pytest.mark.parametrize("poison", [np.nan, np.inf, NAN_REWARD, "raises"])
def test_bad_input_loses_nothing_that_was_remembered(
    poison: Any, size: int, mode: AutoresetMode
) -> None:
    scripts = ["4t 3l", "5l 2t"]
    env = scripted(scripts, mode)
    options: dict[str, Any] = {"burn_in": 1, "overlap": 1, "sampling": "priority"}
    agent = make_off_policy("dqn", env, memory_size=size, **options)
    collect_rollouts_recurrent(agent, env, 8)
    memory, inner = agent.memory, env.envs[1].unwrapped
    before = [held(memory, "", i) for i in range(2)]
    first, counter = memory._range()[0].copy(), memory.counter
    if poison == "raises":
        inner.__class__, inner.breaks = Breaks, inner.clock + 3
        with pytest.raises(RuntimeError, match="out of order"):
            collect_rollouts_recurrent(agent, env, 6)
        inner.breaks = 0
    else:
        inner.poison = {inner.clock + 3: poison}
        with pytest.raises(ValueError, match=r"(observation|reward).*environment 1 at step") as got:
            collect_rollouts_recurrent(agent, env, 6)
        # One step of six may have gone by in a reset.
        step = int(str(got.value).split("at step ")[1].split()[0])
        assert step - 3 + (poison == NAN_REWARD) in (0, 1)
    assert memory.counter == counter
    lost = memory._range()[0] - first  # by what was written over
    priorities = memory.priorities
    assert priorities is not None
    windows = memory._slot(*memory._windows())
    assert sorted(windows) == np.flatnonzero(priorities.values()).tolist()
    assert (lost == 0).all() if size == 500 else (lost <= 6).all()
    assert len(memory) == int(memory._steps().sum())
    assert all(x.isfinite().all() for p in memory.parts.values() for x in (p.obs, p.reward))
    for i in range(2):
        now = held(memory, "", i)
        gone = int(lost[i]) * memory._stride
        for name in ("obs", "reward", "action", "start", "exists", "terminated"):
            theirs = before[i][name][gone:-1] if name != "obs" else before[i][name][gone:]
            assert torch.equal(now[name][: len(theirs)], theirs[: len(now[name])]), name
        # What was open is cut, and what it led to is known.
        if not before[i]["start"][-1] and before[i]["active"][-1]:
            assert now["truncated"][-2]
            assert now["final"][-1]
    collect_rollouts_recurrent(agent, env, 8)
    for i in range(2):
        now = held(memory, "", i)
        assert now["start"][-9:].any()
    assert len(memory) == int(memory._steps().sum())


def test_bad_input_is_found_before_it_is_overwritten() -> None:
    """In collections that are longer than the memory, too; and named with its step."""
    env = scripted(["100t", "2l 100t"], poisons={1: {5: np.nan}})
    agent = make_off_policy("dqn", env, memory_size=4)
    with pytest.raises(ValueError, match="from environment 1 at step 5 of"):
        collect_rollouts_recurrent(agent, env, 90)
    assert len(agent.memory) == agent.memory.counter == 0
    with pytest.raises(RuntimeError, match="expected steps to sample from, got none"):
        agent.memory.sample(1, torch.Generator())
    collect_rollouts_recurrent(agent, env, 90)
    assert agent.memory.counter == 180


def test_bad_final_observations_are_named() -> None:
    env = scripted(["100t", "2l 100t"], poisons={1: {2: np.inf}})
    agent = make_off_policy("dqn", env)
    with pytest.raises(ValueError, match=r"^final observation.*from environment 1 at step 1 of"):
        collect_rollouts_recurrent(agent, env, 5)
    assert agent.memory.counter == 0


# --- teams ------------------------------------------------------------------------------------

SCRIPTS: list[list[Episode]] = [
    [
        # Dies, is cut alone while others go on, comes late.
        {"bob_0": [(0, 5, "t")], "bob_1": [(0, 2, "t")], "eve_0": [(0, 3, "l")]},
        {"bob_0": [(0, 2, "l"), (4, 6, "b")], "bob_1": [(1, 6, "l")], "eve_0": [(3, 5, "t")]},
    ],
    [
        {"bob_0": [(0, 1, "l")], "bob_1": [(0, 4, "l")], "eve_0": [(1, 4, "l")]},
        {"bob_0": [(0, 3, "t")], "bob_1": [(0, 3, "t")], "eve_0": [(0, 3, "l")]},
    ],
]


def lived(env: ScriptedParallel, steps: int) -> list[dict[str, dict[str, Any]]]:
    """What should be remembered of each agent at each place, from the script alone."""
    left = {agent: list(actions) for agent, actions in env.received.items()}
    places: list[dict[str, dict[str, Any]]] = []
    episode = time = 0
    last: dict[str, Any] = {}
    for step in range(steps + 1):
        place, final = {}, {}
        for agent in env.possible_agents:
            lives = [x for x in env.lives_of(agent, episode) if x[0] <= time < x[1]]
            if not lives:
                continue
            enter, leave, how = lives[0]
            moment = [(agent, episode, time), (agent, time)]
            seen = not any(m in env.absent for m in moment)
            forced = any(m in env.defined for m in moment)
            if time == enter:
                last[agent] = None
            place[agent] = {
                "exists": seen,
                "active": seen and not forced,
                "start": seen and time == enter,
                "obs": env.observation_of(agent, episode, time) if seen else None,
                "last": last[agent] if seen else None,
            }
            if step == steps:
                continue
            action = left[agent].pop(0)
            ends = leave == time + 1
            place[agent] |= {
                "action": action if seen else None,
                "reward": env.reward_of(agent, episode, time + 1, action),
                "terminated": ends and how in "tb",
                "truncated": ends and how in "lb",
            }
            last[agent] = action if seen else last[agent]
            hidden = (agent, time + 1) in env.absent
            if ends and how == "l" and not hidden:
                shown = env.observation_of(agent, episode, time + 1)
                final[agent] = {"exists": True, "active": False, "start": False, "obs": shown}
                final[agent] |= {"last": last[agent]}
        places.append(place)
        if final:
            places.append({"final": {}, **final})
        time += 1
        plays = env.episodes[episode % len(env.episodes)]
        if time == max(leave for lives in plays.values() for _, leave, _ in lives):
            episode, time, last = episode + 1, 0, {}
    assert not any(left.values())
    return places


def assert_lived(agent: Any, env: int, places: list[Any]) -> None:
    """An environment's part of a team's memory is what should be there."""
    for name, trainer in agent.trainers.items():
        ours, group = held(agent.memory, name, env), trainer.group
        assert len(ours["obs"]) == len(places)
        for t, place in enumerate(places):
            assert (ours["final"][t] == ("final" in place)).all()
            for i, who in enumerate(group.agents):
                where = f"{who} at place {t} of environment {env}"
                expected = place.get(who, {})
                for flag in ("exists", "active", "start", "terminated", "truncated"):
                    assert bool(ours[flag][t, i]) == expected.get(flag, False), (flag, where)
                close(ours["reward"][t, i], expected.get("reward", 0), f"reward of {where}")
                if not expected.get("exists"):
                    continue
                close(ours["obs"][t, i], expected["obs"], where)
                before = expected["last"]
                shown = ours["extra"][t, i, : group.policy.actions.features]
                code = torch.zeros(()) if before is None else encoded(group, before)
                close(shown, code.expand_as(shown), f"last action of {where}")
                if expected.get("action") is not None:
                    action = group.policy.actions.to_env(ours["action"][t, i][None])[0]
                    close(action, expected["action"], f"action of {where}")


def encoded(group: Any, action: Any) -> Tensor:
    """An action of the environment's as the policy sees its last one."""
    actions = group.policy.actions
    encoded: Tensor = actions.encode(actions.from_env(np.asarray(action)[None]))[0]
    return encoded


@pytest.mark.parametrize("pieces", [[1] * 22, [22], [9, 13]], ids=len)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"action": {"bob": "box", "eve": "discrete"}, "observation": {"bob": "wide", "eve": "box"}},
        {"absent": [("bob_0", 1), ("eve_0", 2)], "defined": {("bob_1", 1): 2, ("bob_0", 0): 3}},
    ],
    ids=["plain", "spaces", "absent and forced"],
)
def test_every_transition_of_a_team_is_remembered_once(
    options: dict[str, Any], pieces: list[int]
) -> None:
    env = SyncMultiAgentVectorEnv(scripted_makers(SCRIPTS, **options))
    agent = make_off_policy(
        "maddpg", env, previous_action=True, previous_reward=True, squash_output=False
    )
    for steps in pieces:
        collect_rollouts_recurrent(agent, env, steps)
    assert len(agent.memory) == agent.memory.counter == 44
    for i, each in enumerate(env.envs):
        assert_lived(agent, i, lived(each, 22))


def test_bad_input_of_an_agent_loses_nothing_that_was_remembered() -> None:
    """Of all groups; whose last observation is known, and who was not asked, is left alone."""
    env = SyncMultiAgentVectorEnv(scripted_makers(SCRIPTS))
    agent = make_off_policy("maddpg", env, memory_size=60)
    collect_rollouts_recurrent(agent, env, 10)
    memory = agent.memory
    before = {n: [held(memory, n, i) for i in range(2)] for n in agent.trainers}
    inner = env.envs[0]
    inner.poison = {("eve_0", inner.episode + 2, 4): np.nan}
    with pytest.raises(ValueError, match=r"observation.*agent 'eve_0' in environment 0 at step"):
        collect_rollouts_recurrent(agent, env, 25)
    inner.poison = {}
    assert memory.counter == 20
    assert len(memory) == int(memory._steps().sum())
    for name, environments in before.items():
        for i, was in enumerate(environments):
            now = held(memory, name, i)
            # The places that the failed collection wrote over are those of the oldest.
            common = min(len(was["obs"]), len(now["obs"]))
            alive = was["exists"][-1] & ~was["start"][-1]
            cut = bool(now["final"][-1].all())
            for field in ("obs", "reward", "action", "active", "start"):
                theirs = was[field][:-1]
                ours = now[field][:-1] if cut else now[field]
                ours = ours[-min(common - 1, len(ours)) :]
                assert torch.equal(ours, theirs[len(theirs) - len(ours) :]), (name, i, field)
            assert torch.equal(now["truncated"][-2] & alive, alive & ~was["terminated"][-2])
    collect_rollouts_recurrent(agent, env, 22)
    assert memory.counter == 64


def test_places_are_not_mixed_between_agents_and_environments() -> None:
    """Two environments that play the same in different order have the same agents' lives."""
    env = SyncMultiAgentVectorEnv(scripted_makers([SCRIPTS[0], SCRIPTS[0]]))
    agent = make_off_policy("maddpg", env)
    collect_rollouts_recurrent(agent, env, 22)
    for name in agent.trainers:
        ours, theirs = held(agent.memory, name, 0), held(agent.memory, name, 1)
        for field in ("start", "exists", "active", "terminated", "truncated", "final"):
            assert torch.equal(ours[field], theirs[field])
        assert not torch.equal(ours["obs"], theirs["obs"])  # they know their environment


@pytest.mark.parametrize("pieces", [[1] * 20, [20]], ids=len)
def test_turns_are_remembered(pieces: list[int]) -> None:
    """Who acts is there, the others are not; rewards between two turns are each agent's own."""
    script = "5t 4l"
    env = SyncMultiAgentVectorEnv([lambda: TurnTaking(script, 3, 0, masks="info")])
    agent = make_off_policy("maddpg", env)
    for steps in pieces:
        collect_rollouts_recurrent(agent, env, steps)
    (inner,), (ours,) = [x.unwrapped for x in env.envs], [held(agent.memory, "player", 0)]
    left = {name: list(actions) for name, actions in inner.received.items()}
    place = 0
    for k in range(20):
        episode, turn = 2 * (k // 9) + (k % 9 >= 5), (k % 9) - 5 * (k % 9 >= 5)
        limit = (5, 4)[episode % 2]
        who = turn % 3
        flags = [i == who for i in range(3)]
        assert ours["exists"][place].tolist() == ours["active"][place].tolist() == flags
        assert ours["start"][place].tolist() == [i == who and turn == i for i in range(3)]
        name = f"player_{who}"
        close(ours["obs"][place, who], inner.observation_of(name, episode, turn))
        assert (
            ours["action_mask"][place, who].tolist() == inner.mask_of(name, episode, turn).tolist()
        )
        action = left[name].pop(0)
        assert ours["action"][place, who] == action - 1
        for i in range(3):
            reward = inner.reward_of(f"player_{i}", episode, turn + 1, action)
            close(ours["reward"][place, i], reward)
            # All are told of the end who had a turn, or were to have one.
            assert bool(ours["terminated"][place, i]) == (turn + 1 == limit == 5)
            assert bool(ours["truncated"][place, i]) == (turn + 1 == limit == 4)
        place += 1
        if turn + 1 == limit == 4:
            assert ours["final"][place].all()
            assert ours["exists"][place].all()
            for i in range(3):
                final = inner.observation_of(f"player_{i}", episode, 4)
                close(ours["obs"][place, i], final)
            place += 1
    assert place + 1 == len(ours["obs"])
    assert agent.memory.gap >= 3  # places between two turns of a player


class KeepsTheDead(ParallelEnv[str, Any, Any]):
    """Terminates bob_1 in its second step, and lists and shows it until the episode ends."""

    metadata: ClassVar[dict[str, Any]] = {"name": "keeps_the_dead_v0", "render_modes": []}
    render_mode = None

    def __init__(self) -> None:
        self.possible_agents = ["bob_0", "bob_1"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return Box(-9, 9, (1,))

    def action_space(self, agent: str) -> Any:
        return Discrete(2)

    def _result(self) -> dict[str, Any]:
        return {agent: np.array([self.time], np.float32) for agent in self.possible_agents}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents, self.time = list(self.possible_agents), 0
        return self._result(), {}

    def step(self, actions: Any) -> Any:
        self.time += 1
        is_over = self.time == 4
        terminated = {"bob_0": is_over, "bob_1": self.time >= 2}
        if is_over:
            self.agents = []
        limits = dict.fromkeys(self.possible_agents, False)
        return self._result(), {"bob_0": 1.0}, terminated, limits, {}


@pytest.mark.parametrize("pieces", [[1] * 12, [12], [3, 9]], ids=len)
def test_steps_that_never_were_are_taken_back(pieces: list[int]) -> None:
    """Of agents that had ended before, but were listed and shown something."""
    env = SyncMultiAgentVectorEnv([KeepsTheDead])
    agent = make_off_policy("maddpg", env)
    for steps in pieces:
        collect_rollouts_recurrent(agent, env, steps)
    ours = {k: x[:12].unflatten(0, (3, 4)) for k, x in held(agent.memory, "bob", 0).items()}
    yes, no = [[True] * 2] * 3, [[False] * 2] * 3
    for flag in ("exists", "active"):
        assert ours[flag][..., 0].all()
        assert ours[flag][:, :2, 1].tolist() == yes
        assert ours[flag][:, 2:, 1].tolist() == no
    assert ours["start"][..., 1].tolist() == [[True, False, False, False]] * 3
    assert ours["terminated"][:, 1, 1].all()


def test_gap_counts_places_until_the_next_decision_or_the_end() -> None:
    """Otherwise targets of some decisions would lie behind all windows."""
    all_stay: Episode = {name: [(0, 5, "l")] for name in ("bob_0", "bob_1", "eve_0")}
    one_leaves: Episode = {**all_stay, "bob_1": [(0, 2, "l")]}
    for plays, options, gap in (
        # bob_1's final observation comes between two decisions of the others.
        (one_leaves, {}, 2),
        # Nobody asks bob_0 any more in its last steps; then it ends.
        (one_leaves, {"defined": {("bob_0", k): 1 for k in (2, 3, 4)}}, 5),
        # It is not seen for a while, among others that act; then all do.
        (one_leaves, {"absent": [("bob_0", k) for k in (1, 2, 3)]}, 5),
        (all_stay, {"absent": [("bob_0", k) for k in (1, 2, 3)]}, 4),
    ):
        env = SyncMultiAgentVectorEnv(scripted_makers([[plays]], **options))
        agent = make_off_policy("maddpg", env)
        collect_rollouts_recurrent(agent, env, 11)
        assert agent.memory.gap == gap
        assert_every_decision_known(agent)


def assert_every_decision_known(agent: Any) -> None:
    """With windows of one place, each finished decision's outcome lies within some window."""
    memory: SequenceReplayBuffer = agent.memory
    assert memory.layout is not None
    length = memory.layout.length
    for env in range(memory.envs):
        first, end = (int(x[env]) for x in memory._range())
        for chunk in range(first, end):
            time = np.arange(chunk * memory._stride, chunk * memory._stride + length)
            for name, part in memory.parts.items():
                windows = memory._gather(
                    np.array([env]), time[:1], (0, length, memory.gap), None, np.array([0])
                ).groups[name]
                known = Replayed(windows, 0, length, torch.device("cpu")).targets(0.9, 1).known
                decided = (windows.active & windows.exists)[:length]
                # All are known but for what is still going on.
                recent = torch.from_numpy(time)[:, None] >= memory.written[env] - memory.gap - 1
                assert (known == decided)[~recent.expand_as(known)].all()
                assert part.size == known.shape[1]


@settings(max_examples=examples(15))
@given(seed=SEEDS, length=st.integers(1, 6))
def test_any_script_and_any_pieces(seed: int, length: int) -> None:
    random = np.random.default_rng(seed)
    scripts = [
        " ".join(f"{random.integers(1, 6)}{random.choice(list('tlb'))}" for _ in range(5))
        for _ in range(int(random.integers(1, 4)))
    ]
    mode = MODES[random.integers(3)]
    env = scripted(scripts, mode)
    agent = make_off_policy(
        "dqn", env, max_seq_len=length, recurrent=bool(length > 1), previous_action=True
    )
    pieces = random.integers(1, 9, size=4).tolist()
    for steps in pieces:
        collect_rollouts_recurrent(agent, env, steps)
    for i, script in enumerate(scripts):
        actions = env.envs[i].unwrapped.received
        assert_played_without_reward(
            agent, i, played(Scripted(script, i), actions, sum(pieces), mode)
        )


def assert_played_without_reward(agent: Any, env: int, places: list[Any]) -> None:
    """The same for an agent that sees its last action, but no reward."""
    assert_played(agent, env, [{**p, "extra": p["extra"][:-1]} for p in places])


@pytest.mark.parametrize("mode", MODES)
def test_statistics_take_each_observation_once(mode: AutoresetMode) -> None:
    """That of the next step is for the next collection; those that end lives count too."""
    env = scripted(["3t 2l 4b 1l", "2l 1t 6l"], mode)
    agent = make_off_policy("dqn", env, normalize_obs=True)
    for steps in (1, 20, 3):
        collect_rollouts_recurrent(agent, env, steps)
    seen = [held(agent.memory, "", i)["obs"][:-1, 0] for i in range(2)]
    norm = agent.policy.preprocessor.norm
    assert norm is not None
    assert float(norm.count) == pytest.approx(sum(map(len, seen)), abs=1e-3)
    torch.testing.assert_close(norm.mean.float(), torch.cat(seen).mean(0), rtol=1e-4, atol=1e-4)
