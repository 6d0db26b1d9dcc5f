"""Tables that pages show, made from the code at each build, so that they are never out of date.

A page has a comment where a table is to stand:

    <!-- options: PPOConfig, AlgorithmConfig -->     the fields that these classes declare
    <!-- aliases: CLEANRL -->                        what another library's names are here
    <!-- tuned -->                                   the settings of ``load_tuned``
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from recurrent_rl import aliases
from recurrent_rl.algorithms import configs, off_policy_configs, schedules
from recurrent_rl.descriptions import allowed, default_of, hints_of, meaning
from recurrent_rl.networks import configs as network_configs
from recurrent_rl.tuned import TUNED
from recurrent_rl.validation import Config

MARK = re.compile(r"^<!-- (options|aliases|tuned)(?:: (.*?))? -->$", re.M)


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
        hints = hints_of(cls)
        for name in hints:
            if name in cls.__annotations__:
                cells = (default(cls, name), allowed(hints[name]), meaning(cls, name))
                rows.append((f"`{name}`", *cells))
    return table(("option", "default", "allowed", "meaning"), rows)


def default(cls: type[Config], name: str) -> str:
    """Return a field's default, as one writes it."""
    value = default_of(cls, name)
    if isinstance(value, Config):
        return f"`{type(value).__name__}()`"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"`{value:_}`"
    return f"`{value!r}`".replace("'", '"')


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
