"""What is made for hosts, search engines and browsers, from small inputs; tests/site looks at the built site."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import numpy as np
import pytest
from docutils.core import publish_doctree
from fontTools.ttLib import TTFont
from guide_ext import hosting, slim
from PIL import Image

from attn_guide import plot
from tools import versions

ROOT = Path(__file__).resolve().parents[2]

# --- the sitemap -----------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two files, one of them changed in a second commit on a later day."""
    root = tmp_path / "repository"
    root.mkdir()
    commit(root, "2024-03-01", {"docs/a.md": "1", "docs/é.md": "1"})
    commit(root, "2024-05-02", {"docs/a.md": "2"})
    return root


def commit(root: Path, day: str, files: dict[str, str]) -> None:
    who = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {f"GIT_{role}_DATE": f"{day}T12:00:00Z" for role in ("AUTHOR", "COMMITTER")}
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x", "--no-gpg-sign"]):
        subprocess.run(["git", "-C", root, *command], check=True, env={**os.environ, **who, **dates})


def test_a_file_has_the_day_of_its_last_commit(repository: Path) -> None:
    assert hosting.last_changes(repository) == {"docs/a.md": "2024-05-02", "docs/é.md": "2024-03-01"}
    assert hosting.last_changes(repository / "docs") == {"a.md": "2024-05-02", "é.md": "2024-03-01"}


def test_half_a_history_gives_no_days(repository: Path, tmp_path: Path) -> None:
    """In a shallow clone every file would seem to have changed in the first commit that is there."""
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{repository}", shallow], check=True)
    assert hosting.last_changes(shallow) == {}


def test_without_git_there_are_no_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hosting.last_changes(tmp_path) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hosting.last_changes(ROOT) == {}


def test_the_sitemap_is_a_sitemap() -> None:
    root = ET.fromstring(hosting.sitemap("https://x.org/b/", [("a&b.html", "2024-05-02"), ("c.html", None)]))
    space = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
    assert [[part.tag.removeprefix(space) for part in url] for url in root] == [["loc", "lastmod"], ["loc"]]
    assert root[0][0].text == "https://x.org/b/a&b.html"
    assert root[0][1].text == "2024-05-02"


# --- pages -----------------------------------------------------------------------------------------------------------


def test_the_opening_is_running_text() -> None:
    page = "Title\n=====\n\n.. note:: Not this.\n\nAbout 3.5 of\nthese, e.g. here. A second. A third.\n\nMore.\n"
    assert hosting.opening(publish_doctree(page)) == "About 3.5 of these, e.g. here. A second."
    assert hosting.opening(publish_doctree("Title\n=====\n")) == ""


def test_a_redirect_leads_on_in_three_ways() -> None:
    page = hosting.redirect("A & B", "../b.html", "https://x.org/b.html")
    assert '<meta http-equiv="refresh" content="0; url=../b.html" />' in page
    assert '<link rel="canonical" href="https://x.org/b.html" />' in page
    assert '<a href="../b.html">A &amp; B</a>' in page
    assert '<link rel="icon" href="data:," />' in page


def test_a_figure_of_the_gallery_has_the_card_of_its_chapter() -> None:
    assert hosting.card_of("gallery/4_causal/plot_steps") == "chapters/4-causal"
    assert hosting.card_of("chapters/2-cross-attention") == "chapters/2-cross-attention"
    assert hosting.card_of("gallery/home/plot_timeline") == hosting.card_of("api/index") == "index"


def test_a_card_shows_the_title_and_the_figure(tmp_path: Path) -> None:
    script = tmp_path / "plot_red.py"
    script.write_text(
        "from attn_guide import plot\n"
        'fig = plot.figure("test-red", title="Red", caption="Red.", size=(4, 3))\n'
        "ax = fig.subplots()\n"
        'ax.fill_between([0, 1], 0, 1, color="#ff0000")\n'
        'plot.describe(fig, "A square that is red from edge to edge.")\n'
    )
    card, again = (hosting.draw_card("Chapter 9: Colours", "The guide", "test-red", script) for _ in range(2))
    assert card == again
    assert plot.take() == []
    picture = np.asarray(Image.open(io.BytesIO(card)).convert("RGB")).astype(int)
    assert picture.shape == (630, 1200, 3)
    red = (picture[..., 0] > 240) & (picture[..., 1:] < 15).all(axis=-1)
    assert red[:, 560:].mean() > 0.3
    assert not red[:, :520].any()
    ink = np.abs(picture - picture[0, 0]).sum(axis=-1) > 300
    assert ink[150:450, 40:520].sum() > 3000  # the title
    assert not ink[:, :35].any()
    assert not ink[:25].any()


def test_the_menu_of_versions_stays_on_its_host() -> None:
    entries = [{"version": "2", "url": "./"}, {"version": "1", "url": "1/"}]
    made = json.loads(hosting.switcher(entries, "https://x.org/guide/"))
    assert [entry["url"] for entry in made] == ["/guide/", "/guide/1/"]


def test_the_menu_of_versions_knows_the_version() -> None:
    import attn_guide

    (entry,) = json.loads((ROOT / "docs" / "_static" / "switcher.json").read_text(encoding="utf-8"))
    assert entry["version"] == attn_guide.__version__
    assert f"version: {attn_guide.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()


# --- versions --------------------------------------------------------------------------------------------------------


def test_versions_are_put_together(tmp_path: Path) -> None:
    newest, releases, out = tmp_path / "html", tmp_path / "releases", tmp_path / "pages"
    (newest / "_static").mkdir(parents=True)
    (newest / "index.html").write_text("newest")
    entries = [{"name": "0.10.0", "version": "0.10.0", "url": "/guide/"}]
    (newest / "_static" / "switcher.json").write_text(json.dumps(entries))
    releases.mkdir()
    for version in ("0.2.0", "0.9.1", "0.10.0"):
        with zipfile.ZipFile(releases / f"site-{version}.zip", "w") as packed:
            packed.writestr("index.html", version)
            packed.writestr("_static/switcher.json", "[]")
    listed = versions.assemble(newest, releases, out)
    assert [entry["version"] for entry in listed] == ["0.10.0", "0.9.1", "0.2.0"]
    assert [entry["url"] for entry in listed] == ["/guide/", "/guide/0.9.1/", "/guide/0.2.0/"]
    assert [entry.get("preferred", False) for entry in listed] == [True, False, False]
    assert (out / "index.html").read_text() == "newest"
    assert (out / "0.9.1" / "index.html").read_text() == "0.9.1"
    assert not (out / "0.10.0").exists()
    for place in (out, out / "0.9.1", out / "0.2.0"):
        assert json.loads((place / "_static" / "switcher.json").read_text()) == listed
    with pytest.raises(SystemExit, match="exists"):
        versions.assemble(newest, releases, out)


# --- the policy ------------------------------------------------------------------------------------------------------


def test_a_hash_is_the_one_of_the_specification() -> None:
    """The example of Content Security Policy Level 3, section 8.4 ("Usage of 'unsafe-hashes'" and hash sources)."""
    scripts, _ = hosting.hashes("<script>alert('Hello, world.');</script>")
    assert scripts == {"'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"}


PAGE = """<html><head>
    <meta charset="utf-8" />
    <script>let a = 1;</script><script src="a.js"></script><style>p { color: red }</style>
  </head><body><td style="width: 33%; font-family: &quot;A&quot;">x</td></body></html>
"""


def test_a_policy_allows_what_the_page_has_and_nothing_else() -> None:
    page = hosting.protected(PAGE)
    assert hosting.protected(page) == page
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert page.index("Content-Security-Policy") < page.index("<script")
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy[1].replace("&#x27;", "'").split(";")}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'self'"]
    assert rules["object-src"] == ["'none'"]
    assert rules["script-src"] == ["'self'", hosting._hash("let a = 1;")]
    expected = sorted([hosting._hash("p { color: red }"), hosting._hash('width: 33%; font-family: "A"')])
    assert rules["style-src"] == ["'self'", "'unsafe-hashes'", *expected]


def test_another_script_gets_another_policy() -> None:
    page = hosting.protected(PAGE)
    changed = hosting.protected(page.replace("let a = 1;", "let a = 2;"))
    assert changed.count("Content-Security-Policy") == 1
    assert hosting._hash("let a = 1;").strip("'") not in changed


def test_the_header_allows_what_any_page_needs() -> None:
    text = hosting.headers([PAGE, "<script>let b = 1;</script>"])
    assert text.startswith("/*\n  Content-Security-Policy: default-src 'self'; ")
    for script in ("let a = 1;", "let b = 1;"):
        assert hosting._hash(script) in text
    assert "frame-ancestors 'none'" in text


# --- weight ----------------------------------------------------------------------------------------------------------


def svg_of(tmp_path: Path, kind: str) -> tuple[str, np.ndarray]:
    """A figure as the gallery writes it, with a matrix of 30 by 20 random cells."""
    values = np.random.default_rng(0).random((30, 20))
    fig = plot.figure("test-slim", title="Slim", caption="Slim.", size=(4.8, 5))
    ax = fig.subplots()
    if kind == "mask":
        plot.matrix(ax, values < 0.5, kind="mask")
    else:
        plot.matrix(ax, values, kind="scores", annotate=False)
    plot.describe(fig, "A matrix of thirty by twenty random values.")
    light, _ = plot.save(fig, tmp_path)
    plot.take()
    return light.read_text(encoding="utf-8"), values


def cells(svg: str) -> dict[tuple[int, int], str]:
    """The colour at each corner of a cell, to the nearest quarter of a point."""
    mesh = re.search(r'<g id="QuadMesh_1">(.*?)</g>', svg, re.DOTALL)
    assert mesh is not None
    found = {}
    for path, ink in re.findall(r'<path d="([^"]*)"[^>]*style="fill: (#\w{6})', mesh[1]):
        for x, y in re.findall(r"M ?(\S+) ([\d.]+)", path):
            found[round(4 * float(x)), round(4 * float(y))] = ink
    return found


def test_a_figure_loses_bytes_and_no_cell(tmp_path: Path) -> None:
    svg, values = svg_of(tmp_path, "mask")
    short = slim.drawing(svg)
    assert len(short) < 0.5 * len(svg)
    assert len(gzip.compress(short.encode())) < 0.8 * len(gzip.compress(svg.encode()))
    assert len(cells(svg)) == (values < 0.5).sum()
    assert cells(short) == cells(svg)
    ET.fromstring(short)


def test_a_figure_keeps_its_texts_and_fonts(tmp_path: Path) -> None:
    svg, _ = svg_of(tmp_path, "scores")
    short = slim.drawing(svg)
    for part in (r"<title.*?</title>", r"<desc.*?</desc>", r">([^<>]*)</text>", r"font-weight:\d+;"):
        assert set(re.findall(part, svg)) <= set(re.findall(part, short)), part

    def fonts(text: str) -> list[TTFont]:
        return [TTFont(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"font/\w+;base64,([^)]+)\)", text)]

    assert len(fonts(short)) == len(fonts(svg)) > 0
    for before, after in zip(fonts(svg), fonts(short), strict=True):
        assert (before.flavor, after.flavor) == ("woff", "woff2")
        assert after.getBestCmap() == before.getBestCmap()
        for name in before.getGlyphOrder():
            assert (
                after["glyf"][name].getCoordinates(after["glyf"])[0]
                == before["glyf"][name].getCoordinates(before["glyf"])[0]
            )


def test_many_cells_without_gaps_become_a_picture_of_the_same_colours(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((40, 50))
    fig = plot.figure("test-picture", title="Picture", caption="Picture.", size=(4, 3.4))
    plot.matrix(fig.subplots(), values, kind="values", annotate=False)
    plot.describe(fig, "A matrix of forty by fifty random values.")
    svg = plot.save(fig, tmp_path)[0].read_text(encoding="utf-8")
    plot.take()
    short = slim.drawing(svg)
    image = re.search(r'<image x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)" .*?base64,([^"]+)"', short)
    assert image is not None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image[5]))).convert("RGBA"))
    assert pixels.shape == (40, 50, 4)
    assert (pixels[..., 3] == 255).all()
    x, y, width, height = (float(image[part]) for part in (1, 2, 3, 4))
    before = cells(svg)
    assert len(before) == values.size
    for (left, top), ink in before.items():
        column, row = round((left / 4 - x) / (width / 50)), round((top / 4 - y) / (height / 40))
        assert pixels[row, column, :3].tobytes().hex() == ink[1:]
    assert len(short) < 0.1 * len(svg)


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("M 1 2 \nL 3 2 \nL 3 4 \nL 1 2 \nz\n", "M1 2H3V4L1 2z"),
        ("M 1 2 \nC 3 2 5 6 7 8 \nL 7 9 \nL 6 9 \n", "M1 2C 3 2 5 6 7 8L7 9H6"),
        ("M 1 2 \nL 3 2 \nM 3 5 \nL 3 6 \n", "M1 2H3M3 5V6"),
    ],
)
def test_an_outline_is_the_same_with_fewer_letters(path: str, short: str) -> None:
    assert slim._outline(path) == short


def test_numbers_are_rounded_to_a_hundredth_of_a_point() -> None:
    assert (
        slim._NUMBER.sub(slim._rounded, "M -0.001234 12.345678 L 1e-05 7 L 0.5 -3.996")
        == "M 0 12.35 L 1e-05 7 L 0.5 -4"
    )


def test_the_icon_fonts_keep_what_is_used() -> None:
    css = '.fa-a,.fa-b{--fa:"\\f002"}.fa-c{--fa:"\\f003"}.x{--pst-icon:"\\f019"}'
    kept = slim.icon_sheet(css, ["fa-b"])
    assert kept == '.fa-a,.fa-b{--fa:"\\f002"}.x{--pst-icon:"\\f019"}'
    used = slim.icons(kept)
    assert used == {0xF002, 0xF019}
    whole = slim.THEME / slim.ICON_FONTS / "fa-solid-900.woff2"
    short = slim.font(whole, used, [])
    assert set(TTFont(io.BytesIO(short)).getBestCmap()) == used
    assert len(short) < 0.05 * whole.stat().st_size
    assert short == slim.font(whole, used, [])


def test_the_font_for_formulas_keeps_letters_as_they_are_slanted_and_brackets_of_every_size(tmp_path: Path) -> None:
    original = ROOT / "docs" / "_static" / slim.MATH_FONT
    used = slim.mathematical(["<math><mi>q</mi><msqrt><mn>2</mn></msqrt></math> not in a formula: ∮"])
    short = TTFont(io.BytesIO(slim.font(original, used, ["*"])))
    for letter in "q√(1":
        assert ord(letter) in short.getBestCmap()
    assert 0x1D45E in short.getBestCmap()  # q as <mi> shows it
    assert ord("∮") not in short.getBestCmap()
    whole = TTFont(original)

    def sizes(font: TTFont, letter: str) -> int:
        table = font["MATH"].table.MathVariants
        name = font.getBestCmap()[ord(letter)]
        return len(table.VertGlyphConstruction[table.VertGlyphCoverage.glyphs.index(name)].MathGlyphVariantRecord)

    for letter in "(√":
        assert sizes(short, letter) == sizes(whole, letter) > 1


def test_a_page_asks_for_no_script_that_it_does_not_use() -> None:
    scripts = {
        "icons": '<script defer src="../_static/scripts/fontawesome.js?digest=1"></script>\n',
        "search": '<script defer src="../searchindex.js"></script>\n'
        '<script defer src="_static/language_data.js"></script>\n',
        "own": '<script defer src="_static/guide.js?v=1"></script>\n',
    }
    text = "".join(scripts.values()) + '<link href="_static/styles/pydata-sphinx-theme.css?digest=75c7" />'
    light = slim.page(text, {"styles/pydata-sphinx-theme.css": "abc"}, [])
    assert light == scripts["own"] + '<link href="_static/styles/pydata-sphinx-theme.css?v=abc" />'
    assert slim.page(light, {"styles/pydata-sphinx-theme.css": "abc"}, []) == light
    assert scripts["search"] in slim.page(text + '<div id="search-results">', {}, [])
    assert scripts["icons"] in slim.page(text + '<i class="fa-custom">', {}, [])


def test_a_page_is_drawn_before_its_scripts_run() -> None:
    late = "<script{} src='a.js'></script>".replace("'", '"')
    assert slim.page(late.format(""), {}, []) == late.format(" defer")
    stay = [late.format(word) for word in (" defer", ' defer="defer"', " async", ' type="module"')]
    stay += [
        '<script src="_static/documentation_options.js?v=1"></script>',
        "<script>DOCUMENTATION_OPTIONS.a = 1;</script>",
    ]
    for script in stay:
        assert slim.page(script, {}, []) == script


def test_scripts_are_not_fetched_before_what_draws_the_page() -> None:
    early = '  <link rel="preload" as="script" href="_static/scripts/bootstrap.js?digest=1" />\n'
    font = '<link rel="preload" as="font" href="a.woff2" />'
    assert slim.page(early + font, {}, []) == font


def test_home_fetches_its_first_figure_with_the_text() -> None:
    image = '<img class="only-light guide-figure-image" src="a.svg" loading="lazy" decoding="async" style="">'
    early = '<img class="only-light guide-figure-image" src="a.svg" fetchpriority="high" decoding="sync" style="">'
    dark = image.replace("only-light", "only-dark")
    assert slim.with_first_figure_early(dark + image + image) == dark + early + image
    assert slim.with_first_figure_early(dark + early + image) == dark + early + image


def test_the_menu_of_versions_names_the_version_before_its_list_has_come() -> None:
    script = "<script>DOCUMENTATION_OPTIONS.theme_switcher_version_match = '0.1.0';</script>"
    button = "<button>\n    {}\n    <span></span></button>"
    late = button.format("Choose version  <!-- this text may get changed later by javascript -->")
    assert slim.page(script + late, {}, []) == script + button.format("0.1.0")
    assert slim.page(late, {}, []) == late


def test_the_style_sheets_of_all_pages_are_one(tmp_path: Path) -> None:
    """In their order, each address and import as it reads from the new place; what only one page has stays apart."""
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "a.css").write_text('@charset "UTF-8";@import "../b.css";\ni{src:url(../fonts/f.woff2)}')
    (tmp_path / "b.css").write_text("b { background: url('data:x') }")
    (tmp_path / "c.css").write_text('u { background: url("pictures/p.svg#part") }')
    links = [f'<link {{}}href="../_static/{name}?v=1" {{}}/>\n' for name in ("styles/a.css", "c.css", "own.css")]
    first, second, own = (link.format("", 'rel="stylesheet" ') for link in links)
    other = links[1].format('rel="stylesheet" type="text/css" ', "")
    pages = [first + second + own, "<meta refresh>", first + other]
    names = slim.sheets(tmp_path, pages)
    assert names == ["styles/a.css", "c.css"]
    css = slim.joined_sheets(tmp_path, names)
    assert css.index("i{src") < css.index("u {")
    for part in ("b { background: url('data:x') }", 'url("fonts/f.woff2")', 'url("pictures/p.svg#part")'):
        assert part in css
    assert "@import" not in css
    assert "@charset" not in css

    (tmp_path / slim.ALL_SHEETS).write_text(css)
    done = [slim.page(page, {slim.ALL_SHEETS: "new"}, names) for page in pages]
    one = f'    <link rel="stylesheet" href="../_static/{slim.ALL_SHEETS}?v=new" />\n'
    assert done == [one + own, "<meta refresh>", one]
    # A build that writes one page again finds the others finished.
    assert slim.sheets(tmp_path, [pages[0], *done[1:]]) == names
    assert [slim.page(page, {slim.ALL_SHEETS: "new"}, names) for page in done] == done


def test_a_font_is_cut_once_and_kept_while_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, made = ROOT / "docs" / "_static" / "fonts" / "pagella-bold.woff2", []
    font = slim.font
    monkeypatch.setattr(slim, "font", lambda *given: made.append(given) or font(*given))

    def build(characters: str) -> bytes:
        fonts = slim.Fonts(tmp_path)
        cut = fonts.cut(source, map(ord, characters), ["kern"])
        fonts.forget_the_rest()
        return cut

    first = build("ab")
    assert build("ba") == first
    assert len(made) == 1
    assert TTFont(io.BytesIO(first)).getBestCmap().keys() == {ord("a"), ord("b")}
    assert build("abc") != first
    assert len(made) == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_replaced_whole_and_only_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "new" / "page.html"
    slim.replace(file, b"one")
    os.utime(file, ns=(1, 1))
    slim.replace(file, b"one")
    assert file.stat().st_mtime_ns == 1
    slim.replace(file, b"two")
    assert [(path.name, path.read_bytes()) for path in file.parent.iterdir()] == [("page.html", b"two")]


def test_a_finished_site_is_not_finished_again(tmp_path: Path) -> None:
    """A second pass changes no byte, so that a build with nothing new writes nothing."""
    out, fonts = tmp_path / "html", ROOT / "docs" / "_static" / "fonts"
    shutil.copytree(slim.THEME / "scripts", out / "_static" / "scripts", ignore=shutil.ignore_patterns("*.map"))
    (out / "index.html").write_text(PAGE.replace("<td", '<i class="fa-solid fa-bars"></i><td'), encoding="utf-8")
    (out / "_images").mkdir()
    (out / "_images" / "a.svg").write_text(svg_of(tmp_path, "mask")[0], encoding="utf-8")

    def state() -> dict[str, tuple[int, bytes]]:
        return {str(f): (f.stat().st_mtime_ns, f.read_bytes()) for f in sorted(out.rglob("*")) if f.is_file()}

    hosting.finish_pages(out, fonts)
    once = state()
    hosting.finish_pages(out, fonts)
    assert state() == once
    assert (out / "_headers").is_file()
    assert (out / ".nojekyll").is_file()
