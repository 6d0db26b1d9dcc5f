"""Tests of `recurrent_rl.validation`: types, ranges, names and round trips of configurations."""

import dataclasses
import enum
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fields import FIELDS, go_together, values_of

from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.networks.configs import EncoderConfig, HeadConfig, NetConfig
from recurrent_rl.validation import Range, checked, checked_device, shown

CONFIGS = list(FIELDS)


def cases(column: int) -> list[Any]:
    return [
        # A function's repr has its address, which differs between processes.
        pytest.param(
            cls, name, value, id=f"{cls.__name__}.{name}={getattr(value, '__name__', repr(value))}"
        )
        for cls, fields in FIELDS.items()
        for name, kind in fields.items()
        for value in kind[column]
    ]


@pytest.mark.parametrize("cls", CONFIGS)
def test_the_table_covers_every_field(cls: type) -> None:
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
    with pytest.raises(ValueError, match=r"\['lstm', 'gru', 'mingru', 'lru'\], got 'rnn'"):
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


# --- round trips ------------------------------------------------------------------------------


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
    kept = {"gamma": 0.5, "burn_in": 3}
    changes = data.draw(
        values_of(PPOConfig).filter(lambda changes: go_together({**kept, **changes}))
    )
    before = PPOConfig.from_dict(kept)
    after = before.replace(**changes)
    for name, value in after.to_dict().items():
        assert value == changes.get(name, getattr(before, name))
    assert before == PPOConfig.from_dict(kept)


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


class Cell(str, enum.Enum):  # noqa: UP042 - as much code still has it
    """As users write the names of choices."""

    GRU = "gru"


@pytest.mark.parametrize("gru", ["gru", np.str_("gru"), Cell.GRU])
def test_choices_become_plain_text(gru: Any) -> None:
    cell = EncoderConfig(cell=gru).cell
    assert type(cell) is str
    assert cell == "gru"
    assert type(checked("name", gru, str)) is str
    assert checked("name", gru, str) == "gru"


def test_a_value_that_python_cannot_print_is_refused_by_name_too() -> None:
    with pytest.raises(ValueError, match=r"PPOConfig\.learn_step: expected .*, got <int>"):
        PPOConfig(learn_step=10**5000)

    class Nameless:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(TypeError, match=r"PPOConfig\.lr: expected float, got <Nameless>"):
        PPOConfig(lr=Nameless())  # type: ignore[arg-type]
    assert len(shown("x" * 10**6)) == 200


@pytest.mark.parametrize("values", [None, 3, "lr", [("lr", 1)], b"", object()])
def test_options_that_are_no_dictionary_are_refused(values: Any) -> None:
    with pytest.raises(TypeError, match=r"PPOConfig: expected a dictionary of options, got "):
        PPOConfig.from_dict(values)


@pytest.mark.parametrize("name", ["LEARN_STEP", "Learn_Step", " learn_step"])
def test_a_name_in_the_wrong_case_suggests_the_right_one(name: str) -> None:
    with pytest.raises(ValueError, match="did you mean 'learn_step'"):
        PPOConfig.from_dict({name: 3})


@pytest.mark.parametrize("device", [None, 3, True, math.nan, b"cpu", ["cpu"], object()])
def test_a_device_of_the_wrong_type_is_refused_by_name(device: Any) -> None:
    with pytest.raises(TypeError, match=r"^device: expected .*, got "):
        checked_device(device)


@pytest.mark.parametrize("device", ["", "banana", "cpu:x", "cuda:999", "mps:77"])
def test_a_device_that_is_not_there_is_refused_by_name(device: str) -> None:
    with pytest.raises(ValueError, match=r"^device: expected .*, got "):
        checked_device(device)


@given(st.floats(allow_nan=False), st.booleans())
def test_range_contains_and_prints_its_bounds(value: float, open_low: bool) -> None:
    bounds = Range(0, 1, open_low=open_low)
    assert (value in bounds) == ((value > 0 if open_low else value >= 0) and value <= 1)
    assert str(bounds) == ("(" if open_low else "[") + "0, 1]"
    assert str(Range(1)) == "[1, inf)"
    assert str(Range()) == "(-inf, inf)"
    assert math.nan not in bounds
