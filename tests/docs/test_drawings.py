"""Every drawing of the guide this one grows out of has its figure, and every figure that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "develop" / "drawings.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w-]+)` \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
DRAWN = {
    name
    for script in (ROOT / "gallery").rglob("plot_*.py")
    for name in re.findall(r'plot\.figure\(\s*"([\w-]+)"', script.read_text(encoding="utf-8"))
}
GUIDE = [ROOT / "docs" / "index.md", *(ROOT / "docs" / "chapters").glob("*.md")]
SHOWN = {
    name
    for page in GUIDE
    for name in re.findall(r"^:{3,}\{gallery-figure\} ([\w-]+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
}


def test_all_drawings_are_listed_once():
    names = [name for name, _, _ in ROWS]
    assert len(names) == len(set(names)) == int(re.search(r"had (\d+) drawings", PAGE)[1])
    assert len(ROWS) == len(re.findall(r"^\| `", PAGE, re.MULTILINE)), "a row is not of the form of the others"


@pytest.mark.parametrize("row", ROWS, ids=[name for name, _, _ in ROWS])
def test_a_drawing_has_figures_that_exist_and_stand_on_a_page(row):
    _, _, cell = row
    linked = re.findall(r"\{ref\}`([\w-]+) <fig-([\w-]+)>`", cell)
    assert linked, "no figure is named"
    assert re.fullmatch(r"\{ref\}`[^`]+`(?:, \{ref\}`[^`]+`)*", cell), "something stands there that is not a link"
    for shown, target in linked:
        assert shown == target
        assert shown in DRAWN, f"no script of the gallery draws {shown}"
        assert shown in SHOWN, f"{shown} stands on no page of the guide"


def test_a_figure_that_is_not_drawn_is_noticed():
    """The search above finds the names of the gallery, and not just anything."""
    assert {"home-one-picture", "self-matrix"} <= DRAWN & SHOWN
    assert "self-matrices" not in DRAWN | SHOWN
