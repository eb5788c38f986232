"""The explorers, played with in the browser: by mouse, keyboard and finger, in both themes, and with bad intentions.

What a page shows is compared with the package, from what is written on the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from guide_ext.explorers import EXPLORERS
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from test_pages import ALL_BUT_COLOURS, AXE, COLOURS, NARROW, OVERFLOW, SET_THEME, STILL, WIDE, look

import attn_guide as ag
from conftest import Trouble

MODULES = Path(__file__).resolve().parents[2] / "docs" / "_static" / "explorers"
HOSTILE = "<img src=x onerror='window.broken=1'>"

pytestmark = pytest.mark.browser
every_explorer = pytest.mark.parametrize("name", EXPLORERS)


@pytest.fixture(scope="session")
def where(html: Path, pages: list[str]) -> dict[str, str]:
    """The page of each explorer."""
    found = {}
    for path in pages:
        for name in re.findall(r'data-explorer="([\w-]+)"', (html / path).read_text(encoding="utf-8")):
            found[name] = path
    return found


Open = Callable[..., Locator]


@pytest.fixture
def open_explorer(page: Page, where: dict[str, str]) -> Open:
    """Open the page of an explorer at a link to it, and wait until it is there."""

    def run(name: str, state: str = "", tab: Page = page) -> Locator:
        tab.goto("about:blank")  # or a new state would be a change of the address within the page
        tab.goto(f"/{where[name]}#explorer-{name}{':' + state if state else ''}")
        root = tab.locator(f"#explorer-{name}[data-live]")
        root.wait_for(timeout=10_000)
        return root

    return run


@pytest.fixture
def telephone(browser: Browser, address: str, trouble: Trouble) -> Iterator[Page]:
    """A tab on a narrow screen that is touched."""
    context: BrowserContext = browser.new_context(
        viewport=NARROW, base_url=address, has_touch=True, is_mobile=True, reduced_motion="reduce"
    )
    tab = context.new_page()
    trouble.watch(tab)
    yield tab
    context.close()
    assert not trouble.found


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", "").split()[0])


def fact(root: Locator, name: str) -> str:
    term = root.page.locator(f"dt:text-is({json.dumps(name, ensure_ascii=False)})")
    return root.locator(".ag-x-facts > div", has=term).locator("dd").inner_text()


def shown(root: Locator) -> str:
    """All that an explorer says, but for what its buttons answered."""
    root.page.wait_for_timeout(100)
    return root.locator(".ag-explorer-body").evaluate(
        """body => { const copy = body.cloneNode(true);
          copy.querySelectorAll(".ag-x-note, .ag-x-live").forEach(e => e.remove());
          const set = e => e.type === "checkbox" || e.type === "radio" ? e.checked : e.value;
          const typed = [...body.querySelectorAll("input, select")].map(set);
          return [copy.textContent, ...typed].join("|"); }"""
    )


def cells(root: Locator, label: str) -> list[list[str]]:
    """What a screen reader hears of each cell of a matrix, after its row and column."""
    return root.locator(f"table[aria-label^={json.dumps(label)}]").evaluate(
        """table => [...table.rows].map(row => [...row.querySelectorAll("td[data-at]")]
          .map(cell => cell.getAttribute("aria-label").replace(/^.*: /s, ""))).filter(row => row.length)"""
    )


def numbers(root: Locator, label: str) -> np.ndarray:
    return np.array([[number(cell) for cell in row] for row in cells(root, label)])


def set_slider(root: Locator, label: str, value: str) -> None:
    root.get_by_label(f"{label}, as a number").fill(value)
    root.page.wait_for_timeout(60)


# --- what holds for every explorer ----------------------------------------------------------------------


def test_every_explorer_is_on_one_page_and_every_module_is_one(where: dict[str, str]) -> None:
    shared = {"attention", "colours", "loader", "ui"}
    assert set(where) == set(EXPLORERS)
    assert {path.stem for path in MODULES.glob("*.js")} - shared == set(EXPLORERS)


@every_explorer
def test_without_scripts_a_figure_stands_there(
    browser: Browser, address: str, where: dict[str, str], name: str
) -> None:
    context = browser.new_context(base_url=address, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/{where[name]}")
    root = page.locator(f"#explorer-{name}")
    assert root.locator("figure img").first.get_attribute("alt")
    assert root.locator(".ag-explorer-intro p").first.is_visible()
    assert root.locator(".ag-explorer-body").count() == 0
    context.close()


@every_explorer
def test_it_loads_when_it_comes_near_and_weighs_little(page: Page, where: dict[str, str], name: str) -> None:
    weight: dict[str, int] = {}
    page.on(
        "response", lambda r: weight.update({urlsplit(r.url).path: len(r.body())}) if "/explorers/" in r.url else None
    )
    page.goto(f"/{where[name]}", wait_until="networkidle")
    root = page.locator(f"#explorer-{name}")
    far = root.evaluate("root => root.getBoundingClientRect().top > innerHeight + 700")
    if far:
        assert not any(path.endswith(f"/{name}.js") for path in weight)
    root.scroll_into_view_if_needed()
    page.locator(f"#explorer-{name}[data-live]").wait_for()
    assert not root.locator(".ag-explorer-fallback").is_visible()
    page.wait_for_load_state("networkidle")
    assert any(path.endswith(f"/{name}.js") for path in weight)
    others = [other for other, path in where.items() if path == where[name] and other != name]
    for other in others:  # the limit is one for the page
        page.locator(f"#explorer-{other}").scroll_into_view_if_needed()
        page.locator(f"#explorer-{other}[data-live]").wait_for()
    page.wait_for_load_state("networkidle")
    assert sum(weight.values()) < 100_000, weight


@every_explorer
def test_axe_and_the_screen_find_no_fault(
    browser: Browser, address: str, where: dict[str, str], trouble: Trouble, name: str
) -> None:
    context = browser.new_context(viewport=NARROW, base_url=address, reduced_motion="reduce")
    context.add_init_script(STILL)
    page = context.new_page()
    trouble.watch(page)
    page.goto(f"/{where[name]}#explorer-{name}")
    page.locator(f"#explorer-{name}[data-live]").wait_for()
    page.evaluate(AXE)
    part = {"include": [f"#explorer-{name}"]}
    found = look(page, "narrow, light", {"rules": ALL_BUT_COLOURS}, part)
    page.evaluate(SET_THEME, "dark")
    found += look(page, "narrow, dark", {"runOnly": COLOURS}, part)
    page.set_viewport_size(WIDE)
    found += look(page, "wide, dark", {}, part)
    page.evaluate(SET_THEME, "light")
    found += look(page, "wide, light", {}, part)
    context.close()
    assert not found + trouble.take()


@every_explorer
def test_a_link_restores_what_was_set(page: Page, open_explorer: Open, name: str) -> None:
    """Everything is moved by keyboard; the copied link, opened anew, shows the same; reset undoes it."""
    root = open_explorer(name)
    first = shown(root)
    sliders = root.locator("input[type=range]:visible")
    for i in range(sliders.count()):
        sliders.nth(i).focus()
        page.keyboard.press("ArrowRight")
    radios = root.locator("fieldset")
    for i in range(radios.count()):
        radios.nth(i).locator("input:checked").focus()
        page.keyboard.press("ArrowRight")
    on = root.get_by_role("button", name="Next")
    if on.count():
        on.first.focus()
        page.keyboard.press("Enter")
    page.wait_for_timeout(150)
    moved = shown(root)
    assert moved != first
    root.get_by_role("button", name="Copy link").click()
    expect(root.locator(".ag-x-note")).to_contain_text("The link is copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert f"#explorer-{name}:" in link
    root.get_by_role("button", name="Reset").click()
    page.wait_for_timeout(150)
    assert shown(root) == first
    page.goto("about:blank")
    page.goto(link)
    root = page.locator(f"#explorer-{name}[data-live]")
    root.wait_for()
    assert shown(root) == moved
    page.evaluate("name => { location.hash = `#explorer-${name}:` }", name)  # a link followed within the page
    page.wait_for_timeout(150)
    assert shown(root) == first


@every_explorer
def test_a_hostile_link_is_refused_in_words(page: Page, open_explorer: Open, name: str) -> None:
    first = shown(open_explorer(name))
    keys = page.locator(f"#explorer-{name}").get_attribute("data-settings").split()
    assert keys
    for nonsense in (
        HOSTILE,
        "NaN",
        "1e999",
        "-1e9",
        "",
        "\u0000💥",
        "x" * 10_000,
        "__proto__",
        "1_2_3",
        "[object Object]",
    ):
        state = "&".join(f"{key}={quote(nonsense)}" for key in [*keys, "__proto__", "constructor"])
        root = open_explorer(name, state)
        expect(root.locator(".ag-x-note")).to_contain_text("Not all of the link could be read")
        assert page.evaluate("window.broken") is None
        assert root.locator("img[src=x]").count() == 0
        assert "NaN" not in root.locator(".ag-explorer-body").inner_text().replace("“NaN”", "")
    open_explorer(name, "%E0%A4%A&&&===;;;%%%")  # not even an encoding
    root = open_explorer(name)
    assert shown(root) == first


@every_explorer
def test_nonsense_in_every_box_is_answered(page: Page, open_explorer: Open, name: str) -> None:
    root = open_explorer(name)
    boxes = root.locator("input[type=text]:visible")
    for i in range(boxes.count()):
        box = boxes.nth(i)
        before = box.input_value()
        for nonsense in ("NaN", "", "😀", HOSTILE, "1e999", "word " * 10_000):
            box.fill(nonsense)
            page.wait_for_timeout(30)
            assert page.evaluate("window.broken") is None
            assert root.locator("img[src=x]").count() == 0
            assert box.get_attribute("aria-invalid") == "true" or box.get_attribute("data-free") is not None
            said = root.locator(".ag-x-error:visible, .ag-x-note, .ag-x-readout").all_inner_texts()
            assert "".join(said).strip()
        box.fill(before)
        page.wait_for_timeout(60)
        assert box.get_attribute("aria-invalid") is None
    for box in root.locator("input[type=number]:visible").all():
        before = box.input_value()
        for nonsense in ("", "-5", "1e9", "2.5"):
            box.fill(nonsense)
            expect(root.locator(".ag-x-note")).to_contain_text("wanted is a whole number")
        box.fill(before)
        page.wait_for_timeout(60)
        expect(root.locator(".ag-x-note")).to_have_text("")


@every_explorer
def test_the_keyboard_reaches_everything(page: Page, open_explorer: Open, name: str) -> None:
    """Tab goes through every control and into every matrix, and out again; what is focused has a name and is seen."""
    root = open_explorer(name)
    root.evaluate("root => { root.tabIndex = -1; root.focus(); }")
    reached = 0
    for _ in range(80):
        page.keyboard.press("Tab")
        told = page.evaluate(
            """name => { const e = document.activeElement; const root = document.querySelector(`#explorer-${name}`);
              if (!root.contains(e)) return null;
              e.dataset.reached = 1;
              const box = e.getBoundingClientRect();
              return { outline: getComputedStyle(e).outlineStyle, size: box.width * box.height,
                tag: e.outerHTML.slice(0, 120) }; }""",
            name,
        )
        if told is None:
            break
        reached += 1
        assert told["outline"] != "none", told
        assert told["size"] > 0, told
    else:
        pytest.fail("Tab does not leave the explorer")
    missed = root.evaluate(
        """root => [...root.querySelectorAll("button, select, input, [tabindex='0']")]
          .filter(e => e.checkVisibility() && !("reached" in e.dataset) && (e.type !== "radio" || e.checked))
          .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert reached
    assert not missed


@every_explorer
def test_matrices_follow_mouse_and_arrow_keys(page: Page, open_explorer: Open, name: str) -> None:
    root = open_explorer(name)
    for table in root.locator("table[role=grid]").all():
        cell = table.locator("td[data-at]")
        last = cell.last
        last.hover()
        expect(table.locator(".ag-x-active")).to_have_count(1)
        assert "ag-x-active" in last.get_attribute("class")
        table.locator("td[tabindex='0']").focus()
        page.keyboard.press("Control+Home")
        assert page.evaluate("document.activeElement.dataset.at") == "0 0"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Control+End")
        assert page.evaluate("document.activeElement.dataset.at") == last.get_attribute("data-at")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").count(": ") >= 1


@every_explorer
def test_a_finger_moves_it(telephone: Page, open_explorer: Open, name: str) -> None:
    root = open_explorer(name, tab=telephone)
    assert telephone.evaluate(OVERFLOW) == []
    first = shown(root)
    slider = root.locator("input[type=range]:visible")
    if slider.count():
        box = slider.first.bounding_box()
        assert box is not None
        slider.first.tap(position={"x": box["width"] * 0.9, "y": box["height"] / 2})
    else:
        root.get_by_role("button", name="Next").first.tap()
    telephone.wait_for_timeout(150)
    assert shown(root) != first
    for table in root.locator("table[role=grid]:visible").all():
        cell = table.locator("td[data-at]").last
        cell.tap()
        assert "ag-x-active" in cell.get_attribute("class")
    root.get_by_role("button", name="Reset").tap()
    telephone.wait_for_timeout(150)
    assert telephone.evaluate(OVERFLOW) == []


@every_explorer
def test_what_is_said_waits_until_nothing_moves(page: Page, open_explorer: Open, name: str) -> None:
    """A screen reader hears one sentence after a burst of changes, not one for each."""
    root = open_explorer(name)
    page.wait_for_timeout(900)
    root.locator(".ag-x-live").evaluate(
        "live => { window.said = []; new MutationObserver(() => window.said.push(live.textContent))"
        ".observe(live, {childList: true, characterData: true, subtree: true}); }"
    )
    sliders = root.locator("input[type=range]:visible")
    target = sliders.first if sliders.count() else root.get_by_role("button", name="Next").first
    target.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight" if sliders.count() else "Enter")
    assert page.evaluate("window.said.length") == 0
    page.wait_for_timeout(1000)
    said = page.evaluate("window.said")
    assert len(said) == 1
    assert said[0]


# --- each of them, against the package ------------------------------------------------------------------


def test_scaling_shows_the_softmax_of_its_scores(page: Page, open_explorer: Open) -> None:
    root = open_explorer("scaling")
    for d, tau, scale in (("1", "1", "none"), ("64", "1", "none"), ("512", "0.5", "÷ √dₖ"), ("300", "4", "÷ dₖ")):
        set_slider(root, "width dₖ", d)
        set_slider(root, "temperature τ", tau)
        root.get_by_label(scale).check()
        page.wait_for_timeout(60)
        rows = [[number(x) for x in row.split("\t")[1:3]] for row in root.locator("tbody tr").all_inner_texts()]
        scores, weights = np.array(rows).T
        assert len(scores) == 8
        expected = ag.softmax(scores, temperature=float(tau))  # of scores as written, rounded to two decimals
        np.testing.assert_allclose(weights, expected, atol=0.005 / float(tau) + 0.001)
        assert number(fact(root, "largest weight")) == weights.max()
        np.testing.assert_allclose(number(fact(root, "entropy")), ag.attention_entropy(expected), atol=0.02)
        norm = np.linalg.norm(ag.softmax_jacobian(expected, temperature=float(tau)))
        np.testing.assert_allclose(float(fact(root, "norm of the softmax’s Jacobian")), norm, atol=0.02)
        factor = {"none": 1.0, "÷ √dₖ": 1 / np.sqrt(int(d)), "÷ dₖ": 1 / int(d)}[scale]
        told = re.search(r"variance ([\d.,]+), expected ([\d.,]+)\.", root.inner_text())
        assert told is not None
        measured, wanted = (float(x.replace(",", "")) for x in told.groups())
        assert wanted == pytest.approx(factor**2 * int(d), abs=1e-4)
        assert measured == pytest.approx(wanted, rel=4 * np.sqrt(8 / 1000), abs=0.006)  # the kurtosis at d = 1 is 9
    root.get_by_role("button", name="New query and keys").click()
    page.wait_for_timeout(60)
    assert root.locator("tbody").inner_text() != rows


def test_masks_shows_the_mask_that_its_code_makes(page: Page, open_explorer: Open) -> None:
    """The line of Python that the page writes, run, gives the matrix and the counts that the page shows."""
    root = open_explorer("masks")
    states = [
        "",
        "n=32",
        "n=7&terms=and.is.prefix.3",
        "n=11&terms=and.not.causal",
        "n=20&terms=and.is.causal_and.is.document.5_or.is.sinks.2_and.not.strided.3",
        "n=16&terms=and.is.window.2.2_or.is.global.1_and.is.causal",
        "n=5&terms=and.is.causal_and.not.causal",
    ]
    for state in states:
        root = open_explorer("masks", state)
        n = int(root.get_by_label("length n, as a number").input_value())
        code = root.locator(".ag-x-code").inner_text()
        mask = eval(code, {"ag": ag, "np": np, "n": n})
        made = mask.materialize(n)
        read = np.array(cells(root, "Mask"))
        assert (read == np.where(made, "allowed", "hidden")).all(), code
        assert fact(root, "allowed pairs") == f"{mask.count(n):,} of {n * n:,}"
        assert number(fact(root, "density")) == pytest.approx(100 * mask.density(n), abs=0.051)
        warning = root.locator(".ag-x-warning").inner_text()
        assert ("sees the future" in warning) == bool(np.triu(made, 1).any())
        assert ("nothing" in warning) == bool((~made.any(axis=1)).any())
        forbidden = root.locator("td.ag-x-forbidden").first
        allowed = root.locator("td.ag-x-open").first
        if forbidden.count() and allowed.count():
            look_of = "e => getComputedStyle(e).backgroundImage"
            assert "repeating" in forbidden.evaluate(look_of)
            assert allowed.evaluate(look_of) == "none"


def test_masks_are_added_changed_and_removed_by_keyboard(page: Page, open_explorer: Open) -> None:
    root = open_explorer("masks")
    for i in (3, 2):
        root.get_by_role("button", name=f"Remove mask {i}").focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(60)
    assert root.locator(".ag-x-code").inner_text() == "ag.causal"
    assert root.get_by_role("button", name="Remove mask 1").count() == 0
    add = root.get_by_role("button", name="Add a mask")
    add.focus()
    for _ in range(5):
        page.keyboard.press("Enter")
        page.wait_for_timeout(60)
    assert root.locator(".ag-x-code").inner_text() == "ag.causal | " + " | ".join(["ag.prefix(4)"] * 3)
    assert add.get_attribute("aria-disabled") == "true"
    root.get_by_label("How mask 2 joins").select_option("and")
    root.get_by_label("Mask 4", exact=True).select_option("window")
    page.wait_for_timeout(60)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") != ""
    root.get_by_label("Mask 4, back, 0 to 31").fill("2")
    page.wait_for_timeout(60)
    code = root.locator(".ag-x-code").inner_text()
    assert code == "ag.causal & ag.prefix(4) | ag.prefix(4) | ag.sliding_window(2, 0)"
    cell = root.locator("td[data-at='5 4']")
    cell.hover()
    assert root.locator(".ag-x-readout").inner_text() == (
        "Query 5, key 4: allowed. causal yes, prefix(4) yes, prefix(4) yes, sliding_window(2, 0) yes."
    )
