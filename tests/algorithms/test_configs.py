"""Tests of `recurrent_rl.algorithms.configs`: hyper-parameters that depend on each other."""

import dataclasses
import inspect
import typing
from typing import Any

import pytest

from recurrent_rl.algorithms.configs import (
    PolicyOptions,
    PPOConfig,
    PPOOptions,
    ScheduleOptions,
    SequenceConfig,
    SequenceOptions,
    sorted_options,
)
from recurrent_rl.algorithms.ddpg import DDPGKeywords
from recurrent_rl.algorithms.dqn import DQNKeywords
from recurrent_rl.algorithms.maddpg import CentrallyJudged, MADDPGKeywords, MATD3Keywords
from recurrent_rl.algorithms.off_policy_configs import (
    ActorCriticConfig,
    ActorCriticOptions,
    DDPGConfig,
    DDPGOptions,
    DQNConfig,
    DQNOptions,
    OffPolicyConfig,
    OffPolicyOptions,
    SACConfig,
    SACOptions,
    TD3Config,
    TD3Options,
)
from recurrent_rl.algorithms.off_policy_single import OffPolicySingleAgent
from recurrent_rl.algorithms.sac import SACKeywords
from recurrent_rl.algorithms.schedule_config import ScheduleConfig
from recurrent_rl.algorithms.td3 import TD3Keywords
from recurrent_rl.networks.configs import EncoderConfig, NetConfig, PolicyConfig


def test_a_schedule_needs_its_horizon() -> None:
    with pytest.raises(ValueError, match=r"PPOConfig\.total_steps: .*lr_schedule='linear'"):
        PPOConfig(lr_schedule="linear")
    assert PPOConfig(lr_schedule="linear", total_steps=10).total_steps == 10


@pytest.mark.parametrize(("burn_in", "max_seq_len"), [(64, None), (4, 4), (5, 4)])
def test_a_burn_in_is_shorter_than_a_sequence(burn_in: int, max_seq_len: int | None) -> None:
    length = {} if max_seq_len is None else {"max_seq_len": max_seq_len}
    message = rf"^PPOConfig\.burn_in: expected less than max_seq_len = {max_seq_len or 64}, got"
    with pytest.raises(ValueError, match=message):
        PPOConfig.from_dict({"burn_in": burn_in, **length})
    with pytest.raises(ValueError, match=message):
        PPOConfig(burn_in=1).replace(burn_in=burn_in, **length)
    # Without memory it means nothing.
    assert PPOConfig.from_dict({"burn_in": burn_in, "recurrent": False, **length})
    assert PPOConfig.from_dict({"burn_in": (max_seq_len or 64) - 1, **length})


@pytest.mark.parametrize(
    ("options", "config"),
    [
        (PolicyOptions, PolicyConfig),
        (SequenceOptions, SequenceConfig),
        (ScheduleOptions, ScheduleConfig),
        (PPOOptions, PPOConfig),
        (OffPolicyOptions, OffPolicyConfig),
        (DQNOptions, DQNConfig),
        (ActorCriticOptions, ActorCriticConfig),
        (SACOptions, SACConfig),
        (DDPGOptions, DDPGConfig),
        (TD3Options, TD3Config),
    ],
)
def test_the_options_of_type_checkers_are_the_fields_of_the_configuration(
    options: Any, config: Any
) -> None:
    fields = {field.name for field in dataclasses.fields(config)}
    hints = typing.get_type_hints(config)
    # Annotated[int, Range(...)] of the one is int of the other.
    assert typing.get_type_hints(options) == {name: hints[name] for name in fields}
    assert options.__optional_keys__ == fields
    assert not options.__required_keys__


@pytest.mark.parametrize(
    ("keywords", "options", "constructor"),
    [
        (DQNKeywords, DQNOptions, OffPolicySingleAgent),
        (DDPGKeywords, DDPGOptions, OffPolicySingleAgent),
        (TD3Keywords, TD3Options, OffPolicySingleAgent),
        (SACKeywords, SACOptions, OffPolicySingleAgent),
        (MADDPGKeywords, DDPGOptions, CentrallyJudged),
        (MATD3Keywords, TD3Options, CentrallyJudged),
    ],
)
def test_the_keywords_of_type_checkers_are_those_of_the_constructor(
    keywords: Any, options: Any, constructor: Any
) -> None:
    parameters = inspect.signature(constructor).parameters.values()
    own = {x.name: x.annotation for x in parameters if x.kind is x.KEYWORD_ONLY}
    hints = typing.get_type_hints(keywords)
    assert hints == {**typing.get_type_hints(options), **own}
    assert not keywords.__required_keys__


# --- sorted options ---------------------------------------------------------------------------


@pytest.mark.parametrize("as_dictionary", [True, False])
def test_a_sequence_length_may_be_given_with_the_network(as_dictionary: bool) -> None:
    encoder = {"hidden_state_size": 5, "max_seq_len": 7}
    net: Any = {"encoder_config": encoder, "head_config": {"hidden_size": [3]}}
    net = net if as_dictionary else NetConfig.from_dict(net)
    shapes, options = sorted_options(net, {"gamma": 0.5})
    assert shapes == NetConfig.from_dict(
        {"encoder_config": {"hidden_state_size": 5}, "head_config": {"hidden_size": [3]}}
    )
    assert options == {"gamma": 0.5, "max_seq_len": 7}
    assert sorted_options(net, {"max_seq_len": 7}) == (shapes, {"max_seq_len": 7})
    with pytest.raises(ValueError, match=r"^max_seq_len: expected .*, got 8 there and 7 here"):
        sorted_options(net, {"max_seq_len": 8})


def test_options_without_a_sequence_length_stay_as_they_are() -> None:
    given = {"burn_in": 3, "max_seq_len": 5}
    for net in (None, {}, NetConfig()):
        shapes, options = sorted_options(net, given)
        assert shapes == NetConfig(EncoderConfig(max_seq_len=None))
        assert options == given
        assert options is not given
    with pytest.raises(ValueError, match=r"did you mean 'encoder_config'\?"):
        sorted_options({"encoder": {}}, {})
