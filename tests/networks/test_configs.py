"""Tests of `recurrent_rl.networks.configs`: shapes of networks, and what describes a policy."""

import dataclasses
from typing import Any

import pytest
import torch
from support.fields import ACTIVATIONS

from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.networks.configs import (
    Activation,
    CnnConfig,
    EncoderConfig,
    NetConfig,
    PolicyConfig,
    default_convolutions,
)


def test_convolutions_may_stand_beside_the_encoders_own_options() -> None:
    layers = {"channel_size": [8, 16], "kernel_size": [3, 2], "stride_size": [2, 1]}
    cnn = CnnConfig((8, 16), (3, 2), (2, 1))
    assert EncoderConfig.from_dict(layers) == EncoderConfig(cnn_config=cnn)
    assert EncoderConfig.from_dict({"cnn_config": layers}) == EncoderConfig(cnn_config=cnn)
    red = dataclasses.replace(cnn, activation="ELU")
    for given_ in ({"activation": "ELU"}, CnnConfig(activation="ELU")):
        short = EncoderConfig.from_dict({**layers, "cnn_config": given_, "num_layers": 2})
        assert short == EncoderConfig(cnn_config=red, num_layers=2)
    net = NetConfig.from_dict({"encoder_config": {**layers, "latent_dim": 7}})
    assert net.encoder_config == EncoderConfig(cnn_config=cnn, latent_dim=7)
    assert EncoderConfig(latent_dim=7).replace(**layers) == net.encoder_config


def test_convolutions_given_twice_are_an_error() -> None:
    layers = {"channel_size": [8], "kernel_size": [3], "stride_size": [2]}
    for cnn in (layers, CnnConfig((8,), (3,), (2,))):
        with pytest.raises(ValueError, match="expected channel_size in cnn_config or beside it"):
            EncoderConfig.from_dict({**layers, "cnn_config": cnn})
    with pytest.raises(TypeError, match=r"EncoderConfig\.cnn_config: expected a dictionary or Cnn"):
        EncoderConfig.from_dict({**layers, "cnn_config": 3})
    with pytest.raises(ValueError, match=r"CnnConfig\.kernel_size\[0\]: .* got 0"):
        EncoderConfig.from_dict({**layers, "kernel_size": [0]})
    with pytest.raises(ValueError, match=r"did you mean 'kernel_size'\?"):
        EncoderConfig.from_dict({"kernel_sizes": [3]})


@pytest.mark.parametrize(
    "sizes",
    [
        {"channel_size": (8,)},
        {"kernel_size": (8,)},
        {"channel_size": (8, 8), "kernel_size": (3, 3)},
        {"channel_size": (8, 8), "kernel_size": (3, 3), "stride_size": (1,)},
    ],
)
def test_convolutions_need_all_three_of_their_sizes(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^CnnConfig: expected channel_size, kernel_size and str"):
        CnnConfig(**sizes)
    with pytest.raises(ValueError, match=r"^CnnConfig: expected channel_size, kernel_size and str"):
        EncoderConfig.from_dict(sizes)


@pytest.mark.parametrize("size", [*range(1, 50), 84, 200])
def test_default_convolutions_fit_images_of_any_size(size: int) -> None:
    layers = CnnConfig().layers(size, size + 3)
    assert layers == default_convolutions(size) == CnnConfig().layers(size + 3, size)
    for _, kernel, stride in layers:
        assert kernel <= size
        size = (size - kernel) // stride + 1
    assert size >= 1


def test_a_kernel_larger_than_what_it_reads_is_an_error_that_says_how_large_that_is() -> None:
    config = CnnConfig((8, 8), (3, 3), (2, 1))
    assert config.layers(7, 9) == ((8, 3, 2), (8, 3, 1))
    with pytest.raises(ValueError, match=r"kernel_size\[1\]: expected at most 2, .* 6 x 9, got 3"):
        config.layers(6, 9)
    assert CnnConfig(()).layers(6, 9) == ()


@pytest.mark.parametrize(
    ("recurrent", "images", "expected"),
    [
        (True, False, (64,)),
        (False, False, (64, 64)),
        (True, True, ()),
        (False, True, (64,)),
    ],
)
def test_default_widths(recurrent: bool, images: bool, expected: tuple[int, ...]) -> None:
    assert EncoderConfig().widths(recurrent, images) == expected
    assert EncoderConfig(hidden_size=(3,)).widths(recurrent, images) == (3,)


def test_two_kinds_of_deviation_that_depends_on_the_state_exclude_each_other() -> None:
    for cls in (PolicyConfig, PPOConfig):
        message = rf"^{cls.__name__}: expected one of use_sde and state_dependent_std"
        with pytest.raises(ValueError, match=message):
            cls(use_sde=True, state_dependent_std=True)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_exists(name: str) -> None:
    assert name in Activation.__args__  # type: ignore[attr-defined]
    assert getattr(torch.nn, name)()(torch.zeros(1)).shape == (1,)
