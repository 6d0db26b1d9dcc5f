"""Whole agents, frozen and compared: for tests of what selection and mutation leave alone."""

import copy
from typing import Any

import torch
from support.agents import randomise
from support.envs import Scripted
from torch import Tensor

from recurrent_rl import PPO, Birth


def individual(index: int = 0, **options: Any) -> PPO:
    """A small agent for ``Scripted``, with random weights and a number."""
    env = Scripted("1t")
    front = [] if options.get("recurrent", True) else [5, 4]
    encoder = {"hidden_size": front, "hidden_state_size": 6}
    net = {
        "encoder_config": {**encoder, **options.pop("encoder", {})},
        "head_config": {"hidden_size": [5], **options.pop("head", {})},
    }
    learning = {"learn_step": 8, "batch_size": 8, "update_epochs": 2, "lr": 1e-2, "max_seq_len": 4}
    options = {**learning, **options}
    agent = PPO(env.observation_space, env.action_space, net, seed=index, **options)
    randomise(agent.policy, index)
    agent.lineage = [Birth(index)]
    return agent


def grow_older(agent: Any, steps: int) -> None:
    """Pretend that an agent has trained for so many more environment steps."""
    for trainer in agent.trainers.values():
        trainer.env_steps += steps
    agent.steps.append(agent.env_steps)


def snapshot(agent: Any) -> dict[str, Any]:
    """A copy of all that a checkpoint holds: weights, moments, random state, histories, shapes."""
    data: dict[str, Any] = _copied(agent.to_checkpoint())
    return data


def _copied(data: Any) -> Any:
    """In less than half the time of ``copy.deepcopy``."""
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    if type(data) in (list, tuple):
        return type(data)(map(_copied, data))
    return data.clone() if type(data) is Tensor else copy.deepcopy(data)


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Bit for bit, through dictionaries and lists."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    elif isinstance(ours, Tensor):
        assert ours.dtype == theirs.dtype, where
        assert ours.shape == theirs.shape, where
        if not torch.equal(ours, theirs):  # as those with nan are not, either
            assert bool(((ours == theirs) | ((ours != ours) & (theirs != theirs))).all()), where
    else:
        assert ours == theirs or (ours != ours and theirs != theirs), where
