"""The guide away from its site: the zip that opens from the file system, the notebooks to download, the books."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from reading import ROOT, Trouble

from tools import book, bundle, notebooks

CHAPTERS = sorted(path.stem for path in (ROOT / "docs" / "chapters").glob("*.md"))
FONTS = "document.fonts.ready.then(fonts => [...fonts].filter(f => f.status === 'loaded').map(f => f.family))"


@pytest.fixture(scope="module")
def unpacked(html: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a reader gets who unpacks the zip."""
    folder = tmp_path_factory.mktemp("offline")
    made = bundle.write(html, folder / "guide.zip")
    with zipfile.ZipFile(made) as packed:
        packed.extractall(folder)
    return folder / "guide"


class FileTrouble(Trouble):
    """Of a page from the file system: it may ask for files, and for nothing else."""

    def _request(self, request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.found.append(f"needs a network: {request.url}")


@pytest.fixture
def offline(browser: Browser) -> Iterator[Page]:
    """A tab without a network."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light", offline=True)
    tab = context.new_page()
    trouble = FileTrouble("")
    trouble.watch(tab)
    yield tab
    context.close()
    assert not trouble.found


@pytest.mark.browser
def test_search_leads_from_the_first_page_to_a_chapter(offline: Page, unpacked: Path) -> None:
    offline.goto((unpacked / "index.html").as_uri())
    offline.keyboard.press("Control+k")
    offline.locator("#pst-search-dialog input[type=search]").fill("teacher forcing")
    offline.keyboard.press("Enter")
    offline.wait_for_url("**/search.html?q=teacher*")
    result = offline.locator("#search-results li a[href*='4-causal']").first
    expect(result).to_be_visible(timeout=15_000)
    result.click()
    offline.wait_for_url("**/chapters/4-causal.html*")
    expect(offline.locator("h1")).to_contain_text("Causal attention")


@pytest.mark.browser
def test_a_chapter_has_its_formulas_figures_fonts_and_themes(offline: Page, unpacked: Path) -> None:
    page = unpacked / "chapters" / "4-causal.html"
    offline.goto(page.as_uri())
    formulas = offline.locator("math").evaluate_all("all => all.map(f => f.getBoundingClientRect().height > 4)")
    assert len(formulas) == page.read_text(encoding="utf-8").count("<math ")
    assert sum(formulas) > 50
    for theme in ("light", "dark"):
        offline.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        broken = offline.evaluate(
            """async () => {
              const shown = [...document.images].filter(image => image.checkVisibility());
              for (const image of shown) image.loading = "eager";
              await Promise.all(shown.map(image => image.decode()));
              return [shown.length, shown.filter(image => !image.naturalWidth).map(image => image.src)];
            }"""
        )
        assert broken[0] > 10
        assert broken[1] == []
    assert {"Guide Text", "Guide Math"} <= set(offline.evaluate(FONTS))


@pytest.mark.browser
def test_the_readers_theme_stays_on_the_next_page(offline: Page, unpacked: Path) -> None:
    offline.goto((unpacked / "index.html").as_uri())
    offline.locator(".theme-switch-container button:visible, button.theme-switch-button:visible").first.click()
    offline.locator("[data-mode='dark']:visible, button[value='dark']:visible").first.click()
    assert offline.evaluate("document.documentElement.dataset.theme") == "dark"
    # A browser that reads another file in another process hands it what was stored when it comes to it.
    for _ in range(20):
        offline.goto((unpacked / "chapters" / "0-concepts.html").as_uri())
        if offline.evaluate("document.documentElement.dataset.theme") == "dark":
            return
        offline.wait_for_timeout(250)
    pytest.fail("the next page is not dark")


@pytest.mark.browser
def test_every_explorer_starts_without_a_server(offline: Page, unpacked: Path) -> None:
    started = []
    for page in [unpacked / "index.html", *sorted((unpacked / "chapters").glob("*.html"))]:
        if "data-explorer=" not in page.read_text(encoding="utf-8"):
            continue
        offline.goto(page.as_uri())
        for explorer in offline.locator(".ag-explorer").all():
            explorer.scroll_into_view_if_needed()
            expect(explorer.locator("input:visible, button:visible, select:visible").first).to_be_visible()
            expect(explorer.locator(".ag-explorer-failed")).to_have_count(0)
            started.append(explorer.get_attribute("data-explorer"))
    assert {"masks", "scaling"} <= set(started)


@pytest.mark.browser
def test_the_notebook_of_a_chapter_is_downloaded_from_its_page(page: Page, html: Path) -> None:
    for name in CHAPTERS:
        page.goto(f"/chapters/{name}.html")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download as notebook").click()
        notebook = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        assert list(notebooks.faults(notebook)) == []
        assert download.value.suggested_filename == f"{name}.ipynb"
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert len([cell for cell in code if cell["outputs"]]) > 20, f"{name} has lost its code"
        text = "".join(line for cell in notebook["cells"] for line in cell["source"])
        for raw in ("{calc}", "{term}", "{cite", ":::", "{ref}", "\\calc", "\\given"):
            assert raw not in text, f"{name} holds {raw}"
        for figure in re.findall(r"/(_images/[\w-]+\.svg)\)", text):
            assert (html / figure).is_file(), f"{name} shows {figure}"
    page.goto("/index.html")
    assert page.get_by_role("link", name="Download as notebook").count() == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", CHAPTERS)
def test_the_notebook_of_a_chapter_runs_and_gives_its_outputs(html: Path, share: str) -> None:
    _, faults = notebooks.in_a_process(html / "chapters" / f"{share}.ipynb")
    assert not faults, "\n".join(faults)


def test_the_notebook_of_a_gallery_page_shows_its_figure(html: Path) -> None:
    downloads = {path.stem: path for path in (html / "_downloads").rglob("plot_*.ipynb")}
    scripts = {path.stem for path in (ROOT / "gallery").rglob("plot_*.py")}
    assert scripts <= set(downloads)
    for name in ("plot_causal_steps", "plot_one_picture"):
        _, faults = notebooks.in_a_process(downloads[name])
        assert not faults, "\n".join(faults)


@pytest.fixture(scope="module")
def guide(html: Path) -> book.Book:
    return book.read(html)


def test_the_book_has_home_every_chapter_and_every_appendix(guide: book.Book) -> None:
    pages = [page.path for page in guide.pages]
    assert pages[: len(CHAPTERS) + 1] == ["index.html", *(f"chapters/{name}.html" for name in CHAPTERS)]
    appendices = {f"appendices/{path.stem}.html" for path in (ROOT / "docs" / "appendices").glob("*.md")}
    assert set(pages[len(CHAPTERS) + 1 :]) == appendices


def test_the_epub_is_whole(guide: book.Book, tmp_path: Path) -> None:
    """Pages are well-formed and lead where they say; no script is there, and all formulas, figures and code are."""
    book.write_epub(guide, tmp_path / "guide.epub")
    assert list(book.faults(tmp_path / "guide.epub")) == []
    with zipfile.ZipFile(tmp_path / "guide.epub") as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    for page in guide.pages:
        site = (guide.site / page.path).read_text(encoding="utf-8")
        article = site[site.index('<article class="bd-article"') : site.index("</article>")]
        made = files[f"EPUB/text/{page.file}"].decode("utf-8")
        # What was measured is left out, and may hold formulas of its own; everything else is there.
        outside = re.sub(r'<details class="ag-claim-check">.*?</details>', "", article, flags=re.DOTALL)
        assert made.count("<math ") == outside.count("<math "), page.path
        assert made.count("<img ") == len(re.findall(r"<img (?![^>]*only-dark)", outside)), page.path
        assert made.count('class="gp"') == outside.count('class="gp"'), page.path


@pytest.mark.slow
@pytest.mark.browser
def test_the_pdf_holds_every_page(guide: book.Book, browser: Browser, tmp_path: Path) -> None:
    """Nothing is wider than the sheet, all fonts and pictures have come, and it is printed."""
    files = {**book.parts(guide), "book.xhtml": book.printable(guide).encode("utf-8")}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    page = browser.new_page(viewport={"width": 658, "height": 900})  # the text of a sheet of A4, at 96 dots an inch
    page.emulate_media(media="print")
    page.goto((tmp_path / "book.xhtml").as_uri())
    assert page.locator(".book-page").count() == len(guide.pages)
    assert {"Guide Text", "Guide Math"} <= set(page.evaluate(FONTS))
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)") == []
    wide = page.evaluate(
        """() => [...document.querySelectorAll("math, img, pre, table, p, h1, h2, h3")]
          .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
          .map(e => e.closest("[id]").id + ": " + e.outerHTML.slice(0, 150))"""
    )
    assert not wide, "\n".join(wide)
    page.close()
