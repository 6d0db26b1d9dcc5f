"""Which distribution the actions of a space get."""

from recurrent_rl.networks.configs import PolicyConfig
from recurrent_rl.networks.distributions import (
    ActionDistribution,
    Bernoulli,
    Categorical,
    DiagonalGaussian,
    Gaussian,
    MultiCategorical,
)
from recurrent_rl.networks.state_dependent import GeneralizedSDE, StateDependentGaussian
from recurrent_rl.spaces.actions import (
    ActionCodec,
    BoxCodec,
    DiscreteCodec,
    IntegerBoxCodec,
    MultiBinaryCodec,
    MultiDiscreteCodec,
)


def make_distribution(codec: ActionCodec, config: PolicyConfig, latents: int) -> ActionDistribution:
    """Choose the distribution for an action space.

    Args:
        codec: of the space.
        config: how Box actions deviate.
        latents: Z, width of what the actor's last layer reads.

    Raises:
        ValueError: options for Box actions with another space.

    """
    if isinstance(codec, BoxCodec):
        gaussian = _gaussian(codec, config, latents)
        gaussian.leave_out(codec.fixed)
        return gaussian
    check_no_deviation(codec, config)
    if isinstance(codec, DiscreteCodec):
        return Categorical(codec.features)
    if isinstance(codec, MultiDiscreteCodec):
        return MultiCategorical(codec.choices)
    assert isinstance(codec, MultiBinaryCodec)
    return Bernoulli(codec.features)


def check_no_deviation(codec: ActionCodec, config: PolicyConfig) -> None:
    """Raise ValueError if actions that are choices or bits are to have a deviation."""
    of_box = {"use_sde": config.use_sde, "state_dependent_std": config.state_dependent_std}
    for name, wanted in of_box.items():
        if wanted:
            raise ValueError(
                f"{name}: expected a Box action space, whose actions have a deviation, got "
                f"{codec.space}; leave {name}=False"
            )


def _gaussian(codec: BoxCodec, config: PolicyConfig, latents: int) -> DiagonalGaussian:
    size, std_init = codec.features, config.action_std_init
    half_range = codec.half_range if codec.squash else None
    if config.use_sde:
        return GeneralizedSDE(
            size,
            std_init,
            half_range,
            latents=latents,
            sample_freq=config.sde_sample_freq,
            unit_latents=isinstance(codec, IntegerBoxCodec),
        )
    if config.state_dependent_std:
        return StateDependentGaussian(size, std_init, half_range)
    return Gaussian(size, std_init, half_range)
