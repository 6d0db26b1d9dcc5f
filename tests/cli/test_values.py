"""Tests of `recurrent_rl.cli.values`: words of a command line as values."""

from typing import Annotated, Any, Literal

import pytest

from recurrent_rl.cli.errors import UsageError
from recurrent_rl.cli.values import named_arguments, value_of
from recurrent_rl.validation import COUNT, POSITIVE


@pytest.mark.parametrize(
    ("word", "hint", "expected"),
    [
        ("3e-4", Annotated[float, POSITIVE], 3e-4),
        ("3", float, 3.0),
        ("100_000", Annotated[int, COUNT], 100_000),
        ("1e6", Annotated[int, COUNT], 1_000_000),
        ("None", Annotated[int | None, COUNT], None),
        ("none", str | None, None),
        ("7", str | None, "7"),
        ("true", bool | None, True),
        ("False", bool, False),
        ("linear", Literal["constant", "linear"], "linear"),
    ],
)
def test_single_values(word: str, hint: Any, expected: Any) -> None:
    found = value_of("--x", [word], hint, is_list=False)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("words", "expected"), [(["64", "32"], (64, 32)), (["8"], (8,)), ([], ()), (["None"], None)]
)
def test_lists(words: list[str], expected: Any) -> None:
    assert value_of("--x", words, tuple[int, ...] | None, is_list=True) == expected


@pytest.mark.parametrize(
    ("words", "hint", "is_list", "message"),
    [
        (["-1"], Annotated[float, POSITIVE], False, "--x: expected a number above 0, got -1"),
        (["1.5"], int, False, "--x: expected a whole number, got 1.5"),
        (["big"], Literal["small"], False, '--x: expected "small", got big'),
        (["None"], int, False, "--x: expected a whole number, got None"),
        (["1", "a"], tuple[int, ...], True, "--x: expected a list: whole number, each, got 1 a"),
    ],
)
def test_what_is_none(words: list[str], hint: Any, is_list: bool, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        value_of("--x", words, hint, is_list=is_list)
    assert str(caught.value) == message


def test_named_arguments() -> None:
    assert named_arguments("--x", "") == {}
    assert named_arguments("--x", "a=[1, 2], b='c)', d=-1.5") == {"a": [1, 2], "b": "c)", "d": -1.5}
    for wrong in ("3", "a=b", "a=1) + f(b=2", "a=", "**{}"):
        with pytest.raises(UsageError, match="expected arguments by name"):
            named_arguments("--x", wrong)
