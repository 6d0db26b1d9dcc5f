"""How far a policy is from what was demonstrated.

Shapes: D steps, A a Box action's numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from recurrent_rl.networks.acting_policy import Policy
from recurrent_rl.networks.exploring import NoisyBox
from recurrent_rl.spaces.actions import BoxCodec

# Of squashed actions, in half ranges: nearer to a bound than this, a demonstrated action counts as
# here. At the bound itself the density of a tanh is infinite, so that those actions, of which
# demonstrations are full, would be all that counts; and where tanh is flat nothing is unlearned.
OUTMOST = 0.999


class Distance(NamedTuple):
    """How far most likely actions are from demonstrated ones.

    Attributes:
        accuracy: whether they are the same, in all components, 0 or 1, [D]; None of Box actions.
        square: mean square of the difference over the numbers of a Box action, in the environment's
            units, [D]; None of choices and bits.

    """

    accuracy: Tensor | None
    square: Tensor | None


def imitation_loss(policy: Policy, dist_params: Tensor, action: Tensor) -> Tensor:
    """Return each step's loss, [D].

    The negative log-likelihood of the demonstrated action, exactly as learning computes
    log-probabilities. Policies that choose one Box action and explore by noise around it (DDPG,
    TD3) have no density of their own: theirs is the mean square of the difference, in half ranges
    of the space where it is bounded and actions are squashed, and else in the space's own units.

    Args:
        policy: of any algorithm with an actor.
        dist_params: [D, *].
        action: stored form, [D, *shape].

    """
    codec, distribution = policy.actions, policy.distribution
    if isinstance(codec, BoxCodec) and codec.squash:
        edge = torch.tensor(OUTMOST).atanh().item()
        action = action.clamp(-edge, edge)
    if not isinstance(distribution, NoisyBox):
        return -distribution.log_prob(dist_params, action)
    assert isinstance(codec, BoxCodec)
    chosen, wanted = (x.tanh() if codec.squash else x for x in (dist_params, action))
    return _mean_square(chosen - wanted, codec)


@torch.no_grad()
def distance(policy: Policy, dist_params: Tensor, action: Tensor) -> Distance:
    """Compare the most likely actions with demonstrated ones; shapes as in ``imitation_loss``."""
    codec, chosen = policy.actions, policy.distribution.mode(dist_params)
    if isinstance(codec, BoxCodec):
        return Distance(None, _mean_square(codec.bounded(chosen) - codec.bounded(action), codec))
    same = (chosen == action).flatten(1) if action.ndim > 1 else (chosen == action)[:, None]
    return Distance(same.all(1).to(dist_params.dtype), None)


def _mean_square(difference: Tensor, codec: BoxCodec) -> Tensor:
    """Return the mean over the numbers that the bounds leave a choice, [D, A] -> [D]."""
    free = ~codec.fixed
    return difference.square().masked_fill(~free, 0).sum(-1) / free.sum().clamp_min(1)
