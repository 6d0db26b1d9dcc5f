"""The picture of what a memory does over an episode.

Letters: T steps, U units, D numbers of an observation, Q hidden quantities.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from recurrent_rl.plots.memory import MemoryProbe, Trace
from recurrent_rl.plots.runs import FilePath
from recurrent_rl.plots.style import (
    COLOURS,
    GREY,
    caption,
    colour,
    new_figure,
    picture_path,
    plain_axes,
    save,
)
from recurrent_rl.spaces.array import Array
from recurrent_rl.validation import COUNT, checked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = 6  # numbers of an observation that are drawn as lines; more become a heat map
NAMED = 12  # rows of that heat map that are named; of more there is no room
FILM = 8  # images of an observation that are shown


def plot_memory(
    probe: MemoryProbe,
    *,
    path: FilePath | None = None,
    episode: int = 0,
    steps: int | None = None,
    title: str | None = None,
) -> "Figure":
    """Draw an episode: what was seen, what was hidden, and what the memory did meanwhile.

    Panels share the time axis: the observation; each hidden quantity with what the memory and the
    observation alone give away of it; and the hidden units as a heat map, sorted by their
    correlation with the first hidden quantity over all scored episodes.

    Args:
        probe: from ``probe_memory``.
        path: of the picture (png, pdf or svg); None writes none.
        episode: which of the scored ones, from 0; no readout was fitted on it.
        steps: draw only so many, the first; None: all.
        title: above the picture; None: who the agent is.

    Returns:
        a matplotlib ``Figure``, which needs no display.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: no probe.
        ValueError: no such episode, or a format that is not known.

    """
    if not isinstance(probe, MemoryProbe):
        raise TypeError(
            f"probe: expected what probe_memory(agent, env) returns, got {type(probe).__name__}"
        )
    place = picture_path(path)
    if not 0 <= episode < len(probe.traces):
        raise ValueError(
            f"episode: expected one of the {len(probe.traces)} scored ones, from 0, got {episode}"
        )
    steps = checked("steps", steps, Annotated[int | None, COUNT])
    trace = _beginning(probe.traces[episode], steps)
    # Where the agent looked at each step, time is the environment's; else it counts its looks.
    whole = len(trace.steps) == trace.steps[-1] - trace.steps[0] + 1
    time = trace.steps if whole else np.arange(len(trace.steps))
    heights = [1.5] * bool(trace.images)
    heights += [2.0] * bool(trace.observation.shape[1])
    heights += [2.0] * len(probe.names) + [3.0]
    named = LINES < trace.observation.shape[1] <= NAMED
    figure = new_figure(8.6 if named else 7.4, 1.0 + 0.85 * sum(heights))
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights))
    if trace.images:
        _draw_images(panels.pop(0), time, trace.images[0])
    if trace.observation.shape[1]:
        _draw_observation(panels.pop(0), time, trace, probe)
    for q in range(len(probe.names)):
        _draw_quantity(panels.pop(0), time, trace, probe, q)
    _draw_units(figure, panels[0], time, trace, probe)
    figure.align_ylabels()
    panels[0].set_xlabel("step of the episode" if whole else "observation of the episode")
    panels[0].set_xlim(time[0] - 0.5, time[-1] + 0.5)
    figure.suptitle(probe.agent if title is None else title, fontsize=11)
    caption(
        figure,
        f"ridge regression, fitted on {probe.fitted} episodes, R\N{SUPERSCRIPT TWO} of "
        f"{len(probe.traces)} others; untrained: random weights that saw the same",
    )
    save(figure, place)
    return figure


def _beginning(trace: Trace, steps: int | None) -> Trace:
    """Return the first steps of an episode, [T, ...] each."""
    images = tuple(images[:steps] for images in trace.images)
    cut = {
        field.name: getattr(trace, field.name)[:steps]
        for field in dataclasses.fields(trace)
        if field.name != "images"
    }
    return Trace(images=images, **cut)


def _draw_observation(axes: "Axes", time: Array, trace: Trace, probe: MemoryProbe) -> None:
    """Draw the numbers that were seen."""
    seen, names = trace.observation, probe.observation_names
    axes.set_title("seen", fontsize=9, loc="left")
    if seen.shape[1] > LINES:
        spread = np.ptp(seen, axis=0)
        scaled = (seen - seen.min(0)) / np.where(spread > 0, spread, 1)
        _heat(axes, time, scaled, "cividis", (0.0, 1.0))
        axes.set_ylabel(f"{len(names)} numbers, from\nleast to greatest", fontsize=8)
        if len(names) <= NAMED:
            axes.set_yticks(range(len(names)), names, fontsize=6)
        else:
            axes.set_yticks([])
        return
    plain_axes(axes)
    for i, name in enumerate(names):
        masked = name.endswith("(masked)")
        style: dict[str, Any] = {"color": GREY if masked else COLOURS[(2, 3, 4, 5, 0, 1)[i]]}
        axes.plot(time, seen[:, i], ":" if masked else "-", label=name, linewidth=1.2, **style)
    _legend(axes)


def _draw_quantity(axes: "Axes", time: Array, trace: Trace, probe: MemoryProbe, q: int) -> None:
    """Draw hidden quantity number q, and what is known of it."""
    plain_axes(axes)
    axes.set_title("hidden", fontsize=9, loc="left")
    by_sight, by_memory, untrained = (
        f"{r2[q]:z.2f}".replace("-", "\N{MINUS SIGN}")
        for r2 in (probe.observation_r2, probe.memory_r2, probe.untrained_r2)
    )
    for read, label, i in (
        (trace.from_observation, f"observation alone: R\N{SUPERSCRIPT TWO} = {by_sight}", 1),
        (trace.from_memory, f"memory: {by_memory} (untrained: {untrained})", 0),
    ):
        axes.plot(time, read[:, q], color=colour(i), linewidth=1.5, label=label)
    truth = trace.hidden[:, q]
    axes.plot(time, truth, "--", color="black", linewidth=1.2, label="true")
    axes.set_ylabel(probe.names[q].replace(" [", "\n["), fontsize=8)
    _legend(axes)


def _draw_units(
    figure: "Figure", axes: "Axes", time: Array, trace: Trace, probe: MemoryProbe
) -> None:
    """Draw the hidden units as a heat map."""
    shown = probe.shown_units
    order = _by_correlation(
        np.concatenate([each.memory[:, :shown] for each in probe.traces]),
        np.concatenate([each.hidden[:, 0] for each in probe.traces]),
    )
    units = trace.memory[:, :shown][:, order]
    most = float(np.abs(units).max()) or 1.0
    image = _heat(axes, time, units, "RdBu_r", (-most, most))
    axes.set_title("remembered", fontsize=9, loc="left")
    axes.set_ylabel(
        f"{shown} hidden units, by\ncorrelation with\n{probe.names[0].partition(' [')[0]}",
        fontsize=8,
    )
    axes.set_yticks([0, shown - 1] if shown > 1 else [0], ["+", "\N{MINUS SIGN}"][: min(shown, 2)])
    # Beside the title, so that all panels are equally wide.
    place = axes.inset_axes((0.76, 1.035, 0.17, 0.045))
    figure.colorbar(image, cax=place, orientation="horizontal", ticks=[])
    text: dict[str, Any] = {"va": "center", "fontsize": 7.5, "transform": place.transAxes}
    place.text(-0.03, 0.5, f"activation  \N{MINUS SIGN}{most:.2g}", ha="right", **text)
    place.text(1.03, 0.5, f"{most:.2g}", ha="left", **text)


def _by_correlation(units: Array, quantity: Array) -> Array:
    """Return the order of units [n, U] by their correlation with [n], greatest first, [U]."""
    centred, own = units - units.mean(0), quantity - quantity.mean()
    size = np.sqrt((centred**2).sum(0) * (own**2).sum())
    correlation = (centred * own[:, None]).sum(0) / np.where(size > 0, size, 1)
    return np.argsort(-correlation, kind="stable")


def _draw_images(axes: "Axes", time: Array, images: Array) -> None:
    """Draw some of the images that were seen, [T, C, H, W], where they were."""
    count = min(FILM, len(images))
    chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
    low, high = images.min(), images.max()
    left, width = time[0] - 0.5, (time[-1] - time[0] + 1) / count
    for i, at in enumerate(chosen):
        image = (images[at] - low) / ((high - low) or 1)
        # Colours where there are three channels; else the last, of a stack the latest.
        picture = np.moveaxis(image, 0, -1) if len(image) == 3 else image[-1]
        place = (left + (i + 0.03) * width, 0.0, 0.94 * width, 1.0)
        part = axes.inset_axes(place, transform=axes.transData)
        part.imshow(picture, cmap="gray", vmin=0, vmax=1)
        part.set_xticks([])
        part.set_yticks([])
        part.set_title(f"{time[at]}", fontsize=7, pad=2)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    axes.set_title(f"seen, at some of {len(images)} steps", fontsize=9, loc="left")


def _heat(
    axes: "Axes", time: Array, values: Array, colours: str, limits: tuple[float, float]
) -> Any:
    """Draw numbers [T, n] as colours, the first on top."""
    extent = (time[0] - 0.5, time[-1] + 0.5, values.shape[1] - 0.5, -0.5)
    return axes.imshow(
        values.T,
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=extent,
    )


def _legend(axes: "Axes") -> None:
    """Name the lines beside the title, where they hide none."""
    columns = min(len(axes.lines), 3)
    axes.legend(
        fontsize=7.5,
        frameon=False,
        loc="lower right",
        bbox_to_anchor=(1.01, 0.99),
        borderaxespad=0.0,
        ncols=columns,
        handlelength=1.6,
        columnspacing=1.2,
    )
