"""The command ``export``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from recurrent_rl.cli.errors import UsageError, command, told_in_one_line
from recurrent_rl.cli.options import Group, Options, parse
from recurrent_rl.cli.run_folder import saved_agents

EXPORT = "Write an agent into a file that is run without this package."


@dataclass(frozen=True)
class ExportOptions(Options):
    """What is written, and where to.

    Attributes:
        agent: the folder of a run, of one of its seeds, or an agent's file.
        to: a file.onnx or file.pt2; of several agents a folder, with a file for each group.
        format: of the files, where the path does not say; None: onnx.
        latest: the latest agent rather than the best one.
        action_mask: what is run takes a mask of the actions that are allowed, if they are Discrete.

    """

    POSITIONAL = ("agent", "to")

    agent: str | None = None
    to: str | None = None
    format: Literal["onnx", "pt2"] | None = None
    latest: bool = False
    action_mask: bool = True


def export_name(team: bool) -> str:
    """Return where an agent may be written to, for commands that are shown."""
    return "policies" if team else "policy.onnx"


def export(words: Sequence[str]) -> None:
    """Do what ``recurrent_rl export`` says."""
    (options,) = parse("export", EXPORT, words, [Group(ExportOptions)])
    if options["agent"] is None or options["to"] is None:
        missing = "AGENT" if options["agent"] is None else "TO"
        raise UsageError(
            f"{missing}: expected an agent and a file, got "
            f"{'none' if missing == 'AGENT' else 'an agent alone'}: "
            f"{command('export', options['agent'] or 'RUN', 'policy.onnx')}"
        )
    saved, *others = saved_agents(Path(options["agent"]), latest=options["latest"])
    agent: Any = saved.load()
    with told_in_one_line(f"export {options['to']}"):
        written = agent.export(
            options["to"], format=options["format"], action_mask=options["action_mask"]
        )
    print(f"{saved.path}{', the first of several' if others else ''}:")
    for path in written.values() if isinstance(written, dict) else [written]:
        print(f"exported: {path}")
