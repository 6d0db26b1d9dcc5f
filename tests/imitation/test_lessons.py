"""Imitation reads demonstrations as acting would have: step by step, with the same memory."""

import numpy as np
import pytest
import torch
from support.contract import Case
from support.demonstrated import ACTORS, recorded

from recurrent_rl import Demonstrations
from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.envs.rows import Observed
from recurrent_rl.imitation.demonstrations import Episode
from recurrent_rl.imitation.lessons import Lessons
from recurrent_rl.imitation.losses import imitation_loss

EVERY = pytest.mark.parametrize("case", ACTORS.values(), ids=ACTORS.keys())


@torch.no_grad()
def step_by_step(group: AgentGroup, episode: Episode) -> list[float]:
    """Each imitated step's loss, as the player goes through an episode with those actions."""
    number = group.agents.index(episode.agent) if episode.agent else 0
    player = group.player(1, agent=np.array([number]))
    found = []
    for t in range(len(episode)):
        seen = Observed(
            episode.observation[t : t + 1].numpy(),
            start=np.array([t == 0]),
            forced=np.array([True]),
            forced_action=episode.action[t : t + 1],
        )
        mask = None if episode.mask is None else torch.from_numpy(episode.mask[t : t + 1])
        acted = player.act(seen, episode.observation[t : t + 1], None, mask).acted
        if episode.weight[t] > 0:
            action = group.policy.actions.from_env(episode.action[t : t + 1])
            found.append(imitation_loss(group.policy, acted.dist_params, action).item())
        if episode.reward is not None:
            player.hear(episode.reward[t : t + 1].astype(np.float64), None)
    return found


@torch.no_grad()
def in_sequences(group: AgentGroup, shown: Demonstrations, length: int) -> list[float]:
    lessons = Lessons(shown.episodes, group, length)
    lessons.refresh(group.policy)
    found: list[float] = []
    for parts in lessons.in_order(batch_size=7):
        for part in parts:
            params = part.dist_params(group.policy)
            found += imitation_loss(group.policy, params, part.action).tolist()
    return found


@EVERY
def test_losses_are_those_of_acting_step_by_step(case: Case) -> None:
    agent = case.agent()
    lengths = (1,) if not agent.config.recurrent else (2, 10**12)
    for trainer, shown in zip(agent.trainers.values(), recorded(agent, case).values(), strict=True):
        expected = sorted(x for e in shown.episodes for x in step_by_step(trainer.group, e))
        assert len(shown) >= 6
        assert len(expected) > 12
        for length in lengths:
            found = sorted(in_sequences(trainer.group, shown, length))
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_each_step_of_a_weight_is_dealt_out_once_with_its_weight() -> None:
    case = ACTORS["ppo"]
    agent = case.agent()
    shown = recorded(agent, case)[""]
    number = 0
    for episode in shown.episodes:  # a weight of its own for each step, every fifth of 0
        count = len(episode)
        episode.weight[:] = [0 if i % 5 == 0 else i for i in range(number, number + count)]
        number += count
    lessons = Lessons(shown.episodes, agent.trainer.group, 2)
    expected = sorted(float(w) for e in shown.episodes for w in e.weight if w)
    generator = torch.Generator().manual_seed(0)
    for dealt in (lessons.shuffled(5, generator), lessons.in_order(5)):
        parts = [part for batch in dealt for part in batch]
        assert sorted(w for part in parts for w in part.weight.tolist()) == expected
    assert lessons.imitated_steps == len(expected)
    lessons.scale_weights()
    weights = [w for batch in lessons.in_order(5) for part in batch for w in part.weight.tolist()]
    assert np.mean(weights) == pytest.approx(1)
