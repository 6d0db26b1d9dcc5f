"""Tests of `recurrent_rl.evolution.mutation` on agents that learn from a replay."""

from typing import Any

import pytest
from support.contract import CASES, everything, train
from support.evolving import assert_same, snapshot

from recurrent_rl import HyperparameterConfig, Mutations, RLParameter

KINDS = ("architecture", "parameters", "activation", "rl_hp")


def mutations(kind: str, seed: int = 0) -> Mutations:
    chances = {**dict.fromkeys(("no_mutation", *KINDS), 0.0), kind: 1.0}
    return Mutations(**chances, new_layer_prob=0.5, min_width=2, rand_seed=seed)


def searched(agent: Any, name: str, low: float, high: float) -> Any:
    agent.hp_config = HyperparameterConfig(**{name: RLParameter(low, high)})
    return agent


@pytest.mark.parametrize("name", ["dqn", "ddpg", "td3", "sac", "sac-choices", "maddpg", "matd3"])
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_differ_and_learn(name: str, kind: str) -> None:
    case = CASES[name]
    parent = searched(case.trained(), "gamma", 0.5, 0.9)
    before = snapshot(parent)
    (child,) = mutations(kind).mutation([parent])
    assert_same(before, snapshot(parent))
    assert not child.mut.startswith("none")
    assert len(child.memory) == 0
    weights = everything(child)
    train(child, case.vector(), 4)
    after = everything(child)
    for part in ("group", "learner"):
        names = [key for key in weights if key.startswith(part)]
        assert any(not weights[key].equal(after[key]) for key in names)


@pytest.mark.parametrize(("name", "common"), [("gamma", True), ("lr_actor", False)])
def test_hyperparameters_of_the_whole_team(name: str, common: bool) -> None:
    parent = searched(CASES["matd3"].trained(), name, 1e-5, 0.9)
    (child,) = mutations("rl_hp").mutation([parent])
    values = {getattr(trainer.config, name) for trainer in child.trainers.values()}
    assert len(values) == (1 if common else 2)
    learned = [getattr(config, name) for config in child.learner.configs.values()]
    assert learned == [getattr(trainer.config, name) for trainer in child.trainers.values()]
    assert set(learned) != {getattr(parent.config, name)}
