r"""Prose that executes: one pass over a MyST page, used by Sphinx and by pytest alike.

The pass runs a page top to bottom in one namespace:

- a ``python`` block is executed, or, where it begins with ``>>>``, compared with a float tolerance;
- a comment ``% invisible-code-block: python`` runs without being shown;
- ``{calc}`expression:format``` in text and ``\calc{expression:format}`` in formulas become what the f-string field
  ``{expression:format}`` gives.

:func:`parse` makes a :class:`Page` of regions, each of them a Sybil example with the line it stands on.
:meth:`Page.run` runs them all, and :meth:`Page.substituted` is the text with the values in it, line for line. In
pytest every example is an item of its own; an item first runs the examples above it that have not run yet, so one
line can be selected and workers can share a page.
"""

from __future__ import annotations

import ast
import doctest
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from docutils import nodes
from sphinx.util import logging
from sybil import Document, Example, Region
from sybil.document import PythonDocStringDocument
from sybil.evaluators.doctest import NUMBER, DocTestEvaluator, OutputChecker
from sybil.evaluators.python import PythonEvaluator
from sybil.evaluators.skip import Skipper
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.region import Lexeme

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

logger = logging.getLogger(__name__)
OPTIONS = NUMBER | doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class ProseError(ValueError):
    """An expression in the text cannot be shown; the message says why."""


# ---------------------------------------------------------------------------------------------------------------------
# Reading a page: which lines are code, which are comments, which are text

# The opening or closing of a fenced block, with what may stand before it: quote marks, a list marker, an indent.
FENCE = re.compile(
    r"(?P<prefix>(?:[ \t]*>)*[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?)(?P<fence>`{3,}|~{3,}|:{3,})[ \t]*(?P<info>.*?)[ \t]*$"
)
DIRECTIVE = re.compile(r"\{(?P<name>[\w:+-]+)\}[ \t]*(?P<argument>.*)$")
COMMENT = re.compile(r"(?P<prefix>[ \t]*%)[ \t]*(?P<name>[\w-]+)?(?::[ \t]*(?P<argument>.*?))?[ \t]*$")
OPTION = re.compile(r"[ \t]*:[\w-]+:")
VERBATIM_DIRECTIVES = {
    "code", "code-block", "sourcecode", "code-cell", "literalinclude", "parsed-literal", "raw", "eval-rst",
    "doctest", "testcode", "testoutput", "testsetup", "mermaid", "math",
}  # fmt: skip
CODE_DIRECTIVES = {"code", "code-block", "sourcecode", "code-cell"}
INVISIBLE = {"invisible-code-block", "invisible-code"}
ALMOST_PYTHON = {"py", "py3", "python3", "pycon", "ipython", "ipython3", "ipy", "doctest"}


@dataclass
class Line:
    """One line of a page: where it starts, its text without the line break, and what it is part of."""

    start: int
    text: str
    kind: str = "text"  # text, fence, option, code, verbatim, math, comment, front


@dataclass
class Block:
    """A fenced block or comment whose body is not prose."""

    language: str  # what the fence says: "python", "text", "{math}", "invisible python"
    line: int  # of the opening, from 0
    body: range  # the lines of the body
    prefix: str = ""


@dataclass
class Layout:
    """A page cut into lines and blocks."""

    lines: list[Line]
    blocks: list[Block] = field(default_factory=list)
    skips: list[tuple[int, str]] = field(default_factory=list)  # (line, arguments) of "% skip: ..."


def layout(text: str) -> Layout:
    """Say of every line of a MyST page whether it is prose, code, a comment, a formula or front matter."""
    lines, start = [], 0
    for raw in text.splitlines(keepends=True):
        lines.append(Line(start, raw.rstrip("\r\n")))
        start += len(raw)
    page = Layout(lines)
    at = _front_matter(lines)
    open_directives: list[tuple[str, int]] = []  # (fence character, its length)
    fresh = False  # the last line opened a directive, so options may follow
    while at < len(lines):
        line = lines[at]
        if fresh and (OPTION.match(line.text) or line.text.strip() == "---"):
            at = _options(lines, at)
            continue
        fence = FENCE.match(line.text)
        if fence and fence["fence"][0] == "`" and "`" in fence["info"]:
            fence = None  # inline code that begins a line
        fresh = False
        if fence:
            character, length, info = fence["fence"][0], len(fence["fence"]), fence["info"]
            line.kind = "fence"
            if not info and _close(open_directives, character, length):
                at += 1
            elif (directive := DIRECTIVE.match(info)) and directive["name"] not in VERBATIM_DIRECTIVES:
                open_directives.append((character, length))
                fresh = True
                at += 1
            elif character == ":" and not directive:
                at += 1  # a lone ::: or a fence of another syntax: nothing to run
            else:
                at = _verbatim(page, at, fence, directive)
        elif line.text.lstrip().startswith("<!--"):
            at = _html_comment(page, at)
        elif COMMENT.match(line.text) or line.text.lstrip().startswith("%"):
            at = _percent_comment(page, at)
        else:
            at += 1
    return page


def _front_matter(lines: list[Line]) -> int:
    """Mark YAML front matter; the line at which the page begins."""
    if not lines or lines[0].text.rstrip() != "---":
        return 0
    for end in range(1, len(lines)):
        if lines[end].text.rstrip() in ("---", "..."):
            for line in lines[: end + 1]:
                line.kind = "front"
            return end + 1
    return 0


def _options(lines: list[Line], at: int) -> int:
    """Mark the options of a directive, ``:name: value`` or between ``---``; the line after them."""
    if lines[at].text.strip() == "---":
        end = next((i for i in range(at + 1, len(lines)) if lines[i].text.strip() == "---"), at) + 1
    else:
        end = at
        while end < len(lines) and OPTION.match(lines[end].text):
            end += 1
    for line in lines[at:end]:
        line.kind = "option"
    return end


def _close(open_directives: list[tuple[str, int]], character: str, length: int) -> bool:
    for depth in reversed(range(len(open_directives))):
        if open_directives[depth][0] == character and length >= open_directives[depth][1]:
            del open_directives[depth:]
            return True
    return False


def _verbatim(page: Layout, at: int, opening: re.Match[str], directive: re.Match[str] | None) -> int:
    """Record the block that a fence opens, up to its closing fence; the line after it."""
    lines = page.lines
    character, length = opening["fence"][0], len(opening["fence"])
    end = at + 1
    while end < len(lines):
        closing = FENCE.match(lines[end].text)
        if closing and closing["fence"][0] == character and len(closing["fence"]) >= length and not closing["info"]:
            break
        end += 1
    body = at + 1
    language = opening["info"]
    if directive:
        if body < end and (OPTION.match(lines[body].text) or lines[body].text.strip() == "---"):
            body = min(_options(lines, body), end)
        is_code = directive["name"] in CODE_DIRECTIVES
        language = directive["argument"] if is_code else "{" + directive["name"] + "}"
    kind = "math" if language == "{math}" else "code" if language == "python" else "verbatim"
    for line in lines[body:end]:
        line.kind = kind
    if end < len(lines):
        lines[end].kind = "fence"
    page.blocks.append(Block(language, at, range(body, end), opening["prefix"]))
    return end + 1


def _percent_comment(page: Layout, at: int) -> int:
    """Record a comment of lines that begin with ``%``; the line after it."""
    lines = page.lines
    first = COMMENT.match(lines[at].text)
    end = at
    while end < len(lines) and lines[end].text.lstrip().startswith("%"):
        lines[end].kind = "comment"
        if end > at and (later := COMMENT.match(lines[end].text)) and later["name"] in INVISIBLE | {"skip"}:
            lines[end].kind = "text"  # a comment of its own, read next
            break
        end += 1
    if first and first["name"] == "skip":
        page.skips.append((at, first["argument"] or ""))
    elif first and first["name"] in INVISIBLE:
        page.blocks.append(Block(f"invisible {first['argument']}", at, range(at + 1, end), first["prefix"]))
    return end


def _html_comment(page: Layout, at: int) -> int:
    lines = page.lines
    end = at
    while end < len(lines) and "-->" not in lines[end].text:
        end += 1
    for line in lines[at : end + 1]:
        line.kind = "comment"
    opening = re.match(r"[ \t]*<!--+[ \t]*(?P<name>[\w-]+):[ \t]*(?P<argument>.*?)[ \t]*(?:--+>.*)?$", lines[at].text)
    if opening and opening["name"] == "skip":
        page.skips.append((at, opening["argument"]))
    elif opening and opening["name"] in INVISIBLE:
        page.blocks.append(Block(f"invisible {opening['argument']}", at, range(at + 1, end)))
    return end + 1


# ---------------------------------------------------------------------------------------------------------------------
# Comparing output


class NumberChecker(OutputChecker):
    """Sybil's comparison, but a printed number is held to its own precision.

    Sybil and pytest let ``1.`` match anything from 0 to 2, since no digit follows the point. Here a number of up to
    four decimals must round to what is printed, a longer one may differ by one in its last place, and one without
    decimals, as NumPy prints a whole float, by a millionth.
    """

    def _remove_unwanted_precision(self, want: str, got: str) -> str:
        wants = list(self._number_re.finditer(want))
        gots = list(self._number_re.finditer(got))
        if len(wants) != len(gots):
            return got
        pieces, end = [], 0
        for w, g in zip(wants, gots, strict=True):
            close = abs(float(w[0]) - float(g[0])) <= max(tolerance(w), 1e-6 * abs(float(w[0])))
            pieces += [got[end : g.start()], w[0] if close else g[0]]
            end = g.end()
        return "".join(pieces) + got[end:]


def tolerance(number: re.Match[str]) -> float:
    """How far a computed number may lie from the printed one."""
    decimals = len(number["fraction"] or "")
    exponent = int(number["exponent1"] or number["exponent2"] or 0)
    if not decimals and number["integer2"] is not None and not exponent:
        return 1e-6
    unit = 10.0 ** (exponent - decimals)
    return unit * (0.5 + 1e-9) if decimals <= 4 else unit


def doctest_evaluator() -> DocTestEvaluator:
    evaluator = DocTestEvaluator(OPTIONS)
    evaluator.runner._checker = NumberChecker()  # type: ignore[attr-defined]
    return evaluator


# ---------------------------------------------------------------------------------------------------------------------
# Values in the text


@dataclass(frozen=True)
class Calc:
    """One ``calc``: the expression with its format, and whether it stands in a formula or in a heading."""

    source: str
    place: str  # "text", "math", or "bare": a heading or an option, where a role would be shown as it is written


NUMERAL = re.compile(r"(?P<sign>[-+]?)(?P<mantissa>\d[\d,]*(?:\.\d+)?)(?:[eE](?P<exponent>[-+]?\d+))?(?P<percent>%?)$")
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def evaluate(source: str, namespace: Mapping[str, Any]) -> str:
    """What the f-string field ``{source}`` gives in a namespace.

    Raises
    ------
    ProseError
        If it is not one field, if its evaluation raises, or if a float comes without a format and would print in full.
    """
    try:
        tree = ast.parse(field_of(source), mode="eval")
        code = compile(tree, "<calc>", "eval")
    except (SyntaxError, ValueError) as error:
        raise ProseError(f"{source!r} is not an expression with an optional :format ({error})") from None
    parts = tree.body.values if isinstance(tree.body, ast.JoinedStr) else []
    if len(parts) != 1 or not isinstance(parts[0], ast.FormattedValue):
        raise ProseError(f"{source!r} is not a single expression with an optional :format")
    try:
        text = eval(code, dict(namespace))
    except Exception as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ProseError(f"{source}: {type(error).__name__}: {message}") from error
    if parts[0].format_spec is None and re.fullmatch(r"[-+]?\d*\.\d{6,}(e[-+]?\d+)?", text):
        raise ProseError(f"{source} gives {text}: say how many digits, as in {source}:.2f")
    if not text.strip() or "\n" in text:
        raise ProseError(f"{source} gives {text!r}: a value in the text is one line and not empty")
    return text


def field_of(source: str) -> str:
    """The f-string with one field; its triple quotes let the expression use both kinds of single ones."""
    return f"f'''{{ {source.strip()}}}'''"


def as_text(value: str) -> str:
    """A value as it is read in a sentence: a true minus sign, and powers of ten for an exponent."""
    number = NUMERAL.match(value)
    if not number:
        return {"inf": "∞", "-inf": "−∞"}.get(value, value)
    power = f" × 10{str(int(number['exponent'])).translate(SUPERSCRIPTS)}" if number["exponent"] else ""
    return number["sign"].replace("-", "−") + number["mantissa"] + power + number["percent"]


def as_math(value: str) -> str:
    """A value as LaTeX: powers of ten for an exponent, a comma that does not separate, an escaped percent sign."""
    number = NUMERAL.match(value)
    if not number:
        return {"inf": r"\infty", "-inf": r"-\infty"}.get(value, value.replace("%", r"\%"))
    power = rf" \times 10^{{{int(number['exponent'])}}}" if number["exponent"] else ""
    return number["sign"] + number["mantissa"].replace(",", "{,}") + power + number["percent"].replace("%", r"\%")


SEPARATOR = "\N{SYMBOL FOR UNIT SEPARATOR}"  # between value and expression in the {computed} role


def rendered(calc: Calc, value: str, table: bool = False) -> str:
    """What replaces a calc on the page."""
    if calc.place == "math":
        return as_math(value)
    if calc.place == "bare":
        return as_text(value)
    content = f"{as_text(value)}{SEPARATOR}{' '.join(calc.source.split())}"
    if table:
        content = content.replace("|", r"\|")
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", content)), default=0))
    return f"{{computed}}{ticks}{content}{ticks}"


# ---------------------------------------------------------------------------------------------------------------------
# A page and its examples

INLINE = re.compile(r"(?P<role>\{[A-Za-z][\w:+-]*\})?(?P<ticks>`+)|\\(?P<macro>calc|given)\{")
ACCESSOR = "measured"


def no_ledger(claim: str) -> Mapping[str, Any]:
    """Stands in for the claims ledger where there is none."""
    raise LookupError(f"measured({claim!r}): no claims ledger here")


class Page(Document):
    """A page as a Sybil document, its examples run in order and each of them once.

    Attributes
    ----------
    values : dict
        What each calc gave, by the place at which it starts.
    failures : list of tuple
        (line, message) of what went wrong in :meth:`run`.
    """

    def __init__(self, text: str, path: str, measured: Callable[[str], Mapping[str, Any]] = no_ledger) -> None:
        super().__init__(text, path)
        self.measured_ids: set[str] = set()
        self.values: dict[int, str] = {}
        self.given: list[tuple[int, int, str]] = []
        self.failures: list[tuple[int, str]] = []
        self.layout = Layout([])
        self._outcomes: dict[int, BaseException | None] = {}
        self._print_options: Any = {}
        self._measured = measured
        self.namespace.update({"__name__": "__main__"})

    @property
    def code(self) -> str:
        """All that the page runs, as one Python source: what its dependencies are read from."""
        pieces = []
        for _, region in self.regions:
            if isinstance(region.parsed, Calc):
                pieces.append(field_of(region.parsed.source))
            elif isinstance(region.parsed, doctest.Example):
                pieces.append(region.parsed.source)
            elif isinstance(region.parsed, str):
                pieces.append(str(region.parsed))
        return "\n".join(pieces)

    def accessor(self, claim: str) -> Mapping[str, Any]:
        self.measured_ids.add(claim)
        return self._measured(claim)

    def evaluate(self, example: Example, evaluator: Any) -> None:
        """Run an example, after those above it that have not run yet."""
        __tracebackhide__ = True
        for other in self.examples():
            if other.start > example.start:
                break
            if other.start not in self._outcomes:
                self._outcomes[other.start] = self._outcome(other)
        outcome = self._outcomes[example.start]
        if outcome is not None:
            raise outcome

    def _outcome(self, example: Example) -> BaseException | None:
        before = np.get_printoptions()
        np.set_printoptions(**self._print_options)
        try:
            if example.region.evaluator is not None:
                super().evaluate(example, example.region.evaluator)
        except Exception as error:
            return error.with_traceback(_from_page(error, self.path))
        finally:
            self._print_options = np.get_printoptions()
            np.set_printoptions(**before)
        return None

    def run(self) -> Page:
        """Run all examples. After a block that fails nothing else runs, since all that follows builds on it."""
        for example in self.examples():
            try:
                with redirect_stdout(io.StringIO()):
                    example.evaluate()
            except Exception as error:
                if type(error).__name__ in ("SkipTest", "Skipped"):
                    continue
                self.failures.append((failing_line(error, example), explain(error)))
                if not isinstance(example.parsed, Calc):
                    break
        return self

    def calcs(self) -> Iterator[tuple[int, Calc, str]]:
        """Every calc that gave a value, as (line, calc, value)."""
        for example in self.examples():
            if isinstance(example.parsed, Calc) and example.start in self.values:
                yield example.line, example.parsed, self.values[example.start]

    def substituted(self, reversible: bool = False) -> str:
        """The text with every value in its place; each line keeps its number.

        With ``reversible`` every calc can be found again: formulas keep theirs, and those of headings become roles.
        """
        edits = [] if reversible else list(self.given)
        for _, region in self.regions:
            calc = region.parsed
            if isinstance(calc, Calc) and not (reversible and calc.place == "math"):
                source = self.text[region.start : region.end]
                line = self.text[self.text.rfind("\n", 0, region.start) + 1 : region.start].lstrip(" >")
                if reversible and line.startswith("#"):
                    calc = Calc(calc.source, "text")
                value = self.values.get(region.start)
                shown = "⚠" if value is None else rendered(calc, value, line.startswith("|"))
                edits.append((region.start, region.end, shown + "\n" * source.count("\n")))
        pieces, end = [], 0
        for start, stop, shown in sorted(edits):
            pieces += [self.text[end:start], shown]
            end = stop
        return "".join(pieces) + self.text[end:]


def _from_page(error: BaseException, path: str) -> TracebackType | None:
    """The traceback without what leads to the page's own code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    return trace or error.__traceback__


def failing_line(error: BaseException, example: Example) -> int:
    """The line of the page on which an exception arose."""
    if isinstance(error, SyntaxError) and error.filename == example.path and error.lineno:
        return error.lineno
    line, trace = example.line, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == example.path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def explain(error: BaseException) -> str:
    result = getattr(error, "result", None)  # of a SybilFailure: expected, got
    return str(result).strip() if result else f"{type(error).__name__}: {error}"


def parse(text: str, path: str, measured: Callable[[str], Mapping[str, Any]] = no_ledger) -> Page:
    """Read a MyST page into a :class:`Page`; nothing runs yet."""
    page = Page(text, path, measured)
    page.layout = layout(text)
    skipper = Skipper("skip")
    for line, arguments in page.layout.skips:
        action, _, reason = arguments.partition(" ")
        start = page.layout.lines[line].start
        page.add(Region(start, start + 1, (action, reason or None), skipper))
    for block in page.layout.blocks:
        for region in _code_regions(page, block):
            page.add(region)
    for region in _calc_regions(page):
        page.add(region)
    return page


# -- code


def _code_regions(page: Page, block: Block) -> Iterator[Region]:
    lines = page.layout.lines
    start = lines[block.line].start
    last = lines[block.body[-1]] if block.body else lines[block.line]
    end = last.start + len(last.text)
    word = re.split(r"[\s,{]", block.language.strip("{}").removeprefix("invisible "))[0].lower()
    hidden = block.language.startswith("invisible")
    if word in ALMOST_PYTHON or (word == "python" and block.language not in ("python", "invisible python")):
        yield Region(start, end, block.language, _refuse(f"write ```python, not {block.language!r}: else nothing runs"))
        return
    if word != "python":
        return
    source = _dedented([lines[i].text for i in block.body], block.prefix)
    if not re.search(r"^[ \t]*>>>", source, re.MULTILINE):
        code = Lexeme(source, 0, block.body.start - block.line - 1)
        yield Region(start, end, code, _run_hidden if hidden else _run_shown)
        return
    examples = list(DocTestStringParser(doctest_evaluator())(source, page.path))
    stray = _outside_examples(source, examples)
    if stray is not None:
        yield Region(
            start,
            end,
            block.language,
            _refuse(f"a block with >>> holds a line that would not run: {stray!r}"),
        )
        return
    for region in examples:
        first = block.body.start + region.parsed.lineno
        length = source.count("\n", region.start, region.end)
        final = lines[min(first + max(length - 1, 0), block.body[-1])]
        region.start = lines[first].start + len(lines[first].text) - len(lines[first].text.lstrip())
        region.end = final.start + len(final.text)
        yield region


def _dedented(body: list[str], prefix: str) -> str:
    """The lines of a block without what its fence is indented or quoted by."""
    width = len(prefix)
    quoted = ">" in prefix
    stripped = []
    for line in body:
        head = line[:width]
        if quoted or prefix.strip() in ("%",):
            stripped.append(line[width:])
        else:
            stripped.append(line[len(head) - len(head.lstrip()) :] if head.strip() else line[width:])
    margin = min((len(s) - len(s.lstrip()) for s in stripped if s.strip()), default=0)
    return "".join(s[margin:] + "\n" for s in stripped)


def _outside_examples(source: str, examples: list[Region]) -> str | None:
    """The first line of a doctest block that is in no example, is not empty and is no comment."""
    end = 0
    for start, stop in [*((r.start, r.end) for r in examples), (len(source), len(source))]:
        for line in source[end:start].splitlines():
            if line.strip() and not line.lstrip().startswith(("#", ">>> #")):
                return line.strip()
        end = stop
    return None


def _refuse(message: str) -> Callable[[Example], str]:
    return lambda example: message


def _run_hidden(example: Example) -> None:
    """Run a block that the reader does not see; it may use the ledger."""
    __tracebackhide__ = True
    page = example.document
    assert isinstance(page, Page)
    page.namespace.setdefault(ACCESSOR, page.accessor)
    try:
        _execute(example)
    finally:
        if page.namespace.get(ACCESSOR) == page.accessor:
            del page.namespace[ACCESSOR]


def _run_shown(example: Example) -> None:
    """Run a block that the reader may copy: it finds only what the blocks above it made."""
    __tracebackhide__ = True
    _execute(example)


def _execute(example: Example) -> None:
    __tracebackhide__ = True
    PythonEvaluator()(example)


# -- calc


def _calc_regions(page: Page) -> Iterator[Region]:
    """The calcs of the prose, of formulas and of directive options, with what is ``\\given`` noted on the way."""
    for start, end, kind in _stretches(page.layout.lines):
        yield from _scan(page, start, end, "math" if kind == "math" else "text")


def _stretches(lines: list[Line]) -> Iterator[tuple[int, int, str]]:
    """Runs of lines of one kind: a code span may go over a line break, but not out of its paragraph."""
    run: list[Line] = []
    for line in [*lines, Line(0, "", "end")]:
        breaks = not line.text.strip() or (run and line.kind != run[0].kind)
        if run and breaks:
            yield run[0].start, run[-1].start + len(run[-1].text), run[0].kind
            run = []
        if line.kind in ("text", "math", "option", "fence") and line.text.strip():
            run.append(line)


def _scan(page: Page, start: int, end: int, place: str) -> Iterator[Region]:
    text = page.text
    at = start
    while found := INLINE.search(text, at, end):
        at = found.end()
        if is_escaped(text, found.start("role") if found["role"] else found.start()):
            continue
        if found["macro"]:
            close = closing_brace(text, found.end(), end)
            if close is None:
                yield _calc(page, found.start(), end, Calc(text[found.end() : end], "math"), "a brace is not closed")
                return
            content = text[found.end() : close]
            if found["macro"] == "given":
                page.given.append((found.start(), close + 1, as_math(content)))
            else:
                yield _calc(page, found.start(), close + 1, Calc(content, "math"))
            at = close + 1
            continue
        if place == "math":
            continue
        ticks = found["ticks"]
        closing = re.compile(rf"(?<!`){ticks}(?!`)").search(text, found.end(), end)
        if closing is None:
            if found["role"] == "{calc}":
                yield _calc(page, found.start(), end, Calc("", "text"), "a backtick is not closed")
            continue
        if found["role"] == "{calc}":
            calc = Calc(text[found.end() : closing.start()], _place(page, found.start()))
            yield _calc(page, found.start(), closing.end(), calc)
        elif found["role"] == "{math}":
            yield from _scan(page, found.end(), closing.start(), "math")
        at = closing.end()


def is_escaped(text: str, at: int) -> bool:
    return (at - len(text[:at].rstrip("\\"))) % 2 == 1


def closing_brace(text: str, at: int, end: int) -> int | None:
    depth = 1
    for place in range(at, end):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
    return None


def _place(page: Page, at: int) -> str:
    """Where a calc in text stands: in a heading or an option the bare value goes in."""
    begin = page.text.rfind("\n", 0, at) + 1
    head = page.text[begin:at]
    line = next(line for line in page.layout.lines if line.start == begin)
    return "bare" if re.match(r"[ \t>]*#{1,6}[ \t]", head) or line.kind == "option" else "text"


def _calc(page: Page, start: int, end: int, calc: Calc, problem: str = "") -> Region:
    if page.text.count("\n", start, end) > 1:
        problem = "a calc goes over at most one line break: name the value in an invisible block first"

    def evaluator(example: Example) -> str | None:
        if problem:
            return problem
        try:
            page.values[start] = evaluate(calc.source, {ACCESSOR: page.accessor, **page.namespace})
        except ProseError as error:
            return str(error)
        return None

    return Region(start, end, calc, evaluator)


# ---------------------------------------------------------------------------------------------------------------------
# Docstrings


class Docstrings(PythonDocStringDocument):
    """The docstrings of a module; each begins with the module's names alone, as a reader would."""

    @classmethod
    def parse(cls, path: str, *parsers: Any, encoding: str = "utf-8") -> Docstrings:
        text = Path(path).read_text(encoding=encoding)
        document = cls(text, path)
        for start, end, _ in cls.extract_docstrings(text):
            names: dict[str, Any] = {}
            for region in DocTestStringParser(doctest_evaluator())(text[start:end], path):
                region.start += start
                region.end += start
                region.evaluator = cls._isolated(region.evaluator, names)
                document.add(region)
        return document

    @staticmethod
    def _isolated(evaluator: Any, names: dict[str, Any]) -> Any:
        def evaluate(example: Example) -> Any:
            if not names:
                names.update(example.document.namespace)
            example.namespace = names
            return evaluator(example)

        return evaluate


# ---------------------------------------------------------------------------------------------------------------------
# Sphinx


class computed(nodes.inline):
    """A computed value in the text; its title is the expression."""


def computed_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """``{computed}`value␟expression```: what a calc has become."""
    value, _, expression = text.partition(SEPARATOR)
    return [computed(rawtext, value, classes=["computed"], title=expression)], []


def given_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, content: Any = None
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """``{given}`512```: a number that is chosen."""
    return [nodes.inline(rawtext, as_text(text), classes=["given"])], []


def _visit_computed(self: Any, node: computed) -> None:
    self.body.append(self.starttag(node, "span", "", title=node["title"]))


def _depart_computed(self: Any, node: computed) -> None:
    self.body.append("</span>")


def _pass(self: Any, node: computed) -> None:
    pass


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("guide_ext.claims")
    app.setup_extension("guide_ext.translations")
    app.add_role("computed", computed_role)
    app.add_role("given", given_role)
    others: dict[str, Any] = dict.fromkeys(("latex", "text", "man", "texinfo"), (_pass, _pass))
    app.add_node(computed, html=(_visit_computed, _depart_computed), **others)
    app.connect("source-read", execute, priority=100)
    app.connect("env-purge-doc", lambda app, env, docname: failures(env).pop(docname, None))
    app.connect("env-merge-info", merge)
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: set(failures(env)) & env.found_docs)
    app.connect("build-finished", conclude, priority=900)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True, "parallel_write_safe": True}


def failures(env: BuildEnvironment) -> dict[str, list[tuple[int, str]]]:
    """Which pages failed, kept over builds: a page that failed is read again by the next one."""
    if not hasattr(env, "guide_failures"):
        env.guide_failures = {}  # type: ignore[attr-defined]
    return env.guide_failures  # type: ignore[attr-defined]


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: BuildEnvironment) -> None:
    failures(env).update({name: found for name, found in failures(other).items() if name in docnames})


def execute(app: Sphinx, docname: str, content: list[str]) -> None:
    """Run a page before Sphinx parses it, and put its values into the text."""
    from guide_ext import claims, translations  # here, because both show numbers with this module

    path = Path(app.env.doc2path(docname))
    if path.suffix != ".md":
        return
    page = parse(content[0], str(path), claims.ledger(app.config).measured)
    if not page.regions and not page.given:
        return
    page.run()
    content[0] = translations.text_of(page, app.env)
    for source in dependencies(page.code):
        app.env.note_dependency(str(source), docname=docname)
    claims.note_use(app.env, docname, page.measured_ids)
    if page.failures:
        failures(app.env)[docname] = page.failures
        for line, message in page.failures:
            logger.error("%s", message, location=f"{path}:{line}", type="guide", subtype="prose")


def dependencies(code: str) -> set[Path]:
    """The files of the package that a page's code uses."""
    from guide_ext import freshness

    try:
        return set(freshness.dependencies_of(code))
    except SyntaxError:  # the page has failed already, and is read again anyway
        return set()


def conclude(app: Sphinx, exception: Exception | None) -> None:
    """A page that failed fails the build, with or without ``-W``."""
    failed = failures(app.env) if exception is None and app.env is not None else {}
    if failed:
        app.statuscode = 1
