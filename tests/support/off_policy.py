"""Small off-policy agents for scripted environments, and what all their networks say."""

from typing import Any

import torch
from support.agents import network, randomise
from torch import Tensor

from recurrent_rl.algorithms.actor_critic_update import ActorCriticLearner
from recurrent_rl.algorithms.dpg_update import DPGLearner
from recurrent_rl.algorithms.dqn_update import DQNLearner
from recurrent_rl.algorithms.learner import Learner
from recurrent_rl.algorithms.multi_agent import MultiAgent
from recurrent_rl.algorithms.off_policy_agent import OffPolicyAgent
from recurrent_rl.algorithms.replayed import Replayed, joint, replayed
from recurrent_rl.buffers.replay import Windows

LEARNING: dict[str, Any] = {
    "memory_size": 200,
    "batch_size": 12,
    "learn_step": 10,
    "gradient_steps": 2,
    "learning_starts": 10,
    "squash_output": False,
}


def make(kind: type[OffPolicyAgent], env: Any, *, seed: int = 0, **options: Any) -> Any:
    """An agent of any class for a vector's spaces, with random weights in all of its networks.

    Options of networks and of learning are mixed; ``net_config`` goes before the former.
    """
    shapes = options.pop("net_config", None) or network(options)
    spaces: tuple[Any, ...] = ()
    if issubclass(kind, MultiAgent):
        spaces = env.observation_spaces, env.action_spaces, env.possible_agents
    else:
        spaces = env.single_observation_space, env.single_action_space
    build: Any = kind
    agent = build(*spaces, shapes, seed=seed, **{**LEARNING, **options})
    for i, group in enumerate(agent.groups):
        randomise(group.policy, seed + i)
    if isinstance(agent.learner, ActorCriticLearner):
        randomise(agent.learner.critic.heads, seed + 100)
    generator = torch.Generator().manual_seed(seed)
    for _, target in agent.learner.targets():
        for twin, source in target.pairs:
            noise = 0.1 * torch.randn(source.shape, generator=generator)
            twin.data.copy_(source.data + noise)
    return agent


@torch.no_grad()
def said(learner: Learner, windows: Windows) -> dict[str, Tensor]:
    """What a learner's networks and targets give at all places of some windows, by name."""
    if isinstance(learner, DQNLearner):
        policy = learner.policy
        (replay,) = replayed(windows, {learner.name: policy}, policy.device).values()
        pairs = {"values": (policy.trunk, policy.q_head)}
        pairs["target"] = tuple(learner.target.module)
        return {name: head(replay.features(trunk)) for name, (trunk, head) in pairs.items()}
    assert isinstance(learner, ActorCriticLearner)
    replays = replayed(windows, learner.policies, learner.device)
    found = {}
    for which, critic in (("critic", learner.critic), ("target", learner.target.module)):
        blocks = [
            learner._block(x, x.features(critic.trunk(name)), _all(learner, x, name))
            for name, x in replays.items()
        ]
        for i, name in enumerate(replays):
            alone = learner.critic.alone
            read = blocks[0] if alone else joint(blocks, blocks, i, len(windows))
            for j, value in enumerate(critic.values(name, read)):
                found[f"{which} {name} {j}"] = value
    for name, replay in replays.items():
        policy = learner.policies[name]
        mask = replay.windows.action_mask
        allowed = None if mask is None else replay.part(mask)
        parts = {"actor": (policy.actor_trunk, policy.action_head)}
        if isinstance(learner, DPGLearner):
            parts["target actor"] = tuple(learner._actors[name].module)
        for which, (trunk, head) in parts.items():
            params = head(replay.features(trunk), allowed)
            # But for the latents of state-dependent exploration, which may grow.
            found[f"{which} {name}"] = params[..., : params.shape[-1] - head.distribution.latents]
    return found


def _all(learner: ActorCriticLearner, replay: Replayed, name: str) -> Tensor | None:
    """All actions as critics see them."""
    if learner.critic.of_choices:
        return None
    return learner.critic.actions[name].taken(replay.part(replay.windows.action))
