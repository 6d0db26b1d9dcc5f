"""Grouped IPPO on real PettingZoo environments, by small budgets: does everything fit together?"""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.utils import BaseWrapper
from support.agents import assert_same_weights, make_team, team_weights
from support.off_policy import make as make_off_policy
from support.recollected import acting_noted, assert_replays

from recurrent_rl import (
    IPPO,
    MADDPG,
    MATD3,
    AsyncMultiAgentVectorEnv,
    SyncMultiAgentVectorEnv,
)
from recurrent_rl import collect_rollouts_recurrent as collect
from recurrent_rl.algorithms.unroll import replay

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # theirs, on import

MakeEnv = Callable[[], Any]


def mpe(name: str, kind: str = "parallel_env", **options: Any) -> MakeEnv:
    """A particle environment; it counts cycles, so 10 of them end within a rollout."""
    pytest.importorskip("mpe2")
    make = getattr(importlib.import_module(f"mpe2.{name}"), kind)
    return lambda: make(max_cycles=10, **options)


def zoo(kind: str, name: str, *needed: str, **options: Any) -> MakeEnv:
    """One of PettingZoo's own, if it can make them by name and has what they need."""
    for package in needed:
        pytest.importorskip(package)
    make = getattr(importlib.import_module("pettingzoo"), "make", None)
    if make is None:
        pytest.skip("needs a PettingZoo that has pettingzoo.make")
    return lambda: make(kind, name, **options)


class Referee(BaseWrapper):
    """Lets no forbidden action pass; the environments themselves would only warn."""

    def step(self, action: Any) -> None:
        if action is not None:
            mask = self.observe(self.agent_selection)["action_mask"]
            assert mask[action], f"{self.agent_selection}: {action} is forbidden by {mask}"
        super().step(action)


def refereed(make: MakeEnv) -> MakeEnv:
    return lambda: Referee(make())


def check_rollout(agent: IPPO) -> None:
    """What holds of any rollout: the learner sees what acting saw, and nothing is missing."""
    for trainer in agent.trainers.values():
        buffer = trainer.buffer
        assert buffer is not None
        log_prob, value = replay(trainer.policy, buffer)
        taken = torch.isfinite(log_prob)
        assert torch.equal(taken, buffer.active & buffer.exists)
        # Images are many inputs, whose sums in another order differ by some 1e-5.
        torch.testing.assert_close(log_prob[taken], buffer.log_prob[taken], rtol=1e-4, atol=5e-5)
        torch.testing.assert_close(value[taken], buffer.value[taken], rtol=1e-4, atol=5e-5)
        assert torch.isfinite(buffer.reward).all()
        ended = buffer.terminated | buffer.truncated
        # A life begins where it did not go on, and only where there is something to see.
        assert not (buffer.start & ~buffer.exists).any()
        assert not (ended[:-1] & buffer.exists[1:] & ~buffer.start[1:]).any()
        if buffer.action_mask is not None:
            chosen = buffer.action_mask.gather(-1, buffer.action[..., None]).squeeze(-1)
            assert chosen[taken].all()


def run(
    make: MakeEnv,
    tmp_path: Path,
    *,
    kind: Any = SyncMultiAgentVectorEnv,
    rollouts: int = 2,
    seed: int = 0,
    **options: Any,
) -> IPPO:
    """Everything that users do, once."""
    with kind([make] * 3) as env:
        agent = make_team(env, seed=seed, **{"learn_step": 25, "batch_size": 64, **options})
        for _ in range(rollouts):
            before = team_weights(agent)
            stats = collect(agent, env)
            check_rollout(agent)
            for name, diagnostics in agent.learn().items():
                assert diagnostics.updates > 0
                actor = f"{name}.action_head.layers.0.weight"
                assert not torch.equal(before[actor], team_weights(agent)[actor])
            assert set(stats.agent_returns) == set(agent.agent_ids)
            team = np.sum([stats.agent_returns[a] for a in agent.agent_ids], axis=0)
            np.testing.assert_allclose(stats.returns, team, atol=1e-4)
        score = agent.test(make(), max_steps=30, loop=1, seed=1)
        means = agent.test(env, max_steps=30, loop=1, sum_scores=False)
    assert np.isfinite(score)
    assert set(means) == set(agent.agent_ids)
    agent.save_checkpoint(tmp_path / "agent.pt")
    loaded = IPPO.load(tmp_path / "agent.pt")
    assert_same_weights(team_weights(agent), team_weights(loaded))
    assert loaded.test(make(), max_steps=30, loop=1, seed=1) == pytest.approx(score, rel=1e-5)
    return agent


# --- particles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"agent_id_input": True, "previous_action": True, "normalize_obs": True},
        {"team_reward": "mean", "cell": "gru", "num_layers": 2},
    ],
    ids=str,
)
def test_simple_spread(options: dict[str, Any], tmp_path: Path) -> None:
    agent = run(mpe("simple_spread_v3"), tmp_path, **options)
    assert agent.grouped_agents == {"agent": ["agent_0", "agent_1", "agent_2"]}
    buffer = agent.trainers["agent"].buffer
    assert buffer is not None
    # Nobody dies; all are cut at once by a limit, and what they saw last has a value.
    assert (buffer.active & buffer.exists).all()
    assert buffer.truncated.any()
    assert (buffer.bootstrap[buffer.truncated] != 0).all()
    assert not buffer.terminated.any()


def test_continuous_actions(tmp_path: Path) -> None:
    run(mpe("simple_spread_v3", continuous_actions=True), tmp_path, squash_output=True)


def test_simple_speaker_listener(tmp_path: Path) -> None:
    agent = run(mpe("simple_speaker_listener_v4"), tmp_path, kind=AsyncMultiAgentVectorEnv)
    assert agent.shared_agent_ids == ["speaker", "listener"]
    assert not agent.has_grouped_agents()


def test_simple_world_comm(tmp_path: Path) -> None:
    agent = run(mpe("simple_world_comm_v3"), tmp_path)
    assert agent.shared_agent_ids == ["leadadversary", "adversary", "agent"]
    assert [group.size for group in agent.groups] == [1, 3, 2]


@pytest.mark.parametrize("name", ["simple_spread_v3", "simple_speaker_listener_v4"])
def test_particles_in_turns(name: str, tmp_path: Path) -> None:
    agent = run(mpe(name, "env"), tmp_path, learn_step=64)
    for trainer in agent.trainers.values():
        assert trainer.buffer is not None
        buffer = trainer.buffer.behind_lead()
        by_env = buffer.exists.view(64, 3, -1)
        assert (by_env.sum(-1) <= 1).all()
        assert buffer.truncated.any()
    buffers = [trainer.buffer for trainer in agent.trainers.values()]
    new = [buffer.behind_lead() for buffer in buffers if buffer is not None]
    everybody = torch.cat([buffer.exists.view(64, 3, -1) for buffer in new], -1)
    assert (everybody.sum(-1) == 1).all()


def test_in_turns_or_at_once_it_is_the_same_game() -> None:
    # The reward of a cycle comes with the last turn; summed over an episode nothing gets lost.
    parallel, turns = (mpe("simple_spread_v3", kind)() for kind in ("parallel_env", "env"))
    agent = make_team(SyncMultiAgentVectorEnv([lambda: parallel]))
    ours, theirs = (agent.evaluate(env, 2, seed=3) for env in (parallel, turns))
    for name in agent.agent_ids:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)


# --- others -------------------------------------------------------------------------------------


def test_knights_archers_zombies(tmp_path: Path) -> None:
    make = zoo(
        "parallel",
        "butterfly/knights_archers_zombies-v11",
        "pygame",
        spawn_delay=2,
        max_zombies=40,
        max_cycles=300,
    )
    agent = run(make, tmp_path, learn_step=250, max_seq_len=32, rollouts=1)
    assert agent.grouped_agents == {
        "archer": ["archer_0", "archer_1"],
        "knight": ["knight_0", "knight_1"],
    }
    deaths = exits = 0
    for trainer in agent.trainers.values():
        buffer = trainer.buffer
        assert buffer is not None
        deaths += int(buffer.terminated.sum())
        exits += int((~buffer.exists).any(0).sum())
    assert deaths >= 4
    assert exits >= 2  # some had to wait for the others' deaths


def test_multiwalker(tmp_path: Path) -> None:
    make = zoo("parallel", "sisl/multiwalker-v9", "Box2D", "pygame", max_cycles=20)
    agent = run(make, tmp_path)
    assert [group.size for group in agent.groups] == [3]


def test_pursuit(tmp_path: Path) -> None:
    make = zoo("parallel", "sisl/pursuit-v5", "pygame", "scipy", max_cycles=15, n_pursuers=4)
    run(make, tmp_path)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("connect_four-v3", "pygame"),
        ("leduc_holdem-v4", "rlcard"),
        ("tictactoe-v3", "pygame"),
    ],
)
def test_games_with_action_masks(name: str, needed: str, tmp_path: Path) -> None:
    make = refereed(zoo("aec", f"classic/{name}", needed, "pygame"))
    agent = run(make, tmp_path, learn_step=100, previous_action=True)
    [trainer] = agent.trainers.values()
    assert trainer.group.size == 2
    assert trainer.buffer is not None
    buffer = trainer.buffer.behind_lead()
    assert buffer.action_mask is not None
    assert buffer.terminated.any()
    # One acts, the other waits; and who loses by the other's move is told so, too.
    assert (buffer.exists.view(100, 3, 2).sum(-1) == 1).all()
    assert (buffer.terminated & ~buffer.exists).any()
    assert ((buffer.reward != 0) & ~buffer.exists).any()
    # Forbidden actions were there to be avoided.
    assert not buffer.action_mask[buffer.exists].all()


def test_masked_games_in_a_vector_are_tested_by_their_rules() -> None:
    make = refereed(zoo("aec", "classic/connect_four-v3", "pygame"))
    env = SyncMultiAgentVectorEnv([make] * 4)
    make_team(env).test(env, loop=2, deterministic=False)


# --- learning from a replay ---------------------------------------------------------------------

PARTICLES = {"learn_step": 60, "learning_starts": 30}
CONTINUOUS = functools.partial(mpe, continuous_actions=True)
REPLAYED: dict[str, tuple[Callable[[], MakeEnv], Any, dict[str, Any]]] = {
    "tag": (lambda: mpe("simple_tag_v3"), MATD3, {"agent_id_input": True, **PARTICLES}),
    "adversary": (
        lambda: CONTINUOUS("simple_adversary_v3"),
        MADDPG,
        {"normalize_obs": True, "previous_reward": True, "cell": "gru", **PARTICLES},
    ),
    "world": (lambda: mpe("simple_world_comm_v3"), MATD3, {"recurrent": False, **PARTICLES}),
    "turns": (
        lambda: mpe("simple_spread_v3", "env"),
        MATD3,
        {
            "team_reward": "mean",
            "groups": {"x": ["agent_0", "agent_2"], "y": ["agent_1"]},
            **PARTICLES,
        },
    ),
    "tictactoe": (
        lambda: refereed(zoo("aec", "classic/tictactoe-v3", "pygame")),
        MATD3,
        {"sampling": "priority", "previous_action": True, **PARTICLES},
    ),
    "connect four": (
        lambda: refereed(zoo("aec", "classic/connect_four-v3", "pygame")),
        MADDPG,
        {"n_step": 2, "sampling": "episodes", **PARTICLES},
    ),
    "knights": (
        lambda: zoo(
            "parallel",
            "butterfly/knights_archers_zombies-v11",
            "pygame",
            spawn_delay=2,
            max_zombies=40,
            max_cycles=300,
        ),
        MADDPG,
        {"learn_step": 160, "learning_starts": 250, "memory_size": 500},
    ),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_learning_from_a_replay(name: str, tmp_path: Path) -> None:
    """Everything that users do, once; what is forbidden is never done."""
    make_env, kind, options = REPLAYED[name]
    make = make_env()
    with SyncMultiAgentVectorEnv([make] * 2) as env:
        agent = make_off_policy(kind, env, **{"memory_size": 500, "batch_size": 32, **options})
        with acting_noted() as acted:
            collect(agent, env)
        if not options.get("normalize_obs"):  # whose statistics have moved
            assert assert_replays(agent, acted, rtol=2e-4, atol=2e-4) > 50
        for _ in range(2):
            agent.learn()
            stats = collect(agent, env)
            assert set(stats.agent_returns) == set(agent.agent_ids)
        for diagnostics in agent.learn().values():
            assert diagnostics.updates > 0
            assert all(np.isfinite(x) for x in diagnostics.values.values())
        for part in agent.memory.parts.values():
            assert part.active.any()
            assert (part.terminated | part.truncated).any()
            if part.action_mask is not None:
                chosen = part.action_mask.gather(-1, part.action[..., None]).squeeze(-1)
                here = (agent.memory.written % agent.memory.places).repeat(part.size)
                decided = part.active.clone()
                decided[torch.from_numpy(here), torch.arange(part.rows)] = False  # not yet
                assert chosen[decided].all()
                assert not part.action_mask[decided].all()
        agent.save_checkpoint(tmp_path / "agent.pt", save_replay=True)
        loaded = kind.load(tmp_path / "agent.pt")
        collect(loaded, env)
        assert all(each.updates > 0 for each in loaded.learn().values())
    scores = [one.test(make(), max_steps=30, loop=1, seed=1) for one in (agent, agent.clone())]
    assert np.isfinite(scores[0])
    assert scores[1] == pytest.approx(scores[0], rel=1e-5)
