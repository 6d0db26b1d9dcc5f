"""What normalisation makes of rewards that are rare, constant or beyond all bounds."""

from typing import Any

import numpy as np
import pytest
import torch
from support.agents import assert_same_weights, prepare, team_weights
from support.contract import ON_POLICY, Case

from recurrent_rl import collect_rollouts_recurrent

pytestmark = pytest.mark.parametrize("case", [ON_POLICY[k] for k in ("ppo", "ppo-gru", "ippo-gru")])
OPTIONS: dict[str, Any] = {"normalize_reward": True, "gamma": 0.0, "team_reward": None}


def agent_of(case: Case, **options: Any) -> Any:
    options = {**OPTIONS, **options}
    if case.kind.__name__ == "PPO":
        del options["team_reward"]
    return case.agent(**options)


def buffers(agent: Any) -> list[Any]:
    return [trainer.buffer for trainer in agent.trainers.values()]


def returns(agent: Any) -> torch.Tensor:
    """Of the active steps, as they are trained on; with gamma = 0 the rewards themselves."""
    prepare_all(agent)
    return torch.cat([b.returns[b.active & b.exists] for b in buffers(agent)])


def prepare_all(agent: Any) -> None:
    for trainer in agent.trainers.values():
        prepare(trainer)


def set_rewards(agent: Any, reward: float) -> None:
    for buffer in buffers(agent):
        buffer.reward.fill_(reward)


@pytest.mark.parametrize("reward", [1.0, -0.25, 0.0])
def test_constant_rewards_are_left_as_they_are(case: Case, reward: float) -> None:
    agent, env = agent_of(case, reward_scale=2.0), case.vector()
    for _ in range(2):
        collect_rollouts_recurrent(agent, env)
        set_rewards(agent, reward)
        torch.testing.assert_close(
            returns(agent), torch.full_like(returns(agent), 2 * reward), rtol=0, atol=1e-5
        )
        agent.learn()


def test_the_first_reward_after_a_long_time_is_clipped(case: Case) -> None:
    agent, env = agent_of(case, reward_scale=0.5), case.vector()
    for rare in (False, False, True):
        collect_rollouts_recurrent(agent, env)
        set_rewards(agent, 0.0)
        for buffer in buffers(agent):
            active = (buffer.active & buffer.exists).nonzero()
            if rare and len(active):
                for trainer in agent.trainers.values():
                    trainer.reward_norm.update(torch.zeros(100_000, 1))
                buffer.reward[tuple(active[0])] = -3.0
        raw = [buffer.reward.clone() for buffer in buffers(agent)]
        assert returns(agent).abs().max() == pytest.approx(5.0 if rare else 0, abs=1e-5)
        assert all(torch.equal(x, b.reward) for x, b in zip(raw, buffers(agent), strict=True))
        agent.learn()


def test_rewards_that_are_not_normalised_are_not_clipped(case: Case) -> None:
    agent, env = agent_of(case, normalize_reward=False), case.vector()
    collect_rollouts_recurrent(agent, env)
    set_rewards(agent, 123.0)
    torch.testing.assert_close(returns(agent), torch.full_like(returns(agent), 123.0))


@pytest.mark.parametrize("reward", [1e30, -2e15, np.float32(3.4e38)])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_reward_beyond_all_bounds_is_refused(
    case: Case, reward: float, normalize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, env = agent_of(case, normalize_reward=normalize), case.vector()
    collect_rollouts_recurrent(agent, env)
    agent.learn()
    before = team_weights(agent)
    trainer = next(iter(agent.trainers.values()))
    start = trainer.recorder

    def recorder(*args: Any, **kwargs: Any) -> Any:
        found = start(*args, **kwargs)
        outcome = found.outcome

        def poisoned(t: int, given: Any) -> None:
            if t == 2:
                given = given._replace(reward=np.array(given.reward, np.float64))
                given.reward[0] = reward
            outcome(t, given)

        found.outcome = poisoned
        return found

    monkeypatch.setattr(trainer, "recorder", recorder)
    with pytest.raises(ValueError, match=r"^reward: expected .* up to \+-1e\+15, got .* at step 2"):
        collect_rollouts_recurrent(agent, env)
    monkeypatch.undo()
    assert_same_weights(before, team_weights(agent))
    collect_rollouts_recurrent(agent, env)
    agent.learn()
