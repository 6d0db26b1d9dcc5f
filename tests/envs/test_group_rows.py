"""Tests of `recurrent_rl.envs.group_rows`: a vector of environments as rows, row e * A + a."""

from typing import Any

import numpy as np
import pytest
from support.multi_envs import ScriptedParallel, TurnTaking, scripted_makers

from recurrent_rl import SyncMultiAgentVectorEnv
from recurrent_rl.envs.group_rows import GroupRows
from recurrent_rl.envs.rows import Observed, Outcome

PLAY = {
    "bob_0": [(0, 2, "t"), (3, 5, "l")],
    "fred_0": [(0, 5, "l")],
    "bob_1": [(1, 4, "b")],
    "bob_2": [(0, 1, "l"), (2, 5, "l")],
}
LONG = {agent: [(0, 99, "t")] for agent in PLAY}
EVERYBODY = list(PLAY)
BY_NAME = [["bob_0", "bob_1", "bob_2"], ["fred_0"]]
ONE_BLOCK = [EVERYBODY]
MIXED = [["bob_2", "fred_0"], ["bob_1", "bob_0"]]
ALONE = [[agent] for agent in EVERYBODY]
BACKWARDS = [EVERYBODY[::-1]]
GROUPS = pytest.mark.parametrize("groups", [BY_NAME, ONE_BLOCK, MIXED, ALONE, BACKWARDS])


class Rows:
    """Rows of two scripted environments, read by environment and agent."""

    def __init__(self, groups: Any, team_reward: Any = None, **options: Any) -> None:
        self.groups = groups
        self.vector = SyncMultiAgentVectorEnv(scripted_makers([[PLAY, LONG], [LONG]], **options))
        self.rows = GroupRows(self.vector, groups, team_reward)
        self.observed = self.rows.reset(5)
        self.outcomes: list[Outcome] = []

    def step(self) -> None:
        """Step with actions that tell environments and agents apart."""
        actions = [
            np.array([self.action(e, agent) for e in range(2) for agent in group])
            for group in self.groups
        ]
        stepped = self.rows.step(actions, self.observed)
        self.outcomes, self.observed = (list(part) for part in zip(*stepped, strict=True))

    @staticmethod
    def action(e: int, agent: str) -> int:
        return -1 + (e + EVERYBODY.index(agent)) % 5

    def of(self, found: Any, name: str, e: int, agent: str, usual: Any = None) -> Any:
        """A field's row of an agent; ``usual`` where the field is None."""
        for group, each in zip(self.groups, found, strict=True):
            if agent in group:
                field = getattr(each, name)
                assert field is None or len(field) == 2 * len(group)
                return usual if field is None else field[e * len(group) + group.index(agent)]
        raise AssertionError(agent)


@GROUPS
@pytest.mark.parametrize("reuse", [False, True])
def test_rows_are_environments_and_agents_whatever_the_groups(groups: Any, reuse: bool) -> None:
    rows = Rows(groups, action="many", masks="observation", reuse=reuse)
    envs = rows.vector.envs
    for env in envs:
        env._check_action = lambda *_: None  # masks are not obeyed here
    for step in range(9):
        time, episode = [step % 5, step], [step // 5, 0]
        for e, env in enumerate(envs):
            for agent in EVERYBODY:
                lives = env.lives_of(agent, episode[e])
                there = any(a <= time[e] < b for a, b, _ in lives)
                begins = any(a == time[e] for a, _, _ in lives)
                shown = env.observation_of(agent, episode[e], time[e])
                where = rows.observed, "observation", e, agent
                expected = shown["observation"] if there else np.zeros(3)
                np.testing.assert_array_equal(rows.of(*where), expected)
                found = [
                    bool(rows.of(rows.observed, name, e, agent, usual))
                    for name, usual in (("exists", True), ("active", True), ("start", False))
                ]
                assert found == [there, there, begins]
                if there:
                    mask = rows.of(rows.observed, "action_mask", e, agent)
                    np.testing.assert_array_equal(mask, shown["action_mask"].astype(bool))
        rows.step()
        for e, env in enumerate(envs):
            for agent in EVERYBODY:
                lives = env.lives_of(agent, episode[e])
                there = any(a <= time[e] < b for a, b, _ in lives)
                how = next((how for _, b, how in lives if b == time[e] + 1), "")
                reward = rows.action(e, agent)
                expected = env.reward_of(agent, episode[e], time[e] + 1, reward) if there else 0
                assert rows.of(rows.outcomes, "reward", e, agent) == expected
                assert rows.of(rows.outcomes, "terminated", e, agent) == (how in ("t", "b"))
                assert rows.of(rows.outcomes, "truncated", e, agent) == (how in ("l", "b"))
                assert rows.of(rows.outcomes, "ended", e, agent) == (e == 0 and step == 4)
                assert rows.of(rows.outcomes, "score", e, agent, "same") == "same"
                assert rows.of(rows.outcomes, "counted", e, agent, "all") == "all"
                final = final_of(rows, e, agent)
                assert (final is None) == (how != "l")
                if how == "l":
                    last = env.observation_of(agent, episode[e], time[e] + 1)["observation"]
                    np.testing.assert_array_equal(final, last)
    assert rows.vector.envs[0].episode == 1


def final_of(rows: Rows, e: int, agent: str) -> Any:
    """An agent's final observation, or None."""
    for group, outcome in zip(rows.groups, rows.outcomes, strict=True):
        if agent not in group:
            continue
        row = e * len(group) + group.index(agent)
        if row not in outcome.final_rows.tolist():
            return None
        assert outcome.final_observation is not None
        assert len(outcome.final_observation) == len(outcome.final_rows)
        return outcome.final_observation[outcome.final_rows.tolist().index(row)]
    raise AssertionError(agent)


def test_usual_fields_are_none() -> None:
    """What the common case does not need costs nothing."""
    rows = GroupRows(SyncMultiAgentVectorEnv(scripted_makers([[LONG]] * 2)), BY_NAME)
    first = rows.reset()
    assert all(seen.start is not None and seen.start.all() for seen in first)
    actions = [np.full(6, 1), np.full(2, 1)]
    for outcome, seen in rows.step(actions, first):
        assert set(seen[1:]) == {None}
        assert len(outcome.final_rows) == 0
        assert outcome.final_observation is None


@GROUPS
def test_defined_actions(groups: Any) -> None:
    rows = Rows(groups, action="many", defined={("bob_2", 0): 3, ("fred_0", 1): -1})
    for step, (agent, action) in enumerate([("bob_2", 3), ("fred_0", -1)]):
        for e in range(2):
            for other in EVERYBODY:
                forced = bool(rows.of(rows.observed, "forced", e, other, False))
                assert forced == (other == agent)
                exists = bool(rows.of(rows.observed, "exists", e, other, True))
                active = bool(rows.of(rows.observed, "active", e, other, True))
                assert active == (exists and other != agent)
            assert rows.of(rows.observed, "forced_action", e, agent) == action
        rows.step()
        for env in rows.vector.envs:
            assert env.received[agent][step] == action


@GROUPS
@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_team_reward(groups: Any, kind: str) -> None:
    ours, theirs = Rows(groups, kind, action="many"), Rows(groups, None, action="many")
    for step in range(5):
        for rows in (ours, theirs):
            rows.step()
        for e in range(2):
            own = {a: theirs.of(theirs.outcomes, "reward", e, a) for a in EVERYBODY}
            lives = {a: e == 1 or any(x <= step < y for x, y, _ in PLAY[a]) for a in EVERYBODY}
            together = sum(own.values()) / (sum(lives.values()) if kind == "mean" else 1)
            for agent in EVERYBODY:
                reward = ours.of(ours.outcomes, "reward", e, agent)
                assert reward == pytest.approx(together if lives[agent] else 0)
                assert ours.of(ours.outcomes, "score", e, agent) == own[agent]


def test_team_reward_over_spaces_of_several_kinds() -> None:
    kinds = {"bob": "box", "fred": "discrete"}
    env = SyncMultiAgentVectorEnv(scripted_makers([[LONG]], observation=kinds))
    rows = GroupRows(env, BY_NAME, "mean")
    (bobs, _), (fred, _) = rows.step([np.full(3, 2), np.full(1, 3)], rows.reset(0))
    assert bobs.score is not None
    assert fred.score is not None
    together = (bobs.score.sum() + fred.score.sum()) / 4
    assert [*bobs.reward, *fred.reward] == pytest.approx([together] * 4)


def test_team_reward_of_who_is_listed_but_shown_nothing() -> None:
    """It counts: in the sum, among those to divide by, and in the statistics."""
    env = SyncMultiAgentVectorEnv(
        scripted_makers([[{"bob_0": [(0, 9, "t")]}]], absent={("bob_0", k) for k in range(9)})
    )
    rows = GroupRows(env, [["bob_0"]], "mean")
    ((outcome, _),) = rows.step([np.full(1, 1)], rows.reset(0))
    assert outcome.score is not None
    assert outcome.reward[0] == outcome.score[0] != 0


def test_what_was_returned_does_not_change() -> None:
    """Flags and numbers are copies; observations and masks are read before the next step."""
    defined = {("bob_0", 1): 1, ("fred_0", 2): 2, ("fred_0", 4): 3}
    rows = Rows(ONE_BLOCK, "sum", action="many", defined=defined)
    kept: list[Any] = []
    for _ in range(8):
        rows.step()
        now = [*rows.outcomes, *(seen._replace(observation=None) for seen in rows.observed)]
        kept += [(each, [None if x is None else np.array(x) for x in each]) for each in now]
    for each, was in kept:
        for ours, then in zip(each, was, strict=True):
            np.testing.assert_array_equal(ours, then)


def test_each_environment_has_its_own_seed() -> None:
    makers = scripted_makers([[LONG]] * 3)
    env = SyncMultiAgentVectorEnv(makers)
    rows = GroupRows(env, BY_NAME)
    rows.reset(7)
    rows.reset()
    assert [single.seeds for single in env.envs] == [[7, None], [8, None], [9, None]]


@pytest.mark.parametrize(
    ("groups", "group", "row", "expected"),
    [
        (BY_NAME, 0, 0, "agent 'bob_0' in environment 0"),
        (BY_NAME, 0, 5, "agent 'bob_2' in environment 1"),
        (BY_NAME, 1, 1, "agent 'fred_0' in environment 1"),
        (MIXED, 1, 2, "agent 'bob_1' in environment 1"),
    ],
)
def test_names(groups: Any, group: int, row: int, expected: str) -> None:
    assert Rows(groups).rows.name(group, row) == expected


def test_turns() -> None:
    env = SyncMultiAgentVectorEnv([lambda i=i: TurnTaking("4l", 2, i) for i in range(2)])
    rows = GroupRows(env, [["player_0", "player_1"]])
    (seen,) = rows.reset(0)
    for turn in range(4):
        there = [turn % 2 == 0, turn % 2 == 1] * 2
        assert seen.exists is not None
        assert seen.exists.tolist() == there
        assert (seen.start is not None) == (turn < 2)
        ((outcome, seen),) = rows.step([np.array([1, 2, 3, 1])], [seen])
        for e in range(2):
            action = [[1, 2], [3, 1]][e][turn % 2]
            expected = [env.envs[e].reward_of(f"player_{i}", 0, turn + 1, action) for i in (0, 1)]
            assert outcome.reward[2 * e : 2 * e + 2].tolist() == expected
        assert outcome.ended is not None
        assert outcome.ended.tolist() == [turn == 3] * 4
    assert outcome.final_rows.tolist() == [0, 1, 2, 3]
    assert outcome.final_observation is not None
    for row, final in enumerate(outcome.final_observation):
        expected = env.envs[row // 2].observation_of(f"player_{row % 2}", 0, 4)
        np.testing.assert_array_equal(final, expected)


def test_observed_of_masks_in_some_environments_only() -> None:
    """Everything is allowed where none are given."""
    only = {1: {"masks": "info"}}
    env = SyncMultiAgentVectorEnv(scripted_makers([[LONG]] * 2, only, action="many"))
    rows = GroupRows(env, [EVERYBODY])
    (seen,) = rows.reset(0)
    assert isinstance(seen, Observed)
    assert seen.action_mask is not None
    assert seen.action_mask[:4].all()
    masks = [env.envs[1].mask_of(agent, 0, 0).astype(bool).tolist() for agent in EVERYBODY]
    assert seen.action_mask[4:].tolist() == masks
    assert isinstance(env.envs[1], ScriptedParallel)
