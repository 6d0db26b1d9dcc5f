"""Tests of `recurrent_rl.algorithms.own_attributes`: what users' subclasses add to agents."""

import functools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from support.contract import CASES, train
from torch import nn

from recurrent_rl import (
    IPPO,
    MADDPG,
    PPO,
    SAC,
    HyperparameterConfig,
    Mutations,
    RLParameter,
    TournamentSelection,
    load_population,
    train_off_policy,
    train_on_policy,
)
from recurrent_rl import train as train_alone
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.checkpoint import CheckpointError

ENV = CASES["ppo"].vector()
SPACES = ENV.single_observation_space, ENV.single_action_space
KINDS = {"ppo": PPO, "sac": SAC, "ippo": IPPO, "maddpg": MADDPG}
SMALL: dict[str, Any] = {
    "net_config": {
        "encoder_config": {"hidden_size": [3], "hidden_state_size": 3, "max_seq_len": 4},
        "head_config": {"hidden_size": [3]},
    },
    "learn_step": 8,
    "batch_size": 8,
}


def own_class(kind: type[Any]) -> type[Any]:
    """What somebody may write who wants an agent with a bonus."""

    class Mine(kind):  # type: ignore[misc]
        limit = 1.0

        def __init__(self, *spaces: Any, bonus: float = 0.1, **options: Any) -> None:
            super().__init__(*spaces, **options)
            self.bonus, self._phases, self.limit = bonus, {"early": [1, 2]}, 2.0

        @functools.cached_property
        def lock(self) -> threading.Lock:
            return threading.Lock()

    return Mine


def own_agent(name: str, seed: int = 0) -> tuple[type[Any], Any, Any]:
    """The class, an agent of it, and an environment."""
    env, kind = CASES[name].vector(), own_class(KINDS[name])
    if hasattr(env, "possible_agents"):
        spaces = env.observation_spaces, env.action_spaces, env.possible_agents
    else:
        spaces = env.single_observation_space, env.single_action_space
    agent = kind(*spaces, bonus=0.5, seed=seed, **SMALL)
    assert agent.lock is agent.lock  # cached, and no part of a copy
    return kind, agent, env


def own_of(agent: Any) -> tuple[Any, ...]:
    return agent.bonus, agent._phases, agent.limit


OWN = (0.5, {"early": [1, 2]}, 2.0)


@pytest.mark.parametrize("name", KINDS)
def test_own_attributes_come_along(name: str, tmp_path: Path) -> None:
    kind, agent, env = own_agent(name)
    twin = agent.clone()
    assert type(twin) is kind
    assert own_of(twin) == OWN == own_of(agent.offspring(1))
    agent._phases["early"].append(3)  # the clone has a copy
    assert own_of(twin) == OWN
    train(agent, env, 2)
    agent.save_checkpoint(tmp_path / "agent.pt")
    loaded = kind.load(tmp_path / "agent.pt")
    assert own_of(loaded) == (0.5, {"early": [1, 2, 3]}, 2.0)
    twin.bonus = 7.0
    twin.load_checkpoint(tmp_path / "agent.pt")
    assert own_of(twin) == own_of(loaded)


@pytest.mark.parametrize("name", KINDS)
def test_own_attributes_in_a_population(name: str, tmp_path: Path) -> None:
    """They survive selection and mutation; and a run goes on from what it has saved."""
    kind, first, env = own_agent(name)
    step_size = CASES[name].step_size
    first.hp_config = HyperparameterConfig(**{step_size: RLParameter(min=1e-4, max=1e-2)})
    pop: Any = [first, first.offspring(1)]
    run = train_off_policy if isinstance(first, OffPolicyAgent) else train_on_policy
    path, algo = tmp_path / "run.pt", KINDS[name].__name__
    options: dict[str, Any] = {"evo_steps": 16, "eval_steps": 4, "verbose": False}
    for steps, resume in ((32, None), (48, path)):
        evolution = (
            TournamentSelection(2, True, 2, 1, rand_seed=0),
            Mutations(0, 0, 0, 0, 0, 1, rand_seed=0),
        )
        options |= dict(zip(("tournament", "mutation"), evolution, strict=True))
        pop, _ = run(
            env, "x", algo, pop, max_steps=steps, checkpoint_path=path, resume=resume, **options
        )
        assert [(type(each), *own_of(each)) for each in pop] == [(kind, *OWN)] * 2
    loaded = load_population(path, agent_class=kind)
    assert [(type(each), *own_of(each)) for each in loaded] == [(kind, *OWN)] * 2
    with pytest.raises(CheckpointError, match=r"got 'Mine'; .* agent_class=Mine\)"):
        load_population(path)
    with pytest.raises(TypeError, match="agent_class: expected an agents' class or None, got 'Mi"):
        load_population(path, agent_class="Mine")  # type: ignore[arg-type]


def test_what_is_no_plain_data_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    _, agent, env = own_agent("ppo")
    for value in (nn.Linear(2, 2), torch.zeros(2), [{1: (object(),)}], lambda: 3):
        agent.extra = value
        message = r"Mine\.extra: expected numbers, .* got .* override own_data and restore_own "
        with pytest.raises(TypeError, match=message):
            agent.clone()
        with pytest.raises(TypeError, match=message):
            agent.save_checkpoint(tmp_path / "agent.pt")
    with pytest.raises(TypeError, match=message):
        train_alone(agent, env, 8, checkpoint_path=tmp_path / "agent.pt", progress=False)
    with pytest.raises(TypeError, match=message):
        train_on_policy(env, "x", "PPO", [agent], verbose=False, log_dir=tmp_path / "logs")
    assert agent.env_steps == 0
    train_alone(agent, env, 8, progress=False)  # where nothing is copied there is nothing to lose
    assert not list(tmp_path.iterdir())


def test_a_class_says_what_is_kept(tmp_path: Path) -> None:
    class Curious(PPO):
        """Has a network of its own."""

        def __init__(self, *spaces: Any, **options: Any) -> None:
            super().__init__(*spaces, **options)
            self.model = nn.Linear(2, 2)

        def own_data(self) -> dict[str, Any]:
            return {"model": self.model.state_dict()}

        def restore_own(self, data: Any) -> None:
            self.model = nn.Linear(2, 2)
            self.model.load_state_dict(data["model"])

    agent = Curious(*SPACES, **SMALL)
    agent.save_checkpoint(tmp_path / "agent.pt")
    before = agent.model.weight.clone()
    for other in (agent.clone(), Curious.load(tmp_path / "agent.pt")):
        with torch.no_grad():
            agent.model.weight.add_(1)
        assert torch.equal(other.model.weight, before)


@pytest.mark.parametrize("name", ["ppo", "ippo", "mappo", "dqn", "sac", "maddpg"])
def test_every_attribute_of_the_package_is_declared(name: str) -> None:
    """Or it would count as a subclass's own."""
    agent = CASES[name].trained(1)
    subclass: Any = type("Mine", (type(agent),), {"__module__": __name__})
    agent.__class__ = subclass
    assert agent.own_data() == {}


def test_text_among_own_metrics_is_refused_before_logs_are_written(tmp_path: Path) -> None:
    kind, agent, env = own_agent("ppo")
    kind.own_metrics = lambda self: {"phase": "early"}
    with pytest.raises(TypeError, match=r"values\['member_0/phase'\]: expected a number"):
        train_on_policy(
            env, "x", "PPO", [agent], max_steps=16, evo_steps=8, verbose=False, log_dir=tmp_path
        )
    with pytest.raises(TypeError, match=r"values\['phase'\]: expected a number"):
        train_alone(kind(*SPACES, **SMALL), env, 8, log_dir=tmp_path, progress=False)
    for name in ("population.csv", "metrics.csv"):
        assert len((tmp_path / name).read_text().splitlines()) == 1  # the names of columns
