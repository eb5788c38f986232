"""Every page of the site, in both themes, on a wide and a narrow screen: what must hold everywhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
import pytest
from conftest import Trouble
from playwright.sync_api import Browser, Page

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 780}

# What a theme can change: everything else that axe looks for is the same in both, and is looked for in the light one.
COLOURS = ["color-contrast", "link-in-text-block"]

SET_THEME = """theme => {
  document.documentElement.dataset.mode = theme;
  document.documentElement.dataset.theme = theme;
}"""

IMAGES = """async () => {
  const shown = [...document.images].filter(image => image.checkVisibility());
  for (const image of shown) image.loading = "eager";
  await Promise.all(shown.map(image => image.decode().catch(() => {})));
  return shown.filter(image => !image.naturalWidth).map(image => `image not loaded: ${image.src}`);
}"""

FORMULAS = """() => {
  const found = [];
  for (const place of document.querySelectorAll("span.math, div.math")) {
    const formula = place.querySelector("math");
    if (!formula) { found.push(`no formula in ${place.outerHTML.slice(0, 80)}`); continue; }
    if (!place.checkVisibility()) continue;
    const box = formula.getBoundingClientRect();
    if (box.width < 3 || box.height < 5) found.push(`formula without size: ${formula.getAttribute("alttext")}`);
  }
  if (document.querySelector("merror")) found.push("a formula with an error");
  const article = document.querySelector("article")?.cloneNode(true);
  article?.querySelectorAll("pre, code, script, .sig, details.source").forEach(code => code.remove());
  const raw = (article?.textContent || "").match(/\\\\(frac|sum|sqrt|operatorname|calc|given|softmax|begin)\\b|\\{(calc|given|term|func|ref)\\}|\\$\\$/);
  if (raw) found.push(`raw markup: ${raw[0]}`);
  return found;
}"""

OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const scrolls = e => getComputedStyle(e).overflowX !== "visible";
  const inside = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) if (scrolls(p)) return true; };
  const wide = [...document.body.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > width + 1 && !inside(e));
  return [`wider than the screen: ${wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join(" | ") || "?"}`];
}"""


def look(page: Page, name: str, rules: list[str] | None) -> list[str]:
    """The faults of a page as it stands on the screen."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = [*page.evaluate(IMAGES), *page.evaluate(FORMULAS), *page.evaluate(OVERFLOW)]
    options = {"resultTypes": ["violations"], "elementRef": False}
    if rules:
        options["runOnly"] = rules
    for violation in page.evaluate("options => axe.run(document, options)", options)["violations"]:
        places = "; ".join(node["html"][:160] for node in violation["nodes"][:3])
        found.append(f"axe {violation['id']}: {violation['help']} ({len(violation['nodes'])}): {places}")
    return [f"{name}: {fault}" for fault in found]


@pytest.mark.browser()
@pytest.mark.parametrize("share", range(4))
def test_every_page(browser: Browser, address: str, pages: list[str], trouble: Trouble, share: int) -> None:
    """One page is opened once and looked at in four ways, since only its colours and its width differ."""
    context = browser.new_context(viewport=WIDE, base_url=address, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    trouble.watch(page)
    faults = []
    for path in pages[share::4]:
        page.set_viewport_size(WIDE)
        page.goto(f"/{path}")
        page.wait_for_load_state("networkidle")
        page.evaluate(AXE)
        found = look(page, "wide, light", None)
        page.evaluate(SET_THEME, "dark")
        found += look(page, "wide, dark", COLOURS)
        page.set_viewport_size(NARROW)
        page.wait_for_timeout(300)  # longer than what the scripts wait after a resize
        found += look(page, "narrow, dark", COLOURS)
        page.evaluate(SET_THEME, "light")
        found += look(page, "narrow, light", None)
        faults += [f"{path}: {fault}" for fault in dict.fromkeys([*found, *trouble.take()])]
    context.close()
    assert not faults, "\n".join(faults)


@pytest.mark.browser()
def test_the_walk_would_notice(browser: Browser, address: str) -> None:
    """The looks above find what they look for, in a page that has every fault."""
    context = browser.new_context(viewport=NARROW, base_url=address)
    page = context.new_page()
    trouble = Trouble(urlsplit(address).netloc)
    trouble.watch(page)
    page.route("http://elsewhere.invalid/*", lambda route: route.abort())
    page.goto("/robots.txt")
    page.set_content(
        "<html lang=en><title>t</title><main><h1>h</h1><article><p>\\frac{1}{2}</p>"
        "<span class=math>x</span><div style='width: 900px; background: #fff; color: #eee'>pale</div>"
        "<img src='/missing.png'><script src='http://elsewhere.invalid/x.js'></script></article></main></html>"
    )
    page.wait_for_load_state("networkidle")
    page.evaluate(AXE)
    found = "\n".join([*look(page, "page", None), *trouble.take()])
    context.close()
    for fault in (
        "image not loaded",
        "no formula in",
        "raw markup",
        "wider than the screen",
        "axe image-alt",
        "axe color-contrast",
        "asks another host",
        "404",
    ):
        assert fault in found
