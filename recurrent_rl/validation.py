"""Typed, ranged configurations, validated once.

A field states its range beside its type (``Annotated[float, Range(0, 1)]``), so the check, the
error message and the documentation cannot disagree. Unknown names raise and suggest the nearest
known one; nothing is ever ignored.
"""

import dataclasses
import difflib
import math
import numbers
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self


@dataclass(frozen=True)
class Range:
    """An interval of allowed numbers; ``open_low`` excludes ``low`` itself."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether ``value`` lies in the interval."""
        above = value > self.low if self.open_low else value >= self.low
        return above and value <= self.high

    def __str__(self) -> str:
        """The interval as a mathematician writes it."""
        left = "(" if self.open_low or math.isinf(self.low) else "["
        right = ")" if math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


POSITIVE = Range(0, open_low=True)
NON_NEGATIVE = Range(0)
UNIT = Range(0, 1)
COUNT = Range(1)


class Config:
    """Validation shared by the configuration dataclasses below."""

    def __post_init__(self) -> None:
        """Check every field against its annotation, normalising numbers and sequences."""
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            where = f"{type(self).__name__}.{name}"
            object.__setattr__(self, name, _checked(where, getattr(self, name), hint))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values.

        Raises:
            ValueError: an unknown name (the message has the nearest known one), or a value out of
                range.
            TypeError: a value of the wrong type.

        """
        fields = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in values:
            if name not in fields:
                known = [*fields, *cls._shorthands()]
                raise ValueError(unknown_name(cls.__name__, name, known))
        return cls(**values)

    @classmethod
    def _shorthands(cls) -> tuple[str, ...]:
        """Names that ``from_dict`` takes beside the fields'."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Names and plain values, as ``from_dict`` takes them."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed."""
        return type(self).from_dict({**self.to_dict(), **changes})


def unknown_name(owner: str, name: object, known: list[str]) -> str:
    """Return the message for a name that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(str(name).strip(), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{owner} has no option {name!r}{hint} Known options: {', '.join(sorted(known))}"


def _checked(where: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as the annotation ``hint`` has it, or raise naming the field ``where``."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _checked(where, value, args[0])
        for bounds in args[1:]:
            if value is not None and value not in bounds:
                raise ValueError(f"{where}: expected a number in {bounds}, got {value!r}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _checked(where, value, next(a for a in args if a is not type(None)))
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where}: expected one of {list(args)}, got {value!r}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise TypeError(f"{where}: expected a list of numbers, got {value!r}")
        return tuple(_checked(f"{where}[{i}]", v, args[0]) for i, v in enumerate(value))
    if issubclass(hint, Config):
        if isinstance(value, Mapping):
            return hint.from_dict(value)
        if not isinstance(value, hint):
            raise TypeError(
                f"{where}: expected a dictionary or {hint.__name__}, got {type(value).__name__}"
            )
        return value
    return _checked_scalar(where, value, hint)


def _checked_scalar(where: str, value: Any, kind: type) -> Any:
    """Accept Python and NumPy scalars of the right kind; a bool is not a number."""
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
    if kind is bool and is_bool:
        return bool(value)
    if kind is int and isinstance(value, numbers.Integral) and not is_bool:
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not is_bool:
        if not math.isfinite(value):
            raise ValueError(f"{where}: expected a finite number, got {value!r}")
        return float(value)
    raise TypeError(f"{where}: expected {kind.__name__}, got {value!r} ({type(value).__name__})")
