"""What configurations' fields are, in words: for ``help``, the command line, and the site's tables.

All of it is read from the classes: a field's annotation has its range, and the docstring of the
class that declares it has its meaning.
"""

import dataclasses
import functools
import inspect
import re
import textwrap
import types
import typing
from typing import Annotated, Any, Literal

from recurrent_rl.validation import Config, Range, Rule

HUGE = 10**15  # bounds from here on are against slips only


def default_of(cls: type[Config], name: str) -> Any:
    """Return a field's default."""
    field = next(field for field in dataclasses.fields(cls) if field.name == name)  # type: ignore[arg-type]
    return getattr(cls(), name) if field.default is dataclasses.MISSING else field.default


def hints_of(cls: type[Config]) -> dict[str, Any]:
    """Return the annotations of all fields, ranges included, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hints[name] for name in cls.names()}


def allowed(hint: Any) -> str:
    """Return in words what values a field's annotation allows."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        base, bounds = parts[0], parts[1]
        if isinstance(bounds, Rule):
            return str(bounds)
        none = " or None" if type(None) in typing.get_args(base) else ""
        whole = int in (base, *typing.get_args(base))
        return f"{'whole number' if whole else 'number'}{interval(bounds)}{none}"
    if origin in (typing.Union, types.UnionType):
        inner = next(part for part in parts if part is not type(None))
        return f"{allowed(inner)}, or None"
    if origin is Literal:
        return ", ".join(f"`{part!r}`" for part in parts).replace("'", '"')
    if origin is tuple:
        return f"list: {allowed(parts[0])}, each"
    if isinstance(hint, type) and issubclass(hint, Config):
        return f"dictionary, see `{hint.__name__}` below"
    names = {bool: "True, False", int: "whole number", float: "number", str: "text"}
    return names[hint]


def interval(bounds: Range) -> str:
    """Return an interval as a table says it."""
    low, high = f"{bounds.low:,.10g}", f"{bounds.high:,.10g}"
    if bounds.low == -bounds.high:
        return "" if bounds.high > HUGE else f" in [{low}, {high}]"
    if bounds.high < HUGE:
        return f" in {'(' if bounds.open_low else '['}{low}, {high}]"
    return f" {'above' if bounds.open_low else 'from'} {low}"


def meaning(cls: type[Config], name: str) -> str:
    """Return what the docstring of a class, or of one that it inherits from, says of a field.

    Raises:
        ValueError: none of them says anything.

    """
    for owner in cls.__mro__:
        text = attributes(inspect.cleandoc(owner.__doc__ or "")).get(name)
        if text:
            return re.sub(r"``(.+?)``", r"`\1`", text)
    raise ValueError(f"{cls.__name__}.{name}: expected a docstring to say what it means; add it")


def unmarked(text: str) -> str:
    """Return a text without the marks that make code of words on the site."""
    return text.replace("`", "")


def attributes(docstring: str) -> dict[str, str]:
    """Return names and texts of a docstring's section of attributes."""
    found: dict[str, str] = {}
    inside, name = False, ""
    for line in docstring.splitlines():
        if re.match(r"\S", line):
            inside = line.startswith("Attributes")
        elif inside and (start := re.match(r"    (\w+): (.*)", line)):
            name = start[1]
            found[name] = start[2]
        elif inside and line.strip():
            found[name] += " " + line.strip()
    return found


@functools.cache
def as_text(cls: type[Config]) -> str:
    """Return all fields with defaults, values and meanings, as ``help`` shows them."""
    lines = []
    for name, hint in hints_of(cls).items():
        values, meant = map(unmarked, (allowed(hint), meaning(cls, name)))
        lines.append(f"    {name} = {default_of(cls, name)!r}  ({values})")
        lines += textwrap.wrap(meant, 92, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)
