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
import torch
from guide_ext import explorer_data
from guide_ext.explorers import EXPLORERS
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from reading import Trouble
from walking import ALL_BUT_COLOURS, AXE, COLOURS, NARROW, OVERFLOW, SET_THEME, STILL, WIDE, look

import attn_guide as ag
from attn_guide import models

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


#: True when everything that was set is on the screen, however slow the machine.
DRAWN = "() => !document.querySelector('[data-drawing]')"


@pytest.fixture
def telephone(browser: Browser, address: str, trouble: Trouble) -> Iterator[Page]:
    """A tab on a narrow dark screen that is touched; the other tests use a mouse and keys on a wide light one."""
    context: BrowserContext = browser.new_context(
        viewport=NARROW, base_url=address, has_touch=True, is_mobile=True, reduced_motion="reduce", color_scheme="dark"
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
    root.page.wait_for_function(DRAWN)
    return root.locator(".ag-explorer-body").evaluate(
        """body => { const copy = body.cloneNode(true);
          copy.querySelectorAll(".ag-x-note, .ag-x-live").forEach(e => e.remove());
          const set = e => e.type === "checkbox" || e.type === "radio" ? e.checked : e.value;
          const typed = [...body.querySelectorAll("input, select")].map(set);
          return [copy.textContent, ...typed].join("|"); }"""
    )


def cells(root: Locator, label: str) -> list[list[str]]:
    """What a screen reader hears of each cell of a matrix, after its row and column."""
    return root.locator(f"table[aria-label^={json.dumps(label, ensure_ascii=False)}]").evaluate(
        """table => [...table.rows].map(row => [...row.querySelectorAll("td[data-at]")]
          .map(cell => cell.getAttribute("aria-label").replace(/^.*: /s, ""))).filter(row => row.length)"""
    )


def numbers(root: Locator, label: str) -> np.ndarray:
    return np.array([[number(cell) for cell in row] for row in cells(root, label)])


def press(root: Locator, button: str) -> None:
    root.get_by_role("button", name=button).focus()
    root.page.keyboard.press("Enter")


def set_slider(root: Locator, label: str, value: str) -> None:
    root.get_by_label(f"{label}, as a number").fill(value)
    root.page.wait_for_function(DRAWN)


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
    shown_ones = [image for image in root.locator("figure img").all() if image.is_visible()]
    assert len(shown_ones) == 1  # the light one: without scripts a page is light
    assert shown_ones[0].get_attribute("alt")
    assert root.locator(".ag-explorer-intro p").first.is_visible()
    assert root.locator(".ag-explorer-body").count() == 0
    context.close()


def test_where_the_data_does_not_come_the_figure_stays(browser: Browser, address: str, where: dict[str, str]) -> None:
    context = browser.new_context(base_url=address)
    page = context.new_page()
    page.route("**/explorers/data/*.json", lambda route: route.fulfill(status=500))
    page.goto(f"/{where['heads']}#explorer-heads")
    root = page.locator("#explorer-heads")
    root.get_by_text("This explorer could not be started.").wait_for()
    assert root.locator(".ag-explorer-fallback").is_visible()
    assert root.locator(".ag-explorer-body").count() == 0
    context.close()


def test_a_page_without_explorers_loads_none_of_it(html: Path, where: dict[str, str], pages: list[str]) -> None:
    loading = {path for path in pages if "explorers/loader.js" in (html / path).read_text(encoding="utf-8")}
    assert loading == set(where.values())


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


ALONE = """name => {
  for (let e = document.getElementById(`explorer-${name}`); e.tagName !== "ARTICLE"; e = e.parentElement)
    for (const other of [...e.parentElement.children]) if (other !== e) other.remove();
}"""  # the page around it has a walk of its own, and axe takes many times as long to see through it


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
    page.evaluate(ALONE, name)
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
    page.wait_for_function(DRAWN)
    moved = shown(root)
    assert moved != first
    press(root, "Copy link")
    expect(root.locator(".ag-x-note")).to_contain_text("The link is copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert f"#explorer-{name}:" in link
    press(root, "Reset")  # not by mouse: what moves under it when the picture shrinks would be asked about
    page.wait_for_function(DRAWN)
    assert shown(root) == first
    page.goto("about:blank")
    page.goto(link)
    root = page.locator(f"#explorer-{name}[data-live]")
    root.wait_for()
    assert shown(root) == moved
    page.evaluate("name => { location.hash = `#explorer-${name}:` }", name)  # a link followed within the page
    page.wait_for_function(DRAWN)
    assert shown(root) == first


@every_explorer
def test_a_hostile_link_is_refused_in_words(page: Page, open_explorer: Open, name: str) -> None:
    root = open_explorer(name)
    first = shown(root)
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
        if nonsense == HOSTILE:
            root = open_explorer(name, state)
        else:  # a link that is followed within the page is read in the same way, and sooner
            root.locator(".ag-x-note").evaluate("note => { note.textContent = ''; }")
            page.evaluate("hash => { location.hash = hash; }", f"#explorer-{name}:{state}")
        expect(root.locator(".ag-x-note")).to_contain_text("Not all of the link could be read")
        assert page.evaluate("window.broken") is None
        assert root.locator("img[src=x]").count() == 0
        if nonsense != "NaN":  # which is a word like any other where a sentence is wanted
            assert "NaN" not in root.locator(".ag-explorer-body").inner_text()
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
            page.wait_for_function(DRAWN)
            assert page.evaluate("window.broken") is None
            assert root.locator("img[src=x]").count() == 0
            assert box.get_attribute("aria-invalid") == "true" or box.get_attribute("data-free") is not None
            said = root.locator(".ag-x-error:visible, .ag-x-note, .ag-x-readout").all_inner_texts()
            assert "".join(said).strip()
        box.fill(before)
        page.wait_for_function(DRAWN)
        assert box.get_attribute("aria-invalid") is None
    for box in root.locator("input[type=number]:visible").all():
        before = box.input_value()
        for nonsense in ("", "-5", "1e9", "2.5"):
            box.fill(nonsense)
            expect(root.locator(".ag-x-note")).to_contain_text("wanted is a whole number")
        box.fill(before)
        page.wait_for_function(DRAWN)
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
    for table in root.locator("table[role=grid]:visible").all():
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
    slider, on = root.locator("input[type=range]:visible"), root.get_by_role("button", name="Next")
    if slider.count():
        box = slider.first.bounding_box()
        assert box is not None
        slider.first.tap(position={"x": box["width"] * 0.9, "y": box["height"] / 2})
    else:
        (on if on.count() else root.locator("label:has(input[type=radio])")).first.tap()
    telephone.wait_for_function(DRAWN)
    assert shown(root) != first
    for table in root.locator("table[role=grid]:visible").all():
        cell = table.locator("td[data-at]").last
        cell.tap()
        assert "ag-x-active" in cell.get_attribute("class")
    root.get_by_role("button", name="Reset").tap()
    telephone.wait_for_function(DRAWN)
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
    on = root.get_by_role("button", name="Next")
    target = on.first if on.count() else root.locator("input[type=range]:visible, input[type=radio]:checked").first
    target.focus()
    for _ in range(6):
        page.keyboard.press("Enter" if on.count() else "ArrowLeft")
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
        page.wait_for_function(DRAWN)
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
    page.wait_for_function(DRAWN)
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
        page.wait_for_function(DRAWN)
    assert root.locator(".ag-x-code").inner_text() == "ag.causal"
    assert root.get_by_role("button", name="Remove mask 1").count() == 0
    add = root.get_by_role("button", name="Add a mask")
    add.focus()
    for _ in range(5):
        page.keyboard.press("Enter")
        page.wait_for_function(DRAWN)
    assert root.locator(".ag-x-code").inner_text() == "ag.causal | " + " | ".join(["ag.prefix(4)"] * 3)
    assert add.get_attribute("aria-disabled") == "true"
    root.get_by_label("How mask 2 joins").select_option("and")
    root.get_by_label("Mask 4", exact=True).select_option("window")
    page.wait_for_function(DRAWN)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") != ""
    root.get_by_label("Mask 4, back, 0 to 31").fill("2")
    page.wait_for_function(DRAWN)
    code = root.locator(".ag-x-code").inner_text()
    assert code == "ag.causal & ag.prefix(4) | ag.prefix(4) | ag.sliding_window(2, 0)"
    cell = root.locator("td[data-at='5 4']")
    cell.hover()
    assert root.locator(".ag-x-readout").inner_text() == (
        "Query 5, key 4: allowed. causal yes, prefix(4) yes, prefix(4) yes, sliding_window(2, 0) yes."
    )


def test_the_one_picture_computes_what_is_typed(page: Page, open_explorer: Open) -> None:
    root = open_explorer("one-picture")
    rng = np.random.default_rng(0)
    for tau in (1.0, 0.3, 4.0):
        q, k, v = np.round(rng.uniform(-3, 3, (3, 3, 2)), 1)
        for name, given in (("Q, what each word asks", q), ("K, what it offers", k), ("V, what it gives", v)):
            for (i, j), value in np.ndenumerate(given):
                word = ["The", "cat", "sat"][i]
                root.get_by_label(f"{name}: {word}, component {j + 1}").fill(str(value))
        set_slider(root, "temperature τ", str(tau))
        scores = ag.attention_scores(q, k)
        weights = ag.softmax(scores, temperature=tau)
        np.testing.assert_allclose(numbers(root, "Scores"), scores, atol=0.0051)
        np.testing.assert_allclose(numbers(root, "Weights"), weights, atol=0.0051)
        np.testing.assert_allclose(numbers(root, "Output"), weights @ v, atol=0.0051)
        root.locator("table[aria-label=Output] td[data-at='2 1']").hover()
        told = root.locator(".ag-x-readout").inner_text()
        terms, result = told.partition(": ")[2].replace("−", "-").split(" = ")
        assert eval(terms.replace("·", "*")) == pytest.approx(float(result), abs=0.01)
        assert float(result) == pytest.approx((weights @ v)[2, 1], abs=0.0051)
    box = root.get_by_label("Q, what each word asks: The, component 1")
    box.fill("8.8")
    box.press("ArrowUp")
    assert box.input_value() == "9"  # the most that is allowed
    box.press("ArrowDown")
    assert box.input_value() == "8.5"


def test_five_steps_are_those_of_self_attention(page: Page, open_explorer: Open) -> None:
    told = explorer_data.five_steps()
    projections = [np.array(told[name], float) for name in ("w_q", "w_k", "w_v")]
    for text in ("The cat sat", "My dog chased the fox", "a 💥 reads NaN", "book " * 30):
        tokens = text.split()[:8]
        x = np.array([told["words"].get(token.lower(), [0] * 4) for token in tokens], float)
        q, k, v = (x @ w for w in projections)
        out, weights = ag.self_attention(x, *projections, return_weights=True)
        root = open_explorer("five-steps")
        root.get_by_label("Your sentence").fill(text)
        for step, shown_now in enumerate((
            {"X": x, "Q = X W": q, "K = X W": k, "V = X W": v},
            {"Q Kᵀ": ag.attention_scores(q, k, scale=1.0)},
            {"scores": ag.attention_scores(q, k)},
            {"weights": weights},
            {"output": out},
        )):  # fmt: skip
            if step:
                root.get_by_role("button", name="Next").click()
            page.wait_for_function(DRAWN)
            visible = root.locator(f".ag-x-columns >> nth={step}")
            assert visible.is_visible()
            for label, expected in shown_now.items():
                np.testing.assert_allclose(numbers(visible, label), expected, atol=0.0051)
        if len(text.split()) > 8:
            assert "30 words: the first 8 are used." in root.inner_text()
        assert ("not in the small vocabulary" in root.inner_text()) == ("NaN" in text)
    root = open_explorer("five-steps", "step=1")
    root.locator("table[aria-label='Q Kᵀ']:visible td[data-at='2 0']").hover()
    assert "sat asks, The answers: 2 · (−1) + 1 · 0 = −2" in root.inner_text()  # as the chapter works it out


def test_alignment_shows_what_the_translator_did(page: Page, open_explorer: Open) -> None:
    run = models.load("bahdanau")
    menu = open_explorer("alignment").get_by_label("Number to translate").locator("option").all_inner_texts()
    assert sum("unseen" in words for words in menu) == 18
    for item in (0, 7, 20):
        source, kind = menu[item][:-1].split(" (")
        test = {"unseen": "held_out", "longer than trained": "longer"}[kind]
        held = {" ".join(s): " ".join(t) for s, t in run.experiment.pairs.tests[test]}
        found = run.experiment.align(source, held[source])
        root = open_explorer("alignment", f"item={item}")
        for step in range(len(found.target)):
            rows = [row.split("\t") for row in root.locator("table.ag-x-bars tbody tr").all_inner_texts()]
            assert [name.replace("‹stop›", "<stop>") for name, *_ in rows] == found.source
            np.testing.assert_allclose([float(w) for _, w, *_ in rows], found.weights[step], atol=0.0008)
            assert root.locator(".ag-x-sentence strong").inner_text().replace("‹stop›", "<stop>") == found.target[step]
            if step + 1 < len(found.target):
                root.get_by_role("button", name="Next").press("Enter")
                page.wait_for_function(DRAWN)
        assert ("The translation is right." in root.inner_text()) == found.is_right
        assert root.get_by_role("button", name="Next").get_attribute("aria-disabled") == "true"
        np.testing.assert_allclose(numbers(root, "Alignment"), found.weights, atol=0.0051)
        root.get_by_role("button", name="First").click()
        page.wait_for_function(DRAWN)
        assert len(cells(root, "Alignment")) == len(found.target)
        assert sum(cell == "nothing yet" for row in cells(root, "Alignment") for cell in row) == (
            (len(found.target) - 1) * len(found.source)
        )


def test_heads_shows_the_matrices_of_the_model(page: Page, open_explorer: Open) -> None:
    experiment = models.load("induction").experiment
    with torch.no_grad():
        weights = models.load("induction").model(experiment.test[:3])[2].numpy()
    root = open_explorer("heads", "head=0")
    picks = root.locator("fieldset input[type=radio]")
    for head in range(8):
        expected = weights[0, head // 4, head % 4]
        read = cells(root, "Weights of the head")
        later = np.triu(np.ones_like(expected, bool), 1)
        assert (np.array(read) == "hidden")[later].all()
        np.testing.assert_allclose([number(x) for x in np.array(read)[~later]], expected[~later], atol=0.0053)
        for role, words in (("previous", "on the token before"), ("induction", "on what followed last time")):
            score = experiment.scores()[role][head // 4, head % 4]
            assert float(fact(root, f"{words}, over 100 sequences")) == pytest.approx(score, abs=0.0051)
        picks.nth(head).focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(DRAWN)
    root.get_by_label("What the model reads").select_option(index=3)
    page.wait_for_function(DRAWN)
    text = root.locator("option:checked").inner_text().removeprefix("text: ")
    read = np.array(cells(root, "Weights of the head"))
    expected = models.load("gpt").experiment.text_attention(text)[0, 0]
    open_ = read != "hidden"
    np.testing.assert_allclose([number(x) for x in read[open_]], expected[open_], atol=0.0053)


def test_patterns_counts_what_the_package_counts(page: Page, open_explorer: Open) -> None:
    for state in (
        "",
        "w=0&g=0&n=8&layers=8",
        "w=3&d=2&g=2&s=7&causal=1&n=64&layers=3&long=12",
        "w=1&g=0&long=17&layers=5",
    ):
        root = open_explorer("patterns", state)
        n, layers, power = (
            int(root.get_by_label(f"{label}, as a number").input_value())
            for label in ("positions in the picture", "layers", "long sequence, as a power of 2")
        )
        mask = eval(root.locator(".ag-x-code").inner_text(), {"ag": ag})
        made = mask.materialize(n)
        assert (np.array(cells(root, "Pattern")) == np.where(made, "allowed", "hidden")).all()
        field = ag.receptive_field(mask, n, layers)
        assert number(fact(root, "inputs read, on average")) == pytest.approx(field.mean(), abs=0.051)
        assert number(fact(root, "inputs read, fewest")) == field.min()
        root.locator("table[aria-label^=Pattern] td[data-at='5 0']").hover()
        reached = ag.reachability(mask, n, layers)[5]
        assert (np.array(cells(root, "What the query")[0]) == np.where(reached, "allowed", "hidden")).all()
        assert f"After {layers} layer" in root.locator(".ag-x-readout").inner_text()
        counts = root.locator(".ag-x-facts").nth(1)
        pairs = counts.locator("dd").first.inner_text()
        assert number(pairs) == mask.count(2**power)
        value, unit = counts.locator("dd").nth(2).inner_text().split()
        flops = 2 * ag.attention_flops(2**power, 64, d_k=64, pairs=mask.count(2**power)).quadratic
        thousands = ["", "thousand", "million", "billion"].index(unit)
        assert number(value) == pytest.approx(flops / 1000**thousands, abs=0.051)
    root = open_explorer("patterns", "r=2&w=0&g=0&n=16")
    assert all(2 <= row.count("allowed") <= 3 for row in cells(root, "Pattern"))


def test_flash_carries_what_the_online_softmax_carries(page: Page, open_explorer: Open) -> None:
    """From the finished picture the scores are read; every step before it must then be that of ag.online_softmax."""
    for state in ("rows=4&columns=2", "rows=2&columns=4&causal=1&draw=5", "rows=8&columns=1"):
        settings = dict(pair.split("=") for pair in state.split("&"))
        br, bc = int(settings["rows"]), int(settings["columns"])
        root = open_explorer("flash", f"{state}&step=64")
        text = np.array(cells(root, "Scores"))
        hidden = text == "hidden"
        assert (hidden == (np.triu(np.ones((8, 8), bool), 1) if "causal" in settings else False)).all()
        scores = np.full((8, 8), -np.inf)
        scores[~hidden] = [number(x) for x in text[~hidden]]  # to one decimal
        assert fact(root, "rows finished") == "8 of 8"
        assert "less than" in fact(root, "furthest from the plain softmax")
        root.get_by_role("button", name="First").click()
        page.wait_for_function(DRAWN)
        steps = 0
        while root.get_by_role("button", name="Next").get_attribute("aria-disabled") == "false":
            root.get_by_role("button", name="Next").click()
            page.wait_for_function(DRAWN)
            steps += 1
            framed = root.locator("td.ag-x-marked")
            assert framed.count() == br * bc
            i, j = (int(x) for x in framed.first.get_attribute("data-at").split())
            table = [row.split("\t") for row in root.locator(".ag-x-carried tbody tr").all_inner_texts()]
            for row in range(i, i + br):
                told = list(ag.online_softmax(scores[row, : j + bc], block_size=bc))[-1]
                assert (
                    number(table[row][1]) == pytest.approx(told.running_max, abs=0.051) or hidden[row, : j + bc].all()
                )
                assert number(table[row][3]) == pytest.approx(told.running_sum, rel=0.11)
        tiles = {
            (i // br, j // bc)
            for i in range(8)
            for j in range(8)
            if "causal" not in settings or j <= i // br * br + br - 1
        }
        assert steps == len(tiles)


def test_scores_are_those_of_six_functions(page: Page, open_explorer: Open) -> None:
    told = {name: np.array(value) for name, value in explorer_data.score_parameters().items()}
    root = open_explorer("scores", "scale=2.5")
    plane = root.locator("svg.ag-x-plane")
    box = plane.bounding_box()
    assert box is not None
    handle = root.get_by_role("button", name="q at")
    start = handle.bounding_box()
    assert start is not None
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    handle.hover(position={"x": 20, "y": start["height"] - 20})
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75, steps=4)
    page.mouse.up()
    page.wait_for_function(DRAWN)
    assert [float(x) for x in re.findall(r"-?[\d.]+", handle.get_attribute("aria-label").replace("−", "-"))] == (
        pytest.approx([-1.5, -1.5], abs=0.05)
    )
    key = root.get_by_role("button", name="k₃ at")
    key.focus()
    for press in ("ArrowLeft", "Shift+ArrowDown", "ArrowUp"):
        page.keyboard.press(press)
    page.wait_for_function(DRAWN)
    assert key.get_attribute("aria-label").startswith("k₃ at −1.3, 1.2")
    read = [number(b.input_value()) for b in root.locator("input[type=text].ag-x-box").all()]
    q, k = np.array([read[:2]]), np.array(read[2:10]).reshape(4, 2)
    expected = np.concatenate(
        [
            ag.dot_score(q, k),
            ag.scaled_dot_score(q, k),
            ag.general_score(q, k, told["general"]),
            ag.additive_score(q, k, told["w_query"], told["w_key"], told["v"]),
            ag.concat_score(q, k, told["concat"], told["readout"]),
            ag.cosine_score(q, k, scale=2.5),
        ]
    )
    np.testing.assert_allclose(numbers(root, "Scores"), expected, atol=0.0051)
    np.testing.assert_allclose(numbers(root, "Weights"), ag.softmax(expected), atol=0.0051)


def test_a_finger_drags_a_point_of_the_plane(telephone: Page, open_explorer: Open) -> None:
    root = open_explorer("scores", tab=telephone)
    plane = root.locator("svg.ag-x-plane")
    plane.scroll_into_view_if_needed()
    handle = root.get_by_role("button", name="k₁ at")
    before = numbers(root, "Scores")
    handle.evaluate(
        """handle => { const box = handle.querySelector("circle").getBoundingClientRect();
          const at = (type, dx) => handle.dispatchEvent(new PointerEvent(type, {pointerId: 1, pointerType: "touch",
            clientX: box.x + box.width / 2 + dx, clientY: box.y + box.height / 2, bubbles: true, isPrimary: true}));
          handle.setPointerCapture = () => {}; handle.hasPointerCapture = () => true;
          at("pointerdown", 0); at("pointermove", -40); at("pointerup", -40); }"""
    )
    telephone.wait_for_function(DRAWN)
    assert (numbers(root, "Scores")[:, 0] != before[:, 0]).any()
    np.testing.assert_array_equal(numbers(root, "Scores")[:, 1:], before[:, 1:])


@pytest.mark.parametrize(("tau", "noise"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.5), (1.0, 0.0)])
def test_sampling_goes_to_the_softmax(page: Page, open_explorer: Open, tau: float, noise: float) -> None:
    """Chi-square of 20,000 draws, below its 0.1 % point, against the softmax that the page names."""
    root = open_explorer("sampling", f"tau={tau}&noise={noise}&count=20000")
    rows = [[number(x) for x in row.split("\t")[1:4]] for row in root.locator("tbody tr").all_inner_texts()]
    soft, drawn, frequency = np.array(rows).T
    z = np.array([2, 1, 0.5, 0, -1])
    np.testing.assert_allclose(soft, ag.softmax(z, temperature=tau), atol=0.00051)
    assert drawn.sum() == 20_000
    np.testing.assert_allclose(frequency, drawn / 20_000, atol=0.00051)
    if noise == 0:
        assert drawn.tolist() == [20_000, 0, 0, 0, 0]
    else:
        expected = 20_000 * ag.softmax(z, temperature=tau * noise)
        assert ((drawn - expected) ** 2 / expected).sum() < 18.47
    distance = number(fact(root, "largest distance"))
    assert distance == pytest.approx(np.abs(drawn / 20_000 - ag.softmax(z, temperature=tau)).max(), abs=0.00051)


def test_sampling_goes_back_as_it_came(page: Page, open_explorer: Open) -> None:
    root = open_explorer("sampling")
    first = shown(root)
    for more in ("Draw 1", "Draw 10", "Draw 100"):
        root.get_by_role("button", name=more, exact=True).click()
    page.wait_for_function(DRAWN)
    assert root.get_by_label("draws, as a number").input_value() == "121"
    assert sum(number(row.split("\t")[2]) for row in root.locator("tbody tr").all_inner_texts()) == 121
    for _ in range(111):
        root.get_by_role("button", name="Take one back").press("Enter")
    page.wait_for_function(DRAWN)
    assert shown(root) == first
    back = root.get_by_role("button", name="Take one back")
    for _ in range(12):
        back.press("Enter")
    page.wait_for_function(DRAWN)
    assert root.get_by_label("draws, as a number").input_value() == "1"
    assert back.get_attribute("aria-disabled") == "true"
