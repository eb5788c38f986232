"""Writing a figure: one SVG for light pages, its twin for dark ones, and what is said about it beside them.

Text stays text. The SVG carries the glyphs that it uses as a font of its own, because a page shows it through
``<img>``, where neither the page's fonts nor the network are within reach.
"""

from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from fontTools import subset
from fontTools.ttLib import TTFont
from matplotlib.axis import Axis, Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path as Outline
from matplotlib.text import Text

from .figures import SMALLEST, Drawing, style
from .palette import DARK

#: Artists with this group id are arrows that no text may touch.
ARROW = "arrow"


def save(fig: Drawing, directory: Path | str, script: str = "") -> tuple[Path, Path]:
    """Write a figure as ``NAME.svg``, ``NAME-dark.svg`` and ``NAME.json``.

    The same drawing gives the same bytes, in every process and on every day.

    Parameters
    ----------
    fig : Drawing
        A figure from :func:`attn_guide.plot.figure` that has been described.
    directory : Path or str
        Where to write; made if it is missing.
    script : str
        Path of the script that drew it, for the link under the figure.

    Returns
    -------
    (Path, Path)
        The light and the dark SVG.

    Raises
    ------
    ValueError
        If the figure has no alternative text, or if texts overlap, are cut off or are too small.
    """
    if not fig.guide_alt:
        raise ValueError(f"{fig.guide_name}: has no alternative text; call plot.describe(fig, ...) with the data")
    problems = overlaps(fig)
    if problems:
        raise ValueError(f"{fig.guide_name}: " + "; ".join(problems))
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    light = _svg(fig)
    width, height = (round(96 * inches) for inches in fig.get_size_inches())
    paths = directory / f"{fig.guide_name}.svg", directory / f"{fig.guide_name}-dark.svg"
    _write(paths[0], light)
    _write(paths[1], darken(light))
    sidecar = {
        "name": fig.guide_name,
        "title": fig.guide_title,
        "caption": fig.guide_caption,
        "alt": fig.guide_alt,
        "width": width,
        "height": height,
        "script": script,
    }
    _write(directory / f"{fig.guide_name}.json", json.dumps(sidecar, ensure_ascii=False, indent=1) + "\n")
    return paths


def _write(path: Path, text: str) -> None:
    """Write a file unless it already says so, since pages are built again when a figure's file is newer."""
    content = text.encode("utf-8")
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)


def darken(svg: str) -> str:
    """Replace each light ink by its partner; everything else, colour maps and pictures included, stays."""
    inks = re.compile("(?<![0-9A-Za-z+/])(" + "|".join(map(re.escape, DARK)) + r")(?![0-9A-Za-z])")
    return inks.sub(lambda match: DARK[match[1]], svg)


def _svg(fig: Drawing) -> str:
    with style():
        import matplotlib as mpl

        mpl.rcParams["svg.hashsalt"] = fig.guide_name
        buffer = io.StringIO()
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<!DOCTYPE.*?>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"^\s*<!--.*?-->\s*?\n", "", svg, flags=re.MULTILINE)
    size = fig.get_size_inches()
    head = f'<svg width="{96 * size[0]:.0f}" height="{96 * size[1]:.0f}" role="img" aria-labelledby="title desc" '
    svg = re.sub(r'<svg (.*?)width="[^"]*" height="[^"]*" ', lambda m: head + m[1], svg, count=1)
    told = f'\n <title id="title">{escape(fig.guide_title)}</title>\n <desc id="desc">{escape(fig.guide_alt)}</desc>'
    svg = re.sub(r"(<svg [^>]*>)", lambda m: m[1] + told, svg, count=1)
    return svg.replace("</style>", "\n" + _font_faces(svg) + "</style>", 1)


def _font_faces(svg: str) -> str:
    """``@font-face`` rules with the glyphs that the texts of an SVG use."""
    used: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for element in ET.fromstring(svg).iter():
        if element.tag.rpartition("}")[2] in {"text", "tspan"} and element.text and element.text.strip("\n"):
            css = dict(re.findall(r"([a-z-]+):\s*([^;]+)", element.get("style", "")))
            family = css.get("font-family", "").split(",")[0].strip(" '\"")
            if family:
                key = (family, css.get("font-weight", "400"), css.get("font-style", "normal"))
                used[key] |= set(element.text)
    return "".join(_font_face(*key, "".join(sorted(used[key]))) for key in sorted(used))


def _font_face(family: str, weight: str, slant: Any, text: str) -> str:
    properties = FontProperties(family=family, weight=int(weight) if weight.isdigit() else weight, style=slant)
    font = TTFont(findfont(properties, fallback_to_default=False), recalcTimestamp=False)
    missing = sorted(c for c in set(text) - {"\n"} if ord(c) not in font.getBestCmap())
    if missing:
        raise ValueError(f"text: the font {family} has no {', '.join(missing)}")
    options = subset.Options()
    options.flavor = "woff"  # readable without the brotli package, which woff2 would need
    options.hinting = False
    options.notdef_outline = True
    options.layout_features = ["kern"]
    options.name_IDs = [1, 2]
    options.drop_tables += ["FFTM"]
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=text)
    subsetter.subset(font)
    buffer = io.BytesIO()
    font.flavor = "woff"
    font.save(buffer)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f"@font-face{{font-family:'{family}';font-weight:{weight};font-style:{slant};"
        f"src:url(data:font/woff;base64,{data}) format('woff')}}\n"
    )


# ---------------------------------------------------------------------------------------------------------------------
# What a reader could not read


def overlaps(fig: Figure) -> list[str]:
    """What a reader could not read: texts that touch, are cut off, are too small, or are crossed by an arrow.

    Parameters
    ----------
    fig : Figure
        Any matplotlib figure; it is laid out by this.

    Returns
    -------
    list of str
        One sentence for each problem; empty for a figure that can be read.
    """
    with style():
        canvas = fig.canvas if isinstance(fig.canvas, FigureCanvasAgg) else FigureCanvasAgg(fig)
        canvas.draw()
        renderer = canvas.get_renderer()
        texts = [t for t in _texts(fig) if t.get_visible() and t.get_text().strip()]
        boxes = [_corners(t, renderer) for t in texts]
        names = [_quoted(t) for t in texts]
        problems = []
        width, height = fig.bbox.width, fig.bbox.height
        for text, box, name in zip(texts, boxes, names, strict=True):
            low, high = box.min(axis=0), box.max(axis=0)
            if low.min() < -0.5 or high[0] > width + 0.5 or high[1] > height + 0.5:
                problems.append(f"{name} is cut off at the edge")
            if float(text.get_fontsize()) < SMALLEST - 1e-6:
                problems.append(f"{name} is set in {text.get_fontsize():.1f} points, less than {SMALLEST:g}")
        for i in range(len(boxes)):
            for j in range(i):
                if _touch(boxes[i], boxes[j]):
                    problems.append(f"{names[j]} and {names[i]} overlap")
        for arrow in fig.findobj(FancyArrowPatch):
            if arrow.get_gid() == ARROW:
                outline = Outline(arrow.get_transform().transform_path(arrow.get_path()).interpolated(8).vertices)
                problems += [
                    f"{name} is crossed by an arrow"
                    for box, name in zip(boxes, names, strict=True)
                    if Outline(_shrunk(box)).contains_points(outline.vertices).any()
                ]
        return problems


def _quoted(text: Text) -> str:
    content = " ".join(text.get_text().split())
    return repr(content if len(content) <= 40 else content[:37] + "...")


def _texts(fig: Figure) -> list[Text]:
    """The texts that are drawn: of ticks only those within the axes."""
    ticks: set[int] = set()
    drawn: list[Text] = []
    axes: Sequence[Any] = fig.findobj(Axis)
    for axis in axes:
        ticks |= {id(t) for tick in axis.findobj(Tick) for t in (tick.label1, tick.label2)}
        if axis.axes.axison and axis.get_visible() and axis.axes.get_visible():
            drawn += [t for tick in axis._update_ticks() for t in (tick.label1, tick.label2)]
        else:
            ticks |= {id(t) for t in axis.findobj(Text)}
    others: Sequence[Any] = fig.findobj(Text)
    return drawn + [t for t in others if id(t) not in ticks and id(t) not in {id(d) for d in drawn}]


def _corners(text: Text, renderer: Any) -> np.ndarray:
    """The corners of a text's box in pixels, turned as the text is, shape (4, 2)."""
    full = Text.get_window_extent(text, renderer)  # an Annotation's own would include its arrow
    angle = text.get_rotation()
    if angle % 90:
        text.set_rotation(0)
        upright = Text.get_window_extent(text, renderer)
        text.set_rotation(angle)
        w, h = upright.width, upright.height
    else:
        angle, w, h = 0, full.width, full.height
    centre = np.array([(full.x0 + full.x1) / 2, (full.y0 + full.y1) / 2])
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    half = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    return centre + half @ np.array([[c, s], [-s, c]])


def _shrunk(box: np.ndarray, by: float = 1.0) -> np.ndarray:
    centre = box.mean(axis=0)
    reach = np.abs(box - centre).max(axis=0)
    return centre + (box - centre) * np.maximum(1 - by / np.maximum(reach, 1e-9), 0)


def _touch(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two rectangles overlap by more than a pixel, by the separating axes of both."""
    one, other = _shrunk(one), _shrunk(other)
    for box in (one, other):
        for edge in (box[1] - box[0], box[3] - box[0]):
            a, b = one @ edge, other @ edge
            if a.max() <= b.min() or b.max() <= a.min():
                return False
    return True
