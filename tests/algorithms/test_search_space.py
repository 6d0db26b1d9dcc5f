"""Tests of `recurrent_rl.algorithms.search_space`: ranges, and how a mutation moves in them."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recurrent_rl import HyperparameterConfig, PPOConfig, RLParameter
from recurrent_rl.algorithms import search_space
from recurrent_rl.algorithms.configs import AlgorithmConfig
from recurrent_rl.algorithms.search_space import CONFIGS
from recurrent_rl.validation import UNIT, Range


@dataclass(frozen=True)
class OtherConfig(AlgorithmConfig):
    """Of an algorithm with a parameter of its own, and with one of PPO's in another range."""

    MUTABLE: ClassVar[tuple[str, ...]] = ("learn_step", "gamma", "tau", "lr")
    CHANGEABLE: ClassVar[tuple[str, ...]] = MUTABLE

    tau: Annotated[float, UNIT] = 0.01
    gamma: Annotated[float, Range(0, 2)] = 0.99
    lr: Annotated[float, Range(0, 1e-3)] = 1e-3

    @property
    def update_ratio(self) -> float:
        return 1.0


def draws(parameter: RLParameter, value: float, count: int = 60) -> set[float]:
    """What mutations make of a value."""
    generator = torch.Generator().manual_seed(1)
    return {parameter.mutated(value, generator) for _ in range(count)}


# --- one range ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "share", "expected"),
    [
        (RLParameter(1e-4, 1e-2), 0.0, 1e-4),
        (RLParameter(1e-4, 1e-2), 0.5, 1e-3),
        (RLParameter(1e-4, 1e-2), 1.0, 1e-2),
        (RLParameter(8, 512, dtype=int), 0.5, 64),
        (RLParameter(0, 0.2), 0.0, 0.0),  # no logarithm of zero
        (RLParameter(0, 0.2), 0.25, 0.05),
        (RLParameter(0, 10, dtype=int), 0.5, 5),
    ],
)
def test_between_is_spaced_by_the_logarithm(
    parameter: RLParameter, share: float, expected: float
) -> None:
    value = parameter.between(share)
    assert value == expected
    assert type(value) is parameter.dtype


def test_between_has_no_rounding_in_its_digits() -> None:
    # 0.001 rather than 0.0010000000000000002: the value stands in logs.
    assert str(RLParameter(1e-4, 1e-2).between(0.5)) == "0.001"


def test_mutation_multiplies_or_divides_with_equal_chance() -> None:
    parameter = RLParameter(0.1, 10, shrink_factor=0.5, grow_factor=3)
    generator = torch.Generator().manual_seed(0)
    found = [parameter.mutated(1.0, generator) for _ in range(400)]
    assert set(found) == {0.5, 3.0}
    assert 150 < found.count(3.0) < 250  # five deviations


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.1, {0.125}), (1.0, {0.8}), (0.99, {0.792, 1.0}), (0.11, {0.1, 0.1375})],
)
def test_at_a_bound_the_way_that_is_open(value: float, expected: set[float]) -> None:
    assert draws(RLParameter(0.1, 1.0), value) == expected


@pytest.mark.parametrize(("value", "expected"), [(1e-5, {0.1}), (7.0, {1.0})])
def test_value_far_outside_returns_to_the_nearer_bound(value: float, expected: set[float]) -> None:
    assert draws(RLParameter(0.1, 1.0), value) == expected


def test_zero_grows() -> None:
    assert draws(RLParameter(0, 0.5), 0.0) == {0.005}
    assert draws(RLParameter(0, 10, dtype=int), 0) == {1}


@given(
    st.integers(0, 20),
    st.integers(1, 300),
    st.integers(0, 2**31),
    st.floats(0.01, 0.99),
    st.floats(1.01, 5),
)
def test_integers_move_by_at_least_one_and_stay_in_range(
    low: int, span: int, seed: int, shrink: float, grow: float
) -> None:
    parameter = RLParameter(low, low + span, shrink, grow, dtype=int)
    generator = torch.Generator().manual_seed(seed)
    value: float = int(torch.randint(low, low + span + 1, (), generator=generator))
    for _ in range(5):
        moved = parameter.mutated(value, generator)
        assert type(moved) is int
        assert low <= moved <= low + span
        assert moved != value
        value = moved


@given(st.floats(1e-6, 1), st.floats(1.1, 1e4), st.integers(0, 2**31))
def test_numbers_stay_in_range_and_move(low: float, ratio: float, seed: int) -> None:
    parameter = RLParameter(low, low * ratio)
    generator = torch.Generator().manual_seed(seed)
    value: float = parameter.between(float(torch.rand((), generator=generator)))
    for _ in range(5):
        moved = parameter.mutated(value, generator)
        assert type(moved) is float
        assert low <= moved <= low * ratio
        assert moved != value
        value = moved


def walks(parameter: RLParameter, start: float, length: int = 60, count: int = 400) -> float:
    """The mean factor, by the logarithm, that so many mutations in a row come to."""
    generator = torch.Generator().manual_seed(0)
    logarithms = []
    for _ in range(count):
        value = start
        for _ in range(length):
            value = parameter.mutated(value, generator)
        logarithms.append(math.log(value / start))
    return math.exp(sum(logarithms) / count)


@pytest.mark.parametrize("factors", [{}, {"shrink_factor": 0.5}, {"grow_factor": 1.1}])
def test_mutations_without_selection_do_not_drift(factors: dict[str, float]) -> None:
    parameter = RLParameter(1e-150, 1e150, **factors)
    assert parameter.shrink_factor * parameter.grow_factor == pytest.approx(1)
    deviation = math.log(parameter.grow_factor) * math.sqrt(60 / 400)
    # 0.8 and 1.2 came to 0.29 of the start.
    assert abs(math.log(walks(parameter, 1.0))) < 3 * deviation


@pytest.mark.parametrize("start", [3, 20, 100, 1000])
def test_integers_do_not_drift_by_rounding(start: int) -> None:
    # Far from the bounds: 10 mutations make 3 to 0.3 at the least, so that 1 is seldom met.
    parameter = RLParameter(1, 10**12, dtype=int)
    drift = walks(parameter, start, length=60 if start > 3 else 2)
    # Walks from 3 and 20 sometimes come to 1, from where all ways lead up.
    assert {3: 0.9, 20: 0.85, 100: 0.8, 1000: 0.78}[start] < drift < {20: 1.5}.get(start, 1.25)


@pytest.mark.parametrize(("value", "chance"), [(2, 0.631), (3, 0.585), (4, 0.563), (100, 0.5)])
def test_the_chances_make_up_for_the_rounding(value: int, chance: float) -> None:
    # By hand: 2 becomes 1 or 3, and ln(2 / 1) / ln(3 / 1) = 0.631; 3 becomes 2 or 4, and
    # ln(3 / 2) / ln(4 / 2) = 0.585; 4 becomes 3 or 5, and ln(4 / 3) / ln(5 / 3) = 0.563.
    parameter = RLParameter(1, 10**6, dtype=int)
    generator = torch.Generator().manual_seed(0)
    found = [parameter.mutated(value, generator) > value for _ in range(4000)]
    assert sum(found) / 4000 == pytest.approx(chance, abs=0.025)  # three deviations


def test_factors_of_ones_own_stay() -> None:
    parameter = RLParameter(1, 100, shrink_factor=0.8, grow_factor=1.2)
    assert (parameter.shrink_factor, parameter.grow_factor) == (0.8, 1.2)
    again = HyperparameterConfig.from_dict(HyperparameterConfig(lr=parameter).to_dict())
    assert again.parameters["lr"] == parameter


def test_same_generator_same_mutations() -> None:
    parameter = RLParameter(0.1, 10)
    runs = []
    for _ in range(2):
        generator, value, run = torch.Generator().manual_seed(3), 1.0, []
        for _ in range(10):
            value = parameter.mutated(value, generator)
            run.append(value)
        runs.append(run)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) > 2


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"min": 1, "max": 1}, ValueError, "min < max, got min=1, max=1"),
        ({"min": 2, "max": 1}, ValueError, "min < max"),
        ({"min": -1, "max": 1}, ValueError, "0 <= min"),
        ({"min": 0, "max": math.inf}, ValueError, r"RLParameter\.max: expected a finite number"),
        ({"min": math.nan, "max": 1}, ValueError, r"RLParameter\.min: expected a finite number"),
        ({"min": 0, "max": 10**400}, ValueError, r"RLParameter\.max: expected a finite number"),
        ({"min": "0", "max": 1}, TypeError, r"RLParameter\.min: expected float, got '0'"),
        ({"min": 0, "max": True}, TypeError, r"RLParameter\.max: expected float, got True"),
        ({"min": 0, "max": 1, "dtype": "float"}, ValueError, "dtype: expected float or int"),
        ({"min": 0, "max": 1, "dtype": str}, ValueError, "dtype: expected float or int"),
        ({"min": 0.5, "max": 2, "dtype": int}, ValueError, "whole numbers"),
        ({"min": 0, "max": 1, "shrink_factor": 1.0}, ValueError, "0 < shrink_factor < 1"),
        ({"min": 0, "max": 1, "shrink_factor": 0}, ValueError, "0 < shrink_factor < 1"),
        ({"min": 0, "max": 1, "grow_factor": 1.0}, ValueError, "1 < grow_factor"),
        ({"min": 0, "max": 1, "grow_factor": math.inf}, ValueError, "grow_factor: .* finite"),
        ({"min": 0, "max": 1, "grow_factor": math.nan}, ValueError, "grow_factor: .* finite"),
        ({"min": 0, "max": 1, "grow_factor": 0}, ValueError, "1 < grow_factor"),
        ({"min": 0, "max": 1, "shrink_factor": math.nan}, ValueError, "shrink_factor: .* finite"),
    ],
)
def test_wrong_ranges(arguments: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        RLParameter(**arguments)


# --- several ------------------------------------------------------------------------------------


@pytest.mark.parametrize("config_type", CONFIGS)
def test_every_mutable_name_is_a_hyperparameter(config_type: type[AlgorithmConfig]) -> None:
    assert set(config_type.MUTABLE) <= set(config_type.CHANGEABLE) <= set(config_type.names())
    assert set(config_type.COMMON) <= set(config_type.CHANGEABLE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("learn_stp", "HyperparameterConfig has no option 'learn_stp'; did you mean 'learn_step'"),
        ("learning_rate", "learning_rate"),
        # Known to PPOConfig, but built into a policy.
        ("previous_action", "HyperparameterConfig has no option 'previous_action'"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HyperparameterConfig(**{name: RLParameter(1, 2)})


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"gamma": RLParameter(0.9, 1.1)}, ValueError, r"PPOConfig\.gamma: .*\[0, 1\], got 1\.1"),
        ({"lr": RLParameter(0, 0.1)}, ValueError, r"PPOConfig\.lr: .*\(0, inf\)"),
        ({"learn_step": RLParameter(8, 64)}, TypeError, r"PPOConfig\.learn_step: expected int"),
        ({"learn_step": RLParameter(0, 64, dtype=int)}, ValueError, r"PPOConfig\.learn_step"),
        ({"lr": (1e-4, 1e-2)}, TypeError, "lr: expected an RLParameter"),
    ],
)
def test_ranges_that_are_not_allowed(parameters: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        HyperparameterConfig(**parameters)


@pytest.fixture
def two_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_space, "CONFIGS", (PPOConfig, OtherConfig))


@pytest.mark.usefixtures("two_algorithms")
class TestOfSeveralAlgorithms:
    def test_names_of_any(self) -> None:
        config = HyperparameterConfig(tau=RLParameter(0.001, 0.1), clip_coef=RLParameter(0.1, 0.3))
        assert list(config.parameters) == ["tau", "clip_coef"]
        with pytest.raises(ValueError, match="has no option 'tua'; did you mean 'tau'"):
            HyperparameterConfig(tua=RLParameter(0.001, 0.1))

    def test_ranges_that_any_allows(self) -> None:
        HyperparameterConfig(gamma=RLParameter(0.9, 1.5))  # the other
        HyperparameterConfig(lr=RLParameter(1e-4, 1e-2))  # PPO
        with pytest.raises(ValueError, match=r"OtherConfig\.tau: .*\[0, 1\], got 1\.5"):
            HyperparameterConfig(tau=RLParameter(0.1, 1.5))
        with pytest.raises(ValueError, match=r"PPOConfig\.gamma: .*\[0, 1\], got 2\.5"):
            HyperparameterConfig(gamma=RLParameter(0.1, 2.5))

    def test_what_one_of_them_has(self) -> None:
        config = HyperparameterConfig(tau=RLParameter(0.001, 0.1))
        config.check("Other", OtherConfig)
        message = "hp_config of IPPO has no option 'tau'.*Known options: batch_size, clip_coef"
        with pytest.raises(ValueError, match=message):
            config.check("IPPO", PPOConfig)

    def test_the_range_of_one_of_them(self) -> None:
        config = HyperparameterConfig(lr=RLParameter(1e-4, 1e-2))
        config.check("PPO", PPOConfig)
        with pytest.raises(ValueError, match=r"OtherConfig\.lr: .*\[0, 0\.001\], got 0\.01"):
            config.check("Other", OtherConfig)


def test_round_trip_through_plain_values() -> None:
    config = HyperparameterConfig(
        lr=RLParameter(1e-4, 1e-2, shrink_factor=0.5),
        learn_step=RLParameter(8, 64, grow_factor=2, dtype=int),
    )
    data = config.to_dict()
    assert data["learn_step"] == {
        "min": 8,
        "max": 64,
        "shrink_factor": 0.5,
        "grow_factor": 2,
        "dtype": "int",
    }
    again = HyperparameterConfig.from_dict(data)
    assert again == config
    assert list(again.parameters) == ["lr", "learn_step"]
    assert again.parameters["learn_step"].dtype is int
    assert eval(repr(HyperparameterConfig())) == HyperparameterConfig()
    assert "lr=RLParameter(min=0.0001" in repr(config)


def test_equality() -> None:
    config = HyperparameterConfig(lr=RLParameter(1e-4, 1e-2))
    assert config == HyperparameterConfig(lr=RLParameter(1e-4, 1e-2))
    assert config != HyperparameterConfig(lr=RLParameter(1e-4, 1e-1))
    assert config != HyperparameterConfig(gamma=RLParameter(0.9, 1))
    assert config != config.parameters
