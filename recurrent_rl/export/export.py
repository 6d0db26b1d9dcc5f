"""Where exported policies go: one into a file, several into a folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from recurrent_rl.acting.group import AgentGroup
from recurrent_rl.export.description import described
from recurrent_rl.export.formats import FORMATS
from recurrent_rl.export.step import PolicyStep
from recurrent_rl.files import check_directory, check_file, explained, replacing
from recurrent_rl.validation import checked_path

About = dict[str, Any]


def export_one(
    group: AgentGroup,
    about: About,
    path: str | os.PathLike[str],
    form: str | None,
    action_mask: bool,
) -> Path:
    """Write a policy into a file; see ``SingleAgent.export``."""
    path = checked_path("path", path)
    suffix = path.suffix.lower().removeprefix(".")
    given = _format(form)
    if given is None and suffix not in FORMATS:
        raise ValueError(
            f"path: expected a file that ends in .onnx or .pt2, or format='onnx' or 'pt2', got "
            f"{str(path)!r}"
        )
    if given is not None and suffix in FORMATS and suffix != given:
        raise ValueError(f"format: expected {suffix!r}, as path ends in it, got {given!r}")
    check_directory(path.parent)
    check_file(path)
    _write(path, _content(group, about, given or suffix, action_mask))
    return path


def export_all(
    groups: Mapping[str, AgentGroup],
    about: About,
    path: str | os.PathLike[str],
    form: str | None,
    action_mask: bool,
) -> dict[str, Path]:
    """Write the policies of groups into a folder; see ``MultiAgent.export``."""
    path = checked_path("path", path)
    given = _format(form) or "onnx"
    if path.suffix.lower().removeprefix(".") in FORMATS:
        raise ValueError(
            f"path: expected a folder, in which each group's policy gets a file of its own, got "
            f"{str(path)!r}; give format={path.suffix[1:]!r}"
        )
    check_directory(path.parent)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"path: expected a folder, got the file {str(path)!r}")
    contents = {
        name: _content(group, about | {"group": name}, given, action_mask)
        for name, group in groups.items()
    }
    with explained(path, "exported policies"):
        path.mkdir(exist_ok=True)
    # Whatever a group is called, a file can be called so.
    paths = {name: path / f"{quote(name, safe=' ')}.{given}" for name in contents}
    for name, content in contents.items():
        _write(paths[name], content)
    return paths


def _format(form: str | None) -> str | None:
    if form is not None and form not in FORMATS:
        raise ValueError(f"format: expected 'onnx', 'pt2' or None, got {form!r}")
    return form


def _content(group: AgentGroup, about: About, form: str, action_mask: bool) -> bytes:
    step = PolicyStep(group, action_mask)
    return FORMATS[form](step, described(group, step, about))


def _write(path: Path, content: bytes) -> None:
    with replacing(path, f"an exported policy of {len(content):,} bytes") as file:
        file.write(content)
