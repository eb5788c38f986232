"""What a reader downloads, without what no page shows: :mod:`guide_ext.hosting` calls this when the pages are written.

- The icon fonts have two thousand icons, of which the theme and the pages use about forty: the fonts keep those, and
  so does the style sheet.
- The fonts for text keep the characters of western Europe and what else occurs.
- The font for formulas keeps the characters that occur, with all sizes and parts that they are built from.
- A figure is text that matplotlib wrote for safety's sake: six decimals and a new line for every corner. Two decimals,
  a hundredth of a point, are less than any screen shows, cells of one colour are one path, and its fonts are packed.
- Three scripts of the theme serve custom icons and results while one types, which the site does not have.

Each step begins from the original file, never from its own result, so that a second build writes the same bytes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
import json
import logging
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import fontTools
import numpy as np
import pydata_sphinx_theme
from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
SHEET = Path("styles/pydata-sphinx-theme.css")
ICON_FONTS = Path("vendor/fontawesome/webfonts")
MATH_FONT = Path("fonts/pagella-math.woff2")

logging.getLogger(subset.__name__).setLevel(logging.WARNING)  # it tells of every table that it cuts down

# --- figures ---------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_CORNER = re.compile(r"([ML]) (\S+) (\S+)")
_MESH = re.compile(r'(<g id="QuadMesh_\d+">)(.*?)(</g>)', re.DOTALL)
_FONT = re.compile(r"data:font/woff;base64,([^)]*)\) format\('woff'\)")
_CELL = re.compile(r'<path d="([^"]*)"( clip-path="[^"]*")? style="([^"]*)"/>\s*')

#: From so many cells on, a matrix without gaps between its cells is a picture of one pixel a cell, if that is smaller.
MANY_CELLS = 400


def drawing(svg: str) -> str:
    """A figure of matplotlib in fewer bytes: the same lines, colours and texts."""
    svg = _MESH.sub(lambda mesh: mesh[1] + _cells(mesh[2]) + mesh[3], svg)
    svg = re.sub(r'(\s(?:d|transform|x|y|points)=")([^"]*)', lambda m: m[1] + _NUMBER.sub(_rounded, m[2]), svg)
    svg = re.sub(r'(\sd=")([^"]*)', lambda m: m[1] + _outline(m[2]), svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", svg)
    svg = re.sub(r"<\?xml[^>]*\?>\s*", "", svg)
    svg = _FONT.sub(lambda face: f"data:font/woff2;base64,{_packed(face[1])}) format('woff2')", svg)
    return re.sub(r"\n\s+<", "\n<", svg)


@functools.cache
def _packed(woff: str) -> str:
    """The same font, compressed as WOFF 2; both are in base 64."""
    font = TTFont(io.BytesIO(base64.b64decode(woff)), recalcTimestamp=False)
    font.flavor = "woff2"
    buffer = io.BytesIO()
    font.save(buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _rounded(number: re.Match[str]) -> str:
    short = f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def _outline(path: str) -> str:
    """Corners without the letters and coordinates that repeat: ``M 1 2 L 3 2 L 3 4`` is ``M1 2H3V4``."""
    written, pen = [], ("", "")
    for line in path.splitlines():
        corner = _CORNER.fullmatch(line.strip())
        if corner is None:  # a curve, or the end of a closed part
            written.append(line.strip())
            pen = ("", "")
            continue
        letter, x, y = corner.groups()
        if letter == "L" and y == pen[1]:
            written.append(f"H{x}")
        elif letter == "L" and x == pen[0]:
            written.append(f"V{y}")
        else:
            written.append(f"{letter}{x} {y}")
        pen = (x, y)
    return "".join(written)


def _cells(mesh: str) -> str:
    """The cells of a matrix: a picture, or one path for each colour; they never overlap, so their order is free."""
    if _CELL.sub("", mesh).strip():
        return mesh  # something else than cells
    cells = [cell for cell in _CELL.findall(mesh) if cell[2] != "fill: none"]
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, clip, look in cells:
        alike[clip, look].append(path)
    paths = "\n".join(f'<path d="{"".join(parts)}"{clip} style="{look}"/>' for (clip, look), parts in alike.items())
    picture = _picture(cells) if len(cells) >= MANY_CELLS else ""
    # A path of a cell shrinks to about 25 characters, of which compression leaves about a third.
    return f"\n{picture if picture and len(picture) < 8 * len(cells) else paths}\n"


def _picture(cells: list[tuple[str, str, str]]) -> str:
    """The cells as an image of one pixel each; nothing if they have gaps between them or do not lie in a grid."""
    corners, colours = [], []
    for path, _, look in cells:
        ink = re.match(r"fill: (#[0-9a-f]{6}); stroke: \1;", look)
        x, y = ([float(number) for number in re.findall(rf"[ML] {place}", path)] for place in (r"(\S+)", r"\S+ (\S+)"))
        if ink is None or len(x) != 5:
            return ""
        corners.append((min(x), min(y), max(x), max(y)))
        colours.append(tuple(bytes.fromhex(ink[1][1:])))
    box = np.array(corners)  # (cells, left, top, right, bottom)
    width, height = np.median(box[:, 2] - box[:, 0]), np.median(box[:, 3] - box[:, 1])
    left, top = box[:, 0].min(), box[:, 1].min()
    place = (box - [left, top, left, top]) / [width, height, width, height]
    if np.abs(place - place.round()).max() > 0.02 or np.abs(place[:, 2:] - place[:, :2] - 1).max() > 0.02:
        return ""
    column, row = place[:, 0].round().astype(int), place[:, 1].round().astype(int)
    pixels = np.zeros((row.max() + 1, column.max() + 1, 4), dtype=np.uint8)
    pixels[row, column, :3], pixels[row, column, 3] = colours, 255
    picture = Image.fromarray(pixels)
    inks = picture.getcolors(256)
    if inks is not None:
        order = sorted(ink for _, ink in inks)
        picture = Image.fromarray(
            np.array([[order.index(tuple(p)) for p in line] for line in pixels.tolist()], np.uint8), "P"
        )
        picture.putpalette(bytes(part for ink in order for part in ink), "RGBA")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<image x="{left}" y="{top}" width="{width * pixels.shape[1]:.2f}" height="{height * pixels.shape[0]:.2f}" '
        f'preserveAspectRatio="none" style="image-rendering: pixelated" href="data:image/png;base64,{data}"/>'
    )


def drawings(images: Path) -> None:
    """Every figure of the built site that still is as matplotlib wrote it."""
    short = functools.cache(drawing)  # a thumbnail in the gallery is its figure again
    for file in sorted(images.glob("*.svg")):
        svg = file.read_text(encoding="utf-8")
        if svg.startswith("<?xml") and 'id="figure_1"' in svg:
            replace(file, short(svg).encode("utf-8"))


# --- icons and formulas ----------------------------------------------------------------------------------------------


def icon_sheet(css: str, names: Iterable[str]) -> str:
    """The theme's style sheet without the names of icons that nothing uses."""
    kept = {f".{name}" for name in names}

    def rule(match: re.Match[str]) -> str:
        return match[0] if kept & set(match[1].split(",")) else ""

    return re.sub(r'((?:\.fa-[\w-]+,?)+)\{--fa:"[^"]*"\}', rule, css)


def icons(css: str) -> set[int]:
    """The code points of all icons that a style sheet can show."""
    escaped = {int(code, 16) for code in re.findall(r'"\\([0-9a-f]{2,5}) ?"', css)}
    return escaped | {ord(letter) for letter in css if 0xE000 <= ord(letter) <= 0xF8FF}


#: For the text: each style a font.
TEXT_FONTS = ("pagella-regular.woff2", "pagella-italic.woff2", "pagella-bold.woff2", "pagella-bolditalic.woff2")


def font(file: Path, characters: Iterable[int], features: list[str]) -> bytes:
    """A font with the glyphs of some characters, and what these are replaced by or built from."""
    options = subset.Options()
    options.flavor = "woff2"
    options.layout_features = features
    options.notdef_outline = True
    shown = TTFont(file, recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=characters)
    subsetter.subset(shown)
    buffer = io.BytesIO()
    shown.flavor = "woff2"
    shown.save(buffer)
    return buffer.getvalue()


class Fonts:
    """Fonts cut down by this build or the one before, under names that say from what: to cut one takes a while."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.used = folder, set[str]()

    def cut(self, file: Path, characters: Iterable[int], features: list[str]) -> bytes:
        """What ``font`` gives."""
        characters = sorted(characters)
        source = hashlib.sha256(file.read_bytes()).hexdigest()
        name = stamp(json.dumps([fontTools.version, source, characters, features]).encode()) + file.suffix
        self.used.add(name)
        kept = self.folder / name
        if not kept.is_file():
            replace(kept, font(file, characters, features))
        return kept.read_bytes()

    def forget_the_rest(self) -> None:
        """Remove what this build did not ask for."""
        for kept in self.folder.glob("*.woff2"):
            if kept.name not in self.used:
                kept.unlink(missing_ok=True)


def textual(texts: Iterable[str]) -> set[int]:
    """The characters of text: all of Latin 1, since explorers show what readers type, and what the texts hold."""
    found = set(range(0x20, 0x7F)) | set(range(0xA0, 0x100))
    for text in texts:
        found |= set(map(ord, html.unescape(text)))
    return found


def mathematical(texts: Iterable[str]) -> set[int]:
    """The characters of formulas: all of ASCII, what the texts hold, and every letter as a formula slants it."""
    found = set(range(0x20, 0x7F))
    for text in texts:
        found |= {
            ord(letter)
            for formula in re.findall(r"<math.*?</math>", text, re.DOTALL)
            for letter in html.unescape(formula)
        }
    # A single letter in <mi> is shown in italics, by a character of its own: Latin from U+1D434, Greek from U+1D6E2.
    found |= set(range(0x1D434, 0x1D468)) | {0x210E} | set(range(0x1D6E2, 0x1D71C))
    return found | {0x221A}  # the sign of a root stands in no text: the browser draws it for <msqrt>


def static_files(static: Path, sources: Path, texts: list[str], folder: Path) -> dict[str, str]:
    """Write the lighter style sheet and fonts; returns for each changed sheet the stamp that names its content.

    ``sources`` holds the fonts of the guide as they are, and ``folder`` keeps what is made of them for the next build.
    """
    scripts = [file.read_text(encoding="utf-8") for file in sorted((static / "scripts").glob("pydata*.js"))]
    names = {name for text in [*texts, *scripts] for name in re.findall(r"\bfa-[a-z0-9-]+", text)}
    css = icon_sheet((THEME / SHEET).read_text(encoding="utf-8"), names)
    used, fonts = icons(css), Fonts(folder)
    for original in sorted((THEME / ICON_FONTS).glob("*.woff2")):
        replace(static / ICON_FONTS / original.name, fonts.cut(original, used, []))
    replace(static / SHEET, css.encode("utf-8"))
    replace(static / MATH_FONT, fonts.cut(sources / MATH_FONT.name, mathematical(texts), ["*"]))
    written = textual([*texts, *(file.read_text(encoding="utf-8") for file in sorted(static.rglob("explorers/*.js")))])
    for name in TEXT_FONTS:
        replace(static / "fonts" / name, fonts.cut(sources / name, written, ["kern", "liga"]))
    fonts.forget_the_rest()
    return {SHEET.as_posix(): stamp(css.encode("utf-8"))}


def stamp(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def replace(file: Path, content: bytes) -> None:
    """Write a file unless it says so already, whole or not at all."""
    if file.is_file() and file.read_bytes() == content:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    beside.write_bytes(content)
    beside.replace(file)


# --- style sheets ----------------------------------------------------------------------------------------------------

#: All style sheets that every page has, one after the other: nothing is drawn before the last of them has come.
ALL_SHEETS = "all.css"
_SHEET_LINK = re.compile(
    r'[ \t]*<link(?=[^>]* rel="stylesheet")[^>]* href="(?P<root>[^"]*)_static/(?P<name>[^"?]+\.css)[^"]*"[^>]*>\n?'
)
_IMPORT = re.compile(r"""@import\s+(?:url\()?["']?(?P<name>[^"')]+\.css)["']?\)?\s*;""")
_URL = re.compile(r"""url\((?P<quote>["']?)(?!data:|#|/|[a-z]+:)(?P<path>[^"')]+)(?P=quote)\)""")
_LIST = re.compile(r"\A/\* (.*) \*/\n")


def sheets(static: Path, pages: Sequence[str]) -> list[str]:
    """The style sheets that every page has, in their order.

    A page that an earlier build has finished names only ``ALL_SHEETS``, whose first line then says what is in it.
    """
    lists = [[found["name"] for found in _SHEET_LINK.finditer(page)] for page in pages]
    before = _LIST.match((static / ALL_SHEETS).read_text(encoding="utf-8")) if (static / ALL_SHEETS).is_file() else None
    if before is not None and any(ALL_SHEETS in names for names in lists):
        return before[1].split()
    lists = [names for names in lists if names]  # a page that only leads to another has none
    return [name for name in lists[0] if all(name in names for names in lists)] if lists else []


def sheet(static: Path, name: str) -> str:
    """A style sheet as it reads in the folder ``static`` itself, with what it imports."""
    folder = posixpath.dirname(name)

    def place(path: str) -> str:
        return posixpath.normpath(posixpath.join(folder, path))

    text = (static / name).read_text(encoding="utf-8").removeprefix('@charset "UTF-8";')
    text = _URL.sub(lambda found: f'url("{place(found["path"])}")', text)
    return _IMPORT.sub(lambda found: sheet(static, place(found["name"])), text)


def joined_sheets(static: Path, names: Sequence[str]) -> str:
    """The sheets one after the other, and in the first line which they are."""
    return "\n".join([f"/* {' '.join(names)} */", *(sheet(static, name) for name in names)])


def with_one_sheet(text: str, names: Sequence[str]) -> str:
    """A page with one link in the place of the links to these sheets."""
    first = True

    def link(found: re.Match[str]) -> str:
        nonlocal first
        if found["name"] not in names:
            return found[0]
        there, first = first, False
        return f'    <link rel="stylesheet" href="{found["root"]}_static/{ALL_SHEETS}?v=" />\n' if there else ""

    return _SHEET_LINK.sub(link, text)


# --- pages -----------------------------------------------------------------------------------------------------------

_CUSTOM_ICONS = re.compile(r'[ \t]*<script\b[^>]*\bsrc="[^"]*scripts/fontawesome\.js[^"]*"></script>\n?')
_SEARCH = re.compile(
    r'[ \t]*<script\b[^>]*\bsrc="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\n?'
)


_HEAD_SCRIPT = re.compile(r'<script(?=[^>]* src="(?P<source>[^"]*)")(?![^>]* (?:defer|async|type="module"))')


_EARLY_SCRIPT = re.compile(r'[ \t]*<link rel="preload" as="script"[^>]*>\n?')


def deferred(text: str) -> str:
    """A page that is drawn before its scripts come and run: they keep their order, and still run before it is ready.

    The options stay, since the lines of script within the page set more of them.
    """
    return _HEAD_SCRIPT.sub(
        lambda found: found[0] + ("" if "documentation_options.js" in found["source"] else " defer"),
        _EARLY_SCRIPT.sub("", text),
    )


#: The theme's own line leaves a reader without a choice in no theme until its script has come: figures are then hidden,
#: and a dark screen flashes.
_LATE_THEME = 'document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'
_EARLY_THEME = (
    'document.documentElement.dataset.theme = { light: "light", dark: "dark" }[localStorage.getItem("mode")]'
    ' || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");'
)


def with_first_figure_early(text: str) -> str:
    """Home, whose first screen shows its first figure: in the light theme it is fetched and drawn with the text."""

    def early(image: re.Match[str]) -> str:
        return image[0].replace('loading="lazy" decoding="async"', 'fetchpriority="high" decoding="sync"')

    return re.sub(r'<img class="only-light [^>]*>', early, text, count=1)


_VERSION = re.compile(r"theme_switcher_version_match = '([^']+)'")
_CHOOSE = re.compile(r"Choose version\s*<!-- this text may get changed later by javascript -->")


def with_version(text: str) -> str:
    """A page whose menu of versions names its own from the start, and not, wider than a phone, when a list has come."""
    version = _VERSION.search(text)
    return _CHOOSE.sub(html.escape(version[1]), text) if version else text


def page(text: str, stamps: dict[str, str], joined: Sequence[str]) -> str:
    """A page that asks for one style sheet, for nothing it does not use, and for changed files by their new stamps."""
    if "fa-custom" not in text:
        text = _CUSTOM_ICONS.sub("", text)
    if 'id="search-results"' not in text and "search_as_you_type = true" not in text:
        text = _SEARCH.sub("", text)
    text = with_version(deferred(with_one_sheet(text.replace(_LATE_THEME, _EARLY_THEME), joined)))
    for name, changed in stamps.items():
        text = re.sub(rf"({re.escape(name)}\?)[\w=]*", rf"\g<1>v={changed}", text)
    return text
