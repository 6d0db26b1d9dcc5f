"""Tables that pages show, made from the code at each build, so that they are never out of date.

A page has a comment where a table is to stand:

    <!-- options: PPOConfig, AlgorithmConfig -->     the fields that these classes declare
    <!-- aliases: CLEANRL -->                        what another library's names are here
    <!-- tuned -->                                   the settings of ``load_tuned``
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from recurrent_rl import aliases
from recurrent_rl.algorithms import configs, off_policy_configs, schedules
from recurrent_rl.networks import configs as network_configs
from recurrent_rl.tuned import TUNED
from recurrent_rl.validation import Config, Range, Rule

MARK = re.compile(r"^<!-- (options|aliases|tuned)(?:: (.*?))? -->$", re.M)
HUGE = 10**15  # bounds from here on are against slips only


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put tables in place of their comments; MkDocs calls this for each page."""
    return MARK.sub(lambda found: TABLES[found[1]](found[2] or ""), markdown)


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(text: str) -> str:
    """Return a cell's text, with bars and stars escaped, except in code."""
    parts = text.split("`")
    return "`".join(x if i % 2 else re.sub(r"([|*])", r"\\\1", x) for i, x in enumerate(parts))


def config_class(name: str) -> type[Config]:
    """Return a configuration class by its name."""
    for module in (configs, schedules, off_policy_configs, network_configs):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, Config):
            return found
    raise ValueError(f"options: expected the name of a configuration class, got {name!r}")


def options(names: str) -> str:
    """Return a table of the fields that some classes, named with commas between, declare."""
    rows = []
    for cls in map(config_class, names.split(", ")):
        hints = typing.get_type_hints(cls, include_extras=True)
        for name in cls.names():
            if name in cls.__annotations__:
                cells = (default(cls, name), allowed(hints[name]), meaning(cls, name))
                rows.append((f"`{name}`", *cells))
    return table(("option", "default", "allowed", "meaning"), rows)


def default(cls: type[Config], name: str) -> str:
    """Return a field's default, as one writes it."""
    field = next(field for field in dataclasses.fields(cls) if field.name == name)  # type: ignore[arg-type]
    value = field.default
    if value is dataclasses.MISSING:
        value = getattr(cls(), name)
    if isinstance(value, Config):
        return f"`{type(value).__name__}()`"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"`{value:_}`"
    return f"`{value!r}`".replace("'", '"')


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
    """Return what the docstring of a class, or of one that it inherits from, says of a field."""
    for owner in cls.__mro__:
        text = attributes(inspect.cleandoc(owner.__doc__ or "")).get(name)
        if text:
            return re.sub(r"``(.+?)``", r"`\1`", text)
    raise ValueError(f"{cls.__name__}.{name}: expected a docstring to say what it means; add it")


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


def alias_table(library: str) -> str:
    """Return a table of one library's names."""
    known: Mapping[str, aliases.Alias] = getattr(aliases, library)
    rows = [(f"`{name}`", _here(alias), alias.note) for name, alias in known.items()]
    return table(("there", "here", "what differs"), rows)


def _here(alias: aliases.Alias) -> str:
    names = [
        f"`{aliases.PLACES[name]}`" if name in aliases.PLACES else f"`{name}`"
        for name in alias.names
    ]
    return " or ".join(names).replace("the agent's arguments", alias.names[0])


def tuned(_: str = "") -> str:
    """Return a table of the settings that were found by trying."""
    rows = []
    for settings in TUNED.values():
        flat = {**_shapes(settings.net_config), **settings.hyperparameters}
        words = ", ".join(f"{name}={value!r}" for name, value in flat.items())
        size = f"{settings.num_envs}", f"{settings.total_steps:,}"
        rows.append((settings.env_id, settings.algo, *size, f"`{words}`"))
    return table(("environment", "agent", "environments", "steps", "settings"), rows)


def _shapes(net_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return shapes as a flat list, heads' options under names of their own."""
    encoder, head = net_config.get("encoder_config", {}), net_config.get("head_config", {})
    return {**encoder, **{f"head {name}": value for name, value in head.items()}}


TABLES: dict[str, Callable[[str], str]] = {
    "options": options,
    "aliases": alias_table,
    "tuned": tuned,
}
