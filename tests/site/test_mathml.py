"""Formulas: what TeX means comes out as the MathML that browsers draw, and what cannot be drawn is refused."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from docutils import nodes, utils
from guide_ext.mathml import COLOURED, MACROS, FormulaError, KeepPunctuation, convert
from PIL import Image
from playwright.sync_api import Page

SPACE = "{http://www.w3.org/1998/Math/MathML}"


def tree(tex: str, **options: object) -> ET.Element:
    return ET.fromstring(convert(tex, **options))  # type: ignore[arg-type]


def shape(tex: str, **options: object) -> str:
    """The formula as nested names: ``mfrac(mn:1 mi:x)``."""

    def write(element: ET.Element) -> str:
        tag = element.tag.removeprefix(SPACE)
        inside = " ".join(write(child) for child in element)
        if tag == "mrow" and not element.get("class"):
            return inside
        return f"{tag}({inside})" if len(element) else f"{tag}:{element.text or ''}"

    return " ".join(write(child) for child in tree(tex, **options))


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"\frac{1}{x}", "mfrac(mn:1 mi:x)"),
        (r"\sqrt{d_k}", "msqrt(msub(mi:d mi:k))"),
        (r"\K^\top", "msup(mrow(mi:K) mi:⊤)"),
        (r"x^\Q", "msup(mi:x mrow(mi:Q))"),
        (r"a < b", "mi:a mo:< mi:b"),
        (r"-\infty", "mo:− mi:∞"),
        (r"10{,}000", "mn:10,000"),
        (r"\softmax(x)", "mi:softmax mo:( mi:x mo:)"),
        (r"\mathrm{head}_i", "msub(mi:head mi:i)"),
        (r"\mathbf{x}", "mi:𝐱"),
        (r"\mathcal{L}", "mi:ℒ"),
        (r"\mathbb{R}^n", "msup(mi:ℝ mi:n)"),
        (r"\boldsymbol{\theta}", "mi:𝜽"),
        (r"x \sim p", "mi:x mo:∼ mi:p"),
        (r"n \times m", "mi:n mo:× mi:m"),
        (r"\dmodel", "msub(mi:d mtext:model)"),
    ],
)
def test_a_formula_becomes(tex: str, expected: str) -> None:
    assert shape(tex) == expected


def test_thin_space_separates_an_operator_from_its_argument_but_not_from_a_bracket() -> None:
    assert shape(r"\log x") == "mi:log mspace: mi:x"
    assert shape(r"\log(x)") == "mi:log mo:( mi:x mo:)"
    assert shape(r"2\log x") == "mn:2 mspace: mi:log mspace: mi:x"
    assert shape(r"\E[x]") == "mi:E mo:[ mi:x mo:]"


def test_limits_stand_under_the_operator_and_move_beside_it_in_running_text() -> None:
    for tex in (r"\sum_{i=1}^n x_i", r"\frac{1}{2}\sum_{i=1}^n x_i", r"\left(\sum_{i=1}^n x_i\right)"):
        operator = tree(tex, display=True).find(f".//{SPACE}munderover/{SPACE}mo")
        assert operator is not None, tex
        assert operator.text == "∑"  # browsers move its limits without being told
    for name in ("argmax", "max", "lim"):
        operator = tree(rf"\{name}_i s_i").find(f".//{SPACE}munder/{SPACE}mo")
        assert operator is not None, name
        assert operator.get("movablelimits") == "true"


def test_only_left_right_and_big_stretch() -> None:
    plain = tree(r"(\frac{a}{b})").findall(f".//{SPACE}mo")
    assert [fence.get("stretchy") for fence in plain] == ["false", "false"]
    tall = tree(r"\left(\frac{a}{b}\right)").findall(f".//{SPACE}mo")
    assert [fence.get("stretchy") for fence in tall] == ["true", "true"]
    big = tree(r"\big(x\big)").findall(f".//{SPACE}mo")
    assert [fence.get("stretchy") for fence in big] == [None, None]
    assert all(fence.get("minsize") for fence in big)


def test_a_minus_is_a_sign_after_an_operator_and_a_subtraction_after_an_operand() -> None:
    def form(tex: str) -> str | None:
        return next(mo for mo in tree(tex).iter(f"{SPACE}mo") if mo.text == "−").get("form")

    assert form("x = -y") == "prefix"
    assert form("(-y)") == "prefix"
    assert form("x - y") is None
    assert form("(x) - y") is None


def test_a_matrix_and_its_brackets_are_a_group_of_their_own() -> None:
    rows = tree(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}\begin{bmatrix}1\\2\\3\end{bmatrix}", display=True)
    groups = [
        row
        for row in rows.iter(f"{SPACE}mrow")
        if [c.tag for c in row] == [f"{SPACE}mo", f"{SPACE}mtable", f"{SPACE}mo"]
    ]
    assert [group[0].text + group[2].text for group in groups] == ["()", "[]"]
    assert all(group[0].get("stretchy") == "true" for group in groups)


def test_aligned_rows_have_alternating_sides() -> None:
    for name in ("aligned", "align", "align*"):
        table = tree(rf"\begin{{{name}}} a &= b \\ &= c \end{{{name}}}", display=True).find(f".//{SPACE}mtable")
        assert table is not None
        assert [cell.get("class") for cell in table.iter(f"{SPACE}mtd")] == ["ag-right", "ag-left"] * 2
        assert not any("(" in (text.text or "") for text in table.iter(f"{SPACE}mtext")), "numbered twice"


def test_rows_outside_an_environment_stand_under_each_other() -> None:
    assert len(tree(r"a \\ b = 2", display=True).findall(f".//{SPACE}mtr")) == 2
    assert tree(r"a &= b \\ &= c", display=True).find(f".//{SPACE}mtd").get("class") == "ag-right"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", COLOURED)
def test_a_part_of_attention_has_its_colour(name: str) -> None:
    assert tree(rf"\{name}{{W_Q}}").find(f".//{SPACE}mrow[@class='ag-{name}']") is not None


def test_every_macro_converts() -> None:
    for name, definition in MACROS.items():
        count = 0 if isinstance(definition, str) else definition[1]
        convert(rf"\{name}" + "{x}" * count)


def test_a_page_can_bring_its_own_macros() -> None:
    assert shape(r"\half{x}", macros={"half": (r"\frac{#1}{2}", 1)}) == "mfrac(mi:x mn:2)"
    assert shape(r"\twice \twice", macros={"twice": "2"}) == "mn:2 mn:2"
    assert shape(r"\twice3", macros={"twice": "2"}) in ("mn:2 mn:3", "mn:23")


def test_the_source_is_kept_for_those_who_want_it_and_is_no_text_of_the_page() -> None:
    math = tree(r"\Q  \K^\top <  1")
    assert math.get("alttext") == r"\Q \K^\top < 1"
    assert "\\" not in "".join(math.itertext())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("is ", "; and", "is [x;] and"),
        ("(", "), and", "[(x),] and"),
        ("is “", ".”", "is [“x.”]"),
        ("is ", " and", "is x and"),
        ("", "", "x"),
    ],
)
def test_punctuation_stays_with_the_formula_that_it_touches(before: str, after: str, expected: str) -> None:
    document = utils.new_document("page")
    paragraph = nodes.paragraph()
    for _ in range(2):  # equal texts beside two formulas are not mistaken for each other
        paragraph += [nodes.Text(before), nodes.math("x", "x"), nodes.Text(after), nodes.emphasis("", "|")]
    document += paragraph
    KeepPunctuation(document).run()
    for together in list(paragraph.findall(nodes.inline)):
        assert together["classes"] == ["ag-together"]
        together.insert(0, nodes.Text("["))
        together += nodes.Text("]")
    assert paragraph.astext() == f"{expected}|{expected}|"


def test_nothing_that_browsers_ignore_is_left() -> None:
    """MathML Core knows one variant and none of the attributes of tables."""
    everything = convert(
        r"\mathbf{x}\mathcal{N}\mathrm{abc}\mathit{ab}\mathsf{T}\mathtt{x}\,\;\quad\!\begin{aligned}a&=b\\&=c\end{aligned}"
        r"\begin{cases}1&\text{if }x\\0&\text{else}\end{cases}",
        display=True,
    )
    for element in ET.fromstring(everything).iter():
        assert element.get("mathvariant") in (None, "normal")
        assert not {"columnalign", "columnspacing", "rowspacing", "columnlines"} & set(element.keys())
        assert "mathspace" not in element.get("width", "")


@pytest.mark.parametrize(
    ("tex", "reason"),
    [
        (r"\sqroot{x}", r"unknown command \\sqroot"),
        (r"\frac{1}", "parts instead of 2"),
        (r"\frac{1}{", "braces do not balance"),
        (r"\left( x", "left or missing right"),
        (r"x_a_b", "double subscripts|in a row"),
        (r"x__y", "in a row"),
        (r"\boxed{x}", "not drawn by browsers"),
        (r"\begin{array}{c|c} a & b \end{array}", "lines between"),
        (r"\query", "lacks its argument"),
        (r"\begin{pmatrix} 1", "missing end"),
        (r"a $ b", "stray"),
    ],
)
def test_a_formula_that_cannot_be_drawn_is_refused_with_the_reason(tex: str, reason: str) -> None:
    with pytest.raises(FormulaError, match=reason):
        convert(tex)


def test_a_macro_that_contains_itself_is_refused() -> None:
    with pytest.raises(FormulaError, match="defined by itself"):
        convert(r"\loop", macros={"loop": r"\loop x"})


@pytest.mark.browser
def test_a_root_is_seen_and_not_only_what_is_under_it(page: Page) -> None:
    """The sign stands in no text, so a font that was cut down to the texts has none, and nothing else would tell."""
    page.goto("/chapters/0-concepts.html")
    page.evaluate("document.fonts.ready.then(() => {})")
    roots = page.locator("msqrt")
    assert roots.count() > 5
    for root in roots.all()[:3]:
        under = root.evaluate("e => e.firstElementChild.getBoundingClientRect().x - e.getBoundingClientRect().x")
        assert under > 4, "no room for the sign"
        picture = Image.open(io.BytesIO(root.screenshot())).convert("L")
        sign = np.asarray(picture)[:, : int(under) - 1].astype(int)
        assert np.ptp(sign) > 100, "nothing is drawn in front of what is under the root"
