"""Tests of `recurrent_rl.config`: types, ranges, names and round trips."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.networks.configs import (
    Activation,
    CnnConfig,
    EncoderConfig,
    HeadConfig,
    MlpConfig,
    NetConfig,
    default_convolutions,
)
from recurrent_rl.validation import Range

# What no field of a kind takes. A bool is no number, nor is a number a bool; text is neither.
NOT_INT = [True, False, 1.5, 2.0, "3", math.nan, math.inf, [1], (1,), {}, np.float64(3), np.True_]
NOT_FLOAT = [True, False, "0.1", [0.1], {}, 1j, np.True_]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan")]
NOT_BOOL = [0, 1, 1.0, "True", None, [True]]
TINY = 5e-324  # the smallest positive float

COUNT = (NOT_INT, [0, -1], [1, 2, 10**9])
POSITIVE = (NOT_FLOAT, [0, 0.0, -0.0, -TINY, -1, *NOT_FINITE], [TINY, 0.5, 1, 1e9])
NON_NEGATIVE = (NOT_FLOAT, [-TINY, -1, *NOT_FINITE], [0, 0.0, 0.5, 1e9])
UNIT = (NOT_FLOAT, [-TINY, -1, math.nextafter(1, 2), 2, *NOT_FINITE], [0, 1, 0.5])
BOOL = (NOT_BOOL, [], [True, False])
OPTIONAL_BOOL = ([x for x in NOT_BOOL if x is not None], [], [True, False, None])
ACTIVATIONS = ["Tanh", "ReLU", "ELU", "GELU", "SiLU", "LeakyReLU", "Identity"]
ACTIVATION = ([], ["tanh", "Softmax", "", None, 3, ["Tanh"]], ACTIVATIONS)
WIDTHS = (
    [64, "64", 64.0, True, [1.5], ["64"], [True], [None], [[64]]],
    [[0], [64, -1]],
    [[], [1], (64, 64), range(1, 3), np.array([3, 4])],
)


def optional(kind: tuple[list[Any], ...]) -> tuple[list[Any], ...]:
    return (*kind[:2], [*kind[2], None])


def required(kind: tuple[list[Any], ...]) -> tuple[list[Any], ...]:
    return ([*kind[0], None], *kind[1:])


# Each field: values of the wrong type, values out of range, values that are fine.
FIELDS: dict[type, dict[str, tuple[list[Any], ...]]] = {
    CnnConfig: {
        # One without the others is an error of its own; () flattens, whatever the others are.
        "channel_size": (*WIDTHS[:2], [[], None]),
        "kernel_size": (*WIDTHS[:2], [None]),
        "stride_size": (*WIDTHS[:2], [None]),
        "activation": ACTIVATION,
        "channels_last": OPTIONAL_BOOL,
    },
    MlpConfig: {
        "hidden_size": required(WIDTHS),
        "activation": ACTIVATION,
        "layer_norm": BOOL,
    },
    EncoderConfig: {
        "hidden_size": optional(WIDTHS),
        "activation": ACTIVATION,
        "layer_norm": BOOL,
        "latent_dim": required(COUNT),
        "cnn_config": ([None, 3, "conv", [], MlpConfig()], [], [{}, CnnConfig(activation="ELU")]),
        "mlp_config": ([None, 3, "Tanh", [], CnnConfig()], [], [{}, MlpConfig((3,), "ReLU")]),
        "vector_space_mlp": BOOL,
        "cell": ([], ["LSTM", "rnn", "", None, 3], ["lstm", "gru"]),
        "hidden_state_size": required(COUNT),
        "num_layers": required(COUNT),
        "residual_layers": (required(COUNT)[0], [-1], [0, 1, 10]),
        "core_residual": BOOL,
        "core_layer_norm": BOOL,
        "max_seq_len": required(COUNT),
        "forget_bias": (NOT_FLOAT, [-10.5, 11, *NOT_FINITE], [-10, 0, 1.5, 10]),
    },
    HeadConfig: {
        "hidden_size": required(WIDTHS),
        "activation": ACTIVATION,
        "layer_norm": BOOL,
        "residual_layers": (required(COUNT)[0], [-1], [0, 1, 10]),
    },
    NetConfig: {
        "encoder_config": ([None, 3, "lstm", [], HeadConfig()], [], [{}, EncoderConfig()]),
        "head_config": ([None, 3, "Tanh", [], EncoderConfig()], [], [{}, HeadConfig()]),
    },
    PPOConfig: {
        "learn_step": required(COUNT),
        "batch_size": required(COUNT),
        "update_epochs": required(COUNT),
        "lr": required(POSITIVE),
        "lr_schedule": ([], ["cosine", "", None, 1], ["constant"]),
        "total_steps": optional(COUNT),
        "adam_eps": required(POSITIVE),
        "gamma": required(UNIT),
        "gae_lambda": required(UNIT),
        "clip_coef": required(POSITIVE),
        "clip_vf_coef": optional(POSITIVE),
        "ent_coef": required(NON_NEGATIVE),
        "vf_coef": required(NON_NEGATIVE),
        "max_grad_norm": required(POSITIVE),
        "target_kl": optional(POSITIVE),
        "normalize_advantage": BOOL,
        "recurrent": BOOL,
        "share_encoders": BOOL,
        "previous_action": BOOL,
        "previous_reward": BOOL,
        "normalize_obs": BOOL,
        "normalize_images": BOOL,
        "normalize_reward": BOOL,
        "reward_scale": required(POSITIVE),
        "action_std_init": required(POSITIVE),
        "squash_output": OPTIONAL_BOOL,
        "state_dependent_std": BOOL,
        "use_sde": BOOL,
        "sde_sample_freq": (required(COUNT)[0], [0, -1, 65], [1, 4, 64]),
        "ortho_init": BOOL,
        "burn_in": (required(COUNT)[0], [-1], [0, 1, 10]),
        "refresh_hidden_state": BOOL,
    },
}
CONFIGS = list(FIELDS)


def cases(column: int) -> list[Any]:
    return [
        pytest.param(cls, name, value, id=f"{cls.__name__}.{name}={value!r}")
        for cls, fields in FIELDS.items()
        for name, kind in fields.items()
        for value in kind[column]
    ]


@pytest.mark.parametrize("cls", CONFIGS)
def test_the_table_above_covers_every_field(cls: type) -> None:
    assert set(FIELDS[cls]) == {f.name for f in dataclasses.fields(cls)}


@pytest.mark.parametrize(("cls", "name", "value"), cases(0))
def test_a_value_of_the_wrong_type_is_an_error_that_names_the_field(
    cls: type, name: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=rf"^{cls.__name__}\.{name}(\[\d\])?: expected .*, got "):
        cls(**{name: value})


@pytest.mark.parametrize(("cls", "name", "value"), cases(1))
def test_a_value_out_of_range_is_an_error_that_names_the_field(
    cls: type, name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^{cls.__name__}\.{name}(\[\d\])?: expected .*, got "):
        cls(**{name: value})


@pytest.mark.parametrize(("cls", "name", "value"), cases(2))
def test_a_value_within_range_is_taken(cls: type, name: str, value: Any) -> None:
    config = cls(**{name: value})
    taken = getattr(config, name)
    if isinstance(value, dict):
        assert taken == getattr(cls(), name)
    elif isinstance(taken, tuple):
        assert taken == tuple(value)
        assert all(type(width) is int for width in taken)
    else:
        assert taken == value


def test_the_message_says_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"PPOConfig\.gamma: expected a number in \[0, 1\], got 2"):
        PPOConfig(gamma=2)
    with pytest.raises(ValueError, match=r"PPOConfig\.lr: expected a number in \(0, inf\), got 0"):
        PPOConfig(lr=0)
    with pytest.raises(ValueError, match=r"\['lstm', 'gru'\], got 'rnn'"):
        EncoderConfig(cell="rnn")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cls", "typo", "meant"),
    [
        (EncoderConfig, "hiden_size", "hidden_size"),
        (EncoderConfig, "num_layer", "num_layers"),
        (PPOConfig, "batchsize", "batch_size"),
        (PPOConfig, "learning_steps", "learn_step"),
        (PPOConfig, "clip_coeff", "clip_coef"),
        (PPOConfig, "gae_lamda", "gae_lambda"),
        (NetConfig, "encoder", "encoder_config"),
    ],
)
def test_an_unknown_name_is_an_error_that_suggests_the_nearest(
    cls: Any, typo: str, meant: str
) -> None:
    with pytest.raises(ValueError, match=rf"{cls.__name__} .*{typo!r}.* did you mean {meant!r}\?"):
        cls.from_dict({typo: 1})
    with pytest.raises(ValueError, match=rf"did you mean {meant!r}"):
        cls().replace(**{typo: 1})


def test_an_unknown_name_far_from_any_lists_those_that_exist() -> None:
    with pytest.raises(ValueError, match="HeadConfig has no option 'zzz'") as error:
        HeadConfig.from_dict({"zzz": 1})
    assert "did you mean" not in str(error.value)
    assert ". Known options: activation, hidden_size" in str(error.value)


def test_errors_in_nested_dictionaries_name_the_inner_field() -> None:
    with pytest.raises(ValueError, match=r"EncoderConfig has no option 'hiden_size'"):
        NetConfig.from_dict({"encoder_config": {"hiden_size": [64]}})
    with pytest.raises(ValueError, match=r"EncoderConfig\.num_layers: .* got 0"):
        NetConfig.from_dict({"encoder_config": {"num_layers": 0}})
    with pytest.raises(ValueError, match=r"HeadConfig\.hidden_size\[1\]: .* got 0"):
        NetConfig.from_dict({"head_config": {"hidden_size": [64, 0]}})


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
    with pytest.raises(ValueError, match="expected one of use_sde and state_dependent_std"):
        PPOConfig(use_sde=True, state_dependent_std=True)


def test_a_schedule_needs_its_horizon() -> None:
    with pytest.raises(ValueError, match=r"PPOConfig\.total_steps: .*lr_schedule='linear'"):
        PPOConfig(lr_schedule="linear")
    assert PPOConfig(lr_schedule="linear", total_steps=10).total_steps == 10


# --- round trips ------------------------------------------------------------------------------


def values_of(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Any choice of valid values for some of the fields, that go together."""
    fields = {name: st.sampled_from(kind[2]) for name, kind in FIELDS[cls].items()}
    values = st.fixed_dictionaries({}, optional=fields)
    return values.filter(lambda v: not (v.get("use_sde") and v.get("state_dependent_std")))


@pytest.mark.parametrize("cls", CONFIGS)
@given(st.data())
def test_round_trip_through_plain_values_and_json(cls: Any, data: st.DataObject) -> None:
    config = cls.from_dict(data.draw(values_of(cls)))
    plain = config.to_dict()
    assert cls.from_dict(plain) == config
    assert cls.from_dict(json.loads(json.dumps(plain))) == config  # tuples come back as lists
    assert set(plain) == set(FIELDS[cls])


@given(st.data())
def test_replace_changes_what_it_names_and_nothing_else(data: st.DataObject) -> None:
    changes = data.draw(values_of(PPOConfig))
    before = PPOConfig(gamma=0.5, burn_in=3)
    after = before.replace(**changes)
    for name, value in after.to_dict().items():
        assert value == changes.get(name, getattr(before, name))
    assert before == PPOConfig(gamma=0.5, burn_in=3)


def test_replace_validates() -> None:
    with pytest.raises(ValueError, match=r"PPOConfig\.gamma"):
        PPOConfig().replace(gamma=1.5)
    with pytest.raises(TypeError, match=r"EncoderConfig\.num_layers"):
        EncoderConfig().replace(num_layers=2.0)


def test_configurations_cannot_be_changed_in_place() -> None:
    config = PPOConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gamma = 2.0  # type: ignore[misc]


def test_lists_and_nested_dictionaries_become_what_the_code_reads() -> None:
    net = NetConfig.from_dict(
        {
            "encoder_config": {"hidden_size": [32, 16], "cell": "gru", "num_layers": 2},
            "head_config": {"hidden_size": []},
        }
    )
    assert net == NetConfig(
        EncoderConfig(hidden_size=(32, 16), cell="gru", num_layers=2), HeadConfig(hidden_size=())
    )
    assert isinstance(net.encoder_config.hidden_size, tuple)


def test_numpy_scalars_become_python_numbers() -> None:
    config = PPOConfig(
        batch_size=np.int64(64),
        lr=np.float32(0.5),
        gamma=np.float64(0.9),
        ent_coef=np.int32(1),
        recurrent=np.False_,
    )
    assert (config.batch_size, config.lr, config.gamma) == (64, 0.5, 0.9)
    kinds = [
        type(getattr(config, name))
        for name in ("batch_size", "lr", "gamma", "ent_coef", "recurrent")
    ]
    assert kinds == [int, float, float, float, bool]
    assert config.recurrent is False


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_exists(name: str) -> None:
    assert name in Activation.__args__  # type: ignore[attr-defined]
    assert getattr(torch.nn, name)()(torch.zeros(1)).shape == (1,)


@given(st.floats(allow_nan=False), st.booleans())
def test_range_contains_and_prints_its_bounds(value: float, open_low: bool) -> None:
    bounds = Range(0, 1, open_low=open_low)
    assert (value in bounds) == ((value > 0 if open_low else value >= 0) and value <= 1)
    assert str(bounds) == ("(" if open_low else "[") + "0, 1]"
    assert str(Range(1)) == "[1, inf)"
    assert str(Range()) == "(-inf, inf)"
    assert math.nan not in bounds
