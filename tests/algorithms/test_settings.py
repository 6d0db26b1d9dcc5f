"""Tests of `recurrent_rl.algorithms.settings`: attributes that would do nothing are refused."""

from dataclasses import dataclass

import pytest

from recurrent_rl import PPOConfig
from recurrent_rl.algorithms.configs import AlgorithmConfig
from recurrent_rl.algorithms.settings import HasSettings


@dataclass(frozen=True)
class OtherConfig(AlgorithmConfig):
    """Of an algorithm with two step sizes."""

    lr_actor: float = 1e-3
    lr_critic: float = 1e-3

    @property
    def update_ratio(self) -> float:
        return 1.0


class OfPPO(HasSettings):
    """Has PPO's hyper-parameters."""

    config_type = PPOConfig


class OfOther(HasSettings):
    """Has the other algorithm's."""

    config_type = OtherConfig


@pytest.mark.parametrize(
    ("kind", "own", "other"), [(OfPPO, "lr", "lr_actor"), (OfOther, "lr_actor", "lr")]
)
def test_the_algorithms_own_hyperparameters(kind: type[HasSettings], own: str, other: str) -> None:
    thing = kind()
    for name in (own, "learn_step", "recurrent"):
        with pytest.raises(AttributeError, match=rf"^{kind.__name__}\.{name}: .*reconfigure"):
            setattr(thing, name, 1)
    setattr(thing, other, 2)
    assert vars(thing) == {other: 2}
