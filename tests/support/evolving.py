"""Whole agents, frozen and compared: for tests of what selection and mutation leave alone."""

import copy
from typing import Any

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
    return copy.deepcopy(agent.to_checkpoint())


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
        assert bool(((ours == theirs) | ((ours != ours) & (theirs != theirs))).all()), where
    else:
        assert ours == theirs or (ours != ours and theirs != theirs), where
