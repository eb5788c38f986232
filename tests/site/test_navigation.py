"""What a reader does with the site: find, go on, switch the theme, copy, open a badge, all of it by keyboard too."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = [path.stem for path in sorted((ROOT / "docs" / "chapters").glob("*.md"))]


def theme(page: Page) -> str:
    return page.evaluate("document.documentElement.dataset.theme")


def test_the_theme_follows_the_system_then_the_reader(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto("/index.html")
    assert theme(page) == "dark"
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.locator("button.theme-switch-button:visible, .theme-switch-container button:visible").first.click()
    choice = page.locator("[data-mode='light']:visible, button[value='light']:visible").first
    choice.click()
    assert theme(page) == "light"
    assert page.evaluate(background) != dark
    page.goto(f"/chapters/{CHAPTERS[-1]}.html")
    assert theme(page) == "light", "the choice is forgotten on the next page"


def test_the_first_tab_skips_to_the_text(page: Page) -> None:
    page.goto(f"/chapters/{CHAPTERS[-1]}.html")
    page.keyboard.press("Tab")
    expect(page.locator("#pst-skip-link a")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main-content"


def test_previous_and_next_follow_the_book(page: Page) -> None:
    """From Home through every chapter in order, and back by the links to what came before."""
    walk = ["index", *(f"chapters/{name}" for name in CHAPTERS)]
    page.goto("/index.html")
    for before, after in itertools.pairwise(walk):
        page.locator("a.right-next").click()
        page.wait_for_url(f"**/{after}.html")
        back = urljoin(page.url, page.locator("a.left-prev").get_attribute("href"))
        assert back.split("#")[0].endswith(f"/{before}.html")


def test_the_contents_list_the_whole_book_on_every_page(page: Page) -> None:
    page.goto(f"/chapters/{CHAPTERS[0]}.html")
    links = page.locator(".bd-sidebar-primary .bd-links a").evaluate_all("links => links.map(a => a.href)")
    for name in CHAPTERS:
        assert any(link.split("#")[0].endswith(f"/{name}.html") or link.endswith("#") for link in links), name
    assert page.locator(".bd-sidebar-primary a.current").count() >= 1


def test_search_finds_a_term(page: Page) -> None:
    page.goto("/index.html")
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input[type=search]").fill("sparsemax")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=sparsemax*")
    for wanted in ("7-soft-hard", "glossary"):  # results appear one by one
        expect(page.locator(f"#search-results li a[href*='{wanted}']").first).to_be_visible(timeout=15_000)


def test_a_code_block_is_copied_without_its_prompts(page: Page) -> None:
    page.goto("/index.html")
    block = page.locator("div.highlight", has=page.locator(".gp")).first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "import" in copied
    assert ">>>" not in copied
    output = block.locator(".go").first.inner_text().strip()
    assert output not in copied


def test_a_badge_opens_by_keyboard(page: Page) -> None:
    page.goto("/index.html")
    badge = page.locator(".ag-claim-badge").first
    details = page.locator(".ag-claim-check").first
    badge.focus()
    page.keyboard.press("Enter")
    expect(details).to_have_attribute("open", "")
    expect(details.locator("table, p").first).to_be_visible()
    page.keyboard.press("Enter")
    expect(details).not_to_have_attribute("open", "")


def test_the_404_page_works_at_any_depth(page: Page, trouble) -> None:
    response = page.goto("/chapters/no/such/page.html")
    assert response is not None
    assert response.status == 404
    expect(page.locator("h1").first).to_contain_text("not found", ignore_case=True)
    assert page.evaluate("[...document.styleSheets].reduce((rules, sheet) => rules + sheet.cssRules.length, 0)") > 500
    home = page.locator("a.navbar-brand").first
    home.click()
    expect(page).to_have_title(re.compile("Attention"))
    unwanted = [
        fault for fault in trouble.take() if "/no/such/page.html" not in fault and "404 (Not Found)" not in fault
    ]
    assert not unwanted


def test_edit_leads_to_the_file_the_page_is_made_from(page: Page, html: Path) -> None:
    expected = {
        "chapters/7-soft-hard.html": "docs/chapters/7-soft-hard.md",
        "api/generated/core.html": "attn_guide/core.py",
        "api/generated/plot.html": "attn_guide/plot/__init__.py",
    }
    for script in sorted((html / "gallery").rglob("plot_*.html"))[:1]:
        name = script.relative_to(html).with_suffix(".py").as_posix()
        expected[script.relative_to(html).as_posix()] = name
    for path, source in expected.items():
        page.goto(f"/{path}")
        link = page.locator(".editthispage a").first.get_attribute("href")
        assert link is not None
        assert re.fullmatch(rf"https://github\.com/[\w-]+/[\w.-]+/edit/main/{re.escape(source)}", link)
        assert (ROOT / source).is_file()


def test_a_notebook_can_be_downloaded_from_every_gallery_page(page: Page, html: Path) -> None:
    scripts = sorted((html / "gallery").rglob("plot_*.html"))
    assert scripts
    page.goto(f"/{scripts[0].relative_to(html).as_posix()}")
    with page.expect_download() as download:
        page.locator("a[href$='.ipynb']").first.click()
    notebook = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert any(cell["cell_type"] == "code" for cell in notebook["cells"])
    for script in scripts:
        assert ".ipynb" in script.read_text(encoding="utf-8"), script


def test_a_wide_formula_scrolls_in_its_own_box_and_can_be_reached(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 780})
    page.goto("/index.html")
    box = page.locator(".ag-formula").first
    box.evaluate("e => e.querySelector('math').style.minWidth = '900px'")
    page.evaluate("dispatchEvent(new Event('resize'))")
    expect(box).to_have_attribute("tabindex", "0")
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("system", "chosen", "wanted"), [
    ("dark", None, "dark"), ("light", None, "light"), ("light", "dark", "dark"), ("dark", "light", "light"),
    ("dark", "auto", "dark"),
])  # fmt: skip
def test_a_page_has_its_theme_before_the_script_of_the_theme_comes(
    browser: Browser, address: str, system: str, chosen: str | None, wanted: str
) -> None:
    """Else a dark screen flashes."""
    context = browser.new_context(base_url=address, color_scheme=system)
    page = context.new_page()
    page.route("**/scripts/*.js*", lambda route: route.abort())
    if chosen is not None:
        context.add_init_script(f"localStorage.setItem('mode', '{chosen}')")
    page.goto("/index.html")
    assert theme(page) == wanted
    assert page.locator(f"img.only-{wanted}").first.is_visible()
    context.close()
