"""Frozen parts of every agent stay, to the bit, and go on learning when they are unfrozen.

What else may be done to a policy, and what optimisers make of it: ``test_policy_changes``.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.contract import CASES, Case, train
from torch import nn

from recurrent_rl import PPO, Mutations

NAMES = ("ppo-gru", "ippo-feed-forward", "dqn", "ddpg", "td3", "sac", "sac-choices", "matd3")
SOME = pytest.mark.parametrize("case", [CASES[name] for name in NAMES], ids=NAMES)


def trunks(agent: Any) -> list[nn.Module]:
    return [group.policy.actor_trunk for group in agent.groups]


def heads(agent: Any) -> list[nn.Module]:
    return [group.policy.heads()[0][3] for group in agent.groups]


def others(agent: Any, frozen: list[nn.Module]) -> list[nn.Parameter]:
    """Parameters of policies that are not frozen."""
    held = {id(p) for module in frozen for p in module.parameters()}
    every = itertools.chain.from_iterable(group.policy.parameters() for group in agent.groups)
    return [p for p in every if id(p) not in held]


def state(modules: list[nn.Module]) -> list[torch.Tensor]:
    """All that a module's output depends on, statistics included."""
    return [x.detach().clone() for module in modules for x in module.state_dict().values()]


def unlike(modules: list[nn.Module], before: list[torch.Tensor]) -> int:
    return sum(not torch.equal(x, y) for x, y in zip(state(modules), before, strict=True))


@SOME
@pytest.mark.parametrize("parts", [trunks, heads])
def test_frozen_parts_stay_and_the_others_learn(
    case: Case, parts: Callable[[Any], list[nn.Module]], tmp_path: Path
) -> None:
    agent = case.trained(2)
    for module in parts(agent):
        module.requires_grad_(False)
    before, free = state(parts(agent)), [p.detach().clone() for p in others(agent, parts(agent))]
    train(agent, case.vector(), 1)
    assert unlike(parts(agent), before) == 0
    agent.save_checkpoint(tmp_path / "agent.pt")
    agent = case.kind.load(tmp_path / "agent.pt")
    train(agent, case.vector(), 2)
    assert unlike(parts(agent), before) == 0
    now = others(agent, parts(agent))
    assert any(not torch.equal(p, q) for p, q in zip(now, free, strict=True))
    for module in parts(agent):
        module.requires_grad_(True)
    train(agent, case.vector(), 1)
    assert unlike(parts(agent), before) > 0


@pytest.mark.parametrize("name", ["ppo-gru", "ippo-feed-forward", "sac", "dqn"])
def test_frozen_parts_stay_in_populations(name: str) -> None:
    """Noise on weights, other hyper-parameters, and other shapes of other parts."""
    case = CASES[name]
    agent = case.trained(1)
    for module in trunks(agent):
        module.requires_grad_(False)
    before = state(trunks(agent))
    mutations = Mutations(0, 0, 0, parameters=1, activation=0, rl_hp=1, rand_seed=0)
    population = [agent.offspring(i) for i in (1, 2)]
    for _ in range(3):
        population = mutations.mutation(population)
    for each in population:
        train(each, case.vector(), 1)
        assert unlike(trunks(each), before) == 0


def test_one_layer_of_many() -> None:
    """A part of the recurrent core: the rest of it learns, its kernels being one."""
    case = CASES["ppo"]
    agent = case.trained(1)
    parameters = dict(agent.policy.actor_trunk.encoder.core.named_parameters())
    chosen = list(parameters)[::2]
    for name in chosen:
        parameters[name].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    train(agent, case.vector(), 2)
    assert [n for n, p in parameters.items() if torch.equal(p, before[n])] == chosen


def test_statistics_rest_only_while_a_trunk_that_reads_them_is_frozen() -> None:
    case = CASES["ppo"]
    agent = case.trained(1)
    norm = agent.policy.preprocessor.norm
    assert isinstance(agent, PPO)
    assert norm is not None
    found = []
    for frozen in ([], [agent.policy.action_head], [agent.policy.trunks[1]]):
        for module in frozen:
            module.requires_grad_(False)
        before = float(norm.count)
        train(agent, case.vector(), 1)
        found.append(float(norm.count) > before)
        agent.policy.requires_grad_(True)
    assert found == [True, True, False]
