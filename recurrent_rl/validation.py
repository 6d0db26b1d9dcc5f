"""Typed, ranged configurations, validated once.

A field states its range beside its type (``Annotated[float, Range(0, 1)]``), so the check, the
error message and the documentation cannot disagree. Unknown names raise and suggest the nearest
known one; nothing is ever ignored.
"""

import dataclasses
import difflib
import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, runtime_checkable

import torch

from recurrent_rl.aliases import ALIASES, OWN, PLACES


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
# Bounds that no honest number comes near: beyond them are slips that would end as an overflow, or
# as memory that cannot be had, far from where they were made.
COUNT = Range(1, 10**15)
WHOLE = Range(0, 10**15)
WIDTH = Range(1, 10**6)
LAYERS = Range(0, 1000)
ENVIRONMENTS = Range(1, 10**6)
THREADS = Range(1, 1024)
# What both NumPy and torch take as a seed.
SEED = Range(0, 2**63 - 1)


@runtime_checkable
class Rule(Protocol):
    """What a field takes that no type alone describes; it stands beside the type, as ranges do."""

    def checked(self, where: str, value: Any) -> Any:
        """See ``checked``, the function."""


class Config:
    """Validation shared by the configuration dataclasses below."""

    def __post_init__(self) -> None:
        """Check every field against its annotation, normalising numbers and sequences."""
        kind: Any = type(self)  # whose metaclass mypy takes for unhashable
        hints = _hints(kind)
        for name in self.names():
            where = f"{type(self).__name__}.{name}"
            object.__setattr__(self, name, checked(where, getattr(self, name), hints[name]))

    @classmethod
    def names(cls) -> list[str]:
        """Names of the fields, in order."""
        return [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]

    def changes(self) -> dict[str, Any]:
        """Return the values that differ from the defaults, by name."""
        usual = {f.name: f.default for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        given = {name: getattr(self, name) for name in self.names()}
        return {name: value for name, value in given.items() if value != usual[name]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and values.

        Raises:
            ValueError: an unknown name (the message has the nearest known one), or a value out of
                range.
            TypeError: a value of the wrong type.

        """
        if not isinstance(values, Mapping):
            raise TypeError(
                f"{cls.__name__}: expected a dictionary of options, got {shown(values)} "
                f"({_kind(values)})"
            )
        fields = cls.names()
        for name in values:
            if name not in fields:
                known = [*fields, *cls._shorthands()]
                raise ValueError(unknown_name(cls.__name__, name, known, PLACES))
        return cls(**values)

    @classmethod
    def _shorthands(cls) -> tuple[str, ...]:
        """Names that ``from_dict`` takes beside the fields'."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Names and plain values, as ``from_dict`` takes them."""
        return {name: _as_plain(getattr(self, name)) for name in self.names()}

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed."""
        now = {name: getattr(self, name) for name in self.names()}
        return type(self).from_dict({**now, **changes})


@functools.cache  # configurations are made many times: for each agent, copy and file
def _hints(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _as_plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    return tuple(map(_as_plain, value)) if isinstance(value, tuple) else value


def unknown_name(
    owner: str, name: object, known: list[str], places: Mapping[str, str] | None = None
) -> str:
    """Return the message for a name that does not exist, with the one that was meant.

    Args:
        owner: whose names they are.
        name: the one that does not exist; other libraries' names are known by ``aliases``, in
            whatever case.
        known: those that do exist.
        places: of names that exist elsewhere, where.

    """
    hint = meant(name, known, places) or "."
    return f"{owner} has no option {shown(name)}{hint} Known options: {', '.join(sorted(known))}"


def meant(name: object, known: Sequence[str], places: Mapping[str, str] | None = None) -> str:
    """Return the end of a sentence that says what was meant by a name that does not exist.

    Args:
        name: it; see ``unknown_name``.
        known: likewise.
        places: likewise.

    Returns:
        "; ..." up to a mark at its end; "" if nobody knows.

    """
    text = name.strip() if isinstance(name, str) else ""
    # Where only the case is wrong, no letter need agree.
    same = [option for option in known if option.lower() == text.lower()][:1]
    hint = "" if same else _other_name(text, known, places or {})
    if not hint:
        near = same or difflib.get_close_matches(text, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
    return hint


def _other_name(text: str, known: Sequence[str], places: Mapping[str, str]) -> str:
    """Return the end of a sentence that says what another library's name is here; or nothing."""
    lower = text.lower()
    alias = ALIASES.get(lower) or OWN.get(lower)
    note = f" ({alias.note.replace('`', '')})" if alias and alias.note else ""
    by_lower = {option.lower(): option for option in known}
    names = alias.names if alias else (lower,)
    here = [by_lower[each] for each in names if each in by_lower and each != lower]
    if here:
        return f"; {text} is called {' or '.join(here)} here{note}."
    elsewhere = [each for each in names if each in places]
    if not elsewhere:
        return ""
    called = "" if elsewhere[0] == lower else f" is called {elsewhere[0]} here{note} and"
    return f"; {text}{called} belongs in {places[elsewhere[0]]}."


def shown(value: object) -> str:
    """Return a value as messages show it: short, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # Python does not print integers of thousands of digits, for one
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 200 else f"{text[:197]}..."


def checked(where: str, value: Any, hint: Any) -> Any:
    """Return ``value`` as the annotation ``hint`` has it, in Python's own types.

    Args:
        where: the name that messages give it.
        value: whatever the user gave.
        hint: ``bool``, ``int``, ``float``, ``str``, ``Literal``, a ``Config``, a tuple of any
            length of these, one of them or None, or ``Annotated`` with a ``Range`` or a ``Rule``.

    Raises:
        TypeError: of another type; the message begins with ``where``.
        ValueError: out of range; likewise.

    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        if not isinstance(args[1], Range):  # hence a Rule, which takes ten times as long to ask for
            return args[1].checked(where, value)
        value = checked(where, value, args[0])
        for bounds in args[1:]:
            if value is not None and value not in bounds:
                raise ValueError(f"{where}: expected a number in {bounds}, got {shown(value)}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return checked(where, value, next(a for a in args if a is not type(None)))
    if origin is Literal:
        return _checked_choice(where, value, args)
    if origin is tuple:
        return tuple(
            checked(f"{where}[{i}]", v, args[0]) for i, v in enumerate(_items(where, value))
        )
    if issubclass(hint, Config):
        if isinstance(value, Mapping):
            return hint.from_dict(value)
        if not isinstance(value, hint):
            raise TypeError(
                f"{where}: expected a dictionary or {hint.__name__}, got {type(value).__name__}"
            )
        return value
    return _checked_scalar(where, value, hint)


def replace_checked(settings: object, name: str, hint: Any) -> None:
    """Check a field of frozen settings, and make it a value of Python's own."""
    object.__setattr__(settings, name, checked(name, getattr(settings, name), hint))


def _checked_choice(where: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return the choice that a text is, which may be NumPy's or an enumeration's."""
    if isinstance(value, str):
        for choice in choices:
            if value == choice:
                return choice
    raise ValueError(f"{where}: expected one of {list(choices)}, got {shown(value)}")


def _items(where: str, value: Any) -> list[Any]:
    """Return what is in a list, a tuple, a range or a vector; in no text, set or dictionary."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return list(value)
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
        return list(value.tolist())
    raise TypeError(f"{where}: expected a list of numbers, got {shown(value)}")


def _checked_scalar(where: str, value: Any, kind: type) -> Any:
    """Accept Python and NumPy scalars of the right kind; a bool is not a number."""
    is_bool = isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
    if kind is bool and is_bool:
        return bool(value)
    if kind is str and isinstance(value, str):
        return str.__str__(value)  # which an enumeration does not override
    if kind is int and isinstance(value, numbers.Integral) and not is_bool:
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not is_bool:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"{where}: expected a finite number, got {shown(value)}")
        return number
    raise TypeError(f"{where}: expected {kind.__name__}, got {shown(value)} ({_kind(value)})")


def _kind(value: object) -> str:
    return type(value).__name__


def checked_device(device: Any) -> torch.device:
    """Return a device that torch can use; "auto" is a GPU if there is one, or else the CPU.

    Raises:
        TypeError: neither text nor a ``torch.device``.
        ValueError: torch knows no such device, or there is none here.

    """
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, str | torch.device):
        raise TypeError(
            f"device: expected a name such as 'cpu', 'cuda' or 'auto', or a torch.device, got "
            f"{shown(device)} ({_kind(device)})"
        )
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device: expected one that torch can use here, such as 'cpu', got {shown(device)}: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return found


def checked_path(where: str, value: Any) -> Path:
    """Return a path that a user gave.

    Raises:
        TypeError: neither text nor a path; the message begins with ``where``.
        ValueError: an empty one, or one that no file can have.

    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{where}: expected a path, got {shown(value)} ({_kind(value)})")
    text = os.fspath(value)
    if not text or "\0" in text:
        raise ValueError(f"{where}: expected the path of a file or folder, got {shown(value)}")
    return Path(text)
