"""How actions are stored and how they are distributed, joined: what acting needs both for."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from recurrent_rl.networks.choose_distribution import make_distribution
from recurrent_rl.networks.configs import PolicyConfig
from recurrent_rl.networks.distributions import ActionDistribution
from recurrent_rl.spaces.actions import ActionCodec, action_codec


@dataclass(frozen=True)
class Head:
    """The codec of an action space, and a distribution over what it stores.

    Everything that either of them offers is found here, the distribution's first.
    """

    codec: ActionCodec
    distribution: ActionDistribution

    def __getattr__(self, name: str) -> Any:
        """Look it up in both."""
        if hasattr(self.distribution, name):
            return getattr(self.distribution, name)
        return getattr(self.codec, name)


def make_head(space: gym.Space[Any], latents: int, **options: Any) -> Head:
    """Join what a policy with these options has for an action space.

    Args:
        space: of one action.
        latents: Z, width of what the actor's last layer reads.
        options: of ``PolicyConfig``.

    """
    config = PolicyConfig.from_dict(options)
    codec = action_codec(space, config.squash_output)
    return Head(codec, make_distribution(codec, config, latents))
