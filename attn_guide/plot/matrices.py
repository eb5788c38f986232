"""Matrices as readers of attention see them: queries down, keys across, tokens as labels, numbers in the cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import ScaledTranslation

from .figures import MIDDLE, SMALL_SIZE, SMALLEST, TEXT_SIZE, Drawing, extent, font, later, sentence, text_size
from .palette import BACKGROUND, COLORMAPS, INK, MASK, MUTED, on, role

#: Matrices with more rows or columns than this are drawn as a picture inside the SVG, not cell by cell.
LARGEST_VECTOR = 64

KINDS = ("weights", "scores", "values", "mask")


def matrix(
    ax: Axes,
    a: Any,
    *,
    kind: str = "weights",
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    mask: Any = None,
    annotate: bool | None = None,
    row_sums: bool = False,
    colorbar: bool = False,
    fmt: str = ".2f",
    limits: tuple[float, float] | None = None,
    name: str | None = None,
    ink: str = INK,
    axis_labels: bool | tuple[str, str] = False,
    outline: Sequence[tuple[int, int]] = (),
    below: str | None = None,
) -> ScalarMappable | None:
    """Draw a matrix: row i is query i, column j is key j.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    a : array_like, shape (n, m)
        The matrix; booleans for ``kind="mask"``, True for "may attend".
    kind : {"weights", "scores", "values", "mask"}
        ``weights`` run from light to dark from 0 up; ``scores`` and ``values`` (components of vectors) have colours
        on both sides of 0.
    rows, columns : sequence of str, optional
        Labels of the queries and the keys.
    mask : array_like of bool, shape (n, m), optional
        True for "may attend". Forbidden cells are hatched and empty, which a zero is not. Minus infinity and NaN
        count as forbidden.
    annotate : bool, optional
        Whether to print the values into the cells; by default where they fit.
    row_sums : bool
        Print the sum of each row to its right.
    colorbar : bool
        Add a scale.
    fmt : str
        Format of the values.
    limits : (float, float), optional
        Values at the ends of the colour map: by default 0 to 1 for weights (to the largest value, where that is less
        than 0.5) and minus to plus the largest absolute value for scores and values.
    name : str, optional
        A name above the matrix, in ``ink``.
    ink : str
        Colour of the name: one of the role colours, such as ``plot.QUERY``.
    axis_labels : bool or (str, str)
        True for "queries" and "keys" beside the axes, or two other words.
    outline : sequence of (row, column)
        Cells to draw a line around.
    below : str, optional
        A line below the matrix, such as the share of pairs that a mask keeps. It takes the place of the word for the
        keys.

    Returns
    -------
    ScalarMappable or None
        What a colour bar needs; None for a mask.

    Raises
    ------
    ValueError
        If the shapes, the labels or the kind do not fit together.
    """
    values, allowed = _checked(a, kind, mask)
    n, m = values.shape
    for label, labels, count in (("rows", rows, n), ("columns", columns, m)):
        if labels is not None and len(labels) != count:
            raise ValueError(f"{label}: got {len(labels)} labels for {count}")
    mappable = _paint(ax, values, allowed, kind, limits)
    ax.set(xlim=(-0.5, m - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, pad=3, top=False, labeltop=True, bottom=False, labelbottom=False)
    ax.xaxis.set_label_position("top")
    ax.set_xticks(range(m) if columns is not None else [], list(columns) if columns is not None else [])
    ax.set_yticks(range(n) if rows is not None else [], list(rows) if rows is not None else [])
    if axis_labels:
        down, across = ("queries", "keys") if isinstance(axis_labels, bool) else axis_labels
        ax.set_ylabel(down, color=MUTED, fontsize=SMALL_SIZE)
        ax.set_xlabel(across, color=MUTED, fontsize=SMALL_SIZE, loc="center")
    if below is not None:
        ax.set_xlabel(below, color=MUTED)
        ax.xaxis.set_label_position("bottom")
    if name is not None:
        ax.set_title(name, color=role(ink), fontweight="bold", loc="left")
    for i, j in outline:
        colour = INK if mappable is None or not allowed[i, j] else on(mappable.to_rgba(values[i, j]))
        ax.add_patch(Rectangle((j - 0.44, i - 0.44), 0.88, 0.88, fill=False, edgecolor=colour, linewidth=1.6, zorder=4))
    _lower_labels(ax)
    if row_sums:
        sums = np.where(allowed, values, 0).sum(axis=1)
        beside: dict[str, Any] = {
            "textcoords": "offset points",
            "annotation_clip": False,
            "color": MUTED,
            "fontsize": SMALL_SIZE,
        }
        for i in range(n):
            ax.annotate(_number(sums[i], fmt), (m - 0.5, i), (8, -MIDDLE * SMALL_SIZE), va="baseline", **beside)
        ax.annotate("row sum", (m - 0.5, -0.5), (8, 5), va="baseline", **beside)
    if colorbar and mappable is not None:
        fig = ax.get_figure(root=True)
        assert fig is not None
        bar = fig.colorbar(mappable, ax=ax, fraction=0.06, pad=0.03, aspect=16)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    if columns is not None:
        later(ax, lambda: _turn_labels(ax, list(columns), m))
    if annotate is not False and kind != "mask" and max(n, m) <= LARGEST_VECTOR:
        shown = mappable
        assert shown is not None
        later(
            ax,
            lambda: _numbers(
                ax, values, allowed, shown, fmt, (-0.5, -0.5), 1.0, _cell_points(ax, n, m), force=bool(annotate)
            ),
        )
    return mappable


def masks(axes: Iterable[Axes], shown: Mapping[str, Any], *, below: Mapping[str, str] | None = None) -> None:
    """Draw masks side by side, each with its name above it and a line below.

    Parameters
    ----------
    axes : iterable of Axes
        Where to draw, one for each mask: for a grid, ``fig.subplots(3, 3).flat``.
    shown : mapping of str to array_like of bool, shape (n, m)
        The masks by name, True for "may attend".
    below : mapping of str to str, optional
        The line below each, by name; by default the share of the pairs drawn that it keeps.

    Raises
    ------
    ValueError
        If there are not as many axes as masks, or no line for one of them.

    Examples
    --------
    >>> from attn_guide import plot
    >>> fig = plot.figure("example", title="Two masks", caption="Drawn for three tokens.")
    >>> axes = fig.subplots(1, 2)
    >>> plot.masks(axes, {"all": [[1, 1, 1]] * 3, "causal": [[1, 0, 0], [1, 1, 0], [1, 1, 1]]})
    >>> [(ax.get_title(loc="left"), ax.get_xlabel()) for ax in axes]
    [('all', '100% of pairs'), ('causal', '67% of pairs')]
    """
    places = list(axes)
    if len(places) != len(shown):
        raise ValueError(f"axes: got {len(places)} for {len(shown)} masks")
    if below is not None and shown.keys() - below.keys():
        raise ValueError(f"below: no line for {sentence(sorted(shown.keys() - below.keys()))}")
    for ax, (name, mask) in zip(places, shown.items(), strict=True):
        allowed = np.asarray(mask, dtype=bool)
        line = f"{allowed.mean():.0%} of pairs" if below is None else below[name]
        matrix(ax, allowed, kind="mask", name=name, ink=MASK, below=line)


def describe_matrix(
    weights: Any,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    mask: Any = None,
    what: str = "Attention weights",
    fmt: str = ".2f",
) -> str:
    """Sentences about a matrix for :func:`attn_guide.plot.describe`, from its values.

    Examples
    --------
    >>> describe_matrix([[0.9, 0.1], [0.4, 0.6]], ["I", "am"], ["Je", "suis"])
    'Attention weights of 2 queries (rows) to 2 keys (columns). I: most to Je (0.90). am: most to suis (0.60).'
    """
    values, allowed = _checked(weights, "weights", mask)
    n, m = values.shape
    rows = list(rows) if rows is not None else [f"query {i}" for i in range(n)]
    columns = list(columns) if columns is not None else [f"key {j}" for j in range(m)]
    parts = [f"{what} of {n} {_plural('query', 'queries', n)} (rows) to {m} {_plural('key', 'keys', m)} (columns)."]
    if not allowed.all():
        parts.append(f"{int((~allowed).sum())} of {n * m} pairs are forbidden and hatched.")
    for i in range(min(n, 12)):
        if not allowed[i].any():
            parts.append(f"{rows[i]}: no key allowed.")
            continue
        row = np.where(allowed[i], values[i], -np.inf)
        j = int(row.argmax())
        parts.append(f"{rows[i]}: most to {columns[j]} ({row[j]:{fmt}}).")
    if n > 12:
        parts.append(f"{n - 12} further rows.")
    return " ".join(parts)


def describe_mask(mask: Any, what: str = "Mask") -> str:
    """Sentences about a mask, from its values.

    Examples
    --------
    >>> describe_mask([[True, False], [True, True]])
    'Mask of 2 queries (rows) and 2 keys (columns): 3 of 4 pairs allowed. Keys allowed per query: 1 and 2.'
    """
    allowed = np.asarray(mask, dtype=bool)
    n, m = allowed.shape
    counts = allowed.sum(axis=1)
    per = (
        f"Keys allowed per query: {sentence([str(c) for c in counts], 16)}."
        if n <= 16
        else f"Keys allowed per query: {counts.min()} to {counts.max()}, {counts.mean():.1f} on average."
    )
    return (
        f"{what} of {n} {_plural('query', 'queries', n)} (rows) and {m} {_plural('key', 'keys', m)} (columns): "
        f"{int(allowed.sum())} of {n * m} pairs allowed. {per}"
    )


def _plural(one: str, many: str, count: int) -> str:
    return one if count == 1 else many


def _checked(a: Any, kind: str, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """The values as floats and the cells that are allowed, both (n, m)."""
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, wanted one of {sentence(KINDS)}")
    values = np.asarray(a)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"a: got shape {values.shape}, wanted a matrix with rows and columns")
    allowed = np.ones(values.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if allowed.shape != values.shape:
        raise ValueError(f"mask: got shape {allowed.shape}, wanted that of the matrix, {values.shape}")
    if kind == "mask":
        return values.astype(float), values.astype(bool) & allowed
    values = values.astype(float)
    return values, allowed & np.isfinite(values)


def _limits(values: np.ndarray, allowed: np.ndarray, kind: str) -> tuple[float, float]:
    shown = values[allowed]
    if kind == "weights":
        largest = float(shown.max(initial=0.0))
        return 0.0, 1.0 if largest >= 0.5 or largest <= 0 else largest
    largest = float(np.abs(shown).max(initial=0.0)) or 1.0
    return -largest, largest


def _paint(
    ax: Axes,
    values: np.ndarray,
    allowed: np.ndarray,
    kind: str,
    limits: tuple[float, float] | None,
    origin: tuple[float, float] = (-0.5, -0.5),
    cell: float = 1.0,
) -> ScalarMappable | None:
    """Colour the cells; the corner of cell (0, 0) lies at ``origin`` and each is ``cell`` wide and high."""
    n, m = values.shape
    left, top = origin
    if kind == "mask":
        colormap, norm = COLORMAPS["values"], Normalize(-1.55, 1.55)
        shown = np.ma.masked_array(np.ones_like(values), ~allowed)
    else:
        colormap = COLORMAPS[kind]
        norm = Normalize(*(limits or _limits(values, allowed, kind)))
        shown = np.ma.masked_array(np.where(allowed, values, 0.0), ~allowed)
    mappable: ScalarMappable
    if max(n, m) > LARGEST_VECTOR:
        box = (left, left + m * cell, top + n * cell, top)
        mappable = ax.imshow(shown, cmap=colormap, norm=norm, extent=box, interpolation="nearest", aspect="equal")
    else:
        x, y = left + cell * np.arange(m + 1), top + cell * np.arange(n + 1)
        mesh = ax.pcolormesh(x, y, shown, cmap=colormap, norm=norm, edgecolors=BACKGROUND, zorder=1)
        later(ax, lambda: _part_cells(mesh, cell if cell != 1 else _cell_points(ax, n, m)))
        mappable = mesh
    if not allowed.all():
        _forbid(ax, allowed, origin, cell)
    return None if kind == "mask" else mappable


def _part_cells(mesh: QuadMesh, points: float) -> None:
    """Gaps between cells of a side in points; where they would be most of what is seen, none."""
    if points < 10:
        mesh.set_edgecolor("face")
        mesh.set_linewidth(0.2)  # closes the seams that a browser leaves between neighbours
    else:
        mesh.set_linewidth(min(0.9, 0.035 * points))


def _forbid(ax: Axes, allowed: np.ndarray, origin: tuple[float, float], cell: float) -> None:
    """Hatch the forbidden cells: one outline of rectangles, each a run of such cells in rows that are alike."""
    n, _m = allowed.shape
    vertices: list[tuple[float, float]] = []
    first = 0
    for i in range(1, n + 1):
        if i < n and (allowed[i] == allowed[first]).all():
            continue
        steps = np.flatnonzero(np.diff(np.concatenate([[0], ~allowed[first], [0]]).astype(int)))
        for j, k in zip(steps[::2], steps[1::2], strict=True):
            x0, x1 = origin[0] + cell * j, origin[0] + cell * k
            y0, y1 = origin[1] + cell * first, origin[1] + cell * i
            vertices += [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        first = i
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * (len(vertices) // 5)
    ax.add_patch(
        PathPatch(Path(vertices, codes), facecolor=BACKGROUND, edgecolor=MASK, hatch="////", linewidth=0.0, zorder=2)
    )


def _numbers(
    ax: Axes,
    values: np.ndarray,
    allowed: np.ndarray,
    mappable: ScalarMappable,
    fmt: str,
    origin: tuple[float, float],
    cell: float,
    points: float,
    force: bool = False,
) -> None:
    """Print the values into cells of side ``cell`` in data units, which is ``points`` on paper, if they fit."""
    n, m = values.shape
    texts = [[_number(values[i, j], fmt) if allowed[i, j] else "" for j in range(m)] for i in range(n)]
    size = _fitting_size([t for row in texts for t in row if t], points)
    if size is None and not force:
        return
    size = size or SMALLEST
    down = MIDDLE * size * cell / points
    for i in range(n):
        for j in range(m):
            if texts[i][j]:
                x, y = origin[0] + cell * (j + 0.5), origin[1] + cell * (i + 0.5) + down
                colour = on(mappable.to_rgba(values[i, j]))
                ax.text(x, y, texts[i][j], ha="center", va="baseline", fontsize=size, color=colour, zorder=3)


def _cell_points(ax: Axes, n: int, m: int) -> float:
    """The side of a cell in points."""
    width, height = extent(ax)
    return min(width / m, height / n)


def _number(value: float, fmt: str) -> str:
    text = f"{value:{fmt}}".replace("-", "\N{MINUS SIGN}")
    return text.lstrip("\N{MINUS SIGN}") if float(f"{value:{fmt}}") == 0 else text


def _fitting_size(texts: list[str], cell: float) -> float | None:
    """The largest size, up to that of normal text, at which every text fits into a square of ``cell`` points."""
    if not texts:
        return TEXT_SIZE
    widest = max(text_size(text, font(100))[0] / 100 for text in set(texts))
    size = min(TEXT_SIZE, 0.86 * cell / widest, 0.6 * cell)
    return size if size >= SMALLEST else None


def _turn_labels(ax: Axes, labels: list[str], m: int) -> None:
    """Turn the labels of the keys upright where they would touch."""
    cell = _cell_points(ax, round(abs(np.diff(ax.get_ylim())[0])), m)
    if max(text_size(label, font(SMALL_SIZE))[0] for label in labels) + 4 > cell:
        ax.tick_params(axis="x", labelrotation=90)
        fig = ax.get_figure(root=True)
        if isinstance(fig, Drawing):
            fig.settle()


def _lower_labels(ax: Axes) -> None:
    """Put the labels of the rows on baselines, so that "on" and "the" stand level."""
    fig = ax.get_figure(root=True)
    assert fig is not None
    shift = ScaledTranslation(0, -MIDDLE * SMALL_SIZE / 72, fig.dpi_scale_trans)
    for label in ax.get_yticklabels():
        label.set_verticalalignment("baseline")
        label.set_transform(label.get_transform() + shift)
