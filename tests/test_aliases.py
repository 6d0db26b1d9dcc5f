"""Tests of the names of other libraries: each leads to one that exists, and errors say so."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import pytest

from recurrent_rl import PPO, SAC, create_population, make_vect_envs, train
from recurrent_rl.algorithms.configs import PPOConfig
from recurrent_rl.algorithms.off_policy_configs import DDPGConfig, DQNConfig, SACConfig, TD3Config
from recurrent_rl.aliases import AGILERL, ALIASES, CLEANRL, PLACES, STABLE_BASELINES3, Alias
from recurrent_rl.networks.configs import EncoderConfig, HeadConfig, NetConfig
from recurrent_rl.validation import Config

CONFIGS: tuple[type[Config], ...] = (PPOConfig, DQNConfig, DDPGConfig, TD3Config, SACConfig)
OPTIONS = {name for config in CONFIGS for name in config.names()}


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_every_alias_points_to_a_name_that_exists(alias: str) -> None:
    assert ALIASES[alias].names
    assert set(ALIASES[alias].names) <= OPTIONS | PLACES.keys()


def test_no_alias_is_an_option_itself() -> None:
    assert not OPTIONS & ALIASES.keys()


@pytest.mark.parametrize("library", [STABLE_BASELINES3, CLEANRL, AGILERL], ids=["sb3", "c", "a"])
def test_libraries_agree_about_names(library: Mapping[str, Alias]) -> None:
    for alias, meant in library.items():
        assert ALIASES[alias].names == meant.names


def test_every_place_exists() -> None:
    parameters = {
        "make_vect_envs": inspect.signature(make_vect_envs).parameters,
        "train": inspect.signature(train).parameters,
    }
    for name, place in PLACES.items():
        if place.startswith("net_config="):
            for part in re.findall(r"'(\w+_config)'", place):
                config = {"encoder_config": EncoderConfig, "head_config": HeadConfig}[part]
                assert name in config.names()
        elif place == "the agent's arguments":
            assert name in inspect.signature(PPO).parameters
        else:
            assert name in parameters[place.split("(")[0]]


@pytest.mark.parametrize(
    ("config", "theirs", "hint"),
    [
        (PPOConfig, "learning_rate", "; learning_rate is called lr here"),
        (SACConfig, "learning_rate", "; learning_rate is called lr_actor or lr_critic here"),
        (PPOConfig, "n_steps", "; n_steps is called learn_step here"),
        (PPOConfig, "N_EPOCHS", "; N_EPOCHS is called update_epochs here. Known"),
        (PPOConfig, "log_std_init", r"here \(the deviation itself: exp\(log_std_init\)"),
        (EncoderConfig, "lstm_hidden_size", "; lstm_hidden_size is called hidden_state_size here"),
        (
            PPOConfig,
            "n_lstm_layers",
            "; n_lstm_layers is called num_layers here and belongs in net_config="
            r"\{'encoder_config': \{'num_layers': \.\.\.\}\}\. Known",
        ),
        (PPOConfig, "hidden_state_size", r"; hidden_state_size belongs in net_config=\{'encoder_"),
        (PPOConfig, "tensorboard_log", r"called log_dir here and belongs in train\(log_dir="),
        # Known elsewhere, but not to this algorithm: only what is near is suggested.
        (DQNConfig, "n_epochs", r"'n_epochs'(; did you mean '\w+'\?|\.) Known"),
        (NetConfig, "verbos", r"'verbos'\. Known"),
    ],
)
def test_errors_name_what_was_meant(config: type[Config], theirs: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        config.from_dict({theirs: 1})


def test_errors_of_agents_and_populations() -> None:
    spaces: Any = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (1,))
    with pytest.raises(ValueError, match="clip_range is called clip_coef here"):
        PPO(*spaces, clip_range=0.1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="buffer_size is called memory_size here"):
        SAC(*spaces, buffer_size=100)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="LEARNING_RATE is called LR here"):
        create_population("PPO", *spaces, INIT_HP={"LEARNING_RATE": 1e-3})
    with pytest.raises(ValueError, match="LSTM_HIDDEN_SIZE is called hidden_state_size here"):
        create_population("PPO", *spaces, INIT_HP={"LSTM_HIDDEN_SIZE": 64})


def test_other_names_are_not_taken_for_hyperparameters() -> None:
    """Agents may have any names; a team has no progress bar."""
    with pytest.raises(ValueError, match=r"'verbose'(; did you mean '\w+'\?|\.) Known"):
        create_population("verbose", gym.spaces.Discrete(2), gym.spaces.Discrete(2))
