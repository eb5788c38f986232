"""Typed numbers are found, and what only looks like one is left alone."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from guide_ext import lint

ROOT = Path(__file__).resolve().parents[2]


def numbers(text: str) -> list[str]:
    return [finding.number for finding in lint.check(textwrap.dedent(text))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The weight is 0.67 here.", ["0.67"]),
        ("About -0.5 or +1.0, even (0.25).", ["0.5", "1.0", "0.25"]),
        ("It falls by 5% or 7 % or 3 percent.", ["5%", "7 %", "3 percent"]),
        ("With 200,000 samples and 512 keys.", ["200,000", "512"]),
        ("A width of 2048 and of 1024.", ["2048", "1024"]),
        ("13 heads, not 12.", ["13"]),
        ("An error of 1e-5 and of 2.5E+3.", ["1e-5", "2.5E+3"]),
        ("16x faster, 100K tokens, 4096-token windows, 64KiB.", ["16", "100", "4096", "64"]),
        ("| a | 0.1 |\n|---|---|\n| 17 | b |", ["0.1", "17"]),
        ("# At 512 the variance grows", ["512"]),
        ("- item with 3.5\n- another", ["3.5"]),
        ("> quoted 3.5", ["3.5"]),
        ("$x = 0.5$ and $d_k = 512$", ["0.5", "512"]),
        ("$$\n\\frac{1}{\\sqrt{512}} = 10^{-3} + 10{,}000\n$$", ["512", "10^{-3}", "10{,}000"]),
        ("```{math}\nx = 0.25\n```", ["0.25"]),
        ("{math}`x = 0.25`", ["0.25"]),
        ("50\\% of $30\\%$", ["50\\%", "30\\%"]),
        (":::{figure} a.svg\n:alt: 0.5\nThe caption says 0.6.\n:::", ["0.6"]),
        (":::{admonition} In 0.7 of the cases\nAnd 0.8.\n:::", ["0.7", "0.8"]),
        (":::{claim} home-x\nThe variance is 64.\n:::", ["64"]),
        ("::::{dropdown} Solution\n:::{note}\n0.9\n:::\n::::", ["0.9"]),
        ("[0.5 of them](page.md#part-512) and ![a 0.6](x.svg)", ["0.5", "0.6"]),
        ("In 2017 and 1899, 2100 and 2048.", ["1899", "2100", "2048"]),
        ("{calc}`x:.2f` is 0.4", ["0.4"]),
        ("One `0.3` span, ``0.2`` two, 0.1 typed.", ["0.1"]),
        ("The ratio 1/64 and 3:16.", ["64", "16"]),
        ("In Chapter 12, 45 of them", ["45"]),
        ("from -12 to 45.", ["45"]),
    ],
)
def test_typed_numbers_are_found(text, found):
    assert numbers(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "Three heads, 8 heads, twelve or 12 layers; [1, 2, 3]; 0 and 1.",
        "The value {calc}`1 / 3:.2f` and {given}`0.5` and {computed}`0.67`.",
        r"$\calc{x:.2f} + \given{512} + \frac{\calc{y[0.5]}}{2}$",
        "{math}`x = \\given{0.25}`",
        "Code `0.5`, ``a 0.5 b`` and {py:func}`f(0.5)`.",
        "```python\nx = 0.5\n```\n\n```text\n99.5\n```\n\n~~~\n99.5\n~~~",
        "````markdown\n```python\n0.5\n```\nText 0.5\n````",
        "Vaswani et al. (2017), 1995 to 2030.",
        "Chapter 14, Section 3.2.1, equation 27, equations 13 and 14, Figure 4.2, Table 99, page 512, pp. 13-15.",
        "GPT-2, GPT-3.5, T5, BERT-base, float32, bfloat16, x86, H100.",
        "Llama 2 70B, Llama 3.1 405B, Mistral 7B, GPT-3 175B, Qwen2.5-72B.",
        "Python 3.11, Python >= 3.11, 16-bit floats.",
        "[text](https://example.org/2.5/300) and <https://example.org/99.5> and https://example.org/0.5",
        '[text](page.md#part-512 "a title")\n\n[ref]: https://example.org/512',
        "Text.[^13]\n\n[^13]: https://example.org/512",
        "arXiv:1706.03762 and arXiv: 1706.03762v7, doi 10.18653/v1/D15-1166",
        "(target-512)=\n# Heading",
        "{#id-512}\n# Heading",
        '<span class="w-100" style="width: 12.5px">text</span>',
        "---\nvalue: 0.5\n---\n\nText.",
        "% a comment, 0.5\n\n<!-- another, 0.5 -->",
        ":::{figure} a-512.svg\n:width: 62.5%\n:alt: 0.5\nText.\n:::",
        ":::{gallery-figure} concepts-512\n:::",
        "13. an item\n14. another",
        "On 12 June 2017, 31 December 2024.",
        "{cite:p}`vaswani2017` and {cite:t}`x-512`",
        r"$x_{12} \hspace{0.5em} \\[0.25em] \begin{array}{ll} y \end{array}$",
        "$2^n$, $n^2$, $x_1^{12}$",
    ],
)
def test_what_is_free_is_left_alone(text):
    assert numbers(text) == []


def test_a_finding_says_where_and_what_to_do(tmp_path, capsys):
    page = tmp_path / "docs" / "chapters" / "0-concepts.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Title\n\nSome text\nand 0.67 in it, $x = 12.5$.\n", encoding="utf-8")
    (tmp_path / "docs" / "develop").mkdir()
    (tmp_path / "docs" / "develop" / "x.md").write_text("0.5\n", encoding="utf-8")
    assert lint.main([str(tmp_path / "docs")]) == 1
    first, second, count = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{page}:4:5: 0.67 is typed: compute it with {{calc}}")
    assert "{given}" in first
    assert second.startswith(f"{page}:4:22: 12.5 is typed")
    assert count == "2 typed numbers"
    page.write_text("# Title\n", encoding="utf-8")
    assert lint.main([str(tmp_path / "docs")]) == 0
    assert capsys.readouterr().out == ""


def test_this_guide_types_no_number():
    findings = [
        str(finding)
        for path in lint.pages([ROOT / "docs"])
        for finding in lint.check(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert findings == []
