"""The built site as a host, a search engine and a browser with a strict policy see it, and what it weighs."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
import struct
import threading
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from guide_ext import hosting
from playwright.sync_api import Browser, Page, expect
from reading import ROOT, Trouble

import attn_guide
from tools.serve import make_server

MADE_BY_SPHINX = {"404.html", "search.html", "genindex.html", "py-modindex.html"}
CHAPTERS = [f"chapters/{path.stem}.html" for path in sorted((ROOT / "docs" / "chapters").glob("*.md"))]
BOOK = ["index.html", *CHAPTERS]


class Reader(HTMLParser):
    """What a browser would find in a page: links, fields of the head, scripts and styles within it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.meta: dict[str, list[str]] = {}
        self.links: dict[str, list[str]] = {}
        self.anchors: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.handlers: list[str] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "meta":
            name = told.get("property") or told.get("name") or told.get("http-equiv") or "charset"
            self.meta.setdefault(name, []).append(told.get("content", ""))
        elif tag == "link":
            self.links.setdefault(told.get("rel", ""), []).append(told.get("href", ""))
        elif tag == "a" and "href" in told:
            self.anchors.append(told["href"])
        elif (tag == "script" and "src" not in told) or tag == "style":
            self._into = self.scripts if tag == "script" else self.styles
        if "style" in told:
            self.styles.append(told["style"])
        self.handlers += [f"{name}={value}" for name, value in told.items() if name.startswith("on")]
        self.handlers += [value for value in told.values() if value.startswith("javascript:")]

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._into = None


@pytest.fixture(scope="session")
def read(html: Path, pages: list[str]) -> dict[str, Reader]:
    """Every page, and every page that leads to another."""
    moved = [path.relative_to(html).as_posix() for name in hosting.MOVED for path in (html / name).rglob("*.html")]
    return {path: Reader((html / path).read_text(encoding="utf-8")) for path in [*pages, *moved]}


@pytest.fixture(scope="session")
def base(read: dict[str, Reader]) -> str:
    """Where the site says that it is."""
    (canonical,) = read["index.html"].links["canonical"]
    return canonical.removesuffix("index.html")


# --- addresses -------------------------------------------------------------------------------------------------------


def test_every_page_says_where_it_is(read: dict[str, Reader], pages: list[str], base: str) -> None:
    assert re.fullmatch(r"https://[^/]+/(.*/)?", base)
    wrong = {path: read[path].links.get("canonical") for path in pages if path != "404.html"}
    assert not {path: found for path, found in wrong.items() if found != [base + path]}


def test_the_sitemap_lists_every_page_once_and_robots_find_it(html: Path, pages: list[str], base: str) -> None:
    spaces = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9"}
    root = ET.parse(html / "sitemap.xml").getroot()
    listed = [url.text for url in root.findall("s:url/s:loc", spaces)]
    expected = [base + path for path in pages if path not in MADE_BY_SPHINX and not path.startswith("_modules/")]
    assert sorted(listed) == sorted(expected)
    assert f"Sitemap: {base}sitemap.xml" in (html / "robots.txt").read_text(encoding="utf-8").splitlines()
    days = {url[0].text: url[1].text for url in root if len(url) == 2}
    changes = hosting.last_changes(ROOT)
    if not html.is_relative_to(ROOT):
        return  # built elsewhere, perhaps without git
    for chapter in CHAPTERS:
        assert days.get(base + chapter) == changes.get(f"docs/{chapter.removesuffix('.html')}.md"), chapter


def test_the_addresses_of_the_older_guide_lead_to_the_chapters(read: dict[str, Reader], html: Path, base: str) -> None:
    assert [hosting.MOVED[name].partition("/")[2][0] for name in sorted(hosting.MOVED)] == list("01234567")
    for (folder, page), place in itertools.product(
        hosting.MOVED.items(), ("index.html", "README.html", "README.md/index.html")
    ):
        moved = read[f"{folder}/{place}"]
        assert moved.links["canonical"] == [f"{base}{page}.html"]
        (refresh,) = moved.meta["refresh"]
        (link,) = moved.anchors
        assert refresh == f"0; url={link}"
        assert (html / folder / place).parent.joinpath(link).resolve() == (html / f"{page}.html").resolve()


@pytest.fixture
def deep(html: Path, tmp_path: Path) -> Iterator[str]:
    """Where the site is served below another path, as for a project on GitHub Pages."""
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "path").symlink_to(html, target_is_directory=True)
    server = make_server(tmp_path, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/some/path"
    server.shutdown()


@pytest.mark.browser
def test_old_addresses_work_below_any_path(browser: Browser, deep: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    trouble = Trouble(urlsplit(deep).netloc)
    trouble.watch(page)
    for old in ("01-self-attention", "01-self-attention/README.html", "07-soft-hard-attention/README.md"):
        page.goto(f"{deep}/{old}")
        page.wait_for_url(f"{deep}/chapters/{old[1]}-*.html")
        expect(page.locator("h1").first).to_contain_text(f"Chapter {old[1]}")
        expect(page.locator(".version-switcher__button:visible").first).to_have_text(attn_guide.__version__)
    context.close()
    assert not trouble.found


def test_llms_txt_lists_every_chapter_with_its_source(html: Path, base: str) -> None:
    lines = (html / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Attention Mechanisms: A Visual Guide"
    assert re.fullmatch(r"> [A-Z].*\.", lines[2])
    assert [line for line in lines if line.startswith("#")] == [lines[0], "## Chapters", "## Reference", "## Optional"]
    entries = [re.fullmatch(r"- \[([^\]]+)\]\(([^)]+)\)(?:: (.+))?", line) for line in lines if line.startswith("- ")]
    assert all(entries)
    links = {entry[2].removeprefix(base): entry for entry in entries if entry}
    for path in links:
        assert (html / path).read_text(encoding="utf-8").lstrip().startswith(("#", "%", "---", "(")), path
    for chapter in BOOK:
        entry = links[f"_sources/{chapter.removesuffix('.html')}.md.txt"]
        assert entry[3], f"nothing is said about {chapter}"
        assert not re.search(r"\{\w+\}|\$|\\", entry[3]), entry[3]


# --- cards -----------------------------------------------------------------------------------------------------------


def test_every_chapter_has_a_card_with_a_figure_of_its_own(html: Path, read: dict[str, Reader], base: str) -> None:
    seen = {}
    for path in BOOK:
        told = {name: values for name, values in read[path].meta.items() if name.startswith(("og:", "twitter:"))}
        assert all(len(values) == 1 for values in told.values()), told
        (image,), (alt,) = told["og:image"], told["og:image:alt"]
        assert image.startswith(base)
        assert told["og:url"] == [base + path]
        assert told["twitter:card"] == ["summary_large_image"]
        assert told["og:description"]
        png = (html / image.removeprefix(base)).read_bytes()
        assert png.startswith(b"\x89PNG")
        size = [str(side) for side in struct.unpack(">II", png[16:24])]
        assert size == told["og:image:width"] + told["og:image:height"]
        assert 10_000 < len(png) < 300_000
        figure = hosting.CARDS[path.removesuffix(".html")]
        text = (html / path).read_text(encoding="utf-8")
        shown = re.search(rf'<img[^>]*src="[^"]*/{figure}\.svg" alt="([^"]*)"', text)
        assert shown is not None, f"{path} does not show {figure}"
        assert Reader(f'<meta name="a" content="{shown[1]}">').meta["a"] == [alt]
        seen[png] = path
    assert len(seen) == len(BOOK)


def test_every_other_page_has_a_card_too(html: Path, read: dict[str, Reader], pages: list[str], base: str) -> None:
    for path in pages:
        if path not in MADE_BY_SPHINX and not path.startswith("_modules/"):
            (image,) = read[path].meta["og:image"]
            assert (html / image.removeprefix(base)).is_file()


# --- the policy ------------------------------------------------------------------------------------------------------


def test_every_page_has_a_policy_that_fits_it(read: dict[str, Reader], html: Path) -> None:
    """Read with a parser of HTML, where guide_ext.hosting uses patterns: no script within a page is without a hash."""
    header = (html / "_headers").read_text(encoding="utf-8")
    every = [style for page in read.values() for style in page.styles]
    for path, page in read.items():
        (policy,) = page.meta["Content-Security-Policy"]
        assert "'unsafe-inline'" not in policy
        assert "'unsafe-eval'" not in policy
        rules = {rule.split()[0]: set(rule.split()[1:]) for rule in policy.split(";")}
        assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == {"'self'"}, path
        assert rules["object-src"] == {"'none'"}
        for kind, texts in (
            ("script-src", page.scripts),
            ("style-src", every if path == "search.html" else page.styles),
        ):
            hashes = {f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts}
            assert rules[kind] - {"'self'", "'unsafe-hashes'"} == hashes, f"{path}: {kind}"
            assert all(name in header for name in hashes), f"{path}: _headers"
        assert not page.handlers, path
    assert all(len(line) < 2000 for line in header.splitlines()), "Cloudflare Pages reads 2000 characters of a line"


def test_the_scripts_within_pages_are_few(read: dict[str, Reader]) -> None:
    """A script that differs from page to page would need a hash of its own on each, and a long list in a header."""
    assert len({script for page in read.values() for script in page.scripts}) <= 6


@pytest.mark.browser
def test_the_policy_stops_what_it_should(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/index.html")
    page.evaluate("""() => {
      window.stopped = [];
      addEventListener("securitypolicyviolation", (event) => stopped.push(event.effectiveDirective));
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      const picture = document.createElement("img");
      picture.src = "https://elsewhere.invalid/pixel.png";
      const text = document.createElement("p");
      text.setAttribute("style", "color: red");
      const form = document.createElement("form");
      form.action = "https://elsewhere.invalid/";
      document.body.append(script, picture, text, form);
      fetch("https://elsewhere.invalid/").catch(() => {});
      form.submit();
    }""")
    page.wait_for_function("stopped.length >= 5")
    found = set(page.evaluate("stopped"))
    assert found == {"script-src-elem", "img-src", "style-src-attr", "form-action", "connect-src"}
    assert page.evaluate("window.ran") is None
    page.close()


@pytest.mark.browser
def test_a_page_works_from_a_disk(browser: Browser, html: Path) -> None:
    """With the policy, from a file: styles and scripts load, the theme can be switched, no menu asks for versions."""
    context = browser.new_context(color_scheme="light")
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((html / "appendices" / "glossary.html").as_uri())
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.locator("button.theme-switch-button:visible").first.click()
    page.locator("[data-mode='dark']:visible").first.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).fontFamily").startswith('"Guide Text"')
    assert page.locator(".version-switcher__button").count() == 0
    context.close()
    assert not said


# --- versions --------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("path", ["/chapters/4-causal.html", "/gallery/home/", "/no/such/page.html"])
def test_the_menu_of_versions_opens_on_every_page(page: Page, trouble: Trouble, address: str, path: str) -> None:
    page.goto(path)
    menu = page.locator(".version-switcher__button:visible").first
    expect(menu).to_have_text(attn_guide.__version__)
    menu.click()
    entry = page.locator(".version-switcher__menu:visible a").first
    expect(entry).to_have_text(attn_guide.__version__)
    where = entry.evaluate("link => link.href")
    assert urlsplit(where).netloc == urlsplit(address).netloc
    assert page.evaluate("DOCUMENTATION_OPTIONS.pagename") == path.strip("/").removesuffix(".html").replace(
        "gallery/home", "gallery/home/index"
    )
    # The page that does not exist is asked for, and answers as it should.
    assert [fault for fault in trouble.take() if "/no/such/" not in fault and "404 (Not Found)" not in fault] == []


# --- weight ----------------------------------------------------------------------------------------------------------

FIRST, LATER = 1_000_000, 300_000  # bytes
TEXT = {".html", ".css", ".js", ".json", ".svg", ".txt", ".xml"}

THROUGH = """async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight / 2) {
    scrollTo(0, y);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  }
}"""


def transferred(file: Path) -> int:
    """The bytes of a file as hosts send it: text is compressed, and pictures and fonts are already."""
    content = file.read_bytes()
    return len(gzip.compress(content, 6, mtime=0)) if file.suffix in TEXT else len(content)


def visit(page: Page, address: str, path: str, html: Path) -> set[Path]:
    """The files of the site that a reader has fetched who reads a page to its end."""
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    page.goto(f"{address}/{path}", wait_until="load")
    page.evaluate(THROUGH)
    page.wait_for_load_state("networkidle")
    places = {unquote(urlsplit(urljoin(address, url)).path).lstrip("/") for url in asked if url.startswith("http")}
    return {html / place for place in places}


@pytest.fixture(scope="module")
def visits(browser: Browser, address: str, html: Path) -> dict[str, set[Path]]:
    """For Home and each chapter, every file that a reader of it needs."""
    found = {}
    for path in BOOK:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
        found[path] = visit(context.new_page(), address, path, html)
        context.close()
    return found


def heaviest(files: set[Path], html: Path) -> str:
    sizes = sorted(((transferred(file), file) for file in files), reverse=True)
    return "\n".join(f"{size / 1000:7.0f} kB  {file.relative_to(html).as_posix()}" for size, file in sizes[:8])


@pytest.mark.browser
@pytest.mark.parametrize("path", BOOK)
def test_a_first_visit_is_light(visits: dict[str, set[Path]], html: Path, path: str) -> None:
    files = visits[path]
    assert len(files) > 10
    assert any(file.suffix == ".woff2" for file in files)
    figures = re.findall(r'only-light guide-figure-image" src="([^"]*)"', (html / path).read_text(encoding="utf-8"))
    missing = [
        name for name in figures if (html / path).parent.joinpath(name).resolve() not in map(Path.resolve, files)
    ]
    assert not missing, f"the walk has not seen {missing}"
    weight = sum(map(transferred, files))
    assert weight <= FIRST, f"{path}: {weight / 1000:.0f} kB, compressed; the heaviest:\n{heaviest(files, html)}"


@pytest.mark.browser
@pytest.mark.parametrize("path", CHAPTERS)
def test_a_later_visit_is_lighter(visits: dict[str, set[Path]], html: Path, path: str) -> None:
    """Who has read Home has what all pages share; what is new in a chapter, all figures with it, is what it costs."""
    new = visits[path] - visits["index.html"]
    assert html / path in new
    weight = sum(map(transferred, new))
    assert weight <= LATER, f"{path}: {weight / 1000:.0f} kB, compressed; the heaviest:\n{heaviest(new, html)}"


def test_the_theme_is_sent_without_what_no_page_uses(html: Path) -> None:
    """The pages use about forty icons; the theme has two thousand."""
    fonts = list((html / "_static" / "vendor" / "fontawesome" / "webfonts").glob("*.woff2"))
    assert len(fonts) == 3
    assert sum(font.stat().st_size for font in fonts) < 20_000
    css = (html / "_static" / "styles" / "pydata-sphinx-theme.css").read_text(encoding="utf-8")
    assert 5 < css.count('--fa:"') < 100
    used = {
        name
        for path in html.glob("chapters/*.html")
        for name in re.findall(r"\bfa-(?!solid|lg|brands|regular)[a-z-]+", path.read_text(encoding="utf-8"))
    }
    assert used
    assert not {name for name in used if f".{name}" not in css}


def test_what_the_switcher_lists_is_this_version(html: Path) -> None:
    entries = json.loads((html / "_static" / "switcher.json").read_text(encoding="utf-8"))
    assert [entry["version"] for entry in entries] == [attn_guide.__version__]
    assert all(entry["url"].startswith("/") for entry in entries)
