"""Which policies and rollouts PPO's kernel knows, and what stands in its way with others."""

from typing import cast

import torch

from recurrent_rl.algorithms.ppo_loss import ByHand
from recurrent_rl.buffers.rollout import SequenceRolloutBuffer
from recurrent_rl.networks.encoder import Encoder
from recurrent_rl.networks.layers import is_altered
from recurrent_rl.networks.plain_layers import plain_sequence
from recurrent_rl.networks.policy import ActorCritic
from recurrent_rl.networks.trunk import Trunk
from recurrent_rl.recurrent.core import RecurrentCore
from recurrent_rl.recurrent.gated import GRU, LSTM

# The kernel is shown a rollout's observations as floats, all at once. Where these take more than
# this [bytes], and more than bytes that become floats, autograd sees them minibatch by minibatch:
# one of Discrete(10000) takes as much as 10,000 indices.
ROOM = 2**28


def obstacle_of(
    policy: ActorCritic, heads: ByHand | None, buffer: SequenceRolloutBuffer
) -> str | None:
    """Return what the kernel does not know, in words; None if it knows all.

    Args:
        policy: as it is now.
        heads: from ``known_by_hand``.
        buffer: the rollout.

    """
    if heads is None:
        return "heads or a distribution whose derivatives are left to autograd"
    if buffer.burn_in:
        return "burn-in"
    if any(map(is_altered, policy.modules())):
        return "hooks, or a forward of a module's own"
    parameters = policy.trained_parameters()
    if len(set(parameters)) != len(parameters):
        return "parameters that serve twice"
    numbers = [*parameters, *buffer.hidden]
    if not all(x.dtype == torch.float32 and x.is_contiguous() for x in numbers):
        return "numbers that are not float32, one behind the other"
    for trunk in policy.trunks:
        obstacle = _obstacle_in(cast(Trunk, trunk), buffer)
        if obstacle is not None:
            return obstacle
    return None


def _obstacle_in(trunk: Trunk, buffer: SequenceRolloutBuffer) -> str | None:
    encoder = trunk.encoder
    if type(encoder) is not Encoder:
        return "an encoder of your own"
    if len(encoder.cnns) or encoder.vector_mlp is not None:
        return "images"
    if encoder.skip is not None or encoder.norm is not None:
        return "core_residual or core_layer_norm"
    if plain_sequence(encoder.mlp, ends_on_activation=True) is None:
        return "other layers than linear ones with Tanh or ReLU in between"
    if encoder.core is not None and not _is_known(encoder.core):
        return "recurrent layers other than plain LSTMs and GRUs"
    room = 4 * trunk.preprocessor.codec.features * int(buffer.exists.sum())
    if room > max(ROOM, 4 * buffer.obs.nbytes):
        return f"observations that would take {room / 2**20:.0f} MiB as features"
    return None


def _is_known(core: RecurrentCore) -> bool:
    return type(core.rnn) in (LSTM, GRU) and not len(core.added)
