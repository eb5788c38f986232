"""The style sheet: its colours are those of the figures, and it is small."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fontTools.ttLib import TTFont

from attn_guide.plot import palette

LIBERATION = Path("/usr/share/fonts/truetype/liberation")
STATIC = Path(__file__).resolve().parents[2] / "docs" / "_static"
CSS = (STATIC / "guide.css").read_text(encoding="utf-8")


def variables(selector: str) -> dict[str, str]:
    """The --ag-* variables of the first rule with a selector."""
    rule = re.search(rf"^{re.escape(selector)} \{{(.*?)^\}}", CSS, re.MULTILINE | re.DOTALL)
    assert rule is not None
    return dict(re.findall(r"--ag-([\w-]+):\s*(#[0-9a-f]{6});", rule[1]))


LIGHT, DARK = variables("html"), variables('html[data-theme="dark"]')
INKS = {
    "query": palette.QUERY,
    "key": palette.KEY,
    "value": palette.VALUE,
    "scores": palette.SCORES,
    "weights": palette.WEIGHTS,
    "output": palette.OUTPUT,
    "ink": palette.INK,
    "muted": palette.MUTED,
    "grid": palette.GRID,
    "page": palette.BACKGROUND,
}


@pytest.mark.parametrize("name", INKS)
def test_a_word_has_the_colour_of_what_it_names_in_the_figures(name: str) -> None:
    assert LIGHT[name] == INKS[name]
    assert DARK[name] == palette.DARK[INKS[name]]


@pytest.mark.parametrize(("theme", "page"), [(LIGHT, "page"), (LIGHT, "raised"), (DARK, "page"), (DARK, "raised")])
def test_every_ink_can_be_read_on_every_ground(theme: dict[str, str], page: str) -> None:
    for name, colour in theme.items():
        if name not in ("grid", "page", "raised"):
            assert palette.contrast(colour, theme[page]) >= 4.5, name


@pytest.mark.parametrize(("name", "theme"), [("light", LIGHT), ("dark", DARK)])
def test_every_word_of_code_can_be_read(html: Path, name: str, theme: dict[str, str]) -> None:
    """On the ground of code, which is the raised one: each colour that the style sheet of code gives a word."""
    css = (html / "_static" / "pygments.css").read_text(encoding="utf-8")
    prefix = re.escape(f'html[data-theme="{name}"] .highlight')
    given = re.findall(rf"^{prefix} \.(\w+) \{{[^}}]*?(?<!-)color: (#[0-9a-fA-F]{{6}})", css, re.MULTILINE)
    assert len(given) > 40
    hard = {word: colour for word, colour in given if palette.contrast(colour, theme["raised"]) < 4.5}
    assert not hard


def test_both_themes_define_the_same_variables() -> None:
    assert LIGHT.keys() == DARK.keys()


def test_the_style_sheet_is_small() -> None:
    assert len(CSS) < 24_000


def test_the_math_font_can_set_mathematics_and_is_small() -> None:
    path = STATIC / "fonts" / "pagella-math.woff2"
    font = TTFont(path)
    assert "MATH" in font
    assert path.stat().st_size < 150_000
    needed = "𝑄𝐾𝑉𝑑𝑘𝜏𝜎𝐱ℝℒ𝒪∑∏√∞⊤∇∂≤≥≈∈×·⊙⌈⌉‖⏟→↦−…⋯"
    assert not [character for character in needed if ord(character) not in font.getBestCmap()]
    assert (STATIC / "fonts" / "GUST-FONT-LICENSE.txt").is_file()


@pytest.mark.parametrize("style", ["regular", "italic", "bold", "bolditalic"])
def test_what_stands_until_the_font_has_come_is_as_wide(style: str) -> None:
    """On the average of the letters of the chapters, so that few lines break elsewhere when the font comes."""
    stand_in = {
        "regular": "LiberationSerif-Regular.ttf",
        "italic": "LiberationSerif-Italic.ttf",
        "bold": "LiberationSerif-Bold.ttf",
        "bolditalic": "LiberationSerif-BoldItalic.ttf",
    }
    path = LIBERATION / stand_in[style]
    if not path.is_file():
        pytest.skip("the fonts of Liberation, as wide as Times, are not installed here")
    chapters = (STATIC.parent / "chapters").glob("*.md")
    letters = Counter(re.findall(r"[A-Za-z ,.]", "".join(page.read_text(encoding="utf-8") for page in chapters)))

    def width(file: Path) -> float:
        font = TTFont(file)
        glyphs, advances = font.getBestCmap(), font["hmtx"]
        total = sum(advances[glyphs[ord(letter)]][0] * count for letter, count in letters.items())
        return total / font["head"].unitsPerEm

    said = re.findall(r"Guide Until\"; src: [^}]*size-adjust: ([\d.]+)%", CSS)
    wanted = dict(zip(stand_in, map(float, said), strict=True))[style]
    assert abs(100 * width(STATIC / "fonts" / f"pagella-{style}.woff2") / width(path) - wanted) < 1


def test_every_figure_is_well_formed_and_has_all_that_it_names(html: Path) -> None:
    figures = sorted((html / "_images").glob("*.svg"))
    assert len(figures) > 100
    faults = []
    for path in figures:
        text = path.read_text(encoding="utf-8")
        named = {element.get("id") for element in ElementTree.fromstring(text).iter()}  # a bare & would raise
        wanted = {a or b for a, b in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text)}
        faults += [f"{path.name}: {name}" for name in sorted(wanted - named)]
    assert not faults
