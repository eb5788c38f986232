"""The comparison of figures with their baselines: what it must see, and what it must say."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attn_guide import plot
from attn_guide.plot.palette import DARK, INK, KEY, QUERY
from tools import figures
from tools.browser import HOW, find_chromium
from tools.figures import Fingerprint, compare, distance, main, read_baselines, write_baselines

WEIGHTS = np.array([[0.7, 0.2, 0.1], [0.31, 0.42, 0.27], [0.15, 0.25, 0.6]])


def picture(seed: int = 0, size: tuple[int, int] = (100, 60)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def fingerprint(seed: int = 0, size: tuple[int, int] = (100, 60)) -> Fingerprint:
    return Fingerprint.of(picture(seed, size), picture(seed + 1, size))


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """A matrix and a line with labels, drawn as the figures of the guide are."""
    plot.take()
    fig = plot.figure("planted-weights", title="A title", caption="Drawn by a test.", size=(6.4, 3.6))
    plot.describe(fig, "A figure that a test has drawn.")
    left, right = fig.subplots(1, 2)
    plot.matrix(left, WEIGHTS)
    right.plot([0, 1, 2], [0.2, 0.5, 0.3], color=QUERY)
    right.text(1.2, 0.25, "label")
    plot.save(fig, tmp_path / "gallery" / "images")
    plot.take()
    return tmp_path / "gallery"


def plant(gallery: Path, name: str, change: Callable[[str], str], theme: str = "") -> None:
    """Put a changed copy of the figure beside it."""
    images = gallery / "images"
    told = json.loads((images / "planted-weights.json").read_text())
    (images / f"{name}.json").write_text(json.dumps({**told, "name": name}))
    for ending in ("", "-dark"):
        svg = (images / f"planted-weights{ending}.svg").read_text()
        changed = change(svg) if ending == theme else svg
        assert (changed != svg) == (ending == theme)
        (images / f"{name}{ending}.svg").write_text(changed)


def moved_label(svg: str) -> str:
    return re.sub(r"<text[^>]*>label</text>", r'<g transform="translate(2.25 0)">\g<0></g>', svg)


PLANTS: dict[str, tuple[Callable[[str], str], str]] = {
    "digit": (lambda svg: svg.replace(">0.25<", ">0.27<", 1), ""),
    "label": (moved_label, ""),  # by 3 pixels
    "ink": (lambda svg: svg.replace(f"stroke: {QUERY}", f"stroke: {KEY}"), ""),
    "page": (lambda svg: svg.replace(DARK[INK], INK), "-dark"),  # letters of the light page on the dark one
}


@pytest.mark.browser
def test_every_planted_change_is_seen_and_nothing_else(
    gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_chromium() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW)
    for name, (change, theme) in PLANTS.items():
        plant(gallery, name, change, theme)
    baselines, sheet = tmp_path / "figures.json", tmp_path / "moved.png"
    places = ["--gallery", str(gallery), "--baselines", str(baselines), "--sheet", str(sheet)]
    assert main([*places, "--accept"]) == 0
    kept = json.loads(baselines.read_text())
    baselines.write_text(json.dumps(dict.fromkeys(kept, kept["planted-weights"])))  # as if each were unchanged
    capsys.readouterr()
    assert main(places) == 1
    said = capsys.readouterr().out
    assert re.findall(r"^(\S+): moved, distance \d+$", said, re.MULTILINE) == sorted(PLANTS)
    assert "5 figures, 4 not as they were" in said
    assert Image.open(sheet).height > 4 * 300
    (gallery / "images" / "digit.svg").write_text("<svg")
    assert main(places) == 1
    assert "digit.svg cannot be drawn" in capsys.readouterr().err


def test_a_fingerprint_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    wanted = {"b": fingerprint(), "a": fingerprint(5, (31, 7))}
    write_baselines(path, wanted)
    found = read_baselines(path)
    assert list(found) == ["a", "b"]
    for name in wanted:
        assert distance(found[name], wanted[name]) == 0
    assert compare(found, wanted) == {}


@pytest.mark.parametrize(("levels", "seen"), [(figures.TOLERANCE, False), (figures.TOLERANCE + 1, True)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_change_beyond_the_tolerance_is_seen_in_either_theme(levels: int, seen: bool, theme: str) -> None:
    calm = Image.new("RGB", (96, 72), "#646464")
    changed = calm.copy()
    changed.paste((100, 100, 100 + levels), (24, 24, 48, 48))  # one cell, blue alone
    other = Fingerprint.of(changed, calm) if theme == "light" else Fingerprint.of(calm, changed)
    wanted = {"x": Fingerprint.of(calm, calm)}
    assert compare({"x": other}, wanted) == ({"x": levels} if seen else {})


def test_a_change_of_a_few_pixels_is_not_lost_in_a_large_figure() -> None:
    calm = Image.new("RGB", (960, 720), "#ffffff")
    changed = calm.copy()
    changed.paste((0, 0, 0), (400, 400, 402, 401))  # 2 of the 64 pixels of a cell
    assert distance(Fingerprint.of(changed, calm), Fingerprint.of(calm, calm)) == 8


def test_new_figures_and_lost_ones_and_other_sizes_are_told() -> None:
    built = {"a": fingerprint(), "new": fingerprint(), "wide": fingerprint(0, (101, 60))}
    wanted = {"a": fingerprint(), "gone": fingerprint(), "wide": fingerprint()}
    assert compare(built, wanted) == {"gone": "gone", "new": "new", "wide": 255}


def test_the_sheet_frames_what_moved() -> None:
    calm = Image.new("RGB", (96, 72), "#ffffff")
    changed = calm.copy()
    changed.paste((0, 0, 0), (48, 24, 56, 32))
    both = figures.marked(changed, Fingerprint.of(changed, calm), Fingerprint.of(calm, calm))
    assert both.size == (96 + 8 + 96, 72)
    assert both.getpixel((96 + 8 + 48, 24)) == (224, 0, 0)
    assert both.getpixel((96 + 8 + 4, 4)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing; accept"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"a": 3}', "is damaged"),
        ('{"a": {"size": [8, 8], "grey": "AA", "light": "", "dark": ""}}', "is damaged"),
    ],
)
def test_baselines_that_cannot_be_read_are_named(
    tmp_path: Path, content: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.json").write_text('{"name": "a", "width": 8, "height": 8}')
    for name in ("a.svg", "a-dark.svg"):
        (tmp_path / "images" / name).write_text("<svg/>")
    path = tmp_path / "figures.json"
    if content is not None:
        path.write_text(content)
    assert main(["--gallery", str(tmp_path), "--baselines", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {path} ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_a_gallery_that_is_not_built_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gallery", str(tmp_path)]) == 1
    assert "make html" in capsys.readouterr().err
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.json").write_text('{"name": "a", "width": 8, "height": 8}')
    assert main(["--gallery", str(tmp_path)]) == 1
    assert "a.svg is missing" in capsys.readouterr().err


def test_the_baselines_in_the_repository_can_be_read() -> None:
    kept = read_baselines(figures.BASELINES)
    blank = [name for name, one in kept.items() if not one.grey.any()]
    timed = [
        name
        for script in (figures.ROOT / "gallery").rglob("plot_*.py")
        if any(clock in (text := script.read_text(encoding="utf-8")) for clock in figures.CLOCKS)
        for name in kept
        if f'"{name}"' in text
    ]
    assert set(blank) <= set(timed)  # a figure that shows no times is compared
    assert len(kept) > 100


def test_of_a_figure_of_time_only_the_size_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = itertools.count()

    def draw(found: list[figures.Figure], chromium: str) -> Iterator[tuple[figures.Figure, Image.Image, Image.Image]]:
        """Draw other pictures each time."""
        for figure in found:
            yield figure, picture(next(seeds), figure.size), picture(next(seeds), figure.size)

    monkeypatch.setattr(figures, "draw", draw)
    monkeypatch.setattr(figures, "find_chromium", lambda: "chromium")
    script, sidecar = tmp_path / "plot_time.py", tmp_path / "images" / "a.json"
    sidecar.parent.mkdir()
    for name in ("a.svg", "a-dark.svg"):
        sidecar.with_name(name).write_text("<svg/>")

    def compared(width: int, code: str) -> int:
        script.write_text(f"import time\n{code}\n")
        sidecar.write_text(json.dumps({"name": "a", "width": width, "height": 50, "script": "gallery/plot_time.py"}))
        capsys.readouterr()
        return main(places)

    places = ["--gallery", str(tmp_path), "--baselines", str(tmp_path / "f.json"), "--sheet", str(tmp_path / "s.png")]
    places.append("--accept")
    assert compared(80, "start = time.process_time()") == 0
    places.remove("--accept")
    assert compared(80, "start = time.process_time()") == 0
    assert "of 1 that show times" in capsys.readouterr().out
    assert compared(81, "start = time.process_time()") == 1
    assert "a: moved, distance 255" in capsys.readouterr().out
    assert compared(80, "start = 0") == 1
