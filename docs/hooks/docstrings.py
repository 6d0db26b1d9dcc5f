"""Docstrings as Markdown: examples become code, a star is a star, and a result is one.

Markdown takes ``>>>`` for a quotation of quotations, and the stars of shapes for emphasis.
"""

import re
from typing import Any

from griffe import Extension, Object

EXAMPLE = re.compile(r"(?:^[ ]*>>> .*\n?)(?:^[ ]*\S.*\n?)*", re.M)
# What is code already: fenced blocks, and text between backticks.
CODE = re.compile(r"(```.*?```|``.*?``)", re.S)
# A result without names, in sentences over several lines: each line would be a result of its own.
RESULT = re.compile(r"(?<=^Returns:\n)    (?!\w+: ).*\n(?:    .*\n?)+", re.M)


def markdown(docstring: str) -> str:
    """Return a docstring as the site's tools understand it."""

    def fence(found: re.Match[str]) -> str:
        indent = found[0][: len(found[0]) - len(found[0].lstrip(" "))]
        return f"{indent}```python\n{found[0].rstrip()}\n{indent}```\n"

    def joined(found: re.Match[str]) -> str:
        first, *rest = found[0].splitlines(keepends=True)
        return first + "".join(f"    {line}" for line in rest)

    parts = CODE.split(RESULT.sub(joined, EXAMPLE.sub(fence, docstring)))
    return "".join(x if i % 2 else x.replace("*", r"\*") for i, x in enumerate(parts))


class Docstrings(Extension):
    """Griffe calls this for all that it reads."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Turn its docstring into Markdown, before its sections are read."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)
