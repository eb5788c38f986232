"""What a host, a search engine and a browser need beyond the pages; made when the pages are written.

- ``sitemap.xml`` with the day on which each page's source last changed in git; ``robots.txt``; ``llms.txt``.
- A card for each chapter, with a figure of that chapter, for those who share a link to it.
- A page at each address of the guide that this one grows out of, which leads to the chapter that took its place.
- ``switcher.json`` with addresses on the site's own host.
- A Content-Security-Policy on every page, with the hash of each script that the page carries within, and ``_headers``
  for the hosts that read it. :mod:`guide_ext.slim` has removed by then what no page uses.

Everything is made from the sources and the finished pages: no clock, no network, the same bytes from the same input.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import runpy
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from contextlib import chdir
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.sax.saxutils import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from . import slim
from .site import ROOT, source_of

logger = logging.getLogger(__name__)

# --- the sitemap -----------------------------------------------------------------------------------------------------

#: Pages that Sphinx makes to find other pages, or that a reader sees only by mistake.
UNLISTED = {"404", "search", "genindex", "py-modindex"}


def last_changes(root: Path) -> dict[str, str]:
    """For each file below ``root`` the day of its last commit; empty without git, or where git knows only a part."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), "-c", "core.quotepath=off", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout

    try:
        if git("rev-parse", "--is-shallow-repository").strip() != "false":
            return {}
        log = git("log", "--relative", "--name-only", "--no-renames", "--format=%x00%cs")
    except (OSError, subprocess.CalledProcessError):
        return {}
    days: dict[str, str] = {}
    for commit in log.split("\0")[1:]:  # the newest first
        day, *files = commit.split("\n")
        for file in filter(None, files):
            days.setdefault(file, day)
    return days


def sitemap(base: str, pages: Iterable[tuple[str, str | None]]) -> str:
    """The sitemap of (address below the base, day of the last change or None)."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">']
    for address, day in pages:
        changed = f"<lastmod>{day}</lastmod>" if day else ""
        lines.append(f"  <url><loc>{escape(base + address)}</loc>{changed}</url>")
    return "\n".join([*lines, "</urlset>", ""])


def _write_sitemap(app: Sphinx) -> None:
    days = last_changes(ROOT)
    pages = []
    for name in sorted(app.env.found_docs - UNLISTED):
        source = source_of(name, Path(app.srcdir))
        pages.append((app.builder.get_target_uri(name), days.get(source) if source else None))
    out, base = Path(app.outdir), app.config.html_baseurl
    _write(out / "sitemap.xml", sitemap(base, pages))
    _write(out / "robots.txt", f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n")


# --- llms.txt --------------------------------------------------------------------------------------------------------


def opening(doctree: nodes.document) -> str:
    """The first two sentences of a page's running text."""
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section | nodes.document):
            text = " ".join(paragraph.astext().split())
            return " ".join(re.split(r"(?<=[.!?])\s(?=[A-Z])", text)[:2])
    return ""


def _openings(env: BuildEnvironment) -> dict[str, str]:
    """For each page its first sentences; kept from build to build, since reading a page back takes long."""
    if not hasattr(env, "guide_openings"):
        env.guide_openings = {}
    return env.guide_openings


def _note_opening(app: Sphinx, doctree: nodes.document) -> None:
    _openings(app.env)[app.env.docname] = opening(doctree)


def _forget_opening(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    _openings(env).pop(docname, None)


def _merge_openings(app: Sphinx, env: BuildEnvironment, docnames: Iterable[str], other: BuildEnvironment) -> None:
    _openings(env).update({name: text for name, text in _openings(other).items() if name in set(docnames)})


def _write_llms(app: Sphinx) -> None:
    """The guide in one page of Markdown, in the form that https://llmstxt.org describes."""
    env, base = app.env, app.config.html_baseurl
    openings = _openings(env)

    def line(name: str) -> str:
        file = Path(app.env.doc2path(name)).relative_to(app.srcdir).as_posix()
        about = openings[name]
        link = f"{base}_sources/{file}{app.config.html_sourcelink_suffix}"
        return f"- [{env.titles[name].astext()}]({link})" + (f": {about}" if about else "")

    def folder(name: str) -> list[str]:
        return [line(page) for page in sorted(env.found_docs) if page.startswith(f"{name}/") and written(page)]

    def written(page: str) -> bool:
        return Path(env.doc2path(page)).suffix == ".md"

    text = [
        f"# {app.config.project}",
        "",
        f"> {openings[app.config.root_doc]}",
        "",
        "Every number on these pages is computed when they are built, every figure is drawn by the code that it "
        "explains, and every claim is a test that has passed. In the Markdown sources, `{calc}` and `\\calc` hold the "
        f"expression of a number; the built page has its value. The pages begin at {base}.",
        "",
        "## Chapters",
        "",
        line(app.config.root_doc),
        *folder("chapters"),
        "",
        "## Reference",
        "",
        *folder("api"),
        *folder("appendices"),
        "",
        "## Optional",
        "",
        *folder("develop"),
    ]
    _write(Path(app.outdir) / "llms.txt", "\n".join(text) + "\n")


# --- addresses of the older guide ------------------------------------------------------------------------------------

#: Folders of the guide that this one grows out of, each with the page that took its place.
MOVED = {
    "00-important-concepts": "chapters/0-concepts",
    "01-self-attention": "chapters/1-self-attention",
    "02-cross-attention": "chapters/2-cross-attention",
    "03-multi-head-attention": "chapters/3-multi-head",
    "04-causal-attention": "chapters/4-causal",
    "05-sparse-attention": "chapters/5-sparse",
    "06-score-functions": "chapters/6-score-functions",
    "07-soft-hard-attention": "chapters/7-soft-hard",
}


def redirect(title: str, link: str, canonical: str) -> str:
    """A page that leads to another; its link is relative, so that it works below any address."""
    title, link, canonical = (html.escape(text, quote=True) for text in (title, link, canonical))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n<title>Moved: {title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f'<meta http-equiv="refresh" content="0; url={link}" />\n<link rel="canonical" href="{canonical}" />\n'
        f'<link rel="icon" href="data:," />\n'  # else a browser asks the host for one
        f"</head>\n<body>\n<main>\n<h1>This page has moved</h1>\n"
        f'<p>It is now <a href="{link}">{title}</a>.</p>\n</main>\n</body>\n</html>\n'
    )


def _write_redirects(app: Sphinx) -> None:
    for folder, page in MOVED.items():
        if page not in app.env.found_docs:
            logger.warning("%s leads to %s, which is no page", folder, page, type="guide", subtype="hosting")
            continue
        target = app.builder.get_target_uri(page)
        # A host shows a folder's index; a folder named README.md is how a page can stand at an address with that name.
        for place in ("index.html", "README.html", "README.md/index.html"):
            up = "../" * (1 + place.count("/"))
            text = redirect(app.env.titles[page].astext(), up + target, app.config.html_baseurl + target)
            _write(Path(app.outdir) / folder / place, text)


# --- cards -----------------------------------------------------------------------------------------------------------

CARD = (1200, 630)  # pixels: what those who show cards ask for

#: The figure on the card of each page. Other pages have the card of their chapter or of the first page.
CARDS = {
    "index": "home-one-picture",
    "chapters/0-concepts": "concepts-annotated-matrix",
    "chapters/1-self-attention": "self-it",
    "chapters/2-cross-attention": "cross-bahdanau-alignment",
    "chapters/3-multi-head": "heads-two-patterns",
    "chapters/4-causal": "causal-application",
    "chapters/5-sparse": "sparse-bigbird",
    "chapters/6-score-functions": "scores-surfaces",
    "chapters/7-soft-hard": "soft-average-or-choose",
}


def card_of(page: str) -> str:
    """The page whose card a page shows: a figure of the gallery shows that of its chapter."""
    section = re.match(r"gallery/(\d)_", page)
    chapter = [name for name in CARDS if section and name.startswith(f"chapters/{section[1]}-")]
    return page if page in CARDS else (chapter or ["index"])[0]


def card_path(page: str) -> str:
    return f"_images/cards/{Path(page).name}.png"


def _tell_card(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Give the page's card to sphinxext.opengraph, which reads the fields of a page."""
    if doctree is None or app.builder.name != "html":
        return
    page = card_of(pagename)
    told = getattr(app.env, "guide_figures", {}).get(CARDS[page])
    if told is None:
        return  # _write_cards says so
    card = {
        "og:image": card_path(page),
        "og:image:alt": told["alt"],
        "og:image:type": "image/png",
        "og:image:width": str(CARD[0]),
        "og:image:height": str(CARD[1]),
    }
    context["meta"] = {**(context.get("meta") or {}), **card}


def draw_card(title: str, site: str, figure: str, script: Path) -> bytes:
    """A PNG with the title of a page and a figure, drawn by its script in the size that the card has room for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    from attn_guide import plot
    from attn_guide.plot.figures import style

    plot.take()
    sys.path.insert(0, str(script.parent))
    try:
        with chdir(script.parent):
            runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.path.remove(str(script.parent))
    drawn = next(fig for fig in plot.take() if fig.guide_name == figure)
    with style():
        room = (640, CARD[1] - 60)  # pixels
        width, height = drawn.get_size_inches()
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", dpi=min(room[0] / width, room[1] / height))
        picture = imread(io.BytesIO(buffer.getvalue()))  # (height, width, 4)
        card = Figure(figsize=(CARD[0] / 100, CARD[1] / 100), dpi=100, facecolor=plot.BACKGROUND)
        FigureCanvasAgg(card)
        high, wide = picture.shape[:2]
        card.figimage(picture, CARD[0] - 40 - wide, (CARD[1] - high) // 2)
        parts = re.split(r"(?<=:) ", title)  # the number of a chapter has a line of its own
        lines = [line for part in parts for line in textwrap.wrap(part, 16, break_on_hyphens=False)]
        card.text(
            40 / CARD[0], 0.56, "\n".join(lines), size=30, weight="bold", va="center", color=plot.INK, linespacing=1.25
        )
        card.text(40 / CARD[0], 0.075, site, size=14, color=plot.MUTED, va="bottom")
        buffer = io.BytesIO()
        card.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _write_cards(app: Sphinx) -> None:
    """Draw the cards whose figure or title is new; the others are kept in ``_build/figures/cards``."""
    import matplotlib

    kept = Path(app.confdir) / app.config.guide_figures_state / "cards"
    index = getattr(app.env, "guide_figures", {})
    for page, figure in CARDS.items():
        if page not in app.env.found_docs or figure not in index:
            what = f"the card of {page} shows {figure!r}"
            logger.warning("%s, and one of the two does not exist", what, type="guide", subtype="hosting")
            continue
        told, title = index[figure], app.env.titles[page].astext()
        light = (Path(app.srcdir) / told["light"]).read_bytes()
        parts = [light, title.encode(), app.config.project.encode(), Path(__file__).read_bytes()]
        key = hashlib.sha256(b"\0".join([*parts, matplotlib.__version__.encode()])).hexdigest()
        png, mark = kept / f"{figure}.png", kept / f"{figure}.key"
        if not (png.is_file() and mark.is_file() and mark.read_text(encoding="utf-8") == key):
            site = "" if page == app.config.root_doc else app.config.project
            slim.replace(png, draw_card(title, site, figure, ROOT / told["script"]))
            _write(mark, key)
        slim.replace(Path(app.outdir) / card_path(page), png.read_bytes())


# --- versions --------------------------------------------------------------------------------------------------------


def switcher(entries: list[dict[str, Any]], base: str) -> str:
    """The list of versions for the theme's menu, with addresses that hold on whatever host shows it."""
    path = urlsplit(base).path
    return json.dumps([{**entry, "url": urljoin(path, entry["url"])} for entry in entries], indent=1) + "\n"


def _write_switcher(app: Sphinx) -> None:
    entries = json.loads((Path(app.srcdir) / "_static" / "switcher.json").read_text(encoding="utf-8"))
    _write(Path(app.outdir) / "_static" / "switcher.json", switcher(entries, app.config.html_baseurl))


def _drop_page_name(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """``guide.js`` finds the name of a page from its address: a script that differs from page to page needs no hash."""

    def told(file: Any) -> str:
        return (getattr(file, "attributes", {}).get("body") or "").strip()

    if "script_files" in context:
        names = re.compile(r"DOCUMENTATION_OPTIONS\.pagename = '[^']*';")
        context["script_files"] = [file for file in context["script_files"] if not names.fullmatch(told(file))]


# --- what a page may load --------------------------------------------------------------------------------------------

_POLICY_TAG = re.compile(r'\n?[ \t]*<meta http-equiv="Content-Security-Policy"[^>]*>')
_SCRIPT = re.compile(r"<script\b(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_STYLE = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL | re.IGNORECASE)
_STYLED = re.compile(r'\sstyle="([^"]*)"')


def hashes(page: str) -> tuple[set[str], set[str]]:
    """The hashes of the scripts within a page, and of its style elements and style attributes."""
    scripts = {_hash(script) for script in _SCRIPT.findall(page)}
    styles = {_hash(style) for style in _STYLE.findall(page)}
    return scripts, styles | {_hash(html.unescape(style)) for style in _STYLED.findall(page)}


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    """What a page may load: the site's own files, and the scripts and styles within it that have one of the hashes.

    ``'unsafe-hashes'`` lets a hash stand for a style *attribute* as well: Sphinx and the figures set a width or a
    height so. It allows the texts that were hashed and nothing else; ``'unsafe-inline'`` is not needed.
    """
    styles = sorted(styles)
    return "; ".join(
        [
            "default-src 'self'",
            " ".join(["script-src 'self'", *sorted(scripts)]),
            " ".join(["style-src 'self'", *(["'unsafe-hashes'", *styles] if styles else [])]),
            "img-src 'self' data:",  # the style sheets of the theme hold small drawings
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
        ]
    )


def protected(page: str, shown: Iterable[str] = ()) -> str:
    """The page with its policy, as the first thing after its encoding: what stands above a policy is not under it.

    ``shown`` are hashes of styles in other pages, of which this one shows parts.
    """
    page = _POLICY_TAG.sub("", page)
    scripts, styles = hashes(page)
    tag = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy(scripts, {*styles, *shown}))}" />'
    return re.sub(r'(<meta charset="utf-8" ?/?>)', lambda found: f"{found[1]}\n    {tag}", page, count=1)


def headers(pages: Iterable[str]) -> str:
    """``_headers``, which Netlify, Cloudflare Pages and others read: one policy that allows what any page needs."""
    scripts: set[str] = set()
    styles: set[str] = set()
    for page in pages:
        found = hashes(page)
        scripts |= found[0]
        styles |= found[1]
    lines = [
        f"Content-Security-Policy: {policy(scripts, styles)}; frame-ancestors 'none'",
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: strict-origin-when-cross-origin",
    ]
    return "/*\n" + "".join(f"  {line}\n" for line in lines)


def finish_pages(out: Path, fonts: Path) -> None:
    """Make the pages light, then protect them; a page that already is so is not written again."""
    files = [file for file in sorted(out.rglob("*.html")) if "_static" not in file.relative_to(out).parts]
    pages = [file.read_text(encoding="utf-8") for file in files]
    static = out / "_static"
    stamps = slim.static_files(static, fonts, pages, out.parent / "fonts")
    joined = slim.sheets(static, pages)
    css = slim.joined_sheets(static, joined).encode("utf-8")
    slim.replace(static / slim.ALL_SHEETS, css)
    stamps[slim.ALL_SHEETS] = slim.stamp(css)
    slim.drawings(out / "_images")
    pages = [slim.page(page, stamps, joined) for page in pages]
    pages = [
        slim.with_first_figure_early(p) if f == out / "index.html" else p for f, p in zip(files, pages, strict=True)
    ]
    every = {style for page in pages for style in hashes(page)[1]}
    for file, page in zip(files, pages, strict=True):
        # The search reads the pages that it found, to quote from them.
        _write(file, protected(page, every if file == out / "search.html" else ()))
    _write(out / "_headers", headers(pages))
    _write(out / ".nojekyll", "")  # GitHub Pages would drop the folders whose names begin with an underscore


def _write(file: Path, text: str) -> None:
    slim.replace(file, text.encode("utf-8"))


def finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    _write_sitemap(app)
    _write_llms(app)
    _write_redirects(app)
    _write_cards(app)
    _write_switcher(app)
    finish_pages(Path(app.outdir), Path(app.srcdir) / "_static" / "fonts")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("html-page-context", _tell_card, priority=400)  # before sphinxext.opengraph, at 500
    app.connect("html-page-context", _drop_page_name, priority=900)  # when the theme has added its scripts
    app.connect("doctree-read", _note_opening)
    app.connect("env-purge-doc", _forget_opening)
    app.connect("env-merge-info", _merge_openings)
    app.connect("build-finished", finish, priority=900)  # when everything else is written
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}
