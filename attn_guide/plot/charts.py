"""Bars, curves and distributions: direct labels, a quiet grid, nothing that is not data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from .figures import SMALL_SIZE, extent, font, later, spread, text_size
from .palette import BACKGROUND, INK, KEY, MASK, MUTED, OUTPUT, QUERY, SCORES, VALUE, WEIGHTS, role

#: The order in which curves without a role of their own take the inks, and the marks that tell them apart besides.
CYCLE = (QUERY, KEY, VALUE, SCORES, WEIGHTS, OUTPUT, MASK)
MARKS = ("o", "s", "^", "D", "v", "P", "X")


def bars(
    ax: Axes,
    labels: Sequence[str],
    values: Any,
    *,
    errors: Any = None,
    colour: str | Sequence[str] = WEIGHTS,
    fmt: str | None = ".2f",
    horizontal: bool = False,
    reference: tuple[float, str] | None = None,
    highlight: int | None = None,
) -> None:
    """Bars with their values printed at the end.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    labels : sequence of str
        One for each bar.
    values : array_like, shape (k,)
        The heights.
    errors : array_like, shape (k,), optional
        Half the length of each error bar; say in the caption what it is.
    colour : str or sequence of str
        A role's ink, or one for each bar.
    fmt : str, optional
        Format of the printed values; None prints none and shows an axis instead.
    horizontal : bool
        Bars that run to the right, for long labels.
    reference : (float, str), optional
        A dashed line at a value, with a label.
    highlight : int, optional
        The one bar that matters; the others are drawn pale.
    """
    heights = np.asarray(values, dtype=float)
    if heights.ndim != 1 or len(labels) != len(heights):
        raise ValueError(f"values: got shape {heights.shape} for {len(labels)} labels")
    inks = [role(colour)] * len(heights) if isinstance(colour, str) else [role(c) for c in colour]
    places = np.arange(len(heights))
    draw = ax.barh if horizontal else ax.bar
    drawn = draw(places, heights, 0.68, color=inks)
    if highlight is not None:
        for i, patch in enumerate(drawn):
            patch.set_alpha(1.0 if i == highlight else 0.35)
    if errors is not None:
        error = np.asarray(errors, dtype=float)
        ends: dict[str, Any] = {"fmt": "none", "ecolor": INK, "elinewidth": 1.2, "capsize": 3}
        if horizontal:
            ax.errorbar(heights, places, xerr=error, **ends)
        else:
            ax.errorbar(places, heights, yerr=error, **ends)
    else:
        error = np.zeros_like(heights)
    value_axis, name_axis = (ax.xaxis, ax.yaxis) if horizontal else (ax.yaxis, ax.xaxis)
    name_axis.set_ticks(places, list(labels))
    name_axis.set_tick_params(length=0)
    ax.spines["bottom" if horizontal else "left"].set_visible(False)
    if horizontal:
        ax.invert_yaxis()
    if fmt is None:
        value_axis.grid(True)
        value_axis.set_tick_params(length=0)
    else:
        value_axis.set_ticks([])
        for place, height, half in zip(places, heights, error, strict=True):
            text = f"{height:{fmt}}".replace("-", "\N{MINUS SIGN}")
            end = height + half if height >= 0 else height - half
            sign = 1 if height >= 0 else -1
            ax.annotate(
                text,
                (end, place) if horizontal else (place, end),
                (4 * sign, 0) if horizontal else (0, 3 * sign),
                textcoords="offset points",
                ha=("left" if sign > 0 else "right") if horizontal else "center",
                va="center" if horizontal else ("bottom" if sign > 0 else "top"),
                fontsize=SMALL_SIZE,
            )
        (ax.set_xmargin if horizontal else ax.set_ymargin)(0.12)
    if reference is not None:
        at, text = reference
        (ax.axvline if horizontal else ax.axhline)(at, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2, zorder=3)
        if horizontal:
            ax.annotate(
                text,
                (at, 1),
                (0, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=SMALL_SIZE,
                color=MUTED,
            )
        else:
            ax.annotate(
                text,
                (1, at),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="left",
                va="center",
                fontsize=SMALL_SIZE,
                color=MUTED,
            )


def curve(
    ax: Axes,
    x: Any,
    series: Mapping[str, Any],
    *,
    bands: Mapping[str, Any] | None = None,
    colours: Mapping[str, str] | None = None,
    theory: Mapping[str, Any] | None = None,
    log: str = "",
    marks: bool | None = None,
    xlabel: str = "",
    ylabel: str = "",
    ticks: Sequence[float] | None = None,
) -> None:
    """Lines, each named at its right end in its own colour.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    x : array_like, shape (k,)
        Common positions.
    series : mapping of str to array_like, shape (k,)
        What was measured or computed, by name.
    bands : mapping of str to array_like, optional
        Half-width of an error band, shape (k,), or its lower and upper edge, shape (2, k), by name.
    colours : mapping of str to str, optional
        Inks by name; the others take theirs in order.
    theory : mapping of str to array_like, shape (k,), optional
        Lines that were not measured: dashed and grey.
    log : {"", "x", "y", "xy"}
        Which axes are logarithmic.
    marks : bool, optional
        Whether to mark the points; by default where there are at most 16.
    xlabel, ylabel : str
        What the axes show, with units.
    ticks : sequence of float, optional
        Positions of the ticks on the x axis, such as the widths that were tried.
    """
    x = np.asarray(x, dtype=float)
    inks: dict[str, str] = {}
    free = iter(CYCLE * 3)
    for name in series:
        inks[name] = role(colours[name]) if colours and name in colours else next(free)
    if "x" in log:
        ax.set_xscale("log", base=2 if ticks is not None else 10)
    if "y" in log:
        ax.set_yscale("log")
    with_marks = len(x) <= 16 if marks is None else marks
    ends: list[tuple[str, float, str]] = []
    for name, values in (theory or {}).items():
        y = _series(name, values, x)
        ax.plot(x, y, color=MUTED, linestyle=(0, (4, 3)), linewidth=1.4, zorder=2)
        ends.append((name, y[np.isfinite(y)][-1], MUTED))
    for index, (name, values) in enumerate(series.items()):
        y = _series(name, values, x)
        mark = MARKS[index % len(MARKS)] if with_marks else None
        ax.plot(x, y, color=inks[name], marker=mark, markeredgecolor=BACKGROUND, markeredgewidth=0.8, zorder=3)
        if bands and name in bands:
            band = np.asarray(bands[name], dtype=float)
            low, high = band if band.ndim == 2 else (y - band, y + band)
            ax.fill_between(x, low, high, color=inks[name], alpha=0.18, linewidth=0, zorder=1)
        ends.append((name, y[np.isfinite(y)][-1], inks[name]))
    ax.grid(True, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    if ticks is not None:
        ax.set_xticks(list(ticks), [f"{t:g}" for t in ticks])
    ax.set_xlabel(xlabel)
    if ylabel:
        ax.set_title(ylabel, fontsize=SMALL_SIZE, color=MUTED, loc="left")
    ax.margins(x=0.02)
    labels = [
        ax.annotate(
            name,
            (1, y),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=SMALL_SIZE,
            color=ink,
        )
        for name, y, ink in ends
    ]
    later(ax, lambda: _spread(ax, labels))


def _series(name: str, values: Any, x: np.ndarray) -> np.ndarray:
    y = np.asarray(values, dtype=float)
    if y.shape != x.shape:
        raise ValueError(f"series {name!r}: got shape {y.shape}, wanted that of x, {x.shape}")
    return y


def _spread(ax: Axes, labels: list[Any]) -> None:
    """Move labels at the ends of lines apart, as little as it takes."""
    _, height = extent(ax)
    to_axes = ax.transData + ax.transAxes.inverted()
    wanted = [height * to_axes.transform((ax.get_xlim()[1], label.xy[1]))[1] for label in labels]
    tall = [text_size(label.get_text(), font(SMALL_SIZE))[1] for label in labels]
    order = np.argsort(wanted, kind="stable")
    placed = spread(np.array(wanted)[order], np.array(tall)[order])
    for place, i in zip(placed, order, strict=True):
        labels[i].set_position((6, place - wanted[i]))


def distribution(
    ax: Axes,
    samples: Any,
    *,
    colour: str = SCORES,
    bins: int = 60,
    limits: tuple[float, float] | None = None,
    sigmas: Sequence[float] = (2,),
    density: Any = None,
    name: str | None = None,
    unit: str = "",
    fmt: str = ".1f",
) -> tuple[float, float]:
    """A histogram with its mean and its standard deviations marked.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    samples : array_like, shape (k,)
        The numbers.
    colour : str
        A role's ink.
    bins : int
        Number of bins within the limits.
    limits : (float, float), optional
        The range shown; by default all of it. The share outside is not silently dropped: it is said above.
    sigmas : sequence of float
        Multiples of the standard deviation to mark on both sides of the mean.
    density : callable, optional
        A density to draw over it, dashed, as a function of positions.
    name : str, optional
        A name above.
    unit : str
        What the axis shows.
    fmt : str
        Format of the marks.

    Returns
    -------
    (float, float)
        Mean and standard deviation of the samples, for the caption and the description.
    """
    data = np.asarray(samples, dtype=float).ravel()
    mean, deviation = float(data.mean()), float(data.std())
    low, high = limits or (float(data.min()), float(data.max()))
    counts, edges = np.histogram(data, bins=bins, range=(low, high))
    heights = counts / (len(data) * np.diff(edges))
    ax.stairs(heights, edges, fill=True, color=role(colour), alpha=0.3, linewidth=0)
    ax.stairs(heights, edges, color=role(colour), linewidth=1.4)
    if density is not None:
        x = np.linspace(low, high, 400)
        ax.plot(x, density(x), color=MUTED, linestyle=(0, (4, 3)), linewidth=1.4)
    ax.spines["left"].set_visible(False)
    ax.set_yticks([])
    ax.set(xlim=(low, high), ylim=(0, None), xlabel=unit)
    shares = []
    for multiple in sigmas:
        inside = float(np.mean(np.abs(data - mean) <= multiple * deviation))
        shares.append(f"{inside:.1%} within ±{multiple:g}σ")
        for side in (-1, 1):
            at = mean + side * multiple * deviation
            if low <= at <= high:
                ax.axvline(at, ymax=0.86, color=INK, linewidth=1.0, linestyle=(0, (2, 2)))
                ax.annotate(
                    f"{at:{fmt}}".replace("-", "\N{MINUS SIGN}"),
                    (at, 0.86),
                    (3 * side, 0),
                    xycoords=("data", "axes fraction"),
                    textcoords="offset points",
                    ha="left" if side > 0 else "right",
                    va="top",
                    fontsize=SMALL_SIZE,
                )
    outside = float(np.mean((data < low) | (data > high)))
    if outside > 0:
        shares.append(f"{outside:.2g} of all outside" if outside < 0.001 else f"{outside:.1%} outside")
    ax.annotate(
        ", ".join(shares),
        (0, 1),
        (0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=SMALL_SIZE,
        color=MUTED,
    )
    if name is not None:
        ax.set_title(name, color=role(colour), fontweight="bold", loc="left", pad=6 + 1.3 * SMALL_SIZE)
    return mean, deviation


def plain_numbers(ax: Axes, axis: str = "y", fmt: str = "{:g}") -> None:
    """Write the ticks of an axis as plain numbers instead of powers."""
    which = ax.xaxis if axis == "x" else ax.yaxis
    which.set_major_formatter(FuncFormatter(lambda value, _: fmt.format(value)))


__all__ = ["CYCLE", "MARKS", "bars", "curve", "distribution", "plain_numbers"]
