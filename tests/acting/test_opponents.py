"""Tests of `recurrent_rl.acting.opponents` and `against_pool`: past selves on the other sides."""

import csv
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.agents import make_team, team_weights
from support.multi_envs import ScriptedParallel, TurnTaking, scripted_makers

from recurrent_rl import (
    IPPO,
    MAPPO,
    OpponentPool,
    SyncMultiAgentVectorEnv,
    collect_rollouts_recurrent,
    train_multi_agent_on_policy,
)

KINDS = pytest.mark.parametrize("kind", [IPPO, MAPPO])
ALL = [(0, 3, "l")]
SCRIPTS: list[list[dict[str, Any]]] = [
    [{"bob_0": ALL, "bob_1": ALL, "fred_0": [(0, 1, "t"), (2, 3, "l")]}],
    [{"bob_0": [(1, 4, "t")], "bob_1": [(0, 4, "l")], "fred_0": [(0, 4, "b")]}],
    [{"bob_0": [(0, 2, "t")], "bob_1": [(0, 2, "t")], "fred_0": [(0, 2, "t")]}],
]
SIDES = [["bob_0", "fred_0"], ["bob_1"]]


def parallel(**options: Any) -> SyncMultiAgentVectorEnv:
    return SyncMultiAgentVectorEnv(scripted_makers(SCRIPTS, **options))


def turns(**options: Any) -> SyncMultiAgentVectorEnv:
    scripts = ["5t 4l", "7t", "3b 6t"]
    return SyncMultiAgentVectorEnv(
        [functools.partial(TurnTaking, script, 2, i, **options) for i, script in enumerate(scripts)]
    )


def team(env: Any, kind: Any = IPPO, pool: OpponentPool | None = None, **options: Any) -> Any:
    agent = make_team(env, kind=kind, **{"learn_step": 9, "previous_action": True, **options})
    agent.opponents = pool
    return agent


def train(agent: Any, env: Any, rollouts: int) -> None:
    for _ in range(rollouts):
        collect_rollouts_recurrent(agent, env)
        agent.learn()


# --- who plays, and who learns -----------------------------------------------------------------


@pytest.mark.parametrize(("make", "sides"), [(parallel, SIDES), (turns, None)])
@KINDS
def test_rows_of_opponents_are_never_trained_on(make: Any, sides: Any, kind: Any) -> None:
    """Of each environment one side learns in an episode, and the sides take turns."""
    env = make()
    pool = OpponentPool(past=1.0, every=30, sides=sides, seed=0)
    agent = team(env, kind, pool)
    learned: list[dict[frozenset[str], int]] = [{} for _ in range(env.num_envs)]
    for _ in range(8):
        collect_rollouts_recurrent(agent, env)
        agent.learn()
        buffers = [(group, group.buffer) for group in agent.groups]
        for e in range(env.num_envs):
            for t in range(9):
                acting = {
                    name
                    for group, buffer in buffers
                    for i, name in enumerate(group.agents)
                    if (buffer.active & buffer.exists)[buffer.lead + t, e * group.size + i]
                }
                for side in sides or [[name] for name in agent.agent_ids]:
                    if acting and acting <= set(side):
                        key = frozenset(side)
                        learned[e][key] = learned[e].get(key, 0) + 1
                        break
                else:
                    assert not acting, acting
    for each in learned:  # in steps, of episodes of different lengths
        counts = list(each.values())
        assert len(counts) == 2
        assert max(counts) < 2.5 * min(counts)
    assert len(pool.snapshots) > 3


@pytest.mark.parametrize("make", [parallel, turns])
def test_opponents_play_as_the_snapshot_would(make: Any) -> None:
    """With a memory of their own that begins with each match, beside whoever they play."""
    env = make()
    sides = SIDES if make is parallel else None
    pool = OpponentPool(past=1.0, every=10**6, sides=sides, seed=0)
    agent = team(env, pool=pool, learn_step=30)
    before = agent.clone()
    before.opponents = None
    agent.rows_to_learn_in(env)  # the first snapshot is taken where collection looks at them
    for group in pool.snapshots[0].groups:  # without noise, so that it plays its best moves
        distribution = group.policy.distribution
        shape_of = distribution.noise
        distribution.noise = lambda shape, generator, noise=shape_of: torch.zeros_like(
            noise(shape, generator)
        )
    collect_rollouts_recurrent(agent, env)
    for name in agent.agent_ids:
        group_name = agent.get_group_id(name)
        group, buffer = agent.trainers[group_name].group, agent.trainers[group_name].buffer
        i = group.agents.index(name)
        for e in range(env.num_envs):
            row = e * group.size + i
            state = before.get_initial_hidden_state(1)[name]
            checked = 0
            for t in range(30):
                if not buffer.exists[t, row]:
                    continue
                if buffer.start[t, row]:
                    state = before.get_initial_hidden_state(1)[name]
                seen = {name: buffer.obs[t, row].numpy()}
                out = before.get_action(seen, {name: state}, deterministic=True)
                if not buffer.active[t, row]:
                    stored = int(buffer.action[t, row])
                    assert stored + 1 == out.action[name], (name, e, t)
                    state = out.hidden_state[name]
                    checked += 1
            assert checked


def test_environments_get_the_moves_of_opponents() -> None:
    env = parallel(action={"bob": "discrete", "fred": "box"})
    pool = OpponentPool(past=1.0, every=10**6, sides=SIDES, seed=0)
    agent = team(env, pool=pool)
    collect_rollouts_recurrent(agent, env)
    buffer = agent.trainers["bob"].buffer
    for e, one in enumerate(env.envs):
        for i, name in enumerate(("bob_0", "bob_1")):
            row = 2 * e + i
            stored = buffer.action[buffer.exists[:, row], row] + 1
            assert [int(a) for a in one.received[name][: len(stored)]] == stored.tolist()


@pytest.mark.parametrize("make", [parallel, turns])
@KINDS
def test_nobody_from_the_past_is_as_if_there_were_no_pool(make: Any, kind: Any) -> None:
    ended = []
    for pool in (None, OpponentPool(past=0.0, every=20, seed=0)):
        env = make()
        agent = team(env, kind, pool)
        train(agent, env, 4)
        ended.append(team_weights(agent))
    assert all(torch.equal(x, ended[1][name]) for name, x in ended[0].items())


def test_only_learners_take_turns() -> None:
    env = turns()
    pool = OpponentPool(past=1.0, learners=["player_1"], seed=0)
    agent = team(env, pool=pool)
    for _ in range(3):
        collect_rollouts_recurrent(agent, env)
        buffer = agent.trainers["player"].buffer
        active = (buffer.active & buffer.exists)[buffer.lead :]
        assert active[:, 1::2].any()
        assert not active[:, ::2].any()
        agent.learn()


def test_snapshots_stay_as_they_were() -> None:
    env = turns()
    pool = OpponentPool(size=3, every=20, seed=0)
    agent = team(env, pool=pool, lr=0.1)
    train(agent, env, 1)
    first = pool.snapshots[0].groups[0].policy.state_dict()
    kept = {name: x.clone() for name, x in first.items()}
    train(agent, env, 5)
    assert all(torch.equal(x, kept[name]) for name, x in first.items())
    assert not any(torch.equal(x, kept[n]) for n, x in agent.groups[0].policy.named_parameters())
    # The first stays; of the others the oldest has gone.
    assert [one.number for one in pool.snapshots] == [0, pool.taken - 2, pool.taken - 1]
    assert pool.taken > 4


# --- choice, record, ratings -------------------------------------------------------------------


def filled(choose: Any, rates: list[float]) -> OpponentPool:
    env = turns()
    agent = team(env)
    pool = OpponentPool(choose=choose, past=1.0, seed=0)
    for rate in rates:
        snapshot = pool.add(agent.groups, 0)
        snapshot.weight, snapshot.score = 1e9, rate * 1e9
    return pool


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        ("latest", [0, 0, 1]),
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("hard", [0.01 / 0.9, 0.64 / 0.9, 0.25 / 0.9]),
    ],
)
def test_choice(choose: Any, expected: list[float]) -> None:
    pool = filled(choose, [0.9, 0.2, 0.5])
    drawn = [pool.draw() for _ in range(3000)]
    share = np.bincount(drawn, minlength=3) / 3000
    np.testing.assert_allclose(share, expected, atol=0.03)  # 3.3 deviations at a half


def test_share_of_the_past() -> None:
    pool = filled("uniform", [0.5])
    pool.past = 0.25
    drawn = np.array([pool.draw() for _ in range(3000)])
    assert (drawn == -1).mean() == pytest.approx(0.75, abs=0.03)


def test_record_and_ratings_by_hand() -> None:
    pool = filled("uniform", [0.5, 0.5])
    for snapshot in pool.snapshots:
        snapshot.weight = snapshot.score = 0.0
    pool.note(0, 1.0)
    assert (pool.elo, pool.snapshots[0].elo) == (1008.0, 992.0)
    assert pool.snapshots[0].win_rate == pytest.approx(2 / 3)
    pool.note(0, 0.5)
    expected = 1 / (1 + 10 ** ((992 - 1008) / 400))
    assert pool.elo == pytest.approx(1008 + 16 * (0.5 - expected))
    assert pool.snapshots[0].win_rate == pytest.approx((0.98 + 0.5 + 1) / (0.98 + 1 + 2))
    assert pool.snapshots[1].games == 0
    said = pool.metrics()
    assert said["elo"] == pool.elo
    assert said["win_rate"] == said["win_rate_least"] == pool.snapshots[0].win_rate
    assert "the learner's Elo 1008" in repr(pool)
    assert len(repr(pool).splitlines()) == 3


class Duel(ScriptedParallel):
    """Two agents, of whom the first always wins."""

    def _reward(self, agent: str, action: Any) -> float:
        return {"bob_0": 1.0, "bob_1": -1.0}[agent]


def test_games_are_counted_for_the_side_that_learns() -> None:
    lives = {"bob_0": ALL, "bob_1": ALL}
    env = SyncMultiAgentVectorEnv([functools.partial(Duel, [lives], i) for i in range(2)])
    pool = OpponentPool(past=1.0, seed=0)
    agent = team(env, pool=pool, learn_step=12)
    collect_rollouts_recurrent(agent, env)
    (snapshot,) = pool.snapshots
    # Four episodes each; as they take turns, the learner has won every second one.
    assert snapshot.games == 8
    assert snapshot.win_rate == pytest.approx(0.5, abs=0.03)


@pytest.mark.filterwarnings("ignore:fitness")
def test_ratings_are_logged_and_go_on_in_a_resumed_run(tmp_path: Path) -> None:
    logged = []
    for stop in (None, 108):
        folder = tmp_path / str(stop)
        env = turns()
        agent = team(env, pool=OpponentPool(past=1.0, every=40, seed=0))
        options: dict[str, Any] = {
            "evo_steps": 54,
            "checkpoint": 54,
            "checkpoint_path": folder / "run.pt",
            "log_dir": folder,
            "verbose": False,
        }
        folder.mkdir()
        for end in (stop, 216):
            if end is not None:
                resume = folder / "run.pt" if end == 216 and stop else None
                train_multi_agent_on_policy(
                    env, "turns", "IPPO", [agent], max_steps=end, resume=resume, **options
                )
        with (folder / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        logged.append([row["member_0/opponents/elo"] for row in rows])
        assert 0 <= float(rows[-1]["member_0/opponents/win_rate"]) <= 1
    assert logged[0] == logged[1]
    assert len(set(logged[0])) > 2


# --- saving, and what is refused ---------------------------------------------------------------


@pytest.mark.parametrize("make", [parallel, turns])
@KINDS
def test_going_on_from_a_checkpoint_is_exact(make: Any, kind: Any, tmp_path: Path) -> None:
    ended = []
    for saves in (False, True):
        env = make()
        agent = team(env, kind, OpponentPool(size=3, every=40, past=0.7, seed=1), learn_step=7)
        for i in range(6):
            collect_rollouts_recurrent(agent, env, reset=False if i else None)
            agent.learn()
            if saves:
                agent.save_checkpoint(tmp_path / "agent.pt")
                agent = kind.load(tmp_path / "agent.pt")
        ended.append((team_weights(agent), agent.opponents.table(), agent.opponents.elo))
    assert ended[0][1:] == ended[1][1:]
    assert all(torch.equal(x, ended[1][0][name]) for name, x in ended[0][0].items())


def test_children_draw_for_themselves() -> None:
    env = turns()
    agent = team(env, pool=OpponentPool(past=0.5, every=20, seed=0))
    train(agent, env, 2)
    children = [agent.offspring(i) for i in (5, 6)]
    pools = [child.opponents for child in children]
    assert all(pool is not None and pool is not agent.opponents for pool in pools)
    drawn = [[pool.draw() for _ in range(40)] for pool in pools if pool is not None]
    assert drawn[0] != drawn[1]


def test_a_pool_that_comes_in_the_midst_of_episodes_begins_with_the_next() -> None:
    env = turns()
    agent = team(env)
    collect_rollouts_recurrent(agent, env, 2)
    agent.opponents = OpponentPool(past=1.0, seed=0)
    collect_rollouts_recurrent(agent, env, 1)
    buffer = agent.trainers["player"].buffer
    assert torch.equal(buffer.decided(), buffer.exists)
    collect_rollouts_recurrent(agent, env, 20)
    buffer = agent.trainers["player"].buffer
    assert not torch.equal(buffer.decided(), buffer.exists)


def test_a_pool_is_one_agents() -> None:
    agents = [team(turns()) for _ in range(2)]
    pool = OpponentPool()
    for _ in range(2):
        agents[0].opponents = pool
    with pytest.raises(ValueError, match="opponents: expected a pool of this agent's own"):
        agents[1].opponents = pool
    agents[0].opponents = None
    agents[1].opponents = pool
    assert agents[1].opponents is pool


def test_testing_is_among_the_present() -> None:
    env = turns()
    agent = team(env, pool=OpponentPool(past=1.0, seed=0))
    train(agent, env, 1)
    games = agent.opponents.snapshots[0].games
    agent.evaluate(env, 4)
    assert agent.opponents.snapshots[0].games == games


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"size: expected"),
        ({"every": 0}, r"every: expected"),
        ({"past": 1.5}, r"past: expected"),
        ({"choose": "best"}, r"choose: expected"),
        ({"sides": [["a"]]}, r"sides: expected at least two lists"),
        ({"sides": [["a"], ["a", "b"]]}, r"sides: expected at least two lists"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpponentPool(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sides": [["player_0"], ["eve"]]}, r"sides: .*missing: \['eve', 'player_1'\]"),
        ({"learners": ["eve"]}, r"learners: .*unknown: \['eve'\]"),
        ({"learners": []}, r"learners: expected some of"),
    ],
)
def test_pools_of_others_are_refused(options: dict[str, Any], message: str) -> None:
    agent = team(turns())
    with pytest.raises(ValueError, match=message):
        agent.opponents = OpponentPool(**options)
    with pytest.raises(TypeError, match=r"opponents: expected an OpponentPool or None"):
        agent.opponents = "random"
    assert agent.opponents is None
