"""What a walk over the pages looks at, in both themes, on a wide and a narrow screen."""

from __future__ import annotations

from pathlib import Path

import axe_playwright_python
from playwright.sync_api import Browser, Page
from reading import Trouble

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 780}

# Colours depend on the theme and not on the width, everything else on the width and not on the theme; so each page is
# searched for bad colours twice, on the wide screen, and for all else twice, in the light theme.
COLOURS = ["color-contrast", "link-in-text-block"]
ALL_BUT_COLOURS = {rule: {"enabled": False} for rule in COLOURS}

# Code is thousands of coloured words, whose colours test_style.py compares one by one, and the pages made from code
# stand in one frame with all others. So the colours of code are looked at on each third page that people write. Of the
# pages made from code each twentieth is looked at whole; of the others what is their own, in one theme or the other.
MADE_FROM_CODE = ("_modules/", "api/generated/", "gallery/")
CODE = ["div.highlight pre", "dt.sig"]
FRAME = [".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header", ".bd-footer"]

STILL = """addEventListener("DOMContentLoaded", () => {
  const style = new CSSStyleSheet();  // a style element would need a hash in the policy of the page
  style.replaceSync("*, *::before, *::after { transition: none !important; animation: none !important; }");
  document.adoptedStyleSheets.push(style);
})"""  # a colour in transition has no contrast to speak of

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
  const text = article?.textContent || "";
  const raw = text.match(/\\\\(frac|sum|sqrt|operatorname|calc|given|softmax|begin)\\b/)
    || text.match(/\\{(calc|given|term|func|ref)\\}|\\$\\$/);
  if (raw) found.push(`raw markup: ${raw[0]}`);
  return found;
}"""

CUT_TITLES = """() => [...document.querySelectorAll(".prev-next-area a")]
  .filter(link => link.scrollWidth > link.clientWidth + 1)
  .map(link => `cut: ${link.textContent.trim().replace(/\\s+/g, " ")}`)"""

OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const scrolls = e => getComputedStyle(e).overflowX !== "visible";
  const inside = e => {
    const p = e.parentElement;
    return p && p !== document.body && (scrolls(p) || inside(p));
  };
  const wide = [...document.body.querySelectorAll("*")]
    .filter(e => e.getBoundingClientRect().right > width + 1 && !inside(e));
  return [`wider than the screen: ${wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)).join(" | ") || "?"}`];
}"""


def is_mathematics(rule: str, html: str) -> bool:
    """Whether axe finds a header empty because all of it is a formula: screen readers read MathML, axe does not."""
    return rule == "empty-table-header" and "<math" in html


def look(page: Page, name: str, options: dict[str, object], context: object = None) -> list[str]:
    """The faults of a page as it stands on the screen."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = [*page.evaluate(IMAGES), *page.evaluate(FORMULAS), *page.evaluate(OVERFLOW), *page.evaluate(CUT_TITLES)]
    # Without preload: axe fetches style sheets by itself, by addresses that are wrong for an @import in one of them.
    options = {"resultTypes": ["violations"], "elementRef": False, "preload": False, **options}
    run = "([context, options]) => axe.run(context || document, options)"
    if options.get("runOnly") == []:  # nothing that axe looks for is new
        return [f"{name}: {fault}" for fault in found]
    for violation in page.evaluate(run, [context, options])["violations"]:
        nodes = [node["html"] for node in violation["nodes"] if not is_mathematics(violation["id"], node["html"])]
        if nodes:
            places = "; ".join(html[:160] for html in nodes[:3])
            found.append(f"axe {violation['id']}: {violation['help']} ({len(nodes)}): {places}")
    return [f"{name}: {fault}" for fault in found]


def walk(browser: Browser, address: str, paths: list[str], trouble: Trouble) -> list[str]:
    """The faults of these pages. A page is opened once and looked at in four ways: only colours and width differ."""
    context = browser.new_context(viewport=NARROW, base_url=address, color_scheme="light", reduced_motion="reduce")
    context.add_init_script(STILL)
    page = context.new_page()
    trouble.watch(page)
    faults = []
    for number, path in enumerate(paths):
        made = path.startswith(MADE_FROM_CODE)
        whole = number % 20 == 1 if made else number % 3 == 0
        part = None if whole else {"exclude": CODE + FRAME if made else CODE}
        alone = made and not whole  # then each theme has its colours looked at on every other page
        page.set_viewport_size(NARROW)
        page.goto(f"/{path}", wait_until="load")
        page.evaluate("document.fonts.ready.then(() => {})")
        page.evaluate(AXE)
        found = look(page, "narrow, light", {"rules": ALL_BUT_COLOURS}, part)
        page.evaluate(SET_THEME, "dark")
        found += look(page, "narrow, dark", {"runOnly": []}, part)
        page.set_viewport_size(WIDE)
        found += look(page, "wide, dark", {"runOnly": [] if alone and number % 2 else COLOURS}, part)
        page.evaluate(SET_THEME, "light")
        found += look(page, "wide, light", {"runOnly": COLOURS if number % 2 else []} if alone else {}, part)
        faults += [f"{path}: {fault}" for fault in dict.fromkeys([*found, *trouble.take()])]
    context.close()
    return faults
