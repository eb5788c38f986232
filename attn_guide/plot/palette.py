"""The colours of the guide: one ink for each thing, its partner on a dark page, and the maps for matrices.

A figure is drawn once, in the light inks. The dark version is the same SVG with each light ink replaced by its
partner, by exact value. A value of a colour map is never an ink, so the cells of a matrix are the same on both
pages: a theme that recolours a heat map would falsify it.

The inks were chosen so that any two of the six roles stay apart under simulated protanopia, deuteranopia and
tritanopia, and so that each can be read as text (contrast at least 4.5:1) on its page; ``tests/test_plot.py``
measures both. Colour still never stands alone: what it says, a label says too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb

#: The ink of queries.
QUERY = "#1946a1"
#: The ink of keys.
KEY = "#b84a00"
#: The ink of values.
VALUE = "#007a72"
#: The ink of scores.
SCORES = "#8a4bd2"
#: The ink of attention weights.
WEIGHTS = "#8a004d"
#: The ink of outputs.
OUTPUT = "#4a3505"
#: The ink of masks: what hides a pair of query and key.
MASK = "#5a6675"
#: The ink of text and lines.
INK = "#222832"
#: The ink of what is said beside: units, notes, axes.
MUTED = "#535e6c"
#: The ink of grid lines.
GRID = "#dfe3e8"
#: The page. It is not #ffffff, which cells and their numbers may use on both pages.
BACKGROUND = "#fffffe"

#: Each light ink and its partner on a dark page.
DARK: dict[str, str] = {
    QUERY: "#6a9bff",
    KEY: "#f59f5b",
    VALUE: "#5cdec5",
    SCORES: "#cdb0ff",
    WEIGHTS: "#f468a6",
    OUTPUT: "#f9e8a4",
    MASK: "#9aa6b4",
    INK: "#ced6dd",
    MUTED: "#a3acb8",
    GRID: "#333d4a",
    BACKGROUND: "#14181e",
}

#: The ink of each role by name, for data that names roles.
ROLES: dict[str, str] = {
    "query": QUERY,
    "key": KEY,
    "value": VALUE,
    "scores": SCORES,
    "weights": WEIGHTS,
    "output": OUTPUT,
    "mask": MASK,
    "ink": INK,
    "muted": MUTED,
}

#: The numbers on cells: the same on both pages, as the cells are.
BLACK = "#000000"
WHITE = "#ffffff"


def _colormap(name: str, *anchors: str) -> Colormap:
    colormap = LinearSegmentedColormap.from_list(name, anchors, N=256)
    return colormap.with_extremes(bad=(0, 0, 0, 0))  # a forbidden cell has no colour: it is hatched


#: Weights and probabilities: light is small, dark is large.
SEQUENTIAL = _colormap("guide-weights", "#fcf8fa", "#f3cfdf", "#dc86ae", "#b53a78", "#7d0546", "#4a0028")
#: Scores: centred on 0, orange below and purple above.
DIVERGING = _colormap(
    "guide-scores", "#7a3300", "#c26316", "#eaa869", "#f8e2cd", "#fafafa", "#e6dcf5", "#bb9be6", "#8350c6", "#4d1f8a"
)
#: Components of vectors: centred on 0, quiet, sand below and steel above.
QUIET = _colormap(
    "guide-values", "#6f5a2a", "#a78e58", "#d3c29b", "#efe8da", "#fafafa", "#dde7ef", "#a5bfd4", "#628aab", "#30597c"
)

COLORMAPS: dict[str, Colormap] = {"weights": SEQUENTIAL, "scores": DIVERGING, "values": QUIET}


def role(name: str) -> str:
    """The ink of a role's name; a colour is given back as it is."""
    return ROLES.get(name, name)


def luminance(colour: Any) -> float:
    """Relative luminance of a colour as WCAG defines it, from 0 for black to 1 for white."""
    rgb: np.ndarray = np.asarray(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: Any, other: Any) -> float:
    """Contrast ratio of two colours as WCAG defines it, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def on(colour: Any) -> str:
    """Black or white, whichever reads better on a colour."""
    return BLACK if contrast(colour, BLACK) >= contrast(colour, WHITE) else WHITE
