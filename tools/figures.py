"""Compare the built figures with what they looked like when someone last looked: ``python -m tools.figures``.

    python -m tools.figures             exits with 1 if a figure has moved, is new or is gone; what moved, and where,
                                        is shown in _build/figures/moved.png
    python -m tools.figures --accept    take the figures as they are now as what is wanted: tests/figures.json

Chromium draws each figure as a page shows it, light and dark, at its own size. Its fingerprint is the mean grey of each
cell of 8 x 8 pixels on a light page, and the mean colour of each cell of 24 x 24 pixels on both. The distance of two
figures is the largest difference of a cell, in levels of 0 to 255; where the size differs, it is 255.

The tolerance, 2, comes from measurements on all figures of the guide. The same files drawn twice are 0 apart, and so
are two builds hours apart, but for the figures of time; under other flags for hinting, placing and blending letters
they are at most 1 apart. Changes planted in each figure, one at random of each kind: another last digit of a number was
5 or more away, and seen in all 88 figures that have numbers; a label moved by 3 pixels was seen in 132 of 133. Of
334 elements drawn in another ink, so that a pixel changed at all, 315 were seen; the other 19 changed fewer than 80
pixels, faintly. A graphics card draws with differences of up to 30, as many as another digit makes: so none is used.

A figure whose script reads a clock is another in each build. Of such a figure only the size is compared, and whether it
can be drawn.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import io
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from attn_guide.plot.palette import BACKGROUND, DARK

from .browser import HOW, find_chromium

ROOT = Path(__file__).resolve().parent.parent
BASELINES = ROOT / "tests" / "figures.json"
SHEET = ROOT / "_build" / "figures" / "moved.png"

TOLERANCE = 2
FINE, COARSE = 8, 24
#: What the script of a figure of time calls.
CLOCKS = ("process_time(", "perf_counter(", "monotonic(")

#: The processor draws, without a graphics card, hinting or the colours of sub-pixels, so that machines agree.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--font-render-hinting=none",
    "--disable-lcd-text", "--force-color-profile=srgb",
)  # fmt: skip
SHOW = """async ([address, background]) => {
  const image = new Image();
  image.src = address;
  image.style.display = "block";
  document.body.style.cssText = `margin: 0; background: ${background}`;
  document.body.replaceChildren(image);
  await image.decode();
}"""


class FiguresError(RuntimeError):
    """Figures or baselines that cannot be compared, and why."""


@dataclass(frozen=True)
class Figure:
    """A figure as it is built: its name, its size in pixels, its two files, and whether it shows measured times."""

    name: str
    size: tuple[int, int]
    light: Path
    dark: Path
    timed: bool = False


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a figure: its size, and cells of its pictures as uint8."""

    size: tuple[int, int]
    grey: np.ndarray  # (rows, columns)
    light: np.ndarray  # (rows, columns, 3)
    dark: np.ndarray  # (rows, columns, 3)

    @classmethod
    def of(cls, light: Image.Image, dark: Image.Image) -> Fingerprint:
        """Take the fingerprint of two pictures."""
        return cls(light.size, _cells(light.convert("L"), FINE), _cells(light, COARSE), _cells(dark, COARSE))

    def packed(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"size": list(self.size)} | {kind: _pack(getattr(self, kind)) for kind in ("grey", "light", "dark")}

    @classmethod
    def unpacked(cls, told: Mapping[str, Any]) -> Fingerprint:
        """Read what ``packed`` gave; raises ValueError, KeyError or TypeError if it is something else."""
        width, height = told["size"]
        grids = (_grid((width, height), FINE), *2 * [(*_grid((width, height), COARSE), 3)])
        return cls((width, height), *map(_unpack, (told["grey"], told["light"], told["dark"]), grids))


def _grid(size: tuple[int, int], cell: int) -> tuple[int, int]:
    """Rows and columns."""
    return max(1, round(size[1] / cell)), max(1, round(size[0] / cell))


def _cells(picture: Image.Image, cell: int) -> np.ndarray:
    return np.asarray(picture.resize(_grid(picture.size, cell)[::-1], Image.Resampling.BOX))


def _pack(cells: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(_turned(cells, -1).tobytes(), 9)).decode()


def _unpack(text: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        cells = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(str(error)) from None
    return _turned(cells.reshape(shape), 1)


def _turned(cells: np.ndarray, sign: int) -> np.ndarray:
    """Red and blue less green, or the other way: most cells are grey, and zeros pack well."""
    if cells.ndim == 2:
        return cells
    turned = cells.copy()
    turned[..., ::2] += np.uint8(sign % 256) * cells[..., 1:2]
    return turned


def distance(one: Fingerprint, other: Fingerprint) -> int:
    """Return how far two figures are apart: 0 for the same picture, 255 for two sizes."""
    if one.size != other.size:
        return 255
    return max(int(_apart(getattr(one, kind), getattr(other, kind)).max()) for kind in ("grey", "light", "dark"))


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(np.int16) - other)


def find_figures(folder: Path) -> list[Figure]:
    """Return the figures of a built gallery, by name.

    Raises
    ------
    FiguresError
        If there is none, or one lacks a file.
    """
    found = []
    for sidecar in folder.rglob("images/*.json"):
        try:
            told = json.loads(sidecar.read_text(encoding="utf-8"))
            name, size = told["name"], (int(told["width"]), int(told["height"]))
        except (ValueError, KeyError, TypeError):
            raise FiguresError(f"{sidecar} is damaged; remove it and build again: make html") from None
        script = sidecar.parent.parent / Path(told.get("script", "")).name  # the copy that readers download
        timed = script.is_file() and any(clock in script.read_text(encoding="utf-8") for clock in CLOCKS)
        dark = sidecar.with_name(f"{sidecar.stem}-dark.svg")
        figure = Figure(name, size, sidecar.with_suffix(".svg"), dark, timed)
        for file in (figure.light, figure.dark):
            if not file.is_file():
                raise FiguresError(f"{file} is missing; build again: make html")
        found.append(figure)
    if not found:
        raise FiguresError(f"no figures in {folder}; build them first: make html")
    return sorted(found, key=lambda figure: figure.name)


def draw(figures: list[Figure], chromium: str) -> Iterator[tuple[Figure, Image.Image, Image.Image]]:
    """Let Chromium draw each figure, on a light and on a dark page.

    Raises
    ------
    FiguresError
        If one is no picture.
    """
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        page = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS)).new_page()
        blank = Path(folder) / "blank.html"  # a page off the disk may show pictures off the disk
        blank.write_text("<!doctype html><title>figure</title>", encoding="utf-8")
        page.goto(blank.as_uri())
        for figure in figures:
            page.set_viewport_size({"width": figure.size[0], "height": figure.size[1]})
            pictures: list[Image.Image] = []
            for file, background in ((figure.light, BACKGROUND), (figure.dark, DARK[BACKGROUND])):
                try:
                    page.evaluate(SHOW, [file.resolve().as_uri(), background])
                except Error as error:
                    raise FiguresError(f"{file} cannot be drawn: {error.message.splitlines()[0]}") from None
                pictures.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
            yield figure, pictures[0], pictures[1]


def read_baselines(path: Path) -> dict[str, Fingerprint]:
    """Read the fingerprints that were accepted.

    Raises
    ------
    FiguresError
        If there are none, or the file is damaged.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {name: Fingerprint.unpacked(one) for name, one in told.items()}
    except FileNotFoundError:
        raise FiguresError(f"{path} is missing; accept the figures as they are: make figures ACCEPT=1") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FiguresError(f"{path} is damaged ({error}); take it from the last commit again") from None


def write_baselines(path: Path, fingerprints: Mapping[str, Fingerprint]) -> None:
    """Write the fingerprints, a line for each part of a figure, so that a change shows which figures it is about."""
    told = {name: fingerprints[name].packed() for name in sorted(fingerprints)}
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def compare(built: Mapping[str, Fingerprint], wanted: Mapping[str, Fingerprint]) -> dict[str, int | str]:
    """Return what is not as it was: for each such figure its distance, or ``"new"``, or ``"gone"``."""
    found: dict[str, int | str] = {}
    for name in sorted(built.keys() | wanted.keys()):
        if name not in wanted or name not in built:
            found[name] = "new" if name in built else "gone"
        elif (apart := distance(built[name], wanted[name])) > TOLERANCE:
            found[name] = apart
    return found


def marked(picture: Image.Image, is_now: Fingerprint, was: Fingerprint) -> Image.Image:
    """Return a figure as it was, from what is kept of it, beside how it is, with a frame around what moved."""
    before = Image.fromarray(was.grey).resize(was.size, Image.Resampling.NEAREST).convert("RGB")
    after = picture.copy()
    pen = ImageDraw.Draw(after)
    if is_now.size == was.size:
        for kind in ("grey", "light", "dark"):
            moved = _apart(getattr(is_now, kind), getattr(was, kind))
            moved = moved if moved.ndim == 2 else moved.max(axis=-1)
            wide, high = picture.width / moved.shape[1], picture.height / moved.shape[0]
            for row, column in np.argwhere(moved > TOLERANCE):
                pen.rectangle(
                    (column * wide, row * high, (column + 1) * wide - 1, (row + 1) * high - 1), outline="#e00000"
                )
    both = Image.new("RGB", (before.width + after.width + 8, max(before.height, after.height)), "#808080")
    both.paste(before, (0, 0))
    both.paste(after, (before.width + 8, 0))
    return both


def write_sheet(path: Path, rows: list[tuple[str, Image.Image]]) -> None:
    """Write the pictures below one another, each with its title."""
    sheet = Image.new("RGB", (max(row.width for _, row in rows), sum(row.height + 24 for _, row in rows)), "#ffffff")
    top = 0
    for title, row in rows:
        ImageDraw.Draw(sheet).text((4, top + 5), title, fill="#000000")
        sheet.paste(row, (0, top + 24))
        top += row.height + 24
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _run(folder: Path, baselines: Path, sheet: Path, accept: bool) -> int:
    figures = find_figures(folder)
    known = {} if accept and not baselines.exists() else read_baselines(baselines)
    chromium = find_chromium()
    if chromium is None:
        raise FiguresError(HOW.removeprefix("error: "))
    built: dict[str, Fingerprint] = {}
    rows = []
    for figure, light, dark in draw(figures, chromium):
        if figure.timed:
            light = dark = Image.new("RGB", light.size)
        now = built[figure.name] = Fingerprint.of(light, dark)
        was = known.get(figure.name)
        if was is not None and (apart := distance(now, was)) > TOLERANCE and not accept:
            rows.append((f"{figure.name}: distance {apart}; before (kept in grey), and now", marked(light, now, was)))
    moved = compare(built, known) if known else {}
    for name, how in moved.items():
        print(f"{name}: {how if isinstance(how, str) else f'moved, distance {how}'}")
    if accept:
        write_baselines(baselines, built)
        print(f"{len(built)} figures accepted, {len(moved)} of them not as they were: {baselines}")
        return 0
    timed = sum(figure.timed for figure in figures)
    print(f"{len(built)} figures, {len(moved)} not as they were (tolerance {TOLERANCE} of 255)")
    print(f"  of {timed} that show times measured in this build, only the size was compared")
    sheet.unlink(missing_ok=True)
    if rows:
        write_sheet(sheet, rows)
        print(f"  Look at {sheet}")
    if moved:
        print("  If that is what is wanted: make figures ACCEPT=1, and commit tests/figures.json")
    return 1 if moved else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 1 if a figure moved or none can be compared."""
    parser = argparse.ArgumentParser(prog="python -m tools.figures", description="Compare the figures with baselines.")
    parser.add_argument("--accept", action="store_true", help="take the figures as they are as what is wanted")
    parser.add_argument("--gallery", type=Path, default=ROOT / "docs" / "gallery", help="where they were built")
    parser.add_argument("--baselines", type=Path, default=BASELINES, help="tests/figures.json unless given")
    parser.add_argument("--sheet", type=Path, default=SHEET, help="where to show what moved")
    told = parser.parse_args(arguments)
    try:
        return _run(told.gallery, told.baselines, told.sheet, told.accept)
    except (FiguresError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
