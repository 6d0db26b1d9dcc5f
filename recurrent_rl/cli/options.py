"""Options of commands: made from configuration classes, parsed by tyro.

A command's own options are a ``Config`` as an algorithm's hyper-parameters are, so that both have
their types, ranges, defaults and texts from one place.
"""

import contextlib
import dataclasses
import difflib
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

from recurrent_rl.aliases import ALIASES
from recurrent_rl.cli.errors import UsageError, program, told_in_one_line
from recurrent_rl.cli.values import value_of
from recurrent_rl.descriptions import allowed, default_of, hints_of, meaning, unmarked
from recurrent_rl.extras import extra_package
from recurrent_rl.validation import Config, Rule

# What has no option of its own name here.
_ELSEWHERE = {
    "net_config": "--encoder... and --head...",
    "log_dir": "--folder",
    "progress": "nothing: the bar is always shown",
    "actor_network": "nothing: a network of your own takes a script of your own",
    "on_rollout": "nothing: a function of your own takes a script of your own",
}


class Options(Config):
    """Options of a command.

    Attributes:
        POSITIONAL: names of those that are written without their name.
        REPEATED: names of those that may be given again and again.

    """

    POSITIONAL: ClassVar[tuple[str, ...]] = ()
    REPEATED: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class Group:
    """Options that stand together in the help.

    Attributes:
        cls: declares them.
        title: of the box that they stand in.
        prefixed: whether the title and a dot stand in front of each, as in --encoder.cell.
        defaults: in place of the class's own.
        hidden: names of those that are no options.

    """

    cls: type[Config]
    title: str = "command"
    prefixed: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()

    def named(self, name: str) -> str:
        """Return an option's name with what stands in front of it."""
        return f"{self.title}.{name}" if self.prefixed else name

    def hints(self) -> dict[str, Any]:
        """Return the annotations of those that are options."""
        return {n: hint for n, hint in hints_of(self.cls).items() if n not in self.hidden}

    def inner(self, name: str, hint: Any, defaults: Mapping[str, Any]) -> "Group | None":
        """Return the options of a field that is a configuration itself; None: it is none."""
        if isinstance(hint, type) and issubclass(hint, Config):
            return Group(hint, self.named(name), prefixed=True, defaults=defaults)
        return None


class Option(NamedTuple):
    """One option.

    Attributes:
        name: with what stands in front of it.
        cls: declares it.
        field: its name there.
        hint: its annotation.

    """

    name: str
    cls: type[Config]
    field: str
    hint: Any


def parse(
    command: str,
    description: str,
    words: Sequence[str],
    groups: Sequence[Group],
    others: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Return the options' values, group by group.

    Args:
        command: its name.
        description: what it does, for its help.
        words: of the command line, behind the command.
        groups: its options.
        others: names of options that it has in other cases, and what is to be said of them.

    Raises:
        UsageError: an unknown option, or a value that is none.
        SystemExit: help was asked for, and has been written.

    """
    with told_in_one_line():
        tyro = extra_package("tyro", "cli", program())
    names = [f"group_{i}" for i in range(len(groups))]
    fields = []
    for name, group in zip(names, groups, strict=True):
        made, mark = _arguments(tyro, group), tyro.conf.arg(name=group.title)
        fields.append((name, Annotated[made, mark], field(default_factory=made)))
    whole = dataclasses.make_dataclass("Arguments", fields)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            values, rest = tyro.cli(
                whole,
                prog=f"{program()} {command}",
                description=description,
                args=list(words),
                return_unknown_args=True,
            )
    except SystemExit as end:
        if not end.code:  # after --help
            raise
        raise UsageError(_in_one_line(said.getvalue())) from None
    if rest:
        known = [option.name for option in options_in(groups)]
        raise UsageError(_unknown(command, rest[0], known, others or {}))
    return [_plain(getattr(values, name)) for name in names]


def options_in(groups: Sequence[Group]) -> Iterator[Option]:
    """Yield all options, also of configurations within configurations."""
    for group in groups:
        for name, hint in group.hints().items():
            if (inner := group.inner(name, hint, {})) is not None:
                yield from options_in([inner])
            else:
                yield Option(group.named(name), group.cls, name, hint)


def written(name: str) -> str:
    """Return an option as it is written on a command line."""
    return "--" + name.replace("_", "-")


def _arguments(tyro: Any, group: Group) -> Any:
    """Return a dataclass as tyro takes it, with what a configuration class's fields are."""
    cls = group.cls
    positional, repeated = getattr(cls, "POSITIONAL", ()), getattr(cls, "REPEATED", ())
    fields: list[tuple[str, Any, Any]] = []
    for name, hint in group.hints().items():
        value = group.defaults.get(name, default_of(cls, name))
        defaults = value.to_dict() if isinstance(value, Config) else value
        if (inner := group.inner(name, hint, defaults)) is not None:
            made = _arguments(tyro, inner)
            fields.append((name, made, field(default_factory=made)))
            continue
        marks: list[Any] = [tyro.conf.arg(help=_help(cls, name, hint), prefix_name=group.prefixed)]
        kind: Any = Any
        if hint is bool:
            kind = bool
        elif name in repeated:
            kind = tuple[str, ...]
            marks.append(tyro.conf.UseAppendAction)
        elif name in positional:
            marks += [_spec(tyro, name.upper(), hint, name.upper()), tyro.conf.Positional]
        else:
            marks.append(_spec(tyro, written(group.named(name)), hint, _kind(hint)))
        fields.append((name, Annotated[kind, *marks], field(default=value)))
    return dataclasses.make_dataclass(cls.__name__, fields)


def _spec(tyro: Any, where: str, hint: Any, kind: str) -> Any:
    """Return how words become a value of an annotation's kind."""
    is_list = typing.get_origin(_without_none(hint)) is tuple
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if is_list else 1,
        metavar=f"[{kind} [{kind} ...]]" if is_list else kind,
        instance_from_str=lambda words: value_of(where, words, hint, is_list=is_list),
        is_instance=lambda value: True,
        str_from_instance=_shown,
    )


def _kind(hint: Any) -> str:
    """Return what stands for a value in the help."""
    bare = _without_none(hint)
    if _is_rule(hint):
        return "TEXT"
    if typing.get_origin(bare) is typing.Literal:
        return "{" + ",".join(typing.get_args(bare)) + "}"
    scalars = _scalars(bare)
    return next(
        (
            word
            for scalar, word in ((bool, "{True,False}"), (float, "FLOAT"), (int, "INT"))
            if scalar in scalars
        ),
        "TEXT",
    )


def _is_rule(hint: Any) -> bool:
    """Whether an annotation says by a rule rather than by a type what it takes."""
    return typing.get_origin(hint) is Annotated and isinstance(typing.get_args(hint)[1], Rule)


def _without_none(hint: Any) -> Any:
    """Return an annotation without its range, and without the None that it may allow."""
    if typing.get_origin(hint) is Annotated:
        hint = typing.get_args(hint)[0]
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return parts[0] if type(None) in typing.get_args(hint) else hint


def _scalars(hint: Any) -> tuple[Any, ...]:
    """Return the kinds of numbers in an annotation."""
    inner = tuple(kind for part in typing.get_args(hint) for kind in _scalars(part))
    return inner or (hint,)


def _shown(value: Any) -> list[str]:
    """Return a default as help shows it, and as it is written on a command line."""
    if isinstance(value, list | tuple):
        return [str(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return [f"{value:_}"]
    return [str(value)]


def _help(cls: type[Config], name: str, hint: Any) -> str:
    """Return what an option means, and what it may be where that is not to be seen already."""
    text = unmarked(meaning(cls, name)).rstrip(".")
    text = text[:1].upper() + text[1:] + "."
    bare = _without_none(hint)
    if bare in (bool, str) or typing.get_origin(bare) is typing.Literal:
        return text if bare is hint else f"{text} [or None]"
    return f"{text} [{unmarked(allowed(hint))}]"


def _plain(values: Any) -> dict[str, Any]:
    """Return what tyro has made as names and values."""
    return {
        each.name: _plain(value) if dataclasses.is_dataclass(value) else value
        for each in dataclasses.fields(values)
        for value in [getattr(values, each.name)]
    }


def _in_one_line(box: str) -> str:
    """Return what tyro says in a box, without the box and without advice on more."""
    text = " ".join(re.sub(r"[─-╿]", " ", box).split())
    missing = re.search(r"Missing value for argument '(\S+)'", text)
    if missing is not None:
        return f"{missing[1]}: expected a value behind it, got none"
    return text.partition(" For full helptext")[0] or "expected options and their values"


def _unknown(command: str, word: str, known: Sequence[str], others: Mapping[str, str]) -> str:
    """Return the message for what is no option of a command, with the one that was meant."""
    if not word.startswith("-"):
        return (
            f"{command}: expected nothing more, got {word!r}; options begin with --, and "
            f"{program()} {command} --help lists them"
        )
    option = word.partition("=")[0]
    name = option.lstrip("-").replace("-", "_")
    alias = ALIASES.get(name.lower())
    wanted = alias.names if alias is not None else (name,)
    here = [each for each in known if each in wanted or each.rpartition(".")[2] in wanted]
    note = f" ({alias.note.replace('`', '')})" if alias is not None and alias.note else ""
    if here:
        hint = f"it is called {' or '.join(map(written, here))} here{note}"
    elif any(each in others for each in wanted):
        hint = next(others[each] for each in wanted if each in others)
    elif any(each in _ELSEWHERE for each in wanted):
        hint = f"here it is {next(_ELSEWHERE[each] for each in wanted if each in _ELSEWHERE)}"
    else:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {written(near[0])}?" if near else ""
    more = f"{program()} {command} --help lists all"
    return f"{command} has no option {option}; {'; '.join(filter(None, (hint, more)))}"
