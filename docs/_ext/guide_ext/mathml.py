"""Formulas as MathML, made at build time: no script, no request, selectable, and read aloud by screen readers.

``latex2mathml`` parses TeX. What it emits is then mended for MathML Core, the subset that browsers draw: fonts become
code points, column alignment becomes CSS classes, operator names get the spacing of TeX, limits move under the
operator in display style. A formula that cannot be drawn is a warning at its line, which ``-W`` makes an error.

Macros: ``\\Q``, ``\\K`` and ``\\V`` are the coloured letters, and ``\\query{W_Q}`` and its siblings colour any
expression; a conf.py adds its own through ``mathml_macros``, as ``{"name": "TeX"}`` or ``{"name": ("TeX #1", 1)}``.
"""

from __future__ import annotations

import html
import itertools
import re
from typing import Any
from xml.etree.ElementTree import Element, tostring

from docutils import nodes
from latex2mathml.converter import Converter
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)

Macro = str | tuple[str, int]

#: The parts of attention that have a colour, everywhere: letter macro, colouring macro, CSS class.
COLOURED = ("query", "key", "value", "scores", "weights", "output")

MACROS: dict[str, Macro] = {
    "Q": r"\class{ag-query}{Q}",
    "K": r"\class{ag-key}{K}",
    "V": r"\class{ag-value}{V}",
    **{name: (rf"\class{{ag-{name}}}{{#1}}", 1) for name in COLOURED},
    "R": r"\mathbb{R}",
    "E": r"\operatorname{E}",
    "Var": r"\operatorname{Var}",
    "Cov": r"\operatorname{Cov}",
    "softmax": r"\operatorname{softmax}",
    "Attention": r"\operatorname{Attention}",
    "MultiHead": r"\operatorname{MultiHead}",
    "Concat": r"\operatorname{Concat}",
    "LayerNorm": r"\operatorname{LayerNorm}",
    "FFN": r"\operatorname{FFN}",
    "ReLU": r"\operatorname{ReLU}",
    "GELU": r"\operatorname{GELU}",
    "diag": r"\operatorname{diag}",
    "argmax": r"\operatorname*{argmax}",
    "dmodel": r"d_{\text{model}}",
    "dff": r"d_{\text{ff}}",
}


class FormulaError(Exception):
    """A formula that cannot become MathML a browser draws; the message says why."""


def convert(tex: str, *, display: bool = False, macros: dict[str, Macro] | None = None) -> str:
    """Return the ``<math>`` element for ``tex``, or raise `FormulaError`."""
    braces = re.sub(r"\\\\.", "", tex)
    if braces.count("{") != braces.count("}"):
        raise FormulaError("braces do not balance")
    source = _expand(_environments(tex.strip(), display), {**MACROS, **(macros or {})})
    try:
        math = Converter(display="block" if display else "inline").convert_to_element(source)
    except RecursionError as error:
        raise FormulaError("nested too deeply") from error
    except Exception as error:  # latex2mathml raises a class of its own per mistake, and IndexError, StopIteration, ...
        reason = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
        raise FormulaError(f"{reason} {error}".strip()) from error
    for element in math.iter():
        element.text = html.unescape(element.text) if element.text else element.text
    _refuse(math)
    _mend(math)
    math.set("display", "block" if display else "inline")
    math.set("alttext", " ".join(tex.split()))
    return tostring(math, encoding="unicode")


# --- TeX to TeX: macros and environments ----------------------------------------------------------------------------


def _expand(tex: str, macros: dict[str, Macro], depth: int = 0) -> str:
    """Replace macros by their definitions, arguments included."""
    if depth > 20:
        raise FormulaError("a macro is defined by itself")
    out, at = [], 0
    for found in re.finditer(r"\\([A-Za-z]+)", tex):
        if found.start() < at or found[1] not in macros:
            continue
        definition = macros[found[1]]
        body, count = (definition, 0) if isinstance(definition, str) else definition
        out.append(tex[at : found.start()])
        at = found.end()
        for number in range(1, count + 1):
            argument, at = _argument(tex, at, found[0])
            body = body.replace(f"#{number}", argument)
        # An expansion is one unit in a superscript or subscript: x^\Q, as in TeX with braces.
        out.append(f"{{{body}}}" if "".join(out).rstrip().endswith(("^", "_")) else body)
    expanded = "".join(out) + tex[at:]
    return _expand(expanded, macros, depth + 1) if out else expanded


def _argument(tex: str, at: int, name: str) -> tuple[str, int]:
    """Return the braced group (or the one token) at ``at`` and where it ends."""
    while at < len(tex) and tex[at].isspace():
        at += 1
    if at == len(tex):
        raise FormulaError(f"{name} lacks its argument")
    if tex[at] != "{":
        token = re.match(r"\\[A-Za-z]+|\\.|.", tex[at:])
        assert token is not None
        return token[0], at + token.end()
    level = 0
    for end in range(at, len(tex)):
        level += {"{": 1, "}": -1}.get(tex[end], 0) if tex[end - 1 : end] != "\\" else 0
        if level == 0:
            return tex[at + 1 : end], end + 1
    raise FormulaError(f"the argument of {name} is not closed")


def _environments(tex: str, display: bool) -> str:
    """Rename the environments that latex2mathml lacks; rows outside any environment get one."""
    if display and "\\begin{" not in tex and r"\\" in tex:
        environment = "split" if "&" in tex else "matrix"
        tex = rf"\begin{{{environment}}}{tex}\end{{{environment}}}"
    tex = re.sub(r"\\(begin|end)\{(?:aligned|align\*?|alignat\*?|eqnarray\*?)\}", r"\\\1{split}", tex)
    tex = re.sub(r"\\(begin|end)\{(?:gathered|gather\*?|multline\*?)\}", r"\\\1{matrix}", tex)
    return re.sub(r"\\(?:begin|end)\{equation\*?\}", "", tex)


# --- what no browser draws ------------------------------------------------------------------------------------------


_UNDER = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_ARITY = {"mfrac": 2, "msub": 2, "msup": 2, "msubsup": 3, "munder": 2, "mover": 2, "munderover": 3, "mroot": 2}


def _refuse(math: Element) -> None:
    for element in math.iter():
        text = element.text or ""
        if len(element) != _ARITY.get(element.tag, len(element)):
            raise FormulaError(f"<{element.tag}> has {len(element)} parts instead of {_ARITY[element.tag]}")
        if element.tag in _UNDER and any(_has_no_base(script) for script in element[1:]):
            raise FormulaError("two subscripts or superscripts in a row")
        if element.tag in ("merror", "menclose", "mglyph"):
            raise FormulaError(f"<{element.tag}> is not drawn by browsers (a box or a strike-out?)")
        if element.tag != "mtext" and re.match(r"\\[A-Za-z]", text):
            raise FormulaError(f"unknown command {text}")
        if text in ("#", "$"):
            raise FormulaError(f"stray {text}")
        if "\N{REPLACEMENT CHARACTER}" in text:
            raise FormulaError("a symbol without a code point")


def _has_no_base(script: Element) -> bool:
    return script.tag in _UNDER and script[0].tag == "mi" and not script[0].text


# --- MathML to MathML Core ------------------------------------------------------------------------------------------

_SPACES = {
    "negativethinmathspace": "-0.1667em",
    "negativemediummathspace": "-0.2222em",
    "negativethickmathspace": "-0.2778em",
    "thinmathspace": "0.1667em",
    "mediummathspace": "0.2222em",
    "thickmathspace": "0.2778em",
}
_THIN = "0.1667em"
_ALPHABETS = {  # first capital, first small letter, first digit of each mathematical alphabet
    "bold": (0x1D400, 0x1D41A, 0x1D7CE),
    "italic": (0x1D434, 0x1D44E, None),
    "bold-italic": (0x1D468, 0x1D482, None),
    "script": (0x1D49C, 0x1D4B6, None),
    "fraktur": (0x1D504, 0x1D51E, None),
    "double-struck": (0x1D538, 0x1D552, 0x1D7D8),
    "sans-serif": (0x1D5A0, 0x1D5BA, 0x1D7E2),
    "sans-serif-italic": (0x1D608, 0x1D622, None),
    "monospace": (0x1D670, 0x1D68A, 0x1D7F6),
}
_BOLD_GREEK = {"bold": (0x1D6A8, 0x1D6C2), "bold-italic": (0x1D71C, 0x1D736)}
_EXCEPTIONS = {  # letters that Unicode had before it had the alphabets
    0x1D455: "ℎ",
    0x1D49D: "ℬ",
    0x1D4A0: "ℰ",
    0x1D4A1: "ℱ",
    0x1D4A3: "ℋ",
    0x1D4A4: "ℐ",
    0x1D4A7: "ℒ",
    0x1D4A8: "ℳ",
    0x1D4AD: "ℛ",
    0x1D4BA: "ℯ",
    0x1D4BC: "ℊ",
    0x1D4C4: "ℴ",
    0x1D506: "ℭ",
    0x1D50B: "ℌ",
    0x1D50C: "ℑ",
    0x1D515: "ℜ",
    0x1D51D: "ℨ",
    0x1D53A: "ℂ",
    0x1D53F: "ℍ",
    0x1D545: "ℕ",
    0x1D547: "ℙ",
    0x1D548: "ℚ",
    0x1D549: "ℝ",
    0x1D551: "ℤ",
}
_LIMIT_OPERATORS = frozenset("∑∏∐⋃⋂⨁⨂⋁⋀⨆") | {"max", "min", "sup", "inf", "lim", "argmax", "argmin"}
_OPENING = frozenset("([{⟨⌈⌊|‖")
_FENCES = frozenset("()[]{}⟨⟩⌈⌉⌊⌋|‖∥")
_LETTERLIKE = frozenset("∞∅⊤⊥…⋯⋮⋱")
_TIGHT = frozenset("/|‖∥")


def letter(character: str, variant: str) -> str:
    """Return ``character`` in a mathematical alphabet, as its own code point where it has one."""
    capital, small, digit = _ALPHABETS[variant]
    if "A" <= character <= "Z":
        code = capital + ord(character) - ord("A")
    elif "a" <= character <= "z":
        code = small + ord(character) - ord("a")
    elif "0" <= character <= "9" and digit is not None:
        code = digit + int(character)
    elif variant in _BOLD_GREEK and ("Α" <= character <= "Ω" or "α" <= character <= "ω"):
        upper, lower = _BOLD_GREEK[variant]
        code = upper + ord(character) - ord("Α") if character <= "Ω" else lower + ord(character) - ord("α")
    else:
        return character
    return _EXCEPTIONS.get(code, chr(code))


def _mend(parent: Element) -> None:
    """Walk the tree bottom-up and turn every element into what MathML Core draws well."""
    for child in parent:
        _mend(child)
    variant = parent.attrib.pop("mathvariant", None)
    if variant == "normal":
        parent.set("mathvariant", "normal")
    elif variant in _ALPHABETS and parent.tag == "mtext":
        parent.set("class", f"ag-{variant}")  # running text keeps its letters and takes the font's own face
    elif variant in _ALPHABETS and parent.text:
        parent.text = "".join(letter(character, variant) for character in parent.text)
    if parent.tag == "mspace":
        _mend_space(parent)
    if parent.tag == "mi" and parent.text == "~":
        parent.tag, parent.text = "mo", "\N{TILDE OPERATOR}"
    if parent.tag == "mo":
        _mend_operator(parent)
    if parent.tag in _UNDER and len(parent) and _names(parent[0]) in _LIMIT_OPERATORS:
        parent.tag = _UNDER[parent.tag]
        parent[0].set("movablelimits", "true")  # beside the operator in running text, under it in display style
    if parent.tag in ("mover", "munder") and len(parent) == 2:
        _mend_accent(parent)
    if parent.tag == "mtable":
        _mend_table(parent)
    if parent.tag in ("math", "mrow", "mstyle", "msqrt", "mtd", "mpadded", "mphantom"):
        _join_letters(parent)
        _join_digit_groups(parent)
        _wrap_tables(parent)
        _find_signs(parent)
        _space_operators(parent)


def _mend_space(space: Element) -> None:
    width = space.get("width", "0")
    if width.endswith("mu"):
        width = f"{float(width[:-2]) / 18:.4g}em"
    space.set("width", _SPACES.get(width, width))


def _mend_operator(operator: Element) -> None:
    """Undo what latex2mathml calls an operator and TeX does not, and the spaces that go with it."""
    text = operator.text or ""
    if text == "-":
        operator.text = "\N{MINUS SIGN}"
    elif text in _LETTERLIKE or (len(text) == 1 and text.isalpha()):
        operator.tag = "mi"
        operator.attrib.clear()
        operator.set("mathvariant", "normal")
    elif text in _TIGHT or set(text) <= set("′″‴⁗"):
        operator.attrib.update(lspace="0", rspace="0")
    if text in _FENCES and "minsize" not in operator.attrib:
        operator.attrib.setdefault("stretchy", "false")  # only \left and \right stretch


#: Accents over one letter, and over several, where the font has the combining character in several widths.
_ACCENTS = {"^": ("ˆ", "\u0302"), "~": ("˜", "\u0303"), "∼": ("˜", "\u0303"), "¯": ("¯", "")}
_LINES = {"¯", "―"}


def _mend_accent(element: Element) -> None:
    """An accent sits close, in the width of what it covers; a line over several letters is a border."""
    base, accent = element
    if accent.tag != "mo" or base.tag == "mo":
        return
    wide = base.tag == "mrow" and len(base) > 1
    if accent.text in _LINES and (wide or element.tag == "munder" or accent.text == "―"):
        element.remove(accent)
        element.set("class", "ag-overline" if element.tag == "mover" else "ag-underline")
        element.tag = "mrow"
        element.attrib.pop("accent", None)
    elif element.tag == "mover" and accent.text in _ACCENTS:
        accent.text = _ACCENTS[accent.text][wide]
        accent.set("stretchy", "true" if wide else "false")
        element.set("accent", "true")
    elif element.tag == "mover" and accent.text == "→" and accent.get("stretchy"):  # \vec, not \overrightarrow
        accent.text = "\u20d7"
        element.set("accent", "true")


def _mend_table(table: Element) -> None:
    """MathML Core has neither columnalign nor spacing attributes: the style sheet aligns by class."""
    aligned = table.get("columnspacing") == "0em"
    lines = table.attrib.pop("columnlines", None), table.attrib.pop("rowlines", None)
    if any(lines):
        raise FormulaError("lines between rows or columns are not drawn by browsers")
    for name in ("columnspacing", "rowspacing"):
        table.attrib.pop(name, None)
    if aligned:
        table.set("class", "ag-aligned")
    for cell in table.iter("mtd"):
        side = cell.attrib.pop("columnalign", None)
        if side in ("left", "right"):
            cell.set("class", f"ag-{side}")


def _join_letters(row: Element) -> None:
    r"""``\mathrm{softmax}`` comes as seven upright letters; it is one word."""
    children = list(row)
    for before, after in itertools.pairwise(children):
        if all(_is_upright(element) for element in (before, after)):
            after.text = f"{before.text}{after.text}"
            row.remove(before)
    for element in row:
        if _is_upright(element) and len(element.text or "") > 1:
            del element.attrib["mathvariant"]  # several letters are upright without being told


def _is_upright(element: Element) -> bool:
    return element.tag == "mi" and element.get("mathvariant") == "normal" and (element.text or "").isalpha()


def _join_digit_groups(row: Element) -> None:
    """``10{,}000`` is one number, not a list of two."""
    children = list(row)
    for before, comma, after in zip(children, children[1:], children[2:], strict=False):
        is_group = comma.tag == "mrow" and len(comma) == 1 and comma[0].text == "," and comma[0].tag == "mo"
        if is_group and before.tag == after.tag == "mn":
            after.text = f"{before.text},{after.text}"
            row.remove(before)
            row.remove(comma)


def _find_signs(row: Element) -> None:
    """A minus after an operator is a sign, not a subtraction."""
    children = list(row)
    for before, sign in itertools.pairwise(children):
        after_operator = before.tag == "mo" and (before.text or "") not in (*")]}⟩⌉⌋!", "|")
        if sign.tag == "mo" and sign.text in ("−", "+", "±") and (after_operator or before.tag == "mspace"):
            sign.set("form", "prefix")


def _wrap_tables(row: Element) -> None:
    """Put a matrix and its brackets in a row of their own, so that no bracket grows with a taller neighbour."""
    children = list(row)
    for before, table, after in zip(children, children[1:], children[2:], strict=False):
        if table.tag == "mtable" and before.tag == after.tag == "mo" and table.get("class") != "ag-aligned":
            for fence, form in ((before, "prefix"), (after, "postfix")):
                fence.attrib.update(form=form, fence="true", stretchy="true", symmetric="true")
            at = list(row).index(before)
            for element in (before, table, after):
                row.remove(element)
            group = Element("mrow")
            group.extend((before, table, after))
            row.insert(at, group)


def _names(element: Element) -> str:
    """Return the operator that an element is, looking through the scripts and rows around it, or ''."""
    if element.tag in ("msub", "msup", "msubsup", "munder", "mover", "munderover") and len(element):
        return _names(element[0])
    if element.tag == "mrow" and len(element) == 1 and not element.get("class"):
        return _names(element[0])
    return (element.text or "").replace("\N{THIN SPACE}", "").strip() if element.tag in ("mi", "mo") else ""


def _space_operators(row: Element) -> None:
    """Give ``softmax x`` and ``log x`` the thin space that TeX gives, and ``softmax(x)`` none."""
    children = list(row)
    for index, element in enumerate(children):
        name = _names(element)
        if not (len(name) > 1 and name.isalpha()):
            continue
        for operator in element.iter():
            if operator.tag == "mo" and _names(operator) == name:
                if operator.get("movablelimits"):
                    operator.attrib.update(lspace="0", rspace="0")
                else:
                    operator.tag = "mi"
        following = children[index + 1] if index + 1 < len(children) else None
        if following is not None and not _opens(following) and following.tag != "mspace" and _is_operand(following):
            row.insert(list(row).index(element) + 1, _thin_space())
        before = children[index - 1] if index else None
        if before is not None and _is_operand(before) and not (len(_names(before)) > 1 and _names(before).isalpha()):
            row.insert(list(row).index(element), _thin_space())


def _thin_space() -> Element:
    return Element("mspace", {"width": _THIN})


def _opens(element: Element) -> bool:
    if element.tag == "mrow" and len(element):
        return _opens(element[0])
    return element.tag == "mo" and (element.text or "") in _OPENING


def _is_operand(element: Element) -> bool:
    return element.tag not in ("mo", "mspace")


# --- Sphinx ---------------------------------------------------------------------------------------------------------


def _math(translator: Any, node: nodes.Element, *, display: bool) -> str:
    tex = node.astext()
    try:
        return convert(tex, display=display, macros=translator.config.mathml_macros)
    except FormulaError as error:
        logger.warning("formula: %s, in %s", error, " ".join(tex.split()), location=node, type="mathml")
        return f"<code>{translator.encode(tex)}</code>"


def _visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
    self.body.append(_math(self, node, display=False) + "</span>")
    raise nodes.SkipNode


def _visit_displaymath(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    # The box scrolls, not the page; its class is what the site's script makes focusable when it overflows.
    self.body.append(f'<div class="ag-formula">{_math(self, node, display=True)}</div></div>\n')
    raise nodes.SkipNode


class KeepPunctuation(SphinxPostTransform):
    """Keeps a formula in running text on one line with the punctuation that touches it.

    A browser may break a line beside a formula as beside a picture, even between the formula and its full stop.
    """

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for formula in list(self.document.findall(nodes.math)):
            parent, at = formula.parent, formula.parent.index(formula)
            before, after = parent[at - 1] if at else None, parent[at + 1] if at + 1 < len(parent) else None
            opening = re.search(r"[(\[“‘]+$", before) if isinstance(before, nodes.Text) else None
            closing = re.match(r"[.,;:!?)\]”’…]+", after) if isinstance(after, nodes.Text) else None
            if not opening and not closing:
                continue
            together = nodes.inline("", "", classes=["ag-together"])
            parent[at] = together
            if opening:
                parent[at - 1] = nodes.Text(before[: opening.start()])
                together += nodes.Text(opening[0])
            together += formula
            if closing:
                parent[at + 1] = nodes.Text(after[closing.end() :])
                together += nodes.Text(closing[0])


def _depart(self: Any, node: nodes.Element) -> None:
    """Nothing to close: the visitors skip the node's children."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("mathml_macros", {}, "env", types=[dict])
    app.add_post_transform(KeepPunctuation)
    app.add_html_math_renderer("mathml", (_visit_math, _depart), (_visit_displaymath, _depart))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
