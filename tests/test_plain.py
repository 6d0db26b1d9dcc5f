"""Tests of `recurrent_rl.plain`: values of NumPy and of enumerations as Python's own."""

import enum
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from recurrent_rl.plain import digest, plain


class Text(str, enum.Enum):  # noqa: UP042 - the older kind, too
    A = "a"


class NewText(enum.StrEnum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Own(str):
    def __str__(self) -> str:
        return "something else"


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.str_("a"), "a"),
        (Text.A, "a"),
        (NewText.A, "a"),
        (Own("a"), "a"),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (Number.ONE, 1),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.array(2), 2),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (Pair(np.int8(1), 2), (1, 2)),
        (OrderedDict({np.str_("k"): np.int64(1)}), {"k": 1}),
        ({np.int64(0): [Text.A]}, {0: ["a"]}),
        ({(np.str_("k"), 1): None}, {("k", 1): None}),
    ],
    ids=repr,
)
def test_becomes_pythons_own(value: Any, expected: Any) -> None:
    def kinds(x: Any) -> Any:
        if isinstance(x, dict):
            return [kinds(part) for item in x.items() for part in item]
        return [type(x), *(kinds(part) for part in x)] if isinstance(x, list | tuple) else type(x)

    got = plain(value)
    assert got == expected
    assert type(got) is type(expected)
    assert kinds(got) == kinds(expected)


@pytest.mark.parametrize(
    "value", [object(), b"bytes", {1, 2}, 1j, np.complex64(1), np.datetime64("2020"), print, int]
)
def test_refuses_the_rest_and_says_where(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^data\.a\[1\]: expected a number, text, None, a tensor"):
        plain({"a": [0, value]})


def test_digest_sees_content_only() -> None:
    x = torch.arange(6.0)
    same = [x.view(2, 3), x.view(3, 2).T.contiguous().T.reshape(2, 3), torch.cat((x, x))[:6]]
    assert digest(same[0]) == digest(same[1])
    assert digest(same[2].view(2, 3)) == digest(same[0])
    different = [x, x.double(), x.view(2, 3), -x, [x], (x,), {"a": x}, {"b": x}, 1, 1.0, True, "1"]
    assert len({digest(each) for each in different}) == len(different)
    assert digest([float("nan"), -0.0]) == digest([float("nan"), -0.0]) != digest([0.0, -0.0])
