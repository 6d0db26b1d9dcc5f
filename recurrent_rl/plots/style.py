"""What all pictures share: colours, sizes, a file. No display is needed, and none is opened."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurrent_rl.extras import extra_package
from recurrent_rl.files import replacing
from recurrent_rl.plots.runs import FilePath
from recurrent_rl.validation import checked_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, which people see apart whatever their eyes, and in an order that does so in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":", "-.")  # of the second seven groups, and so on
GREY = "#666666"
FORMATS = ("png", "pdf", "svg")
DPI = 130  # of pixel pictures


def colour(i: int) -> str:
    """Return the colour of group number i."""
    return COLOURS[i % len(COLOURS)]


def line(i: int) -> str:
    """Return the style of group number i's line."""
    return LINES[i // len(COLOURS) % len(LINES)]


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, in inches, that belongs to no window.

    Raises:
        ImportError: matplotlib is not installed.

    """
    module = extra_package("matplotlib.figure", "plots", "pictures")
    figure: Figure = module.Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure


def plain_axes(axes: "Axes") -> None:
    """Leave the frame out where it says nothing, and show where numbers are."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def legend(axes: "Axes") -> None:
    """Name what is drawn, legibly also where lines run below."""
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")


def count_steps(axis: Any) -> None:
    """Write numbers of steps as 50k and 1M."""
    ticker = extra_package("matplotlib.ticker", "plots", "pictures")
    axis.set_major_formatter(ticker.EngFormatter(sep=""))


def caption(figure: "Figure", text: str) -> None:
    """Say below a picture how to read it."""
    figure.supxlabel(text, fontsize=7.5, color=GREY)


def picture_path(path: FilePath | None) -> Path | None:
    """Check where a picture is to go, before it is drawn.

    Raises:
        ValueError: the name does not end in a format that is known.

    """
    if path is None:
        return None
    place = checked_path("path", path)
    if place.suffix.lower().removeprefix(".") not in FORMATS:
        raise ValueError(
            f"path: expected a name that ends in one of .{', .'.join(FORMATS)}, got {path}; add "
            f"the format, for example {place.name}.png"
        )
    return place


def save(figure: "Figure", path: Path | None) -> None:
    """Write a picture, in the format that its name ends in; None: write none.

    Raises:
        OSError: it could not be written; what was there before is untouched.

    """
    if path is not None:
        with replacing(path, "a picture") as file:
            figure.savefig(file, format=path.suffix.lower().removeprefix("."))
