"""Figures with a name, a title that states the answer, a caption and an alternative text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from .palette import BACKGROUND, GRID, INK, MUTED

FONT = "DejaVu Sans"
TEXT_SIZE = 11.0
SMALL_SIZE = 10.0
TITLE_SIZE = 13.0
#: How far below the middle of a line of text its baseline lies, in parts of the size.
MIDDLE = 0.34
#: No text of a figure is smaller than this, in points.
SMALLEST = 9.0

#: What matplotlib is told, beyond its own defaults.
STYLE: Any = {
    "font.family": [FONT],
    "font.size": TEXT_SIZE,
    "mathtext.fontset": "dejavusans",
    "figure.facecolor": BACKGROUND,
    "savefig.facecolor": BACKGROUND,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT_SIZE,
    "axes.titlesize": TEXT_SIZE,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "lines.markersize": 5.0,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": SMALL_SIZE,
    "svg.fonttype": "none",
    "svg.image_inline": True,
}

_made: list[Drawing] = []


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's defaults and the guide's style, whatever the machine's settings are."""
    with mpl.rc_context():
        apply_style()
        yield


def apply_style() -> None:
    """Set matplotlib to its defaults and the guide's style."""
    mpl.rcdefaults()
    mpl.rcParams.update(STYLE)


def font(size: float = TEXT_SIZE, weight: str = "normal") -> FontProperties:
    """The guide's font at a size in points."""
    return FontProperties(family=FONT, size=size, weight=weight)


def text_size(text: str, properties: FontProperties) -> tuple[float, float]:
    """Width and height of a text in points; the lines of a text with line breaks are stacked."""
    lines = text.split("\n")
    width = 0.0
    for line in lines:
        is_math = "$" in line
        width = max(width, text_to_path.get_text_width_height_descent(line, properties, is_math)[0])
    return width, 1.2 * properties.get_size_in_points() * len(lines)


def wrap(text: str, properties: FontProperties, width: float) -> str:
    """Break a text into lines no wider than ``width`` points, of lengths as even as the words allow."""

    def greedy(limit: float) -> list[str]:
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and text_size(longer, properties)[0] > limit:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines

    count, limit = len(greedy(width)), width
    while limit > 0.5 * width and len(greedy(limit - 4)) == count:
        limit -= 4
    return "\n".join(greedy(limit))


class Drawing(Figure):
    """A matplotlib figure that knows its name, title, caption and alternative text.

    Some things can be drawn only once the layout is known: numbers that may or may not fit into cells, labels at
    the ends of curves, boxes as large as their text. They wait as callbacks that run once, before the first drawing.
    """

    guide_name: str
    guide_title: str
    guide_caption: str
    guide_alt: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: list[Callable[[], None]] = []
        self._finishing = False

    def later(self, callback: Callable[[], None]) -> None:
        """Run a callback when the axes have their places."""
        self._waiting.append(callback)

    def finish(self) -> None:
        """Lay the figure out and run what waits for that."""
        if self._finishing:
            return
        self._finishing = True
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                self.settle()
                for callback in waiting:
                    callback()
        finally:
            self._finishing = False

    def settle(self) -> None:
        """Give the axes their places, from the sizes of all labels."""
        engine = self.get_layout_engine()
        if engine is not None:
            engine.execute(self)

    def draw(self, renderer: Any) -> None:
        self.finish()
        super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The figure where a notebook shows it: two dots for each pixel, in the size that it has on a page."""
        buffer = io.BytesIO()
        with style():
            self.savefig(buffer, format="png", dpi=192)
        width, height = (round(96 * inches) for inches in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}


def figure(
    name: str,
    *,
    title: str,
    caption: str,
    size: tuple[float, float] = (6.4, 3.6),
) -> Drawing:
    """Start a figure of the guide.

    Sets matplotlib to the guide's style. The figure is remembered until :func:`take` hands it on, which is how the
    build finds the figures of a script.

    Parameters
    ----------
    name : str
        Unique name, lower-case words with hyphens, beginning with the chapter's word (``self-five-steps``). It names
        the files, the directive and the anchor.
    title : str
        What the figure shows, said as the answer. It is drawn, and wrapped where it does not fit.
    caption : str
        How the figure was computed, in Markdown; it stands below the figure on the page, not in it.
    size : tuple of float
        Width and height in inches. 6.4 fills the column of text, and shrinks on a phone to about half: text of 11
        points is then about 8 pixels high. A figure that works at 4.8 reads best on a phone. One wider than 6.4 does
        not shrink further there but scrolls. Text is never set smaller than 9 points.

    Returns
    -------
    Drawing
        A matplotlib ``Figure`` with constrained layout: ``fig.subplots()`` and everything else work as usual.

    Raises
    ------
    ValueError
        If the name is malformed or in use by a figure not handed on yet, or if the title or the caption is empty.

    Examples
    --------
    >>> fig = figure("demo-empty", title="Nothing yet", caption="Drawn by hand.")
    >>> [made.guide_name for made in take()]
    ['demo-empty']
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"name: got {name!r}, wanted lower-case words and digits joined by hyphens")
    if any(made.guide_name == name for made in _made):
        raise ValueError(f"name: {name!r} is taken by another figure of this script")
    for label, text in (("title", title), ("caption", caption)):
        if not text.strip():
            raise ValueError(f"{label}: got an empty text; a figure needs one")
    apply_style()
    fig = Drawing(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.04, hspace=0.04))
    FigureCanvasAgg(fig)
    fig.guide_name, fig.guide_title, fig.guide_caption, fig.guide_alt = name, title, caption.strip(), ""
    bold = font(TITLE_SIZE, "bold")
    fig.suptitle(
        wrap(title, bold, 72 * (size[0] - 0.15)), x=0.06 / size[0], ha="left", fontproperties=bold, color=INK
    ).set_linespacing(1.15)
    _made.append(fig)
    return fig


def take() -> list[Drawing]:
    """The figures made since the last call, in order; they are forgotten here."""
    made, _made[:] = _made[:], []
    return made


def describe(fig: Drawing, text: str) -> None:
    """Give a figure its alternative text: what a reader who cannot see it needs, from the data.

    Parameters
    ----------
    fig : Drawing
        A figure from :func:`figure`.
    text : str
        Whole sentences with the numbers that carry the message; do not repeat the title, and do not begin with
        "Image of". See :func:`describe_matrix` and its like for sentences from data.

    Raises
    ------
    ValueError
        If the text is too short to say anything.
    """
    text = " ".join(text.split())
    if len(text) < 20:
        raise ValueError(f"text: got {text!r}; the alternative text must say what the figure shows")
    fig.guide_alt = text


def later(ax: Axes, callback: Callable[[], None]) -> None:
    """Run a callback once the axes have their place; at once in a figure that is not the guide's."""
    fig = ax.get_figure(root=True)
    if isinstance(fig, Drawing):
        fig.later(callback)
    else:
        callback()


def extent(ax: Axes) -> tuple[float, float]:
    """Width and height of axes in points."""
    fig = ax.get_figure(root=True)
    assert fig is not None
    box = ax.get_position()
    return 72 * box.width * fig.get_figwidth(), 72 * box.height * fig.get_figheight()


def sentence(items: Sequence[str], limit: int = 6) -> str:
    """``a, b and c``, cut after ``limit`` items."""
    items = list(items)
    if len(items) > limit:
        return ", ".join(items[:limit]) + f" and {len(items) - limit} more"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def spread(wanted: np.ndarray, sizes: np.ndarray, low: float = -np.inf, high: float = np.inf) -> np.ndarray:
    """Positions as near to the wanted ones as can be, in order, ``sizes`` apart and between the bounds.

    The exact least-squares answer (isotonic regression of the positions less the room before them), so labels move
    as little as it takes.
    """
    before = np.concatenate([[0.0], np.cumsum((sizes[1:] + sizes[:-1]) / 2)])
    blocks: list[list[float]] = []  # [mean, count]
    for target in wanted - before:
        blocks.append([float(target), 1.0])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, count = blocks.pop()
            blocks[-1] = [
                (blocks[-1][0] * blocks[-1][1] + mean * count) / (blocks[-1][1] + count),
                blocks[-1][1] + count,
            ]
    fitted = np.concatenate([np.full(int(count), mean) for mean, count in blocks])
    return np.clip(fitted, low + sizes[0] / 2, high - sizes[-1] / 2 - before[-1]) + before
