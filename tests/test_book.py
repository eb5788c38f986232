"""The book: what a page of the site becomes, that the EPUB is whole and valid, and that a PDF is printed of it."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tools import book
from tools.browser import HOW, find_chromium

XHTML = f"{{{book.XHTML}}}"

HOME = """<!DOCTYPE html><html><head><title>Home</title>
<link rel="canonical" href="https://example.org/guide/index.html"/>
<meta property="og:site_name" content="Small &amp; whole"></head><body>
<nav class="bd-docs-nav bd-links"><ul><li><a href="#">Home</a></li><li><a href="chapters/0-a.html">Zero</a></li>
<li><a href="appendices/g.html">Glossary</a></li><li><a href="api/index.html">API</a></li></ul></nav>
<article class="bd-article"><section id="home"><h1>Home<a class="headerlink" href="#home">#</a></h1>
<p>See <a href="chapters/0-a.html#claim-a">a claim</a>, <a href="api/index.html#x">the API</a>,
<a href="chapters/0-a.html#gone">nothing</a> and <a href="https://elsewhere.org/">elsewhere</a>.<br>
x &lt; y <script>bad()</script>after</p></section></article></body></html>
"""
CHAPTER = """<!DOCTYPE html><html><body><article class="bd-article"><section id="top"><h1>Zero</h1>
<section id="one"><h2>One <em>thing</em></h2><p tabindex="0" onclick="x()">Text <a href="#one">here</a>.</p>
<span class="math"><math display="inline" alttext="x^2"><msup><mi>x</mi><mn>2</mn></msup></math></span>
<div class="ag-claim" id="claim-a"><p>It holds.</p><details class="ag-claim-check">
<summary class="ag-claim-badge">checked<span class="visually-hidden"> of: a</span></summary><p>measured 5</p></details>
</div>
<figure id="fig"><img class="only-light" src="../_images/a.svg" alt="A &quot;line&quot;" loading="lazy" width="9">
<img class="only-dark" src="../_images/a-dark.svg" alt="A line"><figcaption id="fig">Said.</figcaption></figure>
<details class="sd-dropdown"><summary>Solution<svg viewBox="0 0 1 1"><path d="M0 0"/></svg></summary><p>42</p></details>
<div class="ag-explorer" data-data><p class="ag-explorer-intro">Move it.</p><button>Go</button></div>
</section></section></article></body></html>
"""
GLOSSARY = """<article class="bd-article"><section id="g"><h1>Glossary</h1>
<p>See <a href="../index.html">Home</a>.</p></section></article>"""
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="90" height="30"><g id="arrow"><path d="M0 0H90"/></g>
<g id="arrow"/></svg>"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    made = tmp_path / "html"
    files = {
        "index.html": HOME,
        "chapters/0-a.html": CHAPTER,
        "appendices/g.html": GLOSSARY,
        "_images/a.svg": SVG,
        "_static/pygments.css": ".highlight .k { font-weight: bold }",
        "_static/fonts/pagella-regular.woff2": "a font",
        "sitemap.xml": "<url><lastmod>2026-01-02</lastmod></url><url><lastmod>2025-12-31</lastmod></url>",
    }
    for name, text in files.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return made


@pytest.fixture
def files(site: Path, tmp_path: Path) -> dict[str, bytes]:
    book.write_epub(book.read(site), tmp_path / "small.epub")
    assert list(book.faults(tmp_path / "small.epub")) == []
    with zipfile.ZipFile(tmp_path / "small.epub") as packed:
        return {name: packed.read(name) for name in packed.namelist()}


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("text/index.xhtml", "</p>", "", "text/index.xhtml is not well-formed"),
        ("text/index.xhtml", "<h1>", "<h1><script></script>", "text/index.xhtml has a <script>"),
        ("text/index.xhtml", 'id="home"', 'id="home" onclick="x()"', "text/index.xhtml has an attribute onclick"),
        ("text/index.xhtml", "#claim-a", "#claim-b", "text/index.xhtml leads to chapters-0-a.xhtml#claim-b"),
        ("text/chapters-0-a.xhtml", "images/a.svg", "images/b.svg", "leads to ../images/b.svg"),
        ("text/chapters-0-a.xhtml", 'id="one"', 'id="top"', "has an id twice"),
        ("text/chapters-0-a.xhtml", ' xmlns="http://www.w3.org/1998/Math/MathML"', "", "is a formula in no namespace"),
        ("text/chapters-0-a.xhtml", 'alt="A', 'title="A', "has a picture without words"),
        ("images/a.svg", "</g>", '</g><g id="arrow"/>', "images/a.svg has an id twice"),
        ("package.opf", "images/a.svg", "images/c.svg", "the list of files is not that of the zip"),
        ("package.opf", ' properties="nav"', "", "no navigation"),
        ("package.opf", '<itemref idref="', '<itemref idref="f9', "the reading order names no file"),
    ],
)
def test_a_broken_epub_is_found(
    files: dict[str, bytes], tmp_path: Path, name: str, old: str, new: str, complaint: str
) -> None:
    broken = tmp_path / "broken.epub"
    assert old.encode() in files[f"EPUB/{name}"]
    with zipfile.ZipFile(broken, "w") as packed:
        for path, content in files.items():
            packed.writestr(path, content.replace(old.encode(), new.encode()) if path == f"EPUB/{name}" else content)
    assert any(complaint in fault for fault in book.faults(broken)), list(book.faults(broken))


def test_the_first_file_says_what_it_is(files: dict[str, bytes], tmp_path: Path) -> None:
    broken = tmp_path / "broken.epub"
    with zipfile.ZipFile(broken, "w", zipfile.ZIP_DEFLATED) as packed:
        for path, content in files.items():
            packed.writestr(path, content)
    assert "the first file is not the type, uncompressed" in list(book.faults(broken))


def test_pages_come_in_the_order_of_the_contents_and_no_others(files: dict[str, bytes], site: Path) -> None:
    assert [page.path for page in book.read(site).pages] == ["index.html", "chapters/0-a.html", "appendices/g.html"]
    contents = files["EPUB/nav.xhtml"].decode()
    assert '<a href="text/chapters-0-a.xhtml#one">One thing</a>' in contents
    assert "api" not in contents


def test_links_lead_into_the_book_or_to_the_site(files: dict[str, bytes]) -> None:
    home = files["EPUB/text/index.xhtml"].decode()
    assert '<a href="chapters-0-a.xhtml#claim-a">a claim</a>' in home
    assert '<a href="https://example.org/guide/api/index.html#x">the API</a>' in home
    assert '<a href="chapters-0-a.xhtml">nothing</a>' in home
    assert '<a href="https://elsewhere.org/">elsewhere</a>' in home
    assert '<a href="#one">here</a>' in files["EPUB/text/chapters-0-a.xhtml"].decode()


def test_what_needs_a_screen_is_gone_and_what_is_closed_is_open(files: dict[str, bytes]) -> None:
    home, chapter = (files[f"EPUB/text/{name}.xhtml"].decode() for name in ("index", "chapters-0-a"))
    assert "x &lt; y after" in home
    assert "headerlink" not in home
    assert 'src="../images/a.svg" alt="A &quot;line&quot;"' in chapter
    for gone in ("a-dark", "measured 5", "tabindex", "onclick", "loading", "Move it", "Go<", "<details", "<path"):
        assert gone not in chapter
    assert re.search(r'<div class="book-summary">Solution</div><p>42</p>', chapter)
    assert '<a href="https://example.org/guide/chapters/0-a.html#claim-a">checked</a>' in chapter
    assert '<math display="inline" alttext="x^2" xmlns="http://www.w3.org/1998/Math/MathML">' in chapter
    assert b'properties="mathml"' in files["EPUB/package.opf"]
    assert "color: #1946a1" in files["EPUB/book.css"].decode()


def test_the_same_site_gives_the_same_bytes(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tmp_path / "one.epub"
    book.write_epub(book.read(site), first)
    copy = shutil.copytree(site, tmp_path / "copy", copy_function=shutil.copy)
    book.write_epub(book.read(copy), tmp_path / "two.epub")
    assert first.read_bytes() == (tmp_path / "two.epub").read_bytes()
    assert book.modified(site) == "2026-01-02T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert book.modified(site) == "1970-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("index.html", 'rel="canonical"', 'rel="other"', "does not say where it is"),
        ("index.html", "bd-links", "links", "no list of contents"),
        ("chapters/0-a.html", "_images/a.svg", "_images/b.svg", "shows _images/b.svg, which is not there"),
        ("chapters/0-a.html", "bd-article", "article", "has no article"),
        ("chapters/0-a.html", "<h1>Zero</h1>", "", "has no title"),
        ("chapters/0-a.html", "<p>It holds.</p>", "<p>It holds.", "closes nothing"),
        ("appendices/g.html", "</article>", "", "is not closed"),
    ],
)
def test_a_site_that_is_no_book_is_refused_with_its_reason(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, old: str, new: str, complaint: str
) -> None:
    page = site / name
    page.write_text(page.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert book.main(["epub", str(site), "--to", str(tmp_path / "out")]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_site_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert book.main(["epub", str(tmp_path)]) == 1
    assert "make html" in capsys.readouterr().err


def test_the_printed_document_has_no_link_into_a_file_of_the_book(site: Path) -> None:
    text = book.printable(book.read(site))
    tree = ET.fromstring(text)
    ids = [e.get("id") for e in tree.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    links = [e.get("href") for e in tree.iter(f"{XHTML}a")]
    inside = [link[1:] for link in links if link.startswith("#")]
    assert {"index.xhtml", "chapters-0-a.xhtml--claim-a", "chapters-0-a.xhtml--one"} <= set(inside) <= set(ids)
    assert all(link.startswith(("#", "https://")) for link in links)


@pytest.mark.browser
def test_a_pdf_has_its_pages_outline_and_links(site: Path, tmp_path: Path) -> None:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(HOW)
    target = tmp_path / "small.pdf"
    book.write_pdf(book.read(site), target, chromium)
    printed = target.read_bytes()
    assert printed.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type /Page\b(?!s)", printed)) == 5  # title, contents, and a sheet for each of the three
    assert b"/Outlines" in printed
    assert b"/StructTreeRoot" in printed
    assert printed.count(b"https://example.org/guide/chapters/0-a.html#claim-a") == 1
    assert [file.name for file in tmp_path.iterdir() if file.suffix in (".new", ".pdf")] == ["small.pdf"]
