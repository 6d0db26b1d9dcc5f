"""Samples of a replay: drawn as an agent's hyper-parameters say, or given by users and checked."""

from collections.abc import Mapping

import torch

from recurrent_rl.algorithms.off_policy import OffPolicyTrainer
from recurrent_rl.algorithms.off_policy_configs import OffPolicyConfig
from recurrent_rl.buffers.replay import GroupWindows, SequenceReplayBuffer, Windows


def sampled(
    memory: SequenceReplayBuffer,
    config: OffPolicyConfig,
    length: int,
    owner: int,
    generator: torch.Generator,
) -> Windows:
    """Sample a batch.

    Args:
        memory: of steps.
        config: says how much, and how.
        length: L, places of a window that are trained on.
        owner: whose stored states are used; others' are zeros.
        generator: on the CPU.

    Raises:
        RuntimeError: there are fewer steps than a batch has, or no whole episode where some are
            wanted.

    """
    if config.batch_size > len(memory):
        do = "collect more first, or set learning_starts to at least that"
        if config.batch_size > memory.memory_size:
            do = f"it holds memory_size = {memory.memory_size}: make it larger"
        raise RuntimeError(
            f"learn: expected at least batch_size = {config.batch_size} steps in the memory, "
            f"got {len(memory)}; {do}"
        )
    count = max(1, round(config.batch_size / length))
    if config.sampling == "episodes":
        return memory.sample_episodes(count, generator)
    prioritised = config.sampling == "priority"
    return memory.sample(
        count,
        generator,
        ahead=config.n_step,
        owner=owner,
        exponent=config.priority_exponent if prioritised else 0.0,
        correction=config.priority_weight,
    )


def check_sample(
    sample: Windows, trainers: Mapping[str, OffPolicyTrainer], config: OffPolicyConfig
) -> None:
    """Raise ValueError unless an agent of these groups can learn from a sample."""
    if sample.groups.keys() != trainers.keys():
        raise ValueError(
            f"learn: expected a sample of the groups {list(trainers)}, got one of "
            f"{list(sample.groups)}; sample from the memory of an agent like this one, or give "
            f"MultiAgentReplayBuffer its groups"
        )
    if config.recurrent and any(not windows.state for windows in sample.groups.values()):
        raise ValueError(
            "learn: expected windows of several steps, with hidden states, as this agent "
            "remembers, got single transitions; call collect_rollouts_recurrent(agent, env), "
            "which fills agent.memory, and agent.learn()"
        )
    behind = len(next(iter(sample.groups.values())).reward) - sample.burn_in - sample.length
    if (sample.slot >= 0).all() and behind < config.n_step:  # no whole episodes
        raise ValueError(
            f"learn: expected at least n_step = {config.n_step} places behind those that are "
            f"trained on, got {behind}; sample with n_step={config.n_step}"
        )
    for name, trainer in trainers.items():
        _check_windows(name, sample.groups[name], trainer)


def _check_windows(name: str, windows: GroupWindows, trainer: OffPolicyTrainer) -> None:
    """Raise ValueError unless one group's part of a sample is what its policy would store."""
    shapes = trainer.shapes(False)
    extra = 0 if windows.extra is None else windows.extra.shape[2]
    for what, expected, got in (
        ("number of agents", trainer.group.size, windows.agents),
        ("shape of observations", shapes.obs_shape, tuple(windows.obs.shape[2:])),
        ("dtype of observations", shapes.obs_dtype, windows.obs.dtype),
        ("shape of actions", shapes.action_shape, tuple(windows.action.shape[2:])),
        ("dtype of actions", shapes.action_dtype, windows.action.dtype),
        ("width of previous actions, rewards and identities", shapes.extra, extra),
    ):
        if expected != got:
            of = f" of group {name!r}" if name else ""
            raise ValueError(
                f"learn: expected {what}{of} {expected}, got {got}; sample from the memory of an "
                f"agent like this one, or give MultiAgentReplayBuffer its spaces"
            )
