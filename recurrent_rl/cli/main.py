"""``recurrent_rl COMMAND ...``: finds the command, and says mistakes in one line."""

import importlib
import os
import sys
from collections.abc import Sequence

from recurrent_rl import distributed
from recurrent_rl.cli.errors import UsageError
from recurrent_rl.validation import unknown_name

# Names, where their functions are, and what they do.
COMMANDS = {
    "train": ("training", "train", "train agents in an environment"),
    "resume": ("training", "resume", "go on with a run that was interrupted"),
    "evaluate": ("playing", "evaluate", "test saved agents: mean and spread of many episodes"),
    "enjoy": ("playing", "enjoy", "watch an agent in a window or in a film"),
    "plot": ("pictures", "plot", "draw learning curves of runs"),
    "export": ("exporting", "export", "write an agent for use without this package"),
    "list": ("listing", "show", "list environments, algorithms, wrappers and options"),
}
USAGE = 2  # the exit code of mistakes


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        words: of the command line, without the program's name; None: this process's.

    Returns:
        0, or 2 for a user's mistake.

    """
    words = sys.argv[1:] if words is None else list(words)
    try:
        return _run(words)
    except UsageError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130  # as shells have it
    except BrokenPipeError:  # whoever reads has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as end:  # after help
        return int(end.code or 0)


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise UsageError(unknown_name("recurrent_rl", name, list(COMMANDS)))
    if distributed.launched() > 1:
        raise UsageError(
            f"recurrent_rl {name}: expected one process, got {distributed.launched()} from "
            f"torchrun; give it a script that calls distributed.init() and train() instead"
        )
    module, function, _ = COMMANDS[name]
    getattr(importlib.import_module(f"recurrent_rl.cli.{module}"), function)(rest)
    return 0


def _help() -> str:
    lines = "\n".join(f"  {name:<10}{what}" for name, (_, _, what) in COMMANDS.items())
    return (
        f"usage: recurrent_rl COMMAND ...\n\n{lines}\n\n"
        f"recurrent_rl COMMAND --help says more. For a start:\n"
        f"  recurrent_rl train Pendulum-v1 --mask-velocity"
    )
