"""The command ``plot``, and the picture that ``train`` draws."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recurrent_rl.cli.errors import UsageError, command, told_in_one_line
from recurrent_rl.cli.options import Group, Options, parse
from recurrent_rl.cli.run_folder import CURVE, RUN
from recurrent_rl.metrics import METRICS
from recurrent_rl.plots.curves import plot_runs
from recurrent_rl.plots.runs import run_folders

PLOT = "Draw learning curves: a line and its band for each run, of all its seeds."


@dataclass(frozen=True)
class PlotOptions(Options):
    """What is drawn, and where to.

    Attributes:
        runs: folders of runs, or folders above some; seeds of one run are one line.
        tag: what of metrics.csv is drawn, such as rollout/ep_rew_mean; None: returns of tests.
        to: the picture (png, pdf or svg); None: curve.png in the run's folder, and of several runs
            curves.png here.
        title: above the picture; None: the environment.

    """

    POSITIONAL = ("runs",)

    runs: tuple[str, ...] = ()
    tag: str | None = None
    to: str | None = None
    title: str | None = None


def plot(words: Sequence[str]) -> None:
    """Do what ``recurrent_rl plot`` says."""
    (options,) = parse("plot", PLOT, words, [Group(PlotOptions)])
    if not options["runs"]:
        raise UsageError(
            f"RUNS: expected folders of runs, got none; {command('plot', 'runs')} takes all"
        )
    groups = grouped([Path(each) for each in options["runs"]])
    alone = len(groups) == 1 and (_folder_of(next(iter(groups.values()))) / RUN).exists()
    usual = _folder_of(next(iter(groups.values()))) / CURVE if alone else Path("curves.png")
    to = Path(options["to"] or usual)
    with told_in_one_line():
        plot_runs(groups, options["tag"], path=to, title=options["title"])
    print(f"picture: {to}")


def draw_curve(folder: Path, seeds: Sequence[Path], title: str) -> None:
    """Draw a run's learning curve into its folder, or say why not."""
    with_logs = [seed for seed in seeds if (seed / METRICS).exists()]
    try:
        plot_runs({folder.name: with_logs}, path=folder / CURVE, title=title)
    except (ImportError, OSError, ValueError) as error:  # the agent is what counts
        print(f"picture: none, as of {error}")
    else:
        print(f"picture: {folder / CURVE}")


def grouped(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Return folders of seeds by the run that they belong to.

    Args:
        paths: of runs, of seeds, or of folders above some.

    Returns:
        by what tells the runs' folders apart.

    Raises:
        UsageError: there are none in one of them.

    """
    runs: dict[Path, list[Path]] = {}
    for path in paths:
        found = run_folders(path)
        if not found:
            raise UsageError(
                f"{path}: expected a run's folder, or one above some, got one without {METRICS}"
                if path.exists()
                else f"{path}: expected a run's folder, or one above some, got nothing there"
            )
        for seed in found:
            belongs = runs.setdefault(_folder_of([seed]), [])
            belongs += [seed] if seed not in belongs else []
    return {name: runs[folder] for folder, name in _names(list(runs)).items()}


def _folder_of(seeds: Sequence[Path]) -> Path:
    """Return the folder of the run that seeds belong to; one without a description is its own."""
    above = seeds[0].parent if seeds[0].name else seeds[0] / ".."
    return above if (above / RUN).exists() else seeds[0]


def _names(folders: Sequence[Path]) -> Mapping[Path, str]:
    """Return what tells folders apart: what is behind that which all have in common."""
    whole = {folder: folder.resolve() for folder in folders}
    common = Path(os.path.commonpath([path.parent for path in whole.values()]))
    return {folder: str(path.relative_to(common)) for folder, path in whole.items()}
