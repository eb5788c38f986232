"""The guide as a book, Home, chapters and appendices, as EPUB or PDF: ``python -m tools.book epub _build/html``.

A book is made from the pages of the built site, so that it says what they say. Of each page it takes the article, and

- leaves out what only works on a screen with a server: buttons, explorers (their figure stays), the dark figures;
- opens what is closed, and in place of the details behind a claim leads to where they are on the site;
- leads to a page of the book where there is one, and to the site where there is none.

The EPUB is a zip of well-formed XHTML with MathML, without scripts, the same bytes for the same site. The PDF is
printed by Chromium, from all pages one after the other.
"""

from __future__ import annotations

import argparse
import copy
import io
import os
import posixpath
import re
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

import attn_guide
from attn_guide.plot import ROLES
from tools.browser import HOW, find_chromium

FOLDERS = ("index.html", "chapters/", "appendices/")
STYLE = Path(__file__).with_name("book.css")
FONTS = "_static/fonts"
XHTML, OPS = "http://www.w3.org/1999/xhtml", "http://www.idpf.org/2007/ops"
HERE = "https://site.invalid/"  # where pages are while their links are resolved
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}

#: What is left out, by tag or by class.
LEFT_OUT = {"script", "style", "button", "nav", "svg", "template", "noscript", "input", "form", "iframe"}
LEFT_OUT_CLASSES = {"headerlink", "only-dark", "visually-hidden", "ag-explorer-intro", "toctree-wrapper"}
#: The attributes that stay; all of them stay on formulas.
KEPT = {"id", "class", "href", "src", "alt", "width", "height", "colspan", "rowspan", "start", "lang", "scope", "type"}


class BookError(ValueError):
    """The site cannot be made into a book; the message says why."""


# --- reading the site ------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """A page as a tree. The pages are written by a program, so tags that do not match are a mistake there."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.builder = ET.TreeBuilder()
        self.open: list[str] = []

    @classmethod
    def read(cls, text: str) -> Element:
        reader = cls()
        reader.builder.start("page", {})
        reader.feed(text)
        reader.close()
        if reader.open:
            raise BookError(f"<{reader.open[-1]}> is not closed")
        reader.builder.end("page")
        return reader.builder.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.builder.start(tag, {name: value or "" for name, value in attributes})
        if tag in VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            raise BookError(f"line {self.getpos()[0]}: </{tag}> closes nothing")
        self.builder.end(tag)

    def handle_data(self, data: str) -> None:
        self.builder.data(data)


def classes(element: Element) -> set[str]:
    return set(element.get("class", "").split())


def text_of(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def remove(parent: Element, child: Element) -> None:
    """Take an element out, and leave the text after it where it is."""
    at = list(parent).index(child)
    if child.tail:
        if at:
            parent[at - 1].tail = (parent[at - 1].tail or "") + child.tail
        else:
            parent.text = (parent.text or "") + child.tail
    parent.remove(child)


@dataclass
class Page:
    """A page of the book: its path on the site, its article, and the headings below its title."""

    path: str
    title: str
    article: Element
    sections: list[tuple[str, str]] = field(default_factory=list)  # (id, heading)

    @property
    def file(self) -> str:
        return self.path.replace("/", "-").removesuffix(".html") + ".xhtml"


@dataclass
class Book:
    """All pages in order, and the pictures that they show, as paths on the site."""

    site: Path
    base: str
    title: str
    pages: list[Page]
    images: dict[str, str] = field(default_factory=dict)  # path on the site: name in the book


def read(site: Path) -> Book:
    """The book of a built site."""
    home = Reader.read((site / "index.html").read_text(encoding="utf-8"))
    canonical = next((e.get("href", "") for e in home.iter("link") if e.get("rel") == "canonical"), "")
    if not canonical:
        raise BookError("index.html does not say where it is (rel=canonical)")
    name = next((e.get("content", "") for e in home.iter("meta") if e.get("property") == "og:site_name"), "")
    book = Book(site, urljoin(canonical, "."), name or text_of(next(home.iter("title"))), [])
    for path in order(home):
        tree = home if path == "index.html" else Reader.read((site / path).read_text(encoding="utf-8"))
        article = next((e for e in tree.iter("article") if "bd-article" in classes(e)), None)
        if article is None:
            raise BookError(f"{path} has no article")
        book.pages.append(Page(path, "", article))
    for page in book.pages:
        clean(page, book)
    for page in book.pages:
        lead(page, book)
    return book


def order(home: Element) -> list[str]:
    """The pages of the book in the order of the contents that stand on every page."""
    contents = next((e for e in home.iter("nav") if "bd-links" in classes(e)), None)
    if contents is None:
        raise BookError("index.html has no list of contents")
    links = [urlsplit(link.get("href", "")).path for link in contents.iter("a")]
    paths = dict.fromkeys(link.lstrip("./") or "index.html" for link in links)
    return [path for path in paths if path.startswith(FOLDERS)]


# --- from a page of the site to a page of the book -------------------------------------------------------------------


def clean(page: Page, book: Book) -> None:
    """Leave of an article what a book has."""
    _walk(page.article, page, book)
    title = next(page.article.iter("h1"), None)
    if title is None:
        raise BookError(f"{page.path} has no title")
    page.title = text_of(title)
    seen: set[str] = set()
    for element in page.article.iter():
        if element.get("id") in seen:
            del element.attrib["id"]
        seen.add(element.get("id", ""))
    for section in page.article.iter("section"):
        heading = section.find("h2")
        if heading is not None and section.get("id"):
            page.sections.append((section.get("id", ""), text_of(heading)))


def _walk(parent: Element, page: Page, book: Book) -> None:
    for child in list(parent):
        if child.tag in LEFT_OUT or classes(child) & LEFT_OUT_CLASSES:
            remove(parent, child)
        elif child.tag == "math":
            child.set("xmlns", "http://www.w3.org/1998/Math/MathML")
        else:
            if "ag-claim-check" in classes(child):
                _evidence(child, parent, page, book)
            _walk(child, page, book)
            if child.tag in ("details", "summary"):  # what is closed on a page is open in a book
                child.set("class", f"{child.get('class', '')} book-{child.tag}".strip())
                child.tag = "div"
            if child.tag == "img":
                _picture(child, page, book)
            child.attrib = {k: v for k, v in child.attrib.items() if k in KEPT and (v or k == "alt")}


def _evidence(details: Element, claim: Element, page: Page, book: Book) -> None:
    """In place of what was measured, the badge with the way to it."""
    badge = next(e for e in details if "ag-claim-badge" in classes(e))
    said = (badge.text or "").strip()
    for child in list(details):
        details.remove(child)
    details.tag, details.text = "p", None
    details.set("class", "book-badge")
    where = claim.get("id")
    link = ET.SubElement(details, "a", {"href": f"{book.base}{page.path}#{where}"} if where else {})
    link.text = said


def _picture(image: Element, page: Page, book: Book) -> None:
    source = image.get("src", "")
    if source.startswith("data:"):
        return
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page.path), unquote(urlsplit(source).path)))
    if not (book.site / path).is_file():
        raise BookError(f"{page.path} shows {path}, which is not there")
    book.images[path] = posixpath.basename(path)
    image.set("src", f"../images/{book.images[path]}")


def lead(page: Page, book: Book) -> None:
    """Make the links of a page lead into the book, or else to the site."""
    inside = {other.path: other for other in book.pages}
    for link in page.article.iter("a"):
        where = link.get("href")
        if where is None:
            continue
        parts = urlsplit(urljoin(f"{HERE}{page.path}", where))
        if parts.hostname != urlsplit(HERE).hostname:
            continue
        path, fragment = parts.path.lstrip("/") or "index.html", unquote(parts.fragment)
        if path not in inside:
            link.set("href", f"{book.base}{path}" + (f"#{parts.fragment}" if fragment else ""))
        elif fragment and not any(e.get("id") == fragment for e in inside[path].article.iter()):
            link.set("href", inside[path].file)
        else:
            own = path == page.path and fragment
            link.set("href", ("" if own else inside[path].file) + (f"#{fragment}" if fragment else ""))


# --- EPUB ------------------------------------------------------------------------------------------------------------


def style() -> str:
    inks = "".join(f".ag-{name} {{ color: {ink}; }}\n" for name, ink in ROLES.items())
    return STYLE.read_text(encoding="utf-8") + inks


def xhtml(title: str, body: Element | str, kind: str = "") -> str:
    """A whole document; ``kind`` is the type of its body for reading systems."""
    kind = f' epub:type="{kind}"' if kind else ""
    inner = body if isinstance(body, str) else markup(body)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n'
        f'<html xmlns="{XHTML}" xmlns:epub="{OPS}" lang="en" xml:lang="en" data-theme="light">\n'
        f'<head>\n<meta charset="utf-8"/>\n<title>{escape(title)}</title>\n'
        '<link rel="stylesheet" href="../book.css"/>\n<link rel="stylesheet" href="../pygments.css"/>\n</head>\n'
        f"<body{kind}>\n{inner}\n</body>\n</html>\n"
    )


def markup(article: Element) -> str:
    article = copy.copy(article)
    article.tail = None
    return ET.tostring(article, encoding="unicode")


def title_page(book: Book) -> str:
    return (
        f'<section class="book-title">\n<h1>{escape(book.title)}</h1>\n'
        f"<p>Version {escape(attn_guide.__version__)}</p>\n"
        f'<p>This book is made from the site <a href="{escape(book.base)}">{escape(book.base)}</a>, where each chapter '
        "also has parts that move, dark figures, and behind each claim what was measured.</p>\n</section>"
    )


def contents(book: Book) -> str:
    """The navigation document, with the sections of each page."""
    lines = ['<nav epub:type="toc" id="toc">\n<h1>Contents</h1>\n<ol>']
    for page in book.pages:
        lines.append(f'<li><a href="text/{page.file}">{escape(page.title)}</a>')
        if page.sections:
            lines.append("<ol>")
            lines += [f'<li><a href="text/{page.file}#{id}">{escape(text)}</a></li>' for id, text in page.sections]
            lines.append("</ol>")
        lines.append("</li>")
    return "\n".join([*lines, "</ol>\n</nav>"])


def modified(site: Path) -> str:
    """When the book was last changed: the newest day in the sitemap, or what SOURCE_DATE_EPOCH says."""
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sitemap = site / "sitemap.xml"
    days = re.findall(r"<lastmod>(\d{4}-\d\d-\d\d)", sitemap.read_text(encoding="utf-8")) if sitemap.is_file() else []
    return f"{max(days, default='1980-01-01')}T00:00:00Z"


TYPES = {".xhtml": "application/xhtml+xml", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png",
         ".jpg": "image/jpeg", ".woff2": "font/woff2"}  # fmt: skip


def package(book: Book, files: dict[str, bytes]) -> str:
    """The list of all files, and the order in which they are read."""
    identifier = uuid.uuid5(uuid.NAMESPACE_URL, f"{book.base}#{attn_guide.__version__}")
    reading = ["text/title.xhtml", "nav.xhtml", *(f"text/{page.file}" for page in book.pages)]
    ids = {name: f"f{number:04d}" for number, name in enumerate(sorted(files), 1)}
    items = []
    for name in sorted(files):
        kinds = ["nav"] if name == "nav.xhtml" else ["mathml"] if b"<math" in files[name] else []
        kind = f' properties="{" ".join(kinds)}"' if kinds and name.endswith(".xhtml") else ""
        items.append(f'<item id="{ids[name]}" href="{name}" media-type="{TYPES[Path(name).suffix]}"{kind}/>')
    spine = [f'<itemref idref="{ids[name]}"/>' for name in reading]
    facts = {
        "accessMode": ("textual", "visual"),
        "accessModeSufficient": ("textual",),
        "accessibilityFeature": ("alternativeText", "MathML", "structuralNavigation", "tableOfContents"),
        "accessibilityHazard": ("none",),
    }
    told = [f'<meta property="schema:{name}">{value}</meta>' for name, values in facts.items() for value in values]
    return "\n".join([
        '<?xml version="1.0" encoding="utf-8"?>',
        '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">',
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">',
        f'<dc:identifier id="id">urn:uuid:{identifier}</dc:identifier>',
        f"<dc:title>{escape(book.title)}</dc:title>",
        "<dc:language>en</dc:language>",
        "<dc:creator>The attn_guide authors</dc:creator>",
        f"<dc:source>{escape(book.base)}</dc:source>",
        f'<meta property="dcterms:modified">{modified(book.site)}</meta>',
        *told,
        "</metadata>",
        "<manifest>", *items, "</manifest>",
        "<spine>", *spine, "</spine>",
        "</package>\n",
    ])  # fmt: skip


CONTAINER = """\
<?xml version="1.0" encoding="utf-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>
"""


def parts(book: Book) -> dict[str, bytes]:
    """The files of the EPUB below its folder, without the list of them."""
    texts = {f"text/{page.file}": xhtml(page.title, page.article) for page in book.pages}
    texts["text/title.xhtml"] = xhtml(book.title, title_page(book), "titlepage")
    texts["nav.xhtml"] = xhtml("Contents", contents(book)).replace('href="../', 'href="')
    texts["book.css"] = style()
    texts["pygments.css"] = (book.site / "_static" / "pygments.css").read_text(encoding="utf-8")
    files = {name: text.encode("utf-8") for name, text in texts.items()}
    for path, name in book.images.items():
        content = (book.site / path).read_bytes()
        files[f"images/{name}"] = (
            unique_ids(content.decode("utf-8")).encode("utf-8") if name.endswith("svg") else content
        )
    files |= {f"fonts/{font.name}": font.read_bytes() for font in sorted((book.site / FONTS).glob("*.woff2"))}
    return files


def unique_ids(svg: str) -> str:
    """A figure in which each id stands once, as XML wants it; all its arrows are called so."""
    seen: set[str] = set()

    def once(found: re.Match[str]) -> str:
        new = found[1] not in seen
        seen.add(found[1])
        return found[0] if new else ""

    return re.sub(r'\sid="([^"]*)"', once, svg)


def write_epub(book: Book, target: Path) -> None:
    """Write the EPUB, whole or not at all: the first file says what it is, uncompressed."""
    files = parts(book)
    files["package.opf"] = package(book, files).encode("utf-8")
    entries = [("mimetype", b"application/epub+zip"), ("META-INF/container.xml", CONTAINER.encode("utf-8"))]
    entries += [(f"EPUB/{name}", files[name]) for name in sorted(files)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in entries:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.create_system = 0o644 << 16, 3
            packed.writestr(entry, content, zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED, 9)
    replace(target, buffer.getvalue())


def faults(path: Path) -> Iterator[str]:
    """What an EPUB of this module has that a reading system would refuse or could not show."""
    with zipfile.ZipFile(path) as packed:
        first = packed.infolist()[0]
        if (first.filename, first.compress_type, first.extra) != ("mimetype", zipfile.ZIP_STORED, b""):
            yield "the first file is not the type, uncompressed"
        files = {
            name.removeprefix("EPUB/"): packed.read(name) for name in packed.namelist() if name.startswith("EPUB/")
        }
    opf = ET.fromstring(files["package.opf"])
    items = {item.get("id"): item for item in opf.findall(".//{*}item")}
    listed = {item.get("href", "") for item in items.values()}
    if listed != set(files) - {"package.opf"}:
        yield f"the list of files is not that of the zip: {sorted(listed ^ set(files) - {'package.opf'})}"
    if not any(item.get("properties") == "nav" for item in items.values()):
        yield "no navigation"
    if not {ref.get("idref") for ref in opf.findall(".//{*}itemref")} <= set(items):
        yield "the reading order names no file"
    trees: dict[str, Element] = {}
    for name, content in files.items():
        if name.endswith((".xhtml", ".svg")):
            try:
                trees[name] = ET.fromstring(content)
            except ET.ParseError as error:
                yield f"{name} is not well-formed: {error}"
    ids = {name: [e.get("id") for e in tree.iter() if e.get("id")] for name, tree in trees.items()}
    for name, tree in trees.items():
        if len(ids[name]) != len(set(ids[name])):
            yield f"{name} has an id twice"
        if name.endswith(".xhtml"):
            yield from (f"{name} {fault}" for fault in _page_faults(name, tree, files, ids))


def _page_faults(name: str, tree: Element, files: dict[str, bytes], ids: dict[str, list[str | None]]) -> Iterator[str]:
    for element in tree.iter():
        tag = element.tag.removeprefix(f"{{{XHTML}}}")
        if tag in LEFT_OUT - {"nav"}:
            yield f"has a <{tag}>"
        if tag == "math":
            yield "is a formula in no namespace"
        if tag == "img" and not element.get("alt"):
            yield "has a picture without words"
        yield from (f"has an attribute {key}" for key in element.attrib if key.startswith("on"))
        link = element.get("href") or element.get("src")
        if link is None or urlsplit(link).scheme in ("http", "https", "mailto"):
            continue
        target = urlsplit(link)
        file = posixpath.normpath(posixpath.join(posixpath.dirname(name), target.path)) if target.path else name
        if file not in files or (target.fragment and unquote(target.fragment) not in ids.get(file, ())):
            yield f"leads to {link}, which is not there"


def replace(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.new")
    try:
        beside.write_bytes(content)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


# --- PDF -------------------------------------------------------------------------------------------------------------

PRINTED = """
@page { size: A4; margin: 20mm 18mm 22mm; }
body { font-size: 10.5pt; margin: 0; }
.book-page { break-before: page; }
.book-title { padding-top: 80mm; }
.book-contents { break-before: page; }
.book-contents ol { list-style: none; padding-left: 0; line-height: 1.3; }
.book-contents ol ol { padding: 0 0 0.4em 1.5em; font-size: 0.84em; columns: 3; column-gap: 1.5em; }
.book-contents a { text-decoration: none; }
figure img { max-height: 215mm; }
"""
FOOTER = """
<div style="width: 100%; font: 8pt Palatino, Georgia, serif; color: #535e6c; text-align: center">
<span class="pageNumber"></span></div>
"""
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def printable(book: Book) -> str:
    """All pages as one document; every id and every link carries the name of its page."""
    listed = contents(book).replace("<nav", '<nav class="book-contents"').replace('href="text/', 'href="')
    bodies = [title_page(book), listed]
    for page in book.pages:
        section = copy.deepcopy(page.article)
        section.tag, section.tail = "section", None
        section.set("class", "book-page")
        for element in section.iter():
            if element.get("id"):
                element.set("id", f"{page.file}--{element.get('id')}")
        section.set("id", page.file)
        bodies.append(ET.tostring(section, encoding="unicode").replace('href="#', f'href="{page.file}#'))
    names = "|".join(re.escape(page.file) for page in book.pages)
    joined = re.sub(rf'href="({names})#([^"]+)"', r'href="#\1--\2"', "\n".join(bodies))
    joined = re.sub(rf'href="({names})"', r'href="#\1"', joined).replace('src="../', 'src="')
    head = f"<style>{PRINTED}</style>\n</head>"
    return xhtml(book.title, joined).replace('href="../', 'href="').replace("</head>", head)


def write_pdf(book: Book, target: Path, chromium: str) -> None:
    """Print the book with Chromium; the contents of the book are the outline of the PDF."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name, content in {**parts(book), "book.xhtml": printable(book).encode("utf-8")}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(color_scheme="light")
            page.goto((folder / "book.xhtml").as_uri(), wait_until="load", timeout=300_000)
            page.evaluate("document.fonts.ready.then(() => {})")
            printed = page.pdf(
                prefer_css_page_size=True, print_background=True, display_header_footer=True,
                header_template="<span></span>", footer_template=FOOTER, tagged=True, outline=True,
            )  # fmt: skip
            browser.close()
    replace(target, printed)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.book", description="Make a book of the built site.")
    parser.add_argument("form", choices=("epub", "pdf"))
    parser.add_argument("site", type=Path, nargs="?", default=Path("_build/html"))
    parser.add_argument("--to", type=Path, default=Path("_build/offline"), help="the folder for the book")
    options = parser.parse_args(arguments)
    target = options.to / f"attn-guide-{attn_guide.__version__}.{options.form}"
    if not (options.site / "index.html").is_file():
        print(f"error: {options.site} holds no built site.\n  Build it first: make html", file=sys.stderr)
        return 1
    chromium = find_chromium() if options.form == "pdf" else ""
    if chromium is None:
        print(HOW, file=sys.stderr)
        return 1
    try:
        book = read(options.site)
        if options.form == "pdf":
            write_pdf(book, target, chromium)
        else:
            write_epub(book, target)
            if found := list(faults(target)):
                raise BookError(f"{target} is not sound:\n  " + "\n  ".join(found))
    except (BookError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{target}  {target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
