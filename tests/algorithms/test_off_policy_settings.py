"""Tests of what settings and prints of off-policy agents say: what is said is what is done."""

import functools
from typing import Any

import pytest
from support.contract import CASES, train
from support.evolving import assert_same, snapshot

CHANGES: dict[str, dict[str, Any]] = {
    "dqn": {
        "gamma": 0.5,
        "tau": 0.3,
        "lr": 0.1,
        "n_step": 3,
        "batch_size": 20,
        "gradient_steps": 3,
        "epsilon_steps": 5,
        "target_update": 2,
        "priority_mix": 0.1,
        "max_grad_norm": 0.1,
        "huber": None,
    },
    "ddpg": {"gamma": 0.5, "theta": 0.9, "dt": 0.5, "expl_noise": 0.7, "mean_noise": 0.2},
    "td3": {"policy_noise": 0.9, "noise_clip": 0.1, "policy_freq": 1, "lr_actor": 0.1, "tau": 0.5},
    "sac": {"target_entropy": 0.3, "lr_alpha": 0.1, "lr_critic": 0.1, "reward_scale": 3.0},
    "maddpg": {"gamma": 0.1, "lr_critic": 0.1, "expl_noise": 0.7, "learn_step": 4},
    "matd3": {"gamma": 0.1, "lr_actor": 0.1, "policy_noise": 0.0, "policy_freq": 1},
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_acts_as_if_it_had_been_so(name: str) -> None:
    case, changes = CASES[name], CHANGES[name]
    changed = case.agent()
    changed.reconfigure(**changes)
    built, plain = case.agent(**changes), case.agent()
    for agent in (changed, built, plain):
        train(agent, case.vector(), 4)
    assert_same(snapshot(changed), snapshot(built))
    with pytest.raises(AssertionError):
        assert_same(snapshot(changed)["learner"], snapshot(plain)["learner"])


@functools.cache
def unchanged(name: str) -> Any:
    """What has become of a case's agent, with the settings that it has."""
    return snapshot(train(CASES[name].agent(), CASES[name].vector(), 4))


@pytest.mark.parametrize(("name", "change"), [(n, c) for n, each in CHANGES.items() for c in each])
def test_every_setting_matters(name: str, change: str) -> None:
    """Each of them alone, or the test above would say nothing of it."""
    case = CASES[name]
    agent = case.agent()
    agent.reconfigure(**{change: CHANGES[name][change]})
    ours, theirs = unchanged(name), snapshot(train(agent, case.vector(), 4))
    with pytest.raises(AssertionError):
        assert_same(
            [ours["learner"], [g["policy"] for g in ours["groups"].values()]],
            [theirs["learner"], [g["policy"] for g in theirs["groups"].values()]],
        )


@pytest.mark.parametrize("name", CHANGES)
def test_attributes_that_would_do_nothing_are_refused(name: str) -> None:
    case = CASES[name]
    agent = case.agent()
    with pytest.raises(AttributeError, match=r"call agent\.reconfigure"):
        setattr(agent, case.step_size, 0.5)
    with pytest.raises(AttributeError, match="build another agent"):
        agent.groups = []


def test_critics_are_shown() -> None:
    lines = repr(CASES["td3"].agent()).partition("\n  settings")[0].splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["sees", "encoder", "actor", "Q"]
    # 5 units and 2 numbers of the action, to 6, to the value: twice.
    assert lines[-1].split("->")[0].split() == ["Q", "7"]
    assert lines[-1].split()[-3:] == ["2", "times", str(2 * ((7 + 1) * 6 + 7))]
    team = repr(CASES["maddpg"].agent())
    assert "Q of bob" in team
    assert "Q of fred" in team
    assert "values of all actions" in repr(CASES["sac-choices"].agent())


@pytest.mark.parametrize("name", CHANGES)
def test_step_sizes_decay_to_the_end_of_the_schedule(name: str) -> None:
    """Linearly, from where the steps that are being learned from began; then it is said."""
    case = CASES[name]
    agent, env = case.agent(lr_schedule="linear", total_steps=1000), case.vector()
    given = {k: v for k, v in agent.config.to_dict().items() if k.startswith("lr_")}
    train(agent, env, 4)
    begun = agent.env_steps - case.vector().num_envs * 1
    assert 0 < agent.learner.share < 1
    assert agent.learner.share == pytest.approx(1 - begun / 1000, abs=0.03)
    for _, network in agent.learner.networks():
        for kind, optimizer in network.optimizers.items():
            expected = given.get(kind, agent.config.to_dict().get(kind))
            if expected is not None:
                assert optimizer.lr == pytest.approx(agent.learner.share * expected)
    agent.reconfigure(total_steps=agent.env_steps)
    with pytest.warns(UserWarning, match=r"^learn: total_steps = \d+ are over"):
        agent.learn()
    agent.reconfigure(lr_schedule="constant")
    agent.learn()
    assert agent.learner.share == 1


def test_schedule_needs_a_horizon() -> None:
    with pytest.raises(ValueError, match=r"DQNConfig.total_steps: expected the training's length"):
        CASES["dqn"].agent(lr_schedule="linear")


@pytest.mark.parametrize("name", ["ddpg", "td3"])
def test_deviation_that_noise_would_hide_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^action_std_init: expected the default 1, .*expl_noise"):
        CASES[name].agent(action_std_init=0.5)
