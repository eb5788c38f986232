"""Diagrams laid out from data: equations of matrices, flows, trees, timelines, rectangles to scale.

No script places a box by hand. A diagram is measured in points, from the sizes of its texts; if it does not fit its
axes, drawing it raises an error that says how large the figure must be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle

from .figures import MIDDLE, SMALL_SIZE, SMALLEST, TEXT_SIZE, extent, font, later, spread, text_size
from .matrices import _checked, _numbers, _paint
from .palette import BACKGROUND, INK, MUTED, role


class Sheet:
    """Axes without an axis, measured in points from the top left corner."""

    def __init__(self, ax: Axes) -> None:
        self.ax = ax
        self.width, self.height = extent(ax)
        ax.set(xlim=(0, self.width), ylim=(self.height, 0))

    def demand(self, width: float, height: float) -> None:
        """Raise unless a diagram of this size fits."""
        if width > self.width + 0.5 or height > self.height + 0.5:
            fig = self.ax.get_figure(root=True)
            assert fig is not None
            w, h = fig.get_size_inches()
            raise ValueError(
                f"size: the diagram needs {width / 72:.2f} x {height / 72:.2f} inches and its axes have "
                f"{self.width / 72:.2f} x {self.height / 72:.2f}; make the figure at least "
                f"{w + max(0, width - self.width) / 72:.2f} x {h + max(0, height - self.height) / 72:.2f}"
            )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        properties: FontProperties,
        colour: str = INK,
        ha: str = "center",
    ) -> None:
        """Write a text with its middle on ``y``, whatever letters it has: equal lines have equal baselines."""
        lines = text.split("\n")
        size = properties.get_size_in_points()
        for i, line in enumerate(lines):
            middle = y + 1.2 * size * (i - (len(lines) - 1) / 2)
            self.ax.text(
                x, middle + MIDDLE * size, line, fontproperties=properties, color=colour, ha=ha, va="baseline", zorder=5
            )

    def line(self, xs: Sequence[float], ys: Sequence[float], colour: str = MUTED, width: float = 1.0) -> None:
        """Draw a line through points."""
        self.ax.add_line(Line2D(xs, ys, color=colour, linewidth=width, zorder=2, solid_capstyle="round"))


def _blank(ax: Axes) -> None:
    ax.set_axis_off()


# ---------------------------------------------------------------------------------------------------------------------
# Equations of matrices


@dataclass(frozen=True)
class Matrix:
    """A matrix in a diagram: what :func:`equation` draws between symbols, and what a node of :func:`flow` may hold.

    Parameters
    ----------
    a : array_like, shape (rows, columns)
        The values.
    name : str
        Written above, in the ink of the role.
    role : str
        A role's name ("query", "key", "value", "scores", "weights", "output") or a colour.
    kind : str
        As for :func:`attn_guide.plot.matrix`; by default from the role: weights, scores, else values.
    rows, columns : sequence of str, optional
        Labels.
    mask : array_like of bool, optional
        False for forbidden cells, which are hatched.
    fmt : str
        Format of the numbers, printed where they fit.
    shape : str, optional
        What stands below; by default the shape in numbers. Give "n × d_k" to name it.
    limits : (float, float), optional
        Values at the ends of the colour map.
    """

    a: Any
    name: str = ""
    role: str = "ink"
    kind: str | None = None
    rows: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    mask: Any = None
    fmt: str = ".2f"
    shape: str | None = None
    limits: tuple[float, float] | None = None

    @property
    def drawn_as(self) -> str:
        """The kind, by default from the role."""
        return self.kind or (self.role if self.role in {"weights", "scores", "mask"} else "values")

    @property
    def size(self) -> tuple[int, int]:
        """Number of rows and columns."""
        rows, columns = np.shape(self.a)
        return rows, columns

    @property
    def below(self) -> str:
        """The text under the matrix."""
        return "{} × {}".format(*self.size) if self.shape is None else self.shape


@dataclass(frozen=True)
class _Measured:
    """The room that a matrix needs around its cells, in points."""

    matrix: Matrix
    left: float
    top: float
    bottom: float
    turned: bool

    @classmethod
    def of(cls, matrix: Matrix, cell: float) -> _Measured:
        small = font(SMALL_SIZE)
        left = max((text_size(label, small)[0] for label in matrix.rows), default=0) + 5 if matrix.rows else 0.0
        across = max((text_size(label, small)[0] for label in matrix.columns), default=0) if matrix.columns else 0.0
        turned = across > cell - 2
        top = 0.0 if not matrix.columns else (across + 5 if turned else SMALL_SIZE + 5)
        if matrix.name:
            top += 1.45 * TEXT_SIZE
        bottom = 1.4 * SMALL_SIZE if matrix.below else 0.0
        return cls(matrix, left, top, bottom, turned)

    def width(self, cell: float) -> float:
        texts = [(self.matrix.name, font(TEXT_SIZE, "bold")), (self.matrix.below, font(SMALL_SIZE))]
        return max(self.left + cell * self.matrix.size[1], *(text_size(t, f)[0] for t, f in texts))

    def height(self, cell: float) -> float:
        return self.top + cell * self.matrix.size[0] + self.bottom

    def draw(self, sheet: Sheet, x: float, y: float, cell: float) -> None:
        """Draw with the top left corner of everything at (x, y)."""
        matrix = self.matrix
        values, allowed = _checked(matrix.a, matrix.drawn_as, matrix.mask)
        n, m = values.shape
        spare = self.width(cell) - self.left - cell * m
        left, top = x + self.left + (spare / 2 if not self.left else 0), y + self.top
        mappable = _paint(sheet.ax, values, allowed, matrix.drawn_as, matrix.limits, (left, top), cell)
        if mappable is not None:
            _numbers(sheet.ax, values, allowed, mappable, matrix.fmt, (left, top), cell, cell)
        small = font(SMALL_SIZE)
        for i, label in enumerate(matrix.rows or ()):
            sheet.text(left - 4, top + cell * (i + 0.5), label, small, ha="right")
        for j, label in enumerate(matrix.columns or ()):
            sheet.ax.text(
                left + cell * (j + 0.5),
                top - 4,
                label,
                fontproperties=small,
                color=INK,
                ha="center",
                va="bottom",
                rotation=90 if self.turned else 0,
            )
        middle = left + cell * m / 2
        if matrix.name:
            sheet.text(middle, y + 0.6 * TEXT_SIZE, matrix.name, font(TEXT_SIZE, "bold"), role(matrix.role))
        if matrix.below:
            sheet.text(middle, top + cell * n + 0.75 * SMALL_SIZE, matrix.below, small, MUTED)


def equation(
    ax: Axes,
    rows: Sequence[Matrix | str] | Sequence[Sequence[Matrix | str]],
    *,
    labels: Sequence[str] | None = None,
    largest_cell: float = 34.0,
) -> None:
    """Draw matrices with symbols between them, all with cells of one size: ``[Q, "×", K, "=", S]``.

    Parameters
    ----------
    ax : Axes
        Where to draw; its axis is switched off.
    rows : sequence of Matrix and str, or sequence of such
        One line, or several below each other.
    labels : sequence of str, optional
        A text to the left of each line, such as the name of a step. Line breaks are kept.
    largest_cell : float
        The cells are as large as fits, up to this, in points.
    """
    lines: list[list[Matrix | str]] = (
        [list(rows)] if any(isinstance(r, Matrix | str) for r in rows) else [list(r) for r in rows]  # type: ignore[arg-type]
    )
    if labels is not None and len(labels) != len(lines):
        raise ValueError(f"labels: got {len(labels)} for {len(lines)} lines")
    _blank(ax)
    later(ax, lambda: _draw_equation(Sheet(ax), lines, list(labels or []), largest_cell))


def _draw_equation(sheet: Sheet, lines: list[list[Matrix | str]], labels: list[str], largest_cell: float) -> None:
    symbol, bold, gap, between = font(TEXT_SIZE + 4), font(TEXT_SIZE, "bold"), 8.0, 14.0
    margin = max((text_size(label, bold)[0] for label in labels), default=-14.0) + 14.0

    def measure(cell: float) -> tuple[list[float], list[float]]:
        widths, heights = [], []
        for items in lines:
            parts = [_Measured.of(i, cell) if isinstance(i, Matrix) else i for i in items]
            inner = [p.width(cell) if isinstance(p, _Measured) else text_size(p, symbol)[0] for p in parts]
            widths.append(margin + sum(inner) + gap * (len(items) - 1))
            middles = [p for p in parts if isinstance(p, _Measured)]
            above = max((p.top + cell * p.matrix.size[0] / 2 for p in middles), default=TEXT_SIZE)
            below = max((p.bottom + cell * p.matrix.size[0] / 2 for p in middles), default=TEXT_SIZE)
            heights.append(above + below)
        return widths, heights

    cell = largest_cell
    while True:
        widths, heights = measure(cell)
        total = sum(heights) + between * (len(lines) - 1)
        if (max(widths) <= sheet.width and total <= sheet.height) or cell <= 8:
            break
        cell -= 0.5
    sheet.demand(max(widths), total)
    y = (sheet.height - total) / 2
    start = 0.0 if labels else None
    for index, items in enumerate(lines):
        parts = [_Measured.of(i, cell) if isinstance(i, Matrix) else i for i in items]
        above = max((p.top + cell * p.matrix.size[0] / 2 for p in parts if isinstance(p, _Measured)), default=TEXT_SIZE)
        centre = y + above
        x = (sheet.width - widths[index]) / 2 if start is None else start
        if labels:
            sheet.text(x, centre, labels[index], bold, INK, ha="left")
        x += margin
        for part in parts:
            if isinstance(part, _Measured):
                part.draw(sheet, x, centre - cell * part.matrix.size[0] / 2 - part.top, cell)
                x += part.width(cell) + gap
            else:
                width = text_size(part, symbol)[0]
                sheet.text(x + width / 2, centre, part, symbol, MUTED)
                x += width + gap
        y += heights[index] + between


# ---------------------------------------------------------------------------------------------------------------------
# Trees


def tree(ax: Axes, branches: Mapping[str, Any], *, columns: int = 2) -> None:
    """A classification as an indented tree, set in columns; made for some 45 leaves.

    Parameters
    ----------
    ax : Axes
        Where to draw; its axis is switched off.
    branches : mapping
        Name of a branch to its content: a mapping (branches of it) or a sequence of leaves. A leaf is a text, or a
        mapping with ``text`` and, if wanted, ``note`` (set grey behind it, such as a year), ``role`` (its ink) and
        ``open`` (True for a hollow mark: not written yet).
    columns : int
        Number of columns that the branches at the top are dealt into, in order.
    """
    _blank(ax)
    later(ax, lambda: _draw_tree(Sheet(ax), branches, columns))


def _tree_lines(content: Any, depth: int) -> list[tuple[int, dict[str, Any], bool]]:
    """The lines of a tree: depth, leaf or heading, and whether it is a heading."""
    lines: list[tuple[int, dict[str, Any], bool]] = []
    if isinstance(content, Mapping):
        for name, inner in content.items():
            lines.append((depth, {"text": name}, True))
            lines += _tree_lines(inner, depth + 1)
    else:
        for leaf in content:
            lines.append((depth, {"text": leaf} if isinstance(leaf, str) else dict(leaf), False))
    return lines


def _draw_tree(sheet: Sheet, branches: Mapping[str, Any], columns: int) -> None:
    step, indent, gap = 15.5, 14.0, 10.0
    blocks = [_tree_lines({name: content}, 0) for name, content in branches.items()]
    tall = [step * len(block) + gap for block in blocks]
    dealt: list[list[int]] = [[] for _ in range(columns)]
    limit = _smallest_limit(tall, columns)
    column, filled = 0, 0.0
    for i, height in enumerate(tall):
        if filled + height > limit + 1e-9 and dealt[column]:
            column, filled = column + 1, 0.0
        dealt[column].append(i)
        filled += height
    small, bold, sub = font(SMALL_SIZE), font(TEXT_SIZE, "bold"), font(SMALL_SIZE, "bold")
    wide = 0.0
    for block in blocks:
        for depth, leaf, heading in block:
            text = text_size(leaf["text"], (bold if depth == 0 else sub) if heading else small)[0]
            note = text_size(leaf["note"], font(SMALLEST))[0] + 6 if leaf.get("note") else 0
            wide = max(wide, indent * depth + text + note + 4)
    sheet.demand(columns * wide + 12 * (columns - 1), limit)
    pitch = min((sheet.width - wide) / max(1, columns - 1), 1.35 * wide) if columns > 1 else 0.0
    for column, members in enumerate(dealt):
        x, y = column * pitch, 0.0
        for i in members:
            last: dict[int, float] = {}
            for depth, leaf, heading in blocks[i]:
                middle = y + step / 2
                at = x + indent * depth
                ink = role(leaf.get("role", "ink"))
                if depth:
                    spine = at - indent + 4
                    sheet.line([spine, spine, at - 3], [last[depth - 1], middle, middle], MUTED, 0.8)
                if not heading:
                    sheet.ax.plot(
                        at,
                        middle,
                        "o",
                        markersize=4,
                        color=ink,
                        markerfacecolor=BACKGROUND if leaf.get("open") else ink,
                        markeredgewidth=1.1,
                        zorder=4,
                    )
                properties = (bold if depth == 0 else sub) if heading else small
                start = at if heading else at + 7
                sheet.text(start, middle, leaf["text"], properties, ink, ha="left")
                if leaf.get("note"):
                    sheet.text(
                        start + text_size(leaf["text"], properties)[0] + 6,
                        middle,
                        leaf["note"],
                        font(SMALLEST),
                        MUTED,
                        ha="left",
                    )
                if heading:
                    last[depth] = middle + 0.5 * step
                y += step
            y += gap


def _smallest_limit(heights: Sequence[float], columns: int) -> float:
    """The least height at which blocks, kept in order, go into so many columns."""

    def needed(limit: float) -> int:
        count, filled = 1, 0.0
        for height in heights:
            if filled and filled + height > limit:
                count, filled = count + 1, 0.0
            filled += height
        return count

    sums = sorted({sum(heights[i:j]) for i in range(len(heights)) for j in range(i + 1, len(heights) + 1)})
    return next(limit for limit in sums if limit >= max(heights) and needed(limit) <= columns)


# ---------------------------------------------------------------------------------------------------------------------
# Timelines


def timeline(ax: Axes, events: Sequence[tuple[Any, ...] | Mapping[str, Any]], *, unit: str = "") -> None:
    """Events down a scale of years, each label beside its mark and none on another.

    Parameters
    ----------
    ax : Axes
        Where to draw; its axis is switched off.
    events : sequence
        Each a mapping with ``when`` (a year, with a fraction for the month), ``text`` and, if wanted, ``note`` (grey,
        behind or below it), ``role`` and ``open`` (hollow mark: not written yet); or a tuple ``(when, text, note)``.
    unit : str
        A word above the scale.
    """
    _blank(ax)
    entries = [e if isinstance(e, Mapping) else dict(zip(("when", "text", "note"), e, strict=False)) for e in events]
    entries.sort(key=lambda e: e["when"])
    later(ax, lambda: _draw_timeline(Sheet(ax), entries, unit))


def _draw_timeline(sheet: Sheet, entries: Sequence[Mapping[str, Any]], unit: str) -> None:
    small, bold = font(SMALL_SIZE), font(SMALL_SIZE, "bold")
    first = int(np.floor(entries[0]["when"]))
    last = max(int(np.ceil(entries[-1]["when"])), first + 1)
    axis, label_x, step = 42.0, 82.0, 17.0
    top, bottom = 12.0 + (14.0 if unit else 0.0), sheet.height - 12.0

    def place(when: float) -> float:
        return top + (when - first) / (last - first) * (bottom - top)

    wanted = np.array([place(e["when"]) for e in entries])
    placed = spread(wanted, np.full(len(entries), step), 8.0, sheet.height - 8.0)
    wide = max(
        label_x + text_size(e["text"], bold)[0] + (text_size(e["note"], small)[0] + 8 if e.get("note") else 0)
        for e in entries
    )
    sheet.demand(wide, max(step * len(entries), 14.0 * (last - first)))
    if unit:
        sheet.text(axis - 8, 6, unit, font(SMALLEST), MUTED, ha="right")
    sheet.line([axis, axis], [top - 4, bottom + 4], MUTED, 1.2)
    for year in range(first, last + 1):
        sheet.line([axis - 3, axis], [place(year)] * 2, MUTED, 1.0)
        sheet.text(axis - 7, place(year), str(year), small, MUTED, ha="right")
    for entry, true, shown in zip(entries, wanted, placed, strict=True):
        ink = role(entry.get("role", "ink"))
        sheet.line([axis, axis + 8, label_x - 18, label_x - 9], [true, true, shown, shown], MUTED, 0.8)
        sheet.ax.plot(axis, true, "o", markersize=3.5, color=MUTED, zorder=3)
        sheet.ax.plot(
            label_x - 7,
            shown,
            "o",
            markersize=5,
            color=ink,
            markeredgewidth=1.2,
            markerfacecolor=BACKGROUND if entry.get("open") else ink,
            zorder=4,
        )
        sheet.text(label_x, shown, entry["text"], bold, ink, ha="left")
        if entry.get("note"):
            sheet.text(
                label_x + text_size(entry["text"], bold)[0] + 8,
                shown,
                entry["note"],
                small,
                MUTED,
                ha="left",
            )


# ---------------------------------------------------------------------------------------------------------------------
# Rectangles to scale


def to_scale(ax: Axes, items: Sequence[tuple[str, int, int, str] | str]) -> None:
    """Matrices as rectangles whose sides are to one scale, with symbols between: ``[("X", 10, 512, "ink"), "×", ...]``.

    Parameters
    ----------
    ax : Axes
        Where to draw; its axis is switched off.
    items : sequence of (name, rows, columns, role) and str
        The rectangles and the symbols between them.
    """
    _blank(ax)
    later(ax, lambda: _draw_to_scale(Sheet(ax), list(items)))


def _draw_to_scale(sheet: Sheet, items: list[tuple[str, int, int, str] | str]) -> None:
    bold, small, symbol, gap = font(TEXT_SIZE, "bold"), font(SMALL_SIZE), font(TEXT_SIZE + 4), 10.0
    top, bottom = 1.5 * TEXT_SIZE, 1.5 * SMALL_SIZE

    def widths(scale: float) -> list[float]:
        return [
            text_size(item, symbol)[0]
            if isinstance(item, str)
            else max(scale * item[2], text_size(item[0], bold)[0], text_size(f"{item[1]} × {item[2]}", small)[0])
            for item in items
        ]

    tallest = max(item[1] for item in items if not isinstance(item, str))
    scale = (sheet.height - top - bottom) / tallest
    while sum(widths(scale)) + gap * (len(items) - 1) > sheet.width and scale > 1e-4:
        scale *= 0.99
    inner = widths(scale)
    total = sum(inner) + gap * (len(items) - 1)
    sheet.demand(total, top + bottom + 4)
    x, centre = (sheet.width - total) / 2, top + (sheet.height - top - bottom) / 2
    for item, width in zip(items, inner, strict=True):
        middle = x + width / 2
        if isinstance(item, str):
            sheet.text(middle, centre, item, symbol, MUTED)
        else:
            name, rows, columns, ink = item[0], item[1], item[2], role(item[3])
            w, h = max(scale * columns, 1.5), max(scale * rows, 1.5)
            sheet.ax.add_patch(
                Rectangle((middle - w / 2, centre - h / 2), w, h, facecolor=ink, alpha=0.22, linewidth=0)
            )
            sheet.ax.add_patch(
                Rectangle((middle - w / 2, centre - h / 2), w, h, fill=False, edgecolor=ink, linewidth=1.2)
            )
            sheet.text(middle, centre - h / 2 - 0.7 * TEXT_SIZE, name, bold, ink)
            sheet.text(middle, centre + h / 2 + 0.8 * SMALL_SIZE, f"{rows} × {columns}", small, MUTED)
        x += width + gap


# ---------------------------------------------------------------------------------------------------------------------
# Flows: see routing.py for how the arrows find their way


def flow(
    ax: Axes,
    nodes: Mapping[str, Mapping[str, Any] | Matrix | str],
    edges: Sequence[tuple[str, ...]],
    grid: Sequence[str | Sequence[str]],
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    cell: float = 26.0,
) -> None:
    """Boxes and arrows, placed by a grid of names; the arrows find their way around boxes and texts.

    Parameters
    ----------
    ax : Axes
        Where to draw; its axis is switched off.
    nodes : mapping
        By key: a text, a :class:`Matrix`, or a mapping with ``text`` and, if wanted, ``detail`` (smaller, below it,
        such as a shape), ``role`` (its ink) and ``plain`` (True for no box).
    edges : sequence of (from, to) or (from, to, label)
        The arrows, by the keys of their ends.
    grid : sequence of rows
        Each row a sequence of keys, or a text with the keys between spaces; "." leaves a place empty.
    groups : mapping of str to sequence of str, optional
        Titles and the keys of the nodes that a quiet frame goes around.
    cell : float
        Size of the cells of matrices, in points.

    Examples
    --------
    >>> from attn_guide import plot
    >>> fig = plot.figure("demo-flow", title="Scores weigh values", caption="From data.", size=(4.8, 2))
    >>> plot.flow(
    ...     fig.subplots(),
    ...     {"q": {"text": "Q", "role": "query"}, "k": {"text": "K", "role": "key"}, "s": "scores"},
    ...     [("q", "s"), ("k", "s")],
    ...     ["q . ", "k s"],
    ... )
    >>> plot.overlaps(plot.take()[0])
    []
    """
    from .routing import draw_flow

    rows = [row.split() if isinstance(row, str) else list(row) for row in grid]
    _blank(ax)
    draw = draw_flow(nodes, edges, rows, groups or {}, cell)
    later(ax, lambda: draw(Sheet(ax)))


def box(sheet: Sheet, x: float, y: float, width: float, height: float, ink: str) -> None:
    """A quiet rounded box in a tint of an ink."""
    sheet.ax.add_patch(
        FancyBboxPatch(
            (x + 4, y + 4),
            width - 8,
            height - 8,
            boxstyle="round,pad=4,rounding_size=5",
            facecolor=ink,
            alpha=0.1,
            linewidth=0,
            zorder=1,
        )
    )


__all__ = ["Matrix", "Sheet", "box", "equation", "flow", "pairwise", "spread", "timeline", "to_scale", "tree"]
