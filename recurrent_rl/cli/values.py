"""Words of a command line as values, by the annotations of what they are for."""

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from recurrent_rl.cli.errors import UsageError
from recurrent_rl.descriptions import allowed, unmarked
from recurrent_rl.validation import checked

_WORDS = {"none": None, "true": True, "false": False}


def value_of(where: str, words: Sequence[str], hint: Any, *, is_list: bool) -> Any:
    """Return the value that words stand for.

    Args:
        where: the option, for messages.
        words: a single one, or those of a list; "None" for none.
        hint: an annotation, as ``validation.checked`` takes it.
        is_list: whether it is of a list.

    Raises:
        UsageError: they stand for no value of that kind, or one that is out of range.

    """
    for value in _lists(words) if is_list else _meanings(words[0]):
        try:
            return checked(where, value, hint)
        except (TypeError, ValueError):  # perhaps it was meant in another way
            continue
    expected = unmarked(allowed(hint))
    some = "a " if expected.startswith(("number", "whole number", "list")) else ""
    raise UsageError(f"{where}: expected {some}{expected}, got {' '.join(words) or 'nothing'}")


def _lists(words: Sequence[str]) -> Iterator[Any]:
    """Yield what words of a list may mean: none, or their values."""
    if len(words) == 1:
        yield from _meanings(words[0])
    yield [next(_meanings(word)) for word in words]
    yield list(words)


def _meanings(word: str) -> Iterator[Any]:
    """Yield what a word may mean, the most special first."""
    if word.lower() in _WORDS:
        yield _WORDS[word.lower()]
    try:
        number = float(word)
        yield int(number) if number.is_integer() else number
        yield number
    except ValueError:
        pass
    yield word


def rounded(number: float) -> str:
    """Return a number as people read returns: with a decimal, and with two where it is small."""
    return f"{number:.{_digits(number)}f}"


def spread(mean: float, deviation: float) -> str:
    """Return a mean and a deviation, rounded alike."""
    digits = _digits(mean)
    return f"{mean:.{digits}f} +- {deviation:.{digits}f}"


def _digits(number: float) -> int:
    return 2 if abs(number) < 10 else 1


def named_arguments(where: str, text: str) -> dict[str, Any]:
    """Return names and values of what stands between the parentheses of a call.

    >>> named_arguments("--wrapper", "indices=[4, 5], name='x'")
    {'indices': [4, 5], 'name': 'x'}

    Raises:
        UsageError: no list of such; values are Python's literals.

    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or None in {k.arg for k in call.keywords}:
            raise ValueError("something else than names and values")
        return {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"{where}: expected arguments by name, such as indices=[4, 5], got {text!r} ({error})"
        ) from None
