"""Pages in another language: the numbers stay computed, and a catalog that is not sound fails the build."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from guide_ext import claims, translations
from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser
from small_guide import CONF, Project

from tools import translations as tool

ROOT = Path(__file__).resolve().parents[2]
CATALOGS = list(tool.catalogs(ROOT / "docs" / "locale"))
PAGES = [(language, page, path) for language, page, path in CATALOGS if page != "sphinx"]

SENTENCE = r"The root of {given}`9` is {calc}`sqrt(n):.2f`, and $x = \calc{n - 1} + \given{2}$."
HINDI = r"$x = \calc{n - 1} + \given{2}$ है, और {given}`9` का वर्गमूल {calc}`sqrt(n):.2f` है।"
PAGE = f"""\
# Roots of {{calc}}`n`

% invisible-code-block: python
% from math import sqrt
% n = 9

{SENTENCE}

:::{{image}} picture.svg
:alt: At 64 it took 0.25 ms
:::
"""
TRANSLATED = {
    "Roots of {calc}`n`": "{calc}`n` के मूल",
    SENTENCE: HINDI,
    "At {1} it took {2} ms": "{2} मिलीसेकंड लगे, {1} पर",
}


@pytest.fixture
def guide(project: Project) -> Project:
    """A small guide of one page, with its catalog."""
    project.write("conf.py", CONF + 'locale_dirs = ["locale"]\ngettext_compact = False\n')
    # n is known to the heading only if it is made before it
    project.write("docs/index.md", moved(PAGE))
    project.write("docs/picture.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>')
    translate(project, TRANSLATED)
    return project


def moved(page: str) -> str:
    """The hidden block before the heading that shows what it makes."""
    block = re.search(r"(?:^%.*\n)+\n", page, re.MULTILINE)
    assert block is not None
    return block[0] + page.replace(block[0], "")


def translate(project: Project, messages: dict[str, str]) -> Path:
    catalog = Catalog(locale="hi", fuzzy=False)
    for message, translation in messages.items():
        catalog.add(message, translation)
    path = project.root / "docs/locale/hi/LC_MESSAGES/index.po"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalog, width=0)
    return path


def messages(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        return {str(message.id): str(message.string) for message in read_po(file) if message.id}


def computed(expression: str, value: str) -> str:
    return f'<span class="computed" title="{expression}">{value}</span>'


def in_hindi(project: Project) -> str:
    outcome = project.build("-W", "-D", "language=hi")
    assert outcome.code == 0, outcome.output
    return project.html()


# -- numbers


def test_a_translation_shows_what_the_page_computes_whatever_it_is(guide):
    html = in_hindi(guide)
    assert '<html lang="hi"' in html
    assert f"<h1>{computed('n', '9')} के मूल" in html
    assert r"\(x = 8 + 2\)" in html
    assert f'<span class="given">9</span> का वर्गमूल {computed("sqrt(n):.2f", "3.00")} है।' in html
    assert 'alt="0.25 मिलीसेकंड लगे, 64 पर"' in html

    guide.write("docs/index.md", moved(PAGE).replace("n = 9", "n = 16").replace("0.25", "0.50"))
    html = in_hindi(guide)
    assert f"<h1>{computed('n', '16')} के मूल" in html
    assert r"\(x = 15 + 2\)" in html
    assert f"का वर्गमूल {computed('sqrt(n):.2f', '4.00')} है।" in html
    assert 'alt="0.50 मिलीसेकंड लगे, 64 पर"' in html


DRAWN = """
from docutils import nodes
from docutils.parsers.rst import Directive

class Drawn(Directive):
    has_content = True
    def run(self):
        text = " ".join(self.content)
        caption = nodes.caption(text, text, drawn=True)
        caption.source, caption.line = "index.md", self.lineno
        return [nodes.figure("", caption)]

def setup(app):
    app.add_directive("drawn", Drawn)
"""


@pytest.mark.parametrize("caption", ["Width 64, from 20 seeds.", "Width 128, from 5 seeds."])
def test_the_numbers_of_a_caption_are_those_of_the_script_that_draws(guide, caption):
    guide.write("conf.py", (guide.root / "conf.py").read_text() + DRAWN)
    guide.write("docs/index.md", moved(PAGE) + f"\n:::{{drawn}}\n{caption}\n:::\n")
    assert caption in in_hindi(guide), "without a translation it stays as it is"
    translate(guide, TRANSLATED | {"Width {1}, from {2} seeds.": "{2} सीड से, चौड़ाई {1}।"})
    first, second = re.findall(r"\d+", caption)
    assert f"{second} सीड से, चौड़ाई {first}।" in in_hindi(guide)


def test_the_page_itself_does_not_change(guide):
    assert guide.build("-W", "-E").code == 0
    english = guide.html()
    assert "<h1>Roots of 9" in english
    assert r"\(x = 8 + 2\)" in english
    for path in guide.root.glob("docs/locale/hi/LC_MESSAGES/*"):
        path.unlink()
    assert guide.build("-W", "-E").code == 0
    assert guide.html() == english
    assert "<h1>Roots of 9" in in_hindi(guide), "a page without a catalog stays as it is"
    assert r"\(x = 8 + 2\)" in guide.html()


def test_the_messages_of_a_page_hold_expressions_and_no_values(guide):
    outcome = guide.build("-W", builder="gettext")
    assert outcome.code == 0, outcome.output
    assert set(messages(guide.root / "_build/gettext/index.pot")) == set(TRANSLATED)


def test_a_claim_keeps_its_numbers_where_claims_are_listed(guide):
    guide.write(
        "tests/claims/test_home.py",
        'import pytest\n\n\n@pytest.mark.claim("home-x")\ndef test_x(claim):\n    claim.require("holds", True)\n',
    )
    guide.write(
        "docs/index.md", moved(PAGE) + "\n:::{claim} home-x\nIt is $\\calc{n + 3}$.\n:::\n\n:::{claims-list}\n:::\n"
    )
    html = in_hindi(guide)
    assert html.count(r"\(12\)") == 2
    assert "calc{" not in html


def test_a_translation_with_another_calc_fails_the_build_every_time(guide):
    wrong = HINDI.replace("sqrt(n)", "sqrt(m)").replace("n - 1", "n - 2")
    path = translate(guide, TRANSLATED | {SENTENCE: wrong})
    line = 1 + path.read_text(encoding="utf-8").splitlines().index(f'msgid "{escaped(SENTENCE)}"')
    for _ in range(2):
        outcome = guide.build("-D", "language=hi")
        assert outcome.code == 1
        assert "lacks {calc}`sqrt(n):.2f`" in outcome.output
        assert "adds {calc}`sqrt(m):.2f`" in outcome.output
        assert r"adds $x = \calc{n - 2} + \given{2}$" in outcome.output
        assert f"{path}:{line}:" in outcome.output
    translate(guide, TRANSLATED)
    in_hindi(guide)


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def test_an_expression_with_two_values_is_refused_on_a_page_that_is_translated(guide):
    again = "\n% invisible-code-block: python\n% n = 4\n\nNow {calc}`n`.\n"
    guide.write("docs/index.md", moved(PAGE) + again)
    assert guide.build("-W").code == 0
    outcome = guide.build("-D", "language=hi")
    assert outcome.code == 1
    assert "index.md:16: ERROR: n has two values on this page" in outcome.output


@pytest.mark.parametrize(
    ("message", "translation", "wrong"),
    [
        ("{term}`Softmax <softmax>` of `x`", "`x` का {term}`सॉफ़्टमैक्स <softmax>`", []),
        ("{term}`softmax`", "{term}`सॉफ़्टमैक्स <softmax>`", []),
        ("{term}`softmax`", "{term}`सॉफ़्टमैक्स`", ["lacks {term}`softmax`", "adds {term}`सॉफ़्टमैक्स`"]),
        ("{cite:p}`a,b`", "{cite:p}`a`", ["lacks {cite:p}`a,b`", "adds {cite:p}`a`"]),
        ("See [here](#x) at $n$", "$n$ पर [यहाँ](#x) देखिए", []),
        ("See [here](#x) at $n$", "$m$ पर [यहाँ](#y)", ["lacks $n$", "lacks ](#x)", "adds $m$", "adds ](#y)"]),
        ("{calc}`n:.2f`", "3.00", ["lacks {calc}`n:.2f`", "adds the number 3.00"]),
        ("{calc}`n:.2f`", "{calc}`n:.3f`", ["lacks {calc}`n:.2f`", "adds {calc}`n:.3f`"]),
        (r"$\calc{n}$", "$3$", [r"lacks $\calc{n}$", "adds $3$"]),
        ("{given}`9`", "{given}`10`", ["lacks {given}`9`", "adds {given}`10`"]),
        ("Twice $n$ and $n$", "$n$", ["lacks $n$"]),
        ("Two of three, section 3.2", "3 में से 2, भाग 3.2", []),
        ("About half", "लगभग 0.5", ["adds the number 0.5"]),
        ("{1} of {2}", "{2} में से {1}", []),
        ("{1} of {2}", "{2} में से {2}", ["lacks {1}", "adds {2}"]),
        (r"\frac{\calc{n}}{2}", r"\frac{\calc{n}}{3}", ["a formula is translated as it is"]),
    ],
)
def test_what_a_translation_has_to_keep(message, translation, wrong):
    assert translations.differences(message, translation) == wrong


def test_the_examples_of_the_module_hold():
    result = doctest.testmod(translations)
    assert result.attempted > 3
    assert result.failed == 0


# -- the catalogs that are shipped


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs, headings, items and cells of a page, in directives too, as messages."""
    extensions = {
        "amsmath",
        "attrs_block",
        "attrs_inline",
        "colon_fence",
        "deflist",
        "dollarmath",
        "fieldlist",
        "tasklist",
    }
    parser = create_md_parser(MdParserConfig(enable_extensions=extensions, dmath_double_inline=True), RendererHTML)
    for token in parser.parse(text):
        if token.type == "inline" and token.content.strip():
            yield " ".join(re.sub(r"\s*\{#[\w-]+\}$", "", token.content).split())
        elif token.type == "colon_fence" and not token.info.startswith(("{gallery-figure}", "{errata-table}")):
            yield from paragraphs(re.sub(r"^:[\w-]+:.*\n", "", token.content, flags=re.MULTILINE))


@pytest.mark.parametrize(("language", "page", "path"), PAGES)
def test_a_shipped_catalog_knows_every_sentence_of_its_page(language, page, path):
    known = messages(path)
    sentences = set(paragraphs((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")))
    assert len(sentences) > 0.5 * len(known), "else the sentences are not found"
    assert sentences - set(known) == set(), f"{page} has changed: run make gettext and commit docs/locale"


@pytest.mark.parametrize(("language", "page", "path"), CATALOGS)
def test_a_shipped_catalog_is_whole_and_sound(language, page, path):
    catalog = tool.read(path, language)
    assert list(translations.unsound(catalog)) == []
    assert [m.id for m in catalog if m.id and not m.string] == []
    fuzzy = [m.id for m in catalog if m.id and m.fuzzy]
    assert len(fuzzy) <= 0.1 * len(catalog), "look at the messages that have changed since"


def test_hindi_is_shipped():
    assert {("hi", "chapters/1-self-attention"), ("hi", "sphinx")} <= {(code, page) for code, page, _ in CATALOGS}


@pytest.mark.parametrize("path", [path for _, page, path in CATALOGS if page == "sphinx"])
def test_what_the_guide_writes_around_its_pages_is_translated(path):
    sources = [*(ROOT / "docs/_templates").glob("*.html"), *(ROOT / "docs/_ext/guide_ext").glob("*.py")]
    wanted = {text for file in sources for text in re.findall(r'\b_\("([^"]+)"\)', file.read_text(encoding="utf-8"))}
    assert len(wanted) > 5
    assert (wanted | set(claims.STATUS.values()) | {"Search the guide"}) - set(messages(path)) == set()


# -- the tool


def test_a_changed_sentence_keeps_its_translation_as_fuzzy(guide, capsys):
    templates, locales = guide.root / "_build/gettext", guide.root / "docs/locale"
    folders = ["--templates", str(templates), "--locales", str(locales)]
    guide.build(builder="gettext")
    assert tool.main([*folders, "refresh"]) == 0
    assert tool.main([*folders, "check", "hi"]) == 0
    assert "hi index: 3 of 3 messages translated" in capsys.readouterr().out
    before = (locales / "hi/LC_MESSAGES/index.po").read_bytes()
    assert tool.main([*folders, "refresh"]) == 0
    assert (locales / "hi/LC_MESSAGES/index.po").read_bytes() == before

    guide.write("docs/index.md", moved(PAGE).replace("The root", "The positive root"))
    guide.build(builder="gettext")
    assert tool.main([*folders, "refresh"]) == 0
    assert tool.main([*folders, "check", "hi"]) == 0
    assert "hi index: 2 of 3 messages translated" in capsys.readouterr().out
    html = in_hindi(guide)
    assert "The positive root" in html
    assert "के मूल" in html


def test_a_language_is_started_and_a_catalog_that_is_wrong_is_named(guide, capsys):
    templates, locales = guide.root / "_build/gettext", guide.root / "docs/locale"
    folders = ["--templates", str(templates), "--locales", str(locales)]
    guide.build(builder="gettext")
    assert tool.main([*folders, "start", "fr", "index"]) == 0
    path = locales / "fr/LC_MESSAGES/index.po"
    assert messages(path) == dict.fromkeys(TRANSLATED, "")
    assert tool.main([*folders, "start", "fr", "nothing"]) == 2
    assert tool.main([*folders, "start", "not a language", "index"]) == 2
    assert tool.main([*folders, "check", "de"]) == 1
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('msgstr ""\n', 'msgstr "Racines"\n').replace('"Racines"', '""', 1), encoding="utf-8")
    capsys.readouterr()
    assert tool.main([*folders, "check", "fr"]) == 1
    said = capsys.readouterr()
    assert "fr index: 3 of 3" in said.out
    assert re.search(r"fr/LC_MESSAGES/index.po:\d+: the translation of 'Roots of .* lacks \{calc\}`n`", said.err)
