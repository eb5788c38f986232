r"""Refuses numbers that are typed where code knows them.

    python -m guide_ext.lint docs

In the prose, tables, captions and formulas of the home page, the chapters and the appendices, a decimal, a
percentage, a number in scientific notation or an integer of thirteen or more is computed (``{calc}``, ``\calc``)
or marked as chosen (``{given}``, ``\given``). Free are code, link targets, citations, years, references such as
"Chapter 14", and names such as GPT-2, float32 or Llama 2 70B.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from guide_ext.prose import DIRECTIVE, FENCE, INLINE, Layout, Line, closing_brace, is_escaped, layout

LARGEST = 12  # integers up to here are words in figures: three steps, eight heads, twelve layers
PATTERNS = ("index.md", "chapters/*.md", "appendices/*.md")
TITLED = {"admonition", "dropdown", "table", "list-table", "card", "grid-item-card", "tab-item", "topic", "sidebar"}

NUMBER = re.compile(
    r"""
    (?P<whole>\d+(?:(?:,|\{,\}|\\,)\d{3})*)
    (?P<fraction>\.\d+)?
    (?P<exponent>[eE][-+]?\d+|\^\{?-?\d+\}?(?<=\d|\}))?
    (?P<percent>[ \u00a0]?(?:\\?%|per[ ]?cent\b))?
    """,
    re.VERBOSE,
)

PLACES = (
    "chapter|section|equation|figure|table|theorem|lemma|appendix|algorithm|exercise|page|line|step|issue|"
    "definition|corollary|proposition"
)
PLACE = r"\d+(?:\.\d+)*"

# What a number may be part of: the whole match is free of the lint.
FREE = [
    re.compile(pattern, flags)
    for pattern, flags in (
        (r"\]\((?:[^()\s]|\([^()]*\))*(?:\s+\"[^\"]*\")?\)", 0),  # the target of a link or an image
        (r"^[ \t]*\[[^\]]+\]:.*$", re.MULTILINE),  # a link or footnote definition's target
        (r"<(?:https?|mailto):[^>]*>", 0),
        (r"https?://\S+", 0),
        (r"</?[a-zA-Z][^<>]*>", 0),  # an HTML tag
        (r"\[\^[^\]]+\]", 0),  # a footnote's mark
        (r"^\([\w.:-]+\)=[ \t]*$", re.MULTILINE),  # a target
        (r"^[ \t]*\{[#.][^}\n]*\}[ \t]*$", re.MULTILINE),  # attributes of a block
        (r"(?<=[\])`*])\{[#.\w][^}\n]*\}", 0),  # attributes of an inline element
        (r"^[ \t>]*\d+[.)](?=[ \t])", re.MULTILINE),  # a list's marker
        (r"\barXiv:\s?\d{4}\.\d{4,5}(?:v\d+)?", 0),
        (r"\b10\.\d{4,9}/\S+", 0),  # a DOI
        (r"\bPython (?:>= ?|≥ ?)?3\.\d+", 0),
        (r"\b\d+-bit\b", 0),
        (r"\b\d{1,2} (?:January|February|March|April|May|June|July|August|September|October|November|December)\b", 0),
        # a reference: one number or range after the singular, several after the plural
        (rf"\b(?:{PLACES})[ \u00a0]{PLACE}(?:[-–]{PLACE})?", re.IGNORECASE),
        (rf"\b(?:{PLACES})s[ \u00a0]{PLACE}(?:(?:, | and | to | or |[-–]){PLACE})*", re.IGNORECASE),
        (rf"\bpp\.[ \u00a0]{PLACE}(?:[-–]{PLACE})?", 0),
        (r"\b[A-Z]\w*(?:\.\d+)?(?:[- ]v?\d+(?:\.\d+)*)?[- ]\d+(?:\.\d+)?[BM]\b", 0),  # Llama 2 70B, GPT-3 175B
        (r"\\[hv]space\*?\{[^}]*\}|\\\\\[[^\]]*\]|\\(?:begin|end)\{[^}]*\}|\\(?:label|eqref|ref|tag)\{[^}]*\}", 0),
    )
]


@dataclass(frozen=True)
class Finding:
    """A typed number and where it stands."""

    path: str
    line: int
    column: int
    number: str

    def __str__(self) -> str:
        return (
            f"{self.path}:{self.line}:{self.column}: {self.number} is typed: compute it with {{calc}} "
            r"(\calc in a formula), or mark it as chosen with {given} (\given)"
        )


def check(text: str, path: str = "<text>") -> list[Finding]:
    """The numbers that are typed in a page.

    >>> [finding.number for finding in check("The weight is 0.67, as {calc}`w:.2f` in GPT-2 and in 2017.")]
    ['0.67']
    """
    page = layout(text)
    visible = _mask(text, page)
    return [
        Finding(path, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at), number)
        for at, number in _numbers(visible)
    ]


def _numbers(visible: str) -> Iterator[tuple[int, str]]:
    for match in NUMBER.finditer(visible):
        before = visible[max(match.start() - 2, 0) : match.start()]
        if re.search(r"[^\W\d]$|[^\W\d_]-$|\d[.,]$", before):  # part of a name: float32, GPT-2, x_13
            continue
        whole = int(re.sub(r"\D", "", match["whole"]))
        is_year = len(match["whole"]) == 4 and 1900 <= whole < 2040
        after = visible[match.end() : match.end() + 1]
        if match["fraction"] or match["percent"] or (match["exponent"] and _is_power_of_ten(match)):
            yield match.start(), match[0].strip()
        elif whole > LARGEST and not (is_year and not after.isalpha()):
            yield match.start(), match["whole"]


def _is_power_of_ten(match: re.Match[str]) -> bool:
    """``1e-5`` and ``10^{-5}`` are numbers; ``2^n`` and ``3^2`` are formulas."""
    return match["exponent"][0] in "eE" or match["whole"] == "10"


def _mask(text: str, page: Layout) -> str:
    """The text with spaces in place of all that the lint leaves alone; offsets stay."""
    shown = list(text)

    def hide(start: int, end: int) -> None:
        for place in range(start, end):
            if shown[place] != "\n":
                shown[place] = " "

    run: list[Line] = []
    for line in [*page.lines, Line(len(text), "", "end")]:
        if run and (line.kind != run[0].kind or not line.text.strip()):
            for start, end in _free_inline(text, run[0].start, run[-1].start + len(run[-1].text), run[0].kind):
                hide(start, end)
            run = []
        if line.kind in ("text", "math") and line.text.strip():
            run.append(line)
        elif line.kind == "fence" and (title := _title(line.text)):
            hide(line.start, line.start + title)
            for start, end in _free_inline(text, line.start + title, line.start + len(line.text), "text"):
                hide(start, end)
        else:
            hide(line.start, line.start + len(line.text))
    masked = "".join(shown)
    for pattern in FREE:
        masked = pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), masked)
    return masked


def _title(line: str) -> int | None:
    """Where the title that a reader sees begins in a directive's opening line."""
    fence = FENCE.match(line)
    directive = DIRECTIVE.match(fence["info"]) if fence else None
    if fence and directive and directive["name"] in TITLED and directive["argument"]:
        return fence.start("info") + directive.start("argument")
    return None


def _free_inline(text: str, start: int, end: int, kind: str) -> Iterator[tuple[int, int]]:
    """Code spans, roles other than ``math``, and what is ``\\calc`` or ``\\given``."""
    at = start
    while found := INLINE.search(text, at, end):
        at = found.end()
        if is_escaped(text, found.start()):
            continue
        if found["macro"]:
            close = closing_brace(text, found.end(), end)
            at = end if close is None else close + 1
            yield found.start(), at
        elif kind == "text":
            closing = re.compile(rf"(?<!`){found['ticks']}(?!`)").search(text, found.end(), end)
            if closing and found["role"] == "{math}":
                yield from _free_inline(text, found.end(), closing.start(), "math")
            elif closing:
                yield found.start(), closing.end()
            at = closing.end() if closing else at


def pages(paths: Iterable[Path]) -> Iterator[Path]:
    """The files to look at: of a folder the home page, the chapters and the appendices; a file as it is."""
    for path in paths:
        if path.is_dir():
            for pattern in PATTERNS:
                yield from sorted(path.glob(pattern))
        else:
            yield path


def main(arguments: list[str]) -> int:
    findings = [
        finding
        for path in pages(map(Path, arguments or ["docs"]))
        for finding in check(path.read_text(encoding="utf-8"), str(path))
    ]
    for finding in findings:
        print(finding)
    if findings:
        print(f"{len(findings)} typed number{'s' * (len(findings) > 1)}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
