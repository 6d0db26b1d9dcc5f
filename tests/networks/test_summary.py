"""Tests of `recurrent_rl.networks.summary`: what a policy is made of, for people to read."""

import re
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from hypothesis import given, settings
from support.pairs import examples
from support.spaces_of import observation_spaces
from torch import Tensor, nn

from recurrent_rl import IPPO, PPO

VECTOR, CHOICE = Box(-1, 1, (3,)), Discrete(3)


def lines_of(agent: Any) -> list[str]:
    """Without the first and the settings, and with one space where there are several."""
    text = repr(agent).partition("\n  settings")[0]
    return [re.sub(" +", " ", line).strip() for line in text.splitlines()[1:]]


def assert_counts(text: str, group: Any) -> None:
    """The first line has the number of all parameters, which the other lines' add up to."""
    total = sum(p.numel() for p in group.policy.parameters())
    first, *lines = text.splitlines()
    assert first.endswith(f", {total:,} parameters")
    counts = [
        int(found[1].replace(",", "")) for x in lines if (found := re.search(r"  +([\d,]+)$", x))
    ]
    assert len(counts) == len(group.policy.encoders) + 2
    assert sum(counts) == total


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"recurrent": False},
        {"share_encoders": False, "previous_action": True},
        {"action": Box(-1, 1, (2,))},  # deviations are parameters, too
        {"action": MultiBinary(3), "previous_reward": True},
        {"action": MultiDiscrete([[2, 3], [4, 5]])},
        {"normalize_obs": True, "net_config": {"head_config": {"hidden_size": []}}},
        {
            "observation": Dict(a=Box(0, 255, (3, 20, 20), np.uint8), b=Tuple([VECTOR, CHOICE])),
            "net_config": {"encoder_config": {"vector_space_mlp": True, "core_residual": True}},
        },
    ],
    ids=str,
)
def test_every_part_and_its_parameters(options: dict[str, Any]) -> None:
    options = {**options}
    spaces = options.pop("observation", VECTOR), options.pop("action", CHOICE)
    agent = PPO(*spaces, **options)
    agent.trainer.env_steps = 12345
    text = repr(agent)
    assert text.startswith("PPO after 12,345 steps, ")
    assert_counts(text, agent)
    # One line each, whatever the space.
    own = ["encoder"] if agent.config.share_encoders else ["actor's", "critic's"]
    starts = [line[2:].split(" ")[0] for line in text.splitlines()[1:]]
    said = ["settings"] if agent.config.changes() else []
    assert [name for name in starts if name] == ["sees", *own, "actor", "critic", *said]


@settings(max_examples=examples(30))
@given(observation_spaces())
def test_any_observation_can_be_described(space: Any) -> None:
    agent = PPO(space, CHOICE, {"encoder_config": {"latent_dim": 2, "hidden_state_size": 2}})
    assert_counts(repr(agent), agent)


def test_what_is_seen() -> None:
    space = Dict(
        view=Tuple([Box(0, 255, (4, 5, 3), np.uint8), Dict(far=Discrete(3))]),
        bits=MultiBinary([2, 2]),
        place=Box(-1, 1, (2, 2)),
        choices=MultiDiscrete([2, 3]),
    )
    seen = lines_of(PPO(space, CHOICE))[0]
    assert seen == (
        "sees place: numbers [2, 2]; choices: 2, 3 choices; view[1].far: 3 choices; "
        "bits: 4 bits; view[0]: bytes [4, 5, 3]"
    )
    assert lines_of(PPO(VECTOR, CHOICE))[0] == "sees numbers [3]"
    assert lines_of(PPO(Discrete(4), CHOICE))[0] == "sees 4 choices"


@pytest.mark.parametrize(
    ("options", "encoder", "expected"),
    [
        ({}, {}, ["3 numbers -> 64 Tanh -> LSTM 64"]),
        (
            {"previous_reward": True},
            {"num_layers": 2, "cell": "gru", "hidden_size": [], "core_layer_norm": True},
            ["3 numbers, with 1 extra one -> GRU 2 x 64, layer norm"],
        ),
        (
            {"recurrent": False, "previous_action": True, "previous_reward": True},
            {"hidden_size": [8], "residual_layers": 2},
            ["3 numbers and 4 extra ones -> 8 Tanh + 2 residual, feed-forward"],
        ),
        (
            {},
            {"vector_space_mlp": True, "latent_dim": 7, "residual_layers": 1},
            ["3 numbers -> 64 -> 7 Tanh -> 64 Tanh -> LSTM 64 + 1 residual"],
        ),
    ],
)
def test_encoders_of_vectors(options: Any, encoder: Any, expected: list[str]) -> None:
    agent = PPO(VECTOR, CHOICE, {"encoder_config": encoder}, **options)
    size = sum(p.numel() for p in agent.policy.encoders[0].parameters())
    assert lines_of(agent)[1] == f"encoder {expected[0]} {size:,}"


@pytest.mark.parametrize(
    ("options", "encoder", "expected"),
    [
        (
            {},
            {},
            [
                "image [3, 5, 5] -> conv 16, 32, 64 (kernels 2, 2, 2, strides 1, 1, 1) -> 128;",
                "128 -> LSTM 64",
            ],
        ),
        (
            {"recurrent": False, "previous_reward": True},
            {"channel_size": [4], "kernel_size": [3], "stride_size": [2], "latent_dim": 6},
            [
                "image [3, 5, 5] -> conv 4 (kernels 3, strides 2) -> 6;",
                "6 and 1 extra one -> 64 Tanh, feed-forward",
            ],
        ),
        ({}, {"channel_size": []}, ["image [3, 5, 5] -> flattened, 75;", "75 -> LSTM 64"]),
    ],
)
def test_encoders_of_images(options: Any, encoder: Any, expected: list[str]) -> None:
    agent = PPO(Box(0, 255, (5, 5, 3), np.uint8), CHOICE, {"encoder_config": encoder}, **options)
    size = sum(p.numel() for p in agent.policy.encoders[0].parameters())
    assert lines_of(agent)[1:3] == [f"encoder {expected[0]} {size:,}", expected[1]]


class Doubling(nn.Module):
    """A network of one's own without memory."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 6)

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        return ()

    def forward(self, observation: Any, extra: Any, state: Any) -> Any:
        return self.layer(observation), state


def test_networks_of_ones_own() -> None:
    agent = PPO(VECTOR, CHOICE, critic_network=Doubling())
    assert_counts(repr(agent), agent)
    lines = lines_of(agent)
    assert lines[1].startswith("actor's 3 numbers -> 64 Tanh -> LSTM 64 ")
    assert lines[2] == f"critic's Doubling -> 6 {3 * 6 + 6}"
    assert lines[4].startswith("critic 6 -> 64 Tanh -> value ")


def test_teams() -> None:
    spaces = {"bob_0": VECTOR, "bob_1": VECTOR, "fred_0": Discrete(5)}
    actions = {"bob_0": CHOICE, "bob_1": CHOICE, "fred_0": Box(-1, 1, (2,))}
    agent = IPPO(spaces, actions, agent_id_input=True)
    first, *_ = text = repr(agent).splitlines()
    assert first == "IPPO after 0 steps"
    titles = [i for i, line in enumerate(text) if re.match(r"  \S", line)]
    assert [text[i].split(",")[0] for i in titles] == ["  bob x 2", "  fred x 1"]
    for (begin, end), group in zip(
        [(titles[0], titles[1]), (titles[1], len(text))], agent.groups, strict=True
    ):
        part = text[begin:end]
        assert_counts("\n".join(part), group)
        assert all(line.startswith("    ") for line in part[1:])
    # Counts stand in one column.
    counts = [line for line in text if re.search(r"\d$", line) and "  " in line.strip()]
    assert len(counts) == 6
    assert len({len(line) for line in counts}) == 1


def test_a_trained_agents_line_tells_its_steps() -> None:
    agent = IPPO([VECTOR], [CHOICE], ["a"])
    agent.trainers["a"].env_steps = 2048
    assert repr(agent).startswith("IPPO after 2,048 steps\n  a x 1, ")
