"""What policies gave while they collected, and whether what is replayed gives it again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from recurrent_rl.algorithms.off_policy_recorder import OffPolicyRecorder
from recurrent_rl.algorithms.replayed import Replayed
from recurrent_rl.buffers.replay import Windows
from recurrent_rl.networks.trunk import Trunk

# Of each group, environment, place and agent: parameters of the distribution (DQN's values),
# features of the last trunk, and the state before.
Acted = dict[tuple[str, int, int, int], tuple[Tensor, Tensor, list[Tensor]]]


@contextmanager
def acting_noted() -> Iterator[Acted]:
    """Note what all policies give while they collect within."""
    found: Acted = {}
    original = OffPolicyRecorder.acted

    def note(self: OffPolicyRecorder, t: int, seen: Any, turn: Any) -> None:
        original(self, t, seen, turn)
        for row in range(len(turn.acted.action)):
            env = row // self.size
            key = self.group, env, int(self.memory.written[env]), row % self.size
            before = [x[:, row].clone() for x in turn.before.tensors]
            found[key] = turn.acted.dist_params[row], turn.acted.critic_features[row], before

    with mock.patch.object(OffPolicyRecorder, "acted", note):
        yield found


def all_windows(memory: Any, owner: int | None = 0, ahead: int = 2) -> Windows:
    """Every window that there is, once."""
    env, chunk = memory._windows()
    span = memory.layout.burn_in, memory.layout.length, ahead * memory.gap
    begin, slot = chunk * memory._stride, chunk * memory.envs + env
    windows: Windows = memory._gather(env, begin, span, owner, slot)
    return windows


def trunks_and_heads(policy: Any) -> Iterator[tuple[Trunk, Any, int]]:
    """Each trunk of a policy with what gives what was noted, and where among that it stands."""
    if hasattr(policy, "q_head"):
        yield policy.trunk, policy.dist_params, 0
        return
    yield policy.actor_trunk, policy.dist_params, 0
    if policy.critic_trunk.shapes:  # otherwise it is not run while acting
        yield policy.critic_trunk, lambda features, mask: features, 1


def assert_replays(
    agent: Any, acted: Acted, owner: int | None = 0, *, rtol: float = 1e-4, atol: float = 1e-5
) -> int:
    """All that was collected and is trained on is given again; how many numbers were compared."""
    memory, compared = agent.memory, 0
    windows = all_windows(memory, owner)
    for name, trainer in agent.trainers.items():
        group, policy = windows.groups[name], trainer.policy
        replay = Replayed(group, windows.burn_in, windows.length, torch.device("cpu"))
        for trunk, head, which in trunks_and_heads(policy):
            features = replay.features(trunk)
            assert features.shape[:2] == (replay.places, replay.rows)
            exists = replay.part(group.exists)
            assert (features[~exists] == 0).all()
            part = replay.features(trunk, 1, replay.length)
            torch.testing.assert_close(part, features[1 : replay.length])
            mask = None if group.action_mask is None else replay.part(group.action_mask)
            given = head(features, mask)
            for b, slot in enumerate(windows.slot.tolist()):
                env, begin = slot % memory.envs, slot // memory.envs * memory._stride
                for a in range(group.agents):
                    row = b * group.agents + a
                    for w in exists[: replay.length, row].nonzero()[:, 0].tolist():
                        key = name, env, begin + w, a
                        if key in acted and not replay.part(group.final)[w, row]:
                            torch.testing.assert_close(
                                given[w, row], acted[key][which], rtol=rtol, atol=atol
                            )
                            compared += 1
    return compared
