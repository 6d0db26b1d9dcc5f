"""The command ``list``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import recurrent_rl.wrappers as wrappers
from recurrent_rl.cli.environments import WRAPPED
from recurrent_rl.cli.errors import UsageError, command
from recurrent_rl.cli.options import Group, Options, options_in, parse, written
from recurrent_rl.cli.settings import OBSERVED, TEAM_ALGORITHMS, agent_groups
from recurrent_rl.descriptions import allowed, default_of, meaning, unmarked
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.tuned import TUNED

LIST = "List environments that settings were found for, algorithms, wrappers, or options."


@dataclass(frozen=True)
class ListOptions(Options):
    """What is listed.

    Attributes:
        what: environments (those that there are tuned settings for), algorithms, wrappers, or
            options; None: the first three.
        algo: whose options.

    """

    POSITIONAL = ("what", "algo")

    what: Literal["environments", "algorithms", "wrappers", "options"] | None = None
    algo: str | None = None


def show(words: Sequence[str]) -> None:
    """Do what ``recurrent_rl list`` says."""
    (options,) = parse("list", LIST, words, [Group(ListOptions)])
    what, algo = options["what"], options["algo"]
    if what == "options":
        if algo not in ALGORITHMS:
            got = "none" if algo is None else algo
            raise UsageError(f"ALGO: expected one of {', '.join(ALGORITHMS)}, got {got}")
        _options(algo)
        return
    if algo is not None:
        raise UsageError(f"list {what}: expected nothing more, got {algo!r}")
    shown = {"environments": _environments, "algorithms": _algorithms, "wrappers": _wrappers}
    for i, name in enumerate(shown if what is None else [what]):
        if what is None:
            print("\n" * bool(i) + f"{name}:")
        shown[name]()
    if what is None:
        print(f"\noptions of an algorithm: {command('list', 'options', 'PPO')}")


def _environments() -> None:
    rows: dict[str, list[str]] = {}
    for (key, algo), settings in TUNED.items():
        as_it_is = algo in TEAM_ALGORITHMS or any(key.startswith(start) for start in WRAPPED)
        masked = not as_it_is and not key.endswith(OBSERVED)
        name = key.removesuffix(OBSERVED) + (" --mask-velocity" if masked else "")
        rows.setdefault(name, []).append(f"{algo} ({settings.total_steps:,} steps)")
    _table([(name, ", ".join(algos)) for name, algos in rows.items()])


def _algorithms() -> None:
    _table([(name, _first_line(kind)) for name, kind in ALGORITHMS.items()])


def _wrappers() -> None:
    named = {name: getattr(wrappers, name) for name in wrappers.__all__}
    rows = [(n, _first_line(w)) for n, w in named.items() if isinstance(w, type)]
    rows.append(("module:Class", "any of yours, or of Gymnasium's (gymnasium.wrappers)"))
    _table(rows)


def _options(algo: str) -> None:
    for name, cls, field, hint in options_in(agent_groups(algo)):
        text = f"{written(name)} (default {default_of(cls, field)}): {allowed(hint)}."
        print(unmarked(f"{text} {meaning(cls, field)}"))


def _table(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"  {name:<{width}}  {text}")


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0].rstrip(".")
