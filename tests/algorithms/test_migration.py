"""Tests of `recurrent_rl.algorithms.migration`: files of the older format.

``tests/data`` has what version 0.1.0 wrote before its second architecture, after 16 steps in two
environments; and beside each file what that version then did, and after 8 more steps.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete
from support.contract import LIVES, MIXED, train
from support.envs import scripted
from support.evolving import assert_same, snapshot
from support.multi_envs import scripted_makers

from recurrent_rl import (
    IPPO,
    PPO,
    Birth,
    SyncMultiAgentVectorEnv,
    checkpoint,
    collect_rollouts_recurrent,
)
from recurrent_rl.algorithms import ppo_update
from recurrent_rl.algorithms.migration import upgraded
from recurrent_rl.buffers.minibatches import dealt
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.buffers.steps import Steps
from recurrent_rl.spaces.serialization import space_to_dict

DATA = Path(__file__).parents[1] / "data"


def stale_env(kind: Any) -> Any:
    """The environments of then, where they were when the file was written."""
    if kind is PPO:
        env = scripted(["3t 5l", "7b"])
        stranger: Any = PPO(env.single_observation_space, env.single_action_space)
    else:
        env = SyncMultiAgentVectorEnv(scripted_makers([[lives] for lives in LIVES], **MIXED))
        stranger = IPPO(env.observation_spaces, env.action_spaces)
    # Neither seeds nor actions decide what they show next.
    collect_rollouts_recurrent(stranger, env, 16)
    return env


def assert_does(agent: Any, expected: list[dict[str, Any]], seen: Any, tolerance: float) -> None:
    """Compare deterministic steps from the beginning with those of the older version."""
    if isinstance(seen, dict):
        seen = {name: np.array(x) for name, x in seen.items()}
    state = agent.get_initial_hidden_state(2)
    for step in expected:
        out = agent.get_action(seen, state, deterministic=True)
        state = out.hidden_state
        for name, values in step.items():
            ours = getattr(out, name)
            for key in values if isinstance(values, dict) else (...,):
                x, y = (
                    np.asarray(each)[...] if key is ... else each[key] for each in (ours, values)
                )
                np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=name)


def deal_as_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deal sequences sorted by length, which is what the older version learned from."""

    def deal(active: torch.Tensor, size: int, generator: torch.Generator, count: int) -> Any:
        length = lengths[id(active)].length
        shuffled = torch.randperm(len(length), generator=generator)
        order = shuffled[length[shuffled].argsort(stable=True)]
        return dealt(order, active, count, generator)

    def sequences_of(buffer: Any) -> Any:
        cuts = Steps.sequences(buffer)
        lengths[id(cuts.active)] = cuts
        return cuts

    lengths: dict[int, Any] = {}
    monkeypatch.setattr(SequenceRolloutBuffer, "sequences", sequences_of)
    monkeypatch.setattr(ppo_update, "minibatches", deal)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ppo", PPO),
        ("ppo_bare", PPO),  # with two encoders that have no weights, but numbers in front of them
        ("ippo", IPPO),
    ],
)
class TestFormat1:
    def test_same_numbers_and_trains_on(
        self, name: str, kind: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = DATA / f"format_1_{name}.pt"
        said = json.loads(path.with_suffix(".json").read_text())
        agent = kind.load(path)
        assert agent.env_steps == said["env_steps"] == 32
        assert (agent.fitness, agent.lineage) == ([1.5], [Birth(0)])
        assert agent.config.max_seq_len == (64 if name == "ppo_bare" else 5)
        assert_does(agent, said["steps"], said["observation"], 1e-6)
        deal_as_then(monkeypatch)
        train(agent, stale_env(kind), 1, reset=False)
        # Rounding may differ between machines, and grows by Adam's divisions.
        assert_does(agent, said["steps_after_training"], said["observation"], 1e-4)

    def test_is_saved_in_todays_format(self, name: str, kind: Any, tmp_path: Path) -> None:
        old, path = DATA / f"format_1_{name}.pt", tmp_path / "agent.pt"
        assert checkpoint.load(old)["version"] == 1
        agent = kind.load(old)
        agent.save_checkpoint(path)
        data = checkpoint.load(path)
        assert data["version"] == checkpoint.VERSION > 1
        assert upgraded(data).keys() == data.keys()
        assert_same(snapshot(agent), snapshot(kind.load(path)))


@pytest.mark.parametrize(
    ("space", "seen_alike"),
    [
        (Box(0, 255, (8, 8, 3), np.uint8), True),
        (Box(-1, 1, (3,)), True),
        (Box(0, 1, (5,), np.uint8), True),
        (Box(-9, 9, (5,), np.int64), True),
        (Dict(image=Box(0, 255, (8, 8), np.uint8), way=Discrete(4)), True),
        (Box(0, 1, (8, 8, 2), np.uint8), False),
        (Box(0, 255, (5,), np.uint8), False),
        (Dict(way=Discrete(4), frames=Box(0, 1, (4, 8, 8, 3))), False),
    ],
    ids=str,
)
def test_what_would_be_seen_otherwise_is_refused(space: Any, seen_alike: bool) -> None:
    old = json_like(space)
    if seen_alike:
        upgraded(old)
    else:
        with pytest.raises(ValueError, match=r"^observation.*: expected .* train anew$"):
            upgraded(old)


def test_whole_numbers_that_would_be_played_otherwise_are_refused() -> None:
    upgraded(json_like(Discrete(2), Box(-1, 1, (2,), np.float64)))
    with pytest.raises(ValueError, match=r"^action_space: expected .*Box\(0, 3.* train anew$"):
        upgraded(json_like(Discrete(2), Box(0, 3, (2,), np.int32)))


def json_like(space: Any, action: Any = Discrete(2)) -> dict[str, Any]:  # noqa: B008 - immutable
    """As much of the older format as is read before a policy is built."""
    group = {
        "observation_space": space_to_dict(space),
        "action_space": space_to_dict(action),
        "config": {"normalize_images": True, "share_encoders": True},
        "net_config": {"encoder_config": {"max_seq_len": 8}},
        "networks": [False, False],
        "carry": None,
        "policy": {},
        "env_steps": 0,
    }
    rest = {"lineage": [{"steps": 0}], "fitness": [], "elite": None, "hp_config": None}
    return {**rest, "groups": {"": group}}
