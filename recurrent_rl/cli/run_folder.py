"""A run's folder: what it says of itself, and the agents in it.

It is ``runs/Pendulum-v1-masked/PPO/2026-01-31_12-00-00``, for example, and has

* ``run.json``: how to train it again
* ``curve.png``: of all seeds, with the extra "plots"
* ``seed_0`` and so on: ``metrics.csv``, TensorBoard events and ``config.json``; ``best.pt``, of all
  tests, and ``latest.pt``, which ``resume`` goes on from
"""

import json
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recurrent_rl import checkpoint
from recurrent_rl.algorithms.agent import Agent
from recurrent_rl.cli.errors import UsageError, command, told_in_one_line
from recurrent_rl.cli.settings import Run
from recurrent_rl.evolution.registry import ALGORITHMS
from recurrent_rl.files import write_json
from recurrent_rl.versions import versions

RUN, BEST, LATEST, CURVE = "run.json", "best.pt", "latest.pt", "curve.png"


def new_folder(run: Run, root: str, name: str | None, words: Sequence[str]) -> Path:
    """Make a folder for a run, and say in it how to train it again.

    Args:
        run: what is trained.
        root: where runs go.
        name: of the folder; None: the time.
        words: of the command, behind the program's name.

    Raises:
        UsageError: there is a run of that name already.

    """
    parent = Path(root) / run.environment.folder / run.algo
    if name is None:
        now = time.strftime("%Y-%m-%d_%H-%M-%S")
        folders = (parent / (now if i == 1 else f"{now}_{i}") for i in range(1, 10_000))
        folder = next(each for each in folders if not each.exists())
    else:
        if not re.fullmatch(r"[\w.=+-]*[\w=+-][\w.=+-]*", name):  # "." and ".." are other folders
            raise UsageError(f"--name: expected letters, digits and _.=+-, got {name!r}")
        folder = parent / name
        if (folder / RUN).exists():
            raise UsageError(
                f"--name: expected a new one, got that of a run that is there: go on with it "
                f"({command('resume', folder)}), or take another"
            )
    with told_in_one_line("--folder"):
        folder.mkdir(parents=True, exist_ok=True)
    described = {
        "command": command(*words),
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "git": _git_commit(),
        "versions": versions(),
        "run": run.to_data(),
    }
    write_json(folder / RUN, described, "the run's description")
    return folder


def _git_commit() -> dict[str, Any] | None:
    """Return the commit that is checked out here, and whether files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None


def read_run(folder: Path) -> Run:
    """Return what a folder says was trained.

    Raises:
        UsageError: it says nothing, or nothing that can be understood.

    """
    try:
        data = json.loads((folder / RUN).read_text())
        return Run.from_data(data["run"])
    except FileNotFoundError:
        raise UsageError(
            f"{folder}: expected the folder of a run, with {RUN} in it, got one without"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder / RUN}: expected what train has written, got something else ({error!r})"
        ) from error


def seed_folder(folder: Path, seed: int) -> Path:
    """Return where a seed's files are."""
    return folder / f"seed_{seed}"


def run_and_seeds(path: Path) -> tuple[Path, Run, tuple[int, ...]]:
    """Return the folder of a run, what was trained, and the seeds that are meant.

    Args:
        path: of a run, or of one of its seeds.

    Raises:
        UsageError: it is neither.

    """
    if not path.is_dir():
        raise UsageError(
            f"{path}: expected the folder of a run, such as runs/Pendulum-v1/PPO/NAME, got "
            f"{'a file' if path.exists() else 'nothing there'}"
        )
    found = re.fullmatch(r"seed_(\d+)", path.resolve().name)
    if found is not None and not (path / RUN).exists():
        folder = path.parent if path.name else path / ".."
        return folder, read_run(folder), (int(found[1]),)
    run = read_run(path)
    return path, run, run.seeds


@dataclass(frozen=True)
class Saved:
    """A saved agent, and what is known of where it comes from.

    Attributes:
        path: its file.
        run: what trained it; None: not known.

    """

    path: Path
    run: Run | None

    def load(self, device: str = "cpu") -> Agent:
        """Build the agent.

        Raises:
            UsageError: the file holds none, or none of a known class.

        """
        with told_in_one_line():
            algo = checkpoint.load(self.path).get("algorithm")
        if algo not in ALGORITHMS:
            raise UsageError(f"{self.path}: expected a saved agent of this package, got {algo!r}")
        with told_in_one_line():
            return ALGORITHMS[algo].load(self.path, device)


def saved_agents(path: Path, *, latest: bool = False) -> list[Saved]:
    """Return the saved agents that a path means: of a file, of a seed, or of all seeds of a run.

    Args:
        path: of an agent's file, a run's folder, or the folder of one of its seeds.
        latest: the latest agents rather than the best ones.

    Raises:
        UsageError: there are none.

    """
    if path.is_file():
        above = [folder for folder in path.resolve().parents[:2] if (folder / RUN).exists()]
        return [Saved(path, read_run(above[0]) if above else None)]
    if not path.exists():
        raise UsageError(f"{path}: expected a run's folder or an agent's file, got nothing there")
    folder, run, seeds = run_and_seeds(path)
    found = []
    for seed in seeds:
        here = seed_folder(folder, seed)
        names = (LATEST, BEST) if latest else (BEST, LATEST)
        files = [here / name for name in names if (here / name).exists()]
        found += [Saved(files[0], run)] if files else []
    if not found:
        raise UsageError(
            f"{path}: expected saved agents, got a run that has none yet; go on with it: "
            f"{command('resume', path)}"
        )
    return found
